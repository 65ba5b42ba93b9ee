"""From a forecast to a score: its median over its uncertainty, against the stocks of the day or its own past.

Legend: T sessions, S symbols, Q quantiles.
"""

# mypy: allow-untyped-defs
# numba infers the types of compiled functions from the calls.

import math
from statistics import NormalDist

import numpy as np
from numba import njit

from hftraining.core.forecast import Forecast

LEAST_VALUES = 20  # of a stock's own past, before its deviation is known
LARGEST = 1e9  # of a ratio: a forecast that is all but certain
ALIKE = 1e-12  # of the largest: a spread below this is rounding


def median_and_uncertainty(forecast: Forecast, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """(median_TS, uncertainty_TS) at a horizon (in sessions; 0: the longest), in the unit of the forecast.

    uncertainty: a standard deviation, the distance between the outer quantiles over the same distance in a standard
    normal; 0 where only the median is forecast. Both NaN where a quantile is missing or infinite.
    Raises ValueError for a horizon that is not forecast.
    """
    chosen = horizon or max(forecast.horizons)
    if chosen not in forecast.horizons:
        raise ValueError(f"portfolio.horizon={chosen} is not forecast: horizons are {list(forecast.horizons)}")
    quantiles_TSQ = forecast.quantiles_TSHQ[:, :, forecast.horizons.index(chosen)].astype(np.float64)
    absent_TS = ~np.isfinite(quantiles_TSQ).all(axis=-1)
    median_TS = np.where(absent_TS, np.nan, quantiles_TSQ[:, :, forecast.levels.index(0.5)])
    normal = NormalDist()
    distance = normal.inv_cdf(forecast.levels[-1]) - normal.inv_cdf(forecast.levels[0])
    with np.errstate(invalid="ignore", over="ignore"):  # infinite quantiles are absent
        spread_TS = np.abs(quantiles_TSQ[:, :, -1] - quantiles_TSQ[:, :, 0])
    return median_TS, np.where(absent_TS, np.nan, spread_TS / distance if distance else 0.0)


def ratio_of(median_TS: np.ndarray, uncertainty_TS: np.ndarray) -> np.ndarray:
    """median / uncertainty, a pure number within +-LARGEST, NaN where there is no forecast.

    A stock that is forecast as certain (uncertainty 0) takes the least uncertainty of the day above 0, and 1 on a day
    without any: a model of medians alone is then scored by its medians.
    """
    positive_TS = np.where(uncertainty_TS > 0.0, uncertainty_TS, np.inf)  # NaN compares as false
    least_T1 = positive_TS.min(axis=1, keepdims=True, initial=np.inf)
    floor_TS = np.where(np.isfinite(least_T1), least_T1, 1.0) * np.ones_like(uncertainty_TS)
    with np.errstate(over="ignore"):  # clipped
        ratio_TS = median_TS / np.where(uncertainty_TS > 0.0, uncertainty_TS, floor_TS)
    return np.clip(ratio_TS, -LARGEST, LARGEST)


def across_stocks(ratio_TS: np.ndarray, present_TS: np.ndarray) -> np.ndarray:
    """z-score_TS across the stocks of the day that have a forecast and a bar; NaN for the others.

    z = (ratio - mean) / standard deviation (ddof 1, as the labels of objective.relative=zscore); 0 where all are
    equal (to 1e-12 of the largest, which is rounding) and for a single stock. Multiplying all ratios of a day by a
    positive constant, or adding one, changes nothing.
    """
    score_TS = np.full(ratio_TS.shape, np.nan)
    _across(np.ascontiguousarray(np.where(present_TS, ratio_TS, np.nan)), score_TS)
    return score_TS


def against_own_past(ratio_TS: np.ndarray) -> np.ndarray:
    """ratio_TS over the standard deviation (ddof 1) of the stock's ratios up to and with the day; NaN without a ratio.

    NaN before the stock has LEAST_VALUES ratios; 0 where they were all equal. For a stock on its own, which has no
    cross-section: in this unit a usual forecast is about 1, whatever its horizon and its unit.
    """
    score_TS = np.full(ratio_TS.shape, np.nan)
    _against_past(np.ascontiguousarray(ratio_TS), score_TS)
    return score_TS


@njit(cache=True, nogil=True)
def _across(ratio_TS, score_TS):
    """Fill score_TS."""
    for t in range(ratio_TS.shape[0]):
        count, total, lowest, highest = 0, 0.0, math.inf, -math.inf
        for s in range(ratio_TS.shape[1]):
            if math.isfinite(ratio_TS[t, s]):
                count += 1
                total += ratio_TS[t, s]
                lowest, highest = min(lowest, ratio_TS[t, s]), max(highest, ratio_TS[t, s])
        if not count:
            continue
        mean, squares = total / count, 0.0
        for s in range(ratio_TS.shape[1]):
            if math.isfinite(ratio_TS[t, s]):
                squares += (ratio_TS[t, s] - mean) ** 2
        alike = highest - lowest <= ALIKE * max(abs(lowest), abs(highest)) or squares <= 0.0
        deviation = 1.0 if alike else math.sqrt(squares / (count - 1))
        for s in range(ratio_TS.shape[1]):
            if math.isfinite(ratio_TS[t, s]):
                score_TS[t, s] = 0.0 if alike else (ratio_TS[t, s] - mean) / deviation


@njit(cache=True, nogil=True)
def _against_past(ratio_TS, score_TS):
    """Fill score_TS, by Welford's recursion for the mean and the squares about it."""
    for s in range(ratio_TS.shape[1]):
        count, mean, squares, largest = 0, 0.0, 0.0, 0.0
        for t in range(ratio_TS.shape[0]):
            ratio = ratio_TS[t, s]
            if not math.isfinite(ratio):
                continue
            count += 1
            largest = max(largest, abs(ratio))
            before = ratio - mean
            mean += before / count
            squares += before * (ratio - mean)
            if count >= LEAST_VALUES:
                deviation = math.sqrt(squares / (count - 1))
                score_TS[t, s] = ratio / deviation if deviation > ALIKE * largest else 0.0
