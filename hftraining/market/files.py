"""Bars from csv and parquet files as one long table.

A table has the columns symbol (categorical), date (midnight, no time zone), open, high, low, close, volume and file;
adj_close where a source has it; and time (microseconds after midnight) where a source has times of day. A file may hold
many symbols (with a symbol column) or one (then named after it). Whoever wrote the files, reading them takes some
hundred bytes of memory a row and no more rows than MOST_ROWS.
"""

import csv
import gzip
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from hftraining.core.errors import closest
from hftraining.market.config import MOST_LETTERS_OF_A_SYMBOL, MarketDataError
from hftraining.market.dates import days_and_times, texts_of
from hftraining.market.parquet import MOST_COLUMNS, Parquet, UnsafeFile, check_texts
from hftraining.market.wording import listed, plain, plain_path

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
MOST_CSV_BYTES, MOST_HEADER_BYTES = 2**30, 2**16
# Bars as csv pack to a third or a fifth of their size; gzip can reach a thousandth.
MOST_PACKING, TRAP_BYTES = 100, 2**26


def read_files(path: Path) -> pd.DataFrame:
    """A csv or parquet file, or all of them in a folder (not in folders below it).

    Values are as in the files; audit.py checks them. Raises MarketDataError, naming the file and the place, for a
    missing path or column, what is no regular file, an unreadable date or number, a symbol that cannot be printed, and
    more rows or longer texts than bars have.
    """
    with _naming(path, "stocks.path="):
        if not path.exists():
            raise MarketDataError(f"stocks.path={plain_path(path)} does not exist")
        if path.is_dir():
            paths = sorted(f for f in path.iterdir() if f.name.endswith(SUFFIXES) and not f.name.startswith("."))
            if not paths:
                raise MarketDataError(
                    f"stocks.path={plain_path(path)} is a folder without any {', '.join(SUFFIXES)} file"
                )
        elif path.name.endswith(SUFFIXES):
            paths = [path]
        else:
            raise MarketDataError(f"stocks.path={plain_path(path)} is not one of {', '.join(SUFFIXES)}")
    tables: list[pa.Table] = []
    rows = 0
    for file in paths:
        tables.append(_read_file(file, MOST_ROWS - rows))
        rows += tables[-1].num_rows
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


def _read_file(path: Path, most_rows: int) -> pa.Table:
    with _naming(path):
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for, a device has no end
            raise UnsafeFile("is not a regular file: only files are read")
        raw = (_read_parquet if path.name.endswith(".parquet") else _read_csv)(path, most_rows)
        if not raw.num_rows:
            raise UnsafeFile("has no rows")
        columns = {"symbol": _symbols(raw, path)}
        columns["date"], times = days_and_times(raw["date"], plain_path(path))
        if times is not None:
            columns["time"] = times
    for name in (*NEEDED, "adj_close"):
        if name in raw.column_names:
            with _naming(path, place=f", column {name},"):
                columns[name] = _numbers(raw[name])
    columns["file"] = pa.repeat(plain_path(path), raw.num_rows).dictionary_encode()
    return pa.table(columns)


@contextmanager
def _naming(path: Path, before: str = "", place: str = "") -> Iterator[None]:
    """Turn the errors of reading into one line that names the file."""
    try:
        yield
    except UnsafeFile as error:
        raise MarketDataError(f"{before}{plain_path(path)} {error}") from error
    except (pa.ArrowException, OSError, EOFError, UnicodeError, zlib.error, csv.Error) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise MarketDataError(f"{before}{plain_path(path)}{place} cannot be read: {plain(said)}") from error


def _refuse_rows(rows: int, most: int) -> None:
    if rows > most:
        raise UnsafeFile(f"has {rows:,} rows; no more than {MOST_ROWS:,} are read into memory, all files together")


def _read_parquet(path: Path, most_rows: int) -> pa.Table:
    file = Parquet(str(path))
    _refuse_rows(file.rows, most_rows)
    names = _find_columns(file.names)
    return file.read(list(names.values())).select(list(names.values())).rename_columns(list(names))


def _read_csv(path: Path, most_rows: int) -> pa.Table:
    content = _unpacked(path)
    if not content or content.isspace():
        raise UnsafeFile("is empty")
    _refuse_rows(max(content.count(b"\n"), content.count(b"\r")), most_rows)
    lines = content[:MOST_HEADER_BYTES].decode("utf-8-sig", errors="replace").splitlines()
    if len(lines) == 1 and len(content) > MOST_HEADER_BYTES:
        raise UnsafeFile(f"has a first line of more than {MOST_HEADER_BYTES:,} bytes: it should name the columns")
    names = _find_columns(next(csv.reader([lines[0]])))
    text = pa.dictionary(pa.int32(), pa.string())
    kinds = {theirs: text if ours in ("symbol", "date") else pa.float64() for ours, theirs in names.items()}
    options = pa_csv.ConvertOptions(column_types=kinds, include_columns=list(names.values()), null_values=NO_NUMBER)
    table = pa_csv.read_csv(pa.BufferReader(content), convert_options=options).rename_columns(list(names))
    for name in {"symbol", "date"} & set(names):
        check_texts(table[name], name)
    return table


def _unpacked(path: Path) -> bytes | bytearray:
    """The content of a csv file, unpacked piece by piece so that a small file cannot fill the memory."""
    size = path.stat().st_size
    if size > MOST_CSV_BYTES:
        raise UnsafeFile(f"is larger than {MOST_CSV_BYTES:,} bytes: store it as parquet")
    if not path.name.endswith(".gz"):
        with path.open("rb") as stream:
            return stream.read(MOST_CSV_BYTES)
    content = bytearray()
    with gzip.open(path) as stream:
        while piece := stream.read(2**20):
            content += piece
            if len(content) > MOST_CSV_BYTES:
                raise UnsafeFile(f"is larger than {MOST_CSV_BYTES:,} bytes: store it as parquet")
            if len(content) > TRAP_BYTES and len(content) > size * MOST_PACKING:
                raise UnsafeFile(f"unpacks to more than {len(content):,} bytes from {size:,}, which no real bars do")
    return content


def _symbols(raw: pa.Table, path: Path) -> pa.DictionaryArray:
    """The symbol of each row. Raises UnsafeFile for one that is empty, too long or cannot be printed."""
    if "symbol" in raw.column_names:
        column = texts_of(raw["symbol"])
        if column.null_count or column.dictionary.null_count:
            raise UnsafeFile("has rows with an empty symbol")
        trimmed = pc.utf8_trim_whitespace(column.dictionary).dictionary_encode()
        symbols = pa.DictionaryArray.from_arrays(trimmed.indices.take(column.indices), trimmed.dictionary)
    else:
        name = path.name.removesuffix(".gz").rpartition(".")[0]
        symbols = pa.repeat(name, raw.num_rows).dictionary_encode()
    for symbol in symbols.dictionary.to_pylist():
        if not symbol:
            raise UnsafeFile("has rows with an empty symbol")
        if len(symbol) > MOST_LETTERS_OF_A_SYMBOL or not symbol.isprintable():
            raise UnsafeFile(
                f"has the symbol {plain(ascii(symbol), 70)}: at most {MOST_LETTERS_OF_A_SYMBOL} printable characters"
            )
    return symbols


def _numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as 64-bit numbers; each entry of a dictionary of texts is read once."""
    if not pa.types.is_dictionary(column.type):
        return column.cast(pa.float64())
    parts = [chunk.dictionary.cast(pa.float64()).take(chunk.indices) for chunk in column.chunks]
    return pa.chunked_array(parts, pa.float64())


def _find_columns(header: list[str]) -> dict[str, str]:
    """Our name for each column that is used, and its name in the file."""
    if len(header) > MOST_COLUMNS:
        raise UnsafeFile(f"has {len(header):,} columns, more than the {MOST_COLUMNS:,} that are read")
    written: dict[str, str] = {}
    for name in header:
        key = re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_")
        if key in written and any(key in names for names in ALIASES.values()):
            raise UnsafeFile(
                f"has two columns for {key}, {plain(written[key], 64)} and {plain(name, 64)}: leave one out"
            )
        written[key] = name
    found = {
        ours: written[next(alias for alias in names if alias in written)]
        for ours, names in ALIASES.items()
        if any(alias in written for alias in names)
    }
    for name in ("date", *NEEDED):
        if name not in found:
            close = closest(name, [key for key in written if len(key) < 100])
            hint = f" (is it {plain(written[close], 64)}?)" if close is not None else ""
            raise UnsafeFile(
                f"has no {name} column{hint}: bars need date, open, high, low, close and volume; it has "
                f"{listed(header, 20)}"
            )
    return found
