"""The tables of a run folder, read as data: known columns, plain types, bounded before anything is unpacked."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hftraining.core.untrusted import MB, Untrusted, is_printable, open_regular, shown
from hftraining.runs.record import EQUITY_COLUMNS, NULL_BAND_COLUMNS, TRADE_COLUMNS
from hftraining.runs.result import PERIODS

FILES = {"equity.parquet": EQUITY_COLUMNS, "trades.parquet": TRADE_COLUMNS, "null_band.parquet": NULL_BAND_COLUMNS}
TEXT = ("window", "symbol", "side", "exit_reason")
DAYS = ("date", "entry_date", "exit_date")
MAY_BE_MISSING = ("exit_date",)
FILE_MOST = 256 * MB
ROWS_MOST = 2_000_000
UNPACKED_MOST = 512 * MB  # of all columns
TEXT_MOST = 100  # characters
VALUE_MOST = 1e18  # currency
FOOTER_MOST = 4 * MB


def read_table(folder: Path, name: str) -> pd.DataFrame | None:
    """One of FILES, None where the folder has none. Rows of other periods, endless numbers or long texts are refused.

    The footer says how many rows and bytes there are before any is read, and text is read as a dictionary, so that one
    long text in a million rows stays one. Raises Untrusted.
    """
    path = folder / name
    if not path.exists() and not path.is_symlink():
        return None
    columns = FILES[name]
    try:
        with open_regular(path, FILE_MOST) as source:
            table = _table(pa.PythonFile(source, mode="r"), path, columns)
        table.validate(full=True)  # texts that are text, and numbers of texts that there are
        return pd.DataFrame({column: _values(table[column], column, path) for column in columns})
    except (pa.ArrowException, OSError, ValueError, KeyError, IndexError, OverflowError, MemoryError) as error:
        if isinstance(error, Untrusted):
            raise
        raise Untrusted(f"{path} is damaged ({shown(error, 120)})") from None


def _table(source: pa.NativeFile, path: Path, columns: tuple[str, ...]) -> pa.Table:
    text = [column for column in columns if column in TEXT]
    limits = {"thrift_string_size_limit": FOOTER_MOST, "thrift_container_size_limit": FOOTER_MOST}
    file = pq.ParquetFile(source, read_dictionary=text, pre_buffer=False, **limits)
    footer = file.metadata
    if missing := [column for column in columns if column not in file.schema_arrow.names]:
        raise Untrusted(f"{path} is damaged (it has no column {missing[0]})")
    if len(set(file.schema_arrow.names)) < len(file.schema_arrow.names):
        raise Untrusted(f"{path} is damaged (a column is there twice)")
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    # Of the groups: asking for one of their columns ends the process where its statistics are broken (pyarrow 26).
    unpacked = sum(max(0, group.total_byte_size) for group in groups)
    if footer.num_rows > ROWS_MOST or sum(g.num_rows for g in groups) != footer.num_rows or unpacked > UNPACKED_MOST:
        raise Untrusted(f"{path} is larger than any of ours ({footer.num_rows:,} rows, {unpacked:,} bytes unpacked)")
    for column in columns:
        kind = file.schema_arrow.field(column).type
        value = kind.value_type if pa.types.is_dictionary(kind) else kind
        if column in TEXT:
            fits = pa.types.is_large_string(value) or pa.types.is_string(value) or pa.types.is_null(value)
        elif column in DAYS:
            fits = pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_null(kind)
        else:
            fits = pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)
        if not fits:
            raise Untrusted(f"{path} is damaged (its column {column} is of the type {shown(kind)})")
    return file.read(columns=list(columns), use_threads=False)


def _values(column: pa.ChunkedArray, name: str, path: Path) -> pd.Series:
    if name in TEXT:
        return _texts(column, name, path)
    if name in DAYS:
        try:
            days = column.cast(pa.timestamp("ms")).to_pandas()
        except (pa.ArrowException, ValueError, OverflowError):
            raise Untrusted(f"{path} is damaged (its column {name} holds days that are none)") from None
        known = days.dropna()
        if (days.isna().any() and name not in MAY_BE_MISSING) or not known.between("1700-01-01", "2262-01-01").all():
            raise Untrusted(f"{path} is damaged (its column {name} holds days that are none)")
        return days
    values = column.to_pandas().astype(float)
    size = np.abs(values.to_numpy())
    if (size > VALUE_MOST).any():  # NaN, which is not larger, is a number that is unknown
        raise Untrusted(f"{path} is damaged (its column {name} holds a number above {VALUE_MOST:g})")
    return values


def _texts(column: pa.ChunkedArray, name: str, path: Path) -> pd.Series:
    """Text as pandas reads it, its few different values checked first."""
    if column.null_count:
        raise Untrusted(f"{path} is damaged (its column {name} has gaps)")
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    known = {value for chunk in column.chunks for value in chunk.dictionary.to_pylist() if value is not None}
    for value in known:
        if len(value) > TEXT_MOST or not is_printable(value):
            raise Untrusted(f"{path} is damaged (its column {name} holds {shown(value, 40)!r})")
    if name == "window" and (other := known - set(PERIODS)):
        raise Untrusted(f"{path} is damaged (it names the period {shown(min(other), 40)!r})")
    return pd.Series(column.cast(pa.large_string()).to_pandas())
