"""A stand-in for Yahoo on the loopback: a CONNECT proxy that ends TLS itself and answers cookie, crumb and charts."""

import json
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import trustme

HOSTS = ("fc.yahoo.com", "guce.yahoo.com", "consent.yahoo.com", "query1.finance.yahoo.com", "query2.finance.yahoo.com")
CHART = "/v8/finance/chart/"
REASONS = {200: "OK", 302: "Found", 404: "Not Found", 429: "Too Many Requests", 503: "Service Unavailable"}


@dataclass
class Answer:
    """One HTTP answer; with cut=True the connection closes after half of the body."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


TOO_MANY = Answer(429, b"Too Many Requests", {"Retry-After": "0"})
DOWN = Answer(503, b"<html>Service Unavailable</html>")
NO_DATA = Answer(200, json.dumps({"chart": {"result": None, "error": None}}).encode())


@dataclass
class Chart:
    """Daily bars as Yahoo sends them. rows: (date, open, high, low, close, adj close, volume)."""

    symbol: str
    rows: list[tuple]
    dividends: dict[str, float] = field(default_factory=dict)  # ex-date -> amount
    splits: dict[str, tuple[int, int]] = field(default_factory=dict)  # date -> (new shares, old shares)
    meta: dict = field(default_factory=dict)

    def body(self, first: int = 0, until: int = 2**40) -> bytes:
        """The JSON of the bars that opened from `first` to before `until` (seconds since 1970), b"" if none did."""
        rows = [row for row in self.rows if first <= _opening(row[0]) < until]
        if not rows:
            return b""
        columns = list(zip(*rows, strict=True))
        names = ("open", "high", "low", "close")
        events: dict = {}
        if self.dividends:
            events["dividends"] = {
                str(_opening(day)): {"amount": amount, "date": _opening(day)} for day, amount in self.dividends.items()
            }
        if self.splits:
            events["splits"] = {
                str(_opening(day)): {
                    "date": _opening(day),
                    "numerator": new,
                    "denominator": old,
                    "splitRatio": f"{new}:{old}",
                }
                for day, (new, old) in self.splits.items()
            }
        meta = {
            "currency": "USD",
            "symbol": self.symbol,
            "instrumentType": "EQUITY",
            "exchangeTimezoneName": "America/New_York",
            "dataGranularity": "1d",
            "validRanges": ["1d", "5d", "1mo", "1y", "max"],
            "priceHint": 2,
            **self.meta,
        }
        result = {
            "meta": meta,
            "timestamp": [_opening(day) for day in columns[0]],
            "events": events,
            "indicators": {
                "quote": [{name: columns[1 + n] for n, name in enumerate(names)} | {"volume": columns[6]}],
                "adjclose": [{"adjclose": columns[5]}],
            },
        }
        return json.dumps({"chart": {"result": [result], "error": None}}).encode()


def _opening(day: str) -> int:
    """14:30 UTC, when New York opens in winter (in summer it is an hour earlier), or the given time in UTC."""
    return int(datetime.fromisoformat(day if "T" in day else f"{day}T14:30:00").replace(tzinfo=UTC).timestamp())


class YahooServer(socketserver.ThreadingTCPServer):
    """Charts by symbol. An answer in `before` comes first, an answer in `always` replaces the chart."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        authority = trustme.CA()
        self.ca_file = str(folder / "ca.pem")
        authority.cert_pem.write_to_path(self.ca_file)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*HOSTS).configure_cert(self.tls)
        self.proxy = f"http://127.0.0.1:{self.server_address[1]}"
        self.lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        self.charts: dict[str, Chart] = {}
        self.before: dict[str, list[Answer]] = {}
        self.always: dict[str, Answer] = {}
        self.delay = 0.0  # seconds a chart takes
        self.requests: list[str] = []  # host and path of each
        self.in_clear: list[str] = []  # first lines of requests without encryption, which are answered with a chart
        self.connections = 0
        self.busy, self.most_busy = 0, 0  # charts being answered at once

    def asked_for(self, symbol: str) -> int:
        """How many chart requests named this symbol."""
        return sum(request.endswith(f"{CHART}{symbol}") for request in self.requests)

    def answer(self, host: str, target: str) -> Answer:
        parts = urlsplit(target)
        path, query = parts.path, parse_qs(parts.query)
        with self.lock:
            self.requests.append(host + path)
        if path.endswith("/getcrumb"):
            return Answer(body=b"crumb")
        if host == "fc.yahoo.com":
            return Answer(404, headers={"Set-Cookie": "A3=cookie; Domain=.yahoo.com; Path=/; Max-Age=99999; Secure"})
        if not path.startswith(CHART):
            return Answer(404)
        span = (int(query["period1"][0]), int(query["period2"][0])) if "period1" in query else ()
        return self._chart(path.removeprefix(CHART), span)

    def _chart(self, symbol: str, span: tuple[int, ...]) -> Answer:
        with self.lock:
            self.busy += 1
            self.most_busy = max(self.most_busy, self.busy)
            queued = self.before.get(symbol)
            answer = queued.pop(0) if queued else self.always.get(symbol)
        time.sleep(self.delay)
        with self.lock:
            self.busy -= 1
        if answer is None and symbol in self.charts:
            body = self.charts[symbol].body(*span)
            reason = f"Data doesn't exist for startDate = {span[:1]}, endDate = {span[1:]}"
            answer = Answer(body=body) if body else refusal(400, reason)
        return answer or refusal(404, "No data found, symbol may be delisted")


def refusal(status: int, description: str) -> Answer:
    """The JSON of an error of Yahoo."""
    error = {"code": "Not Found", "description": description}
    return Answer(status, json.dumps({"chart": {"result": None, "error": error}}).encode())


class _Handler(socketserver.BaseRequestHandler):
    server: YahooServer

    def handle(self) -> None:
        first = self._head(self.request)
        if not first.startswith("CONNECT "):
            return
        with self.server.lock:
            self.server.connections += 1
        host, _, port = first.split()[1].partition(":")
        self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        if port == "80":
            self._answer_in_clear()
            return
        try:
            with self.server.tls.wrap_socket(self.request, server_side=True) as secure:
                while head := self._head(secure):
                    method, target = head.split()[:2]
                    if not self._send(secure, method, self.server.answer(host, target)):
                        return
        except OSError:  # the client went away
            return

    def _answer_in_clear(self) -> None:
        """Answer as whoever sits between would: with a chart of his own."""
        with self.server.lock:
            self.server.in_clear.append(self._head(self.request).partition("\r\n")[0])
        chart = next(iter(self.server.charts.values()))
        self._send(self.request, "GET", Answer(body=chart.body()))

    @staticmethod
    def _head(stream: socket.socket) -> str:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = stream.recv(65536)
            if not piece:
                return ""
            data += piece
        return data.decode()

    @staticmethod
    def _send(stream: socket.socket, method: str, answer: Answer) -> bool:
        headers = {"Content-Type": "application/json", "Content-Length": str(len(answer.body)), **answer.headers}
        lines = [f"HTTP/1.1 {answer.status} {REASONS.get(answer.status, 'Answer')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        body = b"" if method == "HEAD" else answer.body
        stream.sendall("\r\n".join([*lines, "", ""]).encode() + body[: len(body) // 2 if answer.cut else None])
        if answer.cut:
            stream.unwrap()
        return not answer.cut


@contextmanager
def serving(folder: Path) -> Iterator[YahooServer]:
    """A running server, its certificate authority in `folder`."""
    with YahooServer(folder) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
