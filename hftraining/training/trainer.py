"""The step loop: a batch, a loss, a step; every so many steps a log line, a probe, a checkpoint."""

import logging
import math
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import FrameType

import torch
from torch import Tensor, nn

from hftraining.core.errors import Diverged, Interrupted
from hftraining.core.metrics import higher_is_better
from hftraining.market.windows import Batch, WindowSampler
from hftraining.model.config import WEIGHTS
from hftraining.model.network import Network
from hftraining.model.noise import noise
from hftraining.model.objective import Loss, Objective
from hftraining.training.average import WeightAverage
from hftraining.training.checkpoint import AVERAGE_FILE, Checkpoints
from hftraining.training.config import TrainingConfig
from hftraining.training.gradient import Outputs, whole_gradient
from hftraining.training.optimizer import learning_rate, make_optimizers
from hftraining.training.parallel import CrewBroken, ProcessCrew
from hftraining.training.unasked import UnaskedSteps

MOST_SKIPPED_IN_A_ROW = 10

logger = logging.getLogger("hftraining")


Probe = Callable[[int], dict[str, float]]  # scores on the validation days after a step, by TensorBoard tag
StepListener = Callable[[int, Mapping[str, float]], None]  # a step, its losses, and what was probed


@dataclass
class Progress:
    """What a checkpoint holds beside the tensors."""

    step: int = 0
    best_step: int | None = None
    best_value: float | None = None
    skipped_steps: int = 0
    skipped_in_a_row: int = 0


class StepValues(Mapping[str, float]):
    """The numbers of a step by tag; one that lies on the model's device is fetched when it is first asked for.

    So a step that nobody asks about does not wait for the device.
    """

    def __init__(self, values: Mapping[str, float | Tensor]):
        self._values = dict(values)

    def __getitem__(self, tag: str) -> float:
        value = self._values[tag]
        if isinstance(value, Tensor):
            self._values[tag] = value = value.item()
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class Trainer:
    """Trains a torch model on the windows of a sampler; resumes at any checkpoint, to the bit."""

    def __init__(
        self,
        model: Network,
        objective: Objective,
        sampler: WindowSampler,
        config: TrainingConfig,
        seed: int,
        probe: Probe,
        probe_every: int,
        checkpoints: Checkpoints,
    ):
        assert config.precision != "auto"  # training.precision.settled
        self.model, self.objective, self.sampler, self.config, self.seed = model, objective, sampler, config, seed
        self.forward: Callable[..., Outputs] = torch.compile(model) if config.compile else model  # the same weights
        self.probe, self.probe_every, self.checkpoints = probe, probe_every, checkpoints
        self.optimizers = make_optimizers(model, config)
        self.average = WeightAverage(model, config.ema) if config.ema else None
        self.progress = Progress()
        self.crew: ProcessCrew | None = None  # while other processes help
        self.unasked = self._unasked() if config.device != "cpu" else None  # a CPU has nothing to wait for

    @property
    def ahead(self) -> range:
        """The steps that are left. A run that patience has ended, and that is resumed, has none."""
        first = self.progress.step + 1
        return range(first, first if self._is_out_of_patience() else self.config.max_steps + 1)

    def resume(self) -> int:
        """Load the newest whole checkpoint, if there is one; returns its step, or 0."""
        state = self.checkpoints.restore(self.model, self.optimizers, self.average)
        if state is not None:
            self.go_on_from(Progress(**{name: state[name] for name in Progress.__dataclass_fields__}))
        return self.progress.step

    def go_on_from(self, progress: Progress) -> None:
        """The next step is the one after these; weights and optimisers are those of then."""
        self.progress = progress
        self.unasked = self._unasked() if self.unasked else None

    def train(self, log: StepListener, on_step: StepListener) -> Progress:
        """Run to max_steps, or until `patience` probes in a row were no better.

        log is called for every logged step, on_step for every step, with values that cost nothing until they are read.
        Raises Interrupted, once all is saved, after a SIGTERM or SIGINT, and Diverged after ten skipped steps in a row.
        """
        config = self.config
        with stop_signals() as stop_asked:
            for step in self.ahead:
                taken = self._shared_step(step)
                self.progress.step = step
                is_last, is_best = step == config.max_steps, False
                if self.crew and (is_last or step % self.probe_every == 0 or step % config.checkpoint_every == 0):
                    self.crew.compare(self.model)  # before it is probed or saved
                probed: dict[str, float] = {}
                if step % self.probe_every == 0 or is_last:
                    with self.average.in_place() if self.average else nullcontext():
                        probed = self.probe(step)
                    is_best = self._note_best(step, probed)
                    is_last |= self._is_out_of_patience()
                values = StepValues(taken | probed)
                if probed or step % config.log_every == 0 or is_last:
                    self._ask(step)
                    log(step, values)
                on_step(step, values)
                if is_best or is_last or step % config.checkpoint_every == 0 or stop_asked():
                    self._save()
                if is_last:
                    break
                if stop_asked():
                    raise Interrupted(f"interrupted after step {step} of {config.max_steps}; everything is saved")
        return self.progress

    def load_best(self) -> None:
        """Load the weights of the best probe, or keep the last ones, with a warning, where none had a finite value.

        The averaged weights, with training.ema.
        """
        if self.progress.best_step is not None:
            name = AVERAGE_FILE if self.average else WEIGHTS
            self.checkpoints.load_model(self.progress.best_step, self.model, name)
            return
        logger.warning(
            "training.best_metric=%s was not finite in any probe: the last weights are kept, whatever the patience",
            self.config.best_metric,
        )
        if self.average:
            self.model.load_state_dict(self.average.weights)

    def follow(self) -> None:
        """As the trainer of a helper: take the steps of the lead, as it takes them. Raises CrewBroken without it."""
        assert self.crew is not None
        for step in self.crew.steps(self.model):
            self._step(step)
            self.progress.step = step

    def _save(self) -> None:
        progress = self.progress
        self._ask(progress.step)
        self.checkpoints.save(progress.step, self.model, self.optimizers, progress.__dict__, self.average)

    def _shared_step(self, step: int) -> dict[str, float | Tensor]:
        """A step of all processes. One that is lost ends the training: its ending is raised once all is saved."""
        if self.crew is None:
            return self._step(step)
        try:
            with self.crew.step(step):
                return self._step(step)
        except CrewBroken as broken:  # before the weights moved: the gradient is summed first
            before = self.progress.step
            if before:
                self._save()
            raise type(broken.end)(f"{broken.end}, in step {step}; everything before it is saved") from broken

    def _step(self, step: int) -> dict[str, float | Tensor]:
        rate = learning_rate(step, self.config)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = rate
        self.model.train()
        loss = self._gradient(step, self.sampler.batch(self.seed, step))
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        values: dict[str, float | Tensor] = {
            "train/loss": loss.total,
            "train/grad_norm": norm,
            "train/learning_rate": rate,
        }
        if self.objective.config.forecast_weight:
            values["train/forecast_loss"] = loss.forecast
        if self.objective.config.profit_weight:
            values["train/profit_loss"] = loss.profit
        finite = torch.isfinite(loss.total) & torch.isfinite(norm)
        if self.unasked:
            self.unasked.take(step, finite)
        elif finite:
            for optimizer in self.optimizers:
                optimizer.step()
            self.progress.skipped_in_a_row = 0
            if self.average:
                self.average.update(step - self.progress.skipped_steps)
        else:
            self._skip(step, loss)
        return values

    def _gradient(self, step: int, batch: Batch) -> Loss:
        config = self.config
        x, label, present, open_, close, symbol = (
            torch.from_numpy(part).to(config.device, non_blocking=True)
            for part in (
                batch.x_WKLF,
                batch.label_WKLH,
                batch.present_WKL,
                batch.open_WKL,
                batch.close_WKL,
                batch.symbol_WK,
            )
        )

        def forward(windows: range) -> Outputs:
            rows = slice(windows.start, windows.stop)
            drawn = noise(self.model, self.seed, step, windows)
            with drawn, torch.autocast(config.device, torch.bfloat16, enabled=config.precision == "bf16"):
                return self.forward(x[rows], present[rows], symbol[rows])

        targets = (label, present, open_, close)
        return whole_gradient(self.model, forward, self.objective, targets, config.accumulate, self.crew)

    def _skip(self, step: int, loss: Loss) -> None:
        """Leave weights and optimiser unchanged: one non-finite step would spoil both for good."""
        self.progress.skipped_steps += 1
        self.progress.skipped_in_a_row += 1
        what = "the loss" if not torch.isfinite(loss.total) else f"the gradient of {self._non_finite()}"
        logger.warning("step %d skipped: %s is not finite (%d skipped)", step, what, self.progress.skipped_steps)
        self._stop_diverged(step, f" ({what})")

    def _unasked(self) -> UnaskedSteps:
        return UnaskedSteps(self.optimizers, self.average, self.progress.skipped_steps, self.progress.skipped_in_a_row)

    def _ask(self, step: int) -> None:
        """Learn from the device which steps up to this one it has skipped."""
        if self.unasked is None:
            return
        progress, skipped = self.progress, int(self.unasked.skipped)
        if skipped > progress.skipped_steps:
            new = skipped - progress.skipped_steps
            logger.warning(
                "up to step %d: %d steps skipped, since they were not finite (%d skipped)", step, new, skipped
            )
        progress.skipped_steps, progress.skipped_in_a_row = skipped, int(self.unasked.in_a_row)
        self._stop_diverged(step)

    def _stop_diverged(self, step: int, what: str = "") -> None:
        if self.progress.skipped_in_a_row >= MOST_SKIPPED_IN_A_ROW:
            raise Diverged(
                f"training stopped at step {step}: {self.progress.skipped_in_a_row} steps in a row were not "
                f"finite{what}; try a lower training.learning_rate or training.grad_clip"
            )

    def _non_finite(self) -> str:
        grads: list[tuple[str, Tensor]] = [(n, p.grad) for n, p in self.model.named_parameters() if p.grad is not None]
        return next((name for name, grad in grads if not torch.isfinite(grad).all()), "all parameters together")

    def _note_best(self, step: int, probed: dict[str, float]) -> bool:
        value = probed.get(self.config.best_metric, math.nan)
        best = self.progress.best_value
        if not math.isfinite(value):
            return False
        better = best is None or (value > best if higher_is_better(self.config.best_metric) else value < best)
        if better:
            self.progress.best_step, self.progress.best_value = step, value
        return better

    def _is_out_of_patience(self) -> bool:
        best, patience = self.progress.best_step, self.config.patience
        return bool(patience) and best is not None and self.progress.step - best >= patience * self.probe_every


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Note SIGTERM and SIGINT instead of ending the process; a second SIGINT ends it. Yields whether one came."""
    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if seen and number == signal.SIGINT:
            raise KeyboardInterrupt
        seen.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
