"""Rolling kernels of the wider sets: extremes, skew, and how two series move together. See kernels.py for the rules.

They are meant for returns, whose mean is small beside their deviation: skew and together are made of running sums.

Legend: S symbols, N rows.
"""

import numpy as np
from numba import njit

from hftraining.market.features.kernels import COMPILED, known_of, window

ANEW = 256  # rows after which a running sum is made anew, so that rounding does not add up
STILL = 1e-8  # a standard deviation below which a series does not move


def highest(x_SN: np.ndarray, span: int, least: int | None = None) -> np.ndarray:
    """The highest value of the window."""
    return _highest(x_SN, *window(span, least))


def lowest(x_SN: np.ndarray, span: int, least: int | None = None) -> np.ndarray:
    """The lowest value of the window."""
    return -_highest(-x_SN, *window(span, least))


def skew(x_SN: np.ndarray, span: int, least: int | None = None) -> np.ndarray:
    """The third central moment over the cube of the standard deviation (ddof 0); 0 where nothing moves.

    Source: Joanes and Gill (1998), g1, without correction for the size of the window.
    """
    return _skew(x_SN, *window(span, least))


def together(y_SN: np.ndarray, x_SN: np.ndarray, span: int, least: int | None = None) -> np.ndarray:
    """both_2SN: the slope of y on x by ordinary least squares with intercept, and Pearson's correlation.

    A row counts where both are known. Slope and correlation are 0 where one of them does not move.
    """
    return _together(y_SN, x_SN, *window(span, least))


@njit(**COMPILED)
def _highest(x_SN: np.ndarray, span: int, least: int) -> np.ndarray:
    out_SN = np.full(x_SN.shape, np.nan)
    known_N, before_N = np.empty(x_SN.shape[1]), np.empty(x_SN.shape[1] + 1, np.int64)
    for s in range(x_SN.shape[0]):
        known_of(x_SN[s], known_N, before_N)
        at, looked = -1, 0  # where the highest lies, and up to where it has been looked for
        for n in range(x_SN.shape[1]):
            start, stop = before_N[max(0, n + 1 - span)], before_N[n + 1]
            if at < start:
                at, looked = start, start
            for i in range(looked, stop):
                if known_N[i] >= known_N[at]:
                    at = i
            looked = stop
            if stop - start >= least:
                out_SN[s, n] = known_N[at]
    return out_SN


@njit(**COMPILED)
def _skew(x_SN: np.ndarray, span: int, least: int) -> np.ndarray:
    out_SN = np.full(x_SN.shape, np.nan)
    known_N, before_N = np.empty(x_SN.shape[1]), np.empty(x_SN.shape[1] + 1, np.int64)
    for s in range(x_SN.shape[0]):
        known_of(x_SN[s], known_N, before_N)
        first = last = 0  # the sums are of known_N[first:last]
        one = two = three = 0.0
        for n in range(x_SN.shape[1]):
            start, stop = before_N[max(0, n + 1 - span)], before_N[n + 1]
            if n % ANEW == 0:
                first, last, one, two, three = start, start, 0.0, 0.0, 0.0
            for i in range(last, stop):
                x = known_N[i]
                one, two, three = one + x, two + x * x, three + x * x * x
            for i in range(first, start):
                x = known_N[i]
                one, two, three = one - x, two - x * x, three - x * x * x
            first, last, count = start, stop, stop - start
            if count >= least:
                middle = one / count
                square = two / count - middle * middle
                cube = three / count - 3.0 * middle * two / count + 2.0 * middle**3
                out_SN[s, n] = cube / square**1.5 if square > STILL * STILL else 0.0
    return out_SN


@njit(**COMPILED)
def _together(y_SN: np.ndarray, x_SN: np.ndarray, span: int, least: int) -> np.ndarray:
    out_2SN = np.full((2, *x_SN.shape), np.nan)
    n_rows = x_SN.shape[1]
    for s in range(x_SN.shape[0]):
        count, x, y, xx, xy, yy = 0, 0.0, 0.0, 0.0, 0.0, 0.0
        for n in range(n_rows):
            first, last = n, n + 1  # rows that come in; where the sums are made anew, all of the window
            if n % ANEW == 0:
                count, x, y, xx, xy, yy = 0, 0.0, 0.0, 0.0, 0.0, 0.0
                first = max(0, n + 1 - span)
            elif n >= span:
                a, b = x_SN[s, n - span], y_SN[s, n - span]
                if not (np.isnan(a) or np.isnan(b)):
                    count, x, y, xx, xy, yy = count - 1, x - a, y - b, xx - a * a, xy - a * b, yy - b * b
            for i in range(first, last):
                a, b = x_SN[s, i], y_SN[s, i]
                if not (np.isnan(a) or np.isnan(b)):
                    count, x, y, xx, xy, yy = count + 1, x + a, y + b, xx + a * a, xy + a * b, yy + b * b
            if count >= max(least, 2):
                x_apart, y_apart, together = xx - x * x / count, yy - y * y / count, xy - x * y / count
                still = STILL * STILL * count
                moves = x_apart > still and y_apart > still
                out_2SN[0, s, n] = together / x_apart if moves else 0.0  # not the rounding that is left of 0
                out_2SN[1, s, n] = together / np.sqrt(x_apart * y_apart) if moves else 0.0
    return out_2SN
