"""What a broker can say that is not so, or not yet, and what a second trader does: no order twice, nothing invented."""

import http.client
import logging
import socket
import threading
import time
from contextlib import contextmanager
from datetime import timedelta

import pytest

from hfinference.live.alpaca import check_stocks
from hfinference.live.answers import activity_of
from hfinference.live.brokers import Alpaca, Unreachable
from hfinference.live.exchange import Exchange
from hfinference.live.journal import Journal
from hfinference.live.latch import account_folder
from hfinference.live.risk import Halt
from hftraining.core.errors import ConfigError, UserError
from tests.hfinference.live.alpaca_account import KEYS, Paper, at, desk, opened, orders_of
from tests.hfinference.live.alpaca_server import KEY, SECRET, Fault, alpaca_server

pytest.importorskip("alpaca", reason="alpaca-py is absent: pip install -e '.[live]'")

MONDAY, TUESDAY = "2024-03-04", "2024-03-05"
EVENING, AFTERNOON, NEXT_EVENING = at("2024-03-04 19:05"), at("2024-03-05 16:05"), at("2024-03-05 19:05")
SLOW = pytest.mark.slow
NOT_FOUND = '{"code": 40410000, "message": "order not found"}'


@pytest.fixture
def paper(tmp_path):
    with alpaca_server(EVENING) as server:
        server.prices = {"AAPL": 100, "MSFT": 50}
        yield Paper(server, tmp_path / "alpaca")


def answers(server, method: str, change) -> None:
    """Let a method of the server answer something else; change: takes its answer."""
    real = getattr(server, method)
    setattr(server, method, lambda *given: change(real(*given)))


def test_an_order_that_is_refused_after_a_lost_answer_and_is_found_only_later_was_never_rejected(paper):
    refused = '{"code": 40310000, "message": "insufficient qty available for order"}'
    paper.server.faults = [
        Fault("POST", status=504, processed=True),
        Fault("GET /orders:by", status=404, body=NOT_FOUND, times=2),
        Fault("POST", status=403, body=refused),
    ]
    assert paper.evening(MONDAY, AAPL=10) == "" and paper.statuses() == {"03-04 AAPL": "unknown"}
    assert paper.evening(MONDAY, AAPL=10) == "" and paper.statuses() == {"03-04 AAPL": "accepted"}
    assert len(paper.server.posted) == 1
    paper.server.advance(AFTERNOON)
    assert paper.reconcile() == ""
    paper.check({"AAPL": 10})


@SLOW
def test_an_order_that_is_refused_after_a_lost_answer_and_never_arrived_expires_with_the_refusal(paper):
    refused = '{"code": 40310000, "message": "insufficient buying power"}'
    paper.server.faults = [Fault("POST", status=504), Fault("POST", status=403, body=refused)]
    assert paper.evening(MONDAY, AAPL=10) == "" and paper.server.posted == []
    paper.server.advance(AFTERNOON)
    assert paper.reconcile() == "" and paper.statuses() == {"03-04 AAPL": "expired"}
    assert "never reached the broker" in paper.reasons()[0] and "insufficient buying power" in paper.reasons()[0]


def test_an_order_that_the_broker_chokes_on_does_not_stop_the_others(paper):
    real = paper.server._post
    paper.server._post = lambda body: (500, {"message": "it chokes"}) if body["symbol"] == "AAPL" else real(body)
    with pytest.raises(Unreachable, match="AAPL cannot be delivered"):
        paper.evening(MONDAY, AAPL=10, MSFT=4)
    assert paper.statuses() == {"03-04 AAPL": "unknown", "03-04 MSFT": "accepted"}


def test_an_order_that_becomes_visible_after_its_auction_gets_its_fills_and_no_more(paper):
    paper.server.faults = [Fault("POST", status=504, processed=True), Fault("GET /orders:by", status=500, times=2)]
    with pytest.raises(Unreachable):
        paper.evening(MONDAY, AAPL=10)
    paper.server.advance(AFTERNOON)
    fill = paper.server.activities[0]
    paper.server.activities.append({**fill, "id": "another"})
    paper.server.faults = [Fault("GET /orders:by", status=404, body=NOT_FOUND, times=99)]
    assert paper.reconcile() == "broker" and "beyond its shares" in str(paper.halt)
    with Journal.read(paper.folder) as journal:
        assert journal.fills() == []
    paper.server.activities.pop()
    paper.server.faults = []
    assert paper.reconcile() == ""
    paper.check({"AAPL": 10})


@pytest.mark.parametrize(
    "change",
    [
        {"type": "trade_bust", "id": "another"},
        pytest.param({"type": "trade_correct", "id": "another"}, marks=SLOW),
        pytest.param({"transaction_time": "2150-01-01T00:00:00Z"}, marks=SLOW),
        {"transaction_time": "2024-03-05T23:30:00Z"},  # of the same evening, which is still to come
        pytest.param({"order_id": SECRET}, marks=SLOW),
        {"id": SECRET},
    ],
)
def test_a_fill_that_cannot_be_is_not_booked(paper, change):
    paper.server.auction_shares = {"AAPL": 5}
    paper.evening(MONDAY, AAPL=10)
    paper.server.advance(AFTERNOON)
    fill = paper.server.activities.pop()
    paper.server.activities += [fill, {**fill, **change}] if "type" in change else [{**fill, **change}]
    assert paper.reconcile() == "broker" and SECRET not in str(paper.halt)
    with Journal.read(paper.folder) as journal:
        assert journal.fills() == []
    assert not [path for path in paper.folder.iterdir() if SECRET.encode() in path.read_bytes()]
    paper.server.activities[:] = [fill]
    assert paper.reconcile() == ""
    paper.check({"AAPL": 5})


@pytest.mark.parametrize(
    "key",
    [
        SECRET,
        SECRET.upper(),
        *(pytest.param(form, marks=SLOW) for form in (SECRET[:20], "-".join(SECRET), SECRET.encode().hex(), KEY)),
    ],
    ids=["whole", "upper case", "half", "spread", "hexadecimal", "the other key"],
)
def test_an_order_whose_id_or_stock_at_the_broker_is_a_key_is_kept_nowhere(paper, key):
    paper.evening(MONDAY, AAPL=10)
    order = next(iter(paper.server.orders.values()))
    for field in ("id", "client_order_id", "symbol"):
        kept, order[field] = order[field], key
        assert paper.reconcile() in ("broker", "unknown_order")
        assert key not in str(paper.halt)
        paper.resume()
        order[field] = kept
    paper.server._hold(key, 3)
    assert paper.reconcile() == "broker" and key not in str(paper.halt)
    assert not [path for path in paper.folder.iterdir() if key.encode() in path.read_bytes()]


def test_a_trade_by_hand_for_an_amount_of_money_halts_and_resume_goes_on(paper):
    assert paper.evening(MONDAY, AAPL=10) == ""
    paper.server.advance(AFTERNOON)
    assert paper.reconcile() == ""
    paper.server.trade_by_hand("AAPL", "sell", 3, "99")
    list(paper.server.orders.values())[-1].update(qty=None, notional="297", client_order_id="by hand, in dollars")
    assert paper.reconcile() == "unknown_order"
    paper.resume()
    assert paper.reconcile() == ""
    with Journal.read(paper.folder) as journal:
        assert journal.positions() == {"AAPL": 7 * 10**9}


def test_many_trades_by_hand_are_one_halt_and_resume_accepts_just_these(paper):
    assert paper.reconcile() == ""
    paper.server.advance(at("2024-03-04 19:06"))
    for n in range(6):
        paper.server.trade_by_hand(f"S{n}", "buy", 1, "10")
    assert paper.reconcile() == "unknown_order" and "6 fills" in str(paper.halt)
    paper.resume()
    paper.server.trade_by_hand("S6", "buy", 1, "10")
    assert paper.reconcile() == "unknown_order" and "7 fills" in str(paper.halt)
    paper.resume()
    assert paper.reconcile() == ""
    with Journal.read(paper.folder) as journal:
        assert journal.positions() == {f"S{n}": 10**9 for n in range(7)}
        assert journal.cash() == (100_000 - 70) * 10**6


@SLOW
def test_an_open_order_by_hand_for_an_amount_of_money_halts_by_its_name(paper):
    assert paper.reconcile() == ""
    order = paper.server._new_order({"symbol": "NVDA", "qty": 1, "side": "buy", "client_order_id": "any words"})
    order.update(qty=None, notional="50", type="limit")
    assert paper.evening(MONDAY, AAPL=10) == "unknown_order" and "for 50 USD NVDA" in str(paper.halt)
    order["status"] = "canceled"
    assert paper.evening(MONDAY, AAPL=10) == "" and len(paper.server.posted) == 1


@pytest.mark.parametrize("flag", [{"trading_blocked": True}, {"status": "ACCOUNT_CLOSED"}])
def test_an_account_that_is_blocked_later_halts_before_anything_is_rejected(paper, flag):
    assert paper.reconcile() == ""
    answers(paper.server, "_account", lambda row: {**row, **flag})
    assert paper.evening(MONDAY, AAPL=10) == "broker" and "blocked" in str(paper.halt)
    assert paper.server.posted == []


@SLOW
def test_an_account_that_changes_between_two_requests_halts(paper):
    paper.evening(MONDAY, AAPL=10)
    ids = iter([paper.server.account_id, "another", paper.server.account_id, "another"])
    answers(paper.server, "_account", lambda row: {**row, "id": next(ids)})
    assert paper.reconcile() == "broker" and "of another account" in str(paper.halt)


def test_an_account_for_paper_alone_trades_and_one_without_cash_begins_no_journal(paper):
    answers(paper.server, "_account", lambda row: {**row, "status": "PAPER_ONLY"})
    paper.server.cash *= 0
    assert paper.evening(MONDAY, AAPL=10) == "cash"
    assert not (paper.folder / "journal.sqlite").exists()
    paper.server.cash += 100_000
    assert paper.evening(MONDAY, AAPL=10) == "" and len(paper.server.posted) == 1


def test_what_was_booked_before_the_journal_began_is_in_its_capital_also_if_it_is_listed_by_its_date(paper):
    paper.server.book("CSD", "100000", moves=False)  # as of the day when the account was made
    paper.server.trade_by_hand("AAPL", "buy", 3, "99")
    paper.server.trade_by_hand("AAPL", "sell", 3, "99")
    assert paper.reconcile() == ""
    answers(paper.server, "_activities", lambda _: paper.server.activities)  # `after` is read as a date alone
    assert paper.evening(MONDAY, AAPL=10) == "" and len(paper.server.posted) == 1


def test_a_computer_that_slept_between_two_orders_sends_the_second_to_no_other_auction(paper):
    slept = iter([0.0, 0.0, 24 * 3600.0])  # at the broker's clock, the first order, the second
    trading = desk(paper.server.url, clocks=(lambda: 0.0, lambda: next(slept)))  # one clock stands still meanwhile
    with opened(paper.folder, trading) as journal:
        journal.plan(MONDAY, orders_of(journal, MONDAY, {"AAPL": 10, "MSFT": 4}))
        trading.send(journal, EVENING)
        assert [order.status for order in journal.orders()] == ["accepted", "planned"]
    paper.server.advance(EVENING + timedelta(days=1))
    assert paper.evening(TUESDAY) == "" and len(paper.server.posted) == 1
    assert paper.statuses() == {"03-04 AAPL": "filled", "03-04 MSFT": "expired"}


def test_two_traders_on_one_account_that_begin_at_once_stop_after_one_order_each(paper):
    other = Paper(paper.server, paper.folder.with_name("other"))
    assert paper.reconcile() == other.reconcile() == ""  # two journals, both of a flat account
    real = paper.server._post

    def post(body):
        """The other trader has looked before, and sends between our look and our order."""
        paper.server._post = real
        paper.server._new_order({"symbol": "AAPL", "qty": 10, "side": "buy", "client_order_id": "other-20240304-AAPL"})
        return real(body)

    paper.server._post = post
    assert paper.evening(MONDAY, AAPL=10, MSFT=4) == "unknown_order"
    assert len(paper.server.posted) == 1 and paper.statuses()["03-04 MSFT"] == "planned"
    assert other.evening(MONDAY, AAPL=10) == "unknown_order" and len(paper.server.posted) == 1


@SLOW
def test_a_journal_that_was_copied_to_another_machine_sends_no_order_again(paper, tmp_path):
    assert paper.reconcile() == ""
    copy = Paper(paper.server, tmp_path / "copy")
    copy.folder.mkdir()
    (copy.folder / "journal.sqlite").write_bytes((paper.folder / "journal.sqlite").read_bytes())
    assert paper.evening(MONDAY, AAPL=10, MSFT=4) == ""
    copy.evening(MONDAY, AAPL=10, MSFT=4)
    assert len(paper.server.ids()) == 2
    paper.server.advance(AFTERNOON)
    assert paper.reconcile() == ""
    paper.check({"AAPL": 10, "MSFT": 4})


def test_a_journal_from_a_backup_before_the_orders_books_their_fills_and_sends_none_again(paper):
    assert paper.reconcile() == ""
    with opened(paper.folder, trading := desk(paper.server.url)) as journal:
        journal.plan(MONDAY, orders_of(journal, MONDAY, {"AAPL": 10}))
    backup = (paper.folder / "journal.sqlite").read_bytes()
    assert paper.evening(MONDAY, AAPL=10) == ""
    (paper.folder / "journal.sqlite").write_bytes(backup)
    assert paper.evening(MONDAY, AAPL=10) == "unknown_order" and len(paper.server.ids()) == 1
    paper.server.advance(AFTERNOON)
    assert paper.reconcile() == "" and paper.statuses() == {"03-04 AAPL": "expired"}
    assert trading.now() == paper.server.now
    paper.check({"AAPL": 10})


@SLOW
def test_a_journal_that_is_deleted_begins_no_other_while_orders_or_positions_are_there(paper):
    assert paper.evening(MONDAY, AAPL=10) == ""
    (paper.folder / "journal.sqlite").unlink()
    assert paper.evening(MONDAY, AAPL=10) == "unknown_order"
    paper.server.advance(AFTERNOON)
    assert paper.evening(TUESDAY, AAPL=10) == "unknown_position" and len(paper.server.posted) == 1


@pytest.mark.parametrize(
    "number", ["1e99999999999999999", "1_000", "\u0661", " 1", "0x10", "1e30", "-1e30", "sNaN", [], {}]
)
@pytest.mark.parametrize("field", ["qty", "net_amount"])
def test_a_number_of_an_entry_that_is_none_halts(number, field):
    entry = {"activity_type": "FEE", "id": "1", "date": MONDAY, "qty": "", "net_amount": None}
    assert activity_of(entry).cash_micro == 0
    with pytest.raises(Halt, match=rf"activity\.{field} is"):
        activity_of({**entry, field: number})


def test_an_account_that_could_not_begin_leaves_nothing_that_a_status_would_take_for_one(paper, tmp_path):
    paper.server._hold("AAPL", 3)
    folder = tmp_path / "paper" / "alpaca"
    with pytest.raises(Halt, match="begin with a fresh paper account"):
        Journal.open(folder, {"desk": "alpaca"}, begin=desk(paper.server.url).opening)
    assert not (folder / "journal.sqlite").exists()
    (folder / "journal.sqlite").touch()  # as a kill in the middle leaves it
    with pytest.raises(UserError, match="has no paper account yet"):
        account_folder(tmp_path)
    paper.server.positions.clear()
    Journal.open(folder, {"desk": "alpaca"}, begin=desk(paper.server.url).opening).close()
    assert account_folder(tmp_path) == folder


def test_open_orders_without_end_halt(paper, monkeypatch):
    monkeypatch.setattr("hfinference.live.brokers.MOST_PAGES", 3)
    monkeypatch.setattr("hfinference.live.brokers.MOST_ORDERS", 2)
    real, count = paper.server.answer, iter(range(10**6))

    def answer(method, path, query, body):
        if (method, path) != ("GET", "/orders"):
            return real(method, path, query, body)
        return 200, [{"client_order_id": str(next(count)), "submitted_at": "2024-03-04T19:00:00Z"} for _ in range(2)]

    paper.server.answer = answer
    assert paper.evening(MONDAY, AAPL=10) == "broker" and "more than 6 open orders" in str(paper.halt)


def test_a_key_where_the_address_belongs_is_not_shown():
    with pytest.raises(ConfigError, match="is not of the form") as refused:
        Alpaca(environment={**KEYS, "APCA_API_BASE_URL": SECRET})
    assert SECRET not in str(refused.value)


@contextmanager
def raw_server(answer: bytes, drop: bytes = b""):
    """Sends these bytes to whoever connects, then a drop again and again; gives its address."""
    listening, done = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(2**16)
            connection.sendall(answer)
            while drop and not done.wait(0.02):
                try:
                    connection.sendall(drop)
                except OSError:
                    return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        done.set()
        thread.join()
        listening.close()


def test_headers_that_trickle_for_ever_are_given_up_at_the_deadline():
    with raw_server(b"HTTP/1.1 200 OK\r\nX-Long: ", drop=b"a") as url:
        began = time.process_time()
        with pytest.raises(Unreachable, match=r"within 0\.2 s"):
            Alpaca(url, environment=KEYS, timeout=0.2, tries=1).account()
        assert time.process_time() - began < 5  # it came back at all, and did not spin


def test_an_answer_that_is_cut_within_its_headers_is_none():
    with raw_server(b"HTTP/1.1 200 OK\r\nContent-Le") as url, pytest.raises(Unreachable, match="empty answer"):
        Alpaca(url, environment=KEYS, timeout=0.5, tries=1).account()


def test_headers_that_cannot_be_read_and_hold_keys_stand_in_no_log_also_with_debug_on(capfd, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: {KEY}\r\nwith {SECRET}\r\nX-B: 1\r\n\r\n"
    with raw_server(answer.encode() + b"{}") as url, pytest.raises(Exception, match="broker"):
        Alpaca(url, environment=KEYS, timeout=0.5, tries=1).account()
    captured = capfd.readouterr()
    assert "Failed to parse headers" in caplog.text
    for text in (caplog.text, captured.out, captured.err):
        assert KEY not in text and SECRET not in text


def test_stocks_that_alpaca_cannot_have_are_refused():
    check_stocks(Exchange("NASDAQ"), ("AAPL", "BRK-B"))
    with pytest.raises(ConfigError, match="these stocks in XLON"):
        check_stocks(Exchange("XLON"), ("AAPL",))
    for name in ("BRK.B", "^GSPC", "005930.KS", "aapl", "BTC/USD"):
        with pytest.raises(ConfigError, match="no stock of the name"):
            check_stocks(Exchange("XNYS"), ("AAPL", name))
