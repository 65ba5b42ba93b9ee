"""Fit: a model of any kind learns from the ground; the record of the run logs its probes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor

from hftraining.core.errors import Interrupted
from hftraining.core.metrics import LOSS_TAG
from hftraining.core.progress import phase
from hftraining.experiment.crew import helped
from hftraining.experiment.ground import Ground
from hftraining.experiment.members import Member
from hftraining.experiment.periods import measured_part
from hftraining.experiment.probe import ValidationProbe
from hftraining.experiment.trainers import make_trainer
from hftraining.model.adapt import merge
from hftraining.model.base import Forecaster, Learner
from hftraining.model.ensemble import Ensemble
from hftraining.model.network import Network
from hftraining.reports.console import Console
from hftraining.runs.record import RunRecord
from hftraining.training.checkpoint import Checkpoints
from hftraining.training.trainer import Progress, StepListener, Trainer, stop_signals

P = TypeVar("P", Forecaster, Ensemble)
Watch = Callable[[int, dict[str, float]], None]  # called with the step and the values of each probe


@dataclass(frozen=True)
class Fitted(Generic[P]):
    """A model at its best probe, or several together, and how it was trained. losses, sharpes: of the probes."""

    forecaster: P
    progress: Progress
    losses: list[float]
    sharpes: list[float]
    moved: int = 0  # of a fine-tune: how many weights were trained
    members: tuple[Member, ...] = ()  # of an ensemble


@dataclass(frozen=True)
class Fitting:
    """A training that can begin, or go on from its newest checkpoint: everything of `fit` but record and console."""

    ground: Ground
    probe: ValidationProbe
    trainer: Trainer | None  # None for a model that brings its own learning
    checkpoints: Checkpoints
    first: int  # the step that it goes on from
    started: dict[str, Tensor]  # the weights before that, where training.shrinkage pulls back to them

    @classmethod
    def of(cls, ground: Ground, checkpoints: Checkpoints, history: list[dict[str, float]]) -> "Fitting":
        """history: the steps logged so far."""
        config, forecaster = ground.config, ground.forecaster
        probe = ValidationProbe(forecaster, ground.tracker, config.objective, ground.periods["valid"], history)
        model, trainer, started = forecaster.model, None, dict[str, Tensor]()
        if not isinstance(model, Learner):
            assert isinstance(model, Network) and ground.windows is not None
            trainer = make_trainer(config, model, ground.windows, probe, checkpoints)
            if config.training.shrinkage:
                started = {name: weight.detach().clone() for name, weight in model.state_dict().items()}
        first = trainer.resume() if trainer else 0
        checkpoints.tidy(trainer.progress.best_step if trainer else 1)
        return cls(ground, probe, trainer, checkpoints, first, started)

    def run(self, log: StepListener, on_step: StepListener) -> Fitted[Forecaster]:
        """Train to the end, and take the weights of the best probe. log, on_step: see Trainer.train."""
        trainer = self.trainer
        progress = trainer.train(log, on_step) if trainer else self._learn(log, on_step)
        if trainer:
            trainer.load_best()
            merge(trainer.model)
        return Fitted(self.ground.forecaster, progress, self.probe.losses, self.probe.sharpes)

    def is_best(self, step: int) -> bool:
        """Whether the probe of a step, the newest one, is the best so far."""
        return self.trainer is not None and self.trainer.progress.best_step == step

    def _learn(self, log: StepListener, on_step: StepListener) -> Progress:
        """One step of a model that brings its own learning, one probe and one checkpoint, from which a run resumes."""
        model, train = self.ground.forecaster.model, self.ground.periods["train"]
        assert isinstance(model, Learner)
        progress = Progress(step=1, best_step=1)
        if self.checkpoints.newest():
            model.load(self.checkpoints.path(1))
            return progress
        with stop_signals() as stop_asked:
            with phase(f"{model.config.kind} learns from {len(self.ground.bars.symbols_S):,} stocks"):
                model.learn(self.ground.lesson)
            part = measured_part(train, self.ground.forecaster)
            loss = part.forecast_loss(part.forecast(self.ground.forecaster))
            values = {"train/loss": loss, "train/forecast_loss": loss, **self.probe(1)}
            log(1, values)
            self.checkpoints.write(1, model.save, {"best_step": 1})
            on_step(1, values)
            if stop_asked():
                raise Interrupted("interrupted after the model has learned; everything is saved")
        return progress


def fit(
    ground: Ground,
    record: RunRecord,
    watch: Watch | None = None,
    opening: tuple[str, ...] = (),
    *,
    quiet: bool = False,
) -> Fitted[Forecaster]:
    """Train until training.max_steps or until patience ends; resume from the record's newest checkpoint.

    A model that brings its own learning takes one step. watch: an exception from it ends the run; Pruned marks that as
    intended. opening: lines for the console, of which a quiet one shows none. Raises Interrupted after SIGTERM or
    SIGINT, with everything saved, and Diverged when training breaks down.
    """
    config, report_every = ground.config, ground.config.profit_tracker.report_every
    history = record.history()
    fitting = Fitting.of(ground, Checkpoints(record.checkpoints), history)
    if watch is not None:
        watch_again(history, watch)
    with Console(config.most_steps, fitting.first, report_every, quiet) as console:
        for line in opening:
            console.say(line)

        def on_step(step: int, values: Mapping[str, float]) -> None:
            report = fitting.probe.report
            rivals = {"model": report.metrics, "buy and hold": report.buy_and_hold.metrics} if report else None
            console.step(step, values, rivals, best=fitting.is_best(step))
            if watch is not None and LOSS_TAG in values:
                watch(step, dict(values))

        with helped(ground, fitting.trainer, fitting.started):
            console.begin()
            fitted = fitting.run(record.log, on_step)
        console.stopped(fitted.progress.step, config.training.patience)
    return fitted


def watch_again(history: list[dict[str, float]], watch: Watch) -> None:
    """Show a watch the probes of a run that it has not seen, since another process made them."""
    for values in history:
        if LOSS_TAG in values:
            watch(int(values["step"]), values)
