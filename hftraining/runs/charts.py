"""The charts of a report, as plain Plotly figures whose colours are names of the page's CSS variables.

A colour such as "--model" is looked up by report.js when it draws, so that a chart follows the page from light
to dark and onto paper. Building dicts also spares the import of Plotly: only its script is needed, by the reader.
"""

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

Figure = dict[str, Any]
WINDOWS = {"valid": "validation", "test": "test"}


def equity_chart(equity: "pd.DataFrame", initial_capital: float) -> Figure:
    """The account and buy and hold in currency, both windows, the border between them marked."""
    figure = _by_window(equity, initial_capital, lambda values: values, "%{y:,.0f}")
    figure["layout"]["yaxis"] |= {"tickformat": ",.0f"}
    figure["layout"]["shapes"].append(_level(initial_capital))
    return figure


def drawdown_chart(equity: "pd.DataFrame", initial_capital: float) -> Figure:
    """The fall from the highest value so far, the initial capital included, as a fraction."""

    def drawdown(values: "pd.Series") -> "pd.Series":
        return values / values.cummax().clip(lower=initial_capital) - 1

    figure = _by_window(equity, initial_capital, drawdown, "%{y:.1%}")
    for trace in figure["data"]:
        if trace["line"]["color"] == "--model":
            trace |= {"fill": "tozeroy", "fillcolor": "--model-wash"}
    for label in figure["layout"]["annotations"]:
        label |= {"y": 0, "yanchor": "bottom"}  # the curves hang from the top
    figure["layout"]["yaxis"] |= {"tickformat": ".0%", "rangemode": "tozero"}
    return figure


def probes_chart(history: list[dict[str, float]], best_step: int | None, buy_and_hold: float | None) -> Figure | None:
    """The forecast loss above, the Sharpe ratio below, over the steps that were probed; None without a probe."""
    probes = [row for row in history if "profit/sharpe_ratio" in row]
    if not probes:
        return None
    # Of a mixed objective the forecast part is what compares with the validation loss.
    tag = "train/forecast_loss" if any("train/forecast_loss" in row for row in history) else "train/loss"
    steps = [row["step"] for row in history if tag in row]
    train = [_number(row[tag]) for row in history if tag in row]
    at = [row["step"] for row in probes]
    dots = {"mode": "lines+markers", "marker": {"size": 5}}
    data = [
        _line("training loss", steps, train, "--faint", "%{y:.4f}") | {"line": {"color": "--faint", "width": 1}},
        _line("validation loss", at, [_number(row.get("eval/loss")) for row in probes], "--model", "%{y:.4f}") | dots,
        _line("validation Sharpe", at, [_number(row["profit/sharpe_ratio"]) for row in probes], "--profit", "%{y:.2f}")
        | dots
        | {"yaxis": "y2"},
    ]
    layout = _layout()
    layout["xaxis"] |= {"title": {"text": "step", "standoff": 6}, "anchor": "y2", "rangemode": "tozero"}
    layout["yaxis"] |= {"domain": [0.56, 1.0], "title": {"text": "loss"}, "nticks": 5}
    layout["yaxis2"] = layout["yaxis"] | {"domain": [0.0, 0.44], "title": {"text": "Sharpe"}}
    if best_step is not None:
        layout["shapes"].append(_vertical(best_step))
        layout["annotations"].append(_note("model kept", best_step, "--muted"))
    if buy_and_hold is not None and math.isfinite(buy_and_hold):
        layout["shapes"].append(_level(buy_and_hold) | {"yref": "y2", "line": _stroke("--benchmark")})
        layout["annotations"].append(
            _note("buy and hold", 1, "--benchmark")
            | {"xref": "paper", "xanchor": "right", "y": buy_and_hold, "yref": "y2", "yanchor": "bottom"}
        )
    return {"data": data, "layout": layout}


def _by_window(equity: "pd.DataFrame", initial_capital: float, change: Any, hover: str) -> Figure:
    layout, data = _layout(), list[dict[str, Any]]()
    layout["xaxis"] |= {"type": "date"}
    layout["legend"] |= {"traceorder": "reversed"}  # the model is drawn last, on top, and named first
    for window, label in WINDOWS.items():
        days = equity[equity["window"] == window]
        if days.empty:
            continue
        dates = [str(day)[:10] for day in days["date"]]
        for column, name, color in (("buy_and_hold", "buy and hold", "--benchmark"), ("equity", "model", "--model")):
            values = [_number(value) for value in change(days[column].astype(float))]
            trace = _line(name, dates, values, color, hover)
            data.append(trace | {"legendgroup": name, "showlegend": len(data) < 2})
        if len(data) > 2:  # both windows are there
            layout["shapes"].append(_vertical(dates[0]))
        layout["annotations"].append(_note(label, dates[0], "--muted"))
    return {"data": data, "layout": layout}


def _line(name: str, x: list[Any], y: list[float | None], color: str, hover: str) -> dict[str, Any]:
    line = {"color": color, "width": 1.8 if color != "--benchmark" else 1.4}
    return {"type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "line": line, "hovertemplate": hover}


def _layout() -> dict[str, Any]:
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


def _stroke(color: str) -> dict[str, Any]:
    return {"color": color, "width": 1, "dash": "dot"}


def _level(y: float) -> dict[str, Any]:
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": _stroke("--faint")}


def _vertical(x: Any) -> dict[str, Any]:
    return {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": x, "x1": x, "line": _stroke("--muted")}


def _note(text: str, x: Any, color: str) -> dict[str, Any]:
    place = {"x": x, "xanchor": "left", "xshift": 4, "y": 1, "yref": "paper", "yanchor": "top", "showarrow": False}
    return place | {"text": text, "font": {"size": 11, "color": color}}


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
