"""The whole path: a trained run trades at the loopback Alpaca, day by day, with a clock and bars that a test drives."""

import dataclasses
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import numpy as np
import pytest

from hfinference import LiveTrader
from hfinference.__main__ import main
from hfinference.live.entries import NANO, money
from hfinference.live.exchange import Exchange
from hfinference.live.journal import Journal
from hfinference.live.risk import Halt
from hftraining.core.errors import ConfigError, UserError
from tests.bars_of import make_bars, write_csv_files
from tests.commands import last_object
from tests.hfinference.live.alpaca_account import KEYS, at
from tests.hfinference.live.alpaca_server import KEY, SECRET, Fault, alpaca_server
from tests.hfinference.live.test_brokers import holds_a_key

pytest.importorskip("alpaca", reason="alpaca-py is absent: pip install -e '.[live]'")

XNYS = Exchange("XNYS")
FIRST, LAST = date(2024, 3, 6), date(2024, 3, 12)  # over a weekend on which clocks change
BOOK = ("portfolio=tilt", "profit_tracker=default")


class Done(Exception):
    """The test's clock has come to its end."""


class World:
    """A clock, bars that appear after each close, and the broker's auctions, moved together."""

    def __init__(self, server, folder, end: datetime) -> None:
        sessions = XNYS.sessions(FIRST - timedelta(days=400), LAST)
        bars = make_bars(len(sessions), 3, seed=5)
        self.bars = dataclasses.replace(bars, sessions_T=np.array(sessions, "datetime64[D]"))
        self.server, self.folder, self.end = server, folder, end
        self._show()

    def now(self) -> datetime:
        return self.server.now.astimezone(UTC)

    def sleep(self, until: datetime) -> None:
        """Stop at each open, for its prices, and after each close, for its bars."""
        if until > self.end:
            raise Done
        while (opening := XNYS.next_open(self.server.now)) <= until:
            row = int(np.searchsorted(self.bars.sessions_T, np.datetime64(opening.date())))
            prices = (Decimal(f"{price:.2f}") for price in self.bars.open_TS[row])
            self.server.prices = dict(zip(self.bars.symbols_S, prices, strict=True))
            self.server.advance(opening)
        self.server.advance(max(self.server.now, until))
        self._show()

    def _show(self) -> None:
        last = XNYS.last_closed(self.server.now)
        rows = int(np.searchsorted(self.bars.sessions_T, np.datetime64(last), side="right"))
        self.folder.mkdir(exist_ok=True)
        write_csv_files(self.bars.rows(slice(0, rows)), self.folder)
        self.server.prices = self.server.prices or dict.fromkeys(self.bars.symbols_S, Decimal(50))


@pytest.fixture
def world(tmp_path, monkeypatch):
    for name, key in KEYS.items():
        monkeypatch.setenv(name, key)
    with alpaca_server(at("2024-03-06 16:30")) as server:
        monkeypatch.setenv("APCA_API_BASE_URL", server.url)
        yield World(server, tmp_path / "bars", at("2024-03-12 18:00"))


def trader(run, world, folder, *words, broker="alpaca") -> LiveTrader:
    words = *BOOK, f"stocks.path={world.folder}", *words
    return LiveTrader(run, words=words, journal=folder, broker=broker, clock=world)


def check(world, folder, sessions: int) -> list[tuple]:
    """The journal is the broker's account, and each mark is that account at its close; returns orders and marks."""
    server = world.server
    with Journal.read(folder) as journal:
        journal.check()
        assert {s: held / NANO for s, held in journal.positions().items()} == server.positions
        assert Decimal(journal.cash()) / 10**6 == server.cash == server.cash_of_activities()
        sent = [order for order in journal.orders() if order.status != "planned"]
        assert len(server.ids()) == len(set(server.ids())) == len(server.posted) == len(sent)
        assert {order.day for order in journal.orders(("planned",))} <= {str(LAST)}
        marks = journal.sessions()
        assert len(marks) == sessions and {mark.decision for mark in marks} == {"traded"}
        for mark in marks:
            row = int(np.searchsorted(world.bars.sessions_T, np.datetime64(mark.day)))
            held = dict.fromkeys(world.bars.symbols_S, 0)
            for fill in journal.fills():
                held[fill.symbol] += fill.shares_nano if fill.day <= mark.day else 0
            worth = sum(
                held[s] / NANO * close for s, close in zip(held, world.bars.close_TS[row].tolist(), strict=True)
            )
            assert abs(money(mark.equity_micro) - money(mark.cash_micro) - worth) < 1e-5
        orders = [(order.day, order.symbol, order.side, order.shares_nano, order.status) for order in journal.orders()]
        return [*orders, *((mark.day, mark.cash_micro, mark.equity_micro) for mark in marks)]


@pytest.mark.slow
def test_a_run_trades_over_a_weekend_and_its_account_is_the_brokers(base, world, tmp_path, capsys):
    with pytest.raises(Done):
        trader(base, world, tmp_path / "alpaca").start_paper_trading()
    found = check(world, tmp_path / "alpaca", sessions=5)
    assert {row[-1] for row in found if len(row) == 5 and row[0] != str(LAST)} == {"filled"}
    assert len(world.server.positions) == 3
    sent = {datetime.fromisoformat(order["submitted_at"]).strftime("%H:%M") for order in world.server.orders.values()}
    assert sent == {"19:01"}
    assert main(["paper", str(base), "--status", "--json", "--journal", str(tmp_path / "alpaca")]) == 0
    shown = last_object(capsys.readouterr().out)
    assert shown["account"]["capital"] == 100_000 and len(shown["equity"]) == 5
    assert {row["symbol"]: row["shares"] for row in shown["positions"]} == world.server.positions
    assert shown["account"]["cash"] == float(world.server.cash)


@pytest.mark.slow
def test_cron_jobs_after_the_close_and_in_the_evening_trade_the_same_and_a_lost_answer_changes_nothing(
    base, world, tmp_path
):
    def cron() -> None:
        for day in XNYS.sessions(FIRST, LAST)[:-1]:
            for time in ("16:45", "19:10"):
                world.sleep(at(f"{day} {time}"))
                trader(base, world, tmp_path / "cron").start_paper_trading(once=True)
                trader(base, world, tmp_path / "cron").start_paper_trading(once=True)  # again: nothing is due
        world.sleep(at(f"{LAST} 16:45"))

    world.server.faults = [Fault("POST", status=504, processed=True), Fault("POST", cut=True, processed=True)]
    cron()
    account = trader(base, world, tmp_path / "cron").start_paper_trading(once=True)
    found = check(world, tmp_path / "cron", sessions=5)
    assert account.capital == 100_000 and account.final_equity == found[-1][-1] / 1e6
    pnl = account.trades["pnl"].sum()
    assert abs(account.capital + pnl - account.final_equity) < 1e-5
    with pytest.raises(UserError, match="only fills at today's prices"):
        trader(base, world, tmp_path / "cron").start_paper_trading(("2024-03-01", "2024-03-06"))


@pytest.mark.slow
def test_a_trade_by_hand_halts_the_trader_and_nothing_is_sent_until_resume(base, world, tmp_path):
    trader(base, world, tmp_path / "alpaca").start_paper_trading(once=True)
    world.sleep(at("2024-03-06 19:10"))
    world.server.trade_by_hand("S0", "buy", 3, "50")
    for _ in range(2):
        with pytest.raises(Halt, match="of no order of this journal") as halted:
            trader(base, world, tmp_path / "alpaca").start_paper_trading(once=True)
        assert halted.value.name == "unknown_order" and world.server.posted == []
    with Journal.open(tmp_path / "alpaca", {}) as journal:
        journal.lift("resume")
    trader(base, world, tmp_path / "alpaca").start_paper_trading(once=True)
    assert len(world.server.posted) == len(world.server.ids()) - 1 > 0


def test_a_clock_that_is_ten_minutes_off_the_brokers_halts(base, world, tmp_path):
    class Late(World):
        def now(self) -> datetime:
            return super().now() + timedelta(minutes=10)

    world.__class__ = Late
    with pytest.raises(Halt, match="600 seconds ahead") as halted:
        trader(base, world, tmp_path / "alpaca").start_paper_trading(once=True)
    assert halted.value.name == "clock" and world.server.posted == []


@pytest.mark.slow
def test_a_broker_whose_clock_is_a_day_ahead_ends_no_order_before_the_halt(base, world, tmp_path):
    trader(base, world, tmp_path / "alpaca").start_paper_trading(once=True)
    right, real = world.server.now, world.server._clock
    world.server._clock = lambda: {**real(), "timestamp": (right + timedelta(days=1)).isoformat()}
    with pytest.raises(Halt, match="behind the broker's") as halted:
        trader(base, world, tmp_path / "alpaca").start_paper_trading(once=True)
    assert halted.value.name == "clock"
    with Journal.read(tmp_path / "alpaca") as journal:
        assert {order.status for order in journal.orders()} == {"planned"}


def test_missing_keys_live_money_and_stops_are_refused_before_anything_is_written(base, world, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"stop_loss=0\.02 cannot be followed"):
        trader(base, world, tmp_path / "a", "profit_tracker.stop_loss=0.02").start_paper_trading(once=True)
    monkeypatch.setenv("APCA_API_BASE_URL", "https://api.alpaca.markets")
    with pytest.raises(ConfigError, match="live money, which is not built"):
        trader(base, world, tmp_path / "a").start_paper_trading(once=True)
    monkeypatch.delenv("APCA_API_SECRET_KEY")
    monkeypatch.delenv("APCA_API_BASE_URL")
    with pytest.raises(ConfigError, match="APCA_API_SECRET_KEY is not set"):
        trader(base, world, tmp_path / "a").start_paper_trading(once=True)
    assert not (tmp_path / "a").exists() and world.server.requests == []


@pytest.mark.slow
def test_an_order_that_could_not_be_delivered_is_sent_ten_minutes_later_under_the_same_id(base, world, tmp_path):
    world.server.faults, said = [Fault("POST", status=500, times=3)], []
    world.end = at("2024-03-07 15:00")
    live = LiveTrader(
        base, words=(*BOOK, f"stocks.path={world.folder}"), journal=tmp_path / "a", broker="alpaca", clock=world,
        say=said.append,
    )  # fmt: skip
    with pytest.raises(Done):
        live.start_paper_trading()
    assert [line for line in said if "cannot be delivered" in line and "it is 500" in line]
    sent = [datetime.fromisoformat(order["submitted_at"]).strftime("%H:%M") for order in world.server.orders.values()]
    assert sent == ["19:01", "19:01", "19:11"]  # the first does not stop the others
    with Journal.read(tmp_path / "a") as journal:
        assert {order.client_order_id for order in journal.orders()} == set(world.server.ids())


@pytest.mark.slow
def test_the_command_shows_no_key_that_the_broker_echoes_nor_writes_it(base, world, tmp_path, capfd):
    folder, words = tmp_path / "a", (*BOOK, f"stocks.path={world.folder}")
    command = ("paper", str(base), *words, "--broker", "alpaca", "--once", "--journal", str(folder))
    for status in (401, 422):
        world.server.faults = [Fault("GET /account", status=status, echo=True)]
        assert main([*command]) == 2
    body = json.dumps({"id": SECRET, "status": KEY, "currency": "USD", "cash": f"{SECRET} {KEY}", "equity": "1"})
    world.server.faults = [Fault("GET /account", body=body, times=9)]
    assert main([*command]) == 2
    printed = capfd.readouterr()
    assert "refuses the keys" in printed.err and "it is 422" in printed.err and "account.id is" in printed.err
    files = [path for path in folder.rglob("*") if path.is_file()]
    texts = [printed.out, printed.err, *(path.read_bytes().decode("latin-1") for path in files)]
    assert files and not any(holds_a_key(text) for text in texts)
