"""The `stocks` group: which bars a run sees, and where training, validation and test begin."""

import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import pairwise

from hftraining.core.errors import UserError
from hftraining.market.wording import plain, plain_path

SOURCES = ("sample", "sample5", "yahoo", "files")
BAD_ROWS = ("refuse", "drop")
RESAMPLE = ("1d",)
MOST_LETTERS_OF_A_SYMBOL = 64
MOST_LETTERS_OF_A_COLUMN = 200
SEPARATORS = {";": ";", "|": "|", "tab": "\t", ",": ","}  # as it is written in a config, and in a file
UNIX = {"unix_s": 1, "unix_ms": 1000}  # how many of them are a second


class MarketDataError(UserError):
    """The bars cannot be used or reached. Its message is one line: what, where, what to do."""


@dataclass
class ColumnsConfig:
    """What a csv file calls our columns; null: as they are called here, or nearly (Adj Close is adj_close)."""

    symbol: str | None = None  # null, and no such column: the file is of one symbol, after which it is named
    date: str | None = None  # heading of the day
    open: str | None = None  # heading of the first price
    high: str | None = None  # heading of the highest price
    low: str | None = None  # heading of the lowest price
    close: str | None = None  # heading of the last price
    volume: str | None = None  # heading of the shares traded
    adj_close: str | None = None  # heading of the adjusted close

    def given(self) -> dict[str, str]:
        """Our name and theirs of each column that is named."""
        return {name: theirs for name, theirs in vars(self).items() if theirs is not None}

    def __post_init__(self) -> None:
        """Refuse what names no column, and one column that is named twice."""
        for name, theirs in self.given().items():
            if not theirs.strip() or len(theirs) > MOST_LETTERS_OF_A_COLUMN:
                raise ValueError(f"stocks.csv.columns.{name}={plain(theirs, 60)!r} is not the name of a column")
        for theirs, count in Counter(self.given().values()).items():
            if count > 1:
                raise ValueError(f"stocks.csv.columns names {plain(theirs, 60)} twice")


@dataclass
class CsvConfig:
    """How csv files are written, where that is not as usual."""

    separator: str = ","  # between columns: , ; | or tab
    decimal: str = "."  # of numbers: . or a comma
    columns: ColumnsConfig = field(default_factory=ColumnsConfig)
    date_format: str | None = None  # as strptime's, e.g. %d.%m.%Y, or unix_s, unix_ms (UTC); null: 2011-01-31 and such

    def __post_init__(self) -> None:
        """Refuse what no file is written in."""
        _one_of("stocks.csv.separator", self.separator, tuple(SEPARATORS))
        _one_of("stocks.csv.decimal", self.decimal, (".", ","))
        if self.date_format is not None and self.date_format not in UNIX and not _is_date_format(self.date_format):
            raise ValueError(
                f"stocks.csv.date_format={plain(self.date_format, 60)} must name year, month and day, e.g. "
                f"%d.%m.%Y, or be one of {', '.join(UNIX)}"
            )


@dataclass
class StocksConfig:
    """Which symbols, from where, over which days. Dates are ISO (2011-01-03); each field says what null means."""

    name: str = "sample"  # names the run folder
    source: str = "sample"  # sample or sample5 (packaged, offline), yahoo (cached snapshot) or files (csv or parquet)
    path: str | None = None  # files: a csv or parquet file, or a folder of them
    symbols: list[str] = field(default_factory=list)  # empty: all that the source has (yahoo needs a list)
    exclude: list[str] = field(default_factory=list)  # symbols to leave out
    start: str | None = None  # first session used; null: the first there is
    end: str | None = None  # last session used; null: the last there is
    valid_start: str | None = None  # first validation session; null: after 70 % of the sessions
    test_start: str | None = None  # first test session; null: after 85 % of the sessions
    csv: CsvConfig = field(default_factory=CsvConfig)  # files: how csv files are written
    cache: bool = True  # files: keep bars of many files in the user's cache folder, for the next run on the same files
    bad_rows: str = "refuse"  # duplicated, all-NaN or absurd rows: refuse the data, or drop them with a warning
    resample: str | None = None  # files: 1d makes daily bars of intraday bars; null refuses intraday bars
    calendar: str | None = None  # gaps are named by its sessions, e.g. XNYS; null: yahoo's exchange, else what fits
    snapshots: str = "outputs/snapshots"  # where immutable yahoo snapshots are kept
    snapshot: str | None = None  # yahoo: id of the stored snapshot to use; null: that of the same request, if any
    refresh: bool = False  # yahoo: ask again, although a snapshot of the same request is stored

    def __post_init__(self) -> None:
        """Refuse what cannot be loaded, before anything is read."""
        _one_of("stocks.source", self.source, SOURCES)
        _one_of("stocks.bad_rows", self.bad_rows, BAD_ROWS)
        if self.source == "files" and not self.path:
            raise ValueError(
                "stocks.path is missing: say which csv or parquet file or folder, e.g. stocks.path=my_bars"
            )
        if self.source != "files" and self.path:
            raise ValueError(
                f"stocks.path={plain_path(self.path)} needs stocks.source=files (stocks=folder), not "
                f"source={self.source}"
            )
        if self.source == "yahoo" and not self.symbols:
            raise ValueError("stocks.symbols is empty: yahoo needs a list, e.g. stocks.symbols=[AAPL,MSFT]")
        if self.snapshot and self.source != "yahoo":
            raise ValueError(
                f"stocks.snapshot={plain(self.snapshot)} needs stocks.source=yahoo, not source={self.source}"
            )
        if self.snapshot and self.refresh:
            raise ValueError(
                f"stocks.snapshot={plain(self.snapshot)} loads a stored snapshot: stocks.refresh=true contradicts it"
            )
        if self.refresh and self.source != "yahoo":
            raise ValueError(f"stocks.refresh=true needs stocks.source=yahoo, not source={self.source}")
        if self.source != "files" and self.csv != CsvConfig():
            raise ValueError(f"stocks.csv needs stocks.source=files (stocks=folder), not source={self.source}")
        if self.resample is not None:
            _one_of("stocks.resample", self.resample, RESAMPLE)
            if self.source != "files":
                raise ValueError(
                    f"stocks.resample={self.resample} needs stocks.source=files, not source={self.source}: its bars "
                    "are daily"
                )
        for name in ("symbols", "exclude"):
            _refuse_symbols(f"stocks.{name}", getattr(self, name))
        given = [(n, getattr(self, n)) for n in ("start", "valid_start", "test_start", "end") if getattr(self, n)]
        days = [(name, _iso_date(f"stocks.{name}", text)) for name, text in given]
        for (name, day), (later_name, later) in pairwise(days):
            if day >= later:
                raise ValueError(f"stocks.{name}={day} must come before stocks.{later_name}={later}")


def default_stocks() -> StocksConfig:
    """The group that a run has without another: the packaged sample, with the days of conf/stocks/sample.yaml."""
    return StocksConfig(valid_start="2013-01-01", test_start="2016-01-01")


def _refuse_symbols(name: str, symbols: list[str]) -> None:
    for symbol in symbols:
        if not isinstance(symbol, str):  # OmegaConf lets a list within a list pass
            raise ValueError(f"{name}: {str(symbol)[:60]} in the list is no str")
    for symbol, count in Counter(symbols).items():
        if count > 1:
            raise ValueError(f"{name} names {plain(symbol, MOST_LETTERS_OF_A_SYMBOL)} twice")


def _is_date_format(text: str) -> bool:
    """Whether a format tells a day from all others."""
    try:
        return all(
            datetime.strptime(day.strftime(text), text).date() == day.date()
            for day in (datetime(2011, 1, 31), datetime(1999, 12, 1), datetime(2011, 2, 3, 16))
        )
    except (ValueError, IndexError):
        return False


def _iso_date(name: str, text: str) -> date:
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise ValueError(f"{name}={plain(text, 60)} is not an ISO date such as 2011-01-03")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}={plain(value, 60)} is not one of {', '.join(allowed)}")
