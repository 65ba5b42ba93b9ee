"""portfolios.html: many portfolios of the same forecasts, what each returned against what it traded."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, variance
from typing import Any

from hftraining.core.metrics import BY_NAME, Metric, Unit
from hftraining.evidence.deflation import expected_maximum_sharpe
from hftraining.reports.charts import Figure, base_layout, level_line, line, note, stroke
from hftraining.reports.deltas import shown_value
from hftraining.reports.format import estimate, is_known, number, plural
from hftraining.reports.page import write_page
from hftraining.runs.quantities import Estimate, Metrics, Number

SHOWN = {
    "cagr": "a year",
    "sharpe_ratio": "Sharpe",
    "turnover": "turnover",
    "costs": "costs",
    "max_drawdown": "drawdown",
}
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)  # of turnover, on a logarithmic axis
COLORS = ("--model", "--profit", "--plum", "--teal", "--rust", "--muted")
WIDE = 30.0  # times the least turnover: beyond it, small ones would lie on top of each other


@dataclass(frozen=True)
class Tried:
    """One portfolio that was traded. settings: the fields that vary, without "portfolio.". metrics: of core/metrics.py.

    is_chosen: the run's own. p: the chance that luck does as well. lead: its Sharpe ratio less buy and hold's. Both are
    None where they were not calculated.
    """

    settings: Mapping[str, Any]
    metrics: Metrics
    is_chosen: bool = False
    p: Number = None
    lead: Estimate | None = None


@dataclass(frozen=True)
class _Column:
    """A column of the table: its heading, and text and number of a row."""

    heading: str
    cells: Sequence[tuple[str, Number | str]]
    unit: str = ""


def write_frontier(
    folder: Path,
    outputs: Path | None,
    tried: Sequence[Tried],
    held: Metrics,
    *,
    name: str,
    headline: str,
    sentences: Sequence[str] = (),
    days: str = "validation days",
) -> Path:
    """Write portfolios.html, and plotly.min.js beside it, into a folder that exists; returns its path.

    outputs: the outputs folder that the page lies below, as for a report. tried: all of them, in any order. held: the
    metrics of buy and hold on the same days. name, headline, sentences: the words on top. days: of which period.
    """
    assert tried, "there is nothing to draw without a portfolio"
    ordered = sorted(tried, key=lambda row: -_number(row.metrics.get("sharpe_ratio")))
    columns = _columns(ordered)
    return write_page(
        folder / "portfolios.html",
        outputs,
        {"frontier-chart": frontier_chart(tried, held)},
        title=f"portfolios of {name}",
        name=name,
        headline=headline,
        sentences=[*sentences, *luck_of_many(tried)],
        days=days,
        columns=columns,
        chosen=[row.is_chosen for row in ordered],
        held=[(BY_NAME[metric].words, number(held.get(metric), BY_NAME[metric].unit)) for metric in SHOWN],
    )


def luck_of_many(tried: Sequence[Tried]) -> list[str]:
    """How many portfolios were tried, and how far the best one would stand out by luck alone.

    The expected maximum is that of as many books without any difference in skill, spread as these are: Bailey and Lopez
    de Prado (2014). Books of one forecast resemble each other, so that it says rather too much.
    """
    sharpes = [value for row in tried if is_known(value := row.metrics.get("sharpe_ratio"))]
    count = f"{plural(len(tried), 'portfolio')} {'was' if len(tried) == 1 else 'were'} tried on the same days"
    if len(sharpes) < 2:
        return [f"{count}."]
    middle, lead = fmean(sharpes), expected_maximum_sharpe(len(sharpes), variance(sharpes))
    return [
        f"{count}, and each counts as a trial. Of as many that differ by luck alone, spread as these are, the best "
        f"would be expected {number(lead, Unit.RATIO)} above their mean Sharpe ratio of {number(middle, Unit.RATIO)}; "
        f"the best of these lies {number(max(sharpes) - middle, Unit.RATIO)} above it. What stands out no further is "
        "luck until other days say otherwise."
    ]


def frontier_chart(tried: Sequence[Tried], held: Metrics) -> Figure:
    """Net return a year over turnover a year, a colour for each kind; the run's own is ringed, holding is a line."""
    layout, data = base_layout(), list[dict[str, Any]]()
    known = [row for row in tried if all(is_known(row.metrics.get(name)) for name in ("turnover", "cagr"))]
    kinds = list(dict.fromkeys(str(row.settings.get("kind", "portfolio")) for row in known))
    for place, kind in enumerate(kinds):
        rows = [row for row in known if str(row.settings.get("kind", "portfolio")) == kind]
        data.append(_points(kind, rows, {"color": COLORS[place % len(COLORS)], "size": 8, "opacity": 0.75}))
    front = _front(known)
    edge = line("least turnover for the return", [x for x, _ in front], [y for _, y in front], "--faint", "%{y:.1%}")
    edge["line"] = {"color": "--faint", "width": 1.2, "shape": "hv"}
    data.insert(0, edge | {"hoverinfo": "skip", "hovertemplate": None})
    if own := [row for row in known if row.is_chosen]:
        ring = {"symbol": "circle-open", "size": 17, "color": "--ink", "line": {"width": 2}}
        data.append(_points("the run's own", own, ring))
    if is_known(holding := held.get("cagr")):
        layout["shapes"].append(level_line(holding) | {"line": stroke("--benchmark") | {"width": 1.5}})
        label = note("buy and hold", 1, "--benchmark") | {"xref": "paper", "xanchor": "right", "xshift": 0}
        layout["annotations"].append(label | {"y": holding, "yref": "y", "yanchor": "bottom"})
    layout["shapes"].append(level_line(0.0))
    layout["xaxis"] |= {"title": {"text": "turnover a year, times the account", "standoff": 6}}
    layout["xaxis"] |= {"showgrid": True, "gridcolor": "--grid", "rangemode": "tozero"}
    turnovers = [_number(row.metrics.get("turnover")) for row in known]
    if turnovers and min(turnovers) > 0.0 and max(turnovers) > WIDE * min(turnovers):
        layout["xaxis"] |= {
            "type": "log",
            "rangemode": "normal",
            "tickvals": TICKS,
            "ticktext": [f"{tick:g}" for tick in TICKS],
        }
    layout["yaxis"] |= {"title": {"text": "net return a year"}, "tickformat": ".0%"}
    return {"data": data, "layout": layout | {"hovermode": "closest"}}


def _points(name: str, rows: Sequence[Tried], marker: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [row.metrics["turnover"] for row in rows],
        "y": [row.metrics["cagr"] for row in rows],
        "text": [_described(row) for row in rows],
        "hovertemplate": "%{text}<br>%{y:.1%} a year, turnover %{x:.1f}<extra></extra>",
        "marker": marker,
    }


def _described(row: Tried) -> str:
    """The settings in lines, as text: Plotly reads tags in it."""
    said = [f"{name}={shown_value(value)}" for name, value in row.settings.items()] or ["as the run is configured"]
    return "<br>".join(text.replace("&", "&amp;").replace("<", "&lt;") for text in said)


def _front(rows: Sequence[Tried]) -> list[tuple[float, float]]:
    """Turnover and return of those that no other beats in both, by rising turnover."""
    best, front = -math.inf, list[tuple[float, float]]()
    for x, y in sorted((_number(r.metrics["turnover"]), -_number(r.metrics["cagr"])) for r in rows):
        if -y > best:
            best = -y
            front.append((x, best))
    return front


def _columns(rows: Sequence[Tried]) -> list[_Column]:
    """The first setting, the metrics that any row has, the evidence, then the other settings: a phone shows the first.

    Evidence only where it was calculated.
    """
    names = list(dict.fromkeys(name for row in rows for name in row.settings))
    settings = [
        _Column(name, [_setting(row.settings[name]) if name in row.settings else ("", None) for row in rows])
        for name in names
    ]
    metrics = [
        _of_metric(BY_NAME[name], words, rows)
        for name, words in SHOWN.items()
        if any(name in row.metrics for row in rows)
    ]
    if any(row.lead for row in rows):
        leads = [row.lead or Estimate() for row in rows]
        cells = [(estimate(lead, Unit.RATIO), _known(lead.value)) for lead in leads]
        metrics.append(_Column("Sharpe less holding's", cells))
    if any(is_known(row.p) for row in rows):
        metrics.append(_Column("luck, p", [(number(row.p, Unit.SCORE), _known(row.p)) for row in rows]))
    return [*settings[:1], *metrics, *settings[1:]]


def _of_metric(metric: Metric, words: str, rows: Sequence[Tried]) -> _Column:
    values = [row.metrics.get(metric.name) for row in rows]
    unit = metric.name if metric.name in ("cagr", "sharpe_ratio") else ""
    return _Column(words, [(number(value, metric.unit), _known(value)) for value in values], unit)


def _setting(value: Any) -> tuple[str, Number | str]:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return (f"{value:g}" if is_number else shown_value(value)), (float(value) if is_number else str(value))


def _known(value: Number) -> Number:
    return value if is_known(value) else None


def _number(value: Number) -> float:
    return value if is_known(value) else -math.inf
