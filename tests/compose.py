"""Compose the real config as train.py does, and run it in this process."""

from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore

from hftraining.experiment.config import ExperimentConfig, typed_config

CONF = Path(__file__).resolve().parents[1] / "conf"


def compose_config(*overrides: str) -> ExperimentConfig:
    """What `python train.py OVERRIDES` would run."""
    ConfigStore.instance().store(name="schema", node=ExperimentConfig)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return typed_config(compose("config", list(overrides)))
