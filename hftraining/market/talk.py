"""The requests of one fetch from Yahoo: watched, unhurried, over https alone, and no more than an answer can hold."""

import email.utils
import re
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hftraining.market.wording import plain

CHART, COOKIE = "/v8/finance/chart/", "https://fc.yahoo.com"
MOST_BYTES = 2**24  # of an answer, unpacked; fifty years of bars take two million


@dataclass
class Politeness:
    """How often and how fast Yahoo is asked. Waits are in seconds."""

    tries: int = 4  # for each symbol
    first_wait: float = 1.0  # before the second try; doubles with each, plus up to as much again at random
    longest_wait: float = 60.0  # a Retry-After beyond it ends the fetch
    connect_seconds: float = 4.0
    answer_seconds: float = 15.0
    workers: int = 4


class Over(Exception):
    """Another symbol has failed; nothing more is asked."""


class Refused(Exception):
    """The server answered a chart request with an error status."""

    def __init__(self, status: int, retry_after: float | None, reason: str) -> None:
        super().__init__(f"HTTP {status} {reason}".strip())
        self.status, self.retry_after, self.reason = status, retry_after, reason


class Talk:
    """What the threads of one download share: the session, whose every request passes here, and the pauses.

    yfinance hides status and Retry-After, and answers a 429 by asking again at once; so we watch its requests.
    """

    def __init__(self, session: Any, manners: Politeness) -> None:
        self.session, self.manners = session, manners
        self.over = threading.Event()
        self.quiet_until = 0.0  # time.monotonic()
        self._request, self._options = session.request, session.curl_options
        self._cookie: Any = None

    def __enter__(self) -> "Talk":
        from curl_cffi import CurlOpt

        self.session.request = self._listened
        # An answer may lead to another https address alone, and may not unpack to more than it can hold.
        safe = {CurlOpt.PROTOCOLS_STR: "https", CurlOpt.REDIR_PROTOCOLS_STR: "https"}
        self.session.curl_options = {**self._options, **safe, CurlOpt.MAXFILESIZE_LARGE: MOST_BYTES}
        return self

    def __exit__(self, *_: object) -> None:
        del self.session.request
        self.session.curl_options = self._options

    def knock(self, url: str) -> Exception | None:
        """Why no connection to Yahoo can be made, None if one can; any answer will do."""
        from curl_cffi.requests.exceptions import RequestException, Timeout

        try:
            self._request("HEAD", url, timeout=(self.manners.connect_seconds,) * 2)
        except RequestException as error:
            if no_connection(error) or isinstance(error, Timeout):
                return error
        return None

    def pause(self, seconds: float) -> None:
        """Let no thread send a request for some seconds."""
        self.quiet_until = max(self.quiet_until, time.monotonic() + seconds)

    def await_turn(self) -> None:
        """Wait until the pauses are over."""
        while (left := self.quiet_until - time.monotonic()) > 0:
            if self.over.wait(left):
                raise Over

    def _listened(self, method: str, url: str, **options: Any) -> Any:
        if self.over.is_set():
            raise Over
        if self._cookie is not None and url.rstrip("/") == COOKIE:
            return self._cookie  # without its cache on disk, yfinance would ask for it before each chart
        options["timeout"] = (self.manners.connect_seconds, self.manners.answer_seconds)
        response = self._request(method, url, **options)
        status = response.status_code
        if url.rstrip("/") == COOKIE:
            self._cookie = response
        if CHART in url and status >= 400 and status not in (401, 403):  # which a new cookie may cure
            raise Refused(status, seconds_to_wait(response.headers.get("Retry-After")), reason_of(response))
        return response


def no_connection(error: Exception) -> bool:
    """Whether no connection was made at all, which an immediate retry will not change."""
    from curl_cffi import CurlECode
    from curl_cffi.requests.exceptions import DNSError, ProxyError, SSLError

    return isinstance(error, (DNSError, ProxyError, SSLError)) or getattr(error, "code", 0) == CurlECode.COULDNT_CONNECT


def why_unsafe(error: Exception) -> str:
    """Words for an answer that was refused as a danger; empty for other errors of curl."""
    from curl_cffi import CurlECode

    code = getattr(error, "code", 0)
    if code == CurlECode.UNSUPPORTED_PROTOCOL:
        return "leads to an address without encryption (no https)"
    return f"is larger than {MOST_BYTES:,} bytes" if code == CurlECode.FILESIZE_EXCEEDED else ""


def curl_words(error: Exception) -> str:
    """Curl's message without its advice."""
    return plain(re.sub(r"^.*?curl: \(\d+\) |\.? See https?://\S+.*$", "", str(error), flags=re.DOTALL))


def reason_of(response: Any) -> str:
    """The description in an error answer of Yahoo; empty if it is not Yahoo's JSON."""
    try:
        return plain(response.json()["chart"]["error"]["description"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""


def seconds_to_wait(retry_after: str | None) -> float | None:
    """Seconds to wait by a Retry-After header, which is a number or a date; None if it is neither."""
    try:
        return max(0.0, float(retry_after or ""))
    except ValueError:
        pass
    try:
        moment = email.utils.parsedate_to_datetime(retry_after or "")
        return max(0.0, (moment - datetime.now(moment.tzinfo)).total_seconds())
    except (ValueError, TypeError):
        return None
