"""The face of a model, and the Forecaster: a model with its scaler, from bars to forecasts, saved without pickle.

Legend: T sessions, S symbols, F features, H horizons, Q quantiles.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError
from safetensors import SafetensorError

from hftraining.core.bars import Bars
from hftraining.core.errors import UserError
from hftraining.core.files import filling, sha256
from hftraining.core.forecast import Forecast
from hftraining.core.relative import KINDS as KINDS_OF_LABEL
from hftraining.core.relative import in_words
from hftraining.core.tensor_file import TENSORS_MOST, shapes_of
from hftraining.core.untrusted import MB, Untrusted, digest, is_there, read_json_object, read_yaml, refuse_links, shown
from hftraining.market.features import FEATURES, Features, Scaler, make_features
from hftraining.market.frames import bars_of
from hftraining.market.labels import label_span
from hftraining.model.config import WEIGHTS, ModelConfig, ObjectiveConfig, count_weights
from hftraining.model.learner import LearningError, Lesson
from hftraining.model.linear import RidgeModel
from hftraining.model.network import Network
from hftraining.model.transformer import BarTransformer
from hftraining.model.trees import TreesModel
from hftraining.runs.manifest import MOST_SYMBOLS, Day, Sha256, Symbol, first_wrong

FORMAT = 4  # of the model folder
READ = (2, 3, FORMAT)  # 2 has only transformers, and does not name their kind; neither 2 nor 3 says what is forecast
SAYS_RELATIVE = 4  # the first format that names what is forecast
CONFIG, SCALER, RUN_CONFIG = "config.json", "scaler.json", "config.yaml"
PERIODS = ("train", "valid", "test")
HORIZON_MOST, HORIZONS_MOST, QUANTILES_MOST = 10_000, 64, 99  # what a folder may ask for
FILE_MOST = 8 * MB  # of a file in the folder, beside the weights of a transformer
SCALE_MOST = 1e12  # of a feature's mean and deviation


class ModelFolderError(UserError):
    """A model folder cannot be used: what, where, what to do, in one line."""


class Model(Protocol):
    """The face: what every kind of model does. It knows scaled features, not bars.

    training.Trainer trains a Network; a Learner learns by itself. The kinds in HEADLESS give no position of their own.
    """

    config: ModelConfig

    @property
    def receptive_field(self) -> int:
        """Sessions, today included, whose features a forecast can depend on."""
        ...

    def predict(self, scaled_TSF: np.ndarray, known_TS: np.ndarray, device: str) -> tuple[np.ndarray, np.ndarray]:
        """quantiles_TSHQ in units of the labels, and head_TS in [-1, 1], or all NaN without a head; float64.

        scaled_TSF: from Scaler.scale. known_TS: where a symbol has features; elsewhere both results are NaN.
        """
        ...

    def save(self, folder: Path) -> list[str]:
        """Write the model's files into a folder, with model.safetensors; returns their names."""
        ...

    def load(self, folder: Path) -> None:
        """Read what save wrote. Raises OSError, RuntimeError, ValueError or SafetensorError for other files."""
        ...


@runtime_checkable
class Learner(Protocol):
    """A model that learns by itself."""

    def check(self, lesson: Lesson) -> None:
        """Raise LearningError where the training days are too few to learn from."""
        ...

    def learn(self, lesson: Lesson) -> None:
        """Fit the model on the training days. Raises LearningError as check does."""
        ...


KINDS: dict[str, Callable[..., Model]] = {"transformer": BarTransformer, "ridge": RidgeModel, "lightgbm": TreesModel}


@dataclass
class Forecaster:
    """A model with all it needs to turn bars into forecasts.

    relative: what its labels were relative to, see market.labels. symbols: the universe that it learned from, whose
    mean is "the market" in its features. days: period -> first and last day. Both are empty for a model that no run has
    made.
    """

    model: Model
    scaler: Scaler
    horizons: tuple[int, ...]
    levels: tuple[float, ...]
    device: str = "cpu"
    relative: str = "none"
    symbols: tuple[str, ...] = ()
    days: dict[str, tuple[str, str]] = field(default_factory=dict)

    @classmethod
    def fresh(
        cls,
        config: ModelConfig,
        scaler: Scaler,
        horizons: Sequence[int],
        levels: Sequence[float],
        device: str = "cpu",
        relative: str = "none",
    ) -> "Forecaster":
        """An untrained model of any kind. Its forecasts depend on every feature, so that a leak would show in them.

        A Network draws its weights from torch's random state; other kinds always start from the same state. Raises
        MissingDependency without the library that a kind needs.
        """
        horizons, levels = tuple(horizons), tuple(levels)
        model = KINDS[config.kind](config, len(scaler.features), horizons, levels)
        if isinstance(model, Network):
            model.to(device)
        return cls(model, scaler, horizons, levels, device, relative)

    @property
    def kind(self) -> str:
        """transformer, ridge or lightgbm."""
        return self.model.config.kind

    @property
    def receptive_field(self) -> int:
        """Sessions, today included, whose features a forecast can depend on."""
        return self.model.receptive_field

    def forecast(self, bars: Bars | pd.DataFrame) -> Forecast:
        """Forecasts of returns at every session of the bars, in one pass. See Forecast for the arrays and their unit.

        bars: Bars, or a frame with one row a symbol and day, see market.frames.bars_of; its symbols come sorted.
        A forecast at t depends on bars <= t alone. It is the same to 1e-6 whether the bars end at t or later, and
        wherever they begin, if they hold the model's receptive field and 252 bars before it.
        """
        return self.forecast_features(make_features(bars_of(bars)))

    def forecast_features(self, features: Features) -> Forecast:
        """As forecast, from the features of the bars."""
        scaled_TSF = self.scaler.scale(features.values_TSF)
        quantiles_TSHQ, head_TS = self.model.predict(scaled_TSF, features.known_TS, self.device)
        span_TSH = label_span(features.volatility_TS, self.horizons, self.relative)
        return Forecast(quantiles_TSHQ * span_TSH[..., None], head_TS, self.horizons, self.levels, self.relative)

    def save(self, folder: Path) -> None:
        """Write the model's files, scaler.json, and config.json with their sha256 into a folder, made if absent."""
        with filling(folder, CONFIG) as temporary:
            names = [*self.model.save(temporary), SCALER]
            (temporary / SCALER).write_text(json.dumps(dataclasses.asdict(self.scaler), indent=2) + "\n")
            config = {
                "format": FORMAT,
                "model": dataclasses.asdict(self.model.config),
                "horizons": self.horizons,
                "quantiles": self.levels,
                "relative": self.relative,
                "symbols": self.symbols,
                "days": self.days,
                "sha256": {name: sha256(temporary / name) for name in names},
            }
            (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "Forecaster":
        """Read what save wrote in this version or the two before.

        What older models forecast stands only in config.yaml of their run, the folder above: `none` without it.
        Raises ModelFolderError for a folder that is incomplete, damaged, of another format or for other features, and
        MissingDependency for a kind of model whose library is not installed.
        """
        try:
            refuse_links(folder)
        except Untrusted as error:
            raise ModelFolderError(str(error)) from None
        config = _read_json(folder / CONFIG)
        if (found := config.get("format")) not in READ:
            newer = isinstance(found, int) and found > FORMAT
            what = "was written by a newer version: update hftraining" if newer else "is not one of ours: train again"
            known = f"{', '.join(map(str, READ[:-1]))} and {READ[-1]}"
            raise ModelFolderError(f"{folder}: model format {shown(found)}, where this version reads {known}, {what}")
        try:
            facts = _FACTS.validate_python(config)
        except ValidationError as error:
            raise ModelFolderError(f"{folder / CONFIG} cannot be read as a model: {first_wrong(error)}") from None
        _check_files(folder, facts)
        _check_size(folder, facts)
        try:
            relative = facts.relative or _relative_before(folder)
            forecaster = cls.fresh(facts.model, _read_scaler(folder), facts.horizons, facts.quantiles, device, relative)
        except (ModelFolderError, LearningError):
            raise
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise ModelFolderError(f"{folder / CONFIG} cannot be read as a model: {_one_line(error)}") from error
        forecaster.symbols, forecaster.days = tuple(facts.symbols), facts.days
        try:
            forecaster.model.load(folder)
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            raise ModelFolderError(f"{folder / WEIGHTS} cannot be read as this model: {_one_line(error)}") from error
        return forecaster


def _known_fields(values: object) -> object:
    if isinstance(values, dict) and (unknown := values.keys() - ModelConfig.__dataclass_fields__.keys()):
        raise ValueError(f"model.{shown(min(unknown))}: there is no such field")
    return values


def _check_objective(facts: "_Facts") -> "_Facts":
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
class _Facts:
    """The schema of config.json; `model` checks its own shape."""

    format: int
    model: Annotated[ModelConfig, BeforeValidator(_known_fields)]
    horizons: Annotated[list[Annotated[int, Field(strict=True, le=HORIZON_MOST)]], Field(max_length=HORIZONS_MOST)]
    quantiles: Annotated[list[Annotated[float, Field(strict=True)]], Field(max_length=QUANTILES_MOST)]
    symbols: Annotated[list[Symbol], Field(max_length=MOST_SYMBOLS)]
    days: dict[str, tuple[Day, Day]]
    sha256: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,40}\.(safetensors|json|txt)$")], Sha256]
    relative: Annotated[str, Field(strict=True, max_length=40)] | None = None


_FACTS = TypeAdapter(Annotated[_Facts, AfterValidator(_check_objective)])


def _weights_of(facts: _Facts) -> int:
    return count_weights(facts.model, len(FEATURES), len(facts.horizons) * len(facts.quantiles))


def _check_size(folder: Path, facts: _Facts) -> None:
    """Refuse a shape that the weights in the folder do not fill, before a network of that shape is made."""
    if facts.model.kind == "transformer":
        held = sum(math.prod(shape) for _, shape in shapes_of(folder / WEIGHTS).values())
        if held != _weights_of(facts):
            raise ModelFolderError(
                f"{folder / WEIGHTS} cannot be read as this model: it holds {held:,} weights, where {CONFIG} describes "
                f"{_weights_of(facts):,}"
            )


def _check_files(folder: Path, facts: _Facts) -> None:
    """Refuse a folder with a missing or changed file, before any is parsed."""
    wanted = 4 * _weights_of(facts) if facts.model.kind == "transformer" else 0
    most = min(TENSORS_MOST, wanted + FILE_MOST)
    for name in dict.fromkeys((WEIGHTS, SCALER, *facts.sha256)):
        if not is_there(folder / name):
            raise ModelFolderError(f"{folder / name} is missing: not a whole model folder")
        if digest(folder / name, most) != facts.sha256.get(name):
            raise ModelFolderError(f"{folder / name} is damaged: its sha256 is not the one in {CONFIG}")


def _read_scaler(folder: Path) -> Scaler:
    path = folder / SCALER
    scaler = _read_json(path)
    names: Any = scaler.get("features")
    numbers: list[Any] = [scaler.get("mean_F"), scaler.get("std_F")]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ModelFolderError(f"{path} is damaged: it names no features")
    if tuple(names) != FEATURES:
        unlike = sorted(set(names) ^ set(FEATURES)) or "their order"
        raise ModelFolderError(
            f"{folder}: the model was trained on other features; they differ in {shown(unlike, 300)}"
        )
    for values in numbers:
        if not isinstance(values, list) or len(values) != len(FEATURES) or not all(map(_is_number, values)):
            raise ModelFolderError(f"{path} is damaged: it does not hold a mean and a deviation of each feature")
    mean_F, std_F = (tuple(map(float, values)) for values in numbers)
    if min(std_F) <= 0.0:
        raise ModelFolderError(f"{path} is damaged: a standard deviation is not positive")
    return Scaler(FEATURES, mean_F, std_F)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) <= SCALE_MOST  # type: ignore[arg-type]


def _read_json(path: Path) -> dict[str, Any]:
    if not is_there(path):
        raise ModelFolderError(f"{path} is missing: not a model folder")
    try:
        return read_json_object(path)
    except Untrusted as error:
        raise ModelFolderError(str(error)) from None


def _one_line(error: Exception) -> str:
    return shown(error, 300)
