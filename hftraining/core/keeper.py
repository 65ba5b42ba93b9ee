"""Runs a command that ends with the process that started it: `python keeper.py COMMAND...`, in a session of its own.

The starter holds the other end of standard input. The kernel closes it when the starter ends, however it does; the
command and its children are then asked to end, and killed if they do not. The keeper needs only the standard library.
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
    """Run the command; returns its exit code, 128 + n if signal n ended it.

    The process must lead its group, which `release` ends in the starter.
    """
    assert os.getpgrp() == os.getpid(), "a signal to the group would reach others"
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_end_with_keeper)
    ending = threading.Event()

    def end(number: int = 0, frame: FrameType | None = None) -> None:
        if not ending.is_set():  # the keeper is in the group, too
            ending.set()
            os.killpg(0, signal.SIGTERM)
            kill = threading.Timer(GRACE_SECONDS, os.killpg, (0, signal.SIGKILL))
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
    if ending.is_set():
        os.killpg(0, signal.SIGKILL)  # what the command started and did not end; nobody waits for its exit code
    return code if code >= 0 else 128 - code


def release(keeper: subprocess.Popen[bytes]) -> int:
    """In the starter: wait for a keeper, end what is left of its group, and return its exit code."""
    code = keeper.wait()
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(keeper.pid, signal.SIGKILL)
    return code


def _end_with_keeper() -> None:
    """In the new process: be killed should the keeper itself be."""
    with suppress(OSError, AttributeError):  # Linux alone has it
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(keep(sys.argv[1:]))
