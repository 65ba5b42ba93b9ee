"""The charts of a report, as plain Plotly figures whose colours are names of the page's CSS variables.

report.js looks up a colour such as "--model" when it draws, so that a chart follows the page from light to dark and
onto paper. The figures are dicts: Python needs no Plotly, the browser only its script. NaN becomes a gap in page.py.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from hftraining.reports.curves import by_period
from hftraining.reports.format import is_known, plural
from hftraining.runs.folder import RunFolder
from hftraining.runs.result import PERIODS, PeriodResult, RunResult

Figure = dict[str, Any]
CALIBRATION_HOVER = "%{y:.1%} of %{customdata:,} days"
CALIBRATION_COLORS = ("--model", "--profit", "--benchmark", "--muted")


def run_figures(run: RunFolder) -> dict[str, Figure | None]:
    """The charts of a report by the id of their element; None where the run lacks the numbers."""
    result = run.result or RunResult()
    held = result.periods["valid"].held.get("sharpe_ratio") if "valid" in result.periods else None
    figures: dict[str, Figure | None] = {
        "probes-chart": probes_chart(run.history, result.best_step, held),
        "calibration-chart": calibration_chart(result.periods),
    }
    if run.equity is not None and run.initial_capital is not None and len(run.equity):
        who = "book" if run.manifest.get("kind") == "evaluations" else "model"
        figures["equity-chart"] = equity_chart(run.equity, run.initial_capital, run.null_band, who)
        figures["drawdown-chart"] = drawdown_chart(run.equity, run.initial_capital, who)
    return figures


def equity_chart(
    equity: pd.DataFrame, initial_capital: float, null_band: pd.DataFrame | None = None, who: str = "model"
) -> Figure:
    """The account and buy and hold in currency over all periods, in front of the fan of luck. who: the account's."""
    figure = _all_periods(equity, lambda values: values, "%{y:,.0f}", who)
    if null_band is not None:
        figure["data"] = _fan(null_band) + figure["data"]
    figure["layout"]["yaxis"] |= {"tickformat": ",.0f"}
    figure["layout"]["shapes"].append(level_line(initial_capital))
    return figure


def drawdown_chart(equity: pd.DataFrame, initial_capital: float, who: str = "model") -> Figure:
    """The fall from the highest value so far, or from the initial capital, as a fraction."""

    def drawdown(values: pd.Series) -> pd.Series:
        return values / values.cummax().clip(lower=initial_capital) - 1

    figure = _all_periods(equity, drawdown, "%{y:.1%}", who)
    for trace in figure["data"]:
        if trace["line"]["color"] == "--model":
            trace |= {"fill": "tozeroy", "fillcolor": "--model-wash"}
    for label in figure["layout"]["annotations"]:
        label |= {"y": 0, "yanchor": "bottom"}  # the curves hang from the top
    figure["layout"]["yaxis"] |= {"tickformat": ".0%", "rangemode": "tozero"}
    return figure


def probes_chart(history: list[dict[str, float]], best_step: int | None, buy_and_hold: float | None) -> Figure | None:
    """The forecast loss above and the Sharpe ratio below, by step; None without a probe."""
    probes = [row for row in history if "profit/sharpe_ratio" in row]
    if not probes:
        return None
    # With a mixed objective only its forecast part compares with the validation loss.
    tag = "train/forecast_loss" if any("train/forecast_loss" in row for row in history) else "train/loss"
    steps = [row["step"] for row in history if tag in row]
    train = [row[tag] for row in history if tag in row]
    at = [row["step"] for row in probes]
    dots = {"mode": "lines+markers", "marker": {"size": 5}}
    data = [
        line("training loss", steps, train, "--faint", "%{y:.4f}") | {"line": {"color": "--faint", "width": 1}},
        line("validation loss", at, [row.get("eval/loss") for row in probes], "--model", "%{y:.4f}") | dots,
        line("validation Sharpe", at, [row["profit/sharpe_ratio"] for row in probes], "--profit", "%{y:.2f}")
        | dots
        | {"yaxis": "y2"},
    ]
    layout = loss_over_sharpe()
    if best_step is not None:
        layout["shapes"].append(vertical(best_step))
        layout["annotations"].append(note("model kept", best_step, "--muted"))
    if is_known(buy_and_hold):
        layout["shapes"].append(level_line(buy_and_hold) | {"yref": "y2", "line": stroke("--benchmark")})
        layout["annotations"].append(
            note("buy and hold", 1, "--benchmark")
            | {"xref": "paper", "xanchor": "right", "y": buy_and_hold, "yref": "y2", "yanchor": "bottom"}
        )
    return {"data": data, "layout": layout}


def calibration_chart(periods: Mapping[str, PeriodResult]) -> Figure | None:
    """The share of outcomes below each quantile over its level: on the diagonal where the quantile is honest."""
    horizons = sorted({row.horizon for period in periods.values() for row in period.calibration})
    if not horizons:
        return None
    layout, data = base_layout(), list[dict[str, Any]]()
    diagonal = {"type": "line", "x0": 0, "y0": 0, "x1": 1, "y1": 1, "line": stroke("--faint"), "layer": "below"}
    layout["shapes"].append(diagonal)
    for name, period in periods.items():
        for place, horizon in enumerate(horizons):
            rows = sorted((row for row in period.calibration if row.horizon == horizon), key=lambda row: row.level)
            if not rows:
                continue
            color = CALIBRATION_COLORS[place % len(CALIBRATION_COLORS)]
            label = f"{plural(horizon, 'day')}, {PERIODS[name]}"
            trace = line(label, [r.level for r in rows], [r.share for r in rows], color, CALIBRATION_HOVER)
            trace |= {"mode": "lines+markers", "customdata": [row.days for row in rows]}
            trace["marker"] = {"size": 6, "symbol": "circle" if name == "valid" else "circle-open"}
            trace["line"]["dash"] = "solid" if name == "valid" else "dot"
            data.append(trace)
    ends = {"range": [0, 1], "tickformat": ".0%", "rangemode": "normal", "nticks": 6}
    layout["xaxis"] |= ends | {"title": {"text": "level of the quantile", "standoff": 6}, "hoverformat": ".0%"}
    layout["yaxis"] |= ends | {"title": {"text": "outcomes below it"}}
    return {"data": data, "layout": layout}


def _fan(null_band: pd.DataFrame) -> list[dict[str, Any]]:
    """For each period two bands and a median of the same positions, moved in time at random."""
    data = list[dict[str, Any]]()
    for _, dates, edge in by_period(null_band):
        first = not data
        for low, high, name in (("q05", "q95", "luck, 5-95%"), ("q25", "q75", "luck, 25-75%")):
            bare = {"hoverinfo": "skip", "hovertemplate": None, "legendgroup": name, "line": {"width": 0}}
            data.append(line(name, dates, edge[low], "", "") | bare | {"showlegend": False})
            filled = {"fill": "tonexty", "fillcolor": "--fan" if low == "q05" else "--fan-core", "showlegend": first}
            data.append(line(name, dates, edge[high], "", "") | bare | filled)
        between = edge[["q05", "q95"]].to_numpy()
        hover = "%{y:,.0f} (%{customdata[0]:,.0f} to %{customdata[1]:,.0f})"
        middle = line("luck, median", dates, edge["q50"], "--muted", hover)
        middle["line"] = {"color": "--muted", "width": 1.1, "dash": "dash"}
        data.append(middle | {"customdata": between, "legendgroup": "luck, median", "showlegend": first})
    return data


def _all_periods(equity: pd.DataFrame, change: Callable[[pd.Series], pd.Series], hover: str, who: str) -> Figure:
    layout, data = base_layout(), list[dict[str, Any]]()
    layout["xaxis"] |= {"type": "date"}
    layout["legend"] |= {"traceorder": "reversed"}  # the model is drawn last, on top, and named first
    for period, dates, days in by_period(equity):
        for column, name, color in (("buy_and_hold", "buy and hold", "--benchmark"), ("equity", who, "--model")):
            trace = line(name, dates, change(days[column].astype(float)), color, hover)
            data.append(trace | {"legendgroup": name, "showlegend": len(data) < 2})
        if len(data) > 2:  # both periods are there
            layout["shapes"].append(vertical(dates[0]))
        layout["annotations"].append(note(PERIODS[period], dates[0], "--muted"))
    return {"data": data, "layout": layout}


def line(name: str, x: Any, y: Any, color: str, hover: str) -> dict[str, Any]:
    """A curve as a Plotly trace. x, y: sequences. hover: Plotly's template of a value."""
    line = {"color": color, "width": 1.8 if color != "--benchmark" else 1.4}
    return {"type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "line": line, "hovertemplate": hover}


def base_layout() -> dict[str, Any]:
    """The layout that all charts share."""
    axis = {"automargin": True, "zeroline": False, "ticks": "", "fixedrange": True, "color": "--muted"}
    return {
        "autosize": True,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "--sans", "size": 12, "color": "--muted"},
        "margin": {"l": 8, "r": 8, "t": 44, "b": 8},
        "hovermode": "x unified",
        "hoverlabel": {"bgcolor": "--paper", "bordercolor": "--rule", "font": {"color": "--ink", "size": 12}},
        "dragmode": False,  # a finger scrolls the page
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "yref": "paper", "font": {"size": 12}},
        "xaxis": axis | {"showgrid": False, "showline": True, "linecolor": "--rule", "nticks": 7, "tickangle": 0},
        "yaxis": axis | {"gridcolor": "--grid", "gridwidth": 1, "nticks": 6},
        "shapes": [],
        "annotations": [],
    }


def loss_over_sharpe(upper: tuple[float, float] = (0.56, 0.44), title: str = "loss") -> dict[str, Any]:
    """A layout with two panels over the steps. upper: where the upper one begins and the lower one ends."""
    layout = base_layout()
    layout["xaxis"] |= {"title": {"text": "step", "standoff": 6}, "anchor": "y2", "rangemode": "tozero"}
    layout["yaxis"] |= {"domain": [upper[0], 1.0], "title": {"text": title}, "nticks": 5}
    layout["yaxis2"] = layout["yaxis"] | {"domain": [0.0, upper[1]], "title": {"text": "Sharpe"}}
    return layout


def stroke(color: str) -> dict[str, Any]:
    """A thin dotted stroke."""
    return {"color": color, "width": 1, "dash": "dot"}


def level_line(y: float) -> dict[str, Any]:
    """A dotted line across the chart at a height."""
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": stroke("--faint")}


def vertical(x: Any) -> dict[str, Any]:
    """A dotted line at an x, from the bottom of the chart to its top."""
    return {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": x, "x1": x, "line": stroke("--muted")}


def note(text: str, x: Any, color: str) -> dict[str, Any]:
    """A label at the top of the chart, right of an x."""
    place = {"x": x, "xanchor": "left", "xshift": 4, "y": 1, "yref": "paper", "yanchor": "top", "showarrow": False}
    return place | {"text": text, "font": {"size": 11, "color": color}}
