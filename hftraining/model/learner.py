"""Models that bring their own learning: a mean for each horizon, and around it the quantiles of its own errors.

Legend: T sessions, S symbols, F features, H horizons, Q quantiles, N rows (a symbol on a day), in the order of time,
M later rows. Labels, means and quantiles are in the unit of the labels, of any kind: see `market.labels`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import NormalDist
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from hftraining.core.errors import UserError
from hftraining.core.tensor_file import difference, shapes_of
from hftraining.core.untrusted import Untrusted, shown
from hftraining.market.features.scaler import Scaled
from hftraining.model.config import WEIGHTS, ModelConfig

TUNING_SHARE = 0.2  # of the training days, the last ones: they choose the penalty and the number of trees


class LearningError(UserError):
    """A model cannot learn from these days: what, where, what to do, in one line."""


class MissingDependency(LearningError):
    """A library that only this kind of model needs is not installed."""


@dataclass(frozen=True)
class Lesson:
    """What a model learns from.

    scaled_TSF: from Scaler.scale, or Scaled. known_TS: where a symbol has features. labels_TSH: NaN where unknown.
    train: the sessions to learn from; labels of other sessions are never read. purge: lag + longest horizon, the number
    of sessions left out between fitted and forecast days. seed: the same seed gives the same bits.
    """

    scaled_TSF: np.ndarray | Scaled
    known_TS: np.ndarray
    labels_TSH: np.ndarray
    train: slice
    purge: int
    seed: int

    @property
    def usable_TS(self) -> np.ndarray:
        """Where features and the labels of all horizons are known, on the training days."""
        return self.known_TS[self.train] & np.isfinite(self.labels_TSH[self.train]).all(axis=2)


class Regression(Protocol):
    """A mean forecast of each horizon; a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def predict(self, x_NF: np.ndarray) -> np.ndarray:
        """mean_NH in float64; a row's mean depends on that row alone, to the bit."""
        ...


Mean = TypeVar("Mean", bound=Regression)


class MeanModel(ABC, Generic[Mean]):
    """A Model (see model/base.py) that forecasts a mean and, around it, the quantiles of its own errors.

    It has no position of its own. Before it has learned, its mean is arbitrary but depends on every feature, and its
    quantiles are standard normal. A kind adds how its regression is chosen and fitted.

    choose: (x_NF, label_NH, x_MF, label_MH, seed=) -> chosen_H, the settings that, fitted on the N rows, have the least
    squared error on the M later rows. fit: (x_NF, label_NH, chosen_H, seed=) -> the mean. Labels are finite, in
    float64; features are float32.
    """

    receptive_field = 1  # only today's features count
    choose: ClassVar[Callable[..., np.ndarray]]
    fit: ClassVar[Callable[..., Any]]

    def __init__(self, config: ModelConfig, n_features: int, horizons: tuple[int, ...], levels: tuple[float, ...]):
        self.config, self.n_features, self.horizons, self.levels = config, n_features, horizons, levels
        self.residual_QH = np.tile([[NormalDist().inv_cdf(level)] for level in levels], len(horizons))
        self.mean = self._untrained()

    @abstractmethod
    def _untrained(self) -> Mean:
        """An arbitrary mean that depends on every feature; always the same."""

    def check(self, lesson: Lesson) -> None:
        """Raise LearningError where the training days are too few to be halved with the purge between."""
        days = int(lesson.usable_TS.any(axis=1).sum())
        if days < 2 * (lesson.purge + 1):
            raise LearningError(
                f"{self.config.kind}: {days} training days with features and labels are too few to be halved with "
                f"{lesson.purge} sessions between: use more data, or do without {self.config.kind}"
            )

    def learn(self, lesson: Lesson) -> None:
        """Choose settings on the last fifth of the training days, then fit the mean and the quantiles on all of them.

        The quantiles are those of the residuals of all training days, each half forecast by a fit on the other.
        Raises LearningError as check does.
        """
        self.check(lesson)
        train, purge, usable_TS = lesson.train, lesson.purge, lesson.usable_TS
        session_N = np.nonzero(usable_TS)[0]
        days = np.unique(session_N)
        x_NF = lesson.scaled_TSF[train][usable_TS]  # float32: at 5,000 stocks every copy counts
        label_NH = lesson.labels_TSH[train][usable_TS].astype(np.float64)

        def since(session: int) -> int:
            return int(np.searchsorted(session_N, session))

        last = days[int(len(days) * (1.0 - TUNING_SHARE))]
        before, after = slice(0, since(last - purge)), slice(since(last), None)
        chosen_H = self.choose(x_NF[before], label_NH[before], x_NF[after], label_NH[after], seed=lesson.seed)
        fit = partial(self.fit, seed=lesson.seed)
        self.mean = fit(x_NF, label_NH, chosen_H)

        middle = days[len(days) // 2]
        first, second = slice(0, since(middle)), slice(since(middle), None)
        early, late = slice(0, since(middle - purge)), slice(since(middle + purge), None)
        residual_NH = label_NH  # which nothing needs after the two fits
        of_first_NH = fit(x_NF[late], label_NH[late], chosen_H).predict(x_NF[first])
        residual_NH[second] -= fit(x_NF[early], label_NH[early], chosen_H).predict(x_NF[second])
        residual_NH[first] -= of_first_NH
        # Centred: the drift of one half over the other was nobody's forecast.
        self.residual_QH = np.quantile(residual_NH - residual_NH.mean(axis=0), self.levels, axis=0)

    @property
    def size(self) -> int:
        """As every Model."""
        return sum(array.size for array in self._arrays().values())

    def predict(
        self,
        scaled_TSF: np.ndarray,
        known_TS: np.ndarray,
        device: str,
        symbol_S: np.ndarray | None = None,
        begin: int = 0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """As every Model, always on the CPU; head_TS is NaN. All symbols are alike.

        Forecasts of the training days are in-sample.
        """
        scaled_TSF, known_TS = scaled_TSF[begin:], known_TS[begin:]
        mean_TSH = np.full((*known_TS.shape, len(self.horizons)), np.nan)
        mean_TSH[known_TS] = self.mean.predict(scaled_TSF[known_TS])
        return mean_TSH[..., None] + self.residual_QH.T, np.full(known_TS.shape, np.nan)

    def save(self, folder: Path) -> list[str]:
        """Write the arrays as model.safetensors, in float64; returns the names of the files."""
        arrays = {name: np.ascontiguousarray(array, np.float64) for name, array in self._arrays().items()}
        save_file(arrays, folder / WEIGHTS)
        return [WEIGHTS]

    def load(self, folder: Path) -> None:
        """Read what save wrote. Raises UserError for a file of another model."""
        path = folder / WEIGHTS
        wanted = {name: ("float64", array.shape) for name, array in self._arrays().items()}
        if unlike := difference(shapes_of(path), wanted):
            raise Untrusted(f"{path} is of another model: {unlike}")
        try:
            arrays = load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise Untrusted(f"{path} is damaged ({shown(error, 120)})") from None
        if strange := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
            raise Untrusted(f"{path} is damaged ({strange[0]} holds numbers that are not finite)")
        self.residual_QH = arrays.pop("residual_QH")
        self.mean = replace(self.mean, **arrays)

    def _arrays(self) -> dict[str, np.ndarray]:
        """What model.safetensors holds: the quantiles of the residuals, and the arrays of the mean."""
        arrays = {name: value for name, value in vars(self.mean).items() if isinstance(value, np.ndarray)}
        return {"residual_QH": self.residual_QH, **arrays}
