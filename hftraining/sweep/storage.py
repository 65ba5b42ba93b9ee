"""The storage of a study, a database or a journal file, and its errors without secrets.

A lock of the kernel replaces Optuna's own on a journal file.
"""

import fcntl
import os
from pathlib import Path
from typing import IO

from optuna.exceptions import OptunaError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock

from hftraining.core.endings import foreseen
from hftraining.core.errors import ConfigError, Ending
from hftraining.core.files import open_lock
from hftraining.core.secret import MASK, masked, masked_argument

JOURNAL = "study.journal"


class _KernelLock(BaseJournalFileLock):
    """The journal's lock. The kernel releases it when its holder dies; Optuna's own would wait 30 s."""

    def __init__(self, journal: Path) -> None:
        self._journal, self._path = journal, journal.with_suffix(".lock")
        self._held: int | None = None

    def acquire(self) -> bool:
        self._held = open_lock(self._path)
        fcntl.flock(self._held, fcntl.LOCK_EX)
        _cut_off_last_part(self._journal)
        return True

    def release(self) -> None:
        assert self._held is not None
        os.close(self._held)


def _cut_off_last_part(journal: Path) -> None:
    """Cut off a last line without an end, which a killed writer or a full disk has left.

    Optuna would append to it, and the line between would make the journal unreadable for good.
    """
    with open(os.open(journal, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "r+b") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end and not _ends_a_line(file, end):
            start = max(0, end - 65536)
            file.seek(start)
            end = start + file.read(end - start).rfind(b"\n") + 1
        if end < size:
            file.truncate(end)


def _ends_a_line(file: IO[bytes], end: int) -> bool:
    file.seek(end - 1)
    return file.read(1) == b"\n"


def open_storage(url: str, folder: Path) -> BaseStorage:
    """The storage of a study: a database by its URL, or the journal file in the sweep's folder."""
    if url:
        options = {"connect_args": {"timeout": 120}} if url.startswith("sqlite") else {"pool_pre_ping": True}
        return RDBStorage(url, engine_kwargs=options)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.resolve() / JOURNAL
    return JournalStorage(JournalFileBackend(str(path), lock_obj=_KernelLock(path)))


def storage_error(error: Exception, url: str, folder: Path) -> ConfigError | None:
    """The line for what opening a study has raised; None for what others explain, and for a fault of ours.

    A damaged line of a journal makes Optuna raise anything.
    """
    if not url:
        if isinstance(error, Ending) or foreseen(error):
            return None
        return ConfigError(f"{folder / JOURNAL} is damaged: {type(error).__name__}: {first_line(error)}")
    # SQLAlchemy, which has errors of its own, is not imported for a journal file.
    known = isinstance(error, OptunaError | ImportError | ValueError | OSError)
    if not known and "sqlalchemy" not in type(error).__module__:
        return None
    shown = masked_argument(url) if "://" in url else f"{MASK} (no URL such as sqlite:///study.db)"
    return ConfigError(f"search.storage={shown}: {first_line(error)}")


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, or its name, without secrets."""
    return masked(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__, users=True)
