"""Bars from csv and parquet files as one long table.

A table has the columns symbol (categorical), date (midnight, no time zone), open, high, low, close, volume and file;
adj_close where a source has it; and time (microseconds after midnight) where a source has times of day. A file may hold
many symbols (with a symbol column) or one (then named after it). Whoever wrote the files, reading them takes some
hundred bytes of memory a row and no more rows than MOST_ROWS.
"""

import csv
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from hftraining.market.columns import MOST_ROWS, find_columns, refuse_rows
from hftraining.market.config import MOST_LETTERS_OF_A_SYMBOL, CsvConfig, MarketDataError
from hftraining.market.csv_files import read_csv
from hftraining.market.dates import days_and_times, is_typed, texts_of
from hftraining.market.parquet import Parquet, UnsafeFile
from hftraining.market.wording import plain, plain_path

SUFFIXES = (".csv", ".csv.gz", ".parquet")


def read_files(path: Path, how: CsvConfig | None = None) -> pd.DataFrame:
    """A csv or parquet file, or all of them in a folder (not in folders below it). how: the csv files are written.

    Values are as in the files; audit.py checks them. Raises MarketDataError, naming the file and the place, for a
    missing path or column, what is no regular file, an unreadable date or number, a symbol that cannot be printed, and
    more rows or longer texts than bars have.
    """
    paths = paths_of(path)
    how = how or CsvConfig()
    if how != CsvConfig() and not any(file.name.endswith((".csv", ".csv.gz")) for file in paths):
        raise MarketDataError(
            f"stocks.csv says how csv files are written, but {plain_path(path)} has none: leave it out"
        )
    raws: list[_Raw] = []
    rows = 0
    for file in paths:
        raws.append(_read_file(file, MOST_ROWS - rows, how))
        rows += raws[-1].table.num_rows
    tables = [table for _, alike in groupby(raws, _Raw.kind) for table in _tables_of(list(alike))]
    raws.clear()
    if any("adj_close" in table.column_names for table in tables):  # a file without it is adjusted already
        tables = [t if "adj_close" in t.column_names else t.append_column("adj_close", t["close"]) for t in tables]
    return pa.concat_tables(tables, promote_options="default").to_pandas(self_destruct=True, date_as_object=False)


def paths_of(path: Path) -> list[Path]:
    """The files that read_files reads, in its order. Raises MarketDataError where there are none."""
    return [Path(name) for name in names_of(path)]


def names_of(path: Path) -> list[str]:
    """As paths_of, as texts, which are made in a tenth of the time."""
    with naming(f"stocks.path={plain_path(path)}"):
        if not path.exists():
            raise MarketDataError(f"stocks.path={plain_path(path)} does not exist")
        if path.is_dir():
            names = sorted(name for name in os.listdir(path) if name.endswith(SUFFIXES) and name[0] != ".")
            if not names:
                raise MarketDataError(
                    f"stocks.path={plain_path(path)} is a folder without any {', '.join(SUFFIXES)} file"
                )
            return [os.path.join(path, name) for name in names]
        if not path.name.endswith(SUFFIXES):
            raise MarketDataError(f"stocks.path={plain_path(path)} is not one of {', '.join(SUFFIXES)}")
    return [str(path)]


def hand_back_memory() -> None:
    """Give the memory of tables that are no more back to the system: Arrow would keep it, 1.4 GB of 5,000 stocks."""
    pa.default_memory_pool().release_unused()


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


@dataclass(frozen=True)
class _Raw:
    """What a file has: the columns of bars under our names, and perhaps symbols."""

    name: str  # of the file, for messages
    alone: str  # the symbol of a file without symbols
    table: pa.Table
    date_format: str | None

    def kind(self) -> tuple[object, ...]:
        """Files of one kind, one after the other, may be read as one table."""
        return tuple(self.table.column_names), tuple(self.table.schema.types), self.date_format


def _read_file(path: Path, most_rows: int, how: CsvConfig) -> _Raw:
    name = plain_path(path)
    with naming(name):
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for, a device has no end
            raise UnsafeFile("is not a regular file: only files are read")
        is_parquet = path.name.endswith(".parquet")
        raw = _read_parquet(path, most_rows) if is_parquet else read_csv(path, most_rows, how)
        if not raw.num_rows:
            raise UnsafeFile("has no rows")
        alone = path.name.removesuffix(".gz").rpartition(".")[0]
        return _Raw(name, alone, raw, None if is_parquet else how.date_format)


def _tables_of(raws: list[_Raw]) -> list[pa.Table]:
    """The tables of files of one kind: together, which takes a tenth of the time, unless their dates are texts.

    Those can be read in one way or another beside the others of their own file.
    """
    if len(raws) > 1 and is_typed(raws[0].table["date"].type):
        with suppress(MarketDataError):  # in which file, is said below
            return [_table_of(raws)]
    return [_table_of([raw]) for raw in raws]


def _table_of(raws: list[_Raw]) -> pa.Table:
    """The rows of files of one kind. Raises MarketDataError, which names the first."""
    name, counts = raws[0].name, [raw.table.num_rows for raw in raws]
    rows = pa.concat_tables([raw.table for raw in raws])
    with naming(name):
        if "symbol" in rows.column_names:
            symbols = _symbols(rows["symbol"])
        else:
            symbols = _each(_symbols(pa.chunked_array([[raw.alone for raw in raws]])), counts)
    files = _each(pa.array([raw.name for raw in raws]).dictionary_encode(), counts)
    return _read_as(rows, symbols, files, name, raws[0].date_format)


def table_of(raw: pa.Table, name: str, date_format: str | None = None) -> pa.Table:
    """The columns of a table as those of read_files; further columns of numbers are kept.

    raw: symbol, date and numbers, of any type that can be read. name: what messages call the source. date_format: of
    dates that are texts, see days_and_times. Raises MarketDataError in one line.
    """
    with naming(name):
        symbols = _symbols(raw["symbol"])
    return _read_as(raw, symbols, _each(pa.array([name]).dictionary_encode(), [raw.num_rows]), name, date_format)


def _read_as(
    raw: pa.Table, symbols: pa.DictionaryArray, files: pa.DictionaryArray, name: str, date_format: str | None
) -> pa.Table:
    columns: dict[str, Any] = {"symbol": symbols}
    with naming(name):
        columns["date"], times = days_and_times(raw["date"], name, date_format)
        if times is not None:
            columns["time"] = times
    for column in raw.column_names:
        if column not in columns:
            with naming(name, place=f", column {column},"):
                columns[column] = _numbers(raw[column])
    columns["file"] = files
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
    names = _columns_of(tuple(file.names))
    return file.read(list(names.values())).rename_columns(list(names))


@lru_cache(maxsize=8)  # the files of a folder have mostly the same
def _columns_of(header: tuple[str, ...]) -> dict[str, str]:
    return find_columns(header)


def _each(texts: pa.DictionaryArray, counts: list[int]) -> pa.DictionaryArray:
    """Each of some texts in so many rows."""
    return pa.DictionaryArray.from_arrays(np.repeat(texts.indices.to_numpy(), counts), texts.dictionary)


def _of_rows(column: pa.DictionaryArray) -> pa.DictionaryArray:
    """Without entries that no row has, as those of symbols that were left out before the file was written."""
    used = pc.unique(column.indices).drop_null()
    if len(used) == len(column.dictionary):
        return column
    return pa.DictionaryArray.from_arrays(pc.index_in(column.indices, used), column.dictionary.take(used))


def _symbols(raw: pa.ChunkedArray) -> pa.DictionaryArray:
    """The symbol of each row. Raises UnsafeFile for one that is empty, too long or cannot be printed."""
    column = _of_rows(texts_of(raw))
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
    if pa.types.is_float64(column.type):
        return column
    if not pa.types.is_dictionary(column.type):
        return column.cast(pa.float64())
    parts = [chunk.dictionary.cast(pa.float64()).take(chunk.indices) for chunk in column.chunks]
    return pa.chunked_array(parts, pa.float64())
