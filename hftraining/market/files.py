"""Bars from csv and parquet files, and from the packaged sample, as one long table.

A table has the columns symbol (categorical), date (midnight, no time zone), open, high, low, close, volume and file,
and adj_close where a source has it. A file may hold many symbols (with a symbol column) or one (then named after it).
"""

import csv
import gzip
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from importlib import resources
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from hftraining.core.errors import closest
from hftraining.market.config import MarketDataError

NEEDED = ("open", "high", "low", "close", "volume")
# Plain column names and what else they are called; "" and index_level_0 are how pandas saves an unnamed date index.
ALIASES = {
    "symbol": ("symbol", "ticker"),
    "date": ("date", "datetime", "timestamp", "session", "", "index_level_0"),
    "adj_close": ("adj_close", "adjclose", "adjusted_close"),
} | {name: (name,) for name in NEEDED}
SUFFIXES = (".csv", ".csv.gz", ".parquet")
NO_NUMBER = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "-"]
MOST_ROWS = 50_000_000  # some 4 GB in memory
MOST_CSV_BYTES = 2**30
# Real daily bars take some 15 bytes a row, compressed; a few kilobytes that claim millions of rows are a trap.
FEWEST_BYTES_A_ROW, TRAP_ROWS = 1.0, 1_000_000


def read_sample() -> pd.DataFrame:
    """The packaged sample: five stocks, 2000 to 2013, as traded, with adjusted closes."""
    with resources.as_file(resources.files("hftraining.market") / "sample" / "stocks.parquet") as path:
        return read_files(path)


def read_files(path: Path) -> pd.DataFrame:
    """A csv or parquet file, or all of them in a folder (not in folders below it).

    Values are as in the files; audit.py checks them. Raises MarketDataError, naming the file and the place, for a
    missing path or column, an unreadable date or number, and absurdly many rows.
    """
    if not path.exists():
        raise MarketDataError(f"stocks.path={path} does not exist")
    paths = [path]
    if path.is_dir():
        paths = sorted(f for f in path.iterdir() if f.name.endswith(SUFFIXES) and not f.name.startswith("."))
        if not paths:
            raise MarketDataError(f"stocks.path={path} is a folder without any {', '.join(SUFFIXES)} file")
    elif not path.name.endswith(SUFFIXES):
        raise MarketDataError(f"stocks.path={path} is not one of {', '.join(SUFFIXES)}")
    claimed = sum(_claimed_rows(file) for file in paths)
    if claimed > MOST_ROWS:
        raise MarketDataError(f"{path}: {claimed:,} rows, more than the {MOST_ROWS:,} that are read into memory")
    tables = [_read_file(file) for file in paths]
    if any("adj_close" in table.column_names for table in tables):  # a file without it is adjusted already
        tables = [t if "adj_close" in t.column_names else t.append_column("adj_close", t["close"]) for t in tables]
    return pa.concat_tables(tables, promote_options="default").to_pandas(self_destruct=True, date_as_object=False)


def adjusted(table: pd.DataFrame) -> pd.DataFrame:
    """The table with prices times adj_close / close and volume divided by it; unchanged without adj_close.

    Open, high and low take the factor of their day's close, so that a bar keeps its shape; price * volume stays the
    traded value.
    """
    if "adj_close" not in table:
        return table
    factor = table["adj_close"] / table["close"]
    prices = {name: table[name] * factor for name in ("open", "high", "low", "close")}
    return table.drop(columns="adj_close").assign(**prices, volume=table["volume"] / factor)


def _claimed_rows(path: Path) -> int:
    """The rows that a parquet footer claims, before any is read; 0 for csv, whose size bounds its rows."""
    if not path.name.endswith(".parquet"):
        return 0
    with _naming(path):
        rows = int(pq.read_metadata(path).num_rows)
    size = path.stat().st_size
    if rows > TRAP_ROWS and size < rows * FEWEST_BYTES_A_ROW:
        raise MarketDataError(f"{path} claims {rows:,} rows in {size:,} bytes, which no real bars do: not read")
    return rows


def _read_file(path: Path) -> pa.Table:
    with _naming(path):
        raw = _read_parquet(path) if path.name.endswith(".parquet") else _read_csv(path)
    if not raw.num_rows:
        raise MarketDataError(f"{path} has no rows")
    symbols = pa.repeat(path.name.removesuffix(".gz").rpartition(".")[0], raw.num_rows)
    if "symbol" in raw.column_names:
        symbols = pc.utf8_trim_whitespace(raw["symbol"].cast(pa.string()).combine_chunks())
        if symbols.null_count or pc.any(pc.equal(symbols, "")).as_py():
            raise MarketDataError(f"{path}: some rows have an empty symbol")
    columns = {"symbol": symbols.dictionary_encode(), "date": _days(raw["date"], path)}
    for name in (*NEEDED, "adj_close"):
        if name in raw.column_names:
            with _naming(path, f", column {name},"):
                columns[name] = raw[name].cast(pa.float64())
    columns["file"] = pa.repeat(str(path), raw.num_rows).dictionary_encode()
    return pa.table(columns)


@contextmanager
def _naming(path: Path, place: str = "") -> Iterator[None]:
    """Turn the errors of reading into one line that names the file."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
        raise MarketDataError(f"{path}{place} cannot be read: {' '.join(str(error).split())[:200]}") from error


def _read_parquet(path: Path) -> pa.Table:
    file = pq.ParquetFile(path)
    names = _find_columns(file.schema_arrow.names, path)
    table = file.read(columns=list(names.values()))
    return table.select(list(names.values())).rename_columns(list(names))


def _read_csv(path: Path) -> pa.Table:
    with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as stream:
        content = stream.read(MOST_CSV_BYTES + 1)
    if len(content) > MOST_CSV_BYTES:
        raise MarketDataError(f"{path} is larger than {MOST_CSV_BYTES:,} bytes: store it as parquet")
    if not content.strip():
        raise MarketDataError(f"{path} is empty")
    header = next(csv.reader([content[: 2**16].decode("utf-8-sig", errors="replace").splitlines()[0]]))
    names = _find_columns(header, path)
    kinds = {
        header_name: pa.string() if name in ("symbol", "date") else pa.float64() for name, header_name in names.items()
    }
    options = pa_csv.ConvertOptions(column_types=kinds, include_columns=list(names.values()), null_values=NO_NUMBER)
    return pa_csv.read_csv(io.BytesIO(content), convert_options=options).rename_columns(list(names))


def _find_columns(header: list[str], path: Path) -> dict[str, str]:
    """Our name for each column that is used, and its name in the file."""
    plain: dict[str, str] = {}
    for name in header:
        key = re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_")
        if key in plain and any(key in names for names in ALIASES.values()):
            raise MarketDataError(f"{path} has two columns for {key}, {plain[key]} and {name}: leave one out")
        plain[key] = name
    found = {
        ours: plain[next(alias for alias in names if alias in plain)]
        for ours, names in ALIASES.items()
        if any(alias in plain for alias in names)
    }
    for name in ("date", *NEEDED):
        if name not in found:
            close = closest(name, plain)
            raise MarketDataError(
                f"{path} has no {name} column" + (f" (is it {plain[close]}?)" if close is not None else "") + ": bars "
                f"need date, open, high, low, close and volume; it has {', '.join(header[:20])}"
            )
    return found


def _days(column: pa.ChunkedArray, path: Path) -> pa.ChunkedArray:
    """Session dates. A time with a time zone gives the date on that zone's clocks."""
    if pa.types.is_timestamp(column.type) and column.type.tz:
        column = pc.local_timestamp(column)
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        if column.null_count:
            raise _no_date(path, pc.index(column.is_null(), True).as_py(), "nothing")
        return column.cast(pa.date32()).cast(pa.timestamp("s"))
    text = pc.utf8_trim_whitespace(column.cast(pa.string()).fill_null("")).combine_chunks().dictionary_encode()
    written = text.dictionary.to_pylist()
    days, wrong = _parse_days(written)
    if wrong is not None:
        row = pc.index(text.indices, pa.scalar(wrong, text.indices.type)).as_py()
        raise _no_date(path, row, repr(written[wrong]))
    return pa.array(days, pa.date32()).take(text.indices).cast(pa.timestamp("s"))


def _no_date(path: Path, row: int, what: str) -> MarketDataError:
    return MarketDataError(f"{path}, row {row + 1}: {what} is not a date that can be read; write dates as 2011-01-03")


def _parse_days(written: list[str]) -> tuple[list[date], int | None]:
    """The dates of some texts, or the place of the first that is not a date.

    Accepts 2011-01-31, with or without a time and a zone after it, 20110131, and 1/31/2011 or 31/1/2011 if only one of
    the two readings fits all texts.
    """
    slashed = [re.fullmatch(r"(\d{1,2})/(\d{1,2})/(\d{4})(?: .*)?", text) for text in written]
    if slashed and all(slashed):
        numbers = [tuple(map(int, match.groups())) for match in slashed if match]
        readings = [
            _all_days([(y, m, d) for m, d, y in numbers]),
            _all_days([(y, m, d) for d, m, y in numbers]),
        ]
        fitting = [days for days, wrong in readings if wrong is None]
        # If both fit, only a guess could tell 3/4 from 4/3.
        return (fitting[0], None) if len(fitting) == 1 or fitting[:1] == fitting[1:] else ([], readings[0][1] or 0)
    parts = [re.fullmatch(r"(\d{4})-(\d{2})-(\d{2})(?:[T ].*)?|(\d{4})(\d{2})(\d{2})", text) for text in written]
    return _all_days([tuple(int(g) for g in match.groups() if g) if match else (0, 0, 0) for match in parts])


def _all_days(numbers: list[tuple[int, ...]]) -> tuple[list[date], int | None]:
    days = []
    for place, (year, month, day) in enumerate(numbers):
        try:
            days.append(date(year, month, day))
        except ValueError:
            return [], place
    return days, None
