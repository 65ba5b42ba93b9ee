"""Runs a command that ends with the process that started it: `python keeper.py COMMAND...`.

The starter holds the other end of standard input. The kernel closes it when the starter ends, however it does; the
command and its children are then asked to end, and killed if they do not. It needs nothing but the standard library.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

GRACE_SECONDS = 20.0  # to save and end
_PR_SET_PDEATHSIG = 1


def keep(command: Sequence[str]) -> int:
    """Run the command; returns its exit code, 128 + n if signal n ended it."""
    # In its own process group, so that a signal reaches its children, too.
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_end_with_keeper)
    ending = threading.Event()

    def end(number: int = 0, frame: FrameType | None = None) -> None:
        if not ending.is_set():
            ending.set()
            _signal(child.pid, signal.SIGTERM)
            kill = threading.Timer(GRACE_SECONDS, _signal, (child.pid, signal.SIGKILL))
            kill.daemon = True
            kill.start()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        end()

    threading.Thread(target=watch, daemon=True).start()
    code = child.wait()
    _signal(child.pid, signal.SIGKILL)  # what it started and did not end
    return code if code >= 0 else 128 - code


def _end_with_keeper() -> None:
    """In the new process: be killed should the keeper itself be."""
    with suppress(OSError, AttributeError):  # Linux alone has it
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _signal(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(keep(sys.argv[1:]))
