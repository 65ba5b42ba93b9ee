"""The journal of a paper account: an SQLite file that a killed process leaves whole, and that two never write at once.

Everything that belongs together is written in one transaction, synced before it counts. A file that is damaged, of
another schema, or that cannot be written is a named halt, in one line.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, replace
from typing import Any

import numpy as np

from hfinference.live.entries import (
    DECISIONS,
    EXITS,
    FINAL,
    OPEN,
    SIDES,
    STATUSES,
    Adjustment,
    Fill,
    HaltRow,
    Mark,
    Order,
    row_of,
)
from hfinference.live.journal_file import ANOTHER, LATCH, JournalFile, latch_of, take_away
from hfinference.live.risk import HALTS, Halt
from hftraining.core.errors import in_a_line
from hftraining.core.files import write_text_atomically
from hftraining.core.untrusted import shown
from hftraining.core.values import printable

# What contradicts itself: a query for it, its values, and what is said of the first that is found. In SQL, since a year
# of 500 stocks has 125,000 orders.
CHECKS = (
    (
        "SELECT fill_id FROM fills LEFT JOIN orders USING (client_order_id) WHERE orders.symbol IS NULL AND "
        f"(fills.client_order_id != '' OR fills.reason NOT IN ({', '.join('?' * len(EXITS))}))",
        EXITS,
        "the fill {} has no order",
    ),
    (
        "SELECT fill_id FROM fills JOIN orders USING (client_order_id) WHERE fills.symbol != orders.symbol OR "
        "sign(fills.shares_nano) != CASE orders.side WHEN 'buy' THEN 1 WHEN 'sell' THEN -1 ELSE 0 END",
        (),
        "the fill {} is not of the stock and side of its order",
    ),
    (
        f"SELECT client_order_id FROM orders WHERE status NOT IN ({', '.join('?' * len(STATUSES))}) "
        "OR side NOT IN (?, ?) OR shares_nano <= 0",
        (*STATUSES, *SIDES),
        "the order {} is damaged",
    ),
    (
        "SELECT client_order_id FROM fills JOIN orders USING (client_order_id) GROUP BY client_order_id "
        "HAVING sum(abs(fills.shares_nano)) > max(orders.shares_nano)",
        (),
        "the order {} is filled beyond its shares",
    ),
)


class Journal(JournalFile):
    """Orders, fills, adjustments, marks and halts of one account: see entries.py for their units.

    >>> with Journal.open(folder, {"capital_micro": micro(10_000.0)}) as journal, journal.transaction():
    ...     journal.fill(Fill("1", "", "2020-01-02", "AAPL", nano(10), micro(75.0), reason="delisted"))
    """

    def plan(self, day: str, orders: Iterable[Order]) -> None:
        """Write the orders of a decision as planned. The same again changes nothing; others raise Halt."""
        with self.transaction():
            for order in orders:
                if order.day != day or order.status != "planned" or order.side not in SIDES or order.shares_nano <= 0:
                    raise Halt("journal", f"{shown(order)} is no order that can be planned on {day}")
                if known := self.order(order.client_order_id):
                    if (known.symbol, known.signed_nano) != (order.symbol, order.signed_nano):
                        raise Halt("journal", f"the order {known.client_order_id} is there with other shares")
                    continue
                self._insert("orders", row_of(replace(order, at=self.now())))

    def set_order(
        self, client_order_id: str, status: str, broker_id: str | None = None, reason: str = "", attempts: int = 0
    ) -> None:
        """Give an order its next status. attempts: to be added. Raises Halt for one that has ended otherwise."""
        with self.transaction():
            known = self.order(client_order_id)
            if known is None or status not in STATUSES:
                raise Halt("journal", f"the order {shown(client_order_id)} is not known, or {shown(status)} no status")
            if known.status in FINAL and known.status != status:
                raise Halt("journal", f"the order {client_order_id} is {known.status}, and cannot become {status}")
            self._query(
                "UPDATE orders SET status = ?, broker_id = coalesce(?, broker_id), reason = ?, "
                "attempts = attempts + ?, at = ? WHERE client_order_id = ?",
                (status, broker_id, in_a_line(reason or known.reason), attempts, self.now(), client_order_id),
            )

    def restate(self, client_order_id: str, side: str, shares_nano: int) -> None:
        """Give a planned order other shares: it is for a position, which another order has changed in the meantime."""
        self._query(
            "UPDATE orders SET side = ?, shares_nano = ? WHERE client_order_id = ? AND status = 'planned'",
            (side, shares_nano, client_order_id),
        )

    def fill(self, fill: Fill) -> bool:
        """Book a fill; False where this fill_id is booked already. Raises Halt where it had other numbers."""
        row = replace(fill, value_micro=fill.value, at=self.now())
        with self.transaction():
            known = self._rows("fills", Fill, "WHERE fill_id = ?", (fill.fill_id,))
            if known:
                if replace(known[0], at="") != replace(row, at=""):
                    raise Halt("journal", f"the fill {shown(fill.fill_id)} is booked already, with other numbers")
                return False
            self._insert("fills", row_of(row))
            return True

    def adjust(self, adjustment: Adjustment) -> bool:
        """Book cash or shares that came without a trade; False where this id is booked already."""
        with self.transaction():
            known = self._rows("adjustments", Adjustment, "WHERE id = ?", (adjustment.id,))
            if known:
                if replace(known[0], at="") != replace(adjustment, at=""):
                    raise Halt(
                        "journal", f"the adjustment {shown(adjustment.id)} is booked already, with other numbers"
                    )
                return False
            self._insert("adjustments", row_of(replace(adjustment, at=self.now())))
            return True

    def mark(self, mark: Mark, arrays: Mapping[str, np.ndarray] | None = None) -> None:
        """Write the account at a close and the decision, once a day, and the arrays of the day by their names."""
        if mark.decision not in DECISIONS:
            raise Halt("journal", f"{shown(mark.decision)} is no decision")
        with self.transaction():
            last = self.last_session()
            if last and last.day >= mark.day:
                raise Halt("journal", f"the session {mark.day} is marked already, or is before the last, {last.day}")
            closes = json.dumps({symbol: price for symbol, price in mark.closes.items() if math.isfinite(price)})
            values = mark.cash_micro, mark.equity_micro, closes, mark.decision, in_a_line(mark.reason)
            self._insert("sessions", (mark.day, *values, self.now()))
            for name, array in (arrays or {}).items():
                self.keep(mark.day, name, array)

    def decide(self, day: str, decision: str, reason: str = "") -> None:
        """Give a session that is marked another decision: halted, where its orders may not be sent."""
        assert decision in DECISIONS
        self._query("UPDATE sessions SET decision = ?, reason = ? WHERE day = ?", (decision, in_a_line(reason), day))

    def halt(self, name: str, reason: str, day: str = "") -> None:
        """Latch a halt, in the journal and by the file HALT: whichever can be written holds."""
        assert name in HALTS, name
        line = in_a_line(reason)
        try:
            if not self._rows("halts", HaltRow, "WHERE lifted_at IS NULL AND name = ? AND reason = ?", (name, line)):
                self._query(
                    "INSERT INTO halts (at, day, name, reason) VALUES (?, ?, ?, ?)", (self.now(), day, name, line)
                )
        finally:
            with suppress(OSError):  # on a full disk the reason is printed, and nothing is sent either
                write_text_atomically(self.folder / LATCH, f"{name}: {line}\n")

    def lift(self, how: str) -> None:
        """Lift every halt, and remove the file HALT."""
        take_away(self.folder / LATCH)
        values = self.now(), in_a_line(how)
        self._query("UPDATE halts SET lifted_at = ?, how = ? WHERE lifted_at IS NULL", values)

    # --- reading --------------------------------------------------------------------------------------------------

    def halted(self) -> HaltRow | None:
        """The halt that lasts, the first of them; that of the file HALT, whoever made it, is by_hand."""
        rows = self.halts("WHERE lifted_at IS NULL")
        return rows[0] if rows else latch_of(self.folder)

    def halts(self, where: str = "") -> list[HaltRow]:
        """All halts, the first one first; in a journal of a stranger they hold nothing that a terminal obeys."""
        rows = self._rows("halts", HaltRow, f"{where} ORDER BY id", ())
        if strange := [row.name for row in rows if row.name not in HALTS]:
            raise Halt("journal", f"{self.path} is damaged ({shown(strange[0])} is no halt): {ANOTHER}")
        found = list[HaltRow]()
        for row in rows:
            plain: list[Any] = [printable(value) if isinstance(value, str) else value for value in astuple(row)]
            found.append(HaltRow(*plain))
        return found

    def order(self, client_order_id: str) -> Order | None:
        """One order, None where there is none."""
        found = self._rows("orders", Order, "WHERE client_order_id = ?", (client_order_id,))
        return found[0] if found else None

    def orders(self, statuses: Sequence[str] | None = None, day: str | None = None) -> list[Order]:
        """The orders, by day and symbol. statuses, day: only these."""
        chosen = STATUSES if statuses is None else tuple(statuses)
        where, values = f"WHERE status IN ({', '.join('?' * len(chosen))})", list[Any](chosen)
        if day is not None:
            where, values = f"{where} AND day = ?", [*values, day]
        return self._rows("orders", Order, f"{where} ORDER BY day, symbol", values)

    def open_orders(self) -> list[Order]:
        """Those that may still be filled."""
        return self.orders(OPEN)

    def fills(self, client_order_id: str | None = None) -> list[Fill]:
        """The fills in the order in which they were booked. client_order_id: of one order."""
        where, values = ("", ()) if client_order_id is None else ("WHERE client_order_id = ?", (client_order_id,))
        return self._rows("fills", Fill, f"{where} ORDER BY rowid", values)

    def adjustments(self) -> list[Adjustment]:
        """In the order in which they were booked."""
        return self._rows("adjustments", Adjustment, "ORDER BY rowid", ())

    def sessions(self) -> list[Mark]:
        """The marks, by day. Only the last has its closes: nobody needs the others, which take longer than all else."""
        rows = self._rows("sessions", Mark, "ORDER BY day")
        return [*(replace(row, closes={}) for row in rows[:-1]), *(self._whole(row) for row in rows[-1:])]

    def last_session(self) -> Mark | None:
        """The last mark, None before the first."""
        found = self._rows("sessions", Mark, "ORDER BY day DESC LIMIT 1")
        return self._whole(found[0]) if found else None

    def positions(self) -> dict[str, int]:
        """symbol -> signed nano-shares, of those that are not 0."""
        rows = self._query(
            "SELECT symbol, sum(shares_nano) FROM (SELECT symbol, shares_nano FROM fills UNION ALL "
            "SELECT symbol, shares_nano FROM adjustments) GROUP BY symbol ORDER BY symbol"
        )
        return {symbol: total for symbol, total in rows if total}

    def cash(self) -> int:
        """Capital, less what the fills cost, and the adjustments, in micro-units."""
        (spent,) = self._query("SELECT sum(value_micro + commission_micro) FROM fills")[0]
        (came,) = self._query("SELECT sum(cash_micro) FROM adjustments")[0]
        return self.capital - (spent or 0) + (came or 0)

    def check(self) -> None:
        """Raise Halt where the entries contradict each other.

        Every fill belongs to an order of its symbol and side, or is an exit of the engine; no order is filled beyond
        its shares, or counted as filled before; the cash of the last mark is what the fills make of the capital.
        """
        for query, values, wrong in CHECKS:
            if found := self._query(f"{query} LIMIT 1", values):
                raise Halt("journal", f"{self.path}: {wrong.format(shown(found[0][0]))}")
        last, cash = self.last_session(), self.cash()
        (day,) = self._query("SELECT max(day) FROM (SELECT day FROM fills UNION ALL SELECT day FROM adjustments)")[0]
        later = last and day and day > last.day
        if last and not later and last.cash_micro != cash:
            raise Halt(
                "journal",
                f"{self.path}: the cash of {last.day}, {last.cash_micro / 1e6:,.6f}, is not what its fills make, "
                f"{cash / 1e6:,.6f}: {ANOTHER}",
            )

    def _whole(self, row: Mark) -> Mark:
        return replace(row, closes=self._closes(row))

    def _closes(self, row: Mark) -> dict[str, float]:
        found = self._parsed(str(row.closes), f"the closes of {shown(row.day)}")
        if not isinstance(found, dict) or not all(type(price) in (int, float) for price in found.values()):
            raise Halt("journal", f"{self.path} is damaged (the closes of {shown(row.day)}): {ANOTHER}")
        return {symbol: float(price) for symbol, price in found.items()}
