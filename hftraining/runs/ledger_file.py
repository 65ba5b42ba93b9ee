"""The SQLite file of a ledger: where it lies, its tables and their history, and its short transactions."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from platformdirs import user_state_path

from hftraining.core.endings import is_full
from hftraining.core.errors import UserError
from hftraining.runs.ledger_check import strange_schema
from hftraining.runs.trials import outcome_of, sharpe_of

LEDGER_FILE = "ledger.sqlite"
BUSY_SECONDS = 60.0  # how long a write waits for other processes
ANOTHER = "evidence.ledger=PATH names another place"
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
    # What was seen: days that can be compared, months of bars, and all daily returns, apart from the rows that counting
    # reads. uuid: of run.json, NULL in rows of earlier versions, which are found by their folder. part_of: the uuid of
    # the trial whose fold or seed this is. code: its digest or, where that is unknown, the time at which the run began.
    (
        "CREATE TABLE symbol_sets (id INTEGER PRIMARY KEY, symbols TEXT NOT NULL UNIQUE)",
        "INSERT INTO symbol_sets (symbols) SELECT DISTINCT symbols FROM runs",
        "CREATE TABLE months (fingerprint TEXT PRIMARY KEY, first INTEGER NOT NULL, width INTEGER NOT NULL, "
        "digests BLOB NOT NULL)",
        """CREATE TABLE series (
            run_id INTEGER NOT NULL REFERENCES runs (id),
            period TEXT NOT NULL,
            dates TEXT NOT NULL,
            returns BLOB NOT NULL,
            benchmark BLOB,
            PRIMARY KEY (run_id, period)
        )""",
        "INSERT INTO series SELECT id, 'valid', valid_dates, valid_returns, NULL FROM runs WHERE valid_returns != x''",
        """CREATE TABLE runs_of_now (
            id INTEGER PRIMARY KEY,
            uuid TEXT UNIQUE,
            part_of TEXT,
            kind TEXT NOT NULL,
            name TEXT NOT NULL,
            folder TEXT NOT NULL,
            signature TEXT NOT NULL,
            code TEXT NOT NULL,
            fingerprint TEXT NOT NULL,
            symbol_set INTEGER NOT NULL REFERENCES symbol_sets (id),
            windows TEXT NOT NULL,
            valid_first TEXT NOT NULL,
            valid_last TEXT NOT NULL,
            test_first TEXT,
            test_last TEXT,
            started TEXT NOT NULL,
            ended TEXT,
            status TEXT NOT NULL,
            resumed INTEGER NOT NULL DEFAULT 0,
            valid_outcome TEXT NOT NULL DEFAULT '',
            valid_sharpe_1d REAL,
            test_outcome TEXT NOT NULL DEFAULT '',
            test_sharpe_1d REAL,
            sharpe REAL,
            result TEXT NOT NULL DEFAULT '{}'
        )""",
        """INSERT INTO runs_of_now (id, kind, name, folder, signature, code, fingerprint, symbol_set, windows,
            valid_first, valid_last, test_first, test_last, started, ended, status, resumed,
            valid_outcome, valid_sharpe_1d, sharpe, result)
        SELECT runs.id, kind, name, folder, signature, started, fingerprint, symbol_sets.id, windows,
            substr(valid_window, 1, instr(valid_window, ' to ') - 1),
            substr(valid_window, instr(valid_window, ' to ') + 4),
            CASE test_window WHEN '' THEN NULL ELSE substr(test_window, 1, instr(test_window, ' to ') - 1) END,
            CASE test_window WHEN '' THEN NULL ELSE substr(test_window, instr(test_window, ' to ') + 4) END,
            started, ended, status, resumed, outcome_of(valid_returns), sharpe_of(valid_returns), sharpe, result
        FROM runs JOIN symbol_sets USING (symbols)""",
        "DROP TABLE runs",
        "ALTER TABLE runs_of_now RENAME TO runs",
        "CREATE INDEX runs_of_a_folder ON runs (folder)",
        "CREATE INDEX runs_by_validation_days ON runs (valid_first, valid_last)",
        "CREATE INDEX runs_by_test_days ON runs (test_first, test_last)",
        "CREATE INDEX openings_of_a_run ON openings (run_id)",
        "DROP INDEX openings_of_a_window",
    ),
)


class LedgerError(UserError):
    """The ledger cannot be used, or does not know a run: what, where, in one line."""


def ledger_path(named: str | None) -> Path:
    """The ledger that evidence.ledger names, else the user's own, in the platform's folder for state.

    On Linux that is ~/.local/state/hftraining/ledger.sqlite, or below XDG_STATE_HOME. Raises LedgerError for a user
    without a home.
    """
    try:
        path = Path(named) if named else user_state_path("hftraining") / LEDGER_FILE
        return path.expanduser().absolute()
    except RuntimeError as error:
        raise LedgerError(f"the ledger {named or 'of this user'} has no place ({error}): {ANOTHER}") from error


def make_file(path: Path) -> None:
    """Make the file with its folder, or bring an older one to the schema of this code. Raises LedgerError."""
    if path.is_dir():
        raise LedgerError(f"{path} is a folder, not the file of a ledger: {ANOTHER}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LedgerError(f"{path} cannot be made ({error.strerror}): {ANOTHER}") from error
    with connected(path, "rwc") as connection:
        migrate(connection, path)


@contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """One transaction of its own connection, which no other process disturbs. Raises LedgerError."""
    with connected(path) as connection, transaction(connection):
        yield connection


@contextmanager
def connected(path: Path, mode: str = "rw") -> Iterator[sqlite3.Connection]:
    """A connection; raises LedgerError for a file that is missing, damaged, locked for too long or not writable.

    mode: rwc makes a missing file.
    """
    try:
        place = f"{path.absolute().as_uri()}?mode={mode}"
        connection = sqlite3.connect(place, timeout=BUSY_SECONDS, isolation_level=None, uri=True)
        try:
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.row_factory = sqlite3.Row
            yield connection
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        locked = "locked" in str(error) or "busy" in str(error)
        # Of a full disk SQLite may also say "disk I/O error", or "unable to open database file".
        if not locked and ("disk is full" in str(error) or is_full(path)):
            raise LedgerError(f"no space left on the disk of {path}: free some, or {ANOTHER}") from error
        what = f"was locked by another process for {BUSY_SECONDS:.0f} s" if locked else f"cannot be used ({error})"
        raise LedgerError(f"{path} {what}: {ANOTHER}") from error
    except sqlite3.DatabaseError as error:
        raise LedgerError(
            f"{path} is damaged ({error}): put back a copy, or move it away and lose its count of trials"
        ) from error


def now() -> str:
    """The time with its zone, ISO, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the file to the schema of this code, in one transaction."""
    for name, function in (("outcome_of", outcome_of), ("sharpe_of", sharpe_of)):
        connection.create_function(name, 1, function, deterministic=True)
    with transaction(connection):
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        ours = connection.execute("PRAGMA application_id").fetchone()[0] == _APPLICATION_ID
        if not ours and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise LedgerError(f"{path} is an SQLite file, but not a ledger")
        if strange := strange_schema(connection):
            raise LedgerError(f"{path} is not a ledger of ours: it holds {strange}")
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
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, and alone among the writers."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # with a full disk SQLite has rolled back already
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
