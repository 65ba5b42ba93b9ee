"""The status of a paper account: its numbers, its table, its page, while a trader writes, and of strange texts."""

import json
import math
import re
import sqlite3
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest

from hfinference.__main__ import main
from hfinference.live.entries import Adjustment, Fill, Mark, Order, micro, nano
from hfinference.live.exchange import Exchange
from hfinference.live.journal import Journal
from hfinference.live.journal_file import REPLAY
from hfinference.live.latch import flatten, halt
from hfinference.live.page import write_status
from hfinference.live.risk import Halt
from hfinference.live.status import HOLD, MOST_ENTRIES, status_of
from hfinference.live.words import headline, show, tables_of
from hftraining.core.errors import UserError
from tests.browser import drawn, laid_out, needs_browser
from tests.commands import ROOT

HOSTILE = "<img src=x onerror=alert(1)>"
FACTS = {"capital_micro": micro(10_000.0), "calendar": "XNYS"}
DAYS = [str(day) for day in Exchange().sessions(date(2024, 4, 2), date(2024, 5, 3))]
NOW = datetime(2024, 5, 4, 12, tzinfo=UTC)


def traded(folder: Path, symbol: str = "MSFT", reason: str = "the decision came after the open") -> Journal:
    """An account of 24 sessions that bought 60 AAPL at 100 and 20 of another at 50, sold 10, and missed a session."""
    journal = Journal.open(folder, FACTS)
    for t, day in enumerate(DAYS):
        price = 100.0 + t
        with journal.transaction():
            if t == 0:
                orders = [Order("id-A", day, "AAPL", "buy", nano(60.0)), Order("id-B", day, symbol, "buy", nano(20.0))]
                journal.plan(day, orders)
            if t == 1:
                for key, name, count, paid in (("id-A", "AAPL", 60.0, 100.0), ("id-B", symbol, 20.0, 50.0)):
                    journal.fill(Fill(f"f-{key}", key, day, name, nano(count), micro(paid), micro(1.0)))
                    journal.set_order(key, "filled")
            if t == 22:
                journal.plan(
                    day, [Order("id-C", day, "AAPL", "sell", nano(10.0)), Order("id-D", day, symbol, "buy", 1)]
                )
                journal.set_order("id-D", "rejected", reason=reason)
            if t == 23:
                journal.fill(Fill("f-id-C", "id-C", day, "AAPL", nano(-4.0), micro(120.0)))
                journal.set_order("id-C", "partially_filled")
                journal.plan(day, [Order("id-E", day, symbol, "sell", nano(20.0))])
                journal.adjust(Adjustment("a", day, "AAPL", 0, micro(-0.5), "borrow"))
            closes = {"AAPL": price, symbol: 50.0}
            held = journal.positions()
            equity = journal.cash() + sum(count * micro(closes[name]) // 10**9 for name, count in held.items())
            decision = "missed" if t == 10 else "traded"
            mark = Mark(day, journal.cash(), equity, closes, decision, reason if t == 10 else "")
            journal.mark(mark, {HOLD: np.array(10_000.0 + 20.0 * t)})
    return journal


def test_the_numbers_of_a_status_are_those_that_the_entries_make_by_hand(tmp_path):
    traded(tmp_path).close()
    status = status_of(tmp_path, NOW)
    cash = 10_000.0 - 60 * 100.0 - 20 * 50.0 - 2.0 + 4 * 120.0 - 0.5
    equity = cash + 56 * 123.0 + 20 * 50.0
    found = json.loads(json.dumps(status.as_object()))
    assert found["account"]["cash"] == pytest.approx(cash, abs=1e-9)
    assert found["account"]["equity"] == pytest.approx(equity, abs=1e-9)
    assert found["account"]["metrics"]["total_return"] == pytest.approx(equity / 10_000.0 - 1)
    assert found["account"]["buy_and_hold"] == 10_000.0 + 20.0 * 23
    assert [(p["symbol"], p["shares"], p["value"]) for p in found["positions"]] == [
        ("AAPL", 56.0, 56 * 123.0),
        ("MSFT", 20.0, 1000.0),
    ]
    assert sum(p["weight"] for p in found["positions"]) == pytest.approx(1 - cash / equity)
    assert [order["client_order_id"] for order in found["orders"]["working"]] == ["id-C", "id-E"]
    assert [order["client_order_id"] for order in found["orders"]["last_session"]] == ["id-E"]
    assert [fill["shares"] for fill in found["fills"]] == [60.0, 20.0, -4.0] and found["fill_count"] == 3
    assert found["adjustments"][0]["cash"] == -0.5
    assert found["decision"]["day"] == "2024-05-03" and found["decision"]["decision"] == "traded"
    assert found["missed"] == [{"day": DAYS[10], "reason": "the decision came after the open"}]
    assert (found["next_session"], found["next_open"]) == ("2024-05-06", "2024-05-06T13:30:00+00:00")
    assert [row["day"] for row in found["equity"]] == DAYS and found["equity"][-1]["equity"] == pytest.approx(equity)
    assert (found["state"], found["running"], found["halted"]) == ("trading", False, None)


def test_a_status_is_read_while_a_trader_is_in_the_middle_of_writing(tmp_path):
    with traded(tmp_path) as trader, trader.transaction():
        trader.plan("2024-05-06", [Order("id-F", "2024-05-06", "AAPL", "buy", nano(1.0))])
        trader.mark(Mark("2024-05-06", trader.cash(), micro(1.0)))
        status = status_of(tmp_path, NOW)
        assert status.is_running and status.last.day == "2024-05-03"
        assert "id-F" not in [order.client_order_id for order in status.working]
    assert status_of(tmp_path, NOW).last.day == "2024-05-06"


def test_the_state_says_halted_flattening_waiting_or_trading(tmp_path):
    Journal.open(tmp_path, FACTS).close()
    status = status_of(tmp_path, NOW)
    assert status.state == "waiting" and headline(status) == "nothing traded yet, 10,000.00 in cash"
    assert str(status.next_session) == "2024-05-06" and status.metrics() == {} and status.held is None
    flatten(tmp_path, "holidays")
    assert status_of(tmp_path, NOW).state == "flattening"
    halt(tmp_path, "stop")
    found = status_of(tmp_path, NOW).as_object()
    assert found["state"] == "halted" and found["halted"]["reason"] == "stop" and found["flatten"] == "holidays"


def test_sessions_that_closed_since_the_last_mark_are_counted_and_the_next_one_is_the_next_to_open(tmp_path):
    traded(tmp_path).close()
    for now, behind, coming in (
        (NOW, 0, "2024-05-06"),
        (datetime(2024, 5, 6, 19, 59, tzinfo=UTC), 0, "2024-05-07"),
        (datetime(2024, 5, 6, 20, 0, tzinfo=UTC), 1, "2024-05-07"),
        (datetime(2024, 5, 28, 3, 0, tzinfo=UTC), 15, "2024-05-28"),  # after Memorial Day
    ):
        found = status_of(tmp_path, now).as_object()
        assert (found["behind"], found["next_session"]) == (behind, coming)


def test_a_replay_is_finished_at_its_last_day_and_knows_no_next_session(tmp_path):
    for end, state in (("2024-05-03", "finished"), ("2024-05-06", "trading")):
        facts = {"capital_micro": micro(100.0), REPLAY: ["2024-05-03", end]}
        with Journal.open(tmp_path / end, facts) as journal:
            journal.mark(Mark("2024-05-03", micro(100.0), micro(110.0)))
        found = status_of(tmp_path / end, NOW).as_object()
        assert (found["state"], found["replay"]) == (state, ("2024-05-03", end))
        assert found["next_session"] is None and found["behind"] is None


def test_a_column_that_says_nothing_in_any_row_is_left_out(tmp_path):
    with traded(tmp_path) as journal:
        tables = {table.title: table.heads for table in tables_of(status_of(tmp_path, NOW))}
        assert "reason" not in tables["Orders working"] and "reason" in tables["Sessions without trading"]
        journal.set_order("id-C", "accepted", reason="queued")
    assert "reason" in tables_of(status_of(tmp_path, NOW))[1].heads


def test_of_many_entries_the_last_are_shown_and_all_are_counted(tmp_path, capsys):
    with Journal.open(tmp_path, FACTS) as journal, journal.transaction():
        for n in range(MOST_ENTRIES + 5):
            journal.adjust(Adjustment(f"a{n}", "2024-05-03", "AAPL", 0, micro(-0.5), "borrow"))
        journal.mark(Mark("2024-05-03", journal.cash(), journal.cash()))
    status = status_of(tmp_path, NOW)
    show(status)
    assert f"... {MOST_ENTRIES + 5 - 12} more" in capsys.readouterr().out
    page = write_status(tmp_path / "status.html", status).read_text()
    assert f"The last {MOST_ENTRIES} of {MOST_ENTRIES + 5}; all are in the journal." in page


def test_without_a_benchmark_or_a_calendar_there_is_a_gap_and_no_guess(tmp_path):
    with Journal.open(tmp_path, {"capital_micro": micro(100.0)}) as journal:
        journal.mark(Mark("2024-05-03", micro(100.0), micro(110.0), {"A": math.nan}))
    status = status_of(tmp_path, NOW)
    assert status.held is None and status.next_session is None and status.metrics(hold=True) == {}
    assert headline(status) == "+10.0% in 1 session"


def test_the_terminal_shows_everything_and_does_nothing_that_a_text_asks_for(tmp_path, capsys):
    with traded(tmp_path, symbol="[red]X\x1b[2J", reason="bad\x1b[2J [bold]news") as journal:
        journal.halt("daily_loss", "the account fell")
        show(status_of(tmp_path, NOW))
    out = capsys.readouterr().out
    assert "halted (daily_loss): since" in out and "a trader runs" in out
    assert "[red]X?[2J" in out and "\x1b" not in out and "bad\\x1b[2J [bold]news" in out
    for word in ("Positions", "Orders working", "Fills", "Halts", "buy and hold", "next session: 2024-05-06", "missed"):
        assert word in out


def test_a_page_escapes_what_symbols_and_reasons_say(tmp_path):
    with traded(tmp_path, symbol=HOSTILE, reason=f"{HOSTILE}</script><script>alert(2)</script>") as journal:
        journal.halt("by_hand", HOSTILE)
    page = write_status(tmp_path / "status.html", status_of(tmp_path, NOW)).read_text()
    assert "<img" not in page.replace("<img src=x onerror=alert(1)>".replace("<", "&lt;"), "")
    assert "alert(2)" in page and "<script>alert(2)" not in page and page.count("&lt;img src=x") >= 4


def test_a_page_needs_no_other_file_and_nothing_from_the_net(tmp_path):
    traded(tmp_path / "account").close()
    (tmp_path / "page").mkdir()
    page = write_status(tmp_path / "page/any name.html", status_of(tmp_path / "account", NOW))
    assert [path.name for path in page.parent.iterdir()] == ["any name.html"]
    own = re.sub(r"<script>.*?</script>", "", page.read_text(), flags=re.S)
    assert not re.search(r'(src|href)="(?!data:)', own)


def test_a_journal_whose_cash_is_not_what_its_fills_make_shows_no_figure(tmp_path):
    traded(tmp_path).close()
    with sqlite3.connect(tmp_path / "journal.sqlite") as connection:
        connection.execute("UPDATE fills SET value_micro = value_micro + 1 WHERE fill_id = 'f-id-A'")
    with pytest.raises(Halt, match="is not what its fills make"):
        status_of(tmp_path, NOW)


def test_a_page_that_cannot_be_written_is_one_line(tmp_path):
    traded(tmp_path).close()
    status, before = status_of(tmp_path, NOW), (tmp_path / "journal.sqlite").read_bytes()
    for path in (tmp_path / "none/status.html", tmp_path, tmp_path / "journal.sqlite"):
        with pytest.raises(UserError):
            write_status(path, status)
    assert (tmp_path / "journal.sqlite").read_bytes() == before
    with pytest.raises(UserError, match="has no journal"):
        status_of(tmp_path / "none")


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("width", [400, 1280])
def test_a_page_is_laid_out_on_a_phone_and_on_a_desk(tmp_path, width):
    with traded(tmp_path / "account", symbol=HOSTILE, reason="r" * 300) as journal:
        journal.halt("stale_bars", f"the bars end on 2024-05-02 {HOSTILE}: fetch newer ones")
    page = write_status(tmp_path / "status.html", status_of(tmp_path / "account", NOW))
    found = laid_out(page, tmp_path, width)
    assert found["charts"] == [["equity-chart", 3]] or found["charts"][0][1] > 0
    assert found["tables"] == 6
    assert "halted (stale_bars)" in drawn(page, tmp_path, width).lower()


def test_the_command_prints_the_status_of_the_account_traded_last_and_its_keys_are_documented(tmp_path, capsys):
    traded(tmp_path / "run/paper/live").close()
    words = ["paper", str(tmp_path / "run"), "--status", "--json", "--html", str(tmp_path / "status.html")]
    assert main(words) == 0
    out = capsys.readouterr().out
    found = json.loads(out.splitlines()[-1])
    assert found["folder"].endswith("run/paper/live") and f"page: {tmp_path / 'status.html'}" in out
    assert (tmp_path / "status.html").read_text().startswith("<!doctype html>")
    table = (ROOT / "docs/paper.md").read_text().partition("| key |")[2].partition("\n\n")[0]
    documented = [key for row in table.splitlines()[2:] for key in re.findall(r"`(\w+)`", row.split("|")[1])]
    counts = {"fill_count", "adjustment_count"}  # named beside what they count
    assert sorted(documented) == sorted(found.keys() - counts - {"folder", "at"})


def test_a_page_that_has_no_place_is_refused_before_anything_is_traded(tmp_path, capsys):
    assert main(["paper", str(tmp_path), "--html", str(tmp_path / "none/status.html")]) == 2
    assert "there is no folder" in capsys.readouterr().err
