"""A fine-tune: from a base model and some of its stocks to a table of candidates and a recommended model.

The run folder is outputs/finetuned/NAME/DATE_TIME. Each candidate is a sealed run in its candidates/, with its own
checkpoints, metrics, model and report; model/ holds the recommended model, which may be the base's.
"""

import dataclasses
from pathlib import Path

from hftraining.core.errors import ConfigError
from hftraining.core.forecast import Forecast
from hftraining.core.progress import phases_shown
from hftraining.experiment.base_run import BaseRun
from hftraining.experiment.baselines import taught, without_head
from hftraining.experiment.candidate import candidate_ground
from hftraining.experiment.conclude import conclude
from hftraining.experiment.config import ExperimentConfig
from hftraining.experiment.finished import finished_result, refuse_to_resume
from hftraining.experiment.fit import Fitted, fit
from hftraining.experiment.ground import Ground, use_machine
from hftraining.experiment.inherit import check
from hftraining.experiment.judging import judge
from hftraining.experiment.opening import opened, opened_candidate
from hftraining.experiment.prepare import prepare
from hftraining.experiment.probe import probes_of
from hftraining.experiment.recommendation import BASE, NOTHING, RIDGE, Candidate, nothing_changes, recommend
from hftraining.experiment.run import opening_lines, run_experiment
from hftraining.model.base import Forecaster, Learner
from hftraining.profit_tracker import ProfitTracker
from hftraining.reports.console import Console
from hftraining.reports.recommendations import CANDIDATES
from hftraining.runs.folder import CANDIDATES_FOLDER
from hftraining.runs.record import CLOCKS, RunRecord, read_metrics
from hftraining.runs.result import FinishedRun
from hftraining.training.trainer import Progress


def run(config: ExperimentConfig, argv: list[str] | None = None) -> FinishedRun:
    """Run any config: a fine-tune if it names a base run, else a training on one stock or many.

    Raises ConfigError for a run that cannot be resumed, or of which nothing is left to do.
    """
    if config.resume:
        refuse_to_resume(Path(config.resume), config.evidence)
    if config.init_from:
        return run_finetune(config, argv)
    return run_experiment(config, argv, kind="single" if len(config.stocks.symbols) == 1 else "base")


@phases_shown()
def run_finetune(config: ExperimentConfig, argv: list[str] | None = None, repeats: str | None = None) -> FinishedRun:
    """Try every method on the stocks of the config, compare the candidates, and recommend one of them or the base.

    config: made by `inherit`. Only the recommended model opens the test days. repeats: see opened. Raises as
    run_experiment.
    """
    if config.resume and (known := finished_result(Path(config.resume), config.evidence)):
        return FinishedRun(Path(config.resume), known)
    config = use_machine(config)  # the device, before the base is loaded onto it
    base = BaseRun.open(str(config.init_from), config.training.device)
    check(config, base)
    if isinstance(base.forecaster.model, Learner):
        raise ConfigError(
            f"init_from={base.folder}: a {base.forecaster.kind} model cannot be fine-tuned: start from a network such "
            f"as model=small, or train a new one: model={base.forecaster.kind} stocks.symbols=[...]"
        )
    ground = prepare(config, base=base)
    with opened(ground, argv, "finetuned", config.name, repeats=repeats) as (record, row):
        console = Console(config.training.max_steps, 0, config.profit_tracker.report_every)
        for line in (*opening_lines(ground, record.folder), f"  base: {base.folder} (signature {base.signature})"):
            console.say(line)
        as_it_is, *simpler = references(ground)
        tried = [try_method(method, ground, record.folder) for method in config.training.methods]
        candidates = {row.name: row for row in (as_it_is, *tried, *simpler)}
        recommendation = recommend(
            candidates.values(),
            ground.periods["valid"],
            ground.others,
            row.trials_before(),
            config.evidence,
            config.seed,
            bool(config.objective.forecast_weight),
        )
        fitted = candidates[recommendation.choice].fitted
        assert fitted is not None
        _copy_history(record, recommendation.choice)
        conclusion = conclude(ground, fitted, record, row, recommendation)
        console.recommendation(recommendation)
        console.summary(conclusion.result, record.folder)
    return FinishedRun(record.folder, conclusion.result)


def references(ground: Ground) -> list[Candidate]:
    """The untrained rows of the table: the base as it is, ridge (if it is a baseline) and "nothing changes"."""
    config, valid, base = ground.config, ground.periods["valid"], ground.forecaster
    forecast = valid.forecast(base)
    rows = [_row(BASE, ground, forecast, Fitted(_with_days(base, ground), Progress(), [], []))]
    if RIDGE in config.evidence.baselines:
        ridge = taught(RIDGE, config, base, ground.lesson)
        tracker = ProfitTracker(config.profit_tracker, without_head(config.portfolio))
        rows.append(_row(RIDGE, dataclasses.replace(ground, tracker=tracker), valid.forecast(ridge)))
    rows.append(Candidate(NOTHING, nothing_changes(forecast)))
    return rows


def try_method(method: str, ground: Ground, folder: Path) -> Candidate:
    """Train one candidate, resume it, or read it back if it is finished. It has a row in the ledger."""
    own, moved = candidate_ground(method, ground)
    training, place = own.config.training, folder / CANDIDATES_FOLDER / method
    if known := finished_result(place, own.config.evidence):
        forecaster = Forecaster.load(place / "model", training.device)
        progress = Progress(known.steps or 0, known.best_step, None, known.skipped_steps)
        fitted = Fitted(forecaster, progress, *probes_of(read_metrics(place)), moved)
        return _row(method, own, own.periods["valid"].forecast(forecaster), fitted)
    words = f"{CANDIDATES[method]}: {moved:,} weights may move, {training.max_steps} steps"
    with opened_candidate(own, folder, method) as (record, row):
        fitted = fit(own, record, opening=(words,))
        fitted = dataclasses.replace(fitted, forecaster=_with_days(fitted.forecaster, ground), moved=moved)
        conclusion = conclude(own, fitted, record, row)
    return Candidate(method, conclusion.valid_forecast, conclusion.valid, fitted)


def _row(name: str, ground: Ground, forecast: Forecast, fitted: Fitted | None = None) -> Candidate:
    config, valid = ground.config, ground.periods["valid"]
    return Candidate(name, forecast, judge(valid, forecast, ground.tracker, {}, config.evidence, config.seed), fitted)


def _with_days(forecaster: Forecaster, ground: Ground) -> Forecaster:
    """The forecaster with the days that it has seen."""
    assert ground.base is not None
    first = min(ground.base.forecaster.days["train"][0], ground.days["train"][0])
    days = ground.days | {"train": (first, ground.days["train"][1])}
    return dataclasses.replace(forecaster, days=days)


def _copy_history(record: RunRecord, choice: str) -> None:
    """Log the steps of the recommended candidate as those of the run; the base has none."""
    for line in read_metrics(record.folder / CANDIDATES_FOLDER / choice) if choice != BASE else []:
        record.log(int(line["step"]), {tag: v for tag, v in line.items() if tag not in ("step", *CLOCKS)})
