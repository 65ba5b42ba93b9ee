"""A digest of each symbol's returns in each month, by which the ledger knows bars again under any name and path.

Legend: T sessions, S symbols, M months, N bars that exist, symbol after symbol.
"""

from array import array

import numpy as np

from hftraining.core.bars import Bars
from hftraining.runs.seen import Months

FEWEST_BARS = 5  # in a month that can be recognised
FEWEST_MOVES = 3  # among its returns: halted and penny stocks would be mistaken for each other
STEP = 1e-5  # to which returns are rounded


def month_digests(bars: Bars) -> Months:
    """64 bits for the close-to-close returns of each symbol and month, rounded to 1e-5, with the month itself.

    So neither the scale of prices nor a later adjustment for dividends or splits matters, beyond returns that happen to
    lie on the edge of rounding: one month in three may then differ, and one that agrees is enough. A month's first
    return is from the close before it, where there is one. A month without enough bars or moves has no digest (0).
    """
    month_T = np.asarray(bars.sessions_T, "datetime64[M]").astype(np.int64)
    first, n_months, n_symbols = int(month_T[0]), int(month_T[-1] - month_T[0]) + 1, len(bars.symbols_S)
    close_ST = np.ascontiguousarray(bars.close_TS.T)
    symbol_N, row_N = np.nonzero(np.isfinite(close_ST))
    if not len(row_N):
        return Months(first, n_symbols, array("Q", bytes(8 * n_months * n_symbols)))
    close_N = close_ST[symbol_N, row_N]
    moved_N = np.zeros(len(close_N), np.int64)
    moved_N[1:] = np.rint((close_N[1:] / close_N[:-1] - 1.0) / STEP)
    has_return_N = np.r_[False, symbol_N[1:] == symbol_N[:-1]]
    moved_N[~has_return_N] = 0
    group_N = symbol_N * n_months + (month_T[row_N] - first)  # rising
    starts = np.flatnonzero(np.r_[True, np.diff(group_N) > 0])
    counts = np.diff(np.r_[starts, len(group_N)])
    place_N = np.arange(len(group_N)) - np.repeat(starts, counts) - np.repeat(~has_return_N[starts], counts)
    with np.errstate(over="ignore"):
        mixed_N = _mixed(moved_N.view(np.uint64) + _mixed(place_N.view(np.uint64)))
        mixed_N[~has_return_N] = 0
        groups = group_N[starts]
        digests = _mixed(np.add.reduceat(mixed_N, starts) + _mixed((groups % n_months + first).view(np.uint64)))
    moves = np.add.reduceat((moved_N != 0).astype(np.int64), starts)
    known = (counts >= FEWEST_BARS) & (moves >= FEWEST_MOVES)
    digest_MS = np.zeros((n_months, n_symbols), np.uint64)
    digest_MS[groups[known] % n_months, groups[known] // n_months] = digests[known] | np.uint64(1)  # never 0
    return Months(first, n_symbols, array("Q", digest_MS.tobytes()))


def _mixed(value_N: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): any bit of the value moves every bit."""
    value_N = value_N + np.uint64(0x9E3779B97F4A7C15)
    value_N = (value_N ^ (value_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value_N = (value_N ^ (value_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed_N: np.ndarray = value_N ^ (value_N >> np.uint64(31))
    return mixed_N
