"""The two recursions over days between a forecast and the weights: smoothing a signal, and trading towards a target.

The portfolios and the profit objective share them; the objective adds their gradients (model/towards.py).

Legend: T sessions, S symbols.
"""

# mypy: allow-untyped-defs
# numba infers the types of compiled functions from the calls.

import math

import numpy as np
from numba import njit

from hftraining.trading.config import TradingRules
from hftraining.trading.strategies import STALE_AFTER

RUIN = 1e-6  # of the book's value, after one day; at or below it nothing is left that could be traded


def smoothed(signal_TS: np.ndarray, half_life: float) -> np.ndarray:
    """Exponentially smoothed signal, s[t] = s[t-1] + (1 - 2^(-1 / half_life)) * (signal[t] - s[t-1]), finite.

    It starts with a symbol's first signal. Where a signal is missing (not finite) s stays as it was for at most
    STALE_AFTER sessions; then it is 0 and starts anew with the next one. half_life: in sessions; 0: no memory, the
    signal itself, and 0 where it is missing. Row t uses rows <= t alone.
    """
    signal_TS = np.ascontiguousarray(signal_TS, np.float64)
    if half_life == 0.0:
        return np.where(np.isfinite(signal_TS), signal_TS, 0.0)
    smooth_TS = np.zeros(signal_TS.shape)
    _smooth(signal_TS, gain_of(half_life), STALE_AFTER, smooth_TS)
    return smooth_TS


def gain_of(half_life: float) -> float:
    """The share of a new signal in the smoothed one: half of what is old is forgotten in half_life sessions."""
    return 1.0 - 2.0 ** (-1.0 / half_life) if half_life else 1.0


def traded_towards(
    target_TS: np.ndarray, close_TS: np.ndarray, trade_rate: float, every: int, rules: TradingRules
) -> np.ndarray:
    """Wanted weights_TS on the way to a target: w[t] = held[t] + trade_rate * (target[t] - held[t]), within the caps.

    It is traded on every `every`-th session from the first that has a target (other than 0 for all); on the others
    w[t] = held[t]. held is what w[t-1] has drifted to by the close of t, costs ignored; cash drifts with it:
    held[t, s] = w[t-1, s] * r[s] / (1 + sum of w[t-1] * (r - 1)), r = close[t] / close[t-1]. A symbol without a bar
    keeps its price for at most STALE_AFTER sessions; then it is dropped and its weight is cash. From a book that
    holds nothing the first trade goes all the way: entering costs the same either way.
    At trade_rate 1 and every 1 this is the target, to the bit.
    target_TS: within the caps of caps.cap_weights, finite. What drifts beyond them is cut back to them at once.
    trade_rate: in (0, 1]. every: in sessions. Row t uses rows <= t alone.
    Source: Garleanu and Pedersen (2013), "Dynamic Trading with Predictable Returns and Transaction Costs": with
    quadratic costs the best book moves a fixed share of the way towards an aim each day.
    """
    if trade_rate == 1.0 and every == 1:
        return target_TS
    weights_TS = np.zeros(target_TS.shape)
    arrays = (np.ascontiguousarray(array, np.float64) for array in (target_TS, close_TS))
    _trade(*arrays, trade_rate, every, *caps_of(rules), STALE_AFTER, weights_TS)
    return weights_TS


def caps_of(rules: TradingRules) -> tuple[float, float, float]:
    """The lowest and highest weight of a symbol, and the largest gross sum."""
    lowest = -float(rules.max_position_size) if rules.allow_short else 0.0
    return lowest, float(rules.max_position_size), float(rules.max_gross)


@njit(cache=True, nogil=True)
def _smooth(signal_TS, gain, stale, smooth_TS):
    """Fill smooth_TS."""
    age_S = np.full(signal_TS.shape[1], stale + 1)
    for t in range(signal_TS.shape[0]):
        for s in range(signal_TS.shape[1]):
            signal = signal_TS[t, s]
            before = smooth_TS[t - 1, s] if t else 0.0
            if not math.isfinite(signal):
                age_S[s] += 1
                smooth_TS[t, s] = before if age_S[s] <= stale else 0.0
            else:
                smooth_TS[t, s] = signal if age_S[s] > stale else before + gain * (signal - before)
                age_S[s] = 0


@njit(cache=True, nogil=True)
def _trade(target_TS, close_TS, rate, every, lowest, highest, max_gross, stale, weights_TS):
    """Fill weights_TS."""
    n_sessions, n_symbols = target_TS.shape
    price_S, age_S = np.full(n_symbols, np.nan), np.zeros(n_symbols, np.int64)
    held_S, ratio_S = np.zeros(n_symbols), np.ones(n_symbols)
    first = -1
    for t in range(n_sessions):
        _drift(close_TS[t], price_S, age_S, ratio_S, stale)
        if t:
            _hold_on(weights_TS[t - 1], ratio_S, age_S, stale, held_S)
        if first < 0 and _holds(target_TS[t]):
            first = t
        trades = first >= 0 and (t - first) % every == 0
        whole = rate == 1.0 or not _holds(held_S)
        gross = 0.0
        for s in range(n_symbols):
            wanted = held_S[s]
            if trades:
                wanted = target_TS[t, s] if whole else wanted + rate * (target_TS[t, s] - wanted)
            weights_TS[t, s] = min(max(wanted, lowest), highest)
            gross += abs(weights_TS[t, s])
        if gross > max_gross:
            for s in range(n_symbols):
                weights_TS[t, s] *= max_gross / gross


@njit(cache=True, nogil=True)
def _holds(weights_S):
    for s in range(weights_S.size):
        if weights_S[s] != 0.0:
            return True
    return False


@njit(cache=True, nogil=True)
def _drift(close_S, price_S, age_S, ratio_S, stale):
    """Move price_S, the last closes, by one session; age_S counts the sessions since each, ratio_S what it moved by."""
    for s in range(close_S.size):
        ratio_S[s] = 1.0
        if math.isnan(close_S[s]):
            age_S[s] += 1
        else:
            if age_S[s] <= stale and not math.isnan(price_S[s]):
                ratio_S[s] = close_S[s] / price_S[s]
            price_S[s] = close_S[s]
            age_S[s] = 0


@njit(cache=True, nogil=True)
def _hold_on(weights_S, ratio_S, age_S, stale, held_S):
    """Fill held_S, what the weights have drifted to; nothing where the book is ruined."""
    growth = 1.0
    for s in range(weights_S.size):
        growth += weights_S[s] * (ratio_S[s] - 1.0)
    alive = RUIN < growth < math.inf
    for s in range(weights_S.size):
        held_S[s] = weights_S[s] * ratio_S[s] / growth if alive and age_S[s] <= stale else 0.0
