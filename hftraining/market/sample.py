"""The packaged samples: forty stocks from 1999 to 2021 as traded, with their events; and five stocks, 2000 to 2013."""

from importlib import resources

import pandas as pd

from hftraining.market.dividends import split_adjusted
from hftraining.market.files import read_files
from hftraining.market.parquet import Parquet

PRICES = ["open", "high", "low", "close"]
HINDSIGHT = (
    "the names were chosen by a rule of 2004 (AAPL, GOOGL and TSLA were added), but all survived to 2021: what holding "
    "them earned is too good"
)


def read_sample() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Bars adjusted for splits alone, as yahoo.read_yahoo gives them, and their events.

    The 40 stocks: AAPL, GOOGL and TSLA, and of all others in the source (survivors to 2021) the 37 with the highest
    median of close times volume over their sessions before 2004-01-01. Sessions from 1999-11-01 to 2021-04-21, GOOGL
    from 2004-08-19, TSLA from 2010-06-29.

    table: symbol (categorical), date, open, high, low, close (US dollars), volume (shares), sorted by symbol and
    date. events: symbol, date, split (new shares for an old one, 0 if none), dividend (dollars for a share as it is
    after all splits, 0 if none; what a spin-off was worth is one).
    """
    return split_adjusted(_raw())


def read_sample5() -> pd.DataFrame:
    """AAPL, FB, GOOG, IBM and MSFT, 2000 to 2013, as traded, with adjusted closes: a table as of files.read_files."""
    with resources.as_file(resources.files("hftraining.market") / "sample" / "sample5.parquet") as path:
        return read_files(path)


def _raw() -> pd.DataFrame:
    """The rows of sample.parquet: as traded, dividends as they were paid, split 0 on a day without one."""
    with resources.as_file(resources.files("hftraining.market") / "sample" / "sample.parquet") as path:
        columns = ["symbol", "date", *PRICES, "volume", "dividend", "split"]
        raw = Parquet(str(path)).read(columns).to_pandas(self_destruct=True, date_as_object=False)
    return raw.astype({"date": "datetime64[s]", "volume": "float64"})
