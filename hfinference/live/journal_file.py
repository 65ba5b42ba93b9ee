"""The SQLite file of a journal: opened under a lock, verified, read by types, and its errors named."""

import dataclasses
import hashlib
import json
import math
import os
import secrets
import sqlite3
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from hfinference.live.entries import MOST, SCHEMA, HaltRow
from hfinference.live.risk import Halt
from hftraining.core.errors import UserError, in_a_line
from hftraining.core.files import sync
from hftraining.core.untrusted import SMALL, Untrusted, is_there, parse_json, read_text, shown
from hftraining.runs.lock import FolderLock

FILE, LATCH = "journal.sqlite", "HALT"
REPLAY = "replay"  # the fact of a replay: its first and last day
APPLICATION = 0x68667470  # in the header of the file
BUSY_SECONDS = 10.0
MOST_BYTES = 64 * 2**20  # of one value
DTYPES = ("float64", "float32", "int64", "uint8", "bool")
OWN = ("journal_id",)  # facts that a journal draws itself
ANOTHER = "take the journal from a backup, or begin another (--journal FOLDER)"
EMPTY = "{} is empty, since its maker was killed: paper trading with this journal begins it"
# What is no day or instant where one is written as text; `+0 days` makes SQLite count the days of a month.
TIMES = (
    (
        "SELECT day FROM sessions WHERE date(day, '+0 days') IS NOT day OR day NOT BETWEEN '1700' AND '2200'",
        "there is no day",
    ),
    ("SELECT day FROM arrays WHERE date(day, '+0 days') IS NOT day", "there is no day"),
    (
        "SELECT at FROM sessions WHERE at != '' AND (at NOT GLOB '*+00:00' OR "
        "datetime(at, '+0 days') IS NOT replace(substr(at, 1, 19), 'T', ' '))",
        "there is no time",
    ),
)
Row = TypeVar("Row")


class JournalFile:
    """An open journal file: facts, transactions, rows and arrays. Raises Halt (journal, disk) from any call.

    facts: what was true when it began, and journal_id, 8 hex digits drawn once. now: the time of entries.
    """

    def __init__(self, folder: Path, connection: sqlite3.Connection, lock: FolderLock | None, now: Callable[[], str]):
        self.folder = folder
        self.now = now
        self.facts: dict[str, Any] = {}
        self._connection = connection
        self._lock = lock
        self._depth = 0

    @classmethod
    def open(
        cls,
        folder: Path,
        facts: Mapping[str, Any],
        writing: bool = True,
        now: Callable[[], str] | None = None,
        begin: Callable[[], Mapping[str, Any]] = dict,
    ) -> Self:
        """The journal of a folder, made if it is absent, with its lock held, as one trader at a time does.

        facts: capital_micro among them; those of a journal that is there must be the same, or UserError is raised.
        begin: asked once, when it is made, for facts that are true then.
        writing=False: as read. Raises FolderInUse while another trader lives, and Halt.
        """
        if not writing:
            return cls.read(folder)
        if wrong := next((path for path in (folder, *folder.parents) if path.exists() and not path.is_dir()), None):
            raise UserError(f"{folder} cannot be the folder of a journal: {wrong} is a file")
        with named(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock = FolderLock(folder)
        try:
            journal = cls._connected(folder, lock, now or _utc_now, "rwc")
        except BaseException:
            lock.release()
            raise
        try:
            journal._begin(facts, begin)
        except BaseException:
            with suppress(OSError):  # what was not begun is no account
                if not journal.path.stat().st_size:
                    journal.path.unlink()
            journal.close()
            raise
        return journal

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The journal of a folder, to be read alone, also while a trader writes. UserError where there is none."""
        if not is_there(folder / FILE):
            raise UserError(f"{folder} has no journal ({FILE}): paper trading makes one")
        journal = cls._connected(folder, None, _utc_now, "rw")
        try:
            journal._query("PRAGMA query_only = ON")
            journal._verify()
        except BaseException:
            journal.close()
            raise
        return journal

    @classmethod
    def fact_of(cls, folder: Path, name: str) -> Any:
        """One fact of the journal of a folder, which is not verified; None where it has none. Raises as `read`."""
        journal = cls._connected(folder, None, _utc_now, "rw")
        try:
            found = journal._query("SELECT value FROM facts WHERE key = ?", (name,))
            return journal._parsed(found[0][0], f"the fact {name}") if found else None
        finally:
            journal._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and let others in; a second call does nothing."""
        self._connection.close()
        if self._lock is not None:
            self._lock.release()

    @property
    def path(self) -> Path:
        """Of the file."""
        return self.folder / FILE

    @property
    def id(self) -> str:
        """8 hex digits, drawn when the journal began."""
        return str(self.facts["journal_id"])

    @property
    def capital(self) -> int:
        """With which the account began, in micro-units."""
        return int(self.facts["capital_micro"])

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written within is there, or nothing. One within another belongs to it."""
        if self._depth:
            yield
            return
        self._query("BEGIN IMMEDIATE")
        self._depth = 1
        try:
            yield
            self._query("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # a full disk has rolled it back already
                self._connection.execute("ROLLBACK")
            raise
        finally:
            self._depth = 0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """All that is read within is of one moment, whatever a trader writes meanwhile."""
        self._query("BEGIN")
        try:
            yield
        finally:
            self._query("COMMIT")

    def keep(self, day: str, name: str, array: np.ndarray) -> None:
        """Write an array of a day, in place of one of that name."""
        if str(array.dtype) not in DTYPES or array.nbytes > MOST_BYTES:
            raise Halt("journal", f"{name}: {array.nbytes:,} bytes of {array.dtype} are not kept in a journal")
        data = np.ascontiguousarray(array).tobytes()
        row = day, name, str(array.dtype), json.dumps(array.shape), hashlib.sha256(data).digest(), data
        self._query("INSERT OR REPLACE INTO arrays VALUES (?, ?, ?, ?, ?, ?)", row)

    def forget(self, name: str, before: str) -> None:
        """Remove the arrays of a name of all days before one: of a state only the last is needed."""
        self._query("DELETE FROM arrays WHERE name = ? AND day < ?", (name, before))

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """The arrays of a name by day, the first day first."""
        rows = self._query("SELECT day, dtype, shape, digest, data FROM arrays WHERE name = ? ORDER BY day", (name,))
        return {row[0]: self._array(f"{name} of {shown(row[0])}", *row[1:]) for row in rows}

    def set_fact(self, name: str, value: Any) -> None:
        """Write a fact that may change, such as what the last decision has seen."""
        text = json.dumps(value, allow_nan=False)
        self._query("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, text))
        self.facts[name] = value

    def _array(self, what: str, dtype: str, shape: str, digest: bytes, data: bytes) -> np.ndarray:
        """Raises Halt for bytes that are not those of such an array."""
        axes = self._parsed(shape, what)
        is_shape = isinstance(axes, list) and all(type(axis) is int and 0 <= axis <= MOST_BYTES for axis in axes)
        if dtype in DTYPES and is_shape and math.prod(axes) * np.dtype(dtype).itemsize == len(data):
            if hashlib.sha256(data).digest() == digest:
                return np.frombuffer(data, dtype).reshape(axes)
        raise Halt("journal", f"{self.path} is damaged ({what} is not what was written): {ANOTHER}")

    def _parsed(self, text: str, what: str) -> Any:
        try:
            return parse_json(text, f"{self.path}, {what},")
        except Untrusted as error:
            raise Halt("journal", f"{error}: {ANOTHER}") from None

    def _query(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        with named(self.folder):
            return self._connection.execute(statement, values).fetchall()

    def _insert(self, table: str, row: Sequence[Any]) -> None:
        self._query(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)

    def _rows(self, table: str, kind: type[Row], where: str = "", values: Sequence[Any] = ()) -> list[Row]:
        """The rows of a table as its dataclass, whose fields are its columns."""
        names = ", ".join(field.name for field in dataclasses.fields(kind))  # type: ignore[arg-type]
        return [kind(*row) for row in self._query(f"SELECT {names} FROM {table} {where}", values)]

    @classmethod
    def _connected(cls, folder: Path, lock: FolderLock | None, now: Callable[[], str], mode: str) -> Self:
        path = folder / FILE
        if is_there(path) and not stat.S_ISREG(os.lstat(path).st_mode):
            raise Halt("journal", f"{path} is no regular file: put a copy in its place")
        with named(folder):
            uri = f"{path.absolute().as_uri()}?mode={mode}"
            connection = sqlite3.connect(uri, timeout=BUSY_SECONDS, isolation_level=None, uri=True)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES + SMALL)
        journal = cls(folder, connection, lock, now)
        try:
            journal._query("PRAGMA trusted_schema = OFF")
            journal._query("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        return journal

    def _begin(self, facts: Mapping[str, Any], begin: Callable[[], Mapping[str, Any]]) -> None:
        """Verify the file, or make its tables; a process that was killed before that has left an empty one."""
        wanted = json.loads(json.dumps(dict(facts), allow_nan=False))
        with self.transaction():
            if self._is_empty():
                values = {**wanted, **begin()}
                if "capital_micro" not in values:
                    raise UserError(EMPTY.format(self.path))
                self._query(f"PRAGMA application_id = {APPLICATION}")
                for statement in SCHEMA:
                    self._query(statement)
                for name, value in {**values, "journal_id": secrets.token_hex(4)}.items():
                    self.set_fact(name, value)
        self._verify()
        different = [name for name, value in wanted.items() if self.facts.get(name) != value]
        if different:
            name = different[0]
            raise UserError(
                f"{self.path} is of another account: {name} was {shown(json.dumps(self.facts.get(name)), 60)} and is "
                f"now {shown(json.dumps(wanted[name]), 60)}: begin another (--journal FOLDER), or remove it"
            )

    def _is_empty(self) -> bool:
        return not self._query("SELECT name FROM sqlite_master") and not self._query("PRAGMA application_id")[0][0]

    def _verify(self) -> None:
        """Raise Halt for a file that is damaged or of another schema, UserError for an empty one; read the facts."""
        if self._is_empty():
            raise UserError(EMPTY.format(self.path))
        if self._query("PRAGMA application_id")[0][0] != APPLICATION or self._schema() != sorted(SCHEMA):
            raise Halt("journal", f"{self.path} is not a journal of this version: {ANOTHER}")
        found = self._query("PRAGMA integrity_check(1)")[0][0]
        if found != "ok":
            raise Halt("journal", f"{self.path} is damaged ({shown(found)}): {ANOTHER}")
        rows = self._query("SELECT key, value FROM facts")
        self.facts = {key: self._parsed(value, f"the fact {shown(key)}") for key, value in rows}
        capital, drawn = self.facts.get("capital_micro"), self.facts.get("journal_id")
        if type(capital) is not int or not 0 < capital <= MOST or not isinstance(drawn, str):
            raise Halt("journal", f"{self.path} is damaged (capital_micro={shown(capital)}): {ANOTHER}")
        for query, wrong in TIMES:
            if found := self._query(f"{query} LIMIT 1"):
                raise Halt("journal", f"{self.path} is damaged ({wrong} {shown(found[0][0])}): {ANOTHER}")

    def _schema(self) -> list[str]:
        return sorted(row[0] for row in self._query("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"))


@contextmanager
def named(folder: Path) -> Iterator[None]:
    """What SQLite or the file system refuses is a Halt, or a UserError where another process holds the file."""
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if "locked" in text:
            raise UserError(f"{folder / FILE} is in use by another process: wait until it ends") from None
        if any(word in text for word in ("malformed", "no such table", "no such column", "integer overflow")):
            raise Halt("journal", f"{folder / FILE} is damaged ({shown(text)}): {ANOTHER}") from None
        raise Halt("disk", f"{folder / FILE} cannot be written ({shown(text)}): make room, then resume") from None
    except (sqlite3.DatabaseError, OverflowError) as error:
        raise Halt("journal", f"{folder / FILE} is damaged ({shown(error)}): {ANOTHER}") from None
    except OSError as error:
        raise Halt("disk", f"{folder} cannot be written ({error.strerror}): make room, then resume") from None


def latch_of(folder: Path) -> HaltRow | None:
    """The halt that the file HALT of a folder says, whoever made it: `NAME: reason`, or any text as by_hand."""
    path = folder / LATCH
    if not is_there(path):
        return None
    try:
        at = datetime.fromtimestamp(os.lstat(path).st_mtime, UTC).isoformat(timespec="seconds")
        text = in_a_line(read_text(path, SMALL)) or f"the file {path}"
    except (Untrusted, OSError) as error:
        at, text = "", in_a_line(str(error))
    return HaltRow(0, at, "", "by_hand", text)


def take_away(path: Path) -> None:
    """Remove a file such as HALT, if it is there. UserError for a folder, which may hold what somebody needs."""
    if path.is_dir() and not path.is_symlink():
        raise UserError(f"{path} is a folder, which is not removed here: remove it, then resume")
    with named(path.parent):
        path.unlink(missing_ok=True)
        sync(path.parent)


def _utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
