"""Intraday bars: told from rows that stand twice, and made into daily bars where that is asked for."""

import pandas as pd

from hftraining.market.config import MarketDataError
from hftraining.market.wording import plain

DAILY = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum", "adj_close": "last"}


def recognised(table: pd.DataFrame, resample: str | None) -> pd.DataFrame:
    """The table, whose column time is kept only if a symbol has bars of several times on one day.

    Raises MarketDataError for such bars unless resample is "1d": to keep one row a day of them, as bad_rows=drop does
    of rows that stand twice, would train on the last hour of each day alone.
    """
    if "time" not in table:
        return table
    table = table.assign(time=table["time"].fillna(0).astype("int64"))
    moments = table.drop_duplicates(["symbol", "date", "time"])
    repeated = moments[moments.duplicated(["symbol", "date"])]
    if repeated.empty:
        return table.drop(columns="time")
    if resample is None:
        symbol, day = repeated.iloc[0][["symbol", "date"]]
        of_day = moments[(moments["symbol"] == symbol) & (moments["date"] == day)]
        raise MarketDataError(
            f"{plain(symbol)} has {len(of_day):,} bars on {day.date()} in {of_day['file'].iloc[0]}: intraday bars; "
            "stocks.resample=1d makes daily bars of them"
        )
    return table


def daily(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """One row a symbol and day of the rows of that day, and a note. Unchanged without the column time.

    Open of the first bar, close and adj_close of the last, highest high, lowest low, volumes added up. Dates are those
    on the clocks of the file. The table must be sorted by symbol, date and time, and hold only rows that can be bars.
    """
    if "time" not in table:
        return table, []
    how = {name: way for name, way in DAILY.items() if name in table} | {"file": "first"}
    days = table.groupby(["symbol", "date"], observed=True, sort=True, as_index=False).agg(how)
    note = (
        f"stocks.resample=1d made {len(days):,} daily bars of {len(table):,} rows; all bars of a day are used, those "
        "before and after the exchange's hours too"
    )
    return days, [note]
