"""The charts of a comparison: one colour for each group, its mean drawn strong and its seeds thin."""

from collections.abc import Sequence
from typing import Any

from hftraining.reports.charts import Figure, base_layout, level_line, line, loss_over_sharpe, note, vertical
from hftraining.reports.curves import Curve, growth_by_period, mean_of
from hftraining.reports.deltas import Group
from hftraining.runs.quantities import Estimate
from hftraining.runs.result import PERIODS

COLORS = ("--model", "--rust", "--profit", "--plum", "--teal", "--muted")
MOST_CURVES = len(COLORS)  # groups drawn; more would only be a tangle


def growth_chart(groups: Sequence[Group]) -> Figure | None:
    """What one unit of money became in each period: each group's mean over seeds, and buy and hold."""
    layout, data = base_layout(), list[dict[str, Any]]()
    layout["xaxis"] |= {"type": "date"}
    layout["yaxis"] |= {"tickformat": ".2f"}
    for period, held, curves in growth_by_period(groups):
        first = not data
        if held:
            data.append(_trace("buy and hold", held, "--benchmark", first))
            data[-1]["line"] = {"color": "--benchmark", "width": 1.4, "dash": "dot"}
        for color, (group, known) in zip(COLORS, curves, strict=False):
            if len(known) > 1:
                bare = {"hoverinfo": "skip", "hovertemplate": None, "opacity": 0.3}
                thin = bare | {"line": {"color": color, "width": 0.8}}
                data += [_trace(group.name, curve, color, False) | thin for curve in known]
            if known:
                data.append(_trace(group.name, mean_of(known), color, first))
        start = min(min(curve) for _, known in curves for curve in known)
        if not first:
            layout["shapes"].append(vertical(start))
        layout["annotations"].append(note(PERIODS[period], start, "--muted"))
    layout["shapes"].append(level_line(1.0))
    return {"data": data, "layout": layout} if data else None


def probes_comparison(groups: Sequence[Group], losses_compare: bool) -> Figure | None:
    """The validation loss above, left out where it misleads, and the Sharpe ratio below, by step."""
    data = list[dict[str, Any]]()
    axes = {"eval/loss": ("y", "%{y:.4f}")} if losses_compare else {}
    for color, group in zip(COLORS, groups, strict=False):
        for tag, (axis, hover) in {**axes, "profit/sharpe_ratio": ("y2", "%{y:.2f}")}.items():
            by_run = [{int(row["step"]): row[tag] for row in run.history if tag in row} for run in group.drawn]
            if points := mean_of([points for points in by_run if points]):
                trace = line(group.name, list(points), list(points.values()), color, hover)
                trace |= {"mode": "lines+markers", "marker": {"size": 5}, "yaxis": axis, "legendgroup": group.name}
                data.append(trace | {"showlegend": axis == "y2"})
    layout = loss_over_sharpe() if losses_compare else loss_over_sharpe((0.99, 0.98), "")
    return {"data": data, "layout": layout} if data else None


def interval_chart(rows: Sequence[tuple[str, Estimate]], unit: str) -> Figure | None:
    """Differences as points with their 95 % intervals, the first row on top; the line at zero means no difference."""
    known = [
        (label, found.value, found.low, found.high)
        for label, found in reversed(rows)  # Plotly counts from the bottom
        if found.value is not None and found.low is not None and found.high is not None
    ]
    if not known:
        return None
    layout = base_layout()
    hover = "%{x:+.2f} (%{customdata[0]:.2f} to %{customdata[1]:.2f})"
    trace = line("difference", [value for _, value, _, _ in known], [label for label, *_ in known], "--model", hover)
    trace |= {
        "mode": "markers",
        "marker": {"size": 9, "color": "--model"},
        "customdata": [[low, high] for _, _, low, high in known],
        "error_x": {
            "type": "data",
            "array": [high - value for _, value, _, high in known],
            "arrayminus": [value - low for _, value, low, _ in known],
            "color": "--model",
            "thickness": 1.6,
            "width": 5,
        },
    }
    layout["shapes"].append(vertical(0) | {"line": {"color": "--ink", "width": 1}})
    layout["xaxis"] |= {"title": {"text": unit, "standoff": 6}, "showgrid": True, "gridcolor": "--grid"}
    around = {"autorange": False, "range": [-0.6, len(known) - 0.4]}  # half a row of air above and below
    layout["yaxis"] |= {"type": "category", "dtick": 1, "gridcolor": "rgba(0,0,0,0)"} | around
    layout |= {"hovermode": "closest", "showlegend": False, "margin": layout["margin"] | {"t": 12}}
    return {"data": [trace], "layout": layout}


def _trace(name: str, curve: Curve, color: str, legend: bool) -> dict[str, Any]:
    trace = line(name, list(curve), list(curve.values()), color, "%{y:.3f}")
    return trace | {"legendgroup": name, "showlegend": legend}
