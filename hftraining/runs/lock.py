"""The lock of a run folder: one process at a time writes there. The kernel frees it when its holder dies."""

import contextlib
import fcntl
import os
from pathlib import Path

from hftraining.core.errors import UserError
from hftraining.core.files import is_locked, open_lock

LOCK_FILE = ".lock"  # stays in the folder: to remove it would let two processes lock two files of this name


class FolderInUse(UserError):
    """Another process writes into this folder."""


class FolderLock:
    """Held from its making to `release`, across a renaming of the folder, or until the process dies."""

    def __init__(self, folder: Path) -> None:
        """Raises FolderInUse while another holder lives, and OSError where the file cannot be made."""
        self._handle: int | None = open_lock(folder / LOCK_FILE)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._handle, 20).decode("ascii", "replace").strip()
            self.release()
            who = f"process {holder}" if holder.isdecimal() else "another process"
            raise FolderInUse(f"{folder} is in use by {who}: wait until it ends, or end it first") from None
        except BaseException:
            self.release()
            raise
        with contextlib.suppress(OSError):  # the name of the holder is a courtesy, which a full disk may refuse
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let others in; a second call does nothing."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def is_in_use(folder: Path) -> bool:
    """Whether a living process holds the folder's lock."""
    return is_locked(folder / LOCK_FILE)
