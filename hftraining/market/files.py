"""Bars from csv and parquet files as one long table.

A table has the columns symbol (categorical), date (midnight, no time zone), open, high, low, close, volume and file;
adj_close where a source has it; and time (microseconds after midnight) where a source has times of day. A file may hold
many symbols (with a symbol column) or one (then named after it). Whoever wrote the files, reading them takes some
hundred bytes of memory a row and no more rows than MOST_ROWS.
"""

import csv
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from hftraining.market.columns import MOST_ROWS, find_columns, refuse_rows
from hftraining.market.config import MOST_LETTERS_OF_A_SYMBOL, CsvConfig, MarketDataError
from hftraining.market.csv_files import read_csv
from hftraining.market.dates import days_and_times, texts_of
from hftraining.market.parquet import Parquet, UnsafeFile
from hftraining.market.wording import plain, plain_path

SUFFIXES = (".csv", ".csv.gz", ".parquet")


def read_files(path: Path, how: CsvConfig | None = None) -> pd.DataFrame:
    """A csv or parquet file, or all of them in a folder (not in folders below it). how: the csv files are written.

    Values are as in the files; audit.py checks them. Raises MarketDataError, naming the file and the place, for a
    missing path or column, what is no regular file, an unreadable date or number, a symbol that cannot be printed, and
    more rows or longer texts than bars have.
    """
    with naming(f"stocks.path={plain_path(path)}"):
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
    how = how or CsvConfig()
    if how != CsvConfig() and not any(file.name.endswith((".csv", ".csv.gz")) for file in paths):
        raise MarketDataError(
            f"stocks.csv says how csv files are written, but {plain_path(path)} has none: leave it out"
        )
    tables: list[pa.Table] = []
    rows = 0
    for file in paths:
        tables.append(_read_file(file, MOST_ROWS - rows, how))
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


def _read_file(path: Path, most_rows: int, how: CsvConfig) -> pa.Table:
    with naming(plain_path(path)):
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for, a device has no end
            raise UnsafeFile("is not a regular file: only files are read")
        is_parquet = path.name.endswith(".parquet")
        raw = _read_parquet(path, most_rows) if is_parquet else read_csv(path, most_rows, how)
        if not raw.num_rows:
            raise UnsafeFile("has no rows")
        if "symbol" not in raw.column_names:
            alone = path.name.removesuffix(".gz").rpartition(".")[0]
            raw = raw.append_column("symbol", pa.repeat(alone, raw.num_rows).dictionary_encode())
    return table_of(raw, plain_path(path), None if is_parquet else how.date_format)


def table_of(raw: pa.Table, name: str, date_format: str | None = None) -> pa.Table:
    """The columns of a table as those of read_files; further columns of numbers are kept.

    raw: symbol, date and numbers, of any type that can be read. name: what messages call the source. date_format: of
    dates that are texts, see days_and_times. Raises MarketDataError in one line.
    """
    with naming(name):
        columns = {"symbol": _symbols(raw["symbol"])}
        columns["date"], times = days_and_times(raw["date"], name, date_format)
        if times is not None:
            columns["time"] = times
    for column in raw.column_names:
        if column not in columns:
            with naming(name, place=f", column {column},"):
                columns[column] = _numbers(raw[column])
    columns["file"] = pa.repeat(name, raw.num_rows).dictionary_encode()
    return pa.table(columns)


@contextmanager
def naming(name: str, place: str = "") -> Iterator[None]:
    """Turn the errors of reading into one line that names the source."""
    try:
        yield
    except UnsafeFile as error:
        raise MarketDataError(f"{name} {error}") from error
    except (pa.ArrowException, OSError, EOFError, UnicodeError, zlib.error, csv.Error) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise MarketDataError(f"{name}{place} cannot be read: {plain(said)}") from error


def _read_parquet(path: Path, most_rows: int) -> pa.Table:
    file = Parquet(str(path))
    refuse_rows(file.rows, most_rows)
    names = find_columns(file.names)
    return file.read(list(names.values())).select(list(names.values())).rename_columns(list(names))


def _symbols(raw: pa.ChunkedArray) -> pa.DictionaryArray:
    """The symbol of each row. Raises UnsafeFile for one that is empty, too long or cannot be printed."""
    column = texts_of(raw)
    if column.null_count or column.dictionary.null_count:
        raise UnsafeFile("has rows with an empty symbol")
    trimmed = pc.utf8_trim_whitespace(column.dictionary).dictionary_encode()
    symbols = pa.DictionaryArray.from_arrays(trimmed.indices.take(column.indices), trimmed.dictionary)
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
