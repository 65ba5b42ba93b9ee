"""Fit: a model of any kind learns from the ground; the record of the run logs its probes."""

from collections.abc import Callable
from dataclasses import dataclass

from hftraining.core.errors import Interrupted
from hftraining.core.metrics import LOSS_TAG
from hftraining.experiment.ground import Ground
from hftraining.experiment.probe import ValidationProbe
from hftraining.model.adapt import merge, pull_back
from hftraining.model.base import Forecaster, Learner
from hftraining.model.network import Network
from hftraining.model.objective import Objective
from hftraining.reports.console import Console
from hftraining.runs.record import RunRecord
from hftraining.training.checkpoint import Checkpoints
from hftraining.training.trainer import Progress, StepListener, Trainer, stop_signals

Watch = Callable[[int, dict[str, float]], None]  # called with the step and the values of each probe


@dataclass(frozen=True)
class Fitted:
    """A model at its best probe, and how it was trained. losses, sharpes: of the probes, in order."""

    forecaster: Forecaster
    progress: Progress
    losses: list[float]
    sharpes: list[float]
    moved: int = 0  # of a fine-tune: how many weights were trained


def fit(ground: Ground, record: RunRecord, watch: Watch | None = None, opening: tuple[str, ...] = ()) -> Fitted:
    """Train until training.max_steps or until patience ends; resume from the record's newest checkpoint.

    A model that brings its own learning takes one step. watch: an exception from it ends the run; Pruned marks that as
    intended. opening: lines for the console. Raises Interrupted after SIGTERM or SIGINT, with everything saved, and
    Diverged when training breaks down.
    """
    config, forecaster = ground.config, ground.forecaster
    quiet = ground.sealed and ground.base is None  # a trial of a sweep has one line of its own
    probe = ValidationProbe(forecaster, ground.tracker, config.objective, ground.periods["valid"], record.history())
    trainer = None if isinstance(forecaster.model, Learner) else _trainer(ground, record, probe)
    report_every = config.profit_tracker.report_every
    with Console(config.most_steps, trainer.resume() if trainer else 0, report_every, quiet) as console:
        for line in opening:
            console.say(line)

        def on_step(step: int, values: dict[str, float]) -> None:
            is_due = ground.base is None or step % report_every == 0  # the table of candidates shows how each ended
            report = probe.report if is_due else None
            rivals = {"strategy": report.metrics, "buy and hold": report.buy_and_hold.metrics} if report else None
            console.step(step, values, rivals)
            if watch is not None and LOSS_TAG in values:
                watch(step, values)

        progress = trainer.train(record.log, on_step) if trainer else _learn(ground, record, probe, on_step)
        console.stopped(progress.step, config.training.patience)
    if trainer:
        trainer.load_best()
        merge(trainer.model)
    return Fitted(forecaster, progress, probe.losses, probe.sharpes)


def _trainer(ground: Ground, record: RunRecord, probe: ValidationProbe) -> Trainer:
    config, model = ground.config, ground.forecaster.model
    assert isinstance(model, Network) and ground.windows is not None
    trainer = Trainer(
        model,
        Objective(config.objective, config.profit_tracker),
        ground.windows,
        config.training,
        config.seed,
        probe,
        config.profit_tracker.every,
        Checkpoints(record.checkpoints),
    )
    pull_back(trainer.optimizer, config.training.shrinkage)
    return trainer


def _learn(ground: Ground, record: RunRecord, probe: ValidationProbe, on_step: StepListener) -> Progress:
    """One step of a model that brings its own learning, one probe and one checkpoint, from which a run resumes."""
    model, train, checkpoints = ground.forecaster.model, ground.periods["train"], Checkpoints(record.checkpoints)
    assert isinstance(model, Learner)
    progress = Progress(step=1, best_step=1)
    if checkpoints.newest():
        model.load(checkpoints.path(1))
        return progress
    with stop_signals() as stop_asked:
        model.learn(ground.lesson)
        loss = train.forecast_loss(train.forecast(ground.forecaster))
        values = {"train/loss": loss, "train/forecast_loss": loss, **probe(1)}
        record.log(1, values)
        checkpoints.write(1, model.save, {"best_step": 1})
        on_step(1, values)
        if stop_asked():
            raise Interrupted("interrupted after the model has learned; everything is saved")
    return progress
