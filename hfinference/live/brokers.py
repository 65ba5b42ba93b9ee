"""A thin client of Alpaca's paper trading over alpaca-py, the only file that knows it: bounded, masked, paper only.

The keys come from the environment alone and stand in no text that leaves this file. Every request has a deadline, every
answer a largest size. A question is asked again when it was not answered; an order is sent once, and whoever sends it
looks it up by its client_order_id before anything else is done with it.
"""

import html
import ipaddress
import json
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

from hfinference.live.answers import (
    BrokerAccount,
    BrokerEntry,
    BrokerFill,
    BrokerOrder,
    OpenOrder,
    account_of,
    activity_of,
    client_order_id_of,
    clock_of,
    moment,
    open_order_of,
    order_of,
    position_of,
    rows_of,
)
from hfinference.live.risk import Halt
from hfinference.live.wire import bounded_adapter
from hftraining.core.errors import ConfigError, UserError
from hftraining.core.secret import masked, remember_key
from hftraining.core.untrusted import shown

PAPER = "https://paper-api.alpaca.markets"
PAPER_HOST = "paper-api.alpaca.markets"
URL_VARIABLE = "APCA_API_BASE_URL"
KEY_VARIABLES = ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY")
SHORTEST_KEY = 8
PAGE = 100  # activities; the broker's most
MOST_PAGES = 10_000
PER_MINUTE = 180  # requests; the broker answers 429 beyond 200
MOST_ORDERS = 500  # in one answer, the broker's most
TRY_AGAIN = "look at the account on its pages, then `resume`"
WHAT_TO_DO = "try again later: nothing is lost, what was sent is looked up first"

_PLAIN_URL = re.compile(r"[A-Za-z]+://[A-Za-z0-9.:\[\]-]+(?:/v2)?/?")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_.+/=-]+")


class Unreachable(UserError):
    """The broker did not answer, or not in a way that says what happened. Nothing is known to be wrong: try later."""


class Refused(UserError):
    """The broker answered that it does not do what was asked. http_status: of its answer; words: its own, masked."""

    def __init__(self, http_status: int, text: str, words: str) -> None:
        super().__init__(text)
        self.http_status, self.words = http_status, words

    @property
    def says_taken(self) -> bool:
        """Whether the broker has an order of this client_order_id already, as it says."""
        return self.http_status == 422 and "unique" in self.words


class Alpaca:
    """An account of Alpaca's paper trading."""

    def __init__(
        self,
        url: str | None = None,
        *,
        timeout: float = 10.0,
        tries: int = 3,
        pause: float = 1.0,
        pace: tuple[int, float] = (PER_MINUTE, 60.0),
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """Check the address and the keys; nothing is sent yet.

        url: None is that of APCA_API_BASE_URL, and without it the paper endpoint. timeout: seconds for a whole answer.
        tries: how often a question is asked. pause: seconds before it is asked again, twice as many each time.
        pace: how many requests are made at most in how many seconds.
        Raises ConfigError for another address than the paper endpoint's or the loopback, and for missing keys.
        """
        keys = _keys(environment)  # first: somebody may have put a key where the address belongs
        self.url = paper_address(url or environment.get(URL_VARIABLE) or PAPER)
        self._tries, self._pause, self._timeout = tries, pause, timeout
        self._pace, self._asked = pace[1], deque[float](maxlen=pace[0])
        self._client = _client(self.url, keys, timeout)

    def clock(self) -> tuple[datetime, datetime]:
        """The broker's clock, and the next opening of the exchange as it knows it, UTC."""
        return clock_of(self._ask("/clock"))

    def account(self) -> BrokerAccount:
        """Cash, equity, and whether it may trade."""
        return account_of(self._ask("/account"))

    def positions(self) -> dict[str, int]:
        """Nano-shares of each stock that is held, short ones negative."""
        found: dict[str, int] = {}
        for row in rows_of(self._ask("/positions"), "positions"):
            symbol, held = position_of(row)
            if symbol in found:
                raise Halt("broker", f"the broker lists the position in {symbol} twice: look at its pages, then resume")
            if held:
                found[symbol] = held
        return found

    def open_orders(self) -> list[OpenOrder]:
        """What the broker calls open, page by page in the order of their submission."""
        parameters: dict[str, Any] = {"status": "open", "limit": MOST_ORDERS, "direction": "asc"}
        found: dict[str, OpenOrder] = {}
        for _ in range(MOST_PAGES):
            rows, before = rows_of(self._ask("/orders", parameters), "orders"), len(found)
            found |= {order.client_order_id: order for order in map(open_order_of, rows)}
            if len(rows) < MOST_ORDERS:
                return list(found.values())
            if len(found) == before:
                raise Halt("broker", f"the broker's open orders turn in a circle after {before:,}: {TRY_AGAIN}")
            # A millisecond before the last: others may have been submitted at the same instant.
            last = moment(rows[-1].get("submitted_at"), "submitted_at", "order") - timedelta(milliseconds=1)
            parameters = {**parameters, "after": last.isoformat()}
        raise Halt("broker", f"the broker lists more than {len(found):,} open orders: {TRY_AGAIN}")

    def order(self, client_order_id: str) -> BrokerOrder | None:
        """The order of this id; None only where the broker says for sure that it has none."""
        try:
            found = order_of(self._ask("/orders:by_client_order_id", {"client_order_id": client_order_id}))
        except Refused as refusal:
            if refusal.http_status != 404:
                raise
            return None
        if found.client_order_id != client_order_id:
            raise Halt("broker", f"asked for order {client_order_id}, the broker shows {found.client_order_id}")
        return found

    def client_order_id(self, broker_id: str) -> str | None:
        """The client_order_id of an order, ours or another's, by the broker's own id; None where there is none."""
        try:
            return client_order_id_of(self._ask(f"/orders/{broker_id}"))
        except Refused as refusal:
            if refusal.http_status not in (404, 422):
                raise
            return None

    def activities(self, after: datetime) -> Iterator[BrokerFill | BrokerEntry]:
        """What happened to the account after a point of time, in the broker's order, which need not be that of time.

        The broker may list an activity twice.
        """
        parameters: dict[str, Any] = {"after": after.isoformat(), "direction": "asc", "page_size": PAGE}
        seen: set[str] = set()
        for _ in range(MOST_PAGES):
            rows = rows_of(self._ask("/account/activities", parameters), "activities")
            page = [activity_of(row) for row in rows]
            yield from page
            if len(rows) < PAGE:
                return
            last = page[-1].fill_id if isinstance(page[-1], BrokerFill) else page[-1].entry_id
            if last in seen:
                raise Halt("broker", f"the broker's activities turn in a circle: {TRY_AGAIN}")
            seen.add(last)
            parameters = {**parameters, "page_token": last}
        raise Halt("broker", f"the broker lists more than {MOST_PAGES * PAGE:,} activities: begin with a fresh account")

    def send(self, client_order_id: str, symbol: str, side: str, whole_shares: int) -> BrokerOrder:
        """Send a market order for the next opening auction, once.

        Raises Refused where the broker says no, Unreachable where its answer leaves open what happened: look it up.
        """
        from alpaca.trading.enums import OrderSide, TimeInForce
        from alpaca.trading.requests import MarketOrderRequest

        request = MarketOrderRequest(
            symbol=symbol.replace("-", "."),
            qty=whole_shares,
            side=OrderSide(side),
            time_in_force=TimeInForce.OPG,
            client_order_id=client_order_id,
        )
        answer = self._once(lambda: self._client.submit_order(request), "the order")
        try:
            found = order_of(answer)
        except Halt as halt:
            strange = str(halt)
        else:
            return found
        raise Unreachable(strange)

    def cancel(self, broker_id: str) -> None:
        """Ask that an order be cancelled. An order that cannot be any more is left to its own end."""
        with suppress(Refused):
            self._once(lambda: self._client.delete(f"/orders/{broker_id}"), "the cancellation")

    def _ask(self, path: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """The answer to a question, asked again where there was none."""
        pause = self._pause
        for left in reversed(range(self._tries)):
            try:
                answer = self._once(lambda: self._client.get(path, dict(parameters or {})), path)
                if answer is None:  # as of a connection that was cut within the headers
                    raise Unreachable(f"an empty answer from {self.url} to {path}: {WHAT_TO_DO}")
                return answer
            except Unreachable:
                if not left:
                    raise
            time.sleep(pause)
            pause *= 2
        raise AssertionError("a question is asked at least once")

    def _once(self, call: Callable[[], Any], what: str) -> Any:
        """The plain values of an answer. Raises Refused or Unreachable, whose chain holds no error of the library."""
        from alpaca.common.exceptions import APIError
        from requests.exceptions import RequestException, Timeout

        if len(self._asked) == self._asked.maxlen:
            time.sleep(max(0.0, self._asked[0] + self._pace - time.monotonic()))
        self._asked.append(time.monotonic())
        try:
            return call()
        except APIError as error:
            failure: UserError = _refusal(error.status_code, str(error), what)
        except Timeout:
            failure = Unreachable(f"no answer from {self.url} to {what} within {self._timeout:g} s: {WHAT_TO_DO}")
        except (RequestException, ValueError, RecursionError) as error:  # a ValueError: not JSON
            how = type(error).__name__
            failure = Unreachable(f"no readable answer from {self.url} to {what} ({how}): {WHAT_TO_DO}")
        raise failure  # outside of the except: an error of the library may hold what the server echoed


def paper_address(text: str) -> str:
    """The address that may be used: that of the paper endpoint, or one on this machine. Raises ConfigError."""
    where = f"the broker's address {shown(masked(text))}"
    if not _PLAIN_URL.fullmatch(text):
        raise ConfigError(f"{where} is not of the form {PAPER}")
    try:
        parts = urlsplit(text)
        scheme, host, port = parts.scheme.lower(), (parts.hostname or "").lower(), parts.port
    except ValueError:
        raise ConfigError(f"{where} is not of the form {PAPER}") from None
    if scheme == "https" and host == PAPER_HOST and port in (None, 443):
        return PAPER
    if scheme in ("http", "https") and _is_loopback(host) and port:
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    live = host == "api.alpaca.markets"
    why = "is that of live money, which is not built" if live else "is neither Alpaca's paper endpoint nor loopback"
    raise ConfigError(f"{where} {why}: use {PAPER}, or unset {URL_VARIABLE}")


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _keys(environment: Mapping[str, str]) -> tuple[str, str]:
    """The two keys, remembered as secrets. Raises ConfigError, without a word of what they hold."""
    found = [environment.get(name, "") for name in KEY_VARIABLES]
    for name, key in zip(KEY_VARIABLES, found, strict=True):
        if not key:
            raise ConfigError(f"{name} is not set: paper trading with Alpaca takes its keys from {listed_variables()}")
        remember_key(key)
        if len(key) < SHORTEST_KEY or not _PLAIN_KEY.fullmatch(key):
            raise ConfigError(f"{name} is not a key: copy it anew from Alpaca's page, without quotes or spaces")
    remember_key(":".join(found))
    return found[0], found[1]


def listed_variables() -> str:
    """The names of the two variables, in words."""
    return " and ".join(KEY_VARIABLES)


def _client(url: str, keys: tuple[str, str], timeout: float) -> Any:
    """A client of alpaca-py that asks once, with a deadline and a largest answer, and follows no redirect."""
    try:
        from alpaca.trading.client import TradingClient
    except ImportError:
        raise ConfigError("paper trading with Alpaca needs alpaca-py: pip install -e '.[live]'") from None
    client = TradingClient(*keys, paper=True, raw_data=True, url_override=url)
    if not {"_retry", "_session"} <= set(vars(client)):
        raise ConfigError("this alpaca-py cannot be told to send an order once: pip install 'alpaca-py>=0.44,<0.45'")
    client._retry = 0  # its constructor takes no zero; by itself it sends an order again on 429 and 504
    session = client._session
    session.headers["Accept-Encoding"] = "identity"
    session.trust_env = not _is_loopback(urlsplit(url).hostname or "")  # no proxy between us and this machine
    for scheme in ("http://", "https://"):
        session.mount(scheme, bounded_adapter(timeout))
    return client


def _refusal(status: int | None, text: str, what: str) -> UserError:
    """What an answer with an error says: Refused where it is the broker's own and final, else Unreachable."""
    message = code = None
    with suppress(ValueError, RecursionError):
        if isinstance(found := json.loads(text), dict):
            message, code = found.get("message"), found.get("code")
    words = shown(without_keys(message), 200) if isinstance(message, str) else "no message"
    if status == 401 or (status == 403 and what.startswith("/")):
        keys = f"{listed_variables()} must be those of a paper account"
        return Refused(401, f"Alpaca refuses the keys (HTTP {status}): {keys}", words)
    if status is None or status in (408, 425, 429) or status >= 500 or not isinstance(code, int):
        return Unreachable(f"the broker answers HTTP {status} to {what} ({words}): {WHAT_TO_DO}")
    return Refused(status, f"the broker refuses {what} (HTTP {status}): {words}", words)


def without_keys(text: str) -> str:
    """A text of the broker's without keys, whole or in parts, also where it wrote them for a URL or a page."""
    return masked(unquote(html.unescape(text[:10_000])))
