"""The storage of a study, a database or a journal file, and its errors without secrets.

A lock of the kernel replaces Optuna's own on a journal file.
"""

import fcntl
from pathlib import Path
from typing import IO

from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock

from hftraining.core.secret import masked


class _KernelLock(BaseJournalFileLock):
    """The journal's lock. The kernel releases it when its holder dies; Optuna's own would wait 30 s."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: IO[str] | None = None

    def acquire(self) -> bool:
        self._held = open(self._path, "w")
        fcntl.flock(self._held, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        assert self._held is not None
        self._held.close()


def open_storage(url: str, folder: Path) -> BaseStorage:
    """The storage of a study: a database by its URL, or the journal file in the sweep's folder."""
    if url:
        options = {"connect_args": {"timeout": 120}} if url.startswith("sqlite") else {"pool_pre_ping": True}
        return RDBStorage(url, engine_kwargs=options)
    folder.mkdir(parents=True, exist_ok=True)
    path = (folder / "study.journal").resolve()
    return JournalStorage(JournalFileBackend(str(path), lock_obj=_KernelLock(path.with_suffix(".lock"))))


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, or its name, without secrets."""
    return masked(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__, users=True)
