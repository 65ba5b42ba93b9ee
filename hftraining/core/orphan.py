"""A process of a pool or launcher ends with the process that started it: nobody is left to take its result."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hftraining.core.errors import EXIT_INTERRUPTED

POLL_SECONDS = 0.5
GRACE_SECONDS = 20.0  # to save and end
_watching = threading.Lock()  # held from the first call on


@contextmanager
def ending_with_parent() -> Iterator[None]:
    """Within, and afterwards: save and end once the parent process is gone, however it ended.

    The process sends itself SIGTERM, which a training answers with a checkpoint, and exits when the work within is done
    or GRACE_SECONDS later. Does nothing in a process that multiprocessing or loky did not start, such as a command
    whose shell was closed.
    """
    parent = end_with_parent()
    try:
        yield
    finally:
        if parent is not None and os.getppid() != parent:
            os._exit(EXIT_INTERRUPTED)  # a pool would wait for its parent to take the result


def end_with_parent() -> int | None:
    """From now on, as ending_with_parent. Returns the number of the parent process, None where nothing is done."""
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid is None:
        return None
    if _watching.acquire(blocking=False):
        threading.Thread(target=_end_with, args=(parent.pid,), daemon=True).start()
    return parent.pid


def end_workers_early(launcher: object) -> None:
    """Let the workers of a joblib launcher end with this process even before their first job, which takes a second."""
    settings = getattr(launcher, "joblib", None)
    if isinstance(settings, dict) and settings.get("n_jobs") != 1:  # with one, the job runs in this process
        settings.setdefault("initializer", end_with_parent)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(EXIT_INTERRUPTED)
