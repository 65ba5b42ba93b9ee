"""The storage of a study, a database or a journal file, and its errors without secrets.

A lock of the kernel replaces Optuna's own on a journal file.
"""

import fcntl
import os
from pathlib import Path
from typing import IO

from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock

from hftraining.core.secret import masked


class _KernelLock(BaseJournalFileLock):
    """The journal's lock. The kernel releases it when its holder dies; Optuna's own would wait 30 s."""

    def __init__(self, journal: Path) -> None:
        self._journal, self._path = journal, journal.with_suffix(".lock")
        self._held: IO[str] | None = None

    def acquire(self) -> bool:
        self._held = open(self._path, "w")
        fcntl.flock(self._held, fcntl.LOCK_EX)
        _cut_off_last_part(self._journal)
        return True

    def release(self) -> None:
        assert self._held is not None
        self._held.close()


def _cut_off_last_part(journal: Path) -> None:
    """Cut off a last line without an end, which a killed writer or a full disk has left.

    Optuna would append to it, and the line between would make the journal unreadable for good.
    """
    with open(journal, "r+b") as file:
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
    path = (folder / "study.journal").resolve()
    return JournalStorage(JournalFileBackend(str(path), lock_obj=_KernelLock(path)))


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, or its name, without secrets."""
    return masked(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__, users=True)
