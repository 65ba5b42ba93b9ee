"""Taking over the ledger of one outputs folder, as earlier versions had it, into the ledger in use."""

import itertools
import os
import sqlite3
from pathlib import Path
from typing import Any

from hftraining.runs.ledger import FACTS, insert, symbol_set
from hftraining.runs.ledger_check import check_months, check_run, check_series, refused
from hftraining.runs.ledger_file import ANOTHER, LEDGER_FILE, LedgerError, connected, migrate, writing

TAKEN = f"{LEDGER_FILE}.taken-over"
# What is read of the other file. Its own id of a set of symbols means nothing here.
_ROWS = "SELECT runs.*, symbols FROM runs JOIN symbol_sets ON symbol_sets.id = symbol_set ORDER BY runs.id"


def take_over(path: Path, outputs: Path, keep: bool = False) -> str | None:
    """Copy the rows and openings of outputs/ledger.sqlite into the ledger at `path`, and rename the old file.

    Returns a line that says so; None where there is nothing to take over. A row is copied once, whoever is killed in
    between and however many processes do it at once: its uuid or, in earlier versions, its folder, time and signature
    tell it. The old file is renamed only once its rows are safe here. keep: it stays, for a ledger that is not the
    user's own must not take the count away from that one. Raises LedgerError for a damaged file.
    """
    old = outputs.resolve() / LEDGER_FILE
    if not old.is_file() or old.samefile(path):
        return None
    runs = openings = 0
    with writing(path) as connection:  # one process at a time from here on
        if not old.is_file():
            return None
        file = old.stat().st_ino
        with connected(old) as theirs:
            migrate(theirs, old)
            try:
                for row in theirs.execute(_ROWS):
                    check_run(row)  # another may have put the file there
                    opened = _copied(connection, theirs, row, old.parent)
                    runs, openings = runs + (opened is not None), openings + (opened or 0)
                for months in theirs.execute("SELECT * FROM months"):
                    check_months(*tuple(months)[1:])
                    connection.execute("INSERT OR IGNORE INTO months VALUES (?, ?, ?, ?)", tuple(months))
            except (ValueError, TypeError) as error:
                raise LedgerError(refused(old, error)) from error
            # All of it in the one file that will be renamed. Another process that still writes there comes first.
            is_whole = not theirs.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    said = f"ledger: {path} took over {runs} runs and {openings} openings of test days of {old}"
    if keep:
        return said if runs else None
    taken = _renamed(path, old, file) if is_whole else None
    return f"{said}, which is now {taken.name}" if taken else None


def _copied(ours: sqlite3.Connection, theirs: sqlite3.Connection, row: sqlite3.Row, home: Path) -> int | None:
    """Copy a row with its days and openings; returns how many openings, None for a row that is here already."""
    folder = str((home / row["folder"]).resolve())
    known = ours.execute(
        "SELECT 1 FROM runs WHERE uuid = ? OR (uuid IS ? AND folder = ? AND started = ? AND signature = ? "
        "AND valid_outcome = ?)",
        (row["uuid"], None, folder, row["started"], row["signature"], row["valid_outcome"]),
    ).fetchone()
    if known:
        return None
    facts: dict[str, Any] = {name: row[name] for name in FACTS}
    facts |= {"uuid": row["uuid"], "folder": folder, "symbol_set": symbol_set(ours, row["symbols"])}
    new = insert(ours, facts)
    copied = 0
    for table, columns in (
        ("series", "period, dates, returns, benchmark"),
        ("openings", "fingerprint, test_window, opened, look"),
    ):
        found = theirs.execute(f"SELECT {columns} FROM {table} WHERE run_id = ?", (row["id"],)).fetchall()
        for values in found if table == "series" else []:
            check_series(*values)
        marks = ", ".join("?" * (columns.count(",") + 1))
        ours.executemany(
            f"INSERT INTO {table} (run_id, {columns}) VALUES (?, {marks})", [(new, *values) for values in found]
        )
        copied = len(found)
    return copied


def _renamed(path: Path, old: Path, file: int) -> Path | None:
    """Rename the old file, whose rows are in the ledger at `path`; None if another process has done so.

    file: its inode. An earlier version that still runs makes a new file, which the next run takes over.
    """
    names = (f"{TAKEN}{ending}" for ending in itertools.chain([""], (f"-{number}" for number in itertools.count(2))))
    with writing(path):
        if not old.is_file() or old.stat().st_ino != file:
            return None
        target = next(old.with_name(name) for name in names if not old.with_name(name).exists())
        try:
            os.rename(old, target)
        except OSError as error:
            raise LedgerError(f"{old} cannot be renamed ({error.strerror}): {ANOTHER}") from error
        return target
