"""The end of a sweep: choose a configuration, train and test it once, and write the files about all trials."""

import dataclasses
import math
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from hftraining.core.errors import ConfigError
from hftraining.core.files import replacing, write_json_atomically, write_text_atomically
from hftraining.core.untrusted import yaml_text
from hftraining.evidence.deflation import probability_of_backtest_overfitting
from hftraining.experiment.compose import Composer
from hftraining.experiment.config import ExperimentConfig
from hftraining.experiment.finished import finished_result
from hftraining.experiment.inherit import signature_of
from hftraining.experiment.run import run_experiment
from hftraining.reports.words import alarm_lines, money_line
from hftraining.runs.result import FinishedRun, read_result
from hftraining.sweep.config import SearchConfig
from hftraining.sweep.page import count_broken, is_feasible, write_sweep_page
from hftraining.sweep.space import Param
from hftraining.sweep.study import Study
from hftraining.sweep.summary import Choice, OpenedDays, Overfitting, Summary, Tally
from hftraining.sweep.trials import daily_returns_of, metrics_of, place_of

BLOCKS = 16  # of the days, for the probability of backtest overfitting
STEPS = {"trained": "steps", "unpruned": "max_steps"}  # key in sweep.json: key in the facts of a trial
NOT_IN_A_BEST = ("name", "output_dir", "resume", "evidence.ledger")  # these say where a run goes, not what it is


def conclude(study: Study, space: Sequence[Param], composer: Composer, folder: Path) -> Summary:
    """Choose a trial, write best/*.yaml, train the choice with its seeds, open the test days once, write the page.

    Raises ConfigError where no trial is complete and meets the constraints.
    """
    search, trials = study.search, study.trials()
    front = pareto_front(trials, search)
    tally = Tally(
        search.name,
        search.objectives,
        {state.name.lower(): sum(trial.state == state for trial in trials) for state in TrialState},
        {key: sum(_facts(t).get(fact, 0) for t in trials) for key, fact in STEPS.items()},
        [trial.number for trial in front],
    )
    _write_trials(trials, search, folder)
    if not front:
        write_json_atomically(folder / "sweep.json", dataclasses.asdict(tally))
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        counted = count_broken(complete, search)
        raise ConfigError(
            f"the sweep {search.name} has no trial that is complete and meets search.constraints="
            f"{dict(search.constraints)}{f' ({counted})' if counted else ''}: see {folder / 'trials.parquet'}"
        )
    bests = {metric: choose(front, search, metric) for metric in dict.fromkeys(("knee", *search.objectives))}
    (folder / "best").mkdir(exist_ok=True)
    for metric, trial in bests.items():
        config = config_of(trial, space, composer, search)
        text = best_yaml(config, f"trial {trial.number} of {search.name}, best by {metric}: {_values(trial, search)}")
        write_text_atomically(folder / "best" / f"{metric.replace('/', '_')}.yaml", text)
    chosen = bests[search.choose]
    runs = _train(chosen, config_of(chosen, space, composer, search), study, folder)
    metrics = [metrics_of(run.result) for run in runs]
    opened, test = runs[0].result, runs[0].result.test
    summary = Summary(
        **vars(tally),
        chosen=Choice(search.choose, chosen.number, chosen.params, chosen.values),
        pbo=_overfitting(trials, folder),
        runs=[str(run.folder) for run in runs],
        seeds={name: [found[name] for found in metrics] for name in (*search.objectives, "profit/sharpe_ratio")},
        n_trials=opened.n_trials,
        deflated_sharpe=opened.deflated_sharpe,
        test_openings=opened.test_openings,
        test=OpenedDays(test.profit, test.interval) if test else OpenedDays(),
        money=money_line(opened),
        verdict=opened.verdict,
        alarms=alarm_lines(opened),
        benchmark=opened.valid.benchmark,
    )
    write_json_atomically(folder / "sweep.json", dataclasses.asdict(summary))
    write_sweep_page(study, summary, opened, folder)
    return summary


def pareto_front(trials: Sequence[FrozenTrial], search: SearchConfig) -> list[FrozenTrial]:
    """The feasible trials that no other one beats: at least as good in every objective and better in one."""
    costs = [(trial, _costs(trial, search)) for trial in trials if is_feasible(trial)]
    return [
        trial
        for trial, ours in costs
        if not any(theirs != ours and all(map(operator.le, theirs, ours)) for _, theirs in costs)
    ]


def choose(front: Sequence[FrozenTrial], search: SearchConfig, by: str) -> FrozenTrial:
    """The front's best trial by a metric, or its knee: the trial nearest to the best value of every objective.

    Every objective is scaled so that the front spans 0 (best) to 1; distances are Euclidean (compromise programming,
    Zeleny 1974). A tie goes to the earliest trial.
    """
    if by != "knee":
        index = list(search.objectives).index(by)
        return min(front, key=lambda trial: (_costs(trial, search)[index], trial.number))
    columns = list(zip(*(_costs(trial, search) for trial in front), strict=True))
    lows, spans = [min(column) for column in columns], [max(column) - min(column) for column in columns]

    def distance(trial: FrozenTrial) -> float:
        scaled = zip(_costs(trial, search), lows, spans, strict=True)
        return math.hypot(*((cost - low) / span if span else 0.0 for cost, low, span in scaled))

    return min(front, key=lambda trial: (distance(trial), trial.number))


def config_of(trial: FrozenTrial, space: Sequence[Param], composer: Composer, search: SearchConfig) -> ExperimentConfig:
    """The config of a trial, with the first of its seeds."""
    point = {param.name: param.value(trial.params[param.name]) for param in space if param.name in trial.params}
    return dataclasses.replace(composer.config(point), seed=search.seeds[0])


def best_yaml(config: ExperimentConfig, comment: str) -> str:
    """The text of a config group file that composes to this config: python train.py +best=PATH."""
    nested: dict[str, Any] = {}
    for name, value in signature_of(config)[0].items():
        if name in NOT_IN_A_BEST:
            continue
        *path, last = name.split(".")
        place = nested
        for key in path:
            place = place.setdefault(key, {})
        place[last] = value
    return f"# @package _global_\n# {comment}\n{yaml_text(nested, sort_keys=True) if nested else ''}"


def _train(chosen: FrozenTrial, config: ExperimentConfig, study: Study, folder: Path) -> list[FinishedRun]:
    """Train the chosen configuration with each of its seeds. The first seed opens the test days.

    A run that exists already is kept, and resumed if it was killed, so that a repeated command does not open the test
    days again.
    """
    search, runs = study.search, []
    for number in range(search.final_seeds):
        seeded = dataclasses.replace(config, seed=config.seed + number)
        called = f"final-trial-{chosen.number:04d}-seed-{seeded.seed}"
        if there := read_result(folder / called):
            runs.append(FinishedRun(folder / called, finished_result(folder / called, config.evidence) or there))
            continue
        called, seeded = place_of(folder, called, seeded, study.definition["data"])
        runs.append(run_experiment(seeded, kind="sweeps", name=search.name, called=called, sealed=number > 0))
    return runs


def _overfitting(trials: Sequence[FrozenTrial], folder: Path) -> Overfitting:
    """The probability of backtest overfitting, over the complete trials whose folders still exist."""
    returns = []
    for trial in trials:
        folders = [folder / name for name in _facts(trial).get("folders", [])]
        if trial.state == TrialState.COMPLETE and all((run / "equity.parquet").exists() for run in folders):
            returns.append(daily_returns_of(folders).returns)
    if len(returns) < 2:
        return Overfitting(None, len(returns), BLOCKS, "fewer than two complete trials")
    found = probability_of_backtest_overfitting(np.array(returns).T, BLOCKS)
    return Overfitting(found.value if math.isfinite(found.value) else None, len(returns), BLOCKS, found.reason)


def _write_trials(trials: Sequence[FrozenTrial], search: SearchConfig, folder: Path) -> None:
    rows = []
    for trial in trials:
        facts = _facts(trial)
        values = trial.values if trial.state == TrialState.COMPLETE else [math.nan] * len(search.objectives)
        rows.append(
            {
                "number": trial.number,
                "state": trial.state.name.lower(),
                **dict(zip(search.objectives, values, strict=True)),
                "feasible": is_feasible(trial),
                **{f"param {name}": value for name, value in trial.params.items()},
                "steps": facts.get("steps", 0),
                "max_steps": facts.get("max_steps", 0),
                "seconds": facts.get("seconds", math.nan),
                "signature": facts.get("signature", ""),
                "folders": " ".join(facts.get("folders", [])),
                "attempt": trial.user_attrs.get("owner", {}).get("attempt", 1),
                "reason": facts.get("reason", ""),
            }
        )
    frame = pd.DataFrame(rows)
    for name in frame.columns:  # a parameter can be text in one trial and a number in another
        if frame[name].map(type).nunique() > 1 and frame[name].map(lambda v: isinstance(v, str)).any():
            frame[name] = frame[name].map(lambda v: v if v is None or v != v else str(v))
    with replacing(folder / "trials.parquet") as temporary:
        frame.to_parquet(temporary, index=False)


def _costs(trial: FrozenTrial, search: SearchConfig) -> tuple[float, ...]:
    pairs = zip(trial.values, search.objectives.values(), strict=True)
    return tuple(value if direction == "minimize" else -value for value, direction in pairs)


def _values(trial: FrozenTrial, search: SearchConfig) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in zip(search.objectives, trial.values, strict=True))


def _facts(trial: FrozenTrial) -> dict[str, Any]:
    return trial.user_attrs.get("facts", {})
