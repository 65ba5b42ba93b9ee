"""The trainer of a run, and that of a helper: another process with a part of each batch of the same training."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hftraining.experiment.config import ExperimentConfig, typed_config
from hftraining.experiment.ground import Ground
from hftraining.market.features.scaler import Scaled
from hftraining.market.windows import WindowSampler
from hftraining.model.adapt import adapt, pull_back
from hftraining.model.base import KINDS
from hftraining.model.config import ModelConfig
from hftraining.model.network import Network
from hftraining.model.objective import Objective
from hftraining.training.checkpoint import Checkpoints, load_optimizers, optimizer_tensors
from hftraining.training.trainer import Probe, Progress, Trainer

_NOWHERE = Path("/nonexistent")  # a helper saves nothing


def make_trainer(
    config: ExperimentConfig, model: Network, windows: WindowSampler, probe: Probe, checkpoints: Checkpoints
) -> Trainer:
    """The trainer of a network on the windows of its ground."""
    pace = config.portfolio
    trainer = Trainer(
        model,
        Objective(config.objective, config.profit_tracker, pace.smoothing, pace.trade_rate, pace.every),
        windows,
        config.training,
        config.seed,
        probe,
        config.profit_tracker.every,
        checkpoints,
    )
    for optimizer in trainer.optimizers:
        pull_back(optimizer, config.training.shrinkage)
    return trainer


def job_of(ground: Ground, trainer: Trainer, started: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a helper needs to go on as this trainer: JSON, and tensors by name.

    started: the weights as the trainer found them, before it resumed: what training.shrinkage pulls back to.
    """
    windows = vars(trainer.sampler)
    arrays = {name: np.asarray(value) for name, value in windows.items() if isinstance(value, np.ndarray | Scaled)}
    header = {
        "config": dataclasses.asdict(ground.config),
        "model": dataclasses.asdict(trainer.model.config),
        "n_features": len(ground.forecaster.scaler.features),
        "n_symbols": len(ground.forecaster.symbols),
        "horizons": ground.forecaster.horizons,
        "levels": ground.forecaster.levels,
        "windows": {name: value for name, value in windows.items() if name not in arrays},
        "progress": dataclasses.asdict(trainer.progress),
        "threads": torch.get_num_threads(),
    }
    tensors = {f"windows/{name}": torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    tensors |= {f"started/{name}": weight for name, weight in started.items()}
    tensors |= {f"weights/{name}": weight for name, weight in trainer.model.state_dict().items()}
    tensors |= {f"optimizer/{name}": moment for name, moment in optimizer_tensors(trainer.optimizers).items()}
    return header, tensors


def trainer_of(header: dict[str, Any], tensors: dict[str, Tensor]) -> Trainer:
    """The trainer of a helper, from what job_of gave the lead; it takes the same steps, and neither probes nor saves.

    Sets the number of threads. Raises ConfigError for a config that cannot be run.
    """
    torch.set_num_threads(header["threads"])
    config = typed_config(header["config"])
    task = header["n_features"], tuple(header["horizons"]), tuple(header["levels"])
    model = KINDS[config.model.kind](ModelConfig(**header["model"]), *task)
    assert isinstance(model, Network)
    model.seat([-1] * header["n_symbols"])
    model.to(config.training.device)
    for method in config.training.methods:  # of a candidate of a fine-tune, which has one
        adapt(model, method, config.training.lora_rank)
    windows = object.__new__(WindowSampler)
    vars(windows).update(header["windows"])
    vars(windows).update({name: array.numpy() for name, array in _within(tensors, "windows").items()})
    if started := _within(tensors, "started"):
        model.load_state_dict(started)
    trainer = make_trainer(config, model, windows, lambda step: {}, Checkpoints(_NOWHERE))
    model.load_state_dict(_within(tensors, "weights"))
    load_optimizers(trainer.optimizers, _within(tensors, "optimizer"))
    trainer.average = None  # which the lead alone probes and saves
    trainer.go_on_from(Progress(**header["progress"]))
    return trainer


def _within(tensors: dict[str, Tensor], group: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{group}/"): t for name, t in tensors.items() if name.startswith(f"{group}/")}
