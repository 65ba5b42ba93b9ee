"""What a study is kept in, a database or a journal file, and how its errors are told without a password.

Optuna's own lock on a journal file is replaced by one of the kernel's.
"""

import fcntl
import re
from pathlib import Path
from typing import IO

from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock


class _KernelLock(BaseJournalFileLock):
    """The journal's lock, which the kernel lets go of when its holder dies; Optuna's own would wait 30 s then."""

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
    """What a study is kept in: a database by its URL, or the journal file in the sweep's folder."""
    if url:
        options = {"connect_args": {"timeout": 120}} if url.startswith("sqlite") else {"pool_pre_ping": True}
        return RDBStorage(url, engine_kwargs=options)
    folder.mkdir(parents=True, exist_ok=True)
    path = (folder / "study.journal").resolve()
    return JournalStorage(JournalFileBackend(str(path), lock_obj=_KernelLock(path.with_suffix(".lock"))))


def without_password(url: str) -> str:
    """A URL, or a text with some, with *** for each password."""
    return re.sub(r"://([^:/@]*):[^@]*@", r"://\1:***@", url)


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, or its name, without a password."""
    return without_password(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)
