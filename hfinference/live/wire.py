"""How answers arrive: whole, within a deadline that holds for the headers, too, of a largest size, or not at all.

What a server sends stands in no log: urllib3 warns of headers that it cannot read, and quotes them.
"""

import logging
import socket
import threading
import time
from contextlib import suppress
from typing import Any

from hftraining.core.secret import masked

MOST_BYTES = 8 * 2**20  # of an answer: a page of 500 orders has a tenth of this
LOGS = ("urllib3.connection", "urllib3.connectionpool")


def bounded_adapter(seconds: float) -> Any:
    """An adapter of requests whose answers arrive whole within so many seconds and MOST_BYTES, or raise.

    Its errors hold nothing of what came.
    """
    from requests import Response
    from requests.adapters import HTTPAdapter
    from requests.exceptions import ConnectionError as Broken
    from requests.exceptions import ReadTimeout
    from urllib3.exceptions import HTTPError, ReadTimeoutError

    class Bounded(HTTPAdapter):
        def init_poolmanager(self, *given: Any, **options: Any) -> None:
            super().init_poolmanager(*given, **options)
            self.poolmanager.pool_classes_by_scheme = _pools(seconds)

        def proxy_manager_for(self, *given: Any, **options: Any) -> Any:
            manager = super().proxy_manager_for(*given, **options)
            manager.pool_classes_by_scheme = _pools(seconds)
            return manager

        def send(self, request: Any, *_: Any, **options: Any) -> Response:
            deadline = time.monotonic() + seconds
            response = super().send(request, **{**options, "stream": True, "timeout": seconds})
            pieces, size = [], 0
            try:
                while piece := response.raw.read1(2**16, decode_content=False):
                    pieces.append(piece)
                    size += len(piece)
                    if size > MOST_BYTES:
                        raise Broken("too large an answer")
                    if time.monotonic() > deadline:
                        raise ReadTimeout("too slow an answer")
                if 300 <= response.status_code < 400:
                    raise Broken("a redirect")
            except (HTTPError, OSError) as error:  # of requests, they are OSErrors, too
                response.close()
                if isinstance(error, Broken | ReadTimeout):
                    raise
                slow = isinstance(error, ReadTimeoutError)
                raise (ReadTimeout("too slow an answer") if slow else Broken("the connection broke")) from None
            response._content, response.encoding = b"".join(pieces), "utf-8"
            return response

    for name in LOGS:
        log = logging.getLogger(name)
        if not any(isinstance(known, _Masked) for known in log.filters):
            log.addFilter(_Masked())
    return Bounded(max_retries=0)


class _Masked(logging.Filter):
    """Lets each record pass without secrets, and without the traceback of an error that quotes the server."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = masked(record.getMessage(), users=True), ()
        record.exc_info = record.exc_text = None
        return True


def _pools(seconds: float) -> dict[str, Any]:
    """The classes of pools by scheme. A server that sends a byte now and then keeps every timeout of a socket."""
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    class Cut:
        debuglevel = 0  # whatever http.client's is: it would print the keys among the headers
        sock: Any

        def getresponse(self) -> Any:
            late = threading.Event()

            def cut() -> None:
                late.set()
                with suppress(OSError, TypeError, AttributeError):  # the socket below TLS, which may be closed already
                    socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

            timer = threading.Timer(seconds, cut)
            timer.daemon = True
            timer.start()
            try:
                response = super().getresponse()  # type: ignore[misc]
            except Exception:
                if not late.is_set():
                    raise  # else our cut was the cause: said below, without words of an answer that may quote a key
            finally:
                timer.cancel()
            if late.is_set():
                raise TimeoutError("too slow headers")
            return response

    plain = type("Plain", (Cut, HTTPConnection), {})
    secure = type("Secure", (Cut, HTTPSConnection), {})
    return {
        "http": type("PlainPool", (HTTPConnectionPool,), {"ConnectionCls": plain}),
        "https": type("SecurePool", (HTTPSConnectionPool,), {"ConnectionCls": secure}),
    }
