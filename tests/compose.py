"""The real config, as `python train.py OVERRIDES` would run it."""

from hftraining.experiment.compose import composed
from hftraining.experiment.config import CONF as CONF
from hftraining.experiment.config import ExperimentConfig, typed_config


def compose_config(*overrides: str) -> ExperimentConfig:
    """What `python train.py OVERRIDES` would run."""
    return typed_config(composed(overrides))
