"""bars_of: the bars of a pandas frame, checked and adjusted as those of files are."""

from typing import Any

import pandas as pd
import pyarrow as pa

from hftraining.core.bars import Bars
from hftraining.core.errors import did_you_mean
from hftraining.market.columns import MOST_ROWS, find_columns, key_of, refuse_rows
from hftraining.market.config import MarketDataError, StocksConfig
from hftraining.market.dividends import split_adjusted
from hftraining.market.files import naming, table_of
from hftraining.market.parquet import UnsafeFile
from hftraining.market.prices import bars_of_rows
from hftraining.market.wording import plain

NAME = "the frame"  # in messages
EVENTS = ("split", "dividend")
SETTINGS = ("symbols", "exclude", "start", "end", "bad_rows", "resample", "calendar")


def bars_of(frame_or_bars: Bars | pd.DataFrame, **stocks: Any) -> Bars:
    """Bars as they are, or those of a frame with one row a symbol and day; symbols come sorted.

    Columns: symbol, date, open, high, low, close, volume, in any case and order; symbol and date may be index levels.
    Without more, prices are taken as adjusted. With adj_close they are adjusted by it; with split (new shares for an
    old one) and dividend (currency a share), both zero or NaN on other days, they are taken as traded and adjusted for
    both. Other columns are passed over.

    stocks: the fields of the `stocks` group in SETTINGS, by the names that messages give them: where one proposes
    stocks.bad_rows=drop, bars_of(frame, bad_rows="drop") does that. Raises MarketDataError (a ValueError), in one line,
    for a frame that cannot be used, and for whatever files of bars are refused for.

    >>> bars_of(frame, exclude=["XYZ"], start="2011-01-03")
    """
    if isinstance(frame_or_bars, Bars) and not stocks:
        return frame_or_bars
    if not isinstance(frame_or_bars, pd.DataFrame):
        what = f"a {type(frame_or_bars).__name__}" + (" with settings" if stocks else "")
        raise MarketDataError(f"bars are Bars, or a pandas frame with one row a symbol and day, not {plain(what)}")
    config = _config(stocks)
    table = _table(frame_or_bars)
    if not set(EVENTS) & set(table.columns):
        return bars_of_rows(table, None, config, NAME)
    return bars_of_rows(*split_adjusted(_with_events(table)), config, NAME)


def _config(stocks: dict[str, Any]) -> StocksConfig:
    for name in stocks:
        if name not in SETTINGS:
            raise MarketDataError(f"bars_of: there is no setting {plain(name, 60)}{did_you_mean(name, SETTINGS)}")
    try:
        return StocksConfig(name=NAME, source="files", path=NAME, **stocks)
    except (TypeError, ValueError) as error:
        raise MarketDataError(str(error)) from error


def _table(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame as a table of files.read_files, with split and dividend where it has them."""
    named = [name for name in frame.index.names if name is not None]
    with naming(NAME):
        if named or isinstance(frame.index, pd.DatetimeIndex):
            if taken := set(named) & set(frame.columns):
                raise UnsafeFile(f"has {plain(min(taken, key=str))} as a column and in its index: leave one out")
            frame = frame.reset_index()  # an index of dates without a name becomes the column index
        if frame.columns.nlevels > 1:
            raise UnsafeFile(
                f"has {frame.columns.nlevels} levels of columns: one row a symbol and day is needed, which "
                'frame.stack("Ticker") makes of a download of yfinance'
            )
        header = ["date" if name == "index" and not named else str(name) for name in frame.columns]
        refuse_rows(len(frame), MOST_ROWS)
        if frame.empty:
            raise UnsafeFile("has no rows")
        names = find_columns(header)
        if "symbol" not in names:
            raise UnsafeFile('has no symbol column: frame.assign(symbol="AAPL") says whose bars they are')
        names |= {key_of(name): name for name in header if key_of(name) in EVENTS}
        if "adj_close" in names and set(EVENTS) & set(names):
            raise UnsafeFile("has adj_close beside split or dividend: leave one out, since each adjusts the prices")
        frame = frame.set_axis(header, axis="columns")[list(names.values())].set_axis(list(names), axis="columns")
        try:
            raw = pa.Table.from_pandas(frame, preserve_index=False)
        except (TypeError, pa.ArrowException) as error:  # of a column of objects without a common type
            raise UnsafeFile(f"cannot be read: {plain('; '.join(map(str, reversed(error.args))))}") from error
    return table_of(raw, NAME).to_pandas(date_as_object=False)


def _with_events(table: pd.DataFrame) -> pd.DataFrame:
    """The table sorted, with both kinds of events, 0 where there is none."""
    if "time" in table:
        raise MarketDataError(f"{NAME} has times of day beside split or dividend: they go with daily bars alone")
    events = {name: table[name].fillna(0.0) if name in table else 0.0 for name in EVENTS}
    symbol = table["symbol"].cat.set_categories(sorted(table["symbol"].cat.categories))
    table = table.assign(**events, symbol=symbol).sort_values(["symbol", "date"], kind="stable", ignore_index=True)
    for name in EVENTS:
        wrong = ~((table[name] >= 0.0) & (table[name] < float("inf"))).to_numpy()
        if wrong.any():
            row = table.iloc[int(wrong.argmax())]
            raise MarketDataError(
                f"{plain(row['symbol'])} on {row['date'].date()} in {NAME} has a {name} of {row[name]:g}: it must be "
                "zero or positive"
            )
    return table
