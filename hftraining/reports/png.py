"""Line charts as PNG, for places that show no HTML; matplotlib draws them without a screen."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

WIDTH, HEIGHT, DPI = 11.0, 4.2, 150  # inches and dots per inch: 1650 x 630 pixels
PAPER, INK, MUTED, GRID = "#fcfbf8", "#1f1e1b", "#68655e", "#e3dfd6"
COLORS = ("#1d5b9b", "#b0472f", "#2f7d5b", "#7c4a92", "#1f7a86", "#68655e")
LEFT = 0.04  # where title, legend and first panel begin, as a fraction of the width
BENCHMARK = "#a8762a"


@dataclass(frozen=True)
class Drawn:
    """A curve. values: evenly spaced from left to right, NaN for a gap. The legend leaves out unnamed curves."""

    values: Sequence[float]
    color: str
    name: str = ""
    width: float = 1.5  # points
    opacity: float = 1.0
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """A chart. ticks: the labels below its left and right end."""

    title: str
    curves: Sequence[Drawn]
    ticks: Sequence[str] = field(default_factory=tuple)


def line_chart(title: str, panels: Sequence[Panel]) -> bytes:
    """The PNG file of panels side by side, with a common vertical scale and legend."""
    figure = Figure((WIDTH, HEIGHT), DPI, facecolor=PAPER)
    FigureCanvasAgg(figure)
    figure.subplots_adjust(LEFT, 0.08, 0.985, 0.79, wspace=0.1)
    figure.text(LEFT, 0.94, title, color=INK, fontsize=12)
    named: dict[str, Line2D] = {}
    for axes, panel in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
        named |= _panel(axes, panel)
    look: dict[str, Any] = {"frameon": False, "labelcolor": INK, "fontsize": 9, "handlelength": 1.6}
    place: dict[str, Any] = {"bbox_to_anchor": (LEFT, 0.87), "borderaxespad": 0.0, "borderpad": 0.0}
    if named:
        figure.legend(list(named.values()), list(named), loc="lower left", ncols=len(named), **look, **place)
    file = BytesIO()
    figure.savefig(file, format="png", facecolor=PAPER)
    return file.getvalue()


def _panel(axes: Axes, panel: Panel) -> dict[str, Line2D]:
    """Draw a panel; returns the named curves by their names."""
    axes.set_title(panel.title, loc="left", color=MUTED, fontsize=9)
    axes.set_facecolor(PAPER)
    axes.spines[:].set_visible(False)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.tick_params(length=0, labelcolor=MUTED, labelsize=8, labelleft=True)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.margins(x=0)
    last = max(1, *(len(curve.values) - 1 for curve in panel.curves))
    axes.set_xticks([0, last][: len(panel.ticks)], panel.ticks)
    for label in axes.get_xticklabels():
        label.set_horizontalalignment("left" if label is axes.get_xticklabels()[0] else "right")
    named = {}
    for curve in panel.curves:
        dashes = (0, (3, 1.2)) if curve.dashed else "-"
        look: dict[str, Any] = {"color": curve.color, "alpha": curve.opacity, "linewidth": curve.width}
        (drawn,) = axes.plot(curve.values, linestyle=dashes, clip_on=False, **look)
        if curve.name:
            named[curve.name] = drawn
    return named
