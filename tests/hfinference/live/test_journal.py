"""The journal: its sums, its refusals, and what a damaged or full file becomes."""

import os
import resource
import signal
import sqlite3
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from hfinference.live.entries import Adjustment, Fill, Mark, Order, micro, nano, order_id
from hfinference.live.journal import Journal
from hfinference.live.risk import Halt
from hftraining.core.errors import UserError

CAPITAL = micro(10_000.0)
FACTS = {"capital_micro": CAPITAL, "desk": "embedded", "symbols": ["A", "B"]}
DAY = "2020-01-02"


def opened(folder, **facts):
    return Journal.open(folder, FACTS | facts)


def an_order(journal, symbol="A", shares=10.0, side="buy", day=DAY):
    return Order(order_id(journal.id, day, symbol), day, symbol, side, nano(shares))


def a_fill(order, shares=10.0, price=75.25, key="1"):
    return Fill(key, order.client_order_id, "2020-01-03", order.symbol, nano(shares), micro(price), micro(0.75))


def with_a_fill(folder):
    """A journal with one order of 10 shares, filled at 75.25, and marked; closed again."""
    with opened(folder) as journal:
        order = an_order(journal)
        journal.plan(DAY, [order])
        journal.fill(a_fill(order))
        journal.set_order(order.client_order_id, "filled")
        journal.mark(Mark("2020-01-03", journal.cash(), CAPITAL, {"A": 75.0}), {"weights": np.array([0.5, np.nan])})
    return folder / "journal.sqlite"


def test_cash_and_positions_are_the_sums_of_fills_and_adjustments(tmp_path):
    with opened(tmp_path) as journal:
        orders = [an_order(journal, "A", 10.5), an_order(journal, "B", 3.0, "sell")]
        journal.plan(DAY, orders)
        journal.fill(a_fill(orders[0], 10.5, 75.25, "1"))
        journal.fill(a_fill(orders[1], -3.0, 20.1, "2"))
        journal.adjust(Adjustment("borrow-1", DAY, "B", 0, micro(-0.01), "borrow"))
        journal.adjust(Adjustment("split-1", DAY, "A", nano(10.5), 0, "split"))
        exact = Fraction(10_000) - Fraction("10.5") * Fraction("75.25") + 3 * Fraction("20.1") - Fraction("1.51")
        assert Fraction(journal.cash(), 10**6) == exact
        assert journal.positions() == {"A": nano(21.0), "B": nano(-3.0)}
        journal.check()


def test_what_is_booked_or_planned_twice_counts_once_and_other_numbers_under_its_name_halt(tmp_path):
    with opened(tmp_path) as journal:
        order = an_order(journal)
        for _ in range(2):
            journal.plan(DAY, [order])
        assert [journal.fill(a_fill(order)) for _ in range(2)] == [True, False]
        borrow = Adjustment("borrow", DAY, "A", 0, -5, "borrow")
        assert [journal.adjust(borrow) for _ in range(2)] == [True, False]
        assert len(journal.orders()) == len(journal.fills()) == len(journal.adjustments()) == 1
        wrong = (
            lambda: journal.plan(DAY, [replace(order, shares_nano=nano(11.0))]),
            lambda: journal.fill(a_fill(order, price=75.26)),
            lambda: journal.adjust(replace(borrow, cash_micro=-6)),
        )
        for write in wrong:
            with pytest.raises(Halt) as stopped:
                write()
            assert stopped.value.name == "journal"


def test_an_order_that_has_ended_keeps_its_status(tmp_path):
    with opened(tmp_path) as journal:
        order = an_order(journal)
        journal.plan(DAY, [order])
        journal.set_order(order.client_order_id, "sending", attempts=1)
        journal.set_order(order.client_order_id, "rejected", "broker-7", "no buying power")
        journal.set_order(order.client_order_id, "rejected")
        (known,) = journal.orders(["rejected"])
        assert (known.broker_id, known.reason, known.attempts) == ("broker-7", "no buying power", 1)
        assert journal.open_orders() == []
        with pytest.raises(Halt, match="is rejected, and cannot become accepted"):
            journal.set_order(order.client_order_id, "accepted")


def test_a_transaction_that_fails_leaves_nothing(tmp_path):
    with opened(tmp_path) as journal:
        order = an_order(journal)
        with pytest.raises(RuntimeError), journal.transaction():
            journal.plan(DAY, [order])
            journal.fill(a_fill(order))
            raise RuntimeError
        assert journal.orders() == journal.fills() == [] and journal.cash() == CAPITAL


def test_a_killed_writer_leaves_whole_transactions(tmp_path):
    with opened(tmp_path) as journal:
        journal.plan(DAY, [an_order(journal)])
    child = os.fork()
    if not child:
        journal = opened(tmp_path)
        with journal.transaction():
            journal.plan(DAY, [an_order(journal, "B")])
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    with opened(tmp_path) as journal:
        assert [order.symbol for order in journal.orders()] == ["A"]


def test_arrays_come_back_to_the_bit_and_the_marks_as_written(tmp_path):
    with_a_fill(tmp_path)
    with Journal.read(tmp_path) as journal:
        assert journal.arrays("weights")["2020-01-03"].tobytes() == np.array([0.5, np.nan]).tobytes()
        mark = journal.last_session()
        assert (mark.day, mark.closes, mark.decision) == ("2020-01-03", {"A": 75.0}, "traded")
        assert journal.sessions() == [mark]
    with opened(tmp_path) as journal:
        journal.mark(replace(mark, day="2020-01-06", closes={"A": 76.0}))
        first, last = journal.sessions()  # years of closes of many stocks take seconds, and nobody reads them
        assert (first, last.closes) == (replace(mark, closes={}), {"A": 76.0}) and last == journal.last_session()


def test_a_session_is_marked_once_and_days_rise(tmp_path):
    with_a_fill(tmp_path)
    with opened(tmp_path) as journal:
        for day in ("2020-01-03", "2019-12-31"):
            with pytest.raises(Halt):
                journal.mark(Mark(day, 1, 1))


def test_two_traders_on_one_journal_are_refused_and_a_reader_is_not(tmp_path):
    with opened(tmp_path):
        with pytest.raises(UserError, match=f"in use by process {os.getpid()}"):
            opened(tmp_path)
        with Journal.read(tmp_path) as reader, pytest.raises(Halt):
            reader.set_fact("capital_micro", 1)


def test_a_journal_of_other_facts_is_refused_by_the_fact(tmp_path):
    with_a_fill(tmp_path)
    with pytest.raises(UserError, match='symbols was \\["A", "B"\\] and is now \\["A"\\]'):
        opened(tmp_path, symbols=["A"])


def test_a_halt_holds_until_it_is_lifted_whichever_half_is_there(tmp_path):
    with opened(tmp_path) as journal:
        assert journal.halted() is None
        for _ in range(2):
            journal.halt("drawdown", "it fell", DAY)
        assert [(row.name, row.reason, row.day) for row in journal.halts()] == [("drawdown", "it fell", DAY)]
        (tmp_path / "HALT").unlink()
        assert journal.halted().name == "drawdown"
        journal.lift("resume")
        assert journal.halted() is None and journal.halts()[0].how == "resume"
        (tmp_path / "HALT").write_text("holiday\n")
        assert (journal.halted().name, journal.halted().reason) == ("by_hand", "holiday")
        journal.lift("resume")
        assert journal.halted() is None and not (tmp_path / "HALT").exists()


def edit(path, *statements):
    connection = sqlite3.connect(path)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE fills SET shares_nano = shares_nano + 1",
        "UPDATE fills SET value_micro = value_micro + 1",
        "UPDATE fills SET client_order_id = 'none'",
        "DELETE FROM fills",
        "UPDATE orders SET side = 'sell'",
        "UPDATE orders SET status = 'lost'",
        "UPDATE sessions SET cash_micro = cash_micro - 1",
        "UPDATE facts SET value = '1' WHERE key = 'capital_micro'",
    ],
)
def test_entries_that_contradict_each_other_are_a_named_halt(tmp_path, statement):
    path = with_a_fill(tmp_path)
    Journal.read(tmp_path).check()
    edit(path, statement)
    with pytest.raises(Halt) as stopped:
        Journal.read(tmp_path).check()
    assert stopped.value.name == "journal"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE arrays SET shape = '[1000000000000]'",
        "UPDATE arrays SET shape = '[3]'",
        "UPDATE arrays SET dtype = 'object'",
        "UPDATE arrays SET data = zeroblob(16)",
        "UPDATE sessions SET closes = '[1]'",
        "UPDATE sessions SET closes = '{\"A\": NaN}'",
        "UPDATE facts SET value = 'NaN'",
        "CREATE TRIGGER more AFTER INSERT ON fills BEGIN DELETE FROM fills; END",
        "PRAGMA application_id = 1",
        "DROP TABLE halts",
    ],
)
def test_a_damaged_value_or_another_schema_is_a_named_halt(tmp_path, statement):
    edit(with_a_fill(tmp_path), statement)
    with pytest.raises(Halt) as stopped, Journal.read(tmp_path) as journal:
        journal.arrays("weights"), journal.sessions()
    assert stopped.value.name == "journal"


def test_a_file_damaged_anywhere_is_a_named_halt_or_reads_as_written(tmp_path):
    path = with_a_fill(tmp_path)
    whole = path.read_bytes()
    with Journal.read(tmp_path) as journal:
        written = journal.orders(), journal.fills(), journal.sessions(), journal.cash()
    draw = np.random.default_rng(3)
    halted = 0
    for cut in [0, 1, 50, len(whole) // 2, *draw.integers(100, len(whole), 60)]:
        damaged = bytearray(whole)
        damaged[cut : cut + 64] = draw.bytes(min(64, len(whole) - cut))
        path.write_bytes(bytes(damaged) if cut not in (50, len(whole) // 2) else whole[:cut])
        try:
            with Journal.read(tmp_path) as journal:
                journal.check()
                found = journal.orders(), journal.fills(), journal.sessions(), journal.cash()
                journal.arrays("weights")
            assert found == written
        except Halt as stopped:
            halted += stopped.name == "journal"
    assert halted >= 5


def test_no_link_and_no_folder_is_opened_as_a_journal(tmp_path):
    path = with_a_fill(tmp_path / "real")
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "journal.sqlite").symlink_to(path)
    (tmp_path / "folder" / "journal.sqlite").mkdir(parents=True)
    for name in ("link", "folder"):
        with pytest.raises(Halt, match="is no regular file"):
            opened(tmp_path / name)
    with pytest.raises(UserError, match="has no journal"):
        Journal.read(tmp_path / "nothing")


def test_a_full_disk_is_a_named_halt_and_what_was_written_stays(tmp_path):
    path = with_a_fill(tmp_path)
    with opened(tmp_path) as journal:
        before, limits = path.stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, limits[1]))
        try:
            with pytest.raises(Halt) as stopped, journal.transaction():
                journal.keep(DAY, "state", np.zeros(10 * before, np.uint8))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
        assert stopped.value.name == "disk" and "make room" in str(stopped.value)
    with opened(tmp_path) as journal:
        journal.check()
        assert len(journal.fills()) == 1 and journal.arrays("state") == {}


def test_money_and_shares_that_cannot_be_counted_are_refused():
    assert (micro(0.1), micro(-2.5), nano(1 / 3)) == (100_000, -2_500_000, 333_333_333)
    for value in (float("nan"), float("inf"), 1e30):
        for unit in (micro, nano):
            with pytest.raises(Halt):
                unit(value)


def test_a_position_may_be_left_by_the_engine_without_an_order(tmp_path):
    with opened(tmp_path) as journal:
        journal.fill(Fill("x", "", DAY, "A", nano(1.0), micro(5.0), reason="stop_loss"))
        journal.check()
        journal.fill(Fill("y", "", DAY, "A", nano(1.0), micro(5.0)))
        with pytest.raises(Halt, match="has no order"):
            journal.check()


def test_a_journal_whose_maker_was_killed_is_empty_to_a_reader_and_left_so_for_the_next_trader(tmp_path):
    (tmp_path / "journal.sqlite").touch()
    for look in (lambda: Journal.read(tmp_path), lambda: Journal.open(tmp_path, {})):
        with pytest.raises(UserError, match="is empty, since its maker was killed") as found:
            look()
        assert not isinstance(found.value, Halt)
    with opened(tmp_path) as journal:
        assert journal.capital == CAPITAL


def test_a_file_in_place_of_a_journals_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "sub"):
        with pytest.raises(UserError, match=f"cannot be the folder of a journal: {tmp_path / 'file'} is a file"):
            opened(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE sessions SET day = 'zzz'", "there is no day zzz"),
        ("UPDATE sessions SET day = '2020-02-31'", "there is no day 2020-02-31"),
        ("UPDATE sessions SET day = '9999-12-31'", "there is no day 9999-12-31"),
        ("UPDATE sessions SET at = 'yesterday'", "there is no time yesterday"),
        ("UPDATE sessions SET at = '2020-01-03T22:00:00'", "there is no time 2020-01-03T22:00:00"),  # without a zone
        ("UPDATE arrays SET day = 'zz'", "there is no day zz"),
    ],
)
def test_days_and_times_that_are_none_halt(tmp_path, change, said):
    connection = sqlite3.connect(with_a_fill(tmp_path))
    with connection:
        connection.execute(change)
    connection.close()
    for look in (lambda: opened(tmp_path), lambda: Journal.read(tmp_path)):
        with pytest.raises(Halt, match=said) as found:
            look()
        assert found.value.name == "journal"


def test_a_halt_of_a_stranger_steers_no_terminal_and_one_of_no_known_name_is_damage(tmp_path):
    connection = sqlite3.connect(with_a_fill(tmp_path))
    with connection:
        connection.execute("INSERT INTO halts VALUES (1, 'a\x1b[2J', 'b\n', 'drawdown', '\x1b[31mred', 'c\r', 'd\x07')")
    with Journal.read(tmp_path) as journal:
        (row,) = journal.halts()
        assert (row.at, row.day, row.reason, row.lifted_at, row.how) == ("a?[2J", "b?", "?[31mred", "c?", "d?")
    with connection:
        connection.execute("UPDATE halts SET name = 'no_such_halt', lifted_at = NULL")
    connection.close()
    with Journal.read(tmp_path) as journal, pytest.raises(Halt, match="no_such_halt is no halt") as found:
        journal.halted()
    assert found.value.name == "journal"
