"""Statistics of nested windows: the last 5, 10, 20, 30 and 60 rows of each symbol, each built from shorter ones.

The last 60 rows are the last 30 and the 30 before them, so a window takes one operation a row, whatever its length, and
a value depends on the rows of its window alone, to the bit: no running sum carries on what went before.

Legend: S symbols, N rows (a symbol's own bars, oldest first), K statistics, W windows. A window that begins before the
first row has the rows that there are. Row n of every result uses rows <= n. What a NaN touches is NaN or undefined.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
from numba import njit

WINDOWS = (5, 10, 20, 30, 60)
# Each length as an older and a newer part.
PARTS = ((2, 1, 1), (4, 2, 2), (5, 1, 4), (10, 5, 5), (20, 10, 10), (30, 10, 20), (60, 30, 30))
COUNT, MEAN_X, MEAN_Y, XX, XY, YY = range(6)
_COMPILED = {"cache": True, "nogil": True, "error_model": "numpy"}
T = TypeVar("T")


def nested(row: T, join: Callable[[T, T, int], T]) -> dict[int, T]:
    """The statistic of each of WINDOWS. row: that of each row alone.

    join(older, newer, length) puts two windows together, of which the newer one has `length` rows, so that the older
    one of row n stands at n - length; where there is none, the newer one has all rows that there are.
    """
    of = {1: row}
    for size, older, newer in PARTS:
        of[size] = join(of[older], of[newer], newer)
    return {size: of[size] for size in WINDOWS}


def sums(x_SN: np.ndarray) -> dict[int, np.ndarray]:
    """The sum of each window."""
    return nested(x_SN, _joined_sums)


def _joined_sums(older_SN: np.ndarray, newer_SN: np.ndarray, length: int) -> np.ndarray:
    joined_SN = newer_SN.copy()
    joined_SN[:, length:] += older_SN[:, :-length]
    return joined_SN


def highest(x_SN: np.ndarray) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """The largest value of each window, and its row; of equal ones the oldest, as numpy's argmax."""
    row_SN = np.broadcast_to(np.arange(x_SN.shape[1], dtype=np.int32), x_SN.shape)
    return nested((x_SN, row_SN), _joined_highest)


def _joined_highest(
    older: tuple[np.ndarray, np.ndarray], newer: tuple[np.ndarray, np.ndarray], length: int
) -> tuple[np.ndarray, np.ndarray]:
    joined = newer[0].copy(), newer[1].copy()
    is_older_SN = older[0][:, :-length] >= newer[0][:, length:]
    for joined_SN, older_SN in zip(joined, older, strict=True):
        np.copyto(joined_SN[:, length:], older_SN[:, :-length], where=is_older_SN)
    return joined


def moments(x_SN: np.ndarray, y_SN: np.ndarray, counts_SN: np.ndarray) -> dict[int, np.ndarray]:
    """Of pairs: count, means, and sums of squared and of multiplied deviations from the means; _KSN, K as COUNT to YY.

    counts_SN: whether a pair counts. Unlike differences of sums of squares they lose nothing where a price hardly
    moves. Source: Chan, Golub and LeVeque (1979), Updating formulae and a pairwise algorithm, equation 2.1.
    """
    row_KSN = np.zeros((6, *x_SN.shape))
    row_KSN[COUNT] = counts_SN
    np.copyto(row_KSN[MEAN_X], x_SN, where=counts_SN)
    np.copyto(row_KSN[MEAN_Y], y_SN, where=counts_SN)
    return nested(row_KSN, partial(_joined_moments, ages=False))


def std_of(of_KSN: np.ndarray, square: int) -> np.ndarray:
    """The standard deviation (ddof 1) of x (square XX) or y (YY); NaN of one value."""
    return np.sqrt(of_KSN[square] / (of_KSN[COUNT] - 1.0))


def lines(y_SN: np.ndarray) -> dict[int, np.ndarray]:
    """The moments of y over time: x is minus the age of a row, so that 0 is the last row of each window."""
    row_KSN = np.zeros((6, *y_SN.shape))
    row_KSN[COUNT] = 1.0
    row_KSN[MEAN_Y] = y_SN
    return nested(row_KSN, partial(_joined_moments, ages=True))


@njit(**_COMPILED)
def _joined_moments(older_KSN: np.ndarray, newer_KSN: np.ndarray, length: int, ages: bool) -> np.ndarray:
    joined_KSN = newer_KSN.copy()
    older_age = float(length) if ages else 0.0
    for s in range(newer_KSN.shape[1]):
        count_N, mean_x_N, mean_y_N = joined_KSN[0, s, length:], joined_KSN[1, s, length:], joined_KSN[2, s, length:]
        xx_N, xy_N, yy_N = joined_KSN[3, s, length:], joined_KSN[4, s, length:], joined_KSN[5, s, length:]
        for n in range(len(count_N)):
            older_count, older_x, older_y = older_KSN[0, s, n], older_KSN[1, s, n] - older_age, older_KSN[2, s, n]
            both = older_count + count_N[n]
            share = count_N[n] / max(both, 1.0)
            dx, dy, apart = mean_x_N[n] - older_x, mean_y_N[n] - older_y, older_count * share
            count_N[n] = both
            mean_x_N[n] = older_x + dx * share
            mean_y_N[n] = older_y + dy * share
            xx_N[n] += older_KSN[3, s, n] + dx * dx * apart
            xy_N[n] += older_KSN[4, s, n] + dx * dy * apart
            yy_N[n] += older_KSN[5, s, n] + dy * dy * apart
    return joined_KSN


@njit(**_COMPILED)
def ranks(x_SN: np.ndarray) -> np.ndarray:
    """The rank of the last value in each window as a share of its rows, _WSN; equal values share their mean rank."""
    n_rows = x_SN.shape[1]
    rank_WSN = np.empty((len(WINDOWS), *x_SN.shape))
    for s in range(x_SN.shape[0]):
        x_N, below_N, seen = x_SN[s], np.full(n_rows, 0.5), 1  # half of the value itself is below it
        for w in range(len(WINDOWS)):
            for age in range(seen, min(WINDOWS[w], n_rows)):
                for n in range(age, n_rows):
                    below_N[n] += 0.5 * (x_N[n - age] < x_N[n]) + 0.5 * (x_N[n - age] <= x_N[n])
            seen = WINDOWS[w]
            for n in range(n_rows):
                rank_WSN[w, s, n] = (below_N[n] + 0.5) / min(seen, n + 1)
    return rank_WSN


@njit(**_COMPILED)
def quantiles(x_SN: np.ndarray, size: int, low: float, high: float) -> np.ndarray:
    """Two quantiles of the last `size` rows, _2SN, linear between the two nearest values. NaN from the first NaN on."""
    of_2SN = np.full((2, *x_SN.shape), np.nan)
    rising = np.empty(size)  # the values of the window
    for s in range(x_SN.shape[0]):
        x_N, held = x_SN[s], 0
        for n in range(x_SN.shape[1]):
            if np.isnan(x_N[n]):
                break
            if held < size:
                place = held
                held += 1
            else:  # the value that leaves makes room
                place = np.searchsorted(rising, x_N[n - size])
                while place + 1 < size and rising[place + 1] < x_N[n]:
                    rising[place] = rising[place + 1]
                    place += 1
            while place > 0 and rising[place - 1] > x_N[n]:
                rising[place] = rising[place - 1]
                place -= 1
            rising[place] = x_N[n]
            for q, level in enumerate((low, high)):
                at = level * (held - 1)
                below = int(at)
                of_2SN[q, s, n] = rising[below]
                if below < at:
                    of_2SN[q, s, n] += (rising[below + 1] - rising[below]) * (at - below)
    return of_2SN
