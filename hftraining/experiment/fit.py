"""Fit: a model of any kind learns from the ground, its probes logged in the record of the run."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from hftraining.core.metrics import LOSS_TAG
from hftraining.experiment.baselines import lesson_of
from hftraining.experiment.ground import Ground
from hftraining.experiment.probe import ValidationProbe
from hftraining.model.adapt import merge, pull_back
from hftraining.model.base import Forecaster, Learner
from hftraining.model.network import Network
from hftraining.model.objective import Objective
from hftraining.profit_tracker import ProfitReport
from hftraining.reports.console import Console
from hftraining.runs.record import RunRecord
from hftraining.runs.result import Metrics
from hftraining.training.checkpoint import Checkpoints
from hftraining.training.trainer import Progress, Trainer

Watch = Callable[[int, dict[str, float]], None]  # gets the step and the values of each probe


@dataclass(frozen=True)
class Fitted:
    """A trained model, the best of its probes, and how it came about. losses, sharpes: of the probes, in order."""

    forecaster: Forecaster
    progress: Progress
    losses: list[float]
    sharpes: list[float]
    moved: int = 0  # how many weights could move


def fit(ground: Ground, record: RunRecord, watch: Watch | None = None, opening: tuple[str, ...] = ()) -> Fitted:
    """Train until training.max_steps or until patience ends; resume from the record's newest checkpoint.

    A model that brings its own learning takes one step. watch: what it raises ends the run, and Pruned says that this
    was meant. opening: lines for the console. Raises Interrupted when SIGTERM or SIGINT came and everything is saved,
    Diverged when training broke down.
    """
    config, forecaster = ground.config, ground.forecaster
    quiet = ground.sealed and ground.base is None  # a trial of a sweep has one line of its own
    probe = ValidationProbe(forecaster, ground.tracker, config.objective, ground.periods["valid"], record.history())
    if isinstance(forecaster.model, Learner):
        with Console(1, 0, config.profit_tracker.report_every, quiet) as console:
            _say(console, opening)
            progress = _learn(ground, record, probe, console, watch)
        return Fitted(forecaster, progress, probe.losses, probe.sharpes)
    assert isinstance(forecaster.model, Network)
    moved = movable(forecaster)
    trainer = _trainer(ground, record, probe)
    pull_back(trainer.optimizer, config.training.shrinkage)
    first_step, report_every = trainer.resume(), config.profit_tracker.report_every
    with Console(config.training.max_steps, first_step, report_every, quiet) as console:
        _say(console, opening)

        def on_step(step: int, values: dict[str, float]) -> None:
            is_due = ground.base is None or step % report_every == 0  # the table of candidates has a candidate's end
            console.step(step, values, beside_holding(probe.report) if is_due else None)
            if watch is not None and LOSS_TAG in values:
                watch(step, values)

        progress = trainer.train(record.log, on_step)
        console.stopped(progress.step, config.training.patience)
    trainer.load_best()
    merge(forecaster.model)
    return Fitted(forecaster, progress, probe.losses, probe.sharpes, moved)


def movable(forecaster: Forecaster) -> int:
    """How many weights training may move; 0 for a model that brings its own learning."""
    model = forecaster.model
    return sum(p.numel() for p in model.parameters() if p.requires_grad) if isinstance(model, Network) else 0


def beside_holding(report: ProfitReport | None) -> dict[str, Metrics] | None:
    """The metrics of a probe beside those of buy and hold, by the titles of their columns."""
    if report is None:
        return None
    return {"strategy": dict(report.metrics), "buy and hold": dict(report.buy_and_hold.metrics)}


def _say(console: Console, lines: tuple[str, ...]) -> None:
    for line in lines:
        console.say(line)


def _trainer(ground: Ground, record: RunRecord, probe: ValidationProbe) -> Trainer:
    config, model = ground.config, ground.forecaster.model
    assert isinstance(model, Network) and ground.windows is not None
    return Trainer(
        model,
        Objective(config.objective, config.profit_tracker),
        ground.windows,
        config.training,
        config.seed,
        probe,
        config.profit_tracker.every,
        Checkpoints(record.checkpoints),
    )


def _learn(
    ground: Ground, record: RunRecord, probe: ValidationProbe, console: Console, watch: Watch | None
) -> Progress:
    """One step: the model learns whatever it learns, and is probed once. Resumed, it learns the same again."""
    model, train = ground.forecaster.model, ground.periods["train"]
    assert isinstance(model, Learner)
    model.learn(
        lesson_of(ground.config, ground.features, ground.forecaster.scaler, ground.labels_TSH, ground.splits.train)
    )
    loss = train.forecast_loss(train.forecast(ground.forecaster))
    values = {"train/loss": loss, "train/forecast_loss": loss, **probe(1)}
    record.log(1, values)
    console.step(1, values, beside_holding(probe.report))
    if watch is not None:
        watch(1, values)
    return Progress(step=1, best_step=1, best_value=values.get(ground.config.training.best_metric, math.nan))
