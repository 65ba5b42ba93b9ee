"""sweep.html: all trials of a sweep on one page."""

import math
import re
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
from optuna.trial import FrozenTrial, TrialState

from hftraining.core.metrics import Unit
from hftraining.reports.charts import Figure, base_layout
from hftraining.reports.format import estimate, is_known, number, plural
from hftraining.reports.page import write_page
from hftraining.reports.words import ALARMED, LEGEND, deflated_meaning, evidence_rows
from hftraining.runs.quantities import Estimate
from hftraining.runs.result import PERIODS, RunResult, read_result
from hftraining.sweep.config import SearchConfig
from hftraining.sweep.study import INFEASIBLE, Study
from hftraining.sweep.summary import Summary

STATES = {"complete": "complete", "pruned": "pruned", "fail": "failed", "running": "running"}
FEWEST_FOR_IMPORTANCE = 4  # complete trials


def write_sweep_page(study: Study, summary: Summary, opened: RunResult, folder: Path) -> Path:
    """Write sweep.html, and plotly.min.js beside it, into the sweep's folder; returns its path.

    opened: the result of the chosen configuration's run that opened the test days.
    """
    search, trials = study.search, study.trials()
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    names = sorted({name for trial in trials for name in trial.params})
    explored = [name for name in names if any(name in trial.params for trial in complete)]
    figures: dict[str, Figure | None] = {}
    if complete:
        figures = {
            "front-chart": _front(complete, summary),
            **_histories(complete, search),
            "importance-chart": _importance(study, complete),
            "parallel-chart": _parallel(complete, explored, search),
            **_slices(complete, explored, search),
        }
    best = folder / "best" / f"{summary.chosen.by.replace('/', '_')}.yaml"
    alarmed = {trial.number for trial in complete if _has_alarm(trial, folder)}
    return write_page(
        folder / "sweep.html",
        folder.resolve().parents[1],
        figures,
        title=f"{search.name} - sweep",
        name=search.name,
        headline=summary.money or "Finished, without a profit to show.",
        verdict=summary.verdict,
        alarms=summary.alarms,
        alarmed=alarmed,
        mark=ALARMED,
        legend=LEGEND,
        periods=[PERIODS[name].capitalize() for name in opened.periods],
        names=list(opened.periods),
        evidence_rows=evidence_rows(opened.periods),
        sentences=_sentences(summary, count_broken(complete, search)),
        chosen=summary.chosen,
        command=f"python train.py {shlex.quote(f'+best={best}')}",
        lowest=next(iter(search.objectives)),
        heads=["State", *search.objectives, *(name.rsplit(".", 1)[-1] for name in names), "Steps", "Why"],
        rows=[_row(trial, names, summary, broken(trial, search)) for trial in trials],
    )


def is_feasible(trial: FrozenTrial) -> bool:
    """Whether a trial is complete and meets all constraints."""
    return trial.state == TrialState.COMPLETE and all(value <= 0.0 for value in trial.constraints.values())


def broken(trial: FrozenTrial, search: SearchConfig) -> list[tuple[str, str]]:
    """The constraints that a trial breaks: as they were set, and with the number that breaks them."""
    found = []
    for name, bound in search.constraints.items():
        beyond = trial.constraints.get(name, 0.0)
        if beyond > 0.0:
            match = re.fullmatch(r"\s*(<=|>=)\s*(.+?)\s*", bound)
            assert match, bound
            value = float(match[2]) + (beyond if match[1] == "<=" else -beyond)
            is_known = beyond < INFEASIBLE
            found.append((f"{name} {bound}", f"{name} is {f'{value:.4g}' if is_known else 'unknown'}, not {bound}"))
    return found


def count_broken(complete: Sequence[FrozenTrial], search: SearchConfig) -> str:
    """By how many complete trials each constraint is broken, the most often broken first; empty where none is."""
    counts = Counter(words for trial in complete for words, _ in broken(trial, search))
    return "; ".join(f"{words} broken by {plural(count, 'trial')}" for words, count in counts.most_common())


def _sentences(summary: Summary, breaks: str) -> list[str]:
    """The lines under the verdict. breaks: from `count_broken`."""
    chosen, test, pbo = summary.chosen, summary.test, summary.pbo
    counts = ", ".join(f"{summary.trials[key]} {word}" for key, word in STATES.items() if summary.trials.get(key))
    count = sum(summary.trials.values())
    sharpe = Estimate(test.profit.get("sharpe_ratio"), *test.interval)
    overfit = (
        f"In {pbo.value:.0%} of all ways to halve the validation days, the best trial on one half was below the median "
        f"on the other (PBO, over {pbo.trials} trials)."
        if pbo.value is not None
        else f"The probability of backtest overfitting cannot be computed: {pbo.reason}."
    )
    return [
        f"Trial {chosen.trial} of {count} ({counts}) was chosen by {chosen.by}. On the test days its Sharpe ratio was "
        f"{estimate(sharpe, Unit.RATIO, signed=False)}; the brackets hold the 95 % interval.",
        f"{_deflated(summary)}{overfit}",
        f"Pruning and patience saved {summary.saved:.0%} of the steps.",
        *([f"Constraints: {breaks}."] if breaks else []),
    ]


def _deflated(summary: Summary) -> str:
    """The deflated Sharpe ratio of the validation days and what it is; empty where it is unknown."""
    beyond = summary.benchmark is not None and is_known(summary.benchmark.deflated_sharpe)
    value, n_trials = summary.deflated_sharpe, summary.n_trials
    if beyond and summary.benchmark:
        value, n_trials = summary.benchmark.deflated_sharpe, summary.benchmark.n_trials
    if not is_known(value):
        return ""
    meaning = deflated_meaning(n_trials, beyond)
    return f"On the validation days its deflated Sharpe ratio is {number(value, Unit.SCORE)}: {meaning}. "


def _has_alarm(trial: FrozenTrial, folder: Path) -> bool:
    """Whether a run of a trial is too good to be true on the validation days."""
    names = trial.user_attrs.get("facts", {}).get("folders") or []
    results = [read_result(folder / name) for name in names]
    return any(result is not None and "valid" in result.periods and result.valid.alarms for result in results)


def _row(
    trial: FrozenTrial, names: Sequence[str], summary: Summary, breaks: Sequence[tuple[str, str]]
) -> tuple[int, str, list[str]]:
    """Number, link and cells of a trial. The link leads to the report, or to the folder without one; may be empty.

    breaks: from `broken`.
    """
    facts = trial.user_attrs.get("facts", {})
    complete = trial.state == TrialState.COMPLETE
    state = STATES.get(trial.state.name.lower(), trial.state.name.lower())
    if complete and not is_feasible(trial):
        state = "breaks a constraint"
    if trial.number == summary.chosen.trial:
        state = "chosen"
    values = trial.values if complete else [None] * len(summary.objectives)
    folder = quote(next(iter(facts.get("folders") or []), ""))
    cells = [
        state,
        *(number(value, Unit.LOSS) for value in values),
        *(_text(trial.params.get(name)) for name in names),
        f"{facts.get('steps', 0):,}",
        str(facts.get("reason") or "; ".join(number for _, number in breaks)),
    ]
    return trial.number, folder and f"{folder}/{'report.html' if complete else ''}", cells


def _front(complete: Sequence[FrozenTrial], summary: Summary) -> Figure | None:
    """The first two objectives against each other; None for a single objective, or a single trial."""
    objectives, front, chosen = list(summary.objectives), set(summary.front), summary.chosen.trial
    if len(objectives) < 2 or len(complete) < 2:
        return None
    kinds: dict[str, tuple[str, Callable[[FrozenTrial], bool]]] = {
        "breaks a constraint": ("--faint", lambda t: not is_feasible(t)),
        "dominated": ("--model", lambda t: is_feasible(t) and t.number not in front),
        "Pareto front": ("--profit", lambda t: t.number in front and t.number != chosen),
        "chosen": ("--benchmark", lambda t: t.number == chosen),
    }
    data = []
    for kind, (color, belongs) in kinds.items():
        trials = list(filter(belongs, complete))
        data.append(_dots(kind, color, trials, [trial.values[0] for trial in trials], 1))
    return _figure(data, *objectives[:2])


def _histories(complete: Sequence[FrozenTrial], search: SearchConfig) -> dict[str, Figure]:
    """Each objective by trial, and the best value so far of the trials that meet the constraints."""
    figures: dict[str, Figure] = {}
    if len(complete) < 2:
        return figures
    numbers = [trial.number for trial in complete]
    for index, (name, direction) in enumerate(search.objectives.items()):
        better, best, so_far = min if direction == "minimize" else max, None, []
        for trial in complete:
            if is_feasible(trial):
                value = trial.values[index]
                best = value if best is None else better(best, value)
            so_far.append(best)
        line = {"color": "--profit", "width": 1.5, "shape": "hv"}
        steps = {"type": "scatter", "mode": "lines", "name": "best so far", "x": numbers, "y": so_far, "line": line}
        dots = _dots(name, "--model", complete, numbers, index)
        figures[f"history-chart-{index}"] = _figure([dots, steps], "trial", name)
    return figures


def _importance(study: Study, complete: Sequence[FrozenTrial]) -> Figure | None:
    """How much each parameter explains, for each objective; None where nothing is explained."""
    data = []
    for index, (name, direction) in enumerate(study.search.objectives.items()):
        if found := _importances(complete, index, direction):
            color = ("--model", "--profit", "--benchmark")[index % 3]
            bars = {"x": list(found.values())[::-1], "y": list(found)[::-1], "orientation": "h"}
            data.append({"type": "bar", "name": name, "marker": {"color": color}, **bars})
    return _figure(data, "importance", "") if data else None


def _importances(complete: Sequence[FrozenTrial], index: int, direction: str) -> dict[str, float]:
    """PED-ANOVA over the parameters that all complete trials have; empty with too few trials or without variation."""
    if len(complete) < FEWEST_FOR_IMPORTANCE:
        return {}
    shared = set.intersection(*(set(trial.params) for trial in complete))
    varied = [name for name in shared if len({str(trial.params[name]) for trial in complete}) > 1]
    if not varied or len({trial.values[index] for trial in complete}) == 1:
        return {}
    sign = 1.0 if direction == "minimize" else -1.0  # the evaluator explains low values
    # The evaluator takes a study with one objective: this one lives in memory and holds the complete trials only.
    alone = optuna.create_study(direction="minimize")
    for trial in complete:
        value = sign * trial.values[index]
        alone.add_trial(optuna.trial.create_trial(params=trial.params, distributions=trial.distributions, value=value))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    return dict(optuna.importance.get_param_importances(alone, evaluator=evaluator, params=sorted(varied)))


def _parallel(complete: Sequence[FrozenTrial], names: Sequence[str], search: SearchConfig) -> Figure | None:
    """All parameters and objectives as parallel axes, one line for each trial; None with fewer than two trials."""
    if len(complete) < 2 or not names:
        return None
    dimensions = [_dimension(name.rsplit(".", 1)[-1], [t.params.get(name) for t in complete]) for name in names]
    dimensions += [_dimension(name, [t.values[i] for t in complete]) for i, name in enumerate(search.objectives)]
    scale = {"colorscale": [[0.0, "--profit"], [1.0, "--faint"]], "showscale": False}
    line = {"color": [trial.values[0] for trial in complete]} | scale
    trace = {"type": "parcoords", "dimensions": dimensions, "line": line, "labelangle": -20, "labelside": "top"}
    figure = _figure([trace], "", "")
    figure["layout"]["margin"] = {"l": 60, "r": 60, "t": 90, "b": 30}
    return figure


def _dimension(label: str, values: Sequence[Any]) -> dict[str, Any]:
    """An axis of numbers, with a trial without one at the bottom, or an axis of texts."""
    known = [value for value in values if value is not None]
    if known and all(map(_is_number, known)):
        return {"label": label, "values": [min(known) if value is None else value for value in values]}
    texts = sorted({str(value) for value in values})
    places = [texts.index(str(value)) for value in values]
    return {"label": label, "values": places, "tickvals": list(range(len(texts))), "ticktext": texts}


def _slices(complete: Sequence[FrozenTrial], names: Sequence[str], search: SearchConfig) -> dict[str, Figure]:
    """Each objective over each parameter that has at least two values: a single one shows nothing."""
    figures = {}
    for place, name in enumerate(names):
        have = [trial for trial in complete if name in trial.params]
        values = [value if _is_number(value) else str(value) for value in (trial.params[name] for trial in have)]
        if len(set(values)) < 2:
            continue
        for index, metric in enumerate(search.objectives):
            figure = _figure([_dots(metric, "--model", have, values, index)], name, metric)
            if any(getattr(trial.distributions[name], "log", False) for trial in have):
                figure["layout"]["xaxis"]["type"] = "log"
            figures[f"slice-chart-{place}-{index}"] = figure
    return figures


def _dots(name: str, color: str, trials: Sequence[FrozenTrial], x: Sequence[Any], objective: int) -> dict[str, Any]:
    """Trials as points: an objective, by its index, over x."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": x,
        "y": [trial.values[objective] for trial in trials],
        "text": [f"trial {trial.number}" for trial in trials],
        "hovertemplate": "%{text}<br>%{x}, %{y:.4f}<extra></extra>",
        "marker": {"color": color, "size": 8},
    }


def _figure(data: list[dict[str, Any]], x: str, y: str) -> Figure:
    layout = base_layout() | {"hovermode": "closest", "showlegend": len(data) > 1}
    layout["xaxis"] |= {"title": {"text": x, "standoff": 6}, "showgrid": True, "gridcolor": "--grid"}
    layout["yaxis"] |= {"title": {"text": y}}
    if len(data) < 2:
        layout["margin"] |= {"t": 12}
    return {"data": data, "layout": layout}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
