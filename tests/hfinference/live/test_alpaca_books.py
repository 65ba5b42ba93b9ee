"""The books of the Alpaca desk: fills, positions, cash and orders are the broker's, or trading halts by name."""

import itertools
from collections import Counter

import pytest

from hfinference.live.entries import NANO
from hfinference.live.journal import Journal
from tests.hfinference.live.alpaca_account import Paper, at
from tests.hfinference.live.alpaca_server import alpaca_server

pytest.importorskip("alpaca", reason="alpaca-py is absent: pip install -e '.[live]'")

MONDAY, TUESDAY = "2024-03-04", "2024-03-05"
EVENING, NEXT_EVENING = at("2024-03-04 19:05"), at("2024-03-05 19:05")


@pytest.fixture
def paper(tmp_path):
    with alpaca_server(EVENING) as server:
        server.prices = {"AAPL": 100, "MSFT": 50}
        yield Paper(server, tmp_path / "alpaca")


@pytest.mark.parametrize("pieces", [1, 5])
def test_fills_that_are_listed_twice_and_backwards_count_once(paper, pieces):
    paper.server.pieces, paper.server.twice, paper.server.backwards = pieces, True, True
    paper.evening(MONDAY, AAPL=10, MSFT=4)
    paper.server.advance(at("2024-03-05 16:05"))
    for _ in range(2):
        assert paper.reconcile() == ""
        paper.check({"AAPL": 10, "MSFT": 4})


def test_a_fill_that_is_listed_late_is_waited_for_and_never_invented(paper):
    paper.evening(MONDAY, AAPL=10, MSFT=4)
    paper.server.advance(at("2024-03-05 16:05"))
    paper.server.hidden_fills = 2
    assert paper.reconcile() == "broker"
    assert paper.statuses() == {"03-04 AAPL": "filled", "03-04 MSFT": "partially_filled"}
    with Journal.read(paper.folder) as journal:
        assert journal.positions() == {"AAPL": 10 * NANO}
    assert paper.reconcile() == ""
    paper.check({"AAPL": 10, "MSFT": 4})


def test_a_fill_that_changes_halts(paper):
    paper.evening(MONDAY, AAPL=10)
    paper.server.advance(at("2024-03-05 16:05"))
    assert paper.reconcile() == ""
    paper.server.activities[0]["price"] = "101"
    assert paper.reconcile() == "broker"


def test_a_fill_beyond_the_shares_of_its_order_halts_and_is_not_booked(paper):
    paper.evening(MONDAY, AAPL=10)
    paper.server.advance(at("2024-03-05 16:05"))
    paper.server.activities.append({**paper.server.activities[0], "id": "another"})
    assert paper.reconcile() == "broker"
    with Journal.read(paper.folder) as journal:
        assert journal.fills() == []


def test_a_trade_by_hand_is_of_no_order_of_ours_and_halts_until_resume_accepts_it(paper):
    paper.evening(MONDAY, AAPL=10)
    paper.server.advance(at("2024-03-05 16:05"))
    assert paper.reconcile() == ""
    paper.server.advance(NEXT_EVENING)
    paper.server.trade_by_hand("AAPL", "sell", 3, "99")
    for _ in range(2):
        assert paper.evening(TUESDAY, MSFT=4) == "unknown_order"
    assert len(paper.server.posted) == 1
    paper.resume()
    assert paper.evening(TUESDAY, MSFT=4) == "" and len(paper.server.posted) == 2
    paper.server.advance(at("2024-03-06 16:05"))
    assert paper.reconcile() == ""
    with Journal.read(paper.folder) as journal:
        assert journal.positions() == {"AAPL": 7 * NANO, "MSFT": 4 * NANO}
        assert journal.cash() == (100_000 - 1_000 + 297 - 200) * 10**6 == int(paper.server.cash) * 10**6


@pytest.mark.parametrize(
    ("symbol", "change", "name"),
    [
        ("NVDA", 5, "unknown_position"),
        ("AAPL", -10, "position"),
        ("AAPL", 3, "position"),
        pytest.param(*("AAPL", -23, "position"), marks=pytest.mark.slow),
        ("AAPL", 10, "split"),
        pytest.param(*("AAPL", 90, "split"), marks=pytest.mark.slow),
        pytest.param(*("AAPL", -9, "split"), marks=pytest.mark.slow),
        ("AAPL", 5, "split"),
    ],
)
@pytest.mark.slow
def test_a_position_that_nothing_explains_halts_by_name_and_nothing_is_sent(paper, symbol, change, name):
    paper.evening(MONDAY, AAPL=10)
    paper.server.advance(at("2024-03-05 16:05"))
    assert paper.reconcile() == ""
    paper.server.advance(NEXT_EVENING)
    paper.server._hold(symbol, change)
    assert paper.evening(TUESDAY, MSFT=4) == name
    assert len(paper.server.posted) == 1
    paper.resume()
    assert paper.reconcile() == ""
    paper.server._hold(symbol, change)  # the same again is another difference
    assert paper.reconcile() in ("position", "split", "unknown_position")


def test_many_differences_are_one_line_that_resume_accepts(paper):
    assert paper.reconcile() == ""
    for n in range(90):
        paper.server._hold(f"S{n}", n + 1)
    assert paper.reconcile() == "unknown_position" and "more characters" in str(paper.halt)
    paper.resume()
    assert paper.reconcile() == ""
    with Journal.read(paper.folder) as journal:
        assert journal.positions() == {f"S{n}": (n + 1) * NANO for n in range(90)}


def test_a_split_overnight_halts_and_resume_takes_the_brokers_shares(paper):
    paper.evening(MONDAY, AAPL=10)
    paper.server.advance(NEXT_EVENING)
    paper.server.book("SPLIT", symbol="AAPL", shares="10")
    for _ in range(2):  # by the activity, then by the shares
        assert paper.evening(TUESDAY, AAPL=2) == "split" and len(paper.server.posted) == 1
        paper.resume()
    assert paper.evening(TUESDAY, AAPL=2) == ""
    paper.server.advance(at("2024-03-06 16:05"))
    assert paper.reconcile() == ""
    paper.check({"AAPL": 22})


def test_dividends_interest_and_fees_are_booked_once_and_a_transfer_halts(paper):
    paper.evening(MONDAY, AAPL=10)
    paper.server.advance(at("2024-03-05 16:05"))
    for kind, amount, symbol in (
        ("DIV", "2.40", "AAPL"),
        ("DIVNRA", "-0.36", "AAPL"),
        ("INT", "0.015", ""),
        ("FEE", "-0.02", ""),
    ):
        paper.server.book(kind, amount, symbol)
    for _ in range(2):
        assert paper.reconcile() == ""
        paper.check({"AAPL": 10})
    paper.server.book("CSD", "5000")
    assert paper.reconcile() == "cash"
    paper.resume()
    assert paper.reconcile() == ""
    paper.check({"AAPL": 10})


def test_cash_that_nothing_explains_halts(paper):
    paper.evening(MONDAY, AAPL=10)
    paper.server.advance(at("2024-03-05 16:05"))
    for _ in range(2):  # the same again is another difference
        paper.server.cash -= 1
        assert paper.reconcile() == "cash"
        paper.resume()
        assert paper.reconcile() == ""
    with Journal.read(paper.folder) as journal:
        assert journal.cash() == 98_998 * 10**6


def test_a_cent_a_fill_that_the_broker_rounds_is_booked_as_such_and_no_second_one(paper):
    paper.evening(MONDAY, AAPL=10)
    paper.server.advance(at("2024-03-05 16:05"))
    paper.server.cash += type(paper.server.cash)("0.004")
    assert paper.reconcile() == ""
    with Journal.read(paper.folder) as journal:
        assert [(entry.cash_micro, entry.reason) for entry in journal.adjustments()] == [
            (4000, "the broker rounds, new fills: 1")
        ]
        assert journal.cash() == 99_000_004_000
    paper.server.cash += type(paper.server.cash)("0.004")
    assert paper.reconcile() == "cash"


def test_a_working_order_stays_through_any_number_of_reconciliations(paper):
    paper.evening(MONDAY, AAPL=10, MSFT=4)
    paper.server.advance(at("2024-03-05 09:30"))  # both are filled, and one is shown as working still
    paper.server.orders[next(iter(paper.server.orders))].update(status="partially_filled", filled_qty="5")
    paper.server.activities[0]["qty"] = "5"
    paper.server._hold("AAPL", -5)
    paper.server.cash += 500
    for _ in range(3):
        assert paper.reconcile() == ""
        assert paper.statuses() == {"03-04 AAPL": "partially_filled", "03-04 MSFT": "filled"}
        paper.check({"AAPL": 5, "MSFT": 4})


def test_a_working_order_that_the_list_of_open_orders_lacks_is_kept(paper):
    paper.evening(MONDAY, AAPL=10)
    paper.server.hides_open = True
    assert paper.reconcile() == "" and paper.statuses() == {"03-04 AAPL": "accepted"}
    paper.server.advance(at("2024-03-05 16:05"))
    assert paper.reconcile() == ""
    paper.check({"AAPL": 10})


def test_an_accepted_order_that_the_broker_forgets_halts(paper):
    paper.evening(MONDAY, AAPL=10)
    paper.server.orders.clear()
    assert paper.reconcile() == "broker"
    assert paper.statuses() == {"03-04 AAPL": "accepted"}
    paper.resume()
    assert paper.reconcile() == "" and paper.statuses() == {"03-04 AAPL": "expired"}


@pytest.mark.parametrize("size", [0, 6])
def test_an_expired_order_that_stays_open_at_the_broker_is_not_counted_as_open(paper, size):
    paper.server.auction_shares, paper.server.keeps_expired_open = {"AAPL": size}, True
    paper.evening(MONDAY, AAPL=10)
    paper.server.advance(at("2024-03-05 15:59:59"))
    assert paper.reconcile() == "" and paper.statuses()["03-04 AAPL"] in ("accepted", "partially_filled")
    paper.server.advance(NEXT_EVENING)
    assert paper.reconcile() == "" and paper.statuses() == {"03-04 AAPL": "expired"}
    assert "still shows it as open" in paper.reasons()[0]
    paper.check({"AAPL": size} if size else {})
    assert paper.evening(TUESDAY, AAPL=2) == ""  # and the next one is sent
    paper.server.auction_shares = {}
    paper.server.advance(at("2024-03-06 16:05"))
    assert paper.reconcile() == ""
    paper.check({"AAPL": size + 2})


def test_an_order_that_missed_its_auction_and_still_works_is_cancelled(paper):
    paper.server.auction_shares, paper.server.leaves = {"AAPL": 0}, "accepted"
    paper.evening(MONDAY, AAPL=10)
    paper.server.advance(NEXT_EVENING)
    assert paper.reconcile() == "" and paper.statuses() == {"03-04 AAPL": "cancelled"}
    assert [order["status"] for order in paper.server.orders.values()] == ["canceled"]


def test_an_open_order_that_is_not_ours_halts_and_nothing_is_sent(paper):
    assert paper.reconcile() == ""
    paper.server._new_order({"symbol": "NVDA", "qty": 1, "side": "buy", "client_order_id": "by-hand"})
    assert paper.evening(MONDAY, AAPL=10) == "unknown_order" and paper.server.posted == []


def test_an_order_of_our_id_with_other_shares_halts(paper):
    paper.evening(MONDAY, AAPL=10)
    next(iter(paper.server.orders.values()))["qty"] = "11"
    assert paper.reconcile() == "unknown_order"


def test_keys_of_another_account_halt(paper):
    paper.evening(MONDAY, AAPL=10)
    paper.server.account_id = "another"
    assert paper.reconcile() == "broker"


def test_the_whole_life_holds_its_sums_over_many_days_of_odd_sizes(paper):
    day = at("2024-03-04 19:05")
    sessions = ["2024-03-04", "2024-03-05", "2024-03-06", "2024-03-07", "2024-03-08", "2024-03-11", "2024-03-12"]
    held = Counter()
    for n, (session, following) in enumerate(itertools.pairwise(sessions)):
        wanted = {"AAPL": (n % 3 - 1) * 3 + 4, "MSFT": 7 - n}
        paper.server.prices = {"AAPL": 100 + n, "MSFT": 50 - n}
        paper.server.auction_shares = {"MSFT": 3}
        paper.server.pieces = 1 + n % 3
        assert paper.evening(session, **wanted) == ""
        paper.server.advance(day := at(f"{following} 19:05"))
        assert paper.reconcile() == ""
        held.update({"AAPL": wanted["AAPL"], "MSFT": min(3, wanted["MSFT"])})
        paper.check({symbol: size for symbol, size in held.items() if size})
    assert day == at("2024-03-12 19:05") and paper.server.positions["AAPL"] * NANO > 0
