"""The face of a model, and the Forecaster: a model with its scaler, from bars to forecasts, saved without pickle.

Legend: T sessions, S symbols, F features, H horizons, Q quantiles.
"""

import copy
import dataclasses
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
from safetensors import SafetensorError

from hftraining.core.bars import Bars
from hftraining.core.files import filling, sha256
from hftraining.core.forecast import Forecast
from hftraining.core.untrusted import shown
from hftraining.market.features.scaler import Scaler
from hftraining.market.features.table import Features, make_features
from hftraining.market.frames import bars_of
from hftraining.market.labels import label_span
from hftraining.model.config import WEIGHTS, ModelConfig
from hftraining.model.folder import CONFIG, FORMAT, SCALER, Facts, ModelFolderError, read_facts
from hftraining.model.lagged_linear import LaggedLinear
from hftraining.model.learner import LearningError, Lesson
from hftraining.model.linear import RidgeModel
from hftraining.model.lstm import Lstm
from hftraining.model.mlp import Mlp
from hftraining.model.network import Network
from hftraining.model.patchtst import PatchTst
from hftraining.model.transformer import BarTransformer
from hftraining.model.trees import TreesModel

logger = logging.getLogger("hftraining")


class Model(Protocol):
    """The face: what every kind of model does. It knows scaled features, not bars.

    training.Trainer trains a Network; a Learner learns by itself. The kinds in HEADLESS give no position of their own.
    """

    config: ModelConfig

    @property
    def receptive_field(self) -> int:
        """Sessions, today included, whose features a forecast can depend on."""
        ...

    @property
    def size(self) -> int:
        """How many numbers it learns: weights, or the leaves and thresholds of trees."""
        ...

    def predict(
        self,
        scaled_TSF: np.ndarray,
        known_TS: np.ndarray,
        device: str,
        symbol_S: np.ndarray | None = None,
        begin: int = 0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """quantiles_TSHQ in units of the labels, and head_TS in [-1, 1], or all NaN without a head; float64.

        scaled_TSF: from Scaler.scale. known_TS: where a symbol has features; elsewhere both results are NaN. symbol_S:
        the symbols' numbers in the universe that the model learned from, -1 for others; None: all -1. begin: the
        results are of the sessions from there on, whose forecasts are the same to 1e-6 whatever begins.
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


KINDS: dict[str, Callable[..., Model]] = {
    "transformer": BarTransformer,
    "linear": LaggedLinear,
    "mlp": Mlp,
    "lstm": Lstm,
    "patchtst": PatchTst,
    "ridge": RidgeModel,
    "lightgbm": TreesModel,
}


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
        symbols: Sequence[str] = (),
    ) -> "Forecaster":
        """An untrained model of any kind. Its forecasts depend on every feature, so that a leak would show in them.

        A Network draws its weights from torch's random state; other kinds always start from the same state. Raises
        MissingDependency without the library that a kind needs.
        """
        horizons, levels = tuple(horizons), tuple(levels)
        model = KINDS[config.kind](config, len(scaler.features), horizons, levels)
        if isinstance(model, Network):
            model.seat([-1] * len(symbols))
            model.to(device)
        return cls(model, scaler, horizons, levels, device, relative, tuple(symbols))

    @property
    def kind(self) -> str:
        """One of KINDS."""
        return self.model.config.kind

    @property
    def receptive_field(self) -> int:
        """Sessions, today included, whose features a forecast can depend on."""
        return self.model.receptive_field

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the features that it forecasts from."""
        return self.scaler.features

    @property
    def size(self) -> int:
        """How many numbers it has learned."""
        return self.model.size

    @property
    def looks_across(self) -> bool:
        """Whether its stocks see each other, so that the forecast of one depends on which others there are."""
        return self.model.config.cross_asset

    def forecast(self, bars: Bars | pd.DataFrame) -> Forecast:
        """Forecasts of returns at every session of the bars, in one pass. See Forecast for the arrays and their unit.

        bars: Bars, or a frame with one row a symbol and day, see market.frames.bars_of; its symbols come sorted.
        A forecast at t depends on bars <= t alone. It is the same to 1e-6 whether the bars end at t or later, and
        wherever they begin, if they hold the model's receptive field and 252 bars before it.
        Ranks, and the market in features, are those of the stocks in the bars: the log warns where they lack some that
        the model learned from.
        """
        bars = bars_of(bars)
        warn_of_missing(self.symbols, bars)
        return self.forecast_features(make_features(bars, self.scaler.features), bars.symbols_S)

    def numbers_of(self, symbols_S: Sequence[str]) -> np.ndarray:
        """int64 numbers of symbols in the universe that the model learned from; -1 for a symbol that is none of it."""
        number = {name: n for n, name in enumerate(self.symbols)}
        return np.array([number.get(name, -1) for name in symbols_S], np.int64)

    def knowing(self, symbols: Sequence[str]) -> "Forecaster":
        """The same forecaster in another universe, in which each symbol keeps what the model has learned of it."""
        if tuple(symbols) == self.symbols:
            return self
        model = self.model
        if isinstance(model, Network) and model.symbols is not None:
            model = copy.deepcopy(model)
            model.seat(self.numbers_of(symbols).tolist())
        return dataclasses.replace(self, model=model, symbols=tuple(symbols))

    def forecast_features(self, features: Features, symbols_S: Sequence[str], begin: int = 0) -> Forecast:
        """As forecast, from the features of the bars of some symbols, for the sessions from row `begin` on.

        Raises ValueError for other features than the model has learned from.
        """
        if features.names != self.scaler.features:
            unlike = sorted(set(features.names) ^ set(self.scaler.features)) or "their order"
            raise ValueError(f"the model was trained on other features; they differ in {shown(unlike, 300)}")
        scaled_TSF = self.scaler.scale(features.values_TSF)
        quantiles_TSHQ, head_TS = self.model.predict(
            scaled_TSF, features.known_TS, self.device, self.numbers_of(symbols_S), begin
        )
        span_TSH = label_span(features.volatility_TS[begin:], self.horizons, self.relative)
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
        return cls.of_facts(folder, *read_facts(folder), device)

    @classmethod
    def of_facts(cls, folder: Path, facts: Facts, scaler: Scaler, device: str = "cpu") -> "Forecaster":
        """As load, from what read_facts has said of the folder."""
        task = facts.horizons, facts.quantiles
        try:
            forecaster = cls.fresh(facts.model, scaler, *task, device, facts.relative or "none", facts.symbols)
        except (ModelFolderError, LearningError):
            raise
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise ModelFolderError(f"{folder / CONFIG} cannot be read as a model: {_one_line(error)}") from error
        forecaster.days = facts.days
        try:
            forecaster.model.load(folder)
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            raise ModelFolderError(f"{folder / WEIGHTS} cannot be read as this model: {_one_line(error)}") from error
        if not forecaster._is_finite():
            raise ModelFolderError(
                f"{folder / WEIGHTS}: numbers in it are so large that forecasts are not finite: it is damaged, or its "
                "training diverged: use another model"
            )
        return forecaster

    def _is_finite(self) -> bool:
        """Whether the model forecasts numbers for bars that are usual, and a few deviations from it."""
        usual_TSF = np.repeat(np.array([[[0.0]], [[4.0]], [[-4.0]]], np.float32), len(self.scaler.features), axis=2)
        quantiles_TSHQ, _ = self.model.predict(usual_TSF, np.ones((3, 1), bool), self.device, np.array([-1]))
        return bool(np.isfinite(quantiles_TSHQ).all())


def warn_of_missing(symbols: Sequence[str], bars: Bars) -> None:
    """Say in the log where bars lack some of the stocks that a model has learned from."""
    if missing := sorted(set(symbols) - set(bars.symbols_S)):
        logger.warning(
            "forecast: %d of the %d stocks that the model learned from are not in the bars (%s%s): the market and "
            "the ranks that it sees are those of the others",
            *(len(missing), len(symbols), ", ".join(missing[:3]), ", ..." if len(missing) > 3 else ""),
        )


def _one_line(error: Exception) -> str:
    return shown(error, 300)
