"""The kinds of portfolio that lean on a score: tilt, top, long_short, core and timing.

score_TS is finite, 0 for a stock without one. present_TS: the stocks of the day, those with a bar at the session; the
others have weight 0 (`top` keeps them a while). basis_TS: positive, what weights are in proportion to where the score
says nothing, 1 or the inverse of volatility. No weight is capped yet.

Legend: T sessions, S symbols, n stocks of the day.
"""

# mypy: allow-untyped-defs
# numba infers the types of compiled functions from the calls.

import numpy as np
from numba import njit

from hftraining.trading.strategies import STALE_AFTER


def base_weights(basis_TS: np.ndarray, present_TS: np.ndarray) -> np.ndarray:
    """base_TS: in proportion to the basis over the stocks of the day, summing to 1; all 0 on a day without stocks."""
    return _shared_out(np.where(present_TS, basis_TS, 0.0))


def tilt(score_TS: np.ndarray, base_TS: np.ndarray, strength: float) -> np.ndarray:
    """w ~ base * max(0, 1 + strength * s), summing to 1; the base weights where no stock would be left.

    Long only and fully invested. Without any forecast all scores are 0 and this is the base.
    Source: the signal tilts of index providers; Grinold and Kahn (2000), "Active Portfolio Management", ch. 14.
    """
    leaned_TS = _shared_out(base_TS * np.maximum(0.0, 1.0 + strength * score_TS))
    return np.where(leaned_TS.any(axis=1, keepdims=True), leaned_TS, base_TS)


def top(score_TS: np.ndarray, basis_TS: np.ndarray, present_TS: np.ndarray, fraction: float, keep: float) -> np.ndarray:
    """The best round(fraction * n) stocks, at least 1, in proportion to the basis, summing to 1.

    A stock that is held is kept until it falls out of the best round(keep * n); when a place is free the best that
    is not held takes it. A stock without a bar keeps its place and weight for at most STALE_AFTER sessions. Halves
    are rounded up. Where all scores of a day with several stocks are equal, as without any forecast, all of them are
    held in the base weights, and the places are given anew afterwards. Of equal scores the earlier column comes first.
    Source: TopkDropoutStrategy of qlib (Yang et al. 2020), with a band of ranks in place of its number dropped a day.
    """
    held_TS = np.zeros(score_TS.shape, np.bool_)
    n_T = present_TS.sum(axis=1)
    places_T = np.maximum(1, _rounded(fraction * n_T))
    kept_T = np.maximum(places_T, _rounded(keep * n_T))
    _hold_best(*_ordered(score_TS, present_TS), n_T, places_T, kept_T, STALE_AFTER, held_TS)
    return _shared_out(np.where(held_TS, basis_TS, 0.0))


def long_short(score_TS: np.ndarray, basis_TS: np.ndarray, present_TS: np.ndarray, fraction: float) -> np.ndarray:
    """The best round(fraction * n) stocks against as many of the worst, each side summing to a half in absolute value.

    At least 1 and at most n / 2 a side, in proportion to the basis; a single stock has no other side, so nothing.
    Equal scores at the border of a side share its last places; where all are equal the two sides cancel out.
    Source: the portfolios of Jegadeesh and Titman (1993), with a fraction for deciles.
    """
    n_T = present_TS.sum(axis=1)
    k_T = np.minimum(np.maximum(1, _rounded(fraction * n_T)), n_T // 2)
    long_TS, short_TS = np.zeros(score_TS.shape), np.zeros(score_TS.shape)
    score_TS, _, columns_TS = _ordered(score_TS, present_TS)
    _sides(score_TS, columns_TS, n_T, k_T, long_TS, short_TS)
    return 0.5 * _shared_out(long_TS * basis_TS) - 0.5 * _shared_out(short_TS * basis_TS)


def core(long_short_TS: np.ndarray, base_TS: np.ndarray, share: float) -> np.ndarray:
    """(1 - share) * base + share * long_short: gross at most 1. Source: active extension, Jacobs and Levy (2006)."""
    return (1.0 - share) * base_TS + share * long_short_TS


def timing(score_TS: np.ndarray, base_TS: np.ndarray) -> np.ndarray:
    """w = base * clip(1/2 + s/2, 0, 1): a single stock moves between nothing and all, half without a forecast.

    score: of `score.against_own_past`, smoothed. Several stocks are timed each at its base weight.
    Source: the linear rule of Campbell and Thompson (2008), bounded between no shorts and no leverage.
    """
    return base_TS * np.clip(0.5 + 0.5 * score_TS, 0.0, 1.0)


def _shared_out(raw_TS: np.ndarray) -> np.ndarray:
    """Scaled to a sum of 1 a day; a day of zeros stays so."""
    total_T1 = raw_TS.sum(axis=1, keepdims=True)
    return raw_TS / np.where(total_T1 > 0.0, total_T1, 1.0)


def _ordered(score_TS: np.ndarray, present_TS: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, presence, and columns_TS: the stocks of the day, the best first, of equal ones the earlier column."""
    score_TS, present_TS = np.ascontiguousarray(score_TS), np.ascontiguousarray(present_TS)
    columns_TS = np.argsort(np.where(present_TS, -score_TS, np.inf), axis=1, kind="stable")
    return score_TS, present_TS, columns_TS


def _rounded(values: np.ndarray) -> np.ndarray:
    # A hair is added so that 0.15 * 10, which is a little less than 1.5, rounds as it reads.
    return np.floor(values + 0.5 + 1e-9).astype(np.int64)


@njit(cache=True, nogil=True)
def _hold_best(score_TS, present_TS, columns_TS, n_T, places_T, kept_T, stale, held_TS):
    """Fill held_TS, day by day."""
    n_sessions, n_symbols = score_TS.shape
    is_held_S, age_S = np.zeros(n_symbols, np.bool_), np.zeros(n_symbols, np.int64)
    for t in range(n_sessions):
        n, order = n_T[t], columns_TS[t]
        all_equal = n > 1 and score_TS[t, order[0]] == score_TS[t, order[n - 1]]
        free = places_T[t]
        for s in range(n_symbols):
            age_S[s] = 0 if present_TS[t, s] else age_S[s] + 1
            if all_equal or age_S[s] > stale:
                is_held_S[s] = False
        for rank in range(kept_T[t], n):
            is_held_S[order[rank]] = False
        for s in range(n_symbols):
            free -= is_held_S[s]
        for rank in range(n):
            if free > 0 and not all_equal and not is_held_S[order[rank]]:
                is_held_S[order[rank]] = True
                free -= 1
        for s in range(n_symbols):
            held_TS[t, s] = present_TS[t, s] if all_equal else is_held_S[s]


@njit(cache=True, nogil=True)
def _sides(score_TS, columns_TS, n_T, k_T, long_TS, short_TS):
    """Fill the share of a place that each stock has on each side."""
    for t in range(score_TS.shape[0]):
        n, k, order = n_T[t], k_T[t], columns_TS[t]
        start = 0
        while start < n and k > 0:
            end = start + 1
            while end < n and score_TS[t, order[end]] == score_TS[t, order[start]]:
                end += 1
            places_above = min(max(k - start, 0), end - start)
            places_below = min(max(end - (n - k), 0), end - start)
            for rank in range(start, end):
                long_TS[t, order[rank]] = places_above / (end - start)
                short_TS[t, order[rank]] = places_below / (end - start)
            start = end
