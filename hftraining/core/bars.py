"""Bars: the daily prices of several symbols, aligned by date.

Legend: T sessions, S symbols.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

ARRAYS = ("open_TS", "high_TS", "low_TS", "close_TS", "volume_TS")


@dataclass(frozen=True)
class Bars:
    """Adjusted daily bars. NaN in all five arrays where a symbol has no bar at a session.

    sessions_T: rising, unique datetime64[D]. open/high/low/close_TS: in currency, adjusted for splits and
    dividends. volume_TS: in shares, adjusted the opposite way, so that price * volume is what was traded.
    events: one row a split or dividend, columns symbol, date, split (ratio, 0 if none), dividend (currency).
    source: where the bars came from, in words. warnings: repairs made while loading, one sentence each.
    """

    symbols_S: tuple[str, ...]
    sessions_T: np.ndarray
    open_TS: np.ndarray
    high_TS: np.ndarray
    low_TS: np.ndarray
    close_TS: np.ndarray
    volume_TS: np.ndarray
    events: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["symbol", "date", "split", "dividend"]))
    source: str = ""
    snapshot: str | None = None  # id of the stored yahoo snapshot that these bars come from
    warnings: tuple[str, ...] = ()
    # Of arrays that nobody can write, from the cache; no copy of these bars has it.
    known_fingerprint: str | None = field(init=False, default=None, repr=False, compare=False)

    def rows(self, rows: slice) -> "Bars":
        """The bars of some sessions, as views."""
        cut = {name: getattr(self, name)[rows] for name in ("sessions_T", *ARRAYS)}
        return replace(self, **cut)

    def of(self, symbols: Sequence[str]) -> "Bars":
        """The bars of some symbols, in that order, over all sessions. Raises ValueError for an unknown symbol."""
        columns = self.columns_of(symbols)
        cut = {name: getattr(self, name)[:, columns] for name in ARRAYS}
        return replace(self, symbols_S=tuple(symbols), events=self.events[self.events["symbol"].isin(symbols)], **cut)

    def columns_of(self, symbols: Iterable[str]) -> list[int]:
        """The columns of some symbols. Raises ValueError for an unknown one."""
        place = {symbol: s for s, symbol in enumerate(self.symbols_S)}
        symbols = list(symbols)
        if unknown := [symbol for symbol in symbols if symbol not in place]:
            raise ValueError(f"{unknown[0]!r} is not among the symbols of these bars")
        return [place[symbol] for symbol in symbols]

    @property
    def present_TS(self) -> np.ndarray:
        """Where a symbol has a bar, boolean."""
        return np.isfinite(self.close_TS)

    def fingerprint(self) -> str:
        """16 hex digits that hash symbols, sessions and all five arrays; the source does not count."""
        if self.known_fingerprint and not any(getattr(self, name).flags.writeable for name in ("sessions_T", *ARRAYS)):
            return self.known_fingerprint
        digest = hashlib.sha256("\0".join(self.symbols_S).encode())
        digest.update(self.sessions_T.astype("datetime64[D]").astype("<i8").tobytes())
        for name in ARRAYS:
            digest.update(np.ascontiguousarray(getattr(self, name), dtype="<f8").data)
        return digest.hexdigest()[:16]
