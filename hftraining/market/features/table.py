"""The table of features: every column at every session, made a part of the symbols at a time.

Legend: T sessions, S symbols, F features, N rows of one symbol (the sessions on which it has a bar).
Row t of every array uses rows <= t alone; the leak proof checks this to the bit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from hftraining.core.bars import Bars
from hftraining.market.features.kernels import all_finite, hide_incomplete, scatter
from hftraining.market.features.lookup import made
from hftraining.market.features.names import BASIC, base_of
from hftraining.market.features.ranks import rank_of_the_day
from hftraining.market.features.rows import Rows, market_of, parts_of
from hftraining.market.kept import Room

GROUP_BYTES = 2**26  # of a table that is made in a file: so much of it is made in memory first
DAYS = 32  # that are ranked at once: all columns of them stay near the processor


@dataclass(frozen=True)
class Features:
    """names: of the columns. values_TSF: float32; all of a symbol's day are NaN where one of them is unknown.

    volatility_TS: trailing, a day, of the last 20 rows; NaN where a symbol has no bar or not yet 21 rows.
    """

    names: tuple[str, ...]
    values_TSF: np.ndarray
    volatility_TS: np.ndarray
    # By which facts they are kept in the cache: of those alone that come from there, and no copy has them.
    kept_as: Mapping[str, Any] | None = field(init=False, default=None, repr=False, compare=False)

    @cached_property
    def known_TS(self) -> np.ndarray:
        """Where the features of a symbol are known, boolean."""
        return known_of(self.values_TSF)

    def rows(self, rows: slice) -> "Features":
        """The features of some sessions, as views."""
        return Features(self.names, self.values_TSF[rows], self.volatility_TS[rows])

    def of(self, columns: Sequence[int]) -> "Features":
        """The features of some symbols, by column; the market in them stays the whole universe."""
        return Features(self.names, self.values_TSF[:, columns], self.volatility_TS[:, columns])


def known_of(values_TSF: np.ndarray, let_go: Callable[[], None] = lambda: None) -> np.ndarray:
    """Where all features are known, some days at a time; let_go is called after each."""
    known_TS = np.empty(values_TSF.shape[:2], bool)
    for first in range(0, len(values_TSF), DAYS):
        days = slice(first, first + DAYS)
        known_TS[days] = all_finite(values_TSF[days])
        let_go()
    return known_TS


def make_features(
    bars: Bars, columns: Sequence[str] = BASIC, room: Room | None = None, market_T: np.ndarray | None = None
) -> Features:
    """The features of these names, in that order, at every session. Raises ValueError for an unknown name.

    A row counts only where the symbol has a bar: "20 rows" are its own last 20 bars. room: arrays in a file to make
    them in, so that a large table takes no memory. market_T: see Rows, where it is known; by default of these bars.
    """
    bases = list(dict.fromkeys(map(base_of, columns)))
    seen = [name for name in bases if name in columns]
    hidden = [name for name in bases if name not in columns]  # only their ranks are asked for
    place_F = np.array([columns.index(name) for name in seen], np.int64)
    shape = bars.close_TS.shape
    volatility_TS = room["volatility_TS"] if room else np.empty(shape)
    values_TSF = room["values_TSF"] if room else np.empty((*shape, len(columns)), np.float32)
    hidden_TSF = np.empty((*shape, len(hidden)), np.float32)
    ranked = len(seen) < len(columns)
    with np.errstate(all="ignore"):  # what is unknown, or too large, becomes NaN below
        market_T = market_of(bars) if market_T is None else market_T
        for group, own_TSF, own_TS in _in_groups(values_TSF, volatility_TS, room):
            for part in parts_of(bars, group):
                rows = Rows(bars, part, market_T)
                at = rows.day_SN, part.start - group.start
                scatter(rows.volatility_SN[None], *at, np.zeros(1, np.int64), False, own_TS[:, :, None])
                scatter(_made(seen, rows), *at, place_F, not ranked, own_TSF)
                if hidden:
                    block_FSN, place_H = _made(hidden, rows), np.arange(len(hidden))
                    scatter(block_FSN, rows.day_SN, part.start, place_H, False, hidden_TSF)
    for first in range(0, len(values_TSF) if ranked else 0, DAYS):
        days = slice(first, first + DAYS)
        _rank(columns, hidden, values_TSF[days], hidden_TSF[days])
        hide_incomplete(values_TSF[days])
        _let_go(room)
    return Features(tuple(columns), values_TSF, volatility_TS)


def _in_groups(
    values_TSF: np.ndarray, volatility_TS: np.ndarray, room: Room | None
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Symbols, and where to make their values and volatilities: all at once, and in place, where these lie in memory.

    In a file, many symbols at a time: each session's row lies on other pages of it than the next one's, which are
    fetched and given back whenever it is written.
    """
    n_sessions, n_symbols, n_features = values_TSF.shape
    if not room:
        yield slice(0, n_symbols), values_TSF, volatility_TS
        return
    step = max(1, GROUP_BYTES // max(1, 4 * n_sessions * n_features))
    for first in range(0, n_symbols, step):
        group = slice(first, min(first + step, n_symbols))
        own_TSF, own_TS = np.empty_like(values_TSF[:, group]), np.empty_like(volatility_TS[:, group])
        yield group, own_TSF, own_TS
        values_TSF[:, group], volatility_TS[:, group] = own_TSF, own_TS
        room.let_go()


def _made(names: Sequence[str], rows: Rows) -> np.ndarray:
    """block_FSN: features of some rows."""
    block_FSN = np.empty((len(names), *rows.day_SN.shape), np.float32)
    for f, name in enumerate(names):
        block_FSN[f] = made(name, rows)
    return block_FSN


def _let_go(room: Room | None) -> None:
    if room:
        room.let_go()


def _rank(columns: Sequence[str], hidden: Sequence[str], values_TSF: np.ndarray, hidden_TSF: np.ndarray) -> None:
    """Fill the columns that are ranks."""
    for f, name in enumerate(columns):
        base = base_of(name)
        if base != name:
            table_TSF, names = (hidden_TSF, hidden) if base in hidden else (values_TSF, columns)
            rank_of_the_day(table_TSF, names.index(base), values_TSF, f)
