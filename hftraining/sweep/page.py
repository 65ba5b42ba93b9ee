"""sweep.html: every trial of a sweep on one page."""

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
from optuna.trial import FrozenTrial, TrialState

from hftraining.core.files import write_text_atomically
from hftraining.reports.charts import Figure
from hftraining.reports.page import page, place_plotly
from hftraining.sweep.config import SearchConfig
from hftraining.sweep.study import Study

STATES = {"complete": "complete", "pruned": "pruned", "fail": "failed", "running": "running"}
FEWEST_FOR_IMPORTANCE = 4  # complete trials


def write_page(study: Study, summary: Mapping[str, Any], folder: Path) -> Path:
    """Write sweep.html, and plotly.min.js beside it, into the sweep's folder. summary: what sweep.json holds."""
    search, trials = study.search, study.trials()
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    figures: dict[str, Figure] = {}
    body = "\n".join(
        part
        for part in (
            _headline(summary, search),
            _front_section(complete, summary, search, figures),
            _history_section(trials, search, figures),
            _importance_section(study, complete, figures),
            _parallel_section(complete, search, figures),
            _slices_section(complete, search, figures),
            _table_section(trials, summary, search),
        )
        if part
    )
    place_plotly(folder, folder.resolve().parents[1])
    path = folder / "sweep.html"
    write_text_atomically(path, page(f"{search.name} - sweep", body, figures))
    return path


def _headline(summary: Mapping[str, Any], search: SearchConfig) -> str:
    chosen, test, states = summary["chosen"], summary["test"], summary["trials"]
    counts = ", ".join(f"{states[name]} {word}" for name, word in STATES.items() if states.get(name))
    steps = summary["steps"]
    saved = 1.0 - steps["trained"] / steps["unpruned"] if steps["unpruned"] else 0.0
    pbo = summary["pbo"]
    overfit = (
        f"In {pbo['value']:.0%} of all ways to halve the validation days, the trial that was best on one half was "
        f"below the median on the other (PBO, over {pbo['trials']} trials)."
        if pbo["value"] is not None
        else f"The probability of backtest overfitting cannot be computed: {escape(str(pbo['reason']))}."
    )
    low, high = test["interval"]
    profit = test["profit"]
    lede = (
        f"Trial {chosen['trial']} was chosen by {escape(chosen['by'])} out of {sum(states.values())} ({counts}), and "
        f"opened the test days: a Sharpe ratio of {_number(profit['sharpe_ratio'])} (95% interval "
        f"{_number(low)} to {_number(high)}), a return of {_percent(profit['total_return'])}.",
        f"Its validation Sharpe ratio, deflated by the {summary['n_trials']} trials that these data have seen: a "
        f"probability of {_number(summary['deflated_sharpe'])} that it is above zero. {overfit}",
        f"Pruning and patience saved {saved:.0%} of the steps.",
    )
    return (
        f'<header><p class="eyebrow"><span>sweep</span> &middot; <span>{escape(search.name)}</span></p>'
        f'<h1 id="headline">{escape(str(summary["verdict"]))}</h1>'
        + "".join(f'<p class="lede">{sentence}</p>' for sentence in lede)
        + "</header>"
    )


def _front_section(
    complete: Sequence[FrozenTrial], summary: Mapping[str, Any], search: SearchConfig, figures: dict[str, Figure]
) -> str:
    names = list(search.objectives)
    if len(names) < 2 or not complete:
        return ""
    front, chosen = set(summary["front"]), summary["chosen"]["trial"]
    groups: tuple[tuple[str, str, Callable[[FrozenTrial], bool]], ...] = (
        ("breaks a constraint", "--faint", lambda t: not _feasible(t)),
        ("dominated", "--model", lambda t: _feasible(t) and t.number not in front),
        ("Pareto front", "--profit", lambda t: t.number in front and t.number != chosen),
        ("chosen", "--benchmark", lambda t: t.number == chosen),
    )
    data = [
        _dots(label, color, [t for t in complete if belongs(t)], lambda t: t.values[0], lambda t: t.values[1])
        for label, color, belongs in groups
    ]
    figures["front-chart"] = _figure(data, names[0], names[1])
    return (
        '<section><h2>Loss and profit</h2><div class="chart" id="front-chart"></div><p class="quiet">Each point is a '
        "trial on the validation days. On the front no trial is better in every objective.</p></section>"
    )


def _history_section(trials: Sequence[FrozenTrial], search: SearchConfig, figures: dict[str, Figure]) -> str:
    parts = []
    for index, (name, direction) in enumerate(search.objectives.items()):
        complete = [t for t in trials if t.state == TrialState.COMPLETE]
        if not complete:
            return ""
        data = [_dots(name, "--model", complete, lambda trial: trial.number, _value_of(index))]
        best, x, y = math.nan, [], []
        for trial in complete:
            value = trial.values[index]
            if _feasible(trial) and not (value >= best if direction == "minimize" else value <= best):
                best = value
            x.append(trial.number)
            y.append(best if math.isfinite(best) else None)
        line = {"color": "--profit", "width": 1.5, "shape": "hv"}
        data.append({"type": "scatter", "mode": "lines", "name": "best so far", "x": x, "y": y, "line": line})
        figures[f"history-chart-{index}"] = _figure(data, "trial", name)
        parts.append(f'<div class="chart low" id="history-chart-{index}"></div>')
    return f"<section><h2>History</h2>{''.join(parts)}</section>"


def _importance_section(study: Study, complete: Sequence[FrozenTrial], figures: dict[str, Figure]) -> str:
    data: list[dict[str, Any]] = []
    for index, (name, direction) in enumerate(study.search.objectives.items()):
        found = _importances(study, complete, index, direction)
        if found:
            color = ("--model", "--profit", "--benchmark")[index % 3]
            bars = {"x": list(found.values())[::-1], "y": list(found)[::-1], "orientation": "h"}
            data.append({"type": "bar", "name": name, "marker": {"color": color}, **bars})
    if not data:
        return ""
    figures["importance-chart"] = _figure(data, "importance", "")
    figures["importance-chart"]["layout"]["yaxis"]["automargin"] = True
    return (
        '<section><h2>What mattered</h2><div class="chart" id="importance-chart"></div><p class="quiet">How much of '
        "what sets the better trials apart each parameter explains (PED-ANOVA, Watanabe and others 2023), over the "
        "parameters that every complete trial has. With few trials this is a hint.</p></section>"
    )


def _importances(study: Study, complete: Sequence[FrozenTrial], index: int, direction: str) -> dict[str, float]:
    if len(complete) < FEWEST_FOR_IMPORTANCE:
        return {}
    shared = set.intersection(*(set(trial.params) for trial in complete))
    varied = [name for name in shared if len({str(trial.params[name]) for trial in complete}) > 1]
    if not varied or len({trial.values[index] for trial in complete}) == 1:
        return {}
    sign = 1.0 if direction == "minimize" else -1.0  # the evaluator explains low values
    # A study of its own in memory: complete trials alone, and one objective.
    alone = optuna.create_study(direction="minimize")
    alone.add_trials(
        [
            optuna.trial.create_trial(params=t.params, distributions=t.distributions, value=sign * t.values[index])
            for t in complete
        ]
    )
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    found = optuna.importance.get_param_importances(alone, evaluator=evaluator, params=sorted(varied))
    return dict(found)


def _parallel_section(complete: Sequence[FrozenTrial], search: SearchConfig, figures: dict[str, Figure]) -> str:
    names = sorted({name for trial in complete for name in trial.params})
    if len(complete) < 2 or not names:
        return ""
    dimensions = [_dimension(name.rsplit(".", 1)[-1], [t.params.get(name) for t in complete]) for name in names]
    for index, name in enumerate(search.objectives):
        dimensions.append(_dimension(name, [t.values[index] for t in complete]))
    line = {
        "color": [t.values[0] for t in complete],
        "colorscale": [[0.0, "--profit"], [1.0, "--faint"]],
        "showscale": False,
    }
    trace = {"type": "parcoords", "dimensions": dimensions, "line": line, "labelangle": -20, "labelside": "top"}
    layout = _layout("", "") | {"margin": {"l": 60, "r": 60, "t": 90, "b": 30}}
    figures["parallel-chart"] = {"data": [trace], "layout": layout}
    low = escape(next(iter(search.objectives)))
    return (
        '<section class="wide"><h2>All parameters at once</h2><div class="chart tall" id="parallel-chart"></div>'
        f'<p class="quiet">One line a complete trial, stronger the lower its {low}. Drag along an axis to select. A '
        "parameter that a trial does not have is drawn at the bottom of its axis.</p></section>"
    )


def _dimension(label: str, values: Sequence[Any]) -> dict[str, Any]:
    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(numbers) == len([value for value in values if value is not None]) and numbers:
        return {"label": label, "values": [min(numbers) if value is None else value for value in values]}
    texts = sorted({str(value) for value in values})
    places = {text: place for place, text in enumerate(texts)}
    return {
        "label": label,
        "values": [places[str(value)] for value in values],
        "tickvals": list(places.values()),
        "ticktext": texts,
    }


def _slices_section(complete: Sequence[FrozenTrial], search: SearchConfig, figures: dict[str, Figure]) -> str:
    names = sorted({name for trial in complete for name in trial.params})
    parts = []
    for number, name in enumerate(names):
        have = [trial for trial in complete if name in trial.params]
        log = any(getattr(trial.distributions[name], "log", False) for trial in have)
        for index, metric in enumerate(search.objectives):
            chart = f"slice-chart-{number}-{index}"
            data = [_dots(metric, "--model", have, _param_of(name), _value_of(index))]
            figures[chart] = _figure(data, name, metric)
            if log:
                figures[chart]["layout"]["xaxis"]["type"] = "log"
            parts.append(f'<div class="chart low" id="{chart}"></div>')
    if not parts:
        return ""
    return f"<section><h2>Slices</h2><div class='slices'>{''.join(parts)}</div></section>"


def _table_section(trials: Sequence[FrozenTrial], summary: Mapping[str, Any], search: SearchConfig) -> str:
    names = sorted({name for trial in trials for name in trial.params})
    heads = ["Trial", "State", *search.objectives, *(name.rsplit(".", 1)[-1] for name in names), "Steps", "Why"]
    rows = []
    for trial in trials:
        facts = trial.user_attrs.get("facts", {})
        values = trial.values if trial.state == TrialState.COMPLETE else [None] * len(search.objectives)
        state = STATES.get(trial.state.name.lower(), trial.state.name.lower())
        if trial.state == TrialState.COMPLETE and not _feasible(trial):
            state = "breaks a constraint"
        if trial.number == summary["chosen"]["trial"]:
            state = "chosen"
        cells = [
            _link(trial, facts),
            state,
            *(_number(value, 4) for value in values),
            *(escape(_text(trial.params.get(name))) for name in names),
            f"{facts.get('steps', 0):,}",
            escape(str(facts.get("reason") or "")),
        ]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    return (
        '<section class="wide"><h2>Trials</h2><div class="scroll" tabindex="0"><table id="trials"><thead><tr>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _link(trial: FrozenTrial, facts: Mapping[str, Any]) -> str:
    folders = facts.get("folders") or []
    if not folders:
        return str(trial.number)
    target = f"{quote(folders[0])}/report.html" if trial.state == TrialState.COMPLETE else f"{quote(folders[0])}/"
    return f'<a href="{target}">{trial.number}</a>'


def _feasible(trial: FrozenTrial) -> bool:
    return all(value <= 0.0 for value in trial.constraints.values())


def _dots(
    name: str,
    color: str,
    trials: Sequence[FrozenTrial],
    x: Callable[[FrozenTrial], Any],
    y: Callable[[FrozenTrial], float],
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [x(trial) for trial in trials],
        "y": [y(trial) for trial in trials],
        "text": [f"trial {trial.number}" for trial in trials],
        "hovertemplate": "%{text}<br>%{x}, %{y:.4f}<extra></extra>",
        "marker": {"color": color, "size": 8},
    }


def _value_of(index: int) -> Callable[[FrozenTrial], float]:
    return lambda trial: trial.values[index]


def _param_of(name: str) -> Callable[[FrozenTrial], Any]:
    return lambda trial: _shown(trial.params[name])


def _figure(data: list[dict[str, Any]], x: str, y: str) -> Figure:
    layout = _layout(x, y)
    layout["showlegend"] = len(data) > 1
    return {"data": data, "layout": layout}


def _layout(x: str, y: str) -> dict[str, Any]:
    axis = {"gridcolor": "--grid", "linecolor": "--rule", "zerolinecolor": "--rule", "automargin": True}
    return {
        "font": {"color": "--muted", "size": 12},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 60, "r": 12, "t": 12, "b": 48},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": axis | {"title": {"text": x}},
        "yaxis": axis | {"title": {"text": y}},
        "hovermode": "closest",
    }


def _shown(value: Any) -> Any:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
