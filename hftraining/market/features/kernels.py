"""Rolling kernels over the rows of each symbol, compiled, a column at a time; none of them can look ahead.

Legend: S symbols, N rows (a symbol's own bars, without holes), T sessions, F features.

Every kernel takes x_SN and a span in rows and gives a value at each row from this row and the `span - 1` before it. A
NaN in the window is left out; with fewer than `least` values left (default: span) the result is NaN. All of it is
float64, and the value of a row is the same to the bit whatever rows follow.
"""

import numpy as np
from numba import njit

COMPILED = {"cache": True, "nogil": True, "error_model": "numpy"}
WINDOWS_AT_ONCE = 512  # sums of which are added up beside each other
DAYS_AT_ONCE = 64


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
    out_SN = np.empty_like(x_SN)
    np.subtract(x_SN[:, :rows], x_SN[:, :1], out=out_SN[:, :rows])
    np.subtract(x_SN[:, rows:], x_SN[:, :-rows], out=out_SN[:, rows:])
    return out_SN


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
def sums_of(x_N: np.ndarray, span: int, middle_N: np.ndarray, squared: bool, total_N: np.ndarray) -> None:
    """total_N[n]: what sum_of gives of x_N[n : n + span] - middle_N[n], or of its square, to the bit, for every n.

    Many windows beside each other, which the processor adds up at once, each in the order of sum_of.
    """
    lane_8W, whole = np.empty((8, WINDOWS_AT_ONCE)), span - span % 8
    for first in range(0, x_N.size + 1 - span, WINDOWS_AT_ONCE):
        n = min(WINDOWS_AT_ONCE, x_N.size + 1 - span - first)
        from_W, own_W, total_W = x_N[first:], middle_N[first : first + n], total_N[first : first + n]
        lane_8W[:] = 0.0
        for i in range(whole):
            _add(from_W[i : i + n], own_W, squared, i < 8, lane_8W[i % 8])
        _join(lane_8W, total_W)
        for i in range(whole, span):
            _add(from_W[i : i + n], own_W, squared, False, total_W)


@njit(**COMPILED)
def _add(x_W: np.ndarray, middle_W: np.ndarray, squared: bool, is_first: bool, total_W: np.ndarray) -> None:
    if is_first and squared:
        for w in range(x_W.size):
            apart = x_W[w] - middle_W[w]
            total_W[w] = apart * apart
    elif is_first:
        for w in range(x_W.size):
            total_W[w] = x_W[w] - middle_W[w]
    elif squared:
        for w in range(x_W.size):
            apart = x_W[w] - middle_W[w]
            total_W[w] += apart * apart
    else:
        for w in range(x_W.size):
            total_W[w] += x_W[w] - middle_W[w]


@njit(**COMPILED)
def _join(lane_8W: np.ndarray, total_W: np.ndarray) -> None:
    """The sums of the lanes, as sum_of adds them up."""
    a, b, c, d = lane_8W[0], lane_8W[1], lane_8W[2], lane_8W[3]
    e, f, g, h = lane_8W[4], lane_8W[5], lane_8W[6], lane_8W[7]
    for w in range(total_W.size):
        total_W[w] = ((a[w] + b[w]) + (c[w] + d[w])) + ((e[w] + f[w]) + (g[w] + h[w]))


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
    none_N, whole_N = np.zeros(x_SN.shape[1]), np.empty(x_SN.shape[1])
    for s in range(x_SN.shape[0]):
        known_of(x_SN[s], known_N, before_N)
        sums_of(known_N[: before_N[-1]], span, none_N, False, whole_N)
        for n in range(x_SN.shape[1]):
            start, stop = before_N[max(0, n + 1 - span)], before_N[n + 1]
            if stop - start >= least:
                total = whole_N[start] if stop - start == span else sum_of(known_N, start, stop)
                out_SN[s, n] = total / (stop - start)
    return out_SN


@njit(**COMPILED)
def _std(x_SN: np.ndarray, span: int, least: int) -> np.ndarray:
    out_SN = np.full(x_SN.shape, np.nan)
    known_N, before_N = np.empty(x_SN.shape[1]), np.empty(x_SN.shape[1] + 1, np.int64)
    square_N = np.empty(span)
    middle_N, whole_N = np.empty(x_SN.shape[1]), np.empty(x_SN.shape[1])
    for s in range(x_SN.shape[0]):
        known_of(x_SN[s], known_N, before_N)
        middle_N[:] = 0.0
        sums_of(known_N[: before_N[-1]], span, middle_N, False, whole_N)
        for k in range(before_N[-1] + 1 - span):
            middle_N[k] = whole_N[k] / span
        sums_of(known_N[: before_N[-1]], span, middle_N, True, whole_N)
        for n in range(x_SN.shape[1]):
            start, stop = before_N[max(0, n + 1 - span)], before_N[n + 1]
            count = stop - start
            if count < max(least, 2):
                continue
            if count == span:
                total = whole_N[start]
            else:
                middle = sum_of(known_N, start, stop) / count
                for i in range(count):
                    square_N[i] = (known_N[start + i] - middle) ** 2
                total = sum_of(square_N, 0, count)
            out_SN[s, n] = np.sqrt(total / (count - 1))
    return out_SN


@njit(**COMPILED)
def root_mean_square(x_SN: np.ndarray, span: int) -> np.ndarray:
    """Root of the mean square of up to `span` values, a NaN counted as 0; the first row, of returns, does not count."""
    out_SN, total_N = np.empty(x_SN.shape), np.empty(x_SN.shape[1])
    for s in range(x_SN.shape[0]):
        total = 0.0
        for n in range(x_SN.shape[1]):
            total += 0.0 if np.isnan(x_SN[s, n]) else x_SN[s, n] * x_SN[s, n]
            total_N[n] = total
        for n in range(x_SN.shape[1]):
            apart = total_N[n] - (total_N[n - span] if n >= span else 0.0)
            apart = 0.0 if apart < 0.0 else apart  # of rounding
            out_SN[s, n] = np.sqrt(apart / min(max(n, 1), span))
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
def on_days(values_T: np.ndarray, day_SN: np.ndarray) -> np.ndarray:
    """The values of the sessions of rows; NaN past a symbol's last one."""
    out_SN = np.full(day_SN.shape, np.nan)
    for s in range(day_SN.shape[0]):
        for n in range(day_SN.shape[1]):
            if day_SN[s, n] < 0:
                break
            out_SN[s, n] = values_T[day_SN[s, n]]
    return out_SN


@njit(**COMPILED)
def scatter(
    block_FSN: np.ndarray, day_SN: np.ndarray, first: int, place_F: np.ndarray, hide: bool, values_TSF: np.ndarray
) -> None:
    """Put features of the symbols from `first` on in their places, and NaN in all others of these symbols.

    hide: also where one of the features of a row is not finite. Some days of all these symbols at a time, so that what
    is written stays near the processor.
    """
    next_S = np.zeros(day_SN.shape[0], np.int64)
    for start in range(0, values_TSF.shape[0], DAYS_AT_ONCE):
        for s in range(day_SN.shape[0]):
            n = next_S[s]
            for t in range(start, min(start + DAYS_AT_ONCE, values_TSF.shape[0])):
                has_row = n < day_SN.shape[1] and day_SN[s, n] == t
                is_known = has_row
                if has_row and hide:
                    for f in range(block_FSN.shape[0]):
                        is_known &= np.isfinite(block_FSN[f, s, n])
                if not is_known or block_FSN.shape[0] < values_TSF.shape[2]:
                    values_TSF[t, first + s, :] = np.nan
                if is_known:
                    for f in range(block_FSN.shape[0]):
                        values_TSF[t, first + s, place_F[f]] = block_FSN[f, s, n]
                n += has_row
            next_S[s] = n


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


@njit(**COMPILED)
def all_finite(values_TSF: np.ndarray) -> np.ndarray:
    """known_TS: where all features of a symbol's day are finite."""
    known_TS = np.empty(values_TSF.shape[:2], np.bool_)
    for t in range(values_TSF.shape[0]):
        for s in range(values_TSF.shape[1]):
            is_known = True
            for f in range(values_TSF.shape[2]):
                is_known &= np.isfinite(values_TSF[t, s, f])
            known_TS[t, s] = is_known
    return known_TS
