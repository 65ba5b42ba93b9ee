import gzip

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hftraining.market.columns import NEEDED
from hftraining.market.config import StocksConfig
from hftraining.market.dates import days_and_times
from hftraining.market.files import adjusted, read_files
from hftraining.market.prices import load_bars
from hftraining.market.sample import read_sample5
from tests.bars_of import load, made_bars, refused


def same(a, b) -> bool:
    return a.fingerprint() == b.fingerprint()


def test_every_shape_of_the_same_bars_loads_to_the_same_bars(tmp_path):
    bars = made_bars()
    (tmp_path / "long.csv").write_text(bars.to_csv(index=False))
    bars.to_parquet(tmp_path / "long.parquet")
    bars.assign(symbol=bars["symbol"].astype("category")).set_index("date").to_parquet(tmp_path / "index.parquet")
    with gzip.open(tmp_path / "long.csv.gz", "wt") as file:
        file.write(bars.to_csv(index=False))
    for kind in ("csv", "parquet"):
        folder = tmp_path / kind
        folder.mkdir()
        for symbol, rows in bars.groupby("symbol"):
            rows = rows.drop(columns="symbol")
            if kind == "csv":
                rows.to_csv(folder / f"{symbol}.csv", index=False)
            else:
                rows.set_index("date").to_parquet(folder / f"{symbol}.parquet")
    (tmp_path / "csv" / "notes.txt").write_text("not bars")

    expected = load(tmp_path / "long.parquet")
    assert expected.symbols_S == ("AAA", "BBB")
    assert np.array_equal(expected.close_TS[:, 1], bars["close"].to_numpy()[70:])
    for name in ("long.csv", "long.csv.gz", "index.parquet", "csv", "parquet"):
        assert same(load(tmp_path / name), expected), name


@pytest.mark.parametrize(
    "write",
    [
        lambda dates: dates.dt.strftime("%Y-%m-%d"),
        lambda dates: dates.dt.strftime("%Y-%m-%d 00:00:00-05:00"),
        lambda dates: dates.dt.strftime("%Y-%m-%dT05:00:00Z"),
        lambda dates: dates.dt.strftime("%Y%m%d"),
        lambda dates: dates.dt.strftime("%Y%m%d").astype(int),
        lambda dates: dates.dt.strftime("%m/%d/%Y"),
        lambda dates: dates.dt.strftime("%d/%m/%Y"),
        lambda dates: dates.dt.tz_localize("America/New_York"),
        lambda dates: dates.dt.tz_localize("Asia/Tokyo"),
        lambda dates: (dates + pd.Timedelta(hours=16)).dt.tz_localize("America/New_York"),
        lambda dates: dates.dt.date,
    ],
)
def test_a_time_with_a_zone_counts_as_the_date_in_that_zone(tmp_path, write):
    bars = made_bars()
    bars.assign(date=write(bars["date"])).to_parquet(tmp_path / "bars.parquet")
    assert [str(day) for day in load(tmp_path / "bars.parquet").sessions_T] == list(
        bars["date"][:70].dt.strftime("%Y-%m-%d")
    )


@pytest.mark.parametrize("header", ["Adj Close", "adj_close", "AdjClose", "ADJ CLOSE", "Adj. Close"])
def test_open_high_low_and_volume_are_adjusted_with_the_close(tmp_path, header):
    bars = made_bars(("AAA",))
    # A split of 2 for 1 before row 30: as traded, all prices before it are twice as high and volumes half as high.
    factor = np.where(np.arange(70) < 30, 0.5, 1.0)
    raw = bars.assign(**{name: bars[name] / factor for name in ("open", "high", "low", "close")})
    raw = raw.assign(volume=bars["volume"] * factor, **{header: bars["close"]})
    raw.columns = [name if name == header else name.title() for name in raw.columns]
    raw.to_csv(tmp_path / "AAA.csv", index=False)
    loaded = load(tmp_path / "AAA.csv")
    for name in NEEDED:
        assert np.allclose(getattr(loaded, f"{name}_TS")[:, 0], bars[name], rtol=1e-12), name


def test_the_sample_of_five_is_adjusted_as_by_hand_over_its_splits():
    raw = read_sample5()
    apple = raw[raw["symbol"] == "AAPL"].set_index("date")
    bars = load_bars(StocksConfig(source="sample5"))
    assert bars.symbols_S == ("AAPL", "FB", "GOOG", "IBM", "MSFT") and bars.warnings == ()
    assert (str(bars.sessions_T[0]), str(bars.sessions_T[-1])) == ("2000-03-01", "2013-03-01")
    for day in ("2005-02-25", "2005-02-28", "2000-06-21"):
        row = int(np.searchsorted(bars.sessions_T, np.datetime64(day)))
        traded = apple.loc[day]
        factor = traded["adj_close"] / traded["close"]
        assert bars.close_TS[row, 0] == pytest.approx(traded["adj_close"], rel=1e-12)
        assert bars.low_TS[row, 0] == pytest.approx(traded["low"] * factor, rel=1e-12)
        assert bars.close_TS[row, 0] * bars.volume_TS[row, 0] == pytest.approx(traded["close"] * traded["volume"])
    before, after = (int(np.searchsorted(bars.sessions_T, np.datetime64(d))) for d in ("2005-02-25", "2005-02-28"))
    assert bars.close_TS[after, 0] / bars.close_TS[before, 0] == pytest.approx(44.86 / (88.99 / 2), rel=1e-5)
    facebook = bars.symbols_S.index("FB")
    assert np.isnan(bars.close_TS[:3073, facebook]).all() and np.isfinite(bars.close_TS[-196:, facebook]).all()


def test_symbols_are_aligned_by_date_and_not_by_row(tmp_path):
    bars = made_bars(days=80)
    late = bars[(bars["symbol"] == "AAA") | (bars["date"] >= "2015-01-12")]
    holes = late[(late["symbol"] == "BBB") | (late["date"].dt.day != 20)]
    holes.sample(frac=1, random_state=3).to_csv(tmp_path / "bars.csv", index=False)
    loaded = load(tmp_path / "bars.csv", symbols=["BBB", "AAA"])
    wide = holes.pivot(index="date", columns="symbol", values="close")[["BBB", "AAA"]]
    assert loaded.symbols_S == ("BBB", "AAA")
    assert np.array_equal(loaded.sessions_T, wide.index.to_numpy().astype("datetime64[D]"))
    assert np.allclose(loaded.close_TS, wide.to_numpy(), equal_nan=True)
    assert np.isnan(loaded.volume_TS[:5, 0]).all()


def test_a_symbol_called_na_is_a_symbol(tmp_path):
    made_bars(("NA", "TRUE")).to_csv(tmp_path / "bars.csv", index=False)
    assert load(tmp_path / "bars.csv").symbols_S == ("NA", "TRUE")


def test_files_with_and_without_adjusted_closes_live_in_one_folder(tmp_path):
    bars = made_bars()
    one, two = (rows for _, rows in bars.groupby("symbol"))
    one.assign(adj_close=one["close"] / 2).to_csv(tmp_path / "one.csv", index=False)
    two.to_parquet(tmp_path / "two.parquet")
    loaded = load(tmp_path)
    assert np.allclose(loaded.close_TS[:, 0], one["close"] / 2) and np.allclose(loaded.close_TS[:, 1], two["close"])


def test_a_missing_empty_or_unreadable_file_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "nothing").endswith("does not exist")
    assert "is a folder without any .csv" in refused(tmp_path / "empty")
    (tmp_path / "void.csv").write_text("")
    assert refused(tmp_path / "void.csv").endswith("void.csv is empty")
    (tmp_path / "head.csv").write_text("date,open,high,low,close,volume\n")
    assert refused(tmp_path / "head.csv").endswith("head.csv has no rows")
    (tmp_path / "bars.xlsx").write_text("")
    assert "is not one of .csv" in refused(tmp_path / "bars.xlsx")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and then nothing")
    assert "broken.parquet is no parquet file, or was cut short" in refused(tmp_path / "broken.parquet")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_missing_column_is_named_with_the_closest_existing_one(tmp_path, suffix):
    bars = made_bars().rename(columns={"close": "Closing"})
    path = tmp_path / f"bars.{suffix}"
    (path.write_text(bars.to_csv(index=False))) if suffix == "csv" else bars.to_parquet(path)
    message = refused(path)
    if suffix == "csv":
        assert "bars.csv calls close Closing: 'stocks.csv={columns: {close: Closing}}' reads that" in message
    else:
        assert "bars.parquet has no close column (is it Closing?)" in message and "bars need date, open" in message


@pytest.mark.parametrize("text", ["yesterday", "2015-13-45", "", "42", "2015-02-30", "1420416000"])
def test_an_unreadable_date_is_named_with_its_row(tmp_path, text):
    bars = made_bars().astype({"date": str})
    bars.loc[4, "date"] = text
    bars.to_csv(tmp_path / "bars.csv", index=False)
    assert f"bars.csv, row 5: {text!r} is not a date that can be read" in refused(tmp_path / "bars.csv")


def test_dates_that_can_be_read_in_two_ways_are_refused(tmp_path):
    bars = made_bars(("AAA",), days=70)
    bars = bars[bars["date"].dt.day <= 12]
    bars.assign(date=bars["date"].dt.strftime("%m/%d/%Y")).to_csv(tmp_path / "bars.csv", index=False)
    assert "'01/05/2015' is not a date that can be read; write dates as 2011-01-03" in refused(tmp_path / "bars.csv")


def test_a_word_among_the_prices_is_refused(tmp_path):
    bars = made_bars().astype({"open": str})
    bars.loc[4, "open"] = "high"
    bars.to_csv(tmp_path / "bars.csv", index=False)
    bars.to_parquet(tmp_path / "bars.parquet")
    assert "bars.csv cannot be read" in refused(tmp_path / "bars.csv")
    assert "bars.parquet, column open, cannot be read" in refused(tmp_path / "bars.parquet")


def test_two_columns_of_the_same_meaning_are_refused(tmp_path):
    bars = made_bars()
    bars.assign(Close=1.0).to_csv(tmp_path / "bars.csv", index=False)
    assert "two columns for close, close and Close" in refused(tmp_path / "bars.csv")


def test_a_small_file_that_claims_millions_of_rows_is_not_read(tmp_path):
    rows = 2_000_000
    ones = pa.array(np.ones(rows, "float32"))
    table = pa.table({name: ones for name in NEEDED} | {"date": pa.array(np.zeros(rows, "int32"), pa.date32())})
    pq.write_table(table, tmp_path / "bomb.parquet", compression="zstd")
    assert (tmp_path / "bomb.parquet").stat().st_size < 100_000
    assert "bomb.parquet claims 2,000,000 rows in" in refused(tmp_path / "bomb.parquet")


def test_price_times_volume_stays_the_traded_value():
    table = read_sample5()
    money = (table["close"] * table["volume"]).to_numpy()
    after = adjusted(table)
    assert np.allclose(after["close"] * after["volume"], money, rtol=1e-12)


@pytest.mark.slow
def test_a_million_rows_load_within_seconds(shared_data):
    path = shared_data / "us300_2005_2017.parquet"
    bars = load(path)
    raw = pd.read_parquet(path, columns=["symbol", "date", "close"])
    assert bars.close_TS.shape == (raw["date"].nunique(), 300)
    wide = raw.pivot(index="date", columns="symbol", values="close").to_numpy("float64")
    left_out = np.isfinite(wide) & np.isnan(bars.close_TS)
    assert left_out.sum() == 38 and np.array_equal(bars.close_TS[~left_out], wide[~left_out], equal_nan=True)


def test_files_that_are_read_together_are_read_as_each_alone_and_the_one_at_fault_is_named(tmp_path):
    bars = made_bars(("AAA", "BBB", "CCC", "DDD"))
    for n, (symbol, rows) in enumerate(bars.groupby("symbol")):
        rows = rows.drop(columns="symbol")
        if n == 2:  # its kind is another: alone between two that are alike
            rows = rows.assign(volume=rows["volume"].astype("int64"), date=rows["date"].astype("datetime64[ms]"))
        rows.to_parquet(tmp_path / f"{symbol}.parquet", index=False)
    together = read_files(tmp_path)
    apart = [read_files(tmp_path / f"{symbol}.parquet") for symbol in ("AAA", "BBB", "CCC", "DDD")]
    for name in together:
        assert together[name].tolist() == [value for one in apart for value in one[name]]
    rows = pd.read_parquet(tmp_path / "BBB.parquet")
    rows.loc[7, "date"] = None
    rows.to_parquet(tmp_path / "BBB.parquet", index=False)
    assert "BBB.parquet, row 8: nothing is not a date" in refused(tmp_path)


def test_symbols_that_were_left_out_before_a_file_was_written_are_no_symbols_of_it(tmp_path):
    bars = made_bars(("AAA", "BBB", "CCC"))
    kinds = pd.CategoricalDtype(["", "CCC", "BBB", "AAA"])  # pandas writes them all
    some = bars[bars["symbol"] != "BBB"]
    some.assign(symbol=some["symbol"].astype(kinds)).to_parquet(tmp_path / "some.parquet", index=False)
    some.to_csv(tmp_path / "same.csv", index=False)
    assert load(tmp_path / "some.parquet").symbols_S == ("AAA", "CCC")
    assert same(load(tmp_path / "some.parquet"), load(tmp_path / "same.csv"))


def test_a_moment_before_the_first_midnight_of_nanoseconds_is_one_of_its_own_year():
    first = -(2**63) + 1
    moments = pa.chunked_array([pa.array([first, 0, 1_500], pa.timestamp("ns"))])
    days, times = days_and_times(moments, "a file")
    assert [str(day)[:10] for day in days.to_pylist()] == ["1677-09-21", "1970-01-01", "1970-01-01"]
    assert times.to_pylist() == [first % (86_400 * 10**9) // 1000, 0, 1]
