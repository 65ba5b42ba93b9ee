"""Line charts as a PNG, for places that show no HTML. Drawn with Pillow, which TensorBoard needs anyway."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

SCALE = 3  # drawn this many times larger, then shrunk: smooth lines
SIZE = (1100, 420)  # pixels
TOP, BOTTOM, LEFT, RIGHT, BETWEEN = 78, 34, 52, 14, 56  # margins of the panels, in pixels
PAPER, INK, MUTED, GRID = "#fcfbf8", "#1f1e1b", "#68655e", "#e3dfd6"
COLORS = ("#1d5b9b", "#b0472f", "#2f7d5b", "#7c4a92", "#1f7a86", "#68655e")
BENCHMARK = "#a8762a"


@dataclass(frozen=True)
class Curve:
    """values: evenly spaced from left to right, NaN for a gap. An unnamed curve is not in the legend."""

    values: Sequence[float]
    color: str
    name: str = ""
    width: float = 2.0


@dataclass(frozen=True)
class Panel:
    """One chart. ticks: where along its width, from 0 to 1, and what to write there."""

    title: str
    curves: Sequence[Curve]
    ticks: Sequence[tuple[float, str]] = field(default_factory=tuple)


def line_chart(title: str, panels: Sequence[Panel]) -> bytes:
    """The PNG file of some panels side by side, with a common height scale and legend."""
    from PIL import Image, ImageDraw, ImageFont

    width, height = SIZE
    image = Image.new("RGB", (width * SCALE, height * SCALE), PAPER)
    pen = ImageDraw.Draw(image)
    fonts = {size: ImageFont.load_default(size * SCALE) for size in (11, 12, 15)}
    _text(pen, fonts[15], LEFT, 10, title, INK)
    _legend(pen, fonts[12], [curve for panel in panels for curve in panel.curves if curve.name])
    known = [v for panel in panels for curve in panel.curves for v in curve.values if math.isfinite(v)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    room = 0.04 * (high - low) or 0.5
    low, high = low - room, high + room
    across = (width - LEFT - RIGHT - BETWEEN * (len(panels) - 1)) / max(1, len(panels))
    for number, panel in enumerate(panels):
        x0 = LEFT + number * (across + BETWEEN)
        box = (x0, float(TOP), x0 + across, float(height - BOTTOM))
        _panel(pen, fonts[11], panel, box, low, high)
    file = BytesIO()
    image.resize(SIZE, Image.Resampling.LANCZOS).save(file, "PNG", optimize=True)
    return file.getvalue()


def nice_steps(low: float, high: float, most: int = 6) -> list[float]:
    """Round values within low and high, at most `most`, at 1, 2 or 5 times a power of ten."""
    span = high - low
    if not span > 0.0:
        return [low]
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= most)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [number * step for number in range(first, last + 1)]


def _panel(
    pen: "ImageDraw", font: Any, panel: Panel, box: tuple[float, float, float, float], low: float, high: float
) -> None:
    x0, y0, x1, y1 = box

    def y_of(value: float) -> float:
        return y1 - (value - low) / (high - low) * (y1 - y0)

    steps = nice_steps(low, high)
    digits = max(0, -math.floor(math.log10(steps[1] - steps[0]))) if len(steps) > 1 else 2
    for value in steps:
        _line(pen, [(x0, y_of(value)), (x1, y_of(value))], GRID, 1)
        label = f"{value:.{digits}f}"
        _text(pen, font, x0 - 8 - pen.textlength(label, font) / SCALE, y_of(value) - 7, label, MUTED)
    for place, label in panel.ticks:
        half = pen.textlength(label, font) / SCALE / 2
        x = min(max(x0 + place * (x1 - x0), x0 + half), x1 - half)
        _text(pen, font, x - half, y1 + 8, label, MUTED)
    for curve in panel.curves:
        piece: list[tuple[float, float]] = []
        for i, value in enumerate(curve.values):
            if math.isfinite(value):
                piece.append((x0 + i / max(1, len(curve.values) - 1) * (x1 - x0), y_of(value)))
            else:
                _line(pen, piece, curve.color, curve.width)
                piece = []
        _line(pen, piece, curve.color, curve.width)
    _text(pen, font, x0 + 4, y0 - 16, panel.title, MUTED)


def _legend(pen: "ImageDraw", font: Any, curves: Sequence[Curve]) -> None:
    x = float(LEFT)
    for name, color in {curve.name: curve.color for curve in curves}.items():
        _line(pen, [(x, 41), (x + 16, 41)], color, 2.4)
        _text(pen, font, x + 21, 34, name, INK)
        x += 21 + pen.textlength(name, font) / SCALE + 22


def _line(pen: "ImageDraw", points: Sequence[tuple[float, float]], color: str, width: float) -> None:
    if len(points) > 1:
        pen.line([(x * SCALE, y * SCALE) for x, y in points], fill=color, width=round(width * SCALE), joint="curve")


def _text(pen: "ImageDraw", font: Any, x: float, y: float, text: str, color: str) -> None:
    pen.text((x * SCALE, y * SCALE), text, fill=color, font=font)
