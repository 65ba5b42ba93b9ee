"""Ridge and LightGBM on the model's own features, behind the model's own face: what it has to beat.

Legend: T sessions, S symbols, F features, H horizons, Q quantiles, P penalties, N rows (a symbol on a day), in
the order of time. Labels and means are in units of trailing volatility, as `market.features.make_labels` says.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from hftraining.core.errors import UserError
from hftraining.core.forecast import Forecast

BASELINES = ("ridge", "lightgbm")
PENALTIES_P = 10.0 ** np.arange(-4, 3)  # the largest leaves about a hundredth of a slope
TUNING_SHARE = 0.2  # of the training days, the last ones: they choose the penalty and the number of trees
TREES = {
    "objective": "regression",
    "num_leaves": 8,
    "learning_rate": 0.05,
    "feature_fraction": 0.5,
    "max_bin": 63,
    "verbosity": -1,
    "deterministic": True,
    "force_col_wise": True,  # else LightGBM times both layouts and takes the faster, which moves the last bits
}
MOST_TREES, PATIENCE = 100, 20
ROWS_FOR_A_THREAD = 100_000  # with fewer each, threads wait for each other, for seconds on a busy machine
LEAF_SHARE = 0.01  # of the rows must lie in a leaf: the signal is far below the noise of a few rows


class BaselineError(UserError):
    """A baseline cannot be fitted: what, where, what to do, in one line."""


class MissingDependency(BaselineError):
    """A library that only this baseline needs is not installed."""


class Fitted(Protocol):
    """A mean forecast of each horizon."""

    def predict(self, x_NF: np.ndarray) -> np.ndarray:
        """mean_NH; a row's mean depends on that row alone, to the bit."""


def baseline_forecast(
    name: str,
    scaled_TSF: np.ndarray,
    known_TS: np.ndarray,
    labels_TSH: np.ndarray,
    span_TSH: np.ndarray,
    train: slice,
    horizons: Sequence[int],
    levels: Sequence[float],
    purge: int,
    seed: int,
    threads: int,
) -> Forecast:
    """Fit a baseline ("ridge" or "lightgbm") on the training days, and forecast all sessions.

    scaled_TSF: what Scaler.scale gives. known_TS: where a symbol has features; elsewhere its forecast is NaN.
    labels_TSH: NaN where unknown. span_TSH: the log return that one volatility unit is. purge: lag + longest
    horizon. seed and threads are LightGBM's; the same seed gives the same bits.

    Quantiles are the mean plus the quantiles of the residuals of all training days, each half of them forecast by
    a fit on the other half: so the edge policy trades them by the same rule as the model. head is NaN.
    A forecast at t depends on the features at t and on the training days. On the training days themselves it is
    in-sample, as the model's is.
    Raises ValueError for an unknown name, BaselineError where the training days are too few to be halved with
    the purge between, MissingDependency without LightGBM.
    """
    choose: Callable[..., np.ndarray]
    fit: Callable[..., Fitted]
    if name == "ridge":
        choose, fit = choose_penalties, fit_ridge
    elif name == "lightgbm":
        choose = partial(choose_rounds, seed=seed, threads=threads)
        fit = partial(fit_lightgbm, seed=seed, threads=threads)
    else:
        raise ValueError(f"baseline {name} is not one of {', '.join(BASELINES)}")

    # Rows of the training days, those with a label for every horizon, and where in time they are cut.
    usable_TS = known_TS[train] & np.isfinite(labels_TSH[train]).all(axis=2)
    session_N = np.nonzero(usable_TS)[0]
    days = np.unique(session_N)
    if len(days) < 2 * (purge + 1):
        raise BaselineError(
            f"baseline {name}: {len(days)} training days with features and labels are too few to be halved with "
            f"{purge} sessions between: use more data, or leave this baseline out"
        )
    x_NF, label_NH = scaled_TSF[train][usable_TS].astype(np.float64), labels_TSH[train][usable_TS].astype(np.float64)

    def since(session: int) -> int:
        return int(np.searchsorted(session_N, session))

    # Whatever there is to choose is chosen on the last fifth by fits on what lies before it.
    last = days[int(len(days) * (1.0 - TUNING_SHARE))]
    before, after = slice(0, since(last - purge)), slice(since(last), None)
    chosen_H = choose(x_NF[before], label_NH[before], x_NF[after], label_NH[after])
    fitted = fit(x_NF, label_NH, chosen_H)

    middle = days[len(days) // 2]
    first, second = slice(0, since(middle)), slice(since(middle), None)
    early, late = slice(0, since(middle - purge)), slice(since(middle + purge), None)
    residual_NH = label_NH  # which nothing needs after the two fits
    of_first_NH = fit(x_NF[late], label_NH[late], chosen_H).predict(x_NF[first])
    residual_NH[second] -= fit(x_NF[early], label_NH[early], chosen_H).predict(x_NF[second])
    residual_NH[first] -= of_first_NH
    # About their mean: drift that one half had over the other is no one's forecast.
    residual_QH = np.quantile(residual_NH - residual_NH.mean(axis=0), levels, axis=0)

    mean_TSH = np.full(labels_TSH.shape, np.nan)
    mean_TSH[known_TS] = fitted.predict(scaled_TSF[known_TS])
    quantiles_TSHQ = mean_TSH[..., None] + residual_QH.T
    quantiles_TSHQ *= span_TSH[..., None]
    return Forecast(quantiles_TSHQ, np.full(known_TS.shape, np.nan), tuple(horizons), tuple(levels))


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


def fit_ridge(x_NF: np.ndarray, label_NH: np.ndarray, penalty_H: np.ndarray) -> Ridge:
    """Each horizon by itself: least mean((label - intercept - x @ slope)^2) + penalty * |slope|^2, closed form.

    Labels are finite. Penalties are a row's, so that they mean the same on few days and on many; the intercept has
    none. Source: Hoerl and Kennard (1970).
    """
    mean_F, mean_H = x_NF.mean(axis=0), label_NH.mean(axis=0)
    # Scaled features have means near 0 and deviations near 1, so that nothing is lost by centring afterwards.
    covariance_FF = x_NF.T @ x_NF / len(x_NF) - np.outer(mean_F, mean_F)
    covariance_FH = x_NF.T @ label_NH / len(x_NF) - np.outer(mean_F, mean_H)
    penalty_H11 = penalty_H[:, None, None]
    slope_HF1 = np.linalg.solve(covariance_FF + penalty_H11 * np.eye(len(mean_F)), covariance_FH.T[:, :, None])
    slope_FH = slope_HF1[:, :, 0].T
    return Ridge(mean_H - mean_F @ slope_FH, slope_FH)


def choose_penalties(x_NF: np.ndarray, label_NH: np.ndarray, x_MF: np.ndarray, label_MH: np.ndarray) -> np.ndarray:
    """penalty_H: of PENALTIES_P those that, fitted on the N rows, have the least squared error on the M later rows."""
    n_horizons = label_NH.shape[1]
    penalty_K = np.tile(PENALTIES_P, n_horizons)  # K: each horizon with each penalty
    ridge = fit_ridge(x_NF, np.repeat(label_NH, len(PENALTIES_P), axis=1), penalty_K)
    error_MK = np.repeat(label_MH, len(PENALTIES_P), axis=1) - ridge.predict(x_MF)
    return PENALTIES_P[(error_MK**2).mean(axis=0).reshape(n_horizons, -1).argmin(axis=1)]


@dataclass(frozen=True)
class Trees:
    """A LightGBM booster for each horizon, and the threads that ask it."""

    boosters_H: list[Any]
    threads: int

    def predict(self, x_NF: np.ndarray) -> np.ndarray:
        """mean_NH in float64."""
        means = [booster.predict(x_NF, num_threads=self.threads) for booster in self.boosters_H]
        return np.stack(means, axis=1)


def fit_lightgbm(x_NF: np.ndarray, label_NH: np.ndarray, rounds_H: np.ndarray, seed: int, threads: int) -> Trees:
    """Small trees on the squared error, each horizon by itself, rounds_H of them.

    Labels are finite. The same rows and seed give the same bits. Raises MissingDependency without LightGBM.
    """
    lightgbm = _lightgbm()
    parameters = _parameters(len(x_NF), seed, threads)
    rows = lightgbm.Dataset(x_NF, params=parameters)  # binned once for all horizons
    boosters = []
    for label_N, rounds in zip(label_NH.T, rounds_H, strict=True):
        rows.set_label(label_N)
        boosters.append(lightgbm.train(parameters, rows, num_boost_round=int(rounds)))
    return Trees(boosters, threads)


def choose_rounds(
    x_NF: np.ndarray, label_NH: np.ndarray, x_MF: np.ndarray, label_MH: np.ndarray, seed: int, threads: int
) -> np.ndarray:
    """rounds_H: how many trees, fitted on the N rows, have the least squared error on the M later rows."""
    lightgbm = _lightgbm()
    parameters = _parameters(len(x_NF), seed, threads)
    rows = lightgbm.Dataset(x_NF, params=parameters)
    later = lightgbm.Dataset(x_MF, params=parameters, reference=rows)
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    rounds_H = np.empty(label_NH.shape[1], np.int64)
    for h in range(len(rounds_H)):
        rows.set_label(label_NH[:, h])
        later.set_label(label_MH[:, h])
        booster = lightgbm.train(parameters, rows, num_boost_round=MOST_TREES, valid_sets=[later], callbacks=[stop])
        rounds_H[h] = booster.best_iteration
    return rounds_H


def _parameters(n_rows: int, seed: int, threads: int) -> dict[str, Any]:
    leaf = max(20, int(LEAF_SHARE * n_rows))
    useful = max(1, n_rows // ROWS_FOR_A_THREAD)
    return {**TREES, "min_data_in_leaf": leaf, "seed": seed, "num_threads": min(threads, useful)}


def _lightgbm() -> Any:
    try:
        import lightgbm
    except ImportError:
        raise MissingDependency(
            'baseline lightgbm: LightGBM is not installed: pip install -e ".[baselines]", or leave this baseline out'
        ) from None
    return lightgbm
