"""The folder of one model, read as data: its facts and scaler, each file's size and checksum before it is parsed."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError

from hftraining.core.errors import UserError
from hftraining.core.relative import KINDS as KINDS_OF_LABEL
from hftraining.core.relative import in_words
from hftraining.core.tensor_file import TENSORS_MOST, shapes_of
from hftraining.core.untrusted import MB, Untrusted, digest, is_there, read_json_object, read_yaml, refuse_links, shown
from hftraining.market.features.names import refuse_unknown
from hftraining.market.features.scaler import Scaler
from hftraining.model.config import NETWORKS, WEIGHTS, ModelConfig, ObjectiveConfig, count_weights
from hftraining.runs.manifest import MOST_SYMBOLS, Day, Sha256, Symbol, first_wrong

FORMAT = 5  # of the model folder
READ = (2, 3, 4, FORMAT)  # 2 has only transformers, and does not name their kind; neither 2 nor 3 says what is forecast
SAYS_RELATIVE = 4  # the first format that names what is forecast
HAS_GATES = 5  # the first format in which attention across stocks has a gate
CONFIG, SCALER, RUN_CONFIG = "config.json", "scaler.json", "config.yaml"
PERIODS = ("train", "valid", "test")
HORIZON_MOST, HORIZONS_MOST, QUANTILES_MOST = 10_000, 64, 99  # what a folder may ask for
FILE_MOST = 8 * MB  # of a file in the folder, beside the weights of a network
SCALE_MOST = 1e12  # of a feature's mean and deviation


class ModelFolderError(UserError):
    """A model folder cannot be used: what, where, what to do, in one line."""


def read_facts(folder: Path) -> tuple["Facts", Scaler]:
    """What config.json of a model folder says, and its scaler, once every file of it is there and as it was written.

    Raises ModelFolderError for a folder that is incomplete, damaged, of another format or for other features.
    """
    try:
        refuse_links(folder)
    except Untrusted as error:
        raise ModelFolderError(str(error)) from None
    config = read_config(folder / CONFIG)
    if config.get("kind") == "ensemble":
        raise ModelFolderError(f"{folder} is an ensemble, where one model is asked for: give one of its members")
    if (found := config.get("format")) not in READ:
        newer = isinstance(found, int) and found > FORMAT
        what = "was written by a newer version: update hftraining" if newer else "is not one of ours: train again"
        known = f"{', '.join(map(str, READ[:-1]))} and {READ[-1]}"
        raise ModelFolderError(f"{folder}: model format {shown(found)}, where this version reads {known}, {what}")
    try:
        facts = _FACTS.validate_python(config)
    except ValidationError as error:
        raise ModelFolderError(f"{folder / CONFIG} cannot be read as a model: {first_wrong(error)}") from None
    _check_file(folder, SCALER, facts, FILE_MOST)
    scaler = _read_scaler(folder)
    _check_files(folder, facts, len(scaler.features))
    _check_size(folder, facts, len(scaler.features))
    facts.relative = facts.relative or _relative_before(folder)
    return facts, scaler


def _known_fields(values: object) -> object:
    if isinstance(values, dict) and (unknown := values.keys() - ModelConfig.__dataclass_fields__.keys()):
        raise ValueError(f"model.{shown(min(unknown))}: there is no such field")
    return values


def _check_objective(facts: "Facts") -> "Facts":
    """Rising horizons and quantiles, as an objective has them, and days in their order."""
    ObjectiveConfig(horizons=facts.horizons, quantiles=facts.quantiles)
    ends = [day for name in PERIODS for day in facts.days.get(name, ())]
    if ends != sorted(ends) or facts.days.keys() - set(PERIODS):
        raise ValueError(f"days={facts.days} are not those of train, valid and test")
    if len(set(facts.symbols)) < len(facts.symbols):
        raise ValueError("symbols names one twice")
    if facts.relative not in (KINDS_OF_LABEL if facts.format >= SAYS_RELATIVE else (None, *KINDS_OF_LABEL)):
        raise ValueError(f"relative={shown(facts.relative)} is not one of {', '.join(KINDS_OF_LABEL)}")
    return facts


def _relative_before(folder: Path) -> str:
    """What a model of a format before 4 forecasts: returns less their mean where config.yaml of its run said true."""
    path = folder.parent / RUN_CONFIG
    try:
        objective = read_yaml(path).get("objective") if is_there(path) else None
    except Untrusted as error:
        raise ModelFolderError(str(error)) from None
    said = in_words(objective.get("relative")) if isinstance(objective, dict) else None
    return "mean" if said == "mean" else "none"


@dataclass
class Facts:
    """The schema of config.json; `model` checks its own shape."""

    format: int
    model: Annotated[ModelConfig, BeforeValidator(_known_fields)]
    horizons: Annotated[list[Annotated[int, Field(strict=True, le=HORIZON_MOST)]], Field(max_length=HORIZONS_MOST)]
    quantiles: Annotated[list[Annotated[float, Field(strict=True)]], Field(max_length=QUANTILES_MOST)]
    symbols: Annotated[list[Symbol], Field(max_length=MOST_SYMBOLS)]
    days: dict[str, tuple[Day, Day]]
    sha256: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,40}\.(safetensors|json|txt)$")], Sha256]
    relative: Annotated[str, Field(strict=True, max_length=40)] | None = None


_FACTS = TypeAdapter(Annotated[Facts, AfterValidator(_check_objective)])


def _weights_of(facts: Facts, features: int) -> int:
    n_outputs = len(facts.horizons) * len(facts.quantiles)
    count = count_weights(facts.model, features, n_outputs, len(facts.symbols))
    if facts.format < HAS_GATES and facts.model.cross_asset:
        count -= facts.model.num_layers * facts.model.hidden_size
    return count


def _check_size(folder: Path, facts: Facts, features: int) -> None:
    """Refuse a shape that the weights in the folder do not fill, before a network of that shape is made."""
    if facts.model.kind in NETWORKS:
        held = sum(math.prod(shape) for _, shape in shapes_of(folder / WEIGHTS).values())
        if held != _weights_of(facts, features):
            raise ModelFolderError(
                f"{folder / WEIGHTS} cannot be read as this model: it holds {held:,} weights, where {CONFIG} describes "
                f"{_weights_of(facts, features):,}"
            )


def _check_files(folder: Path, facts: Facts, features: int) -> None:
    """Refuse a folder with a missing or changed file, before any is parsed."""
    wanted = 4 * _weights_of(facts, features)
    most = min(TENSORS_MOST, wanted + FILE_MOST)
    for name in dict.fromkeys((WEIGHTS, SCALER, *facts.sha256)):
        _check_file(folder, name, facts, most)


def _check_file(folder: Path, name: str, facts: Facts, most: int) -> None:
    if not is_there(folder / name):
        raise ModelFolderError(f"{folder / name} is missing: not a whole model folder")
    if digest(folder / name, most) != facts.sha256.get(name):
        raise ModelFolderError(f"{folder / name} is damaged: its sha256 is not the one in {CONFIG}")


def _read_scaler(folder: Path) -> Scaler:
    path = folder / SCALER
    scaler = read_config(path)
    names: Any = scaler.get("features")
    numbers: list[Any] = [scaler.get("mean_F"), scaler.get("std_F")]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ModelFolderError(f"{path} is damaged: it names no features")
    try:
        refuse_unknown(names)
    except ValueError as error:
        raise ModelFolderError(f"{folder}: the model was trained on other features: {error}") from None
    for values in numbers:
        if not isinstance(values, list) or len(values) != len(names) or not all(map(_is_number, values)):
            raise ModelFolderError(f"{path} is damaged: it does not hold a mean and a deviation of each feature")
    mean_F, std_F = (tuple(map(float, values)) for values in numbers)
    if min(std_F) <= 0.0:
        raise ModelFolderError(f"{path} is damaged: a standard deviation is not positive")
    return Scaler(tuple(names), mean_F, std_F)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) <= SCALE_MOST  # type: ignore[arg-type]


def read_config(path: Path) -> dict[str, Any]:
    """A config.json of a model folder, as data. Raises ModelFolderError."""
    if not is_there(path):
        raise ModelFolderError(f"{path} is missing: not a model folder")
    try:
        return read_json_object(path)
    except Untrusted as error:
        raise ModelFolderError(str(error)) from None
