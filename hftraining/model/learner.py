"""Models that bring their own learning: a mean for each horizon, and around it the quantiles of its own errors.

Legend: T sessions, S symbols, F features, H horizons, Q quantiles, N rows (a symbol on a day), in the order of time.
Labels, means and quantiles are in units of trailing volatility, as `market.features.make_labels` says.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import NormalDist
from typing import Generic, Protocol, TypeVar

import numpy as np
from safetensors.numpy import load_file, save_file

from hftraining.core.errors import UserError
from hftraining.model.config import WEIGHTS, ModelConfig

TUNING_SHARE = 0.2  # of the training days, the last ones: they choose the penalty and the number of trees


class LearningError(UserError):
    """A model cannot learn from these days: what, where, what to do, in one line."""


class MissingDependency(LearningError):
    """A library that only this kind of model needs is not installed."""


@dataclass(frozen=True)
class Lesson:
    """What a model learns from.

    scaled_TSF: what Scaler.scale gives. known_TS: where a symbol has features. labels_TSH: NaN where unknown.
    train: the sessions to learn from; no other label is read. purge: lag + longest horizon, in sessions; so many lie
    between days that are fitted and days that are forecast. seed: the same seed gives the same bits.
    """

    scaled_TSF: np.ndarray
    known_TS: np.ndarray
    labels_TSH: np.ndarray
    train: slice
    purge: int
    seed: int

    @property
    def usable_TS(self) -> np.ndarray:
        """Of the training days, where features and the labels of all horizons are known."""
        return self.known_TS[self.train] & np.isfinite(self.labels_TSH[self.train]).all(axis=2)


class Regression(Protocol):
    """A mean forecast of each horizon."""

    def predict(self, x_NF: np.ndarray) -> np.ndarray:
        """mean_NH in float64; a row's mean depends on that row alone, to the bit."""
        ...


Mean = TypeVar("Mean", bound=Regression)


class MeanModel(ABC, Generic[Mean]):
    """A model of the face in model/base.py that forecasts a mean and, around it, the quantiles of its own errors.

    It has no position of its own. Before it has learned anything, its mean is arbitrary but depends on every feature,
    and its quantiles are those of a standard normal around it. A kind adds how its regression is fitted.
    """

    has_head = False
    receptive_field = 1  # today's features say all

    def __init__(self, config: ModelConfig, n_features: int, horizons: tuple[int, ...], levels: tuple[float, ...]):
        self.config, self.n_features, self.horizons, self.levels = config, n_features, horizons, levels
        self.residual_QH = np.tile([[NormalDist().inv_cdf(level)] for level in levels], len(horizons))
        self.mean = self._untrained()

    @abstractmethod
    def _untrained(self) -> Mean:
        """An arbitrary mean that depends on every feature; always the same."""

    @abstractmethod
    def _choose(
        self, x_NF: np.ndarray, label_NH: np.ndarray, x_MF: np.ndarray, label_MH: np.ndarray, *, seed: int
    ) -> np.ndarray:
        """chosen_H: the setting whose fit on the N rows has the least squared error on the M later rows."""

    @abstractmethod
    def _fit(self, x_NF: np.ndarray, label_NH: np.ndarray, chosen_H: np.ndarray, *, seed: int) -> Mean:
        """Fit the mean on rows whose labels are finite."""

    def check(self, lesson: Lesson) -> None:
        """Raise LearningError where the training days are too few to be halved with the purge between."""
        days = int(lesson.usable_TS.any(axis=1).sum())
        if days < 2 * (lesson.purge + 1):
            raise LearningError(
                f"{self.config.kind}: {days} training days with features and labels are too few to be halved with "
                f"{lesson.purge} sessions between: use more data, or do without {self.config.kind}"
            )

    def learn(self, lesson: Lesson) -> None:
        """Choose a setting on the last fifth of the training days, then fit the mean and the quantiles on all of them.

        The quantiles are those of the residuals of all training days, where a fit on either half forecasts the other.
        Raises LearningError as check does.
        """
        self.check(lesson)
        train, purge = lesson.train, lesson.purge
        usable_TS = lesson.usable_TS
        session_N = np.nonzero(usable_TS)[0]  # where in time the rows are cut
        days = np.unique(session_N)
        x_NF = lesson.scaled_TSF[train][usable_TS].astype(np.float64)
        label_NH = lesson.labels_TSH[train][usable_TS].astype(np.float64)

        def since(session: int) -> int:
            return int(np.searchsorted(session_N, session))

        last = days[int(len(days) * (1.0 - TUNING_SHARE))]
        before, after = slice(0, since(last - purge)), slice(since(last), None)
        chosen_H = self._choose(x_NF[before], label_NH[before], x_NF[after], label_NH[after], seed=lesson.seed)
        fit = partial(self._fit, seed=lesson.seed)
        self.mean = fit(x_NF, label_NH, chosen_H)

        middle = days[len(days) // 2]
        first, second = slice(0, since(middle)), slice(since(middle), None)
        early, late = slice(0, since(middle - purge)), slice(since(middle + purge), None)
        residual_NH = label_NH  # which nothing needs after the two fits
        of_first_NH = fit(x_NF[late], label_NH[late], chosen_H).predict(x_NF[first])
        residual_NH[second] -= fit(x_NF[early], label_NH[early], chosen_H).predict(x_NF[second])
        residual_NH[first] -= of_first_NH
        # About their mean: nobody forecast the drift that one half had over the other.
        self.residual_QH = np.quantile(residual_NH - residual_NH.mean(axis=0), self.levels, axis=0)

    def predict(self, scaled_TSF: np.ndarray, known_TS: np.ndarray, device: str) -> tuple[np.ndarray, np.ndarray]:
        """quantiles_TSHQ in volatility units, NaN where features are not known, and head_TS, all NaN. On the CPU.

        A forecast of the training days themselves is in-sample, as every model's is.
        """
        mean_TSH = np.full((*known_TS.shape, len(self.horizons)), np.nan)
        mean_TSH[known_TS] = self.mean.predict(scaled_TSF[known_TS])
        return mean_TSH[..., None] + self.residual_QH.T, np.full(known_TS.shape, np.nan)

    @abstractmethod
    def save(self, folder: Path) -> list[str]:
        """Write its files into a folder; returns their names."""

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Read what save wrote. Raises OSError, SafetensorError or ValueError where a file is not what it should be."""


def save_arrays(folder: Path, arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Write arrays as model.safetensors, in float64; returns the file's name."""
    save_file({name: np.ascontiguousarray(array, np.float64) for name, array in arrays.items()}, folder / WEIGHTS)
    return [WEIGHTS]


def load_arrays(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Read what save_arrays wrote. Raises ValueError where names, shapes or types are others."""
    arrays = load_file(folder / WEIGHTS)
    found = {name: (str(array.dtype), array.shape) for name, array in arrays.items()}
    wanted = {name: ("float64", shape) for name, shape in shapes.items()}
    if found != wanted:
        raise ValueError(f"it holds {found}, where this model has {wanted}")
    return arrays
