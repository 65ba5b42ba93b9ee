"""The charts of a comparison: one colour a group, its mean drawn strong and its seeds thin."""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from hftraining.reports.charts import Figure, base_layout, finite, level_line, line, note, vertical
from hftraining.reports.deltas import Group
from hftraining.runs.folder import RunFolder
from hftraining.runs.result import PERIODS, Estimate

COLORS = ("--model", "--rust", "--profit", "--plum", "--teal", "--muted")
MOST_CURVES = len(COLORS)  # groups drawn; more would only be a tangle
Curve = dict[str, float]  # by ISO day


def growth_chart(groups: Sequence[Group]) -> Figure | None:
    """What one unit of money became in each window: groups by their mean over seeds, and buy and hold."""
    layout, data = base_layout(), list[dict[str, Any]]()
    layout["xaxis"] |= {"type": "date"}
    layout["yaxis"] |= {"tickformat": ".2f"}
    for window, held, curves in growth_by_window(groups):
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
                data.append(_trace(group.name, mean_curve(known), color, first))
        start = min(min(curve) for _, known in curves for curve in known)
        if not first:
            layout["shapes"].append(vertical(start))
        layout["annotations"].append(note(PERIODS[window], start, "--muted"))
    layout["shapes"].append(level_line(1.0))
    return {"data": data, "layout": layout} if data else None


def growth_by_window(groups: Sequence[Group]) -> Iterator[tuple[str, Curve, list[tuple[Group, list[Curve]]]]]:
    """For each window with any curve: its key, buy and hold, and the curves of each group's runs."""
    for window in PERIODS:
        runs = {group.label: [growth(run, window, "equity") for run in group.drawn] for group in groups}
        curves = [(group, [curve for curve in runs[group.label] if curve]) for group in groups]
        held = (growth(run, window, "buy_and_hold") for group in groups for run in group.drawn)
        if any(known for _, known in curves):
            yield window, next((curve for curve in held if curve), {}), curves


def growth(run: RunFolder, window: str, column: str) -> Curve:
    """Equity over the capital it began with; empty where the run has none."""
    if run.equity is None:
        return {}
    part = run.equity[run.equity["window"] == window]
    if part.empty:
        return {}
    start = float(run.initial_capital or part[column].iloc[0])
    return {str(day)[:10]: float(value) / start for day, value in zip(part["date"], part[column], strict=True)}


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean of at least one curve, on the days that all of them have."""
    days = sorted(set.intersection(*(set(curve) for curve in curves)))
    return {day: fmean(curve[day] for curve in curves) for day in days}


def probes_comparison(groups: Sequence[Group], losses_compare: bool) -> Figure | None:
    """The validation loss above, left out where it misleads, and the Sharpe ratio below, over steps."""
    layout, data = base_layout(), list[dict[str, Any]]()
    axes = {"eval/loss": ("y", "%{y:.4f}")} if losses_compare else {}
    for color, group in zip(COLORS, groups, strict=False):
        for tag, (axis, hover) in {**axes, "profit/sharpe_ratio": ("y2", "%{y:.2f}")}.items():
            if points := _mean_by_step(group.drawn, tag):
                trace = line(group.name, list(points), [finite(v) for v in points.values()], color, hover)
                trace |= {"mode": "lines+markers", "marker": {"size": 5}, "yaxis": axis, "legendgroup": group.name}
                data.append(trace | {"showlegend": axis == "y2"})
    if not data:
        return None
    upper, border = ([0.56, 1.0], 0.44) if losses_compare else ([0.99, 1.0], 0.98)
    layout["xaxis"] |= {"title": {"text": "step", "standoff": 6}, "anchor": "y2", "rangemode": "tozero"}
    layout["yaxis"] |= {"domain": upper, "title": {"text": "loss" if losses_compare else ""}, "nticks": 5}
    layout["yaxis2"] = layout["yaxis"] | {"domain": [0.0, border], "title": {"text": "Sharpe"}}
    return {"data": data, "layout": layout}


def interval_chart(rows: Sequence[tuple[str, Estimate]], unit: str) -> Figure | None:
    """Differences as points with their 95 % intervals, the first row on top; zero is where nothing differs."""
    known = [
        (label, found.value, found.low, found.high)
        for label, found in reversed(rows)  # Plotly counts from the bottom
        if found.value is not None and found.low is not None and found.high is not None
    ]
    if not known:
        return None
    layout = base_layout()
    hover = "%{x:+.2f} (%{customdata[0]:.2f} to %{customdata[1]:.2f})"
    trace = line("difference", [value for _, value, _, _ in known], [], "--model", hover) | {
        "y": [label for label, *_ in known],
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
    layout["yaxis"] |= {"type": "category", "gridcolor": "rgba(0,0,0,0)"} | around
    layout |= {"hovermode": "closest", "showlegend": False, "margin": layout["margin"] | {"t": 12}}
    return {"data": [trace], "layout": layout}


def _mean_by_step(runs: Sequence[RunFolder], tag: str) -> dict[int, float]:
    """Mean over runs at the steps that all of them logged; NaN where one is NaN."""
    by_run = [{int(row["step"]): row[tag] for row in run.history if tag in row} for run in runs]
    by_run = [points for points in by_run if points]
    steps = sorted(set.intersection(*(set(points) for points in by_run))) if by_run else []
    return {step: math.fsum(points[step] for points in by_run) / len(by_run) for step in steps}


def _trace(name: str, curve: Mapping[str, float], color: str, legend: bool) -> dict[str, Any]:
    trace = line(name, list(curve), [finite(value) for value in curve.values()], color, "%{y:.3f}")
    return trace | {"legendgroup": name, "showlegend": legend}
