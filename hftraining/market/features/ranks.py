"""The rank of a feature among the stocks of the day.

Legend: T sessions, S symbols, F and G features.
"""

import numpy as np
from numba import njit

from hftraining.market.features.kernels import COMPILED


def rank_of_the_day(values_TSF: np.ndarray, f: int, ranked_TSF: np.ndarray, g: int) -> None:
    """Column g of ranked_TSF from column f of values_TSF: sqrt(12) * ((r - 1/2) / n - 1/2).

    r is the rank among the n known values of the day, 1 the lowest. Equal values share their mean rank, so that the
    mean is 0, the variance about 1, and a single stock has 0; the unit of objective.relative=rank. NaN where the value
    is not finite.
    """
    known_TS = _column(values_TSF, f)
    _rank(known_TS, np.argsort(known_TS, axis=1), ranked_TSF, g)


@njit(**COMPILED)
def _column(values_TSF: np.ndarray, f: int) -> np.ndarray:
    """A column by itself, NaN where it is not finite: NaN is sorted to the end."""
    out_TS = np.empty(values_TSF.shape[:2], np.float32)
    for t in range(values_TSF.shape[0]):
        for s in range(values_TSF.shape[1]):
            value = values_TSF[t, s, f]
            out_TS[t, s] = value if np.isfinite(value) else np.float32(np.nan)
    return out_TS


@njit(**COMPILED)
def _rank(values_TS: np.ndarray, order_TS: np.ndarray, ranked_TSF: np.ndarray, g: int) -> None:
    for t in range(values_TS.shape[0]):
        n = 0
        while n < values_TS.shape[1] and not np.isnan(values_TS[t, order_TS[t, n]]):
            n += 1
        for i in range(n, values_TS.shape[1]):
            ranked_TSF[t, order_TS[t, i], g] = np.nan
        first = 0
        while first < n:
            stop = first + 1
            while stop < n and values_TS[t, order_TS[t, stop]] == values_TS[t, order_TS[t, first]]:
                stop += 1
            score = np.sqrt(12.0) * ((0.5 * (first + stop)) / n - 0.5)
            for i in range(first, stop):
                ranked_TSF[t, order_TS[t, i], g] = score
            first = stop
