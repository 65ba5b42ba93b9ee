"""Ridge: a linear mean of today's features for each horizon.

Legend: F features, H horizons, P penalties, N rows (a symbol on a day), M later rows, R some rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hftraining.model.learner import MeanModel

PENALTIES_P = 10.0 ** np.arange(-4, 3)  # the largest leaves about a hundredth of a slope
ROWS_AT_ONCE = 262_144  # in float64


@dataclass(frozen=True)
class Ridge:
    """intercept_H + x @ slope_FH."""

    intercept_H: np.ndarray
    slope_FH: np.ndarray

    def predict(self, x_NF: np.ndarray) -> np.ndarray:
        """mean_NH in float64."""
        mean_HN = np.repeat(self.intercept_H[:, None], len(x_NF), axis=1)
        # Feature by feature, since the bits of a matrix product may depend on how many rows it has.
        for column_N, slope_H in zip(x_NF.T, self.slope_FH, strict=True):
            column_N = column_N.astype(np.float64)
            for mean_N, slope in zip(mean_HN, slope_H, strict=True):
                mean_N += slope * column_N
        return mean_HN.T


def fit_ridge(x_NF: np.ndarray, label_NH: np.ndarray, penalty_H: np.ndarray, *, seed: int = 0) -> Ridge:
    """Minimise mean((label - intercept - x @ slope)^2) + penalty * |slope|^2 for each horizon, in closed form.

    Labels are finite. The loss is a mean over rows, so a penalty means the same on few days and on many; the intercept
    has none. seed: unused. Source: Hoerl and Kennard (1970).
    """
    return _Moments.of(x_NF, label_NH).ridge(penalty_H)


def choose_penalties(
    x_NF: np.ndarray, label_NH: np.ndarray, x_MF: np.ndarray, label_MH: np.ndarray, *, seed: int = 0
) -> np.ndarray:
    """penalty_H, each from PENALTIES_P: fitted on the N rows, it has the least squared error on the M later rows."""
    moments, n_horizons = _Moments.of(x_NF, label_NH), label_NH.shape[1]
    square_PH = np.zeros((len(PENALTIES_P), n_horizons))
    for p, penalty in enumerate(PENALTIES_P):
        ridge = moments.ridge(np.full(n_horizons, penalty))
        for rows in _some_rows(len(x_MF)):
            square_PH[p] += ((label_MH[rows] - ridge.predict(x_MF[rows])) ** 2).sum(axis=0)
    return PENALTIES_P[square_PH.argmin(axis=0)]


@dataclass(frozen=True)
class _Moments:
    """Means and covariances of features and labels, all that a fit needs of the rows."""

    mean_F: np.ndarray
    mean_H: np.ndarray
    covariance_FF: np.ndarray
    covariance_FH: np.ndarray

    @classmethod
    def of(cls, x_NF: np.ndarray, label_NH: np.ndarray) -> "_Moments":
        """In float64, some rows at a time."""
        n, n_features, n_horizons = *x_NF.shape, label_NH.shape[1]
        sum_F, sum_H = np.zeros(n_features), np.zeros(n_horizons)
        square_FF, product_FH = np.zeros((n_features, n_features)), np.zeros((n_features, n_horizons))
        for rows in _some_rows(n):
            x_RF, label_RH = x_NF[rows].astype(np.float64), label_NH[rows]
            sum_F += x_RF.sum(axis=0)
            sum_H += label_RH.sum(axis=0)
            square_FF += x_RF.T @ x_RF
            product_FH += x_RF.T @ label_RH
        mean_F, mean_H = sum_F / n, sum_H / n
        # Scaled features have means near 0 and deviations near 1, so that nothing is lost by centring afterwards.
        return cls(mean_F, mean_H, square_FF / n - np.outer(mean_F, mean_F), product_FH / n - np.outer(mean_F, mean_H))

    def ridge(self, penalty_H: np.ndarray) -> Ridge:
        """The fit at these penalties."""
        system_HFF = self.covariance_FF + penalty_H[:, None, None] * np.eye(len(self.mean_F))
        slope_FH = np.linalg.solve(system_HFF, self.covariance_FH.T[:, :, None])[:, :, 0].T
        return Ridge(self.mean_H - self.mean_F @ slope_FH, slope_FH)


def _some_rows(n: int) -> Iterator[slice]:
    """All rows, some at a time."""
    return (slice(first, min(first + ROWS_AT_ONCE, n)) for first in range(0, n, ROWS_AT_ONCE))


class RidgeModel(MeanModel[Ridge]):
    """`model=ridge`. It chooses its penalties, and needs no seed."""

    choose, fit = staticmethod(choose_penalties), staticmethod(fit_ridge)

    def _untrained(self) -> Ridge:
        n_horizons = len(self.horizons)
        return Ridge(np.zeros(n_horizons), np.random.default_rng(0).normal(0.0, 0.1, (self.n_features, n_horizons)))
