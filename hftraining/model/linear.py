"""Ridge: a linear mean of today's features for each horizon.

Legend: F features, H horizons, P penalties, N rows (a symbol on a day), M later rows.
"""

from dataclasses import dataclass

import numpy as np

from hftraining.model.learner import MeanModel

PENALTIES_P = 10.0 ** np.arange(-4, 3)  # the largest leaves about a hundredth of a slope


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
    mean_F, mean_H = x_NF.mean(axis=0), label_NH.mean(axis=0)
    # Scaled features have means near 0 and deviations near 1, so that nothing is lost by centring afterwards.
    covariance_FF = x_NF.T @ x_NF / len(x_NF) - np.outer(mean_F, mean_F)
    covariance_FH = x_NF.T @ label_NH / len(x_NF) - np.outer(mean_F, mean_H)
    penalty_H11 = penalty_H[:, None, None]
    slope_HF1 = np.linalg.solve(covariance_FF + penalty_H11 * np.eye(len(mean_F)), covariance_FH.T[:, :, None])
    slope_FH = slope_HF1[:, :, 0].T
    return Ridge(mean_H - mean_F @ slope_FH, slope_FH)


def choose_penalties(
    x_NF: np.ndarray, label_NH: np.ndarray, x_MF: np.ndarray, label_MH: np.ndarray, *, seed: int = 0
) -> np.ndarray:
    """penalty_H, each from PENALTIES_P: fitted on the N rows, it has the least squared error on the M later rows."""
    n_horizons = label_NH.shape[1]
    penalty_K = np.tile(PENALTIES_P, n_horizons)  # K: each horizon with each penalty
    ridge = fit_ridge(x_NF, np.repeat(label_NH, len(PENALTIES_P), axis=1), penalty_K)
    error_MK = np.repeat(label_MH, len(PENALTIES_P), axis=1) - ridge.predict(x_MF)
    return PENALTIES_P[(error_MK**2).mean(axis=0).reshape(n_horizons, -1).argmin(axis=1)]


class RidgeModel(MeanModel[Ridge]):
    """`model=ridge`. It chooses its penalties, and needs no seed."""

    choose, fit = staticmethod(choose_penalties), staticmethod(fit_ridge)

    def _untrained(self) -> Ridge:
        n_horizons = len(self.horizons)
        return Ridge(np.zeros(n_horizons), np.random.default_rng(0).normal(0.0, 0.1, (self.n_features, n_horizons)))
