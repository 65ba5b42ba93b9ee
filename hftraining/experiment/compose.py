"""Configs for callers without Hydra: the same groups and fields as on train.py's command line, from the same conf/."""

import dataclasses
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hftraining.core.errors import ConfigError
from hftraining.experiment.config import ExperimentConfig, explain

CONF = Path(__file__).resolve().parents[2] / "conf"
GROUPS = tuple(entry.name for entry in dataclasses.fields(ExperimentConfig) if "Config" in str(entry.type))


def composed(overrides: Sequence[str]) -> dict[str, Any]:
    """What `python train.py OVERRIDES` composes, without Hydra: group=option and field=value, the last wins.

    Every field has a value of its type; only typed_config checks whether they go together. Raises ConfigError.
    """
    values: Any = OmegaConf.structured(ExperimentConfig)
    try:
        for text in overrides:
            key, _, value = text.partition("=")
            more = group_option(key, value) if key in GROUPS else OmegaConf.from_dotlist([text])
            values = OmegaConf.merge(values, more)
        plain = OmegaConf.to_container(values, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    assert isinstance(plain, dict)
    return {str(name): value for name, value in plain.items()}


def group_option(group: str, option: str) -> dict[str, Any]:
    """What one option of a config group sets, from the top of the tree. Raises ConfigError, naming those there are."""
    path = CONF / group / f"{option}.yaml"
    if not path.is_file():
        options = sorted(file.stem for file in path.parent.glob("*.yaml"))
        close = difflib.get_close_matches(option, options, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"{group}={option}: there is no such option{hint} (there are {', '.join(options)})")
    values = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(values, dict)
    is_global = path.read_text().startswith("# @package _global_")
    return {str(name): value for name, value in values.items()} if is_global else {group: values}
