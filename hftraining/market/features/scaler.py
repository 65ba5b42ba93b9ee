"""The scaler: mean and standard deviation of each feature over the training days.

Legend: T sessions, S symbols, F features, N rows.
"""

# mypy: allow-untyped-defs
# numba infers the types of compiled functions from the calls.

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numba import njit

from hftraining.market.features.table import Features
from hftraining.market.kept import Arrays, Kept, unlike

SCALED_LIMIT = 5.0  # standard deviations; beyond it a feature says no more than "extreme"


@dataclass(frozen=True)
class Scaler:
    """Mean and standard deviation of each feature over training days, all symbols together."""

    features: tuple[str, ...]
    mean_F: tuple[float, ...]
    std_F: tuple[float, ...]

    @classmethod
    def fit(cls, features: Features, train: slice) -> "Scaler":
        """Fit on the sessions of `train` alone. A feature without variance is scaled by 1.

        That of features from the cache is kept there, too. Raises ValueError where no training day has features.
        """
        if features.kept_as is None:
            return cls._fit(features, train)
        kept = Kept("features.cache", "scalers", {"features": features.kept_as, "train": [train.start, train.stop]})
        if found := kept.load(partial(_wrong, len(features.names))):
            return cls(features.names, tuple(found[1]["mean_F"].tolist()), tuple(found[1]["std_F"].tolist()))
        made = cls._fit(features, train)
        kept.save({}, {"mean_F": np.array(made.mean_F), "std_F": np.array(made.std_F)})
        return made

    @classmethod
    def _fit(cls, features: Features, train: slice) -> "Scaler":
        rows = features.values_TSF[train], features.known_TS[train]
        count = int(np.count_nonzero(rows[1]))
        if not count:
            raise ValueError(
                "no training day has features: a symbol needs more than 20 bars before the training days end"
            )
        mean_F = _sum(*rows, np.zeros(len(features.names)), 1) / count
        std_F = np.sqrt(_sum(*rows, mean_F, 2) / count)
        std_F[std_F < 1e-9] = 1.0
        return cls(features.names, tuple(map(float, mean_F)), tuple(map(float, std_F)))

    def scale(self, values_TSF: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Standardised float32, clipped to +-5, and 0 (the training mean) where a feature is unknown.

        values_TSF: of any axes before the last one. out: of the same shape, perhaps the same array.
        """
        scaled_TSF = np.empty(values_TSF.shape, np.float32) if out is None else out
        mean_F, std_F = np.asarray(self.mean_F, np.float32), np.asarray(self.std_F, np.float32)
        for table in (values_TSF, scaled_TSF):
            assert table.shape[-1] == len(mean_F)
        if values_TSF.ndim == 3:
            _scale(values_TSF, mean_F, std_F, scaled_TSF)
        else:
            axes = (1, -1, len(mean_F))
            _scale(values_TSF.reshape(axes), mean_F, std_F, scaled_TSF.reshape(axes))
        return scaled_TSF


def _wrong(n_features: int, said: dict[str, Any], arrays: Arrays) -> str:
    """What is no scaler in what was kept, in words."""
    layout = dict.fromkeys(("mean_F", "std_F"), ("<f8", (n_features,)))
    if why := unlike(arrays, layout, "means and deviations of these features"):
        return why
    sound = np.isfinite(arrays["mean_F"]).all() and np.isfinite(arrays["std_F"]).all() and (arrays["std_F"] > 0.0).all()
    return "" if sound else "has means or deviations that are none"


@dataclass(frozen=True)
class Scaled:
    """The features as the scaler makes them, made when they are taken: all at once would take as much memory again.

    scaled[rows] of a slice are the same of some sessions; any other index gives scaled values, as of an array.
    """

    values_TSF: np.ndarray
    scaler: Scaler

    def __getitem__(self, at: Any) -> Any:
        """See above; the last axis stays whole."""
        taken = self.values_TSF[at]
        if isinstance(at, slice):
            return Scaled(taken, self.scaler)
        return self.scaler.scale(taken, None if np.may_share_memory(taken, self.values_TSF) else taken)

    def __len__(self) -> int:
        """How many sessions."""
        return len(self.values_TSF)

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the array."""
        return self.values_TSF.shape

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of it."""
        return self.scaler.scale(self.values_TSF).astype(dtype or np.float32, copy=False)


@njit(cache=True, nogil=True)
def _sum(values_TSF, known_TS, centre_F, power):
    """The sum over the known days and symbols of value - centre, or of its square, in float64 and row by row.

    In the order in which numpy adds up the same rows, so that the bits are its own, without a copy of them.
    """
    total_F = np.zeros(centre_F.size)
    for t in range(values_TSF.shape[0]):
        for s in range(values_TSF.shape[1]):
            for f in range(centre_F.size if known_TS[t, s] else 0):
                apart = np.float64(values_TSF[t, s, f]) - centre_F[f]
                total_F[f] += apart * apart if power == 2 else apart
    return total_F


@njit(cache=True, nogil=True, error_model="numpy")
def _scale(values_TSF, mean_F, std_F, scaled_TSF):
    """Fill scaled_TSF: one pass, and no copy of the size of all features."""
    limit = np.float32(SCALED_LIMIT)
    for t in range(values_TSF.shape[0]):
        for s in range(values_TSF.shape[1]):
            for f in range(mean_F.size):
                scaled = (values_TSF[t, s, f] - mean_F[f]) / std_F[f]
                scaled_TSF[t, s, f] = 0.0 if math.isnan(scaled) else min(max(scaled, -limit), limit)
