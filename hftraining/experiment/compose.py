"""The composer: the config of `python train.py OVERRIDES`, for callers anywhere; and values in Hydra's grammar."""

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hftraining.core.errors import ConfigError, did_you_mean
from hftraining.core.secret import refuse_secrets
from hftraining.experiment.config import CONF, ExperimentConfig, explain, typed_config, unknown_key

CONFIG = "config"  # conf/config.yaml
SCHEMA = "hftraining_schema"  # what conf/config.yaml calls the dataclass of the tree
_PLAIN_WORD = re.compile(r"(?!(?:null|true|false|nan|inf)\Z)[a-z_/][\w/.-]*", re.ASCII | re.IGNORECASE)


def register(schema: type[ExperimentConfig] = ExperimentConfig) -> None:
    """Tell Hydra the dataclass that types and closes the tree. A registered subclass of it stays."""
    known = ConfigStore.instance().repo.get(f"{SCHEMA}.yaml")
    if known is None or not issubclass(OmegaConf.get_type(known.node) or object, schema):
        ConfigStore.instance().store(name=SCHEMA, node=schema)


def composed(
    overrides: Sequence[str] = (), config_name: str = CONFIG, *, resolve: bool = True, search: bool = False
) -> dict[str, Any]:
    """What `python train.py OVERRIDES` composes, as nested values; typed_config checks that they fit together.

    config_name: another file of conf/; an option such as "training/finetune" gives its own values alone. resolve,
    search: see values_of. A Hydra that is already initialised, ours or another application's, stays as it was. Raises
    ConfigError.
    """
    try:
        with _hydra_on_conf() as more:
            return values_of(compose(config_name, [*more, *overrides]), resolve=resolve, search=search)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(one_line(error)) from error


def values_of(tree: DictConfig, *, resolve: bool = True, search: bool = False) -> dict[str, Any]:
    """The nested values of what Hydra composed.

    resolve: false keeps interpolations. search: true keeps the search of a sweep, which is no part of a run.
    """
    values = OmegaConf.to_container(tree, resolve=False)
    assert isinstance(values, dict)
    refuse_secrets(values)
    if resolve:
        values = OmegaConf.to_container(tree, resolve=True)
        assert isinstance(values, dict)
    return {str(name): value for name, value in values.items() if search or name != "search"}


def options_of(group: str) -> list[str]:
    """The options of a config group, e.g. of model; none if there is no such group."""
    with _hydra_on_conf():
        return list(GlobalHydra.instance().config_loader().get_group_options(group))


class Composer:
    """Configs that share overrides and differ in a few values: the points of a sweep.

    Hydra composes once for each choice of groups; the values of fields are set afterwards, with the same result.
    """

    def __init__(self, pinned: Sequence[str] = (), config_name: str = CONFIG) -> None:
        """pinned: the overrides that all configs share."""
        self.pinned, self.config_name = list(pinned), config_name
        self._composed: dict[tuple[str, ...], dict[str, Any]] = {}
        self._groups: dict[str, bool] = {}

    def config(self, point: Mapping[str, Any]) -> ExperimentConfig:
        """The checked config of a point: values by field or group. Raises ConfigError."""
        groups = {name: value for name, value in point.items() if self.is_group(name)}
        values = copy.deepcopy(self._of_groups(groups))
        for name, value in point.items():
            if name not in groups:
                _put(values, name, value)
        return typed_config(values)

    def overrides(self, point: Mapping[str, Any]) -> list[str]:
        """The same as a command line."""
        return [*self.pinned, *(override(name, value) for name, value in point.items())]

    def is_group(self, name: str) -> bool:
        """Whether a name is a config group, e.g. model."""
        if name not in self._groups:
            self._groups[name] = "." not in name and bool(options_of(name))
        return self._groups[name]

    def _of_groups(self, groups: Mapping[str, Any]) -> dict[str, Any]:
        chosen = tuple(override(name, groups[name]) for name in sorted(groups))
        if chosen not in self._composed:
            # Unresolved, so that interpolations such as the name of a run follow the point.
            self._composed[chosen] = composed([*self.pinned, *chosen], self.config_name, resolve=False)
        return self._composed[chosen]


def override(field: str, value: Any) -> str:
    """`field=value` as Hydra reads it."""
    return f"{field}={as_override(value)}"


def as_override(value: Any) -> str:
    """A value in Hydra's grammar, with text quoted where Hydra would misread it. Keys of a dict must be plain words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(as_override, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{as_override(item)}' for key, item in value.items())}}}"
    if isinstance(value, str) and not _PLAIN_WORD.fullmatch(value):
        return str(QuotedString(text=value, quote=Quote.single).with_quotes())
    return str(value)


def one_line(error: BaseException, unknown: Callable[[str], str] = unknown_key) -> str:
    """What is wrong with overrides, in one line. unknown: makes the line for a field that does not exist."""
    text, cause = str(error), error.__cause__
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, option = error.missing_cfg_file.rpartition("/")
        hint = did_you_mean(option, error.options)
        return f"{group}={option}: there is no such option{hint} (there are {', '.join(sorted(error.options))})"
    refused = re.search(r"Could not override '([^']+)'", text)
    if isinstance(error, HydraException) and isinstance(cause, OmegaConfBaseException):
        return unknown(refused[1]) if refused and "not in" in str(cause) else explain(cause)
    if refused:
        return unknown(refused[1])
    if match := re.search(r"Ambiguous value for argument '(.+)'", text):
        return f"{match[1]}: several values need -m (a multirun), or brackets if they are one list"
    if isinstance(error, HydraException):  # Hydra's second line says what to do
        return " ".join(line.strip() for line in text.splitlines()[:2])
    return explain(error)


@contextmanager
def _hydra_on_conf() -> Iterator[list[str]]:
    """Hydra on our conf/: train.py's own, which may know more folders, or a new one. Gives the overrides it needs.

    initialize_config_dir alone refuses an initialised Hydra, and as a context leaves a copy of what was there.
    """
    register()
    instance = GlobalHydra.instance()
    if instance.is_initialized() and _reads_conf(instance):
        yield []
        return
    version = VersionBase.instance()
    before = instance.hydra, version.version_base
    instance.clear()
    try:
        initialize_config_dir(str(CONF), version_base="1.3")
        yield ["hydra/sweeper=basic"]  # ours is found only with hydra_plugins/ on the path
    finally:
        instance.hydra, version.version_base = before


def _reads_conf(instance: GlobalHydra) -> bool:
    path = instance.config_loader().get_search_path().get_path()
    return any(entry.provider == "main" and Path(entry.path.removeprefix("file://")) == CONF for entry in path)


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    *path, last = name.split(".")
    place: Any = values
    for key in path:
        place = place.get(key) if isinstance(place, dict) else None
    if not isinstance(place, dict) or last not in place:
        raise ConfigError(unknown_key(name))
    place[last] = value
