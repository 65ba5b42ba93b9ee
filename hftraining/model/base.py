"""The face of a model, and the Forecaster: a model with its scaler, from bars to forecasts, saved without pickle.

Legend: T sessions, S symbols, F features, H horizons, Q quantiles.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from safetensors import SafetensorError

from hftraining.core.bars import Bars
from hftraining.core.errors import UserError
from hftraining.core.files import filling, sha256
from hftraining.core.forecast import Forecast
from hftraining.market.features import FEATURES, Features, Scaler, make_features
from hftraining.model.config import WEIGHTS, ModelConfig
from hftraining.model.learner import LearningError, Lesson
from hftraining.model.linear import RidgeModel
from hftraining.model.network import Network
from hftraining.model.transformer import BarTransformer
from hftraining.model.trees import TreesModel

FORMAT = 3  # of the model folder
READ = (2, FORMAT)  # format 2 has only transformers, and does not name their kind
CONFIG, SCALER = "config.json", "scaler.json"


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
        """quantiles_TSHQ in volatility units, and head_TS in [-1, 1], or all NaN without a head; float64.

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

    symbols: the universe that it learned from, whose mean is "the market" in its features. days: period -> first and
    last day. Both are empty for a model that no run has made.
    """

    model: Model
    scaler: Scaler
    horizons: tuple[int, ...]
    levels: tuple[float, ...]
    device: str = "cpu"
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
    ) -> "Forecaster":
        """An untrained model of any kind. Its forecasts depend on every feature, so that a leak would show in them.

        A Network draws its weights from torch's random state; other kinds always start from the same state. Raises
        MissingDependency without the library that a kind needs.
        """
        horizons, levels = tuple(horizons), tuple(levels)
        model = KINDS[config.kind](config, len(scaler.features), horizons, levels)
        if isinstance(model, Network):
            model.to(device)
        return cls(model, scaler, horizons, levels, device)

    @property
    def kind(self) -> str:
        """transformer, ridge or lightgbm."""
        return self.model.config.kind

    @property
    def receptive_field(self) -> int:
        """Sessions, today included, whose features a forecast can depend on."""
        return self.model.receptive_field

    def forecast(self, bars: Bars) -> Forecast:
        """Forecasts of log returns at every session of the bars, in one pass. See Forecast for the arrays.

        A forecast at t depends on bars <= t alone. It is the same to 1e-6 whether the bars end at t or later, and
        wherever they begin, if they hold the model's receptive field and 252 bars before it.
        """
        return self.forecast_features(make_features(bars))

    def forecast_features(self, features: Features) -> Forecast:
        """As forecast, from the features of the bars."""
        scaled_TSF = self.scaler.scale(features.values_TSF)
        quantiles_TSHQ, head_TS = self.model.predict(scaled_TSF, features.known_TS, self.device)
        span_TSH = features.volatility_TS[:, :, None] * np.sqrt(np.asarray(self.horizons, float))
        return Forecast(quantiles_TSHQ * span_TSH[..., None], head_TS, self.horizons, self.levels)

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
                "symbols": self.symbols,
                "days": self.days,
                "sha256": {name: sha256(temporary / name) for name in names},
            }
            (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "Forecaster":
        """Read what save wrote in this version or the one before.

        Raises ModelFolderError for a folder that is incomplete, damaged, of another format or for other features, and
        MissingDependency for a kind of model whose library is not installed.
        """
        config = _read_json(folder / CONFIG)
        if (found := config.get("format")) not in READ:
            newer = isinstance(found, int) and found > FORMAT
            what = "was written by a newer version: update hftraining" if newer else "is not one of ours: train again"
            known = " and ".join(map(str, READ))
            raise ModelFolderError(f"{folder}: model format {found}, where this version reads {known}, {what}")
        try:
            _check_files(folder, config["sha256"])
            shape, scaler = ModelConfig(**config["model"]), _read_scaler(folder)
            forecaster = cls.fresh(shape, scaler, config["horizons"], config["quantiles"], device)
            forecaster.symbols = tuple(config["symbols"])
            forecaster.days = {name: (first, last) for name, (first, last) in config["days"].items()}
        except (ModelFolderError, LearningError):
            raise
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise ModelFolderError(f"{folder / CONFIG} cannot be read as a model: {_one_line(error)}") from error
        try:
            forecaster.model.load(folder)
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            raise ModelFolderError(f"{folder / WEIGHTS} cannot be read as this model: {_one_line(error)}") from error
        return forecaster


def _check_files(folder: Path, hashes: dict[str, str]) -> None:
    """Refuse a folder with a missing or changed file, before any is parsed."""
    for name in (WEIGHTS, SCALER, *hashes):
        if not (folder / name).is_file():
            raise ModelFolderError(f"{folder / name} is missing: not a whole model folder")
        if sha256(folder / name) != hashes[name]:
            raise ModelFolderError(f"{folder / name} is damaged: its sha256 is not the one in {CONFIG}")


def _read_scaler(folder: Path) -> Scaler:
    scaler = _read_json(folder / SCALER)
    if tuple(scaler["features"]) != FEATURES:
        unlike = sorted(set(scaler["features"]) ^ set(FEATURES)) or "their order"
        raise ModelFolderError(f"{folder}: the model was trained on other features; they differ in {unlike}")
    return Scaler(FEATURES, tuple(scaler["mean_F"]), tuple(scaler["std_F"]))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        raise ModelFolderError(f"{path} is missing: not a model folder") from None
    except ValueError as error:
        raise ModelFolderError(f"{path} is damaged: {error}") from None
    if not isinstance(value, dict):
        raise ModelFolderError(f"{path} is damaged: it holds no JSON object")
    return value


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
