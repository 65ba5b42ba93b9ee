"""The ground of one candidate of a fine-tune."""

import copy
import dataclasses

import torch

from hftraining.experiment.ground import Ground, untrained, windows_of
from hftraining.experiment.inherit import candidate_config
from hftraining.market.features.scaler import Scaled
from hftraining.model.adapt import adapt
from hftraining.model.network import Network


def candidate_ground(method: str, ground: Ground) -> tuple[Ground, int]:
    """The ground of one candidate, its test days sealed, and how many weights its method trains."""
    assert ground.base is not None
    config, base = candidate_config(ground.config, ground.base, method), ground.forecaster
    windows = ground.windows
    if method == "scratch":  # with a scaler of its own
        forecaster = untrained(config, ground.features, ground.splits, base.relative, base.symbols)
        scaled_TSF = Scaled(ground.features.values_TSF, forecaster.scaler)
        lesson = dataclasses.replace(ground.lesson, scaled_TSF=scaled_TSF)
        windows = windows_of(config, ground.bars, lesson, forecaster)
    else:
        torch.manual_seed(config.seed)
        forecaster = dataclasses.replace(base, model=copy.deepcopy(base.model))
    assert isinstance(forecaster.model, Network)
    moved = adapt(forecaster.model, method, config.training.lora_rank)
    own = dataclasses.replace(
        ground,
        config=config,
        forecaster=forecaster,
        windows=windows,
        periods={name: period for name, period in ground.periods.items() if name != "test"},
        baselines={},
        sealed=True,
    )
    return own, moved
