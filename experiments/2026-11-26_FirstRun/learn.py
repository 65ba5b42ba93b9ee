"""Training on everything before a span of days, and its forecasts of the span, in the unit of the labels.

Legend: T sessions, S symbols, F features, H horizons, Q quantiles.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sets import HORIZONS, KEPT, LEVELS, PURGE, Set, Span, kept_at
from torch import nn

from hftraining.market.features.scaler import Scaler
from hftraining.market.windows import Batch, WindowSampler
from hftraining.model.base import Forecaster, Learner, Model
from hftraining.model.config import ModelConfig, ObjectiveConfig
from hftraining.model.learner import Lesson
from hftraining.model.network import Network
from hftraining.model.noise import noise
from hftraining.model.objective import Objective
from hftraining.trading.config import TradingRules
from hftraining.training.config import TrainingConfig
from hftraining.training.optimizer import learning_rate, make_optimizers

STEPS, WARMUP, PROBE_EVERY, PATIENCE = 160, 20, 40, 3
INNER_SHARE, LEAST_INNER = 0.1, 42  # of the training sessions, the last: they stop the training early
TRAINING = TrainingConfig(
    max_steps=STEPS, warmup_steps=WARMUP, batch_size=32, symbols_per_window=16, learning_rate=1e-3
)


@dataclass(frozen=True)
class Variant:
    """A kind of model, and how the transformer is trained."""

    name: str
    kind: str
    loss: str = "pinball"
    ema: float = 0.0


VARIANTS = {
    found.name: found
    for found in (
        Variant("ridge", "ridge"),
        Variant("lightgbm", "lightgbm"),
        Variant("small", "transformer"),
        Variant("small_mse", "transformer", loss="mse"),
        Variant("small_ic", "transformer", loss="ic"),
        Variant("small_ema", "transformer", ema=0.99),
    )
}


def learn(found: Set, labels_TSH: np.ndarray, variant: Variant, label: str, seed: int, span: Span, cache: Path) -> None:
    """Train, forecast the span and keep it, unless that was done before."""
    path = kept_at(cache, found.name, variant.name, label, seed, span)
    if path.exists():
        return
    started = time.process_time()
    config = ModelConfig(name=variant.name, kind=variant.kind)
    scaler = Scaler.fit(found.features, span.train)
    torch.manual_seed(seed)
    model = Forecaster.fresh(config, scaler, HORIZONS, LEVELS).model
    scaled_TSF, known_TS = scaler.scale(found.features.values_TSF[: span.stop]), found.features.known_TS[: span.stop]
    steps = 1
    if isinstance(model, Network):
        steps = train(model, found, scaled_TSF, known_TS, labels_TSH, variant, seed, span.train)
    else:
        assert isinstance(model, Learner)
        model.learn(Lesson(scaled_TSF, known_TS, labels_TSH[: span.stop], span.train, PURGE, seed))
    quantiles_TSHQ = forecast(model, scaled_TSF, known_TS, slice(span.start, span.stop))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{seed}.part.npz")
    np.savez(temporary, quantiles_TSHQ=quantiles_TSHQ[..., KEPT].astype(np.float32), steps=steps)
    temporary.rename(path)
    seconds = time.process_time() - started
    print(
        f"{time.strftime('%H:%M:%S')} {found.name} {variant.name} {label} seed {seed} {span.name}: "
        f"best step {steps}, {seconds:.1f} s",
        flush=True,
    )


def forecast(model: Model, scaled_TSF: np.ndarray, known_TS: np.ndarray, rows: slice) -> np.ndarray:
    """quantiles_TSHQ of some sessions, in the unit of the labels."""
    first = max(0, rows.start - model.receptive_field + 1)
    return model.predict(scaled_TSF[first : rows.stop], known_TS[first : rows.stop], "cpu")[0][rows.start - first :]


def train(
    model: Network,
    found: Set,
    scaled_TSF: np.ndarray,
    known_TS: np.ndarray,
    labels_TSH: np.ndarray,
    variant: Variant,
    seed: int,
    days: slice,
) -> int:
    """Train on all but the last tenth of the days, and take the weights of the least loss there; returns their step."""
    inner = slice(days.stop - max(LEAST_INNER, int(INNER_SHARE * (days.stop - days.start))), days.stop)
    objective_config = ObjectiveConfig(
        horizons=list(HORIZONS), quantiles=list(LEVELS), profit_weight=0.0, **loss_of(variant)
    )
    objective = Objective(objective_config, TradingRules())
    shape = (TRAINING.window, TRAINING.batch_size, TRAINING.symbols_per_window)
    sampler = WindowSampler(
        found.bars, scaled_TSF, known_TS, labels_TSH, slice(days.start, inner.start - PURGE), *shape
    )
    (optimizer,) = make_optimizers(model, TRAINING)
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    best, best_step, best_weights = np.inf, 0, average
    for step in range(1, STEPS + 1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, TRAINING)
        with noise(model, seed, step, range(sampler.windows_per_batch)):
            take_step(model, objective, optimizer, sampler.batch(seed, step))
        with torch.no_grad():
            kept = min(variant.ema, (1 + step) / (10 + step))  # the average follows at once in the first steps
            for name, value in model.state_dict().items():
                average[name].lerp_(value, 1.0 - kept)
        if step % PROBE_EVERY == 0:
            now = {name: value.detach().clone() for name, value in model.state_dict().items()}
            model.load_state_dict(average)
            loss = loss_on(model, objective, scaled_TSF, known_TS, labels_TSH, inner)
            if loss < best:
                best, best_step, best_weights = loss, step, {name: value.clone() for name, value in average.items()}
            model.load_state_dict(now)
            if step - best_step >= PATIENCE * PROBE_EVERY:
                break
    model.load_state_dict(best_weights)
    return best_step


def loss_of(variant: Variant) -> dict[str, str]:
    """The override of the objective, none for the default."""
    return {} if variant.loss == "pinball" else {"loss": variant.loss}


def take_step(model: Network, objective: Objective, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    """As the Trainer's: forward, backward, clipped step; a step that is not finite is skipped."""
    model.train()
    optimizer.zero_grad(set_to_none=True)
    parts = (batch.x_WKLF, batch.label_WKLH, batch.present_WKL, batch.open_WKL, batch.close_WKL)
    x, label, present, open_, close = map(torch.from_numpy, parts)
    quantiles, head = model(x, present)
    objective(quantiles, head, label, present, open_, close).total.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), TRAINING.grad_clip)
    if torch.isfinite(norm):
        optimizer.step()


def loss_on(
    model: Network,
    objective: Objective,
    scaled_TSF: np.ndarray,
    known_TS: np.ndarray,
    labels_TSH: np.ndarray,
    rows: slice,
) -> float:
    """The forecast loss on some days, of at most 64 symbols, in the unit of the labels."""
    symbols = np.linspace(0, known_TS.shape[1] - 1, min(64, known_TS.shape[1])).astype(int)
    quantiles_TSHQ = forecast(model, scaled_TSF[:, symbols], known_TS[:, symbols], rows)
    label_TSH = np.where(known_TS[rows][:, symbols, None], labels_TSH[rows][:, symbols], np.nan)
    known = torch.from_numpy(np.isfinite(label_TSH).all(axis=2).T.copy())[None]
    quantiles = torch.from_numpy(np.nan_to_num(quantiles_TSHQ).swapaxes(0, 1).astype(np.float32))[None]
    label = torch.from_numpy(label_TSH.swapaxes(0, 1).copy())[None]
    nothing = torch.zeros(known.shape)
    return float(objective(quantiles, nothing, label, known, nothing, nothing).forecast)
