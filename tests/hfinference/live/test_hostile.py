"""A trader in a hostile world: each trouble is a halt with a name, in journal and file, and nothing is ordered."""

import dataclasses
import shutil
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from hfinference.__main__ import main
from hfinference.live.exchange import Exchange
from hfinference.live.journal import Journal
from hfinference.live.latch import flatten, halt, resume
from hfinference.live.risk import Halt
from hfinference.live.status import status_of
from hfinference.live.trader import SETTLES, LiveTrader
from hftraining.core.bars import ARRAYS, Bars
from tests.bars_of import frame_of, make_bars

XNYS = Exchange()
DAYS = XNYS.sessions(date(2018, 1, 2), date(2018, 8, 31))
FIRST = 90  # the row of the account's first session
BOOK = ("portfolio=tilt", "profit_tracker=default", "portfolio.strength=0.2", "portfolio.trade_rate=0.5")


class Enough(Exception):
    """The test has seen what it wanted."""


class DrivenClock:
    """A clock that a test sets; a sleep ends at once, after `while_asleep` was called with the time."""

    def __init__(self, instant: datetime) -> None:
        self.instant = instant
        self.while_asleep: Callable[[datetime], None] = lambda now: None

    def now(self) -> datetime:
        return self.instant

    def sleep(self, until: datetime) -> None:
        self.instant = min(until, self.instant + timedelta(minutes=5))
        self.while_asleep(self.instant)


class World:
    """Twelve stocks of New York, known to a day, and an account that trades them."""

    def __init__(self, run: Path, folder: Path) -> None:
        made = make_bars(n_sessions=len(DAYS), n_symbols=12, seed=18)
        self.bars: Bars = dataclasses.replace(made, sessions_T=np.array(DAYS, "datetime64[D]"))
        self.run, self.files, self.account = run, folder / "bars", folder / "account"
        self.files.mkdir(exist_ok=True)
        self.clock = DrivenClock(self.evening(FIRST))

    def evening(self, row: int) -> datetime:
        """When the trader looks at the session of a row."""
        return XNYS.close_of(DAYS[row]) + SETTLES

    def show(self, row: int, gaps: int = 0, falls: float = 0.0) -> None:
        """Write the bars up to a row. gaps: stocks without a bar on it. falls: of all prices, from it on."""
        for name in ARRAYS:
            array_TS = getattr(self.bars, name)
            array_TS[row, :gaps] = np.nan
            if name != "volume_TS":
                array_TS[row:] *= 1.0 - falls
        frame_of(self.bars.rows(slice(0, row + 1))).to_csv(self.files / "bars.csv", index=False)

    def trade(self, *words: str, once: bool = True) -> None:
        """What is due, or day by day."""
        words = (*BOOK, f"stocks.path={self.files}", *words)
        LiveTrader(self.run, words=words, journal=self.account, clock=self.clock).start_paper_trading(once=once)

    def day(self, row: int, *words: str, **changes) -> None:
        """One session, as a cron job trades it."""
        self.show(row, **changes)
        self.clock.instant = self.evening(row)
        self.trade(*words)

    def orders(self, row: int) -> int:
        """How many there are of a session."""
        with Journal.read(self.account) as journal:
            return len(journal.orders(day=str(DAYS[row])))


@pytest.fixture(scope="module")
def begun(own, tmp_path_factory) -> Path:
    """The folder of a world whose account has traded one session."""
    made = World(own, tmp_path_factory.mktemp("world"))
    made.day(FIRST)
    assert made.orders(FIRST) == 12
    return made.files.parent


@pytest.fixture
def world(own, begun, tmp_path) -> World:
    """A copy of it."""
    return World(own, Path(shutil.copytree(begun, tmp_path / "world")))


def halts(world: World, name: str, act: Callable[[], object], row: int) -> Halt:
    """The halt that an action ends in: latched in the journal and by the file, and nothing ordered; again, the same."""
    for attempt in (act, world.trade):
        with pytest.raises(Halt) as found:
            attempt()
        assert found.value.name == name and "\n" not in str(found.value)
        assert (world.account / "HALT").exists() and world.orders(row) == 0
        with Journal.read(world.account) as journal:
            assert journal.halted().name == name and [row.name for row in journal.halts()] == [name]
            journal.check()
    return found.value


@pytest.mark.slow
def test_stale_bars_halt(world):
    world.show(FIRST)
    world.clock.instant = world.evening(FIRST + 1)
    found = halts(world, "stale_bars", world.trade, FIRST + 1)
    assert f"the bars end on {DAYS[FIRST]}, and XNYS has closed 1 since" in str(found)


@pytest.mark.slow
@pytest.mark.long
def test_bars_that_come_late_are_waited_for_until_the_next_open_is_near(world):
    said = list[str]()

    def late(now: datetime) -> None:
        said.append(str(now))
        if now > world.evening(FIRST + 1) + timedelta(hours=3):
            world.show(FIRST + 1)
        if now > world.evening(FIRST + 1) + timedelta(hours=6):
            raise Enough

    world.clock.while_asleep = late
    with pytest.raises(Enough):
        world.trade(once=False)
    assert world.orders(FIRST + 1) == 12

    world.clock.while_asleep = said.append
    halts(world, "stale_bars", lambda: world.trade(once=False), FIRST + 2)
    opens = XNYS.open_of(DAYS[FIRST + 3])
    assert opens - timedelta(minutes=30) < world.clock.instant < opens


@pytest.mark.slow
def test_a_feed_full_of_holes_halts_and_one_halted_stock_does_not(world):
    world.day(FIRST + 1, gaps=1)
    assert 0 < world.orders(FIRST + 1) < 12  # none of the stock without a bar
    found = halts(world, "missing_bars", lambda: world.day(FIRST + 2, gaps=3), FIRST + 2)
    assert "3 of 12 stocks have no bar" in str(found) and "(S0, S1, S2)" in str(found)


@pytest.mark.slow
def test_a_session_that_has_not_begun_by_our_clock_halts(world):
    world.show(FIRST + 1)
    world.clock.instant = XNYS.open_of(DAYS[FIRST + 1]) - timedelta(minutes=10)
    halts(world, "future_bars", world.trade, FIRST + 1)


@pytest.mark.slow
def test_a_clock_that_went_back_by_ten_minutes_halts(world):
    world.clock.instant -= timedelta(minutes=10)
    found = halts(world, "clock", world.trade, FIRST + 1)
    assert "600 seconds behind the journal's last entry" in str(found)


@pytest.mark.parametrize(
    ("name", "word", "falls"),
    [
        pytest.param("orders", "risk.max_orders=11", 0.0, marks=pytest.mark.slow),
        ("position_limit", "risk.max_position=0.01", 0.0),
        pytest.param("gross_limit", "risk.max_gross=0.1", 0.0, marks=pytest.mark.slow),
        ("daily_loss", "risk.max_daily_loss=0.05", 0.12),
        pytest.param("drawdown", "risk.max_drawdown=0.05", 0.12, marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_a_limit_that_is_hit_halts_and_without_it_the_session_is_traded(world, name, word, falls):
    world.day(FIRST + 1)
    loose = ["risk.max_daily_loss=1"] if name == "drawdown" else []
    halts(world, name, lambda: world.day(FIRST + 2, word, *loose, falls=falls), FIRST + 2)
    assert resume(world.account, world.clock.now()).lifted[0].name == name
    world.day(FIRST + 3, "risk.max_daily_loss=1")
    assert world.orders(FIRST + 3) > 0


@pytest.mark.slow
def test_a_drawdown_that_was_looked_at_is_counted_anew(world):
    world.day(FIRST + 1)
    with pytest.raises(Halt, match="fell by"):
        world.day(FIRST + 2, "risk.max_drawdown=0.05", "risk.max_daily_loss=1", falls=0.12)
    resume(world.account, world.clock.now())
    world.day(FIRST + 3, "risk.max_drawdown=0.05", "risk.max_daily_loss=1")
    assert world.orders(FIRST + 3) > 0


@pytest.mark.slow
@pytest.mark.parametrize("by", ["touch", "command"])
def test_a_halt_by_hand_stops_a_trader_that_runs_before_its_next_session(world, by):
    world.show(FIRST + 1)

    def stop(now: datetime) -> None:
        if now > world.evening(FIRST) + timedelta(hours=1):
            if by == "touch":
                (world.account / "HALT").touch()
            else:
                assert main(["halt", str(world.run), "--journal", str(world.account), "--reason", "news"]) == 0
            world.clock.while_asleep = lambda now: pytest.fail("it sleeps on")

    world.show(FIRST)
    world.clock.while_asleep = stop
    halts(world, "by_hand", lambda: world.trade(once=False), FIRST + 1)
    assert world.clock.instant < world.evening(FIRST) + timedelta(hours=2)
    resume(world.account, world.clock.now())
    world.day(FIRST + 1)
    assert world.orders(FIRST + 1) > 0


@pytest.mark.slow
def test_flatten_closes_all_that_is_held_and_then_halts(world):
    world.day(FIRST + 1)
    flatten(world.account, "holidays")
    world.day(FIRST + 2)
    assert status_of(world.account).state == "flattening" and status_of(world.account).last.decision == "flat"
    with Journal.read(world.account) as journal:
        held = journal.positions()
        closing = {order.symbol: -order.signed_nano for order in journal.orders(day=str(DAYS[FIRST + 2]))}
    assert closing == held and len(held) == 12
    halts(world, "by_hand", lambda: world.day(FIRST + 3), FIRST + 3)
    with Journal.read(world.account) as journal:
        assert journal.positions() == {}
    assert status_of(world.account).state == "halted"
    resume(world.account, world.clock.now())
    world.day(FIRST + 4)
    assert world.orders(FIRST + 4) == 12


@pytest.mark.slow
@pytest.mark.parametrize("traded", [1, 3])
def test_flatten_opens_nothing_that_a_session_before_it_has_decided_with_lag_2(own, tmp_path, traded):
    world = World(own, tmp_path)
    for row in range(FIRST, FIRST + traded):
        world.day(row, "profit_tracker.lag=2")
    with Journal.read(world.account) as journal:
        assert len(journal.positions()) == (12 if traded == 3 else 0)
    flatten(world.account, "holidays")
    with pytest.raises(Halt, match="flat, holidays"):
        for row in range(FIRST + traded, FIRST + traded + 4):
            world.day(row, "profit_tracker.lag=2")
    given = str(DAYS[FIRST + traded])  # on it is filled what was planned before the flatten
    with Journal.read(world.account) as journal:
        bought = [fill for fill in journal.fills() if fill.day > given and fill.shares_nano > 0]
        assert journal.positions() == {} and bought == []


@pytest.mark.slow
def test_an_account_that_was_halted_says_so_and_sends_nothing_whatever_the_day(world):
    halt(world.account, "until I am back")
    for row in (FIRST + 1, FIRST + 2):
        with pytest.raises(Halt, match="until I am back"):
            world.day(row)
        assert world.orders(row) == 0
