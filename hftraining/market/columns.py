"""The columns of a table of bars, under our names and under those of a file; and how many rows are read."""

import re
from collections.abc import Sequence

from hftraining.core.errors import closest
from hftraining.market.config import ColumnsConfig
from hftraining.market.parquet import MOST_COLUMNS, UnsafeFile
from hftraining.market.wording import listed, plain

NEEDED = ("open", "high", "low", "close", "volume")
# Plain column names and what else they are called; "" and index_level_0 are how pandas saves an unnamed date index.
ALIASES = {
    "symbol": ("symbol", "ticker"),
    "date": ("date", "datetime", "timestamp", "session", "", "index_level_0"),
    "adj_close": ("adj_close", "adjclose", "adjusted_close"),
} | {name: (name,) for name in NEEDED}
# Names in other languages and programs, as key_of makes them: only ever proposed, since nobody knows what they hold.
FOREIGN = {
    "date": "datum day time tag zeit fecha data unix unixtime unix_time unix_timestamp t dt",
    "open": "er_ffnung eroeffnung erster o opening apertura ouverture er_ffnungskurs open_price first",
    "high": "hoch tageshoch h max hi alto m_ximo maximo haut high_price",
    "low": "tief tagestief l min lo bajo m_nimo minimo bas low_price",
    "close": "schluss schlusskurs last price c letzter kurs cierre cl_ture cloture close_last close_price",
    "volume": "volumen vol v volumes st_ck stueck traded_volume shares",
}
MOST_ROWS = 50_000_000  # some 4 GB in memory


class NoColumn(UnsafeFile):
    """A column that bars need is not in a file, under any name that is known."""


def refuse_rows(rows: int, most: int) -> None:
    """Raise UnsafeFile for more rows than may still be read."""
    if rows > most:
        raise UnsafeFile(f"has {rows:,} rows; no more than {MOST_ROWS:,} are read into memory, all files together")


def key_of(name: str) -> str:
    """A column's name without its case and signs: "Adj Close" as adj_close."""
    return re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_")


def find_columns(header: Sequence[str], named: ColumnsConfig | None = None) -> dict[str, str]:
    """Our name for each column that is used, and its name in the file. named: those that stocks.csv.columns gives.

    Raises NoColumn for one that is missing, UnsafeFile for one that stands twice or is named and not there.
    """
    if len(header) > MOST_COLUMNS:
        raise UnsafeFile(f"has {len(header):,} columns, more than the {MOST_COLUMNS:,} that are read")
    given = {ours: _named(ours, theirs, header) for ours, theirs in (named.given() if named else {}).items()}
    written: dict[str, str] = {}
    for name in header:
        key = key_of(name)
        if key in written and any(key in names for ours, names in ALIASES.items() if ours not in given):
            raise UnsafeFile(
                f"has two columns for {key}, {plain(written[key], 64)} and {plain(name, 64)}: leave one out"
            )
        if name not in given.values():  # what is named as one column is no other
            written[key] = name
    found = given | {
        ours: written[next(alias for alias in names if alias in written)]
        for ours, names in ALIASES.items()
        if ours not in given and any(alias in written for alias in names)
    }
    for name in ("date", *NEEDED):
        if name not in found:
            close = closest(name, [key for key in written if len(key) < 100])
            hint = f" (is it {plain(written[close], 64)}?)" if close is not None else ""
            raise NoColumn(
                f"has no {name} column{hint}: bars need date, open, high, low, close and volume; it has "
                f"{listed(header, 20)}"
            )
    return found


def proposed_columns(header: Sequence[str], named: ColumnsConfig) -> dict[str, str]:
    """Their names for the columns that are missing, as far as they can be guessed: not all may be there."""
    # With ? for letters beyond ASCII, which key_of passes over as well.
    keys = {key_of(name): plain(name, 100) for name in header if len(name) < 100}
    known = {alias for names in ALIASES.values() for alias in names}
    columns: dict[str, str] = {}
    for ours in ("date", *NEEDED):
        if ours in named.given() or any(alias in keys for alias in ALIASES[ours]):
            continue
        free = [key for key, name in keys.items() if key not in known and name not in columns.values()]
        meant = next((key for key in FOREIGN[ours].split() if key in free), None) or closest(ours, free)
        if meant is not None:
            columns[ours] = keys[meant]
    return columns


def _named(ours: str, theirs: str, header: Sequence[str]) -> str:
    """The name in a file that stocks.csv.columns means: as it is written, or else without case and signs."""
    meant = [name for name in header if name == theirs] or [name for name in header if key_of(name) == key_of(theirs)]
    if len(meant) == 1:
        return meant[0]
    close = closest(theirs[:100], [name for name in header if len(name) < 100])
    hint = f"; did you mean {plain(close, 64)}?" if close is not None else ""
    which = "two columns" if meant else "no column"
    said = f"has {which} {plain(theirs, 64)}, which stocks.csv.columns.{ours} names{hint}"
    raise UnsafeFile(f"{said}; it has {listed(header, 20)}")
