"""How a paper account stands, read from its journal alone, without its lock, also while a trader writes.

Legend: T sessions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np

from hfinference.live.entries import Adjustment, Fill, HaltRow, Mark, Order, money, shares
from hfinference.live.exchange import Exchange
from hfinference.live.journal import Journal
from hfinference.live.journal_file import REPLAY
from hfinference.live.latch import flatten_asked
from hftraining.core.errors import in_a_line
from hftraining.runs.lock import is_in_use
from hftraining.trading.metrics import equity_metrics

HOLD = "hold"  # the array of a session: what buying and holding is worth at its close, in currency
CALENDAR = "calendar"  # the fact of a journal that names its exchange; none in a replay
NOTES, IN_SAMPLE = "notes", "in_sample"  # facts: what a reader has to know, in sentences
MOST_ENTRIES = 200  # fills and adjustments in --json and on the page: the last ones


@dataclass(frozen=True)
class Position:
    """Shares held, signed. price: the last known close, None without one. value: in currency. weight: of the equity."""

    symbol: str
    shares: float
    price: float | None
    value: float | None
    weight: float | None


@dataclass(frozen=True)
class Status:
    """How an account stands at the last close that was marked. Money in currency.

    at: when it was read. is_running: a trader holds the journal. hold_T: what buying and holding the same stocks with
    the capital is worth at each close of marks_T, NaN where it is not known. fills, adjustments: the last ones, of
    n_fills and n_adjustments. flatten: why closing orders only are asked for, None where they are not.
    next_session: the first that opens after `at`. behind: sessions that have closed by then and are not marked; both
    None in a replay. replay: its first and last day. in_sample: a sentence where the model was trained on these days.
    notes: sentences of the trader, when it began.
    """

    folder: Path
    at: str
    is_running: bool
    capital: float
    cash: float
    marks_T: list[Mark]
    hold_T: np.ndarray
    positions: list[Position]
    working: list[Order]
    decided: list[Order]
    fills: list[Fill]
    n_fills: int
    adjustments: list[Adjustment]
    n_adjustments: int
    halted: HaltRow | None
    halts: list[HaltRow]
    flatten: str | None
    next_session: date | None
    next_open: datetime | None
    behind: int | None = None
    replay: tuple[str, str] | None = None
    in_sample: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def last(self) -> Mark | None:
        """The last mark."""
        return self.marks_T[-1] if self.marks_T else None

    @property
    def equity_T(self) -> np.ndarray:
        """At the closes."""
        return np.array([money(mark.equity_micro) for mark in self.marks_T])

    @property
    def equity(self) -> float:
        """At the last close, the capital before the first."""
        return money(self.last.equity_micro) if self.last else self.capital

    @property
    def held(self) -> float | None:
        """What buying and holding is worth at the last close; None where it is not known."""
        return float(self.hold_T[-1]) if len(self.hold_T) and np.isfinite(self.hold_T[-1]) else None

    @property
    def state(self) -> str:
        """One of halted, flattening, waiting (nothing traded yet), finished (a replay at its end) and trading."""
        if self.halted:
            return "halted"
        if self.last and self.replay and self.last.day >= self.replay[1]:
            return "finished"
        if self.flatten is not None:
            return "flattening"
        return "trading" if self.marks_T else "waiting"

    @property
    def missed(self) -> list[Mark]:
        """The sessions whose decision came too late, or not at all."""
        return [mark for mark in self.marks_T if mark.decision == "missed"]

    def metrics(self, hold: bool = False) -> dict[str, float | None]:
        """total_return, max_drawdown, sharpe_ratio and so on (trading/metrics.py), of the account or buy and hold."""
        equity_T = self.hold_T if hold else self.equity_T
        if not len(equity_T) or not np.isfinite(equity_T).all():
            return {}
        found = equity_metrics(equity_T[:, None], self.capital)
        return {name: float(value[0]) if np.isfinite(value[0]) else None for name, value in found.items()}

    def as_object(self) -> dict[str, Any]:
        """For --json; docs/paper.md describes each key."""
        last = self.last
        return {
            "folder": str(self.folder),
            "at": self.at,
            "state": self.state,
            "running": self.is_running,
            "replay": self.replay,
            "in_sample": self.in_sample,
            "notes": list(self.notes),
            "account": {
                "capital": self.capital,
                "cash": self.cash,
                "equity": self.equity,
                "buy_and_hold": self.held,
                "sessions": len(self.marks_T),
                "metrics": self.metrics(),
                "buy_and_hold_metrics": self.metrics(hold=True),
            },
            "decision": {"day": last.day, "decision": last.decision, "reason": last.reason, "at": last.at}
            if last
            else None,
            "next_session": self.next_session and str(self.next_session),
            "next_open": self.next_open and self.next_open.isoformat(timespec="seconds"),
            "behind": self.behind,
            "halted": self.halted and asdict(self.halted),
            "flatten": self.flatten,
            "halts": [asdict(row) for row in self.halts],
            "missed": [{"day": mark.day, "reason": mark.reason} for mark in self.missed],
            "positions": [asdict(position) for position in self.positions],
            "orders": {"working": _orders(self.working), "last_session": _orders(self.decided)},
            "fills": [_fill(fill) for fill in self.fills],
            "fill_count": self.n_fills,
            "adjustments": [_adjustment(entry) for entry in self.adjustments],
            "adjustment_count": self.n_adjustments,
            "equity": [
                {"day": mark.day, "equity": money(mark.equity_micro), "buy_and_hold": held, "decision": mark.decision}
                for mark, held in zip(self.marks_T, self.hold_T.tolist(), strict=True)
            ],
        }


def status_of(folder: Path, now: datetime | None = None) -> Status:
    """The status of the account in a folder. Raises UserError where there is no journal, Halt for a damaged one.

    One whose entries contradict each other is damaged, too: no figure is shown of it.
    """
    now = now or datetime.now(UTC)
    with Journal.read(folder) as journal, journal.reading():
        journal.check()
        marks, fills, adjustments = journal.sessions(), journal.fills(), journal.adjustments()
        hold = {day: float(array.item()) for day, array in journal.arrays(HOLD).items() if array.size == 1}
        last = marks[-1] if marks else None
        calendar = journal.facts.get(CALENDAR)
        exchange = Exchange(calendar) if isinstance(calendar, str) else None
        following = exchange.coming(now) if exchange else None
        return Status(
            folder=folder,
            at=now.isoformat(timespec="seconds"),
            is_running=is_in_use(folder),
            capital=money(journal.capital),
            cash=money(journal.cash()),
            marks_T=marks,
            hold_T=np.array([hold.get(mark.day, np.nan) for mark in marks]),
            positions=_positions(journal.positions(), last),
            working=journal.open_orders(),
            decided=journal.orders(day=last.day) if last else [],
            fills=fills[-MOST_ENTRIES:],
            n_fills=len(fills),
            adjustments=adjustments[-MOST_ENTRIES:],
            n_adjustments=len(adjustments),
            halted=journal.halted(),
            halts=journal.halts(),
            flatten=flatten_asked(folder),
            next_session=following,
            next_open=exchange.open_of(following) if exchange and following else None,
            replay=_replay_of(journal.facts),
            in_sample=next(iter(_texts(journal.facts.get(IN_SAMPLE))), None),
            notes=_texts(journal.facts.get(NOTES)),
            behind=exchange.behind(date.fromisoformat(last.day), now) if exchange and last else None,
        )


def _texts(found: Any) -> tuple[str, ...]:
    """The sentences of a fact, which a stranger may have written."""
    given = found if isinstance(found, list) else [found]
    return tuple(in_a_line(text) for text in given if isinstance(text, str) and text)


def _replay_of(facts: Mapping[str, Any]) -> tuple[str, str] | None:
    days = facts.get(REPLAY)
    return (str(days[0]), str(days[1])) if isinstance(days, list) and len(days) == 2 else None


def _positions(held: dict[str, int], last: Mark | None) -> list[Position]:
    """The largest first; one without a price at the end."""
    closes, equity = (last.closes, money(last.equity_micro)) if last else ({}, 0.0)
    found = []
    for symbol, nano in held.items():
        price = closes.get(symbol)
        value = None if price is None else shares(nano) * price
        weight = value / equity if value is not None and equity > 0.0 else None
        found.append(Position(symbol, shares(nano), price, value, weight))
    return sorted(found, key=lambda position: (-abs(position.value or 0.0), position.symbol))


def _orders(orders: Sequence[Order]) -> list[dict[str, Any]]:
    return [
        {
            "client_order_id": order.client_order_id, "day": order.day, "symbol": order.symbol, "side": order.side,
            "shares": shares(order.shares_nano), "status": order.status, "reason": order.reason, "at": order.at,
        }
        for order in orders
    ]  # fmt: skip


def _fill(fill: Fill) -> dict[str, Any]:
    return {
        "day": fill.day, "symbol": fill.symbol, "shares": shares(fill.shares_nano), "price": money(fill.price_micro),
        "value": money(fill.value), "commission": money(fill.commission_micro), "reason": fill.reason,
        "client_order_id": fill.client_order_id,
    }  # fmt: skip


def _adjustment(entry: Adjustment) -> dict[str, Any]:
    return {
        "day": entry.day, "symbol": entry.symbol, "shares": shares(entry.shares_nano),
        "cash": money(entry.cash_micro), "reason": entry.reason,
    }  # fmt: skip
