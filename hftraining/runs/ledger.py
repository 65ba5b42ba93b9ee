"""The ledger: a row for every run, trial and fine-tune ever begun, which give N, the number of trials.

It is one SQLite file a user by default, and outlives the folders of the runs: deleting bad runs does not make the
others look better. A row is written before the first step, so killed runs count too. It knows what was seen by days,
symbols and months of bars, so that no other way to name or cut the same data begins a new count.
"""

import json
import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hftraining.core.values import plain, without_nan
from hftraining.runs.ledger_check import check_run, refused
from hftraining.runs.ledger_file import LedgerError, connected, make_file, now, writing
from hftraining.runs.looks import PERIODS, Looks, packed, texts
from hftraining.runs.seen import Months, Place, span_of
from hftraining.runs.trials import Days, Trials, outcome_of, sharpe_of

RUNNING = "running"  # a killed run stays so
ENDINGS = ("done", "failed", "interrupted", "pruned")
# Of a run; without its id, uuid and folder.
FACTS = (
    *("part_of", "kind", "name", "signature", "code", "fingerprint", "symbol_set", "windows", "valid_first"),
    *("valid_last", "test_first", "test_last", "started", "ended", "status", "resumed", "valid_outcome"),
    *("valid_sharpe_1d", "test_outcome", "test_sharpe_1d", "sharpe", "result"),
)

_OF_A_RUN = "id, folder, status, signature, fingerprint"


@dataclass(frozen=True)
class Entry:
    """One row: how a run began and, once it has ended, what came of it."""

    id: int
    uuid: str | None  # of run.json; None for runs of earlier versions
    part_of: str | None  # the uuid of the trial whose fold or seed this is
    kind: str
    name: str
    folder: Path  # may be gone
    signature: str
    code: str  # the digest of its sources, or when it began where that is unknown
    fingerprint: str
    symbols: tuple[str, ...]
    windows: dict[str, str]
    started: str
    ended: str | None
    status: str  # running (or killed), done, failed, interrupted, pruned
    resumed: int  # how many times
    sharpe: float | None  # annualised
    result: dict[str, Any]
    valid: Days | None  # daily, net, fractions; None without a result, and where they were not read
    test: Days | None  # of an opened run

    @property
    def valid_window(self) -> str:
        """The validation days, first to last."""
        return self.windows["valid"]

    @property
    def test_window(self) -> str:
        """The test days, first to last; empty if they stay sealed."""
        return self.windows.get("test", "")

    def place(self, period: str) -> Place | None:
        """Where a period of this run lies; None without one."""
        span = span_of(self.windows.get(period, ""))
        return Place.of(self.symbols, *span, self.fingerprint) if span else None


class Ledger:
    """A ledger. Every method is one short transaction on its own connection.

    So any number of processes, threads and forks may share the file, which is made on first use. Raises LedgerError
    for a file that cannot be made or written, is damaged, newer than this code, not a ledger, or locked for too long.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._months: dict[str, Months] = {}
        make_file(self.path)

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
        code: str | None = None,
        started: str | None = None,
        uuid: str | None = None,
        part_of: str | None = None,
    ) -> int:
        """Write the row of a run before its first step; returns the row's id.

        windows: period -> (first day, last day), with "valid" and perhaps "test". code: the digest of the sources.
        started: ISO time, now unless given. uuid: of run.json. part_of: the uuid of a trial of several folds, which
        counts in place of its parts. `remember` has stored the months of the fingerprint.
        """
        spans = {name: window_text(span) for name, span in windows.items()}
        assert spans.get("valid"), f"a run has a validation period: {windows}"
        row: dict[str, Any] = {
            "uuid": uuid,
            "part_of": part_of,
            "kind": kind,
            "name": name,
            "folder": str(Path(folder).resolve()),
            "signature": signature,
            "code": code or started or now(),
            "fingerprint": fingerprint,
            "windows": json.dumps(spans),
            "started": started or now(),
            "status": RUNNING,
        }
        for period in PERIODS:
            row[f"{period}_first"], row[f"{period}_last"] = span_of(spans.get(period, "")) or (None, None)
        with writing(self.path) as connection:
            row["symbol_set"] = symbol_set(connection, json.dumps([str(symbol) for symbol in symbols]))
            return insert(connection, row)

    def finish(
        self,
        row_id: int,
        *,
        status: str,
        valid: Days | None = None,
        test: Days | None = None,
        sharpe: float | None = None,
        result: Mapping[str, Any] | None = None,
    ) -> None:
        """Write how a run ended: one of ENDINGS, and the daily returns of its validation and opened test days, if any.

        sharpe: annualised; result: a small summary. NaN and infinity in them become null. A result that the row has
        already is never lost: another one, of a run resumed with other code, first moves it to a row of its own.
        """
        assert status in ENDINGS, f"status={status!r} is not one of {ENDINGS}"
        values: dict[str, Any] = {"status": status, "ended": now()}
        if sharpe is not None:
            values["sharpe"] = float(sharpe) if math.isfinite(sharpe) else None
        if result is not None:
            values["result"] = json.dumps(without_nan(plain(result)), allow_nan=False)
        series = {period: days for period, days in (("valid", valid), ("test", test)) if days is not None}
        for period, days in series.items():
            bits = packed(days.returns)
            values |= {f"{period}_outcome": outcome_of(bits), f"{period}_sharpe_1d": sharpe_of(bits)}
        with writing(self.path) as connection:
            known = self._row(connection, row_id)
            if any(known[f"{period}_outcome"] not in ("", values[f"{period}_outcome"]) for period in series):
                _keep_in_a_row_of_its_own(connection, known)
            for period, days in series.items():
                dates = json.dumps([str(day)[:10] for day in days.dates])
                benchmark = None if days.benchmark is None else packed(days.benchmark)
                connection.execute(
                    "INSERT OR REPLACE INTO series VALUES (?, ?, ?, ?, ?)",
                    (row_id, period, dates, packed(days.returns), benchmark),
                )
            changes = ", ".join(f"{name} = ?" for name in values)
            connection.execute(f"UPDATE runs SET {changes} WHERE id = ?", (*values.values(), row_id))

    def resume(self, folder: Path | str, uuid: str | None = None, facts: Mapping[str, str] | None = None) -> int | None:
        """Mark a run as running again, and return its row: it stays the same trial. None for a run not known here.

        It is found by its uuid, wherever its folder lies now, and a run of an earlier version by its folder. facts: the
        signature and fingerprint that it must have, since a folder that was handed on may name the id of another run.
        """
        place = Path(folder).resolve()
        with writing(self.path) as connection:
            row = self._find(connection, place, uuid)
            if row is None:
                return None
            if any(row[name] != value for name, value in (facts or {}).items()):
                raise LedgerError(
                    f"{place}: the id in its run.json belongs to another run in {self.path}, {row['folder']}: one of "
                    "the two was copied and edited; start a new run"
                )
            here = row["folder"] if (self.path.parent / row["folder"]).is_dir() else str(place)
            connection.execute(
                "UPDATE runs SET status = ?, ended = NULL, resumed = resumed + 1, folder = ? WHERE id = ?",
                (RUNNING, here, row["id"]),
            )
            return int(row["id"])

    def is_done(self, folder: Path, uuid: str | None) -> bool:
        """Whether a run, found as by `resume`, is known here with its result."""
        with connected(self.path) as connection:
            row = self._find(connection, folder, uuid)
            return row is not None and row["status"] == "done"

    def open_test(self, row_id: int) -> int:
        """Record an opening of the run's sealed test period; returns how many there are, this one included.

        The same config, code and data again, such as a replay, repeat known numbers and count once; a run that is
        resumed during its last step has its opening already. Openings by any run count whose test days and symbols
        overlap.
        """
        with writing(self.path) as connection:
            row = self._row(connection, row_id)
            opening = {
                "run_id": row_id,
                "fingerprint": row["fingerprint"],
                "test_window": json.loads(row["windows"]).get("test", ""),
                "look": f"{row['signature']} {row['code']}",
            }
            connection.execute(
                "INSERT INTO openings (run_id, fingerprint, test_window, look, opened) "
                "SELECT :run_id, :fingerprint, :test_window, :look, :opened WHERE NOT EXISTS "
                "(SELECT 1 FROM openings WHERE run_id = :run_id AND test_window = :test_window AND look = :look)",
                opening | {"opened": now()},
            )
            looks = Looks(connection, self._months)
            return looks.trials("test", looks.place(row, "test"), row, with_days=False).direct

    def trials(self, row_id: int, own: Days | None = None) -> Trials:
        """The trials whose symbols and validation days overlap with those of a row, its own among them: N.

        own: the row's returns, which are not in the ledger yet.
        """
        return self._of_a_row("valid", row_id, own)

    def openings(self, row_id: int, own: Days | None = None) -> Trials:
        """The openings of test days that overlap, as are the symbols, with those of a row, its own among them."""
        return self._of_a_row("test", row_id, own)

    def tries(self, place: Place, period: str = "valid") -> Trials:
        """As `trials` or, with period="test", `openings`, for any symbols and days; without the days of outcomes."""
        with self._looks() as looks:
            return looks.trials(period, place, with_days=False)

    def knows_months(self, fingerprint: str) -> bool:
        """Whether the months of these bars are stored."""
        with self._looks() as looks:
            return looks.months_of(fingerprint) is not None

    def remember(self, fingerprint: str, months: Months) -> None:
        """Store the months of bars, once for all runs on them."""
        with writing(self.path) as connection:
            connection.execute(
                "INSERT OR IGNORE INTO months VALUES (?, ?, ?, ?)",
                (fingerprint, months.first, months.width, months.packed()),
            )

    def entries(self, kind: str | None = None, with_days: bool = True) -> list[Entry]:
        """Rows in the order in which they began; only those of a kind, if it is given.

        with_days: whether to read their daily returns, too, which take a hundred times as much space as the rest.
        """
        with self._looks() as looks:
            rows = looks.connection.execute(
                "SELECT runs.*, symbols FROM runs JOIN symbol_sets ON symbol_sets.id = symbol_set "
                "WHERE ? IN (kind, '') ORDER BY runs.id",
                (kind or "",),
            ).fetchall()
            try:
                ids = [row["id"] for row in rows] if with_days else []
                days = {period: looks.days(period, ids) for period in PERIODS}
                return [self._entry(row, *(days[period].get(row["id"]) for period in PERIODS)) for row in rows]
            except (ValueError, TypeError) as error:
                raise LedgerError(refused(self.path, error)) from error

    def _entry(self, row: sqlite3.Row, valid: Days | None, test: Days | None) -> Entry:
        check_run(row)
        changed = {name: json.loads(row[name]) for name in ("windows", "result")}
        changed |= {"symbols": texts(row["symbols"]), "folder": self.path.parent / row["folder"]}
        changed |= {"valid": valid, "test": test}
        return Entry(**{name: changed[name] if name in changed else row[name] for name in Entry.__dataclass_fields__})

    def _of_a_row(self, period: str, row_id: int, own: Days | None) -> Trials:
        with self._looks() as looks:
            row = self._row(looks.connection, row_id)
            return looks.trials(period, looks.place(row, period), row, own)

    def _find(self, connection: sqlite3.Connection, folder: Path, uuid: str | None) -> sqlite3.Row | None:
        place, found = folder.resolve(), None
        if uuid:
            found = connection.execute(f"SELECT {_OF_A_RUN} FROM runs WHERE uuid = ?", (uuid,)).fetchone()
        else:  # a ledger of an earlier version, opened where it lies, has folders relative to itself
            home = self.path.parent.resolve()
            inside = str(place.relative_to(home)) if place.is_relative_to(home) else str(place)
            found = connection.execute(
                f"SELECT {_OF_A_RUN} FROM runs WHERE uuid IS NULL AND folder IN (?, ?) ORDER BY id DESC",
                (str(place), inside),
            ).fetchone()
        row: sqlite3.Row | None = found
        return row

    def _row(self, connection: sqlite3.Connection, row_id: int) -> sqlite3.Row:
        row: sqlite3.Row | None = connection.execute("SELECT * FROM runs WHERE id = ?", (row_id,)).fetchone()
        if row is None:
            raise LedgerError(f"{self.path} has no row {row_id}")
        return row

    @contextmanager
    def _looks(self) -> Iterator[Looks]:
        with connected(self.path) as connection:
            yield Looks(connection, self._months)


def insert(connection: sqlite3.Connection, row: Mapping[str, Any]) -> int:
    """Insert a row of runs; returns its id."""
    columns, marks = ", ".join(row), ", ".join("?" * len(row))
    answer = connection.execute(f"INSERT INTO runs ({columns}) VALUES ({marks})", tuple(row.values()))
    assert answer.lastrowid is not None
    return answer.lastrowid


def symbol_set(connection: sqlite3.Connection, symbols: str) -> int:
    """The id of a list of symbols, as JSON, which is stored once."""
    connection.execute("INSERT OR IGNORE INTO symbol_sets (symbols) VALUES (?)", (symbols,))
    return int(connection.execute("SELECT id FROM symbol_sets WHERE symbols = ?", (symbols,)).fetchone()["id"])


def window_text(span: Any) -> str:
    """A period as text, "2011-01-03 to 2012-12-31", from its first and last day; empty for None."""
    if span is None or isinstance(span, str):
        return span or ""
    first, last = span
    return f"{str(first)[:10]} to {str(last)[:10]}"


def _keep_in_a_row_of_its_own(connection: sqlite3.Connection, row: sqlite3.Row) -> None:
    """Copy a row with its result and openings, before another result replaces them."""
    facts = {name: row[name] for name in FACTS} | {"status": "done", "ended": row["ended"] or now()}
    copy = insert(connection, {"folder": row["folder"], **facts})
    for table, columns in (
        ("series", "period, dates, returns, benchmark"),
        ("openings", "fingerprint, test_window, opened, look"),
    ):
        connection.execute(
            f"INSERT INTO {table} (run_id, {columns}) SELECT ?, {columns} FROM {table} WHERE run_id = ?",
            (copy, row["id"]),
        )
