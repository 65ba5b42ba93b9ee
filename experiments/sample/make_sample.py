"""Makes hftraining/market/sample/sample.parquet of the file of all stocks that it was taken from.

    python experiments/sample/make_sample.py --source sp500_369_1999_2021.parquet [--to sample.parquet]

The rule and the origin are told in hftraining/market/sample/README.md. The same source gives the same rows.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

RULE_ENDS = pd.Timestamp("2004-01-01")  # the median is that of the sessions before it
BY_RULE, ADDED = 37, ("AAPL", "GOOGL", "TSLA")
FIRST, LAST = pd.Timestamp("1999-11-01"), pd.Timestamp("2021-04-21")
COLUMNS = ("symbol", "date", "open", "high", "low", "close", "volume", "dividend", "split")
TARGET = Path(__file__).resolve().parents[2] / "hftraining" / "market" / "sample" / "sample.parquet"


def chosen(bars: pd.DataFrame) -> list[str]:
    """The symbols of the sample, sorted.

    Those of ADDED, and of the others the BY_RULE with the highest median of close (as traded) times volume over their
    own sessions before RULE_ENDS. A symbol without such sessions has no median and is not among them.
    """
    past = bars[(bars["date"] < RULE_ENDS) & ~bars["symbol"].isin(ADDED)]
    median = (past["close"] * past["volume"]).groupby(past["symbol"].astype(str)).median()
    return sorted([*median.nlargest(BY_RULE).index, *ADDED])


def sample_of(bars: pd.DataFrame) -> pd.DataFrame:
    """The rows of the sample, sorted by symbol and date, as traded; split is 0 on a day without one."""
    rows = bars[bars["symbol"].isin(chosen(bars)) & bars["date"].between(FIRST, LAST)]
    rows = rows.sort_values(["symbol", "date"], kind="stable", ignore_index=True)
    # Of 32 bits in the source: the decimals that were meant, such as 0.17.
    events = {name: rows[name].to_numpy("float64").round(6) for name in ("dividend", "split")}
    events["split"] = np.where(events["split"] == 1, 0.0, events["split"])
    return rows.assign(**events)[list(COLUMNS)]


def read_source(path: Path) -> pd.DataFrame:
    """The bars of all stocks, with dates as timestamps."""
    bars = pd.read_parquet(path)
    return bars.assign(date=pd.to_datetime(bars["date"]).astype("datetime64[s]"))


def write(rows: pd.DataFrame, path: Path) -> None:
    """The rows as parquet. Measured: prices are smallest as dictionaries, volumes and dates as below."""
    kinds = [("symbol", pa.string()), ("date", pa.date32()), ("volume", pa.int64())]
    schema = pa.schema(kinds + [(name, pa.float64()) for name in COLUMNS if name not in ("symbol", "date", "volume")])
    table = pa.Table.from_pandas(rows, preserve_index=False).select(list(COLUMNS))
    table = table.cast(pa.schema([schema.field(name) for name in COLUMNS]))
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=19,
        row_group_size=len(rows),
        use_dictionary=[name for name in COLUMNS if name not in ("date", "volume")],
        dictionary_pagesize_limit=2**22,
        column_encoding={"date": "DELTA_BINARY_PACKED", "volume": "BYTE_STREAM_SPLIT"},
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="sp500_369_1999_2021.parquet")
    parser.add_argument("--to", type=Path, default=TARGET, help="the file to write (default: that of the package)")
    options = parser.parse_args()
    rows = sample_of(read_source(options.source))
    write(rows, options.to)
    symbols, size = rows["symbol"].nunique(), options.to.stat().st_size
    print(f"{options.to.name}: {symbols} symbols, {len(rows):,} rows, {size:,} bytes")


if __name__ == "__main__":
    main()
