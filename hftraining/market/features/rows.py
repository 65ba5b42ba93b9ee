"""What a feature is made of: the bars of some symbols, each symbol's own without holes, and the market's return.

Legend: S symbols, N rows (the n-th bar of a symbol), T sessions.
"""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from hftraining.core.bars import ARRAYS, Bars
from hftraining.market.features.kernels import add_by_day, gather, lag, on_days, rows_of, std

VOLATILITY_ROWS = 20
VOLATILITY_FLOOR = 0.001  # a day; without it a constant price would give infinite features
T = TypeVar("T")
_GIVEN = {name: f"{name.removesuffix('_TS')}_SN" for name in ARRAYS}
CELLS = 2**15  # rows times symbols that are worked on at once: their arrays stay near the processor


class Rows:
    """open_SN, high_SN, low_SN, close_SN, volume_SN: float64, NaN past a symbol's last bar; never to be changed.

    Row n of a symbol is its n-th bar, whatever days lie between two of them; day_SN is its session, -1 past the last.
    market_T: the mean log return of the day over the symbols that trade today and traded before; 0 without any.
    """

    open_SN: np.ndarray
    high_SN: np.ndarray
    low_SN: np.ndarray
    close_SN: np.ndarray
    volume_SN: np.ndarray

    def __init__(self, bars: Bars, part: slice, market_T: np.ndarray) -> None:
        turned = {name: _turned(getattr(bars, name), part) for name in ARRAYS}
        self.day_SN = rows_of(turned["close_TS"])
        for name, values_ST in turned.items():
            setattr(self, _GIVEN[name], gather(values_ST, self.day_SN))
        self.market_T = market_T
        self._made: dict[Any, Any] = {}

    @cached_property
    def theirs(self) -> "Rows":
        """The same rows in arrays of their own, for all features of installed packages: ours are not made of them."""
        rows = Rows.__new__(Rows)
        for name in (*_GIVEN.values(), "day_SN", "market_T"):
            setattr(rows, name, getattr(self, name).copy())
        rows._made = {}
        return rows

    def once(self, make: Callable[..., T], *arguments: Any) -> T:
        """What make(self, *arguments) gives, made once for all features of these rows; not to be changed."""
        key = (make, arguments)
        if key not in self._made:
            self._made[key] = make(self, *arguments)
        made: T = self._made[key]
        return made

    def on_days(self, values_T: np.ndarray) -> np.ndarray:
        """The values of the sessions of these rows; NaN past a symbol's last bar. Raises ValueError where some lack."""
        values_T = np.ascontiguousarray(values_T, np.float64)
        if values_T.ndim != 1 or len(values_T) < len(self.market_T):  # the loop would read on past the last
            raise ValueError(f"a value for each of {len(self.market_T):,} sessions is needed, not {values_T.shape}")
        return on_days(values_T, self.day_SN)

    @cached_property
    def log_close_SN(self) -> np.ndarray:
        """The logarithm of the close."""
        return np.log(self.close_SN)

    @cached_property
    def return_SN(self) -> np.ndarray:
        """The log return since the bar before; NaN at the first bar."""
        return self.log_close_SN - lag(self.log_close_SN, 1)

    @cached_property
    def volatility_SN(self) -> np.ndarray:
        """Standard deviation (ddof 1, floored) of the last 20 daily log returns; NaN with fewer."""
        return floored_std(self.return_SN)


def floored_std(return_SN: np.ndarray) -> np.ndarray:
    """The standard deviation (ddof 1) of the last 20 returns, at least VOLATILITY_FLOOR; NaN with fewer than 20."""
    return np.maximum(std(return_SN, VOLATILITY_ROWS), VOLATILITY_FLOOR)


def parts_of(bars: Bars, group: slice | None = None) -> Iterator[slice]:
    """The symbols, or those of a group, in parts of about CELLS bars; none without sessions."""
    n_sessions, n_symbols = bars.close_TS.shape
    begin, end = (group.start, group.stop) if group else (0, n_symbols)
    step = max(1, CELLS // max(1, n_sessions))
    return (slice(first, min(first + step, end)) for first in range(begin, end if n_sessions else begin, step))


def market_of(bars: Bars) -> np.ndarray:
    """market_T, see Rows. A symbol counts from its second bar on, whether or not it will ever have features.

    The sum goes from symbol to symbol, so that its bits do not depend on the parts.
    """
    total_T, count_T = np.zeros(len(bars.sessions_T)), np.zeros(len(bars.sessions_T))
    for part in parts_of(bars):
        close_ST = _turned(bars.close_TS, part)
        day_SN = rows_of(close_ST)
        log_SN = np.log(gather(close_ST, day_SN))
        add_by_day(log_SN - lag(log_SN, 1), day_SN, total_T, count_T)
    return total_T / np.maximum(count_T, 1.0)


def market_on(bars: Bars, t: int) -> float:
    """market_of(bars)[t], to the bit, without the other days."""
    close_S, before_S = bars.close_TS[t].astype(np.float64), np.full(len(bars.symbols_S), np.nan)
    for row in range(t - 1, -1, -1):
        missing_S = np.isfinite(close_S) & ~np.isfinite(before_S)
        if not missing_S.any():
            break
        before_S[missing_S] = bars.close_TS[row, missing_S]
    with np.errstate(all="ignore"):
        return_S = np.log(close_S) - np.log(before_S)
    return_S = return_S[np.isfinite(return_S)]
    return float(np.cumsum(return_S)[-1] / len(return_S)) if len(return_S) else 0.0  # cumsum: one after another


def _turned(values_TS: np.ndarray, part: slice) -> np.ndarray:
    """The values of some symbols as values_ST, one symbol after another in memory.

    By way of a copy that stays near the processor, which is five times as fast as from all symbols' rows.
    """
    return np.ascontiguousarray(np.ascontiguousarray(values_TS[:, part], dtype=np.float64).T)
