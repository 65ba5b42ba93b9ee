"""The charts of a comparison: one colour a group, its mean drawn strong and its seeds thin."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from hftraining.reports.charts import WINDOWS, Figure, base_layout, finite, level_line, line, note, vertical
from hftraining.runs.folder import RunFolder

COLORS = ("--model", "--rust", "--profit", "--plum", "--teal", "--muted")
MOST_CURVES = len(COLORS)  # groups drawn; more would only be a tangle


def growth_chart(groups: Mapping[str, Sequence[RunFolder]]) -> Figure | None:
    """What one unit of money became in each window: groups by their mean over seeds, and buy and hold."""
    layout, data = base_layout(), list[dict[str, Any]]()
    layout["xaxis"] |= {"type": "date"}
    layout["yaxis"] |= {"tickformat": ".2f"}
    for window, label in WINDOWS.items():
        held = next((growth(run, window, "buy_and_hold") for runs in groups.values() for run in runs), {})
        curves = {name: [growth(run, window, "equity") for run in runs] for name, runs in groups.items()}
        if not any(curve for group in curves.values() for curve in group):
            continue
        first = not data
        if held:
            data.append(_curve("buy and hold", held, "--benchmark", first) | {"line": _dotted("--benchmark")})
        for color, (name, group) in zip(COLORS, curves.items(), strict=False):
            known = [curve for curve in group if curve]
            if not known:
                continue
            if len(known) > 1:
                data += [_thin(name, curve, color) for curve in known]
            days = sorted(set.intersection(*(set(curve) for curve in known)))
            data.append(_curve(name, {day: fmean(c[day] for c in known) for day in days}, color, first))
        start = min(min(curve) for group in curves.values() for curve in group if curve)
        if not first:
            layout["shapes"].append(vertical(start))
        layout["annotations"].append(note(label, start, "--muted"))
    layout["shapes"].append(level_line(1.0))
    return {"data": data, "layout": layout} if data else None


def probes_comparison(groups: Mapping[str, Sequence[RunFolder]], losses_compare: bool) -> Figure | None:
    """The validation loss above, left out where it misleads, and the Sharpe ratio below, over steps."""
    layout, data = base_layout(), list[dict[str, Any]]()
    for color, (name, runs) in zip(COLORS, groups.items(), strict=False):
        for tag, axis in (("eval/loss", "y"), ("profit/sharpe_ratio", "y2")):
            if tag == "eval/loss" and not losses_compare:
                continue
            points = _mean_by_step(runs, tag)
            if points:
                hover = "%{y:.4f}" if axis == "y" else "%{y:.2f}"
                trace = line(name, list(points), [finite(v) for v in points.values()], color, hover)
                trace |= {"mode": "lines+markers", "marker": {"size": 5}, "yaxis": axis, "legendgroup": name}
                data.append(trace | {"showlegend": axis == "y2"})
    if not data:
        return None
    layout["xaxis"] |= {"title": {"text": "step", "standoff": 6}, "anchor": "y2", "rangemode": "tozero"}
    top = [0.56, 1.0] if losses_compare else [0.99, 1.0]
    layout["yaxis"] |= {"domain": top, "title": {"text": "loss" if losses_compare else ""}, "nticks": 5}
    layout["yaxis2"] = layout["yaxis"] | {
        "domain": [0.0, 0.44 if losses_compare else 0.98],
        "title": {"text": "Sharpe"},
    }
    return {"data": data, "layout": layout}


def interval_chart(rows: Sequence[tuple[str, Mapping[str, Any]]], unit: str) -> Figure | None:
    """Differences as points with their 95 % intervals, the first row on top; zero is where nothing differs."""
    known = [(label, interval) for label, interval in rows if interval.get("low") is not None]
    if not known:
        return None
    known = known[::-1]  # Plotly counts from the bottom
    layout = base_layout()
    value = [interval["value"] for _, interval in known]
    over = [interval["high"] - interval["value"] for _, interval in known]
    under = [interval["value"] - interval["low"] for _, interval in known]
    labels = [label for label, _ in known]
    ends = [[interval["low"], interval["high"]] for _, interval in known]
    trace = line(
        "difference", value, [None] * len(known), "--model", "%{x:+.2f} (%{customdata[0]:.2f} to %{customdata[1]:.2f})"
    )
    trace |= {"y": labels, "mode": "markers", "marker": {"size": 9, "color": "--model"}, "customdata": ends}
    trace["error_x"] = {
        "type": "data",
        "array": over,
        "arrayminus": under,
        "color": "--model",
        "thickness": 1.6,
        "width": 5,
    }
    layout["shapes"].append(
        {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": 0, "x1": 0, "line": {"color": "--ink", "width": 1}}
    )
    layout["xaxis"] |= {"title": {"text": unit, "standoff": 6}, "showgrid": True, "gridcolor": "--grid"}
    around = {"autorange": False, "range": [-0.6, len(known) - 0.4]}  # half a row of air above and below
    layout["yaxis"] |= {"type": "category", "gridcolor": "rgba(0,0,0,0)"} | around
    layout |= {"hovermode": "closest", "showlegend": False, "margin": layout["margin"] | {"t": 12}}
    return {"data": [trace], "layout": layout}


def growth(run: RunFolder, window: str, column: str) -> dict[str, float]:
    """Equity over the capital it began with, by ISO day; empty where the run has none."""
    if run.equity is None:
        return {}
    part = run.equity[run.equity["window"] == window]
    if part.empty:
        return {}
    start = float(run.initial_capital or part[column].iloc[0])
    return {str(day)[:10]: float(value) / start for day, value in zip(part["date"], part[column], strict=True)}


def _mean_by_step(runs: Sequence[RunFolder], tag: str) -> dict[int, float]:
    """Mean over runs at the steps that all of them logged; NaN where one is NaN."""
    by_run = [{int(row["step"]): row[tag] for row in run.history if tag in row} for run in runs]
    by_run = [points for points in by_run if points]
    steps = sorted(set.intersection(*(set(points) for points in by_run))) if by_run else []
    return {step: math.fsum(points[step] for points in by_run) / len(by_run) for step in steps}


def _curve(name: str, growth: Mapping[str, float], color: str, legend: bool) -> dict[str, Any]:
    trace = line(name, list(growth), [finite(value) for value in growth.values()], color, "%{y:.3f}")
    return trace | {"legendgroup": name, "showlegend": legend}


def _thin(name: str, growth: Mapping[str, float], color: str) -> dict[str, Any]:
    bare = {"hoverinfo": "skip", "hovertemplate": None, "opacity": 0.3, "line": {"color": color, "width": 0.8}}
    return _curve(name, growth, color, False) | bare


def _dotted(color: str) -> dict[str, Any]:
    return {"color": color, "width": 1.4, "dash": "dot"}
