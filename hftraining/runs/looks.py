"""The looks at some days and stocks: which rows of a ledger saw them, and what they saw."""

import functools
import json
import sqlite3
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from hftraining.runs.ledger_check import check_months
from hftraining.runs.seen import Months, Place, overlaps, plain_symbols
from hftraining.runs.trials import Days, Trials, Try, outcome_of, sharpe_of, trials_of

PERIODS = ("valid", "test")
_KEYS = "runs.id, uuid, part_of, signature, runs.fingerprint, symbol_set"
# All tries on validation days that overlap with two days, and all openings of test days that do.
_ON = {
    "valid": f"""SELECT {_KEYS}, valid_first AS first, valid_last AS last, valid_outcome AS outcome,
        valid_sharpe_1d AS sharpe_1d, signature || ' ' || code || ' ' || fingerprint AS same
        FROM runs WHERE valid_first <= ? AND valid_last >= ? ORDER BY id""",
    # Openings of schema 1, without a look, count one each.
    "test": f"""SELECT {_KEYS}, test_first AS first, test_last AS last, test_outcome AS outcome,
        test_sharpe_1d AS sharpe_1d, CASE openings.look WHEN '' THEN 'opening ' || openings.id
        ELSE openings.look || ' ' || runs.fingerprint END AS same
        FROM openings JOIN runs ON runs.id = openings.run_id WHERE test_first <= ? AND test_last >= ?
        ORDER BY openings.id""",
}


class Looks:
    """Reads a ledger through an open connection. months: of fingerprints read before, filled on the way."""

    def __init__(self, connection: sqlite3.Connection, months: dict[str, Months]) -> None:
        self.connection, self._months = connection, months
        self._symbol_sets: dict[int, frozenset[str]] = {}

    def trials(
        self,
        period: str,
        place: Place,
        row: sqlite3.Row | None = None,
        own: Days | None = None,
        with_days: bool = True,
    ) -> Trials:
        """Count the tries on validation days, or the openings of test days, that overlap with a place.

        row: of the run that asks, which may be a part of one of them. own: its returns, if they are not stored yet.
        with_days: whether to read the returns of all outcomes, too.
        """
        other = "test" if period == "valid" else "valid"
        known: dict[tuple[Any, ...], bool] = {}
        found = [self._overlapping(which, place, known) for which in (period, other)]
        wholes = {one["uuid"] for rows in found for one in rows if one["uuid"]}
        direct, crossed = (_tries(rows, row, wholes) for rows in found)
        if own is not None and row is not None:
            bits, own_id = packed(own.returns), row["id"]
            direct = [
                replace(one, outcome=outcome_of(bits), sharpe_1d=sharpe_of(bits)) if one.row == own_id else one
                for one in direct
            ]

        def days_of(rows: Sequence[int], is_crossed: bool) -> dict[int, Days]:
            if not with_days:
                return {}
            found = self.days(other if is_crossed else period, rows)
            return found | ({row["id"]: own} if own is not None and row is not None and not is_crossed else {})

        return trials_of(direct, crossed, days_of)

    def place(self, row: sqlite3.Row, period: str) -> Place:
        """Where a period of a row lies."""
        first, last = (row[f"{period}_{end}"] for end in ("first", "last"))
        assert first and last, f"row {row['id']} has no {period} days"
        return Place(self._symbols(row["symbol_set"]), first, last, frozenset({row["fingerprint"]}))

    def days(self, period: str, rows: Iterable[int]) -> dict[int, Days]:
        """The daily returns of these rows, of those that have any."""
        found = self.connection.execute(
            "SELECT * FROM series WHERE period = ? AND run_id IN (SELECT value FROM json_each(?))",
            (period, json.dumps(list(rows))),
        )
        return {row["run_id"]: _unpacked(row) for row in found}

    def months_of(self, fingerprint: str) -> Months | None:
        """The months of bars; None where they are not known."""
        if fingerprint not in self._months:
            row = self.connection.execute("SELECT * FROM months WHERE fingerprint = ?", (fingerprint,)).fetchone()
            if row is None:
                return None
            check_months(row["first"], row["width"], row["digests"])
            self._months[fingerprint] = Months.unpacked(row["first"], row["width"], row["digests"])
        return self._months[fingerprint]

    def _overlapping(self, period: str, place: Place, known: dict[tuple[Any, ...], bool]) -> list[sqlite3.Row]:
        """The tries on a place. known: by symbols and days whether they overlap with it, filled on the way."""
        rows = []
        for row in self.connection.execute(_ON[period], (place.last, place.first)):
            key = (row["fingerprint"], row["symbol_set"], row["first"], row["last"])
            if key not in known:
                theirs = Place(self._symbols(key[1]), key[2], key[3], frozenset({key[0]}))
                known[key] = overlaps(place, theirs, self.months_of)
            if known[key]:
                rows.append(row)
        return rows

    def _symbols(self, symbol_set: int) -> frozenset[str]:
        if symbol_set not in self._symbol_sets:
            found = self.connection.execute("SELECT symbols FROM symbol_sets WHERE id = ?", (symbol_set,)).fetchone()
            self._symbol_sets[symbol_set] = plain_symbols(json.loads(found["symbols"]))
        return self._symbol_sets[symbol_set]


def _tries(rows: Sequence[sqlite3.Row], own: sqlite3.Row | None, wholes: set[str]) -> list[Try]:
    """The tries of these rows. A trial of several folds, one of the wholes, stands for its parts.

    For the part that asks, it stands aside. wholes: their uuids, whether they were tried on these days or opened them.
    """
    own_id, whole = (own["id"], own["part_of"]) if own is not None else (None, None)
    return [
        Try(row["id"], row["signature"], row["same"], row["outcome"], row["sharpe_1d"])
        for row in rows
        if row["id"] == own_id or not (row["part_of"] in wholes or (whole and row["uuid"] == whole))
    ]


def packed(returns: Iterable[float]) -> bytes:
    """Returns as they are stored."""
    return array("d", (float(value) for value in returns)).tobytes()


def _unpacked(row: sqlite3.Row) -> Days:
    returns, benchmark = array("d"), None
    returns.frombytes(row["returns"])
    if row["benchmark"] is not None:
        benchmark = array("d")
        benchmark.frombytes(row["benchmark"])
    return Days(texts(row["dates"]), returns, benchmark)


@functools.lru_cache(maxsize=64)
def texts(text: str) -> tuple[str, ...]:
    """A JSON list of texts. The dates of many rows are the same, and so are their symbols."""
    return tuple(json.loads(text))
