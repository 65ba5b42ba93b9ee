"""A line for a phase that takes more than two seconds, so that nobody wonders whether a command still runs."""

import contextlib
import logging
import threading
from collections.abc import Iterator
from contextvars import ContextVar

UNSAID = 2.0  # seconds

logger = logging.getLogger("hftraining")
_is_shown: ContextVar[bool] = ContextVar("_is_shown", default=False)


@contextlib.contextmanager
def phases_shown(shown: bool = True) -> Iterator[None]:
    """Phases within say what they do; by default nothing is said, as a command with --json and a trial want it."""
    before = _is_shown.set(shown)
    try:
        yield
    finally:
        _is_shown.reset(before)


@contextlib.contextmanager
def phase(words: str) -> Iterator[None]:
    """Print and log `words ...` once what is within has taken two seconds. A phase within another one says nothing."""
    if not _is_shown.get():
        yield
        return
    timer = threading.Timer(UNSAID, _say, [words])
    timer.daemon = True  # a command that ends does not wait for it
    timer.start()
    try:
        with phases_shown(False):
            yield
    finally:
        timer.cancel()


def _say(words: str) -> None:
    with contextlib.suppress(OSError):  # nobody reads any more, which the command's next line finds out
        print(f"{words} ...", flush=True)
    logger.info("%s ...", words)
