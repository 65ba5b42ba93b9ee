"""Whether a check of audit.py can find anything: one compiled pass over the rows, which mostly says that it cannot.

A screen compares with a little room, so that what it lets pass, the check itself lets pass to the bit; whatever it
does not, unknown numbers too, is left to the check. Legend: N rows, sorted by symbol and date where a screen says so.
"""

# mypy: allow-untyped-defs
# numba infers the types of compiled functions from the calls.

import numpy as np
from numba import njit

COMPILED = {"cache": True, "nogil": True, "error_model": "numpy"}
ROOM = 1e-9  # relative: far above the rounding of a quotient and of a logarithm


@njit(**COMPILED)
def rises(code_N, day_N):
    """Whether symbols come one after the other, each with rising days."""
    for n in range(1, code_N.size):
        if code_N[n] < code_N[n - 1] or (code_N[n] == code_N[n - 1] and day_N[n] <= day_N[n - 1]):
            return False
    return True


@njit(**COMPILED)
def within(values_N, least, most):
    """Whether all values lie between two numbers, these included."""
    for value in values_N:
        if not least <= value <= most:
            return False
    return True


@njit(**COMPILED)
def agrees(code_N, open_N, high_N, low_N, close_N, widest, spike):
    """Whether each high and low holds its bar, none is wider, and no close is so far from the one before.

    widest: high over low; spike: close over close of the row before of the same symbol, or the reverse. Of sorted rows
    with positive prices.
    """
    widest, spike = widest * (1 - ROOM), spike * (1 - ROOM)
    for n in range(code_N.size):
        open_, high, low, close = open_N[n], high_N[n], low_N[n], close_N[n]
        if not (low <= open_ <= high and low <= close <= high and high <= low * widest):
            return False
        if n and code_N[n] == code_N[n - 1]:
            before = close_N[n - 1]
            if not (close <= before * spike and before <= close * spike):
                return False
    return True


@njit(**COMPILED)
def goes_on(code_N, open_N, close_N, gap, jump):
    """Whether no open or close is so many times, or so small a part of, the close before. Of sorted rows."""
    gap, jump = gap * (1 - ROOM), jump * (1 - ROOM)
    for n in range(1, code_N.size):
        before, open_, close = close_N[n - 1], open_N[n], close_N[n]
        if code_N[n] != code_N[n - 1]:
            continue
        if not (open_ <= before * gap and before <= open_ * gap and close <= before * jump and before <= close * jump):
            return False
    return True


def codes_of(codes: np.ndarray) -> np.ndarray:
    """Codes of symbols in one type, so that a screen is compiled once."""
    return codes.astype(np.int32, copy=False)
