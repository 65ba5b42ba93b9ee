from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hftraining.market.audit import check_rows, drop_slips, find_splits, refuse_splits
from hftraining.market.config import MarketDataError
from hftraining.market.files import adjusted, read_files
from tests.bars_of import load, made_bars, refused

CLOSE_SLIPS = "AVB AVB BXP DDS LII PSEC PXD PXD SLG".split()


def table_of(path: Path, *, use_adj_close: bool = True) -> pd.DataFrame:
    table = read_files(path)
    table["symbol"] = table["symbol"].cat.set_categories(sorted(table["symbol"].cat.categories))
    table, _ = check_rows(table, "drop")
    table = adjusted(table) if use_adj_close else table.drop(columns="adj_close")
    return drop_slips(table)[0]


def write(tmp_path, bars: pd.DataFrame) -> Path:
    bars.to_csv(tmp_path / "bars.csv", index=False)
    return tmp_path / "bars.csv"


# Duplicates, holes and impossible prices.


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"open": np.nan, "high": np.nan, "low": np.nan, "close": np.nan}, "has no prices at all"),
        ({"high": np.nan}, "lacks some prices"),
        ({"low": 0.0}, "has a price that is zero or negative"),
        ({"close": -3.0}, "has a price that is zero or negative"),
        ({"close": np.inf}, "has an infinite price"),
        ({"volume": np.nan}, "has no volume"),
        ({"volume": -1.0}, "has no volume, or one that is negative"),
    ],
)
def test_a_row_that_cannot_be_a_bar_is_refused_by_name_or_dropped_with_a_note(tmp_path, change, said):
    bars = made_bars()
    bars.loc[75, list(change)] = list(change.values())
    path = write(tmp_path, bars)
    message = refused(path)
    assert message.startswith(f"BBB on 2015-01-12 in {path} {said}")
    assert "(1 such row)" in message and "stocks.bad_rows=drop" in message

    dropped = load(path, bad_rows="drop")
    assert len(dropped.warnings) == 1
    assert dropped.warnings[0].startswith(f"1 row left out, since each {said}")
    assert dropped.warnings[0].endswith("BBB on 2015-01-12")
    assert np.isnan(dropped.close_TS[5, 1]) and np.isfinite(dropped.close_TS[5, 0])
    assert np.isfinite(dropped.close_TS).sum() == 139


def test_duplicated_dates_are_refused_or_the_last_valid_row_is_kept(tmp_path):
    bars = made_bars()
    again = bars.iloc[[3]].assign(close=bars["close"][3] * 1.001)
    path = write(tmp_path, pd.concat([bars, again]))
    assert "AAA on 2015-01-08" in refused(path) and "is one of several rows for its day (1 such row)" in refused(path)
    loaded = load(path, bad_rows="drop")
    assert loaded.close_TS[3, 0] == pytest.approx(bars["close"][3] * 1.001)
    assert "is followed by another one for the same day: AAA on 2015-01-08" in loaded.warnings[0]


def test_the_only_valid_row_of_a_day_is_kept(tmp_path):
    bars = made_bars()
    path = write(tmp_path, pd.concat([bars, bars.iloc[[3]].assign(close=0.0)]))
    assert load(path, bad_rows="drop").close_TS[3, 0] == pytest.approx(bars["close"][3])


def test_a_symbol_with_two_rows_is_refused_by_name_even_when_bad_rows_are_dropped(tmp_path):
    path = write(tmp_path, pd.concat([made_bars(), made_bars(("XYZ",), days=2)]))
    for bad_rows in ("refuse", "drop"):
        message = refused(path, bad_rows=bad_rows)
        assert message.startswith("XYZ has 2 rows, and at least 60 are needed") and "stocks.exclude=[XYZ]" in message
    assert load(path, exclude=["XYZ"]).symbols_S == ("AAA", "BBB")


def test_zero_volume_is_kept_with_a_note(tmp_path):
    bars = made_bars()
    bars.loc[5, "volume"] = 0.0
    loaded = load(write(tmp_path, bars))
    assert loaded.volume_TS[5, 0] == 0.0 and loaded.warnings == ("1 bars have a volume of zero (AAA); they are kept",)


# Slipped decimal points.


@pytest.mark.slow
def test_the_nine_listed_glitches_and_no_other_closes_are_found_in_300_stocks(shared_data):
    listed = pd.read_csv(shared_data / "us300_glitch_rows.csv")
    bars = load(shared_data / "us300_2005_2017.parquet")
    closes, others, idle = bars.warnings
    for symbol, day in zip(listed["symbol"], listed["date"], strict=True):
        assert f"{symbol} on {day}" in closes
        assert np.isnan(bars.close_TS[bars.sessions_T == np.datetime64(day), bars.symbols_S.index(symbol)]).all()
    assert closes.startswith("9 bars left out, since the close is out by a decimal point")
    # The list names slips of the close only; 29 more have an open, high or low out by 10 or 100.
    assert others.startswith("29 bars left out, since an open, high or low is out") and "AVB on 2011-06-14" in others
    assert idle.startswith("157 bars have a volume of zero")


def test_the_bars_left_out_of_300_stocks_equal_those_of_a_naive_search(shared_data):
    raw = pd.read_parquet(shared_data / "us300_2005_2017.parquet")
    inner, outer = raw[["open", "close"]].max(axis=1), raw[["open", "close"]].min(axis=1)
    # A factor of 8 or more between any two prices of one day.
    prices = raw[["open", "high", "low", "close"]]
    assert ((prices.max(axis=1) / prices.min(axis=1)) > 8).sum() == 38
    assert ((inner > raw["high"] * 1.0001) | (outer < raw["low"] * 0.9999)).sum() == 31


def test_rounding_widens_high_and_low_and_is_counted(tmp_path):
    bars = made_bars()
    bars.loc[7, "close"] = bars.loc[7, "high"] * 1.004
    loaded = load(write(tmp_path, bars))
    assert loaded.high_TS[7, 0] == loaded.close_TS[7, 0]
    assert loaded.warnings == ("high or low widened on 1 bar to hold its open and close: AAA on 2015-01-14",)


def test_a_whole_bar_a_hundred_times_too_small_is_left_out(tmp_path):
    bars = made_bars()
    bars.loc[7, ["open", "high", "low", "close"]] /= 100
    loaded = load(write(tmp_path, bars))
    assert np.isnan(loaded.close_TS[7, 0]) and "AAA on 2015-01-14" in loaded.warnings[0]


def test_a_price_that_becomes_a_thousand_times_larger_for_good_is_refused(tmp_path):
    bars = made_bars()
    bars.loc[:30, ["open", "high", "low", "close"]] /= 1000
    message = refused(write(tmp_path, bars))
    assert message.startswith("AAA on 2015-02-17: the close is") and "stocks.exclude=[AAA]" in message


# Splits.


def test_all_six_unadjusted_splits_are_found_and_the_data_are_refused(shared_data):
    found = find_splits(table_of(shared_data / "splits_unadjusted"))
    expected = {
        "AMZN": ("2022-06-06", 20),
        "AVGO": ("2024-07-15", 10),
        "GOOG": ("2022-07-18", 20),
        "NFLX": ("2025-11-17", 10),
        "NVDA": ("2024-06-10", 10),
        "TSLA": ("2022-08-25", 3),
    }
    assert {row.symbol: (str(row.date.date()), round(row.ratio)) for row in found.itertuples()} == expected
    message = refused(shared_data / "splits_unadjusted")
    assert message.startswith("AMZN on 2022-06-06: the close goes from 2447 to 124.79, a split of 20 for 1 left in")
    for symbol in expected:
        assert f"a split of {expected[symbol][1]} for 1 left in" in refused(
            shared_data / "splits_unadjusted" / f"{symbol}.csv"
        )
    clean = load(shared_data / "splits_unadjusted", exclude=list(expected))
    assert clean.symbols_S == ("AAPL", "SPY")


def test_eleven_splits_are_found_in_raw_closes_and_none_once_they_are_adjusted(shared_data):
    path = shared_data / "kdd17_50_2007_2016.parquet"
    found = find_splits(table_of(path, use_adj_close=False))
    assert list(found["symbol"]) == "AAPL BRK-B CMCSA D DUK GOOGL KO MA MO RIO VALE".split()
    # MO is the spin-off of Philip Morris, which no adjustment leaves in either; DUK is a reverse split.
    ratios = dict(zip(found["symbol"], found["ratio"].round(3), strict=True))
    assert (ratios["AAPL"], ratios["BRK-B"], ratios["DUK"], ratios["CMCSA"]) == (7, 50, 0.333, 1.5)
    assert find_splits(table_of(path)).empty
    assert load(path).symbols_S[0] == "AAPL"


@pytest.mark.parametrize("name", ["splits_adjusted", "us300_2005_2017.parquet", "stocknet88_2012_2017.parquet"])
def test_no_split_is_found_in_adjusted_bars(shared_data, name):
    assert find_splits(table_of(shared_data / name)).empty


def test_the_splits_of_the_sample_of_five_are_found_only_without_its_adjusted_closes():
    from importlib import resources

    path = Path(str(resources.files("hftraining.market") / "sample" / "sample5.parquet"))
    assert find_splits(table_of(path)).empty
    raw = find_splits(table_of(path, use_adj_close=False))
    assert [(row.symbol, str(row.date.date())) for row in raw.itertuples()] == [
        ("AAPL", "2000-06-21"),
        ("AAPL", "2005-02-28"),
        ("MSFT", "2003-02-18"),
    ]


# Days around as published: close before; open, high, low, close; and the traded value over the usual one.
TRUE_MOVES = {
    "AIG 2008-09-15": (12.14, 7.10, 7.10, 3.50, 4.76, 6.0),
    "GME 2021-02-02": (225.0, 140.76, 158.0, 74.22, 90.0, 2.6),
    "AAPL 2000-09-29": (53.50, 28.19, 29.0, 25.37, 25.75, 10.2),
    "PCG 2019-01-14": (17.59, 9.21, 10.0, 6.5, 8.38, 4.2),
}


@pytest.mark.parametrize("name", list(TRUE_MOVES))
def test_a_true_crash_is_not_a_split(name):
    before, opens, high, low, close, surge = TRUE_MOVES[name]
    prices = np.array([before] * 40 + [close] * 40)
    table = pd.DataFrame({"symbol": pd.Categorical(["X"] * 80), "date": pd.bdate_range("2020-01-01", periods=80)})
    table = table.assign(open=prices, high=prices, low=prices, close=prices, volume=1e6 / prices)
    table.loc[40, ["open", "high", "low", "volume"]] = [opens, high, low, surge * 1e6 / close]
    kept, notes = drop_slips(table)
    assert len(kept) == 80 and notes == []
    refuse_splits(kept)


@pytest.mark.parametrize("ratio", [1.5, 2, 3, 4, 5, 7, 10, 15, 20, 50, 1 / 2, 1 / 4, 1 / 8, 1 / 10, 1 / 25])
@pytest.mark.parametrize("row", [1, 35, 79])
def test_a_common_split_is_found_wherever_it_lies(ratio, row):
    table = made_bars(("X",), days=80, seed=5).astype({"symbol": "category"})
    prices = ["open", "high", "low", "close"]
    table.loc[row:, prices] /= ratio
    table.loc[row:, "volume"] *= ratio
    with pytest.raises(MarketDataError, match="a split of"):
        refuse_splits(table)
