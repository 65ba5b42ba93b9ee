"""Rolling kernels over the rows of each symbol, compiled, a column at a time; none of them can look ahead.

Legend: S symbols, N rows (a symbol's own bars, without holes), T sessions, F features.

Every kernel takes x_SN and a span in rows and gives a value at each row from this row and the `span - 1` before it. A
NaN in the window is left out; with fewer than `least` values left (default: span) the result is NaN. All of it is
float64, and the value of a row is the same to the bit whatever rows follow.
"""

import numpy as np
from numba import njit

COMPILED = {"cache": True, "nogil": True, "error_model": "numpy"}


class LooksAhead(ValueError):
    """A lag or a span that would read rows that are still to come."""


def checked_span(span: int, least: int = 1) -> int:
    """The span, or LooksAhead for one below `least`: a negative lag is tomorrow's bar."""
    if type(span) is not int or span < least:
        raise LooksAhead(f"a span or lag of {span!r} rows: it must be a whole number of at least {least}")
    return span


def lag(x_SN: np.ndarray, rows: int) -> np.ndarray:
    """x of `rows` rows before; NaN where there are fewer. Raises LooksAhead for a negative lag."""
    rows = checked_span(rows, 0)
    out_SN = np.full(x_SN.shape, np.nan)
    out_SN[:, rows:] = x_SN[:, : max(0, x_SN.shape[1] - rows)]
    return out_SN


def change(x_SN: np.ndarray, rows: int) -> np.ndarray:
    """x less its value `rows` rows before, or less the first where there are fewer; x_SN has no NaN first."""
    rows = checked_span(rows)
    return x_SN - x_SN[:, np.maximum(np.arange(x_SN.shape[1]) - rows, 0)]


def mean(x_SN: np.ndarray, span: int, least: int | None = None) -> np.ndarray:
    """The mean of the window."""
    return _mean(x_SN, *window(span, least))


def std(x_SN: np.ndarray, span: int, least: int | None = None) -> np.ndarray:
    """The standard deviation of the window, ddof 1; NaN with one value."""
    return _std(x_SN, *window(span, least))


def window(span: int, least: int | None) -> tuple[int, int]:
    """The span, and the fewest values that it needs. Raises LooksAhead."""
    span = checked_span(span)
    return span, span if least is None else checked_span(least)


@njit(**COMPILED)
def sum_of(x_N: np.ndarray, start: int, stop: int) -> float:
    """The sum of x_N[start:stop], in eight lanes as numpy adds up to 128 values: for those, its bits."""
    n = stop - start
    if n < 8:
        total = 0.0
        for i in range(start, stop):
            total += x_N[i]
        return total
    a, b, c, d = x_N[start], x_N[start + 1], x_N[start + 2], x_N[start + 3]
    e, f, g, h = x_N[start + 4], x_N[start + 5], x_N[start + 6], x_N[start + 7]
    whole = start + n - n % 8
    for i in range(start + 8, whole, 8):
        a += x_N[i]
        b += x_N[i + 1]
        c += x_N[i + 2]
        d += x_N[i + 3]
        e += x_N[i + 4]
        f += x_N[i + 5]
        g += x_N[i + 6]
        h += x_N[i + 7]
    total = ((a + b) + (c + d)) + ((e + f) + (g + h))
    for i in range(whole, stop):
        total += x_N[i]
    return total


@njit(**COMPILED)
def known_of(x_N: np.ndarray, known_N: np.ndarray, before_N: np.ndarray) -> None:
    """The values that are no NaN, packed into known_N; before_N[n]: how many of them the rows before n hold."""
    count = 0
    for n in range(len(x_N)):
        before_N[n] = count
        if not np.isnan(x_N[n]):
            known_N[count] = x_N[n]
            count += 1
    before_N[len(x_N)] = count


@njit(**COMPILED)
def _mean(x_SN: np.ndarray, span: int, least: int) -> np.ndarray:
    out_SN = np.full(x_SN.shape, np.nan)
    known_N, before_N = np.empty(x_SN.shape[1]), np.empty(x_SN.shape[1] + 1, np.int64)
    for s in range(x_SN.shape[0]):
        known_of(x_SN[s], known_N, before_N)
        for n in range(x_SN.shape[1]):
            start, stop = before_N[max(0, n + 1 - span)], before_N[n + 1]
            if stop - start >= least:
                out_SN[s, n] = sum_of(known_N, start, stop) / (stop - start)
    return out_SN


@njit(**COMPILED)
def _std(x_SN: np.ndarray, span: int, least: int) -> np.ndarray:
    out_SN = np.full(x_SN.shape, np.nan)
    known_N, before_N = np.empty(x_SN.shape[1]), np.empty(x_SN.shape[1] + 1, np.int64)
    square_N = np.empty(span)
    for s in range(x_SN.shape[0]):
        known_of(x_SN[s], known_N, before_N)
        for n in range(x_SN.shape[1]):
            start, stop = before_N[max(0, n + 1 - span)], before_N[n + 1]
            count = stop - start
            if count >= max(least, 2):
                middle = sum_of(known_N, start, stop) / count
                for i in range(count):
                    square_N[i] = (known_N[start + i] - middle) ** 2
                out_SN[s, n] = np.sqrt(sum_of(square_N, 0, count) / (count - 1))
    return out_SN


@njit(**COMPILED)
def rows_of(close_ST: np.ndarray) -> np.ndarray:
    """day_SN: the session of the n-th bar of each symbol, -1 past its last one; N is the most bars of a symbol."""
    day_ST = np.full(close_ST.shape, -1, np.int64)
    most = 1
    for s in range(close_ST.shape[0]):
        count = 0
        for t in range(close_ST.shape[1]):
            if np.isfinite(close_ST[s, t]):
                day_ST[s, count] = t
                count += 1
        most = max(most, count)
    return day_ST[:, :most].copy()


@njit(**COMPILED)
def gather(values_ST: np.ndarray, day_SN: np.ndarray) -> np.ndarray:
    """The values at the rows of each symbol; NaN past its last one."""
    out_SN = np.full(day_SN.shape, np.nan)
    for s in range(day_SN.shape[0]):
        for n in range(day_SN.shape[1]):
            if day_SN[s, n] < 0:
                break
            out_SN[s, n] = values_ST[s, day_SN[s, n]]
    return out_SN


@njit(**COMPILED)
def scatter(block_FSN: np.ndarray, day_SN: np.ndarray, first: int, place_F: np.ndarray, values_TSF: np.ndarray) -> None:
    """Put features of the symbols from `first` on in their places; what lies between rows is left as it is."""
    for s in range(day_SN.shape[0]):
        for n in range(day_SN.shape[1]):
            t = day_SN[s, n]
            if t < 0:
                break
            for f in range(block_FSN.shape[0]):
                values_TSF[t, first + s, place_F[f]] = block_FSN[f, s, n]


@njit(**COMPILED)
def add_by_day(return_SN: np.ndarray, day_SN: np.ndarray, total_T: np.ndarray, count_T: np.ndarray) -> None:
    """Add the returns that are known to the total and count of their day, one symbol after another."""
    for s in range(day_SN.shape[0]):
        for n in range(day_SN.shape[1]):
            if day_SN[s, n] >= 0 and np.isfinite(return_SN[s, n]):
                total_T[day_SN[s, n]] += return_SN[s, n]
                count_T[day_SN[s, n]] += 1.0


@njit(**COMPILED)
def hide_incomplete(values_TSF: np.ndarray) -> None:
    """Make all features of a symbol's day NaN where one of them is not finite."""
    for t in range(values_TSF.shape[0]):
        for s in range(values_TSF.shape[1]):
            is_known = True
            for f in range(values_TSF.shape[2]):
                is_known &= np.isfinite(values_TSF[t, s, f])
            if not is_known:
                values_TSF[t, s, :] = np.nan
