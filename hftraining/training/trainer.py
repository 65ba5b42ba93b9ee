"""The step loop: a batch, a loss, a step; every so many steps a log line, a probe, a checkpoint."""

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
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
from hftraining.model.objective import Loss, Objective
from hftraining.training.average import WeightAverage
from hftraining.training.checkpoint import AVERAGE_FILE, Checkpoints
from hftraining.training.config import TrainingConfig
from hftraining.training.optimizer import learning_rate, make_optimizer

MOST_SKIPPED_IN_A_ROW = 10

logger = logging.getLogger("hftraining")


Probe = Callable[[int], dict[str, float]]  # scores on the validation days after a step, by TensorBoard tag
StepListener = Callable[[int, dict[str, float]], None]  # a step, its losses, and what was logged or probed


@dataclass
class Progress:
    """What a checkpoint holds beside the tensors."""

    step: int = 0
    best_step: int | None = None
    best_value: float | None = None
    skipped_steps: int = 0
    skipped_in_a_row: int = 0


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
        self.model, self.objective, self.sampler, self.config, self.seed = model, objective, sampler, config, seed
        self.probe, self.probe_every, self.checkpoints = probe, probe_every, checkpoints
        self.optimizer = make_optimizer(model, config)
        self.average = WeightAverage(model, config.ema) if config.ema else None
        self.progress = Progress()

    def resume(self) -> int:
        """Load the newest whole checkpoint, if there is one; returns its step, or 0."""
        state = self.checkpoints.restore(self.model, self.optimizer, self.average)
        if state is not None:
            self.progress = Progress(**{name: state[name] for name in Progress.__dataclass_fields__})
        return self.progress.step

    def train(self, log: StepListener, on_step: StepListener) -> Progress:
        """Run to max_steps, or until `patience` probes in a row were no better.

        log is called for every logged step, on_step for every step. Raises Interrupted, once all is saved, after a
        SIGTERM or SIGINT, and Diverged after ten skipped steps in a row.
        """
        config = self.config
        started, first = time.monotonic(), self.progress.step
        # A run that patience has ended and that is resumed has no steps left.
        ahead = range(first, first) if self._is_out_of_patience() else range(first + 1, config.max_steps + 1)
        with stop_signals() as stop_asked:
            for step in ahead:
                values = self._step(step)
                self.progress.step = step
                is_last, is_best = step == config.max_steps, False
                logged = dict(values) if step % config.log_every == 0 or is_last else {}
                if step % self.probe_every == 0 or is_last:
                    with self.average.in_place() if self.average else nullcontext():
                        probed = self.probe(step)
                    is_best = self._note_best(step, probed)
                    is_last |= self._is_out_of_patience()
                    logged = {**values, **probed}
                if logged:
                    log(step, logged)
                on_step(step, {**values, **logged, "steps/s": (step - first) / (time.monotonic() - started)})
                if is_best or is_last or step % config.checkpoint_every == 0 or stop_asked():
                    self.checkpoints.save(step, self.model, self.optimizer, self.progress.__dict__, self.average)
                if is_last:
                    break
                if stop_asked():
                    raise Interrupted(f"interrupted after step {step} of {config.max_steps}; everything is saved")
        return self.progress

    def load_best(self) -> None:
        """Load the weights of the best probe, or keep the last ones where no probe had a finite value.

        The averaged weights, with training.ema.
        """
        if self.progress.best_step is not None:
            name = AVERAGE_FILE if self.average else WEIGHTS
            self.checkpoints.load_model(self.progress.best_step, self.model, name)
        elif self.average:
            self.model.load_state_dict(self.average.weights)

    def _step(self, step: int) -> dict[str, float]:
        rate = learning_rate(step, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._loss(self.sampler.batch(self.seed, step))
        loss.total.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        values = {"train/loss": loss.total.item(), "train/grad_norm": norm.item(), "train/learning_rate": rate}
        if self.objective.config.forecast_weight:
            values["train/forecast_loss"] = loss.forecast.item()
        if self.objective.config.profit_weight:
            values["train/profit_loss"] = loss.profit.item()
        if math.isfinite(values["train/loss"]) and math.isfinite(values["train/grad_norm"]):
            self.optimizer.step()
            self.progress.skipped_in_a_row = 0
            if self.average:
                self.average.update(step - self.progress.skipped_steps)
        else:
            self._skip(step, values)
        return values

    def _loss(self, batch: Batch) -> Loss:
        config = self.config
        x, label, present, open_, close = (
            torch.from_numpy(part).to(config.device, non_blocking=True)
            for part in (batch.x_WKLF, batch.label_WKLH, batch.present_WKL, batch.open_WKL, batch.close_WKL)
        )
        with torch.autocast(config.device, torch.bfloat16, enabled=config.precision == "bf16"):
            quantiles, head = self.model(x, present)
        return self.objective(quantiles, head, label, present, open_, close)

    def _skip(self, step: int, values: dict[str, float]) -> None:
        """Leave weights and optimiser unchanged: one non-finite step would spoil both for good."""
        self.progress.skipped_steps += 1
        self.progress.skipped_in_a_row += 1
        what = "the loss" if not math.isfinite(values["train/loss"]) else f"the gradient of {self._non_finite()}"
        logger.warning("step %d skipped: %s is not finite (%d skipped)", step, what, self.progress.skipped_steps)
        if self.progress.skipped_in_a_row >= MOST_SKIPPED_IN_A_ROW:
            raise Diverged(
                f"training stopped at step {step}: {MOST_SKIPPED_IN_A_ROW} steps in a row were not finite ({what}); "
                "try a lower training.learning_rate or training.grad_clip"
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
