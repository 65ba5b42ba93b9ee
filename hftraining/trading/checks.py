"""The checks of what the fill engine is given, and the last bar of each symbol.

Legend: T sessions, S symbols.
"""

# mypy: allow-untyped-defs
# numba infers the types of compiled functions from the calls.

import math

import numpy as np
from numba import njit

_BARS = ("open", "high", "low", "close")
_compiled = njit(cache=True, nogil=True, error_model="numpy")


def check_shapes(bars: list[np.ndarray], weights: np.ndarray) -> None:
    """Refuse bars and weights that do not belong to the same sessions and symbols."""
    close_TS = bars[3]
    if close_TS.ndim != 2:
        raise ValueError(f"close: {close_TS.ndim} axes, but the engine wants (sessions, symbols)")
    for name, array in zip(_BARS, bars, strict=True):
        if array.shape != close_TS.shape:
            raise ValueError(f"{name}: shape {array.shape}, but close has {close_TS.shape}")
    if weights.ndim not in (2, 3) or weights.shape[-2:] != close_TS.shape:
        raise ValueError(f"weights: shape {weights.shape}, but close has {close_TS.shape}")


def check_values(bars: list[np.ndarray], weights: np.ndarray) -> None:
    """Refuse impossible prices and weights; the error names the argument and the first offending place.

    A session whose weights are all NaN is one without a decision.
    """
    t, s = first_bad_bar(*bars)
    if t >= 0:
        values = [array[t, s] for array in bars]
        for name, value in zip(_BARS, values, strict=True):
            if not 0.0 < value < np.inf:
                rest = "" if np.isfinite(value) else "; a bar without trading is NaN in all four prices"
                raise ValueError(f"{name}: {value} at session {t}, symbol {s} is not a positive price{rest}")
    finite = np.isfinite(weights)
    if not finite.all() and not (finite | np.isnan(weights).all(axis=-1, keepdims=True)).all():
        finite |= np.isnan(weights).all(axis=-1, keepdims=True)
        place = tuple(int(i) for i in np.argwhere(~finite)[0])
        where = ("draw ", "session ", "symbol ")[-len(place) :]
        at = ", ".join(name + str(i) for name, i in zip(where, place, strict=True))
        raise ValueError(f"weights: {weights[place]} at {at}; a symbol without a position has weight 0")


def check_sessions(sessions_T: np.ndarray, n_sessions: int) -> None:
    """Raise ValueError unless there is a date for every row and the dates rise."""
    if len(sessions_T) != n_sessions:
        raise ValueError(f"sessions: {len(sessions_T)} dates for {n_sessions} rows of bars")
    days_T = np.asarray(sessions_T)
    falls = ~(days_T[1:] > days_T[:-1])
    if falls.any():
        t = int(np.argmax(falls)) + 1
        raise ValueError(f"sessions: {days_T[t]} at row {t} does not come after {days_T[t - 1]}")


@_compiled
def last_bars(close_TS):
    """The session of each symbol's last bar where more sessions follow it, else -1."""
    n_sessions, n_symbols = close_TS.shape
    last_S = np.full(n_symbols, -1, np.int64)
    for s in range(n_symbols):
        t = n_sessions - 1
        while t >= 0 and close_TS[t, s] != close_TS[t, s]:
            t -= 1
        if t < n_sessions - 1:
            last_S[s] = t
    return last_S


@_compiled
def first_bad_bar(open_TS, high_TS, low_TS, close_TS):
    """(session, symbol) of the first bar that is not wholly absent and not four finite positive prices, or (-1, -1)."""
    n_sessions, n_symbols = close_TS.shape
    for t in range(n_sessions):
        bad = 0
        for s in range(n_symbols):
            bad += _is_bad(open_TS[t, s], high_TS[t, s], low_TS[t, s], close_TS[t, s])
        if bad:
            for s in range(n_symbols):
                if _is_bad(open_TS[t, s], high_TS[t, s], low_TS[t, s], close_TS[t, s]):
                    return t, s
    return -1, -1


@_compiled
def _is_bad(open_, high, low, close):
    """Whether a bar is neither absent nor four finite positive prices; without branches, so that it vectorises."""
    is_good = (open_ > 0.0) & (high > 0.0) & (low > 0.0) & (close > 0.0)
    is_good &= (open_ < math.inf) & (high < math.inf) & (low < math.inf) & (close < math.inf)
    is_absent = (open_ != open_) & (high != high) & (low != low) & (close != close)
    return not (is_good | is_absent)
