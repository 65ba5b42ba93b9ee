"""The Alpaca desk against a server on the loopback that misbehaves as brokers do: no order twice, no fill invented."""

import pytest

from hfinference.live.alpaca import check_rules, whole_change
from hfinference.live.brokers import Refused, Unreachable
from hftraining.core.errors import ConfigError
from hftraining.trading.config import TradingRules
from tests.hfinference.live.alpaca_account import Paper, at, desk, opened, orders_of
from tests.hfinference.live.alpaca_server import Fault, alpaca_server

pytest.importorskip("alpaca", reason="alpaca-py is absent: pip install -e '.[live]'")

MONDAY, TUESDAY = "2024-03-04", "2024-03-05"
EVENING, NEXT_EVENING = at("2024-03-04 19:05"), at("2024-03-05 19:05")


@pytest.fixture
def paper(tmp_path):
    with alpaca_server(EVENING) as server:
        server.prices = {"AAPL": 100, "MSFT": 50}
        yield Paper(server, tmp_path / "alpaca")


def test_on_a_normal_day_orders_wait_overnight_and_are_filled_at_the_open(paper):
    assert paper.evening(MONDAY, AAPL=10, MSFT=4) == ""
    assert paper.statuses() == {"03-04 AAPL": "accepted", "03-04 MSFT": "accepted"}
    paper.server.advance(at("2024-03-05 16:05"))
    assert paper.reconcile() == ""
    assert paper.statuses() == {"03-04 AAPL": "filled", "03-04 MSFT": "filled"}
    paper.check({"AAPL": 10, "MSFT": 4})
    paper.server.advance(NEXT_EVENING)
    assert paper.evening(TUESDAY, AAPL=-10, MSFT=1) == ""
    paper.server.advance(at("2024-03-06 16:05"))
    assert paper.reconcile() == ""
    paper.check({"MSFT": 5})


def test_nothing_is_sent_twice_by_calling_again_and_again(paper):
    for _ in range(3):
        assert paper.evening(MONDAY, AAPL=10) == ""
    assert len(paper.server.posted) == 1


def test_a_partial_fill_whose_rest_is_cancelled_is_final_and_its_shares_are_held(paper):
    paper.server.auction_shares, paper.server.pieces = {"AAPL": 6, "MSFT": 0}, 3
    paper.evening(MONDAY, AAPL=10, MSFT=4)
    paper.server.advance(at("2024-03-05 16:05"))
    assert paper.reconcile() == ""
    assert paper.statuses() == {"03-04 AAPL": "cancelled", "03-04 MSFT": "cancelled"}
    paper.check({"AAPL": 6})
    paper.server.advance(NEXT_EVENING)
    assert paper.evening(TUESDAY) == "" and len(paper.server.posted) == 2  # the rest is not sent under another id


def test_an_expired_order_is_final(paper):
    paper.server.auction_shares, paper.server.leaves = {"AAPL": 0}, "expired"
    paper.evening(MONDAY, AAPL=10)
    paper.server.advance(at("2024-03-05 16:05"))
    assert paper.reconcile() == "" and paper.statuses() == {"03-04 AAPL": "expired"}
    paper.check({})


@pytest.mark.parametrize("processed", [False, True], ids=["before it was accepted", "though it was accepted"])
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"status": 429}, marks=pytest.mark.slow),
        {"status": 500},
        pytest.param({"status": 502, "body": "<html>Bad Gateway</html>"}, marks=pytest.mark.slow),
        {"status": 504},
        {"cut": True},
        pytest.param({"body": "{}"}, marks=pytest.mark.slow),
        pytest.param({"body": "not JSON"}, marks=pytest.mark.slow),
        {"status": 403},
        {"status": 422},
    ],
    ids=["429", "500", "502", "504", "cut connection", "strange answer", "no JSON", "403", "422"],
)
@pytest.mark.slow
def test_a_post_that_errors_is_looked_up_and_never_doubled(paper, fault, processed):
    paper.server.faults = [Fault("POST", processed=processed, **fault)]
    assert paper.evening(MONDAY, AAPL=10, MSFT=4) == ""
    is_refused = fault.get("status") in (403, 422) and not processed
    assert paper.statuses() == {"03-04 AAPL": "rejected" if is_refused else "accepted", "03-04 MSFT": "accepted"}
    paper.server.advance(at("2024-03-05 16:05"))
    assert paper.reconcile() == ""
    paper.check({"MSFT": 4} if is_refused else {"AAPL": 10, "MSFT": 4})


@pytest.mark.parametrize("processed", [False, True], ids=["before it was accepted", "though it was accepted"])
def test_a_post_that_hangs_is_given_up_looked_up_and_never_doubled(paper, processed):
    paper.server.faults = [Fault("POST", hang=True, processed=processed)]
    assert paper.evening(MONDAY, AAPL=10) == ""
    assert paper.server.ids() == [key for key in dict.fromkeys(paper.server.posted)]
    paper.server.advance(at("2024-03-05 16:05"))
    assert paper.reconcile() == ""
    paper.check({"AAPL": 10})


@pytest.mark.parametrize("processed", [False, True], ids=["before it was accepted", "though it was accepted"])
def test_an_order_that_nobody_can_look_up_stays_unknown_until_somebody_can(paper, processed):
    paper.server.faults = [Fault("POST", status=500, processed=processed), Fault("GET /orders:by", status=500, times=2)]
    with pytest.raises(Unreachable, match="try again later"):
        paper.evening(MONDAY, AAPL=10)
    assert paper.statuses() == {"03-04 AAPL": "unknown"}
    assert paper.evening(MONDAY, AAPL=10) == ""
    assert paper.statuses() == {"03-04 AAPL": "accepted"} and len(paper.server.posted) == 1
    paper.server.advance(at("2024-03-05 16:05"))
    assert paper.reconcile() == ""
    paper.check({"AAPL": 10})


def test_an_order_that_never_arrived_expires_with_its_auction(paper):
    paper.server.faults = [Fault("POST", status=500, times=3)]
    with pytest.raises(Unreachable, match="cannot be delivered"):
        paper.evening(MONDAY, AAPL=10)
    assert paper.statuses() == {"03-04 AAPL": "unknown"} and len(paper.server.posted) == 0
    paper.server.advance(at("2024-03-05 16:05"))
    assert paper.reconcile() == ""
    assert paper.statuses() == {"03-04 AAPL": "expired"} and "never reached the broker" in paper.reasons()[0]
    paper.check({})


def test_an_id_that_the_broker_calls_taken_and_does_not_know_is_never_taken_for_rejected(paper):
    taken = '{"code": 40010001, "message": "client_order_id must be unique"}'
    paper.server.faults = [Fault("POST", status=422, body=taken, times=3)]
    with pytest.raises(Unreachable):
        paper.evening(MONDAY, AAPL=10)
    assert paper.statuses() == {"03-04 AAPL": "unknown"}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"unknown_symbols": {"AAPL"}}, 'asset "AAPL" not found'),
        ({"buying_power": 999}, "insufficient buying power"),
    ],
)
def test_a_rejected_order_has_the_brokers_reason_and_is_not_sent_again(paper, settings, reason):
    for name, value in settings.items():
        setattr(paper.server, name, value)
    for _ in range(2):
        assert paper.evening(MONDAY, AAPL=10, MSFT=4) == ""
    assert paper.statuses() == {"03-04 AAPL": "rejected", "03-04 MSFT": "accepted"}
    assert paper.reasons()[0] == reason and len(paper.server.posted) == 2
    paper.server.advance(at("2024-03-05 16:05"))
    assert paper.reconcile() == ""
    paper.check({"MSFT": 4})


def test_an_order_that_is_accepted_and_rejected_later_has_ended(paper):
    paper.evening(MONDAY, AAPL=10)
    next(iter(paper.server.orders.values()))["status"] = "rejected"
    assert paper.reconcile() == "" and paper.statuses() == {"03-04 AAPL": "rejected"}
    paper.check({})


@pytest.mark.parametrize(
    ("day", "sent_at", "is_sent"),
    [
        ("2024-03-04", "2024-03-04 16:00", False),  # the close itself
        ("2024-03-04", "2024-03-04 18:59:59", False),
        ("2024-03-04", "2024-03-04 19:00", False),
        ("2024-03-04", "2024-03-04 19:01:01", True),
        ("2024-03-04", "2024-03-05 09:26:59", True),
        ("2024-03-04", "2024-03-05 09:27:30", False),
        ("2024-03-04", "2024-03-05 09:28", False),
        ("2024-03-04", "2024-03-05 09:30", False),
        ("2024-03-04", "2024-03-05 19:05", False),  # that is the next auction
        ("2024-07-03", "2024-07-03 13:00", False),  # a half-day, before a holiday
        ("2024-07-03", "2024-07-03 19:05", True),
        ("2024-07-03", "2024-07-04 08:00", True),
        ("2024-07-03", "2024-07-04 12:00", False),
        ("2024-07-03", "2024-07-05 09:00", True),
        ("2024-03-08", "2024-03-09 03:00", True),  # the night before clocks change, and the one after
        ("2024-03-08", "2024-03-11 09:26", True),
        ("2024-03-08", "2024-03-11 09:28", False),
        ("2024-03-08", "2024-03-10 18:30", False),
        ("2024-11-01", "2024-11-03 19:30", True),
    ],
)
def test_an_order_is_sent_only_while_alpaca_takes_it_for_the_right_auction(tmp_path, day, sent_at, is_sent):
    holidays = {at("2024-07-04").date(), at("2024-03-29").date()}
    with alpaca_server(at(f"{day} 12:00"), closed=holidays, early={at("2024-07-03").date()}) as server:
        server.prices = {"AAPL": 100}
        paper = Paper(server, tmp_path)
        assert paper.reconcile() == ""
        server.advance(at(sent_at))
        assert paper.evening(day, AAPL=10) == ""
        assert len(server.posted) == len(server.ids()) == is_sent
        later = at(sent_at) >= at("2024-03-05 09:30") and day == MONDAY
        assert paper.statuses() == {f"{day[5:]} AAPL": "accepted" if is_sent else "expired" if later else "planned"}


def test_a_planned_order_waits_for_its_window_and_is_then_sent(tmp_path):
    with alpaca_server(at("2024-03-04 16:00")) as server:
        server.prices = {"AAPL": 100}
        paper = Paper(server, tmp_path)
        assert paper.evening(MONDAY, AAPL=10) == "" and paper.statuses() == {"03-04 AAPL": "planned"}
        server.advance(EVENING)
        assert paper.evening(MONDAY, AAPL=10) == "" and paper.statuses() == {"03-04 AAPL": "accepted"}


@pytest.mark.parametrize(
    ("now", "then"),
    [
        ("2024-03-08 16:00", "2024-03-08 19:01:01"),
        ("2024-03-08 19:01:01", "2024-03-08 19:01:01"),
        ("2024-03-09 12:00", "2024-03-09 19:01:01"),
        ("2024-03-10 01:30", "2024-03-10 01:30"),
        ("2024-03-11 09:27:30", "2024-03-11 19:01:01"),  # too late: by then it has expired
    ],
)
def test_the_desk_says_when_it_can_send_next(tmp_path, now, then):
    with alpaca_server(at("2024-03-08 16:00")) as server:
        server.prices = {"AAPL": 100}
        trading = desk(server.url)
        with opened(tmp_path, trading) as journal:
            assert trading.next_send(journal, at(now)) is None
            journal.plan("2024-03-08", orders_of(journal, "2024-03-08", {"AAPL": 10}))
            assert trading.next_send(journal, at(now)) == at(then)
            server.advance(at(then))
            trading.send(journal, at(then))
            assert [order.status for order in journal.orders()] == ["expired" if "27:30" in now else "accepted"]
            assert trading.next_send(journal, at(then)) is None


def test_a_broker_that_opens_on_another_day_than_our_calendar_halts_and_nothing_is_sent(paper):
    paper.server.closed = {at("2024-03-05").date()}
    assert paper.evening(MONDAY, AAPL=10) == "market_closed"
    assert paper.server.posted == []


def test_an_account_that_is_not_flat_begins_no_journal(paper):
    paper.server._hold("NVDA", 3)
    assert paper.evening(MONDAY, AAPL=10) == "unknown_position"
    paper.server.positions.clear()
    paper.server._new_order({"symbol": "NVDA", "qty": 1, "side": "buy", "client_order_id": "by-hand"})
    assert paper.evening(MONDAY, AAPL=10) == "unknown_order"
    assert not (paper.folder / "journal.sqlite").exists()


def test_a_halt_between_two_orders_stops_the_second(paper):
    trading = desk(paper.server.url)
    with opened(paper.folder, trading) as journal:
        journal.plan(MONDAY, orders_of(journal, MONDAY, {"AAPL": 10, "MSFT": 4}))
        (paper.folder / "HALT").write_text("by the test")
        trading.send(journal, EVENING)
        assert paper.server.posted == []
        (paper.folder / "HALT").unlink()
        trading.send(journal, EVENING)
    assert len(paper.server.posted) == 2


def test_keys_that_are_refused_while_sending_reject_no_order(paper):
    paper.server.faults = [Fault("POST", status=401)]
    with pytest.raises(Refused, match="refuses the keys"):
        paper.evening(MONDAY, AAPL=10)
    assert paper.statuses() == {"03-04 AAPL": "sending"}
    assert paper.evening(MONDAY, AAPL=10) == "" and paper.statuses() == {"03-04 AAPL": "accepted"}


def test_numbers_that_are_none_halt_before_anything_is_sent(paper):
    for request, body in (
        ("GET /account", '{"id": "x", "status": "ACTIVE", "currency": "USD", "cash": "NaN", "equity": "1"}'),
        ("GET /positions", '[{"symbol": "AAPL", "qty": NaN}]'),
        ("GET /clock", '{"timestamp": "soon"}'),
    ):
        paper.server.faults = [Fault(request, body=body, times=2)]
        assert paper.evening(MONDAY, AAPL=10) == "broker", request
    assert paper.server.posted == []


@pytest.mark.parametrize(
    ("weight", "held", "rules", "change"),
    [
        (0.5, 0, {}, 49),  # 0.5 * 1,000 / 10.1 = 49.5
        (0.5, 30, {}, 19),
        (0.5, 60, {}, -11),
        (-0.5, 0, {}, -49),
        (-0.5, 0, {"allow_short": False}, 0),
        (-0.5, 12, {}, -12),  # first flat, the next session short
        (0.5, -12, {}, 12),
        (0.0, 12, {}, -12),
        (0.5, 45, {"rebalance_band": 0.05}, 0),  # 4 shares are 4 % of the equity
        (0.5, 44, {"rebalance_band": 0.05}, 5),
        (0.0, 1, {"rebalance_band": 0.05}, -1),
        (0.5, 10.7, {}, 38),  # a fraction that was never ordered stays
    ],
)
def test_orders_are_whole_shares_towards_zero_and_no_order_changes_the_side(weight, held, rules, change):
    assert whole_change(weight, 10.1, held, 1_000.0, TradingRules(**rules)) == change


@pytest.mark.parametrize("rule", [{"stop_loss": 0.02}, {"take_profit": 0.05}, {"lag": 2}])
def test_rules_that_orders_for_the_opening_cannot_follow_are_refused(rule):
    with pytest.raises(ConfigError, match=f"profit_tracker.{next(iter(rule))}=.* cannot be followed with Alpaca"):
        check_rules(TradingRules(**rule))
