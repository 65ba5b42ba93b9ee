"""Trailing volatilities: of each stock, for base weights, and of the book, for a volatility target.

Legend: T sessions, S symbols.
"""

# mypy: allow-untyped-defs
# numba infers the types of compiled functions from the calls.

import math

import numpy as np
from numba import njit

from hftraining.trading.simulator import SESSIONS_PER_YEAR
from hftraining.trading.strategies import daily_returns

SPAN, LEAST_RETURNS = 60, 20  # sessions
FLOOR = 0.001  # a day, so that a price that stands still does not take the whole book


def trailing_volatility(return_TS: np.ndarray) -> np.ndarray:
    """Standard deviation_TS (ddof 1) a day of the returns in the last SPAN sessions, the day's own among them.

    return_TS: simple returns, NaN: none. NaN where there are fewer than LEAST_RETURNS.
    """
    volatility_TS = np.full(return_TS.shape, np.nan)
    _trailing(np.ascontiguousarray(return_TS), SPAN, LEAST_RETURNS, volatility_TS)
    return volatility_TS


def inverse_volatility(close_TS: np.ndarray) -> np.ndarray:
    """1 / volatility_TS a day, for weights in proportion to it; positive and finite everywhere.

    A symbol without a volatility takes the median one of the symbols of the day that have one and a bar; 1 without
    any, so that all are equal.
    """
    volatility_TS = np.maximum(trailing_volatility(daily_returns(close_TS)), FLOOR)
    known_TS = np.where(np.isfinite(close_TS), volatility_TS, np.nan)
    middle_T1 = np.ones((len(close_TS), 1))
    any_T = np.isfinite(known_TS).any(axis=1)
    middle_T1[any_T] = np.nanmedian(known_TS[any_T], axis=1, keepdims=True)
    return 1.0 / np.where(np.isfinite(volatility_TS), volatility_TS, middle_T1)


def volatility_scale(weights_TS: np.ndarray, close_TS: np.ndarray, target: float) -> np.ndarray:
    """scale_T = target / (volatility of the book a year), by which weights would have the target's volatility.

    The book's return of a day is what the weights of the day before earned by this close, costs and lag ignored; its
    volatility is the standard deviation (ddof 1) of its last SPAN returns, * sqrt(252). Returns count from the day
    after the book first holds something. 1 where there are fewer than LEAST_RETURNS; infinite where the book stood
    still. target: a fraction a year. Row t uses rows <= t alone. Costs are not in it.
    Source: Moreira and Muir (2017), "Volatility-Managed Portfolios", with the standard deviation for the variance as
    in Harvey et al. (2018), "The Impact of Volatility Targeting".
    """
    return_T = np.full(len(weights_TS), np.nan)
    return_TS = np.nan_to_num(daily_returns(close_TS))
    return_T[1:] = (weights_TS[:-1] * return_TS[1:]).sum(axis=1)
    held_T = np.logical_or.accumulate((weights_TS != 0.0).any(axis=1))
    return_T[1:][~held_T[:-1]] = np.nan
    volatility_T = trailing_volatility(return_T[:, None])[:, 0] * math.sqrt(SESSIONS_PER_YEAR)
    with np.errstate(divide="ignore"):
        return np.where(np.isfinite(volatility_T), target / volatility_T, 1.0)


@njit(cache=True, nogil=True)
def _trailing(return_TS, span, least, volatility_TS):
    """Fill volatility_TS, each from its own window: running sums would carry old rounding along."""
    n_sessions, n_symbols = return_TS.shape
    count_S, mean_S, square_S = np.zeros(n_symbols), np.zeros(n_symbols), np.zeros(n_symbols)
    for t in range(n_sessions):
        count_S[:], mean_S[:], square_S[:] = 0.0, 0.0, 0.0
        for row in range(max(0, t - span + 1), t + 1):
            for s in range(n_symbols):
                if not math.isnan(return_TS[row, s]):
                    count_S[s] += 1.0
                    mean_S[s] += return_TS[row, s]
        for s in range(n_symbols):
            mean_S[s] /= max(count_S[s], 1.0)
        for row in range(max(0, t - span + 1), t + 1):
            for s in range(n_symbols):
                if not math.isnan(return_TS[row, s]):
                    square_S[s] += (return_TS[row, s] - mean_S[s]) ** 2
        for s in range(n_symbols):
            if count_S[s] >= least:
                volatility_TS[t, s] = math.sqrt(square_S[s] / (count_S[s] - 1.0))
