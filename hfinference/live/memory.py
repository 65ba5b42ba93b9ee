"""The bars that an account traded on: kept in its journal, and compared with what the source says of them now.

Legend: T sessions, S symbols of the universe, 4 the prices: open, high, low, close.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from hfinference.live.journal import Journal
from hfinference.live.risk import Halt
from hftraining.core.bars import Bars
from hftraining.core.errors import listed

BASE, BASE_DAYS, PRICES = "base", "base_days", "prices"  # arrays of the journal
ALIKE = 2e-6  # of a price: what two answers of a source differ by, and the rounding of float32
ONE_FACTOR = 2e-5  # of a ratio: prices that were divided and rounded to a hundredth of a cent
LEAST_SPLIT = 1.2  # 6 for 5
OF_A_DIVIDEND = 0.1  # of what a dividend takes off: it is a part of the last close that we know, or of the source
NAMED = 5
BY_SOURCE = ("split", "rewritten_bars")  # halts that a resume accepts


@dataclass(frozen=True)
class Change:
    """What the source did to earlier bars. factors: symbol -> by what all its prices were multiplied; reasons: why.

    rewritten: symbols whose bars changed in another way.
    """

    factors: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    rewritten: tuple[str, ...] = ()


class BarMemory:
    """What the bars were. Volumes are not kept: sources correct them for days, and no account depends on them."""

    def __init__(self, journal: Journal, symbols_S: Sequence[str]) -> None:
        self._journal = journal
        self._symbols_S = tuple(symbols_S)
        base, days = journal.arrays(BASE), journal.arrays(BASE_DAYS)
        self._days_T = np.empty(0, "datetime64[D]")
        self._prices_T4S = np.empty((0, 4, len(symbols_S)), np.float32)
        if base:
            first = next(iter(base))
            later = {day: array for day, array in journal.arrays(PRICES).items() if day > first}
            parts = [base[first], *(array[None].astype(np.float32) for array in later.values())]
            known = days.get(first, np.empty(0))
            if any(part.shape[1:] != (4, len(symbols_S)) for part in parts) or known.shape != (len(base[first]),):
                raise Halt("journal", f"{journal.path} holds bars of other stocks: begin another (--journal FOLDER)")
            self._prices_T4S = np.concatenate(parts)
            self._days_T = np.concatenate(
                [known.astype(np.int64).view("datetime64[D]"), np.array([*later], "datetime64[D]")]
            )

    def changes(self, bars: Bars, events: pd.DataFrame | None = None) -> Change:
        """How these bars, to a later day, differ from what they were. Raises Halt (rewritten_bars) for other days.

        events: those of the source, also of days after the bars; by default those of the bars.
        """
        days_T = bars.sessions_T.astype("datetime64[D]")
        if not len(self._days_T):
            return Change()
        rows = slice(*np.searchsorted(days_T, [self._days_T[0], self._days_T[-1] + 1]))
        if not np.array_equal(days_T[rows], self._days_T):
            different = np.setxor1d(days_T[rows], self._days_T)
            raise Halt(
                "rewritten_bars",
                f"the source has other days than before ({listed(different, NAMED)}): look at them with `python -m "
                "hftraining data`, then begin another account (--journal FOLDER), or bring the bars back",
            )
        factors, rewritten = dict[str, float](), list[str]()
        with np.errstate(invalid="ignore"):
            ratio_T4S = _prices(bars.rows(rows)) / self._prices_T4S
        known_T4S = np.isfinite(self._prices_T4S)
        changed_S = ((known_T4S != np.isfinite(ratio_T4S)) | (np.abs(ratio_T4S - 1.0) > ALIKE)).any(axis=(0, 1))
        changed_S |= (np.isfinite(_prices(bars.rows(rows))) != known_T4S).any(axis=(0, 1))
        for s in np.flatnonzero(changed_S):
            ratios, symbol = ratio_T4S[:, :, s][known_T4S[:, :, s]], self._symbols_S[s]
            factor = float(np.median(ratios)) if len(ratios) else np.nan
            same = np.isfinite(_prices(bars.rows(rows))[:, :, s]) == known_T4S[:, :, s]
            if same.all() and (np.abs(ratios / factor - 1.0) <= ONE_FACTOR).all():
                factors[symbol] = factor
            else:
                rewritten.append(symbol)
        reasons = {
            symbol: self._reason(symbol, factor, bars.events if events is None else events)
            for symbol, factor in factors.items()
        }
        return Change(factors, reasons, tuple(rewritten))

    def check(self, change: Change, day: str) -> None:
        """Raise Halt for what no dividend explains, unless `resume` has lifted that halt. day: the last one traded."""
        if any(row.name in BY_SOURCE and row.day == day and row.lifted_at for row in self._journal.halts()):
            return
        split = [symbol for symbol, reason in change.reasons.items() if reason == "split"]
        if split:
            factor = change.factors[split[0]]
            raise Halt(
                "split",
                f"the source has multiplied all earlier prices of {listed(split, NAMED)} by {factor:.6g}, as a split "
                "does: look at it, then `resume` divides the shares and goes on",
            )
        strange = [symbol for symbol, reason in change.reasons.items() if reason == "rewritten"]
        if strange or change.rewritten:
            raise Halt(
                "rewritten_bars",
                f"the source has changed earlier prices of {listed([*change.rewritten, *strange], NAMED)}: look at "
                "them with `python -m hftraining data`, then `resume` goes on with the new ones",
            )

    def keep(self, bars: Bars, first: int, anew: bool) -> None:
        """Remember the last of these bars; with `anew`, or at the begin, all from a row on as they are now."""
        journal, day = self._journal, str(bars.sessions_T[-1])
        if anew or not len(self._days_T):
            rows = slice(first, None)
            if len(self._days_T):
                rows = slice(int(np.searchsorted(bars.sessions_T, self._days_T[0])), None)
            self._prices_T4S = _prices(bars.rows(rows)).astype(np.float32)
            self._days_T = bars.sessions_T[rows].astype("datetime64[D]")
            journal.keep(day, BASE, self._prices_T4S)
            journal.keep(day, BASE_DAYS, self._days_T.view(np.int64))
            for name in (BASE, BASE_DAYS):
                journal.forget(name, day)
            for known in journal.arrays(PRICES):
                row = int(np.searchsorted(bars.sessions_T, np.datetime64(known)))
                journal.keep(known, PRICES, _prices(bars.rows(slice(row, row + 1)))[0])
        last = _prices(bars.rows(slice(len(bars.sessions_T) - 1, None)))
        journal.keep(day, PRICES, last[0])
        if self._days_T[-1] < np.datetime64(day):
            self._prices_T4S = np.concatenate([self._prices_T4S, last.astype(np.float32)])
            self._days_T = np.append(self._days_T, np.datetime64(day))

    def _reason(self, symbol: str, factor: float, events: pd.DataFrame) -> str:
        """dividend, where the source names ones that take off as much; split by its size; or rewritten."""
        last = self._days_T[-1]
        if not max(factor, 1.0 / factor) < LEAST_SPLIT:
            return "split"
        if not len(events):
            return "rewritten"
        days = events["date"].to_numpy().astype("datetime64[D]")
        own = events[(events["symbol"] == symbol) & (days > last)]
        closes = self._prices_T4S[:, 3, self._symbols_S.index(symbol)]
        close = float(closes[np.isfinite(closes)][-1])
        taken = float(own["dividend"].sum()) / close
        return "dividend" if taken > 0.0 and abs((1.0 - factor) - taken) <= OF_A_DIVIDEND * taken else "rewritten"


def _prices(bars: Bars) -> np.ndarray:
    return np.stack([bars.open_TS, bars.high_TS, bars.low_TS, bars.close_TS], axis=1)
