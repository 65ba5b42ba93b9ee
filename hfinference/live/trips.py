"""Round trips of a paper account from its fills alone, for accounts that no engine of ours has filled."""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from hfinference.live.entries import MICRO, NANO, Adjustment, Fill
from hfinference.live.journal import Journal

DATES = ("entry_date", "exit_date")
COLUMNS = ("symbol side shares entry_date entry_price exit_date exit_price costs pnl exit_reason").split()


@dataclass
class _Trip:
    """A position since it was flat. cost_micro: paid less received so far; opened, closed: shares and their value."""

    symbol: str
    side: int
    entry_date: str
    held_nano: int = 0
    cost_micro: int = 0
    commission_micro: int = 0
    opened: tuple[int, int] = (0, 0)
    closed: tuple[int, int] = (0, 0)

    def trade(self, shares_nano: int, value_micro: int) -> None:
        """Take part of a fill, which opens or closes."""
        self.held_nano += shares_nano
        self.cost_micro += value_micro
        if shares_nano * self.side > 0:
            self.opened = self.opened[0] + abs(shares_nano), self.opened[1] + abs(value_micro)
        else:
            self.closed = self.closed[0] + abs(shares_nano), self.closed[1] + abs(value_micro)

    def row(self, exit_date: str | None, close: float) -> tuple[object, ...]:
        """As of a closed trip, or of one that is open at a close."""
        left, (out, received) = abs(self.held_nano) / NANO, self.closed
        exits = out / NANO + left
        exit_price = (received / MICRO + left * close) / exits if exits else float("nan")
        pnl = self.held_nano / NANO * close - (self.cost_micro + self.commission_micro) / MICRO
        opened, paid = self.opened[0] / NANO, self.opened[1] / MICRO
        side, reason = "long" if self.side > 0 else "short", "open" if exit_date is None else "signal"
        entry = paid / opened if opened else float("nan")
        costs = self.commission_micro / MICRO
        return (self.symbol, side, opened, self.entry_date, entry, exit_date, exit_price, costs, pnl, reason)


def trips_frame(journal: Journal) -> pd.DataFrame:
    """One row a trade, as Simulation.trades_frame: from flat to flat, or to a change of side, the closed ones first.

    What is open counts at the last close of the journal. Shares that came without a trade, by a split, cost nothing.
    costs: commissions, since a broker's slippage is in its prices.
    """
    last = journal.last_session()
    closes = last.closes if last else {}
    open_trips: dict[str, _Trip] = {}
    rows = []
    for symbol, day, change, value, commission in _moves(journal):
        while change:
            trip = open_trips.setdefault(symbol, _Trip(symbol, 1 if change > 0 else -1, day))
            closing = change * trip.side < 0
            part = max(-abs(trip.held_nano), -abs(change)) * trip.side if closing else change
            share = value * part // change if part != change else value
            trip.trade(part, share)
            trip.commission_micro += commission
            change, value, commission = change - part, value - share, 0
            if not trip.held_nano:
                rows.append(trip.row(day, 0.0))
                del open_trips[symbol]
    rows += [trip.row(None, closes.get(symbol, float("nan"))) for symbol, trip in open_trips.items()]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    for name in DATES:
        frame[name] = pd.to_datetime(frame[name]).astype("datetime64[s]")
    return frame


def _moves(journal: Journal) -> Iterator[tuple[str, str, int, int, int]]:
    """Symbol, day, signed nano-shares, signed value and commission of whatever changed a position, by day."""
    entries: list[Fill | Adjustment] = [*journal.adjustments(), *journal.fills()]
    for entry in sorted(entries, key=lambda entry: entry.day):  # what adds shares comes before the open
        if not entry.shares_nano:
            continue
        if isinstance(entry, Fill):
            yield entry.symbol, entry.day, entry.shares_nano, entry.value, entry.commission_micro
        else:
            yield entry.symbol, entry.day, entry.shares_nano, -entry.cash_micro, 0
