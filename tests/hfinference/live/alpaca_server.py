"""A stand-in for Alpaca's paper trading on the loopback: orders, auctions, activities, and misbehaviour on request.

Its clock stands still until a test moves it with `advance`, which holds the auctions on the way. Rules as documented:
an opg order is refused from 09:28 to 19:00 New York time and else waits for the next auction, what that leaves of it is
cancelled, a client_order_id is taken once, cash moves with fills and with what is booked.
"""

import itertools
import json
import os
import signal
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

NEW_YORK = ZoneInfo("America/New_York")
KEY, SECRET = "PKCANARY7Q2WX9ZL4TBV", "sCanary8dJq3kV5nRt7YwZ2xLmP4gHbF6cUe9aAoQ"
OPENS, CLOSES, CLOSES_EARLY = time(9, 30), time(16), time(13)
WORKING = ("accepted", "partially_filled")


@dataclass
class Fault:
    """What happens instead of a request's answer, once for each of `times`.

    request: such as "POST /orders", with which the request must begin. processed: whether the server does what it was
    asked before it misbehaves. status and body: the answer; cut: the connection closes after half of it; hang: no
    answer; echo: the answer holds the keys in many forms.
    """

    request: str
    status: int = 200
    body: str | None = None
    processed: bool = False
    cut: bool = False
    hang: bool = False
    echo: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1


@dataclass
class AlpacaServer:
    """The broker. Prices and sizes of the auctions are what the test puts into `prices` and `auction_shares`."""

    now: datetime
    cash: Decimal = Decimal("100000")
    closed: set[date] = field(default_factory=set)
    early: set[date] = field(default_factory=set)
    prices: dict[str, Decimal] = field(default_factory=dict)
    auction_shares: dict[str, int] = field(default_factory=dict)  # the most that an auction fills of a symbol
    pieces: int = 1  # fills of an order
    leaves: str = "canceled"  # the state of what the auction left
    keeps_expired_open: bool = False
    twice: bool = False  # lists every activity twice
    backwards: bool = False  # lists activities from the last to the first
    hides_open: bool = False  # lists no open orders
    hidden_fills: int = 0  # answers in which the activities miss the newest fill
    unknown_symbols: set[str] = field(default_factory=set)
    buying_power: Decimal | None = None
    positions: dict[str, Decimal] = field(default_factory=dict)
    orders: dict[str, dict] = field(default_factory=dict)
    activities: list[dict] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    posted: list[str] = field(default_factory=list)  # client_order_id of each POST that arrived
    kill: tuple[int, bool, int] | None = None  # the number of a request, whether it is done first, and whom it kills
    url: str = ""
    account_id: str = "3f1b6a52-52d2-4c1f-9f3c-0c5f2f0a7c11"

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self.closing = threading.Event()
        self.numbers = itertools.count(1)
        self.start, self.start_cash = self.now, self.cash

    # The market.

    def session(self, day: date) -> tuple[datetime, datetime] | None:
        """Opening and close of a day's session, None where there is none."""
        if day.weekday() > 4 or day in self.closed:
            return None
        close = CLOSES_EARLY if day in self.early else CLOSES
        return datetime.combine(day, OPENS, NEW_YORK), datetime.combine(day, close, NEW_YORK)

    def advance(self, to: datetime) -> None:
        """Move the clock on, through the auctions on the way."""
        with self.lock:
            assert to >= self.now
            day = self.now.astimezone(NEW_YORK).date()
            while day <= to.astimezone(NEW_YORK).date():
                session = self.session(day)
                if session and self.now < session[0] <= to:
                    self.now = session[0]
                    self._auction()
                day += timedelta(days=1)
            self.now = to

    def _auction(self) -> None:
        for order in list(self.orders.values()):
            if order["status"] != "accepted" or order.get("over"):
                continue
            left = int(Decimal(order["qty"]))
            size = min(left, self.auction_shares.get(order["symbol"], left))
            for part in self._parts(size):
                self._fill(order, part, self.prices[order["symbol"]])
            if size == left:
                order["status"] = "filled"
            elif self.keeps_expired_open:
                order["status"], order["over"] = "partially_filled" if size else "accepted", True
            else:
                order["status"] = self.leaves

    def _parts(self, size: int) -> list[int]:
        parts = [size // self.pieces] * (self.pieces - 1)
        return [part for part in [*parts, size - sum(parts)] if part]

    def _fill(self, order: dict, size: int, price: Decimal) -> None:
        signed = size if order["side"] == "buy" else -size
        self.cash -= signed * price
        self._hold(order["symbol"], signed)
        order["filled_qty"] = str(int(order["filled_qty"]) + size)
        self.activities.append(
            {
                "activity_type": "FILL",
                "id": self._activity_id(),
                "order_id": order["id"],
                "symbol": order["symbol"],
                "side": order["side"],
                "qty": str(size),
                "price": str(price),
                "cum_qty": order["filled_qty"],
                "leaves_qty": str(int(order["qty"]) - int(order["filled_qty"])),
                "transaction_time": _text(self.now),
                "type": "fill" if order["filled_qty"] == order["qty"] else "partial_fill",
            }
        )

    def _hold(self, symbol: str, signed: Decimal | int) -> None:
        held = self.positions.get(symbol, Decimal(0)) + signed
        self.positions.pop(symbol, None)
        if held:
            self.positions[symbol] = held

    def book(self, kind: str, amount: str = "0", symbol: str = "", shares: str = "0", moves: bool = True) -> None:
        """An activity that is no fill: cash and shares move with it."""
        row = {"activity_type": kind, "id": self._activity_id(), "date": self.now.date().isoformat()}
        row |= {"net_amount": amount, "symbol": symbol, "qty": shares, "at": _text(self.now)}
        self.activities.append(row)
        if moves:
            self.cash += Decimal(amount)
            if symbol and Decimal(shares):
                self._hold(symbol, Decimal(shares))

    def trade_by_hand(self, symbol: str, side: str, size: int, price: str) -> None:
        """An order that the account's owner sent past us, filled at once."""
        order = self._new_order({"symbol": symbol, "qty": size, "side": side, "client_order_id": str(uuid.uuid4())})
        self._fill(order, size, Decimal(price))
        order["status"] = "filled"

    def _activity_id(self) -> str:
        return f"{self.now.astimezone(UTC):%Y%m%d%H%M%S}000::{uuid.UUID(int=next(self.numbers))}"

    # The interface. Each method returns status and JSON.

    def answer(self, method: str, path: str, query: dict[str, str], body: dict) -> tuple[int, object]:
        """What the broker answers, after doing it."""
        match method, path.strip("/").split("/"):
            case "GET", ["clock"]:
                return 200, self._clock()
            case "GET", ["account"]:
                return 200, self._account()
            case "GET", ["account", "activities"]:
                return 200, self._activities(query)
            case "GET", ["positions"]:
                return 200, [
                    {"symbol": symbol, "qty": str(held), "side": "long" if held > 0 else "short"}
                    for symbol, held in self.positions.items()
                ]
            case "GET", ["orders"]:
                after = datetime.fromisoformat(query.get("after", "1970-01-01T00:00:00+00:00"))
                rows = [row for row in self.orders.values() if row["status"] in WORKING and not self.hides_open]
                rows = [row for row in rows if datetime.fromisoformat(row["submitted_at"]) > after]
                rows = sorted(rows, key=lambda row: row["submitted_at"], reverse=query.get("direction") != "asc")
                return 200, [_shown(row) for row in rows[: int(query.get("limit", 50))]]
            case "GET", ["orders:by_client_order_id"]:
                return self._one([o for o in self.orders.values() if o["client_order_id"] == query["client_order_id"]])
            case "GET", ["orders", broker_id]:
                return self._one([row for row in self.orders.values() if row["id"] == broker_id])
            case "DELETE", ["orders", broker_id]:
                return self._cancel(self.orders.get(broker_id))
            case "POST", ["orders"]:
                return self._post(body)
        return 404, {"message": "endpoint not found."}

    def _one(self, rows: list[dict]) -> tuple[int, object]:
        return (200, _shown(rows[0])) if rows else (404, {"code": 40410000, "message": "order not found"})

    def _clock(self) -> dict:
        today = self.now.astimezone(NEW_YORK).date()
        sessions = [self.session(today + timedelta(days=ahead)) for ahead in range(10)]
        following = next(session for session in sessions if session and session[0] > self.now)
        is_open = sessions[0] is not None and sessions[0][0] <= self.now < sessions[0][1]
        return {"timestamp": _text(self.now), "is_open": is_open, "next_open": _text(following[0])}

    def _account(self) -> dict:
        worth = self.cash + sum(held * self.prices.get(s, Decimal(1)) for s, held in self.positions.items())
        flags = {"trading_blocked": False, "account_blocked": False, "trade_suspended_by_user": False}
        return {"id": self.account_id, "status": "ACTIVE", "currency": "USD", "cash": str(self.cash)} | {
            "equity": str(worth), **flags,
        }  # fmt: skip

    def _activities(self, query: dict[str, str]) -> list[dict]:
        after = datetime.fromisoformat(query["after"])
        rows = [r for r in self.activities if datetime.fromisoformat(r.get("transaction_time") or r["at"]) > after]
        if self.hidden_fills and rows:
            self.hidden_fills -= 1
            rows = rows[:-1]
        rows = rows[::-1] if self.backwards else rows
        if "page_token" in query:
            rows = rows[[row["id"] for row in rows].index(query["page_token"]) + 1 :]
        size = int(query.get("page_size", 100))
        return [row for row in rows[: size // 2] for _ in range(2)] if self.twice else rows[:size]

    def _cancel(self, order: dict | None) -> tuple[int, object]:
        if order is None:
            return 404, {"code": 40410000, "message": "order not found"}
        if order["status"] not in WORKING or order.get("over"):
            return 422, {"code": 42210000, "message": "order is not cancelable"}
        order["status"] = "canceled"
        return 204, None

    def _post(self, body: dict) -> tuple[int, object]:
        local = self.now.astimezone(NEW_YORK).time()
        size, held = int(body["qty"]), self.positions.get(body["symbol"], Decimal(0))
        self.posted.append(body["client_order_id"])
        if body["time_in_force"] != "opg" or body["type"] != "market" or body["qty"] != size or size <= 0:
            return 422, {"code": 40010001, "message": "this server takes whole-share market orders for the opening"}
        if time(9, 28) <= local < time(19):
            return 422, {"code": 42210000, "message": "opg orders are accepted before 9:28am and after 7:00pm ET"}
        if body["client_order_id"] in {row["client_order_id"] for row in self.orders.values()}:
            return 422, {"code": 40010001, "message": "client_order_id must be unique"}
        if body["symbol"] in self.unknown_symbols:
            return 422, {"code": 42210000, "message": f'asset "{body["symbol"]}" not found'}
        if body["side"] == "sell" and 0 < held < size:
            return 403, {"code": 40310000, "message": f"insufficient qty available for order (available: {held})"}
        worth = size * self.prices[body["symbol"]]
        if body["side"] == "buy" and self.buying_power is not None and worth > self.buying_power:
            return 403, {"code": 40310000, "message": "insufficient buying power"}
        return 200, _shown(self._new_order(body))

    def _new_order(self, body: dict) -> dict:
        order = {
            "id": str(uuid.UUID(int=next(self.numbers))),
            "client_order_id": body["client_order_id"],
            "symbol": body["symbol"],
            "side": body["side"],
            "qty": str(int(body["qty"])),
            "filled_qty": "0",
            "type": "market",
            "time_in_force": "opg",
            "status": "accepted",
            "submitted_at": _text(self.now + timedelta(milliseconds=len(self.orders) // 2)),
        }
        self.orders[order["id"]] = order
        return order

    # What a test asks.

    def ids(self) -> list[str]:
        """The client_order_id of every order that was accepted."""
        return [order["client_order_id"] for order in self.orders.values()]

    def cash_of_activities(self) -> Decimal:
        """Cash as the activities say it, by another way than `cash`."""
        total = self.start_cash
        for row in self.activities:
            signed = {"buy": -1, "sell": 1}.get(row.get("side", ""), 0)
            total += signed * Decimal(row.get("qty", 0)) * Decimal(row.get("price", 0))
            total += Decimal(row.get("net_amount", 0))
        return total


class _Handler(BaseHTTPRequestHandler):
    """One request: keys, faults, the broker's answer."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet an answer: two would wait for an acknowledgement between them
    broker: AlpacaServer

    def _handle(self) -> None:
        broker, parts = self.broker, urlsplit(self.path)
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        path = parts.path.removeprefix("/v2")
        with broker.lock:
            name = f"{self.command} {path}"
            broker.requests.append(name)
            dies = broker.kill if broker.kill and broker.kill[0] == len(broker.requests) else None
            fault = next((f for f in broker.faults if name.startswith(f.request) and f.times), None)
            if fault:
                fault.times -= 1
            if self.headers.get("APCA-API-KEY-ID") != KEY or self.headers.get("APCA-API-SECRET-KEY") != SECRET:
                status, answer = 401, {"code": 40110000, "message": "request is not authorized"}
            elif dies and not dies[1]:
                status, answer = 503, None
            elif fault is None or fault.processed:
                query = {key: values[0] for key, values in parse_qs(parts.query).items()}
                status, answer = broker.answer(self.command, path, query, body)
        if dies:
            os.kill(dies[2], signal.SIGKILL)
            self.close_connection = True
            return None
        if fault is None:
            return self._reply(status, b"" if answer is None else json.dumps(answer).encode())
        return self._misbehave(fault)

    def _misbehave(self, fault: Fault) -> None:
        if fault.hang:
            self.broker.closing.wait(5)
            self.close_connection = True
            return None
        text = fault.body
        if text is None:
            message = f"it is {fault.status}"
            if fault.echo:
                spaced, half = " ".join(SECRET), len(SECRET) // 2
                message += (
                    f" for {KEY}:{SECRET}, {spaced}, {SECRET[:half]}\n{SECRET[half:]}, %50{KEY[1:]}, {self.headers}"
                )
            text = json.dumps({"code": 40010001 if fault.status < 500 else 50010000, "message": message})
        return self._reply(fault.status, text.encode(), cut=fault.cut, headers=fault.headers)

    def _reply(self, status: int, body: bytes, cut: bool = False, headers: dict | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        self.wfile.flush()
        if cut:
            self.close_connection = True

    do_GET = do_POST = do_DELETE = _handle

    def log_message(self, *_: object) -> None:
        """Be quiet."""


def _text(at: datetime) -> str:
    return f"{at.astimezone(NEW_YORK):%Y-%m-%dT%H:%M:%S.%f}123{at.astimezone(NEW_YORK):%z}"[:-2] + ":00"


def _shown(order: dict) -> dict:
    return {name: value for name, value in order.items() if name != "over"}


@contextmanager
def alpaca_server(now: datetime, **settings: object) -> Iterator[AlpacaServer]:
    """A server whose clock stands at `now`."""
    broker = AlpacaServer(now, **settings)  # type: ignore[arg-type]
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"broker": broker}))
    http.daemon_threads = True
    http.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that was killed resets its connection
    broker.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=lambda: http.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield broker
    finally:
        broker.closing.set()
        http.shutdown()
        http.server_close()
        thread.join()
