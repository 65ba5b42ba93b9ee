"""The content of a ledger as data: one that was handed on must not break, or speak through, the user's own."""

import json
import re
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hftraining.core.untrusted import is_printable, shown

TABLES = ("table", "index")
TEXT_MOST, LIST_MOST = 4096, 4_000_000  # characters
_TEXTS = (
    "kind",
    "name",
    "folder",
    "signature",
    "code",
    "fingerprint",
    "valid_first",
    "valid_last",
    "started",
    "status",
)
_MAY_BE_NULL = ("uuid", "part_of", "test_first", "test_last", "ended", "valid_outcome", "test_outcome")
_NUMBERS = ("valid_sharpe_1d", "test_sharpe_1d", "sharpe")
_SPAN = re.compile(r"(\d{4}-\d\d-\d\d to \d{4}-\d\d-\d\d)?\Z")
_DAY = re.compile(r"\d{4}-\d\d-\d\d\Z")


def strange_schema(connection: sqlite3.Connection) -> str:
    """What a file holds that no ledger of ours does, such as a trigger; empty if nothing. No row is read."""
    for kind, name in connection.execute("SELECT type, name FROM sqlite_master"):
        if kind not in TABLES:
            return f"a {shown(kind, 20)}, {shown(name, 60)}"
    return ""


def check_run(row: Mapping[str, Any] | sqlite3.Row) -> None:
    """Raise ValueError for a row of runs, with its symbols, that no code of ours has written."""
    for name in (*_TEXTS, *_MAY_BE_NULL):
        value = row[name]
        if value is None and name in _MAY_BE_NULL:
            continue
        if not isinstance(value, str) or len(value) > TEXT_MOST or not is_printable(value):
            raise ValueError(f"runs.{name} is {shown(value, 60)}")
    for name in _NUMBERS:
        if row[name] is not None and not isinstance(row[name], int | float):
            raise ValueError(f"runs.{name} is {shown(row[name], 60)}")
    if type(row["resumed"]) is not int:
        raise ValueError(f"runs.resumed is {shown(row['resumed'], 60)}")
    windows, result, symbols = (_parsed(row[name], name) for name in ("windows", "result", "symbols"))
    if not isinstance(windows, dict) or not all(
        isinstance(span, str) and _SPAN.match(span) for span in windows.values()
    ):
        raise ValueError(f"runs.windows is {shown(row['windows'], 60)}")
    if not isinstance(result, dict):
        raise ValueError(f"runs.result is {shown(row['result'], 60)}")
    if not isinstance(symbols, list) or not all(isinstance(s, str) and is_printable(s) for s in symbols):
        raise ValueError(f"symbols are {shown(row['symbols'], 60)}")


def check_months(first: Any, width: Any, digests: Any) -> None:
    """Raise ValueError for months of bars that no code of ours has written."""
    are_numbers = type(first) is int and type(width) is int and -12_000 < first < 12_000 and 0 < width < 10**6
    if not are_numbers or not isinstance(digests, bytes) or len(digests) % (8 * width):
        raise ValueError("months.digests is no list of digests")


def check_series(period: Any, dates: Any, returns: Any, benchmark: Any) -> None:
    """Raise ValueError for daily returns that no code of ours has written."""
    days = _parsed(dates, "dates")
    if period not in ("valid", "test") or not isinstance(days, list):
        raise ValueError("series.dates is no list of days")
    if not all(isinstance(day, str) and _DAY.match(day) for day in days):
        raise ValueError("series.dates is no list of days")
    for values in (returns, *([] if benchmark is None else [benchmark])):
        if not isinstance(values, bytes) or len(values) != 8 * len(days):
            raise ValueError("series.returns are not one a day")


def _parsed(text: Any, name: str) -> Any:
    if not isinstance(text, str) or len(text) > LIST_MOST:
        raise ValueError(f"{name} is {shown(text, 60)}")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(f"{name} is nested too deeply") from error


def refused(path: Path, error: Exception) -> str:
    """The line for a ledger whose content is refused."""
    return f"{path} is damaged ({shown(error, 200)}): put back a copy, or move it away and lose its count of trials"
