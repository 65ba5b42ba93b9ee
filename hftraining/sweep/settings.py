"""The settings of a sweep, from what Hydra composed."""

import dataclasses
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hftraining.core.errors import ConfigError, did_you_mean
from hftraining.core.secret import refuse_secrets, remember
from hftraining.experiment.config import explain
from hftraining.sweep.config import SearchConfig


def search_of(composed: DictConfig) -> SearchConfig:
    """The checked search. Raises ConfigError."""
    try:
        search: Any = OmegaConf.to_object(composed.search)
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        raise ConfigError(explain(error)) from error
    assert isinstance(search, SearchConfig)
    if OmegaConf.is_interpolation(composed.search, "storage") and not search.storage.strip():
        raise ConfigError("search.storage refers to an empty value, and each machine would have a study of its own")
    remember(search.storage)
    return search


def refuse_secrets_of(composed: DictConfig) -> None:
    """Raise ConfigError for a field, other than search.storage, that takes a secret from the environment or a URL."""
    values = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(values, dict)
    refuse_secrets({str(name): value for name, value in values.items()})


def unknown_search_key(key: str) -> str:
    """The message for a setting of the search that does not exist, or an entry that its file lacks."""
    known = [f"search.{entry.name}" for entry in dataclasses.fields(SearchConfig)]
    key = next((name for name in known if key.startswith(f"{name}.")), key)  # an entry of a mapping given as a whole
    if key in known:
        return f"{key}: a new entry needs a plus: +{key}={{...}}"
    return f"{key}: there is no such setting of a search{did_you_mean(key, known)}"


def sweep_folder(composed: DictConfig) -> Path:
    """The folder of a sweep: outputs/sweeps/<name>."""
    return Path(str(composed.output_dir)) / "sweeps" / str(composed.search.name)


def without_search(overrides: list[str]) -> list[str]:
    """The overrides that a trial's own config is composed from."""
    return [text for text in overrides if not text.lstrip("+").startswith(("search=", "search.", "hydra.", "hydra/"))]
