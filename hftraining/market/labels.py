"""Labels: what a decision could have earned, alone or beside the other stocks of the day.

Legend: T sessions, S symbols, H horizons, N returns of one symbol.
"""

# mypy: allow-untyped-defs
# numba infers the types of compiled functions from the calls.

import math
from collections.abc import Sequence

import numpy as np
from numba import njit
from scipy.stats import rankdata

from hftraining.core.bars import Bars
from hftraining.core.relative import BY_DAY, KINDS

BETA_ROWS, BETA_LEAST = 252, 60  # returns of a trailing beta, at most and at least
NO_SPREAD = 1e-9  # log return; stocks that are nearer to each other are equal but for rounding
NO_MOVE = 1e-8  # standard deviation a day of a market so still that nothing has a beta to it


def make_labels(
    bars: Bars, volatility_TS: np.ndarray, horizons: Sequence[int], lag: int, label: str, relative: str
) -> np.ndarray:
    """labels_TSH: what a decision at the close of t earns over each horizon, in the unit of `label_span`.

    With e = log(open[t+lag+h] / open[t+lag]) for label="open", or log(close[t+h] / close[t]), which nobody can trade,
    for "close"; v = volatility_TS, the stock's trailing volatility a day, known at t; m = the mean of e over the stocks
    of the day, those with bars at t and at both ends of the span:

    none: e / (v sqrt h). mean: (e - m) / (v sqrt h). residual: (e - beta m) / (v sqrt h), beta as `trailing_beta`.
    zscore: (e - m) / s with s the standard deviation (ddof 1) of e over the stocks of the day; 0 where all are equal.
    rank: sqrt(12) * ((r - 1/2) / n - 1/2), r the rank of e among the n stocks of the day, 1 the lowest, equal ones
    share their mean rank: mean 0 and variance 1 - 1/n^2 without ties.

    float32; NaN where a symbol has no bar at t or at either end of the span, and at the end of the bars. Also NaN where
    the unit or beta is unknown, and in zscore and rank on a day with fewer than two such stocks. Nothing after
    t + lag + h is read. Raises ValueError for an unknown kind.
    """
    if relative not in KINDS:
        raise ValueError(f"relative={relative} is not one of {', '.join(KINDS)}")
    n_sessions, n_symbols = bars.close_TS.shape
    labels_TSH = np.full((n_sessions, n_symbols, len(horizons)), np.nan, np.float32)
    present_TS = bars.present_TS
    log_TS, lag = (np.log(bars.open_TS), lag) if label == "open" else (np.log(bars.close_TS), 0)
    beta_TS = trailing_beta(bars) if relative == "residual" else np.ones((n_sessions, 1))
    for h, horizon in enumerate(horizons):
        count = n_sessions - lag - horizon
        if count <= 0:
            continue
        earned_TS = log_TS[lag + horizon :] - log_TS[lag : lag + count]
        earned_TS[~present_TS[:count]] = np.nan
        apart_TS = _beside_the_others(earned_TS, beta_TS[:count], relative)
        labels_TSH[:count, :, h] = apart_TS / label_span(volatility_TS[:count], (horizon,), relative)[:, :, 0]
    return labels_TSH


def label_span(volatility_TS: np.ndarray, horizons: Sequence[int], relative: str) -> np.ndarray:
    """span_TSH: what one unit of a label is, the one function that says so.

    A log return, volatility_TS * sqrt(h), NaN where the volatility is. For zscore and rank 1 (read-only, without
    memory of its own): a standard deviation of the day.
    """
    if relative in BY_DAY:
        return np.broadcast_to(1.0, (*volatility_TS.shape, len(horizons)))
    return volatility_TS[:, :, None] * np.sqrt(np.asarray(horizons, float))


def trailing_beta(bars: Bars) -> np.ndarray:
    """beta_TS: the slope of each stock's daily log returns on the market's, by ordinary least squares with intercept.

    The market is the mean over symbols with a return that day. A stock's returns are from bar to bar of its own; its
    last 252 count, at rows <= t alone. NaN with fewer than 60, without a bar, and in a market that does not move.
    """
    return_TS = _daily_returns(bars)
    market_T = _mean_of_the_day(return_TS)
    beta_TS = np.full(return_TS.shape, np.nan)
    _betas(return_TS, market_T, BETA_ROWS, BETA_LEAST, beta_TS)
    return beta_TS


def _beside_the_others(earned_TS: np.ndarray, beta_TS: np.ndarray, relative: str) -> np.ndarray:
    """Returns, NaN where unknown, relative to those of the day's other stocks, before the unit."""
    if relative == "none":
        return earned_TS
    known_TS = np.isfinite(earned_TS)
    n_T1 = known_TS.sum(axis=1, keepdims=True)
    if relative == "rank":
        # Unknown ones come last, so that they move no other's rank.
        rank_TS = rankdata(np.where(known_TS, earned_TS, np.inf), axis=1)
        score_TS = np.sqrt(12.0) * ((rank_TS - 0.5) / np.maximum(n_T1, 1) - 0.5)
        return np.where(known_TS & (n_T1 >= 2), score_TS, np.nan)
    apart_TS = earned_TS - beta_TS * _mean_of_the_day(earned_TS)[:, None]
    if relative != "zscore":
        return apart_TS
    square_TS = np.where(known_TS, apart_TS, 0.0) ** 2
    spread_T1 = np.sqrt(square_TS.sum(axis=1, keepdims=True) / np.maximum(n_T1 - 1, 1))
    score_TS = np.where(spread_T1 > NO_SPREAD, apart_TS / np.maximum(spread_T1, NO_SPREAD), 0.0)
    return np.where(known_TS & (n_T1 >= 2), score_TS, np.nan)


def _mean_of_the_day(values_TS: np.ndarray) -> np.ndarray:
    """The mean over the symbols whose value is known; 0 on a day without any."""
    known_TS = np.isfinite(values_TS)
    return np.where(known_TS, values_TS, 0.0).sum(axis=1) / np.maximum(known_TS.sum(axis=1), 1)


def _daily_returns(bars: Bars) -> np.ndarray:
    """return_TS: log return from a symbol's bar before, however long ago, to the close of t; NaN without either."""
    return_TS = np.log(bars.close_TS)
    _differences(return_TS)
    return return_TS


@njit(cache=True, nogil=True)
def _differences(log_TS):
    """Each value less the last known one before it, in place."""
    last_S = np.full(log_TS.shape[1], np.nan)
    for t in range(log_TS.shape[0]):
        for s in range(log_TS.shape[1]):
            now = log_TS[t, s]
            log_TS[t, s] = now - last_S[s]
            last_S[s] = last_S[s] if math.isnan(now) else now


@njit(cache=True, nogil=True)
def _betas(return_TS, market_T, most, least, beta_TS):
    """Fill beta_TS where a stock has a return: covariance with the market over the market's variance."""
    n_sessions, n_symbols = return_TS.shape
    # The sums of x, y, x x and x y over all returns so far: those of a window are differences of two.
    sum_4N = np.zeros((4, n_sessions + 1))
    for s in range(n_symbols):
        count = 0
        for t in range(n_sessions):
            x, y = market_T[t], return_TS[t, s]
            if not math.isfinite(y):
                continue
            for row, term in enumerate((x, y, x * x, x * y)):
                sum_4N[row, count + 1] = sum_4N[row, count] + term
            count += 1
            n, first = min(count, most), max(count - most, 0)
            x_sum, y_sum = sum_4N[0, count] - sum_4N[0, first], sum_4N[1, count] - sum_4N[1, first]
            xx, xy = sum_4N[2, count] - sum_4N[2, first], sum_4N[3, count] - sum_4N[3, first]
            variance = (xx - x_sum * x_sum / n) / n
            if n >= least and variance > NO_MOVE**2:
                beta_TS[t, s] = (xy - x_sum * y_sum / n) / n / variance
