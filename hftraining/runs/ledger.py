"""The ledger: a row for every run, trial and fine-tune ever begun, which give N, the number of trials.

It is one SQLite file beside the runs and outlives their folders: deleting bad runs does not make the others look
better. A row is written before the first step, so killed runs count too.
"""

import json
import math
import sqlite3
import time
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import variance
from typing import Any

from hftraining.core.errors import UserError
from hftraining.core.values import plain, without_nan

LEDGER_FILE = "ledger.sqlite"
RUNNING = "running"  # a killed run stays so
ENDINGS = ("done", "failed", "interrupted", "pruned")
BUSY_SECONDS = 60.0  # how long a write waits for other processes
_APPLICATION_ID = 0x68667472  # "hftr": tells our file from any other SQLite file
# One tuple of statements a schema version; a file's user_version counts those that it has run.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE runs (
            id INTEGER PRIMARY KEY,
            kind TEXT NOT NULL,
            name TEXT NOT NULL,
            folder TEXT NOT NULL,
            signature TEXT NOT NULL,
            fingerprint TEXT NOT NULL,
            symbols TEXT NOT NULL,
            windows TEXT NOT NULL,
            valid_window TEXT NOT NULL,
            test_window TEXT NOT NULL,
            started TEXT NOT NULL,
            ended TEXT,
            status TEXT NOT NULL,
            resumed INTEGER NOT NULL DEFAULT 0,
            valid_dates TEXT NOT NULL DEFAULT '[]',
            valid_returns BLOB NOT NULL DEFAULT x'',
            sharpe REAL,
            result TEXT NOT NULL DEFAULT '{}'
        )""",
        "CREATE INDEX runs_of_a_window ON runs (fingerprint, valid_window)",
        "CREATE INDEX runs_of_a_folder ON runs (folder)",
        """CREATE TABLE openings (
            id INTEGER PRIMARY KEY,
            run_id INTEGER NOT NULL REFERENCES runs (id),
            fingerprint TEXT NOT NULL,
            test_window TEXT NOT NULL,
            opened TEXT NOT NULL
        )""",
        "CREATE INDEX openings_of_a_window ON openings (fingerprint, test_window)",
    ),
    # Who looked: the same config and code looking again see the same numbers, and learn nothing.
    ("ALTER TABLE openings ADD COLUMN look TEXT NOT NULL DEFAULT ''",),
)
# Openings of schema 1, without a look, count one each.
_LOOKS = "count(DISTINCT CASE openings.look WHEN '' THEN openings.id ELSE openings.look END) AS n"


class LedgerError(UserError):
    """The ledger cannot be used, or does not know a run: what, where, in one line."""


@dataclass(frozen=True)
class Entry:
    """One row: how a run began and, once it has ended, what came of it."""

    id: int
    kind: str
    name: str
    folder: Path  # may be gone
    signature: str
    fingerprint: str
    symbols: tuple[str, ...]
    windows: dict[str, Any]
    valid_window: str
    test_window: str
    started: str
    ended: str | None
    status: str  # running (or killed), done, failed, interrupted, pruned
    resumed: int  # how many times
    valid_dates: tuple[str, ...]
    valid_returns: tuple[float, ...]  # daily, net, fractions
    sharpe: float | None  # annualised
    result: dict[str, Any]


@dataclass(frozen=True)
class Trials:
    """Everything ever tried on one data fingerprint and validation period.

    Sharpe ratios are daily (not annualised), as deflation needs them, of the trials whose returns are known and vary.
    variance_1d: over trials with ddof 1, NaN for fewer than two.
    """

    count: int  # N: distinct pairs of signature and outcome; pruned, failed, killed and running runs count too
    sharpes_1d: tuple[float, ...]
    variance_1d: float
    rows: dict[str, tuple[int, ...]]  # signature -> its rows, in the order in which they began
    outcomes: dict[str, int] = field(default_factory=dict)  # signature -> number of its different results


class Ledger:
    """The ledger of one outputs folder. Every method is one short transaction on its own connection.

    So any number of processes, threads and forks may share the file, which is made on first use. Raises LedgerError
    for a file that is damaged, newer than this code, not a ledger, or locked for too long.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LedgerError(f"{self.path} cannot be made ({error.strerror})") from error
        with self._connected() as connection:
            _migrate(connection, self.path)

    def begin(
        self,
        *,
        kind: str,
        name: str,
        folder: Path,
        signature: str,
        fingerprint: str,
        symbols: Sequence[str],
        windows: Mapping[str, Any],
        started: str | None = None,
    ) -> int:
        """Write the row of a run before its first step; returns the row's id.

        windows: period -> (first day, last day), with "valid" and perhaps "test". started: ISO time, now unless given.
        """
        spans = {name: window_text(span) for name, span in windows.items()}
        assert spans.get("valid"), f"a run has a validation period: {windows}"
        row = {
            "kind": kind,
            "name": name,
            "folder": self._stored(folder),
            "signature": signature,
            "fingerprint": fingerprint,
            "symbols": json.dumps([str(symbol) for symbol in symbols]),
            "windows": json.dumps(spans),
            "valid_window": spans["valid"],
            "test_window": spans.get("test", ""),
            "started": started or _now(),
            "status": RUNNING,
        }
        columns, marks = ", ".join(row), ", ".join("?" * len(row))
        with self._writing() as connection:
            answer = connection.execute(f"INSERT INTO runs ({columns}) VALUES ({marks})", tuple(row.values()))
            assert answer.lastrowid is not None
            return answer.lastrowid

    def finish(
        self,
        row_id: int,
        *,
        status: str,
        valid_dates: Sequence[Any] = (),
        valid_returns: Sequence[float] = (),
        sharpe: float | None = None,
        result: Mapping[str, Any] | None = None,
    ) -> None:
        """Write how a run ended: one of ENDINGS, and its daily net validation returns, if any.

        sharpe: annualised; result: a small summary. NaN and infinity in them become null.
        """
        assert status in ENDINGS, f"status={status!r} is not one of {ENDINGS}"
        assert len(valid_dates) == len(valid_returns), f"{len(valid_dates)} days, {len(valid_returns)} returns"
        values = (
            status,
            _now(),
            json.dumps([str(day)[:10] for day in valid_dates]),
            array("d", (float(value) for value in valid_returns)).tobytes(),
            None if sharpe is None or not math.isfinite(sharpe) else float(sharpe),
            json.dumps(without_nan(plain(result or {})), allow_nan=False),
            row_id,
        )
        with self._writing() as connection:
            changed = connection.execute(
                "UPDATE runs SET status = ?, ended = ?, valid_dates = ?, valid_returns = ?, sharpe = ?, result = ? "
                "WHERE id = ?",
                values,
            )
            self._expect_one(changed, row_id)

    def resume(self, folder: Path | str) -> int:
        """Mark the run in a folder as running again, and return its row: it stays the same trial.

        Raises LedgerError for a run that is not in this ledger.
        """
        with self._writing() as connection:
            row_id: int | None = connection.execute(
                "SELECT max(id) AS id FROM runs WHERE folder = ?", (self._stored(Path(folder)),)
            ).fetchone()["id"]
            if row_id is None:
                raise LedgerError(f"{self.path} has no run in {folder}")
            connection.execute(
                "UPDATE runs SET status = ?, ended = NULL, resumed = resumed + 1 WHERE id = ?", (RUNNING, row_id)
            )
        return row_id

    def open_test(self, row_id: int, look: str = "") -> int:
        """Record an opening of the run's sealed test period; returns the number of openings, this one included.

        look: names config, seed and code. The same look again, such as a replay or a run resumed during its last
        step, repeats known numbers and counts once; an empty look counts each time. Openings by any run on the same
        data fingerprint and test days count.
        """
        with self._writing() as connection:
            changed = connection.execute(
                "INSERT INTO openings (run_id, fingerprint, test_window, opened, look) "
                "SELECT id, fingerprint, test_window, ?, ? FROM runs WHERE id = ?",
                (_now(), look, row_id),
            )
            self._expect_one(changed, row_id)
            answer = connection.execute(
                f"SELECT {_LOOKS} FROM openings JOIN runs USING (fingerprint, test_window) WHERE runs.id = ?",
                (row_id,),
            )
            return int(answer.fetchone()["n"])

    def openings(self, fingerprint: str, test_window: Any) -> int:
        """How often the test period of this data has been opened so far; repeated looks count once."""
        with self._connected() as connection:
            answer = connection.execute(
                f"SELECT {_LOOKS} FROM openings WHERE fingerprint = ? AND test_window = ?",
                (fingerprint, window_text(test_window)),
            )
            return int(answer.fetchone()["n"])

    def trials(self, fingerprint: str, valid_window: Any) -> Trials:
        """The trials on this data and validation period: N, and the daily Sharpe ratios known.

        A signature names config and seed: the same run twice is one trial, and two seeds are two trials. One signature
        with two different returns was tried under two versions of the code, and is two trials.
        """
        return trials_of(self.entries(fingerprint=fingerprint, valid_window=valid_window))

    def entries(
        self, *, fingerprint: str | None = None, valid_window: Any = None, kind: str | None = None
    ) -> list[Entry]:
        """Rows in the order in which they began; only those of the fingerprint, validation period or kind given."""
        wanted = {
            "fingerprint": fingerprint,
            "valid_window": None if valid_window is None else window_text(valid_window),
            "kind": kind,
        }
        given = {column: value for column, value in wanted.items() if value is not None}
        where = " AND ".join(f"{column} = ?" for column in given) or "1"
        with self._connected() as connection:
            rows = connection.execute(f"SELECT * FROM runs WHERE {where} ORDER BY id", tuple(given.values())).fetchall()
        try:
            return [self._entry(row) for row in rows]
        except (ValueError, TypeError) as error:
            raise LedgerError(f"{self.path} is damaged ({error})") from error

    def _entry(self, row: sqlite3.Row) -> Entry:
        values: dict[str, Any] = {name: row[name] for name in Entry.__dataclass_fields__}
        for name in ("symbols", "windows", "valid_dates", "result"):
            values[name] = json.loads(row[name])
        for name in ("symbols", "valid_dates"):
            values[name] = tuple(values[name])
        returns = array("d")
        returns.frombytes(row["valid_returns"])
        return Entry(**values | {"folder": self.path.parent / row["folder"], "valid_returns": tuple(returns)})

    def _stored(self, folder: Path) -> str:
        """The folder relative to the outputs folder, which may move; absolute where it lies elsewhere."""
        folder, home = Path(folder).resolve(), self.path.parent.resolve()
        return str(folder.relative_to(home) if folder.is_relative_to(home) else folder)

    def _expect_one(self, changed: sqlite3.Cursor, row_id: int) -> None:
        if changed.rowcount != 1:
            raise LedgerError(f"{self.path} has no row {row_id}")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._connected() as connection, _transaction(connection):
            yield connection

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
            try:
                connection.row_factory = sqlite3.Row
                yield connection
            finally:
                connection.close()
        except sqlite3.OperationalError as error:
            locked = "locked" in str(error) or "busy" in str(error)
            what = f"was locked by another process for {BUSY_SECONDS:.0f} s" if locked else f"cannot be used ({error})"
            raise LedgerError(f"{self.path} {what}") from error
        except sqlite3.DatabaseError as error:
            raise LedgerError(
                f"{self.path} is damaged ({error}): put back a copy, or move it away and lose its count of trials"
            ) from error


def trials_of(entries: Sequence[Entry]) -> Trials:
    """The trials in these rows, all of one data fingerprint and validation period."""
    rows: dict[str, tuple[int, ...]] = {}
    sharpes: dict[str, dict[bytes, float]] = {}  # by signature and outcome, to the bit
    for entry in entries:
        rows[entry.signature] = (*rows.get(entry.signature, ()), entry.id)
        outcomes = sharpes.setdefault(entry.signature, {})
        if entry.valid_returns:
            outcomes[array("d", entry.valid_returns).tobytes()] = daily_sharpe(entry.valid_returns)
    known = tuple(sharpe for outcomes in sharpes.values() for sharpe in outcomes.values() if math.isfinite(sharpe))
    different = {signature: len(outcomes) for signature, outcomes in sharpes.items()}
    count = sum(max(1, number) for number in different.values())
    return Trials(count, known, variance_of(known), rows, different)


def variance_of(sharpes: Collection[float]) -> float:
    """Variance (ddof 1) of the trials' Sharpe ratios; NaN for fewer than two."""
    return variance(sharpes) if len(sharpes) > 1 else math.nan


def daily_sharpe(returns: Sequence[float]) -> float:
    """Mean / standard deviation (ddof 1) of daily returns, not annualised; NaN without variance or with a NaN in it."""
    if len(returns) < 2 or not all(map(math.isfinite, returns)) or min(returns) == max(returns):
        return math.nan
    mean = math.fsum(returns) / len(returns)
    return mean / math.sqrt(math.fsum((value - mean) ** 2 for value in returns) / (len(returns) - 1))


def window_text(span: Any) -> str:
    """A period as text, "2011-01-03 to 2012-12-31", from its first and last day; empty for None."""
    if span is None or isinstance(span, str):
        return span or ""
    first, last = span
    return f"{str(first)[:10]} to {str(last)[:10]}"


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the file to the schema of this code, in one transaction."""
    with _transaction(connection):
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        ours = connection.execute("PRAGMA application_id").fetchone()[0] == _APPLICATION_ID
        if not ours and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise LedgerError(f"{path} is an SQLite file, but not a ledger")
        if version > len(MIGRATIONS):
            raise LedgerError(
                f"{path} was written by a newer version (its schema is {version}, this code knows {len(MIGRATIONS)}): "
                "update hftraining"
            )
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        if version < len(MIGRATIONS):
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    _write_ahead(connection)


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Turn on WAL, which lets readers read while one writes. SQLite does not wait for the mode, so try again."""
    deadline = time.monotonic() + BUSY_SECONDS
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
                return  # a file system without shared memory: slower, and as safe
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # with a full disk SQLite has rolled back already
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
