"""A paper account at the loopback Alpaca: its desk and journal, and what must hold of both whatever happened."""

import os
from collections import Counter
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from hfinference.live.alpaca import AlpacaDesk
from hfinference.live.brokers import Alpaca
from hfinference.live.entries import NANO, Order, order_id
from hfinference.live.exchange import Exchange
from hfinference.live.journal import Journal
from hfinference.live.risk import Halt
from hftraining.trading.config import TradingRules
from tests.hfinference.live.alpaca_server import KEY, NEW_YORK, SECRET, AlpacaServer

KEYS = {"APCA_API_KEY_ID": KEY, "APCA_API_SECRET_KEY": SECRET}


def at(text: str) -> datetime:
    """New York time."""
    return datetime.fromisoformat(text).replace(tzinfo=NEW_YORK)


def desk(url: str, **settings) -> AlpacaDesk:
    broker = Alpaca(url, environment=KEYS, timeout=0.3, tries=2, pause=0.0)
    rules = TradingRules(whole_shares=True)
    return AlpacaDesk(broker, Exchange("XNYS"), ("AAPL", "MSFT"), rules, **{"pause": 0.0, "looks": 2, **settings})


@contextmanager
def opened(folder: Path, trading: AlpacaDesk):
    """The journal of a folder, begun with the account as it is if it is new."""
    facts = {} if (folder / "journal.sqlite").exists() else trading.opening()
    with Journal.open(folder, facts) as journal:
        yield journal


def orders_of(journal: Journal, day: str, wanted: dict[str, int]) -> list[Order]:
    return [
        Order(order_id(journal.id, day, symbol), day, symbol, "buy" if size > 0 else "sell", abs(size) * NANO)
        for symbol, size in wanted.items()
    ]


def evening(url: str, folder: Path, day: str, wanted: dict[str, int]) -> None:
    """What a trader does after the close: start, plan, send."""
    trading = desk(url)
    with opened(folder, trading) as journal:
        trading.reconcile(journal)
        journal.plan(day, orders_of(journal, day, wanted))
        trading.send(journal, trading.now())


def child(gate, url: str, folder: str, day: str, wanted: dict[str, int]) -> None:
    """The evening in a process of its own, which begins when it is told to."""
    gate.recv()
    evening(url, Path(folder), day, wanted)
    os._exit(0)


class Paper:
    """One account, from outside: the test drives the server's clock and calls the desk as a trader does."""

    def __init__(self, server: AlpacaServer, folder: Path, **settings) -> None:
        self.server, self.folder, self.settings = server, folder, settings

    def evening(self, day: str, **wanted: int) -> str:
        """The halt's name, or ""."""
        return self._halted(lambda: evening(self.server.url, self.folder, day, wanted))

    def reconcile(self) -> str:
        trading = desk(self.server.url, **self.settings)
        with opened(self.folder, trading) as journal:
            return self._halted(lambda: trading.reconcile(journal))

    def statuses(self) -> dict[str, str]:
        with Journal.read(self.folder) as journal:
            return {f"{order.day[5:]} {order.symbol}": order.status for order in journal.orders()}

    def reasons(self) -> list[str]:
        with Journal.read(self.folder) as journal:
            return [order.reason for order in journal.orders()]

    def check(self, filled: dict[str, int] | None = None) -> None:
        """No order twice, every order ours, and both books the same, sum for sum. filled: shares of each symbol."""
        server = self.server
        assert [key for key, count in Counter(server.ids()).items() if count > 1] == []
        with Journal.read(self.folder) as journal:
            journal.check()
            known = {order.client_order_id: order for order in journal.orders()}
            assert set(server.ids()) <= set(known)
            per_decision = Counter((order.day, order.symbol) for order in known.values())
            assert set(per_decision.values()) <= {1}
            assert {s: held / NANO for s, held in journal.positions().items()} == {
                s: float(held) for s, held in server.positions.items()
            }
            assert Decimal(journal.cash()) / 10**6 == server.cash == server.cash_of_activities()
            listed = {row["id"] for row in server.activities if row["activity_type"] == "FILL"}
            assert [fill.fill_id for fill in journal.fills() if fill.fill_id not in listed] == []
            if filled is not None:
                assert {s: held // NANO for s, held in journal.positions().items()} == filled

    def resume(self) -> None:
        """What the command resume does, after the trader has latched the last halt."""
        with Journal.open(self.folder, {}) as journal:
            journal.halt(self.halt.name, str(self.halt))
            journal.lift("resume")

    def _halted(self, call) -> str:
        try:
            call()
        except Halt as halt:
            self.halt = halt
            return halt.name
        return ""
