"""The composer: the config of `python train.py OVERRIDES`, for callers anywhere; and values in Hydra's grammar."""

import contextlib
import copy
import dataclasses
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.file_config_source import FileConfigSource as _HydrasFiles
from hydra._internal.sources_registry import SourcesRegistry
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException
from hydra.plugins.config_source import ConfigResult
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped,unused-ignore]

from hftraining.core.errors import ConfigError, Ending, did_you_mean, in_a_line, listed
from hftraining.core.secret import refuse_secrets
from hftraining.core.values import flatten
from hftraining.core.yaml_files import check_yaml, explain_yaml
from hftraining.experiment.config import CONF, ExperimentConfig, explain, typed_config, unknown_key

CONFIG = "config"  # conf/config.yaml
SCHEMA = "hftraining_schema"  # what conf/config.yaml calls the dataclass of the tree
MOST_VALUES = 5_000  # in one argument: Hydra's parser needs seconds for ten thousand, and its time grows by the square
MOST_DEPTH = 30  # of brackets within each other
_COUNTED = {"walk_forward": "walk_forward.every", "ensemble": "training.seeds"}
_NUMBERS = re.compile(r"-?\d+(,-?\d+)*", re.ASCII)
_PLAIN_WORD = re.compile(r"(?!(?:null|true|false|nan|inf)\Z)[a-z_/][\w/.-]*", re.ASCII | re.IGNORECASE)


class FileConfigSource(_HydrasFiles):
    """Hydra's own source of config files, which first looks whether a file can be read safely.

    Named as Hydra's, which therefore leaves it in its place.
    """

    def load_config(self, config_path: str) -> ConfigResult:
        """One file. Raises YamlFileError, which names file, line and column."""
        path = Path(self.path, self._normalize_file_name(config_path)).resolve()
        if path.is_file():
            check_yaml(path)
        try:
            return super().load_config(config_path)
        except YAMLError as error:
            raise explain_yaml(error, path) from error
        except (HydraException, OmegaConfBaseException, ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno:
                raise
            raise ConfigError(f"{path}: {in_a_line(explain(error), 300)}") from error


def register(schema: type[ExperimentConfig] = ExperimentConfig) -> None:
    """Tell Hydra the dataclass that types and closes the tree, and how files are read. A registered subclass stays."""
    SourcesRegistry.instance().types[FileConfigSource.scheme()] = FileConfigSource
    known = ConfigStore.instance().repo.get(f"{SCHEMA}.yaml")
    if known is None or not issubclass(OmegaConf.get_type(known.node) or object, schema):
        ConfigStore.instance().store(name=SCHEMA, node=schema)


def composed(
    overrides: Sequence[str] = (), config_name: str = CONFIG, *, resolve: bool = True, search: bool = False
) -> dict[str, Any]:
    """What `python train.py OVERRIDES` composes, as nested values; typed_config checks that they fit together.

    config_name: another file of conf/; an option such as "training/finetune" gives its own values alone. resolve,
    search: see values_of. A Hydra that is already initialised, ours or another application's, stays as it was. Raises
    ConfigError, whatever is wrong with the overrides or with conf/.
    """
    try:
        with _hydra_on_conf() as more:
            _refuse_unset(overrides)
            texts = [_of_a_number(text) for text in overrides]
            return values_of(compose(config_name, [*more, *texts]), resolve=resolve, search=search)
    except Exception as error:
        is_hydras = isinstance(error, HydraException)  # one of them is an OSError, too
        if not is_hydras and isinstance(error, Ending | OSError | MemoryError):
            raise
        raise explain_composing(error) from error


def command_line(arguments: Sequence[str]) -> list[str]:
    """The arguments of train.py as Hydra's parser accepts them: -m before all overrides.

    Raises ConfigError for an option that Hydra does not have, and for what its parsers are no match for.
    """
    _refuse_unset(arguments)
    for text in arguments:
        shown = in_a_line(text, 60)
        if re.search("[\0\ud800-\udfff]", text):
            raise ConfigError(f"{shown}: this argument is no UTF-8 text")
        if text.count(",") >= MOST_VALUES:
            raise ConfigError(
                f"{shown}: {text.count(',') + 1:,} values in one argument, more than {MOST_VALUES:,} (without "
                "stocks.symbols, all symbols of a folder are used)"
            )
        if _depth(text) > MOST_DEPTH:
            raise ConfigError(f"{shown}: brackets lie more than {MOST_DEPTH} deep")
    arguments = [_of_a_number(text) for text in arguments]
    flags = [text for text in arguments if text in ("-m", "--multirun")]
    arranged = [*flags, *(text for text in arguments if text not in flags)]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            options = get_args_parser().parse_args(arranged)
    except SystemExit as stopped:
        if not stopped.code:  # --version
            raise
        refused = said.getvalue().partition("error: ")[2]
        raise ConfigError(f"{in_a_line(refused, 300)} (--help, --hydra-help)") from None
    if options.experimental_rerun is not None:  # a pickle, which runs whatever is in it
        raise ConfigError("--experimental-rerun is not offered: resume=FOLDER goes on with a run")
    return arranged


def _refuse_unset(texts: Sequence[str]) -> None:
    """Raise ConfigError for an empty value: that of a variable which is not set would pass for one that was left out.

    An empty list of stocks, as of stocks.symbols=[$SYMBOL], would be all of them.
    """
    for text in texts:
        name, _, value = text.partition("=")
        if not text.strip():
            raise ConfigError("an argument is empty: is a variable of the shell not set?")
        if "=" in text and not value.strip(" '\""):
            raise ConfigError(f"{in_a_line(name, 60)}= is empty: give a value, or leave it out")
        if name.lstrip("+~") == "stocks.symbols" and not value.strip("[] ,'\""):
            raise ConfigError("stocks.symbols= names no stock: name some, or leave it out for all")


def _of_a_number(text: str) -> str:
    """walk_forward=252 as walk_forward.every=252, ensemble=5 as training.seeds=5: a number is no option of a group."""
    name, _, value = text.partition("=")
    return f"{_COUNTED[name]}={value}" if name in _COUNTED and _NUMBERS.fullmatch(value) else text


def explain_overrides(error: Exception) -> ConfigError | None:
    """The line for an error of Hydra's or OmegaConf's; None for any other."""
    return explain_composing(error) if isinstance(error, HydraException | OmegaConfBaseException) else None


def explain_composing(error: Exception, unknown: Callable[[str], str] = unknown_key) -> ConfigError:
    """The line for whatever goes wrong while Hydra composes: it comes from the command line or from conf/.

    Hydra and OmegaConf answer odd values with any exception that there is. unknown: see one_line.
    """
    if isinstance(error, RecursionError):
        return ConfigError("the command line, or a file that it uses, refers to itself or is nested too deeply")
    if isinstance(error, YAMLError):
        return ConfigError(str(explain_yaml(error)))
    if isinstance(error, HydraException | OmegaConfBaseException):
        return ConfigError(in_a_line(one_line(error, unknown)))
    if isinstance(error, AssertionError) and "Unexpected type" in str(error):  # OmegaConf, of a value within null
        return ConfigError(
            "a setting of a group that is null: search.NAME=VALUE, say, needs a search (-m search=profit)"
        )
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return ConfigError(f"Hydra cannot use the command line, or a file that it names ({in_a_line(said, 300)})")


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
        return f"{group}={option}: there is no such option{hint} (there are {listed(sorted(error.options), 30)})"
    refused = re.search(r"Could not override '([^']+)'", text)
    if isinstance(error, HydraException) and isinstance(cause, OmegaConfBaseException):
        if not refused or "not in" not in str(cause):
            return explain(cause)
        within = re.search(r"^ *full_key: (\S+)", str(cause), re.MULTILINE)  # of a mapping that is given as a whole
        return unknown(within[1] if within and within[1].startswith(f"{refused[1]}.") else refused[1])
    if refused:
        return unknown(refused[1])
    if match := re.search(r"Ambiguous value for argument '(.+)'", text):
        name, _, values = match[1].partition("=")
        takes_a_list = isinstance(flatten(dataclasses.asdict(ExperimentConfig())).get(name), list)
        lists = f": {name}=[{values}]" if takes_a_list else ""
        return f"{match[1]}: several values need -m (a multirun), or brackets if they are one list{lists}"
    if isinstance(error, HydraException):  # Hydra's second line says what to do
        return " ".join(line.strip() for line in text.splitlines()[:2])
    return explain(error)


def _depth(text: str) -> int:
    """How deep brackets lie within each other at most, whether or not they are closed."""
    depth = deepest = 0
    for letter in re.findall(r"[][(){}]", text):
        depth += 1 if letter in "[({" else -1
        deepest = max(deepest, depth)
    return deepest


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
