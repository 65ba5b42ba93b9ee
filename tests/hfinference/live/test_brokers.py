"""The client of Alpaca: paper only, bounded, and no key in any text."""

import base64
import json
import logging
import re
import socket
import threading
import time
import traceback
from datetime import UTC, datetime

import pytest

from hfinference.live.answers import account_of, activity_of, clock_of, order_of, position_of, shares
from hfinference.live.brokers import PAPER, Alpaca, Refused, Unreachable, paper_address
from hfinference.live.risk import Halt
from hftraining.core.errors import ConfigError
from hftraining.core.secret import MASK, masked, remember_key
from tests.hfinference.live.alpaca_server import KEY, NEW_YORK, SECRET, Fault, alpaca_server

pytest.importorskip("alpaca", reason="alpaca-py is absent: pip install -e '.[live]'")

EVENING = datetime(2024, 3, 4, 19, 5, tzinfo=NEW_YORK)
KEYS = {"APCA_API_KEY_ID": KEY, "APCA_API_SECRET_KEY": SECRET}


@pytest.fixture
def server():
    with alpaca_server(EVENING) as running:
        running.prices = {"AAPL": 100, "MSFT": 50}
        yield running


def client(server, **settings) -> Alpaca:
    return Alpaca(server.url, environment=KEYS, **{"timeout": 0.5, "tries": 2, "pause": 0.0, **settings})


def holds_a_key(text: str) -> bool:
    """Whether six letters of a key stand in a row, whatever stands between them: without the code under test."""
    letters = re.sub("[^a-z0-9]", "", text.lower())
    forms = [KEY, SECRET, base64.b64encode(f"{KEY}:{SECRET}".encode()).decode()]
    plain = [re.sub("[^a-z0-9]", "", form.lower()) for form in forms]
    return any(form[n : n + 6] in letters for form in plain for n in range(len(form) - 5))


@pytest.mark.parametrize(
    "address",
    [
        "https://api.alpaca.markets",
        "https://API.alpaca.markets/",
        "https://api.alpaca.markets:443/v2",
        "http://paper-api.alpaca.markets",
        "https://paper-api.alpaca.markets.example.com",
        "https://paper-api.alpaca.markets@api.alpaca.markets",
        "https://api.alpaca.markets\\@paper-api.alpaca.markets",
        "https://paper-api.alpaca.markets:8443",
        "https://paper-api.alpaca.markets/v2/../x",
        "https://broker-api.alpaca.markets",
        "http://10.0.0.1:80",
        "http://127.0.0.1.example.com:80",
        "http://2130706433:80",
        "ftp://127.0.0.1:21",
        "paper-api.alpaca.markets",
        "https://[::1",
        "http://127.0.0.1:99999",
        "",
    ],
)
def test_any_address_but_that_of_paper_trading_and_of_this_machine_is_refused(address):
    with pytest.raises(ConfigError, match="the broker's address"):
        paper_address(address)


def test_the_address_of_live_money_is_refused_by_name_also_from_the_environment():
    with pytest.raises(ConfigError, match="live money, which is not built"):
        Alpaca(environment={**KEYS, "APCA_API_BASE_URL": "https://api.alpaca.markets"})


@pytest.mark.parametrize("address", [PAPER, PAPER + "/", PAPER + "/v2", "HTTPS://Paper-API.alpaca.markets:443"])
def test_all_ways_to_write_the_paper_endpoint_are_one(address):
    assert paper_address(address) == "https://paper-api.alpaca.markets"
    assert Alpaca(address, environment=KEYS).url == "https://paper-api.alpaca.markets"


@pytest.mark.parametrize("name", list(KEYS))
def test_a_missing_key_is_one_line_that_names_its_variable(name):
    with pytest.raises(ConfigError, match=f"^{name} is not set: .*APCA_API_KEY_ID and APCA_API_SECRET_KEY$"):
        Alpaca(PAPER, environment={key: value for key, value in KEYS.items() if key != name})


@pytest.mark.parametrize("key", [f'"{SECRET}"', f"{SECRET}\n", f"{SECRET} x", "short", f"{SECRET}\u00e9"])
def test_what_is_no_key_is_refused_without_being_shown(key):
    with pytest.raises(ConfigError, match="APCA_API_SECRET_KEY is not a key") as refused:
        Alpaca(PAPER, environment={**KEYS, "APCA_API_SECRET_KEY": key})
    assert not holds_a_key(str(refused.value)) and "short" not in str(refused.value)


def test_the_account_the_clock_and_an_order_are_read_as_the_server_has_them(server):
    broker = client(server)
    assert broker.account().cash_micro == 100_000_000_000
    now, opens = broker.clock()
    assert now == EVENING and opens == datetime(2024, 3, 5, 14, 30, tzinfo=UTC)
    sent = broker.send("ab12-20240304-AAPL", "AAPL", "buy", 7)
    assert sent == broker.order("ab12-20240304-AAPL")
    assert [order.client_order_id for order in broker.open_orders()] == ["ab12-20240304-AAPL"]
    assert (sent.shares_nano, sent.side, sent.status, sent.time_in_force) == (7 * 10**9, "buy", "accepted", "opg")
    server.advance(datetime(2024, 3, 5, 16, 5, tzinfo=NEW_YORK))
    (fill,) = broker.activities(EVENING)
    assert (fill.shares_nano, fill.price_micro, fill.broker_id) == (7 * 10**9, 100 * 10**6, sent.broker_id)
    assert fill.at == datetime(2024, 3, 5, 14, 30, tzinfo=UTC)
    assert broker.positions() == {"AAPL": 7 * 10**9} and broker.account().cash_micro == 99_300_000_000


def test_a_class_of_shares_is_written_with_a_dash_here_and_with_a_dot_there(server):
    server.prices["BRK.B"] = 400
    assert client(server).send("ab12-20240304-BRK-B", "BRK-B", "buy", 1).symbol == "BRK-B"
    assert [order["symbol"] for order in server.orders.values()] == ["BRK.B"]


def test_activities_of_many_pages_are_read_once_each(server):
    for _ in range(250):
        server.book("FEE", "-0.01")
    assert len({entry.entry_id for entry in client(server).activities(datetime(2024, 3, 1, tzinfo=UTC))}) == 250


@pytest.mark.parametrize("count", [499, 500, 501, 1_203])
def test_open_orders_of_many_pages_are_read_once_each(server, count):
    for n in range(count):
        server._new_order({"symbol": "AAPL", "qty": 1, "side": "buy", "client_order_id": f"{n}"})
    assert sorted(int(order.client_order_id) for order in client(server).open_orders()) == list(range(count))


def test_pages_that_turn_in_a_circle_halt(server):
    row = {"activity_type": "FEE", "id": "1", "date": "2024-03-04", "net_amount": "-1"}
    server.faults = [Fault("GET /account/activities", body=json.dumps([row] * 100), times=9)]
    with pytest.raises(Halt, match="circle"):
        list(client(server).activities(EVENING))
    row = {**GOOD_ORDER, "submitted_at": "2024-03-04T19:05:00Z"}
    server.faults = [Fault("GET /orders", body=json.dumps([row] * 500), times=9)]
    with pytest.raises(Halt, match="circle"):
        client(server).open_orders()


def test_an_order_that_the_broker_does_not_know_is_none_and_any_other_404_is_not(server):
    assert client(server).order("ab12-20240304-AAPL") is None
    for body in ["<html>not found</html>", '{"message": "endpoint not found."}', "[]", ""]:
        server.faults = [Fault("GET /orders:by", status=404, body=body, times=2)]
        with pytest.raises(Unreachable, match="404"):
            client(server).order("ab12-20240304-AAPL")


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 408, 302])
def test_a_question_that_was_not_answered_is_asked_again_and_an_order_is_not(server, status):
    server.faults = [Fault("GET /account", status=status, headers={"Location": "/v2/account"})]
    assert client(server).account().cash_micro == 100_000_000_000
    server.faults = [Fault("POST", status=status, processed=True, headers={"Location": "/v2/orders"})]
    with pytest.raises(Unreachable):
        client(server).send("ab12-20240304-AAPL", "AAPL", "buy", 7)
    assert server.posted == ["ab12-20240304-AAPL"]


@pytest.mark.parametrize("fault", [{"hang": True}, {"cut": True}, {"body": "{"}, {"body": "[" * 100_000}, {"body": ""}])
def test_no_answer_half_an_answer_and_nonsense_leave_open_what_happened(server, fault):
    server.faults = [Fault("POST", **fault)]
    with pytest.raises(Unreachable):
        client(server, timeout=0.2).send("ab12-20240304-AAPL", "AAPL", "buy", 7)


def test_an_answer_that_trickles_or_never_ends_is_cut_off(server):
    server.faults = [Fault("GET /account", body=" " * (9 * 2**20), times=2)]
    with pytest.raises(Unreachable, match="no readable answer"):
        client(server, timeout=5.0).account()
    listening = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def trickle() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while not done.wait(0.05):
                connection.sendall(b" ")

    thread = threading.Thread(target=trickle, daemon=True)
    thread.start()
    slow = Alpaca(f"http://127.0.0.1:{listening.getsockname()[1]}", environment=KEYS, timeout=0.2, tries=1)
    with pytest.raises(Unreachable, match=r"within 0\.2 s"):
        slow.account()
    done.set()
    thread.join()
    listening.close()


def test_requests_keep_a_pace_that_the_broker_allows(server):
    broker, times = client(server, pace=(3, 0.2)), []
    for _ in range(7):
        broker.account()
        times.append(time.monotonic())
    assert all(later - earlier >= 0.15 for earlier, later in zip(times, times[3:], strict=False))
    assert len(server.requests) == 7


def test_a_broker_that_is_not_there_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(Unreachable, match="try again later"):
        Alpaca(f"http://127.0.0.1:{port}", environment=KEYS, timeout=0.3, tries=2, pause=0.0).account()


def test_keys_that_the_broker_refuses_are_named_as_such(server):
    with pytest.raises(Refused, match=r"refuses the keys \(HTTP 401\): APCA_API_KEY_ID"):
        Alpaca(server.url, environment={**KEYS, "APCA_API_KEY_ID": "PKANOTHERKEY"}, tries=1).account()


@pytest.mark.parametrize("status", [401, 403, 422, 429, 500])
@pytest.mark.parametrize("request_", ["GET /account", "POST /orders"])
def test_a_key_that_the_broker_echoes_stands_in_no_error_no_chain_and_no_log(server, status, request_, caplog):
    caplog.set_level(logging.DEBUG)
    server.faults = [Fault(request_, status=status, echo=True, times=2)]
    broker = client(server)
    with pytest.raises((Refused, Unreachable)) as caught:
        broker.account() if "GET" in request_ else broker.send("ab12-20240304-AAPL", "AAPL", "buy", 1)
    error = caught.value
    text = "".join(traceback.format_exception(error)) + repr(error.__context__) + repr(vars(error)) + caplog.text
    assert MASK in text or status == 401 or (status, request_) == (403, "GET /account")
    assert not holds_a_key(text)
    assert error.__context__ is None and error.__cause__ is None


def test_a_key_among_the_values_of_an_answer_stands_in_no_halt(server):
    half = len(SECRET) // 2
    for value in (SECRET, f"{SECRET[:half]} {SECRET[half:]}", {"a": KEY}, base64.b64encode(SECRET.encode()).decode()):
        with pytest.raises(Halt) as halted:
            Alpaca(server.url, environment=KEYS)
            position_of({"symbol": "AAPL", "qty": value})
        assert not holds_a_key(str(halted.value)), value


def test_parts_of_a_key_are_masked_and_words_and_numbers_around_it_stay():
    remember_key("Zq81Lm44Vx09Tb77Rw55")
    assert masked("equity 814409 of Zq81-Lm44Vx in 2024-03-04, AAPL") == f"equity 814409 of {MASK} in 2024-03-04, AAPL"
    assert masked("before (x09Tb77) after (Lm44Vx09) end") == f"before ({MASK}) after ({MASK}) end"
    assert masked("Zq81Lm44Vx09Tb77Rw55") == MASK
    assert masked("Zq81L m, 44") == MASK  # whatever stands between its letters
    assert masked("Zq81L") == "Zq81L"


GOOD_ORDER = {"id": "1", "client_order_id": "2", "symbol": "AAPL", "qty": "3", "filled_qty": "1", "side": "buy"} | {
    "type": "market", "time_in_force": "opg", "status": "accepted",
}  # fmt: skip
GOOD_FILL = {"activity_type": "FILL", "id": "1::2", "order_id": "1", "symbol": "AAPL", "side": "buy", "qty": "1"} | {
    "price": "1.5", "transaction_time": "2024-03-05T14:30:00Z",
}  # fmt: skip
GOOD_ACCOUNT = {"id": "1", "status": "ACTIVE", "currency": "USD", "cash": "1", "equity": "1"}


@pytest.mark.parametrize("value", ["NaN", "inf", float("nan"), True, None, [], {}, "1e99", "9" * 50, "", "1,000", b"1"])
@pytest.mark.parametrize(
    ("read", "good", "field"),
    [
        (order_of, GOOD_ORDER, "qty"),
        (order_of, GOOD_ORDER, "filled_qty"),
        (activity_of, GOOD_FILL, "price"),
        (activity_of, GOOD_FILL, "qty"),
        (position_of, {"symbol": "AAPL", "qty": "1"}, "qty"),
        (account_of, GOOD_ACCOUNT, "cash"),
    ],
)
def test_what_is_no_number_halts_and_names_its_field(read, good, field, value):
    read(good)
    with pytest.raises(Halt, match=rf"\.{field} is") as halted:
        read({**good, field: value})
    assert halted.value.name == "broker"
    with pytest.raises(Halt):
        read({name: kept for name, kept in good.items() if name != field})


@pytest.mark.parametrize(
    ("read", "answer"),
    [
        (order_of, None),
        (order_of, []),
        (order_of, {**GOOD_ORDER, "status": "replaced"}),
        (order_of, {**GOOD_ORDER, "side": "hold"}),
        (order_of, {**GOOD_ORDER, "filled_qty": "4"}),
        (order_of, {**GOOD_ORDER, "qty": "0", "filled_qty": "0"}),
        (order_of, {**GOOD_ORDER, "qty": "0.0000000001"}),
        (order_of, {**GOOD_ORDER, "symbol": "../x"}),
        (order_of, {**GOOD_ORDER, "id": "1\n2"}),
        (activity_of, {**GOOD_FILL, "price": "-1"}),
        (activity_of, {**GOOD_FILL, "side": "short"}),
        (activity_of, {**GOOD_FILL, "transaction_time": "2024-03-05T14:30:00"}),
        (activity_of, {**GOOD_FILL, "transaction_time": "yesterday"}),
        (activity_of, {"activity_type": "DIV", "id": "1", "net_amount": "1"}),
        (account_of, {**GOOD_ACCOUNT, "currency": "EUR"}),
        (account_of, {**GOOD_ACCOUNT, "trading_blocked": "no"}),
        (clock_of, {"timestamp": "2024-03-05T14:30:00Z"}),
    ],
)
def test_what_cannot_be_halts(read, answer):
    with pytest.raises(Halt) as halted:
        read(answer)
    assert halted.value.name == "broker"


def test_numbers_keep_every_digit_that_counts():
    assert shares("0.123456789", "qty", "order") == 123_456_789
    assert activity_of({**GOOD_FILL, "price": "123.4567895"}).price_micro == 123_456_790
    assert activity_of({**GOOD_FILL, "side": "sell_short"}).shares_nano == -(10**9)
    assert position_of({"symbol": "AAPL", "qty": "5", "side": "short"}) == ("AAPL", -5 * 10**9)
    assert account_of({**GOOD_ACCOUNT, "status": "ACCOUNT_CLOSED"}).blocked
