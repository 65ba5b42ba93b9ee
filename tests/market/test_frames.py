"""Bars of pandas frames: those of the same rows in files, and one line for what fits no bars."""

from importlib import resources

import numpy as np
import pandas as pd
import pytest

from hftraining.core.bars import ARRAYS, Bars
from hftraining.market.config import MarketDataError, StocksConfig
from hftraining.market.frames import bars_of
from hftraining.market.prices import load_bars
from tests.bars_of import frame_of, load, made_bars


@pytest.fixture
def frame() -> pd.DataFrame:
    return made_bars()


def refusal(*arguments, **stocks) -> str:
    with pytest.raises(MarketDataError) as caught:
        bars_of(*arguments, **stocks)
    message = str(caught.value)
    assert isinstance(caught.value, ValueError) and "\n" not in message and message.isascii()
    return message


def packaged(name: str) -> pd.DataFrame:
    with resources.as_file(resources.files("hftraining.market") / "sample" / name) as path:
        return pd.read_parquet(path)


def check_same(ours: Bars, theirs: Bars) -> None:
    assert ours.symbols_S == theirs.symbols_S
    np.testing.assert_array_equal(ours.sessions_T, theirs.sessions_T)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def test_the_frame_of_the_samples_bars_gives_the_same_bars():
    bars = load_bars(StocksConfig(symbols=["AAPL", "GOOGL"], start="2003-01-02", end="2006-12-29"))
    assert not bars.present_TS.all()  # GOOGL came in 2004
    shuffled = frame_of(bars).sample(frac=1.0, random_state=0)
    check_same(bars_of(shuffled), bars)
    assert bars_of(bars) is bars


def test_rows_as_traded_with_splits_and_dividends_are_adjusted_as_the_sample_is():
    bars, raw = load_bars(StocksConfig()), packaged("sample.parquet")
    ours = bars_of(raw)
    check_same(ours, bars)
    pd.testing.assert_frame_equal(ours.events, bars.events)
    without = raw.assign(split=raw["split"].replace(0, np.nan), dividend=raw["dividend"].replace(0, np.nan))
    check_same(bars_of(without[raw["symbol"] == "AAPL"]), bars.of(["AAPL"]))


def test_rows_with_adjusted_closes_are_adjusted_as_the_sample_of_five_is():
    raw = packaged("sample5.parquet")
    check_same(bars_of(raw), load_bars(StocksConfig(source="sample5")))
    adjusted = next(name for name in raw.columns if name.lower().replace(" ", "_") == "adj_close")
    assert "a split of" in refusal(raw.drop(columns=adjusted))


def test_a_split_and_a_dividend_by_hand(frame):
    # A share at 60 becomes two at 30; the next day pays 3 and closes at 27: what holding earned is nothing.
    day = pd.bdate_range("2015-01-05", periods=70)
    close = np.where(np.arange(70) < 40, 60.0, np.where(np.arange(70) < 41, 30.0, 27.0))
    rows = pd.DataFrame({"symbol": "AAA", "date": day, "volume": np.where(np.arange(70) < 40, 500.0, 1000.0)})
    rows = rows.assign(**dict.fromkeys(("open", "high", "low", "close"), close))
    rows = rows.assign(Split=np.where(np.arange(70) == 40, 2.0, 0.0), Dividend=np.where(np.arange(70) == 41, 3.0, 0.0))
    bars = bars_of(rows)
    np.testing.assert_allclose(bars.close_TS, 27.0)
    np.testing.assert_allclose(bars.volume_TS[:, 0] * 27.0, rows["volume"] * close)
    assert bars.events[["split", "dividend"]].values.tolist() == [[2.0, 0.0], [0.0, 3.0]]
    assert bars_of(rows.drop(columns="Dividend")).close_TS[0, 0] == 30.0


@pytest.mark.parametrize(
    "written",
    [
        lambda frame: frame.rename(columns=str.title).assign(Sector="Energy"),
        lambda frame: frame.rename(columns={"symbol": "Ticker", "date": "Datetime"})[::-1],
        lambda frame: frame.set_index(["date", "symbol"]),
        lambda frame: frame.set_index("date").rename_axis(None),
        lambda frame: frame.assign(date=frame["date"].dt.date, symbol=frame["symbol"].astype("category")),
        lambda frame: frame.assign(date=frame["date"].astype(str), volume=frame["volume"].astype("int64")),
        lambda frame: frame.assign(date=frame["date"].dt.tz_localize("America/New_York")),
        lambda frame: frame.pivot(index="date", columns="symbol").rename_axis(columns=["", "Ticker"]).stack("Ticker"),
    ],
)
def test_columns_and_dates_may_be_written_in_many_ways(frame, written, tmp_path):
    frame.to_parquet(tmp_path / "bars.parquet")
    check_same(bars_of(written(frame)), load(tmp_path / "bars.parquet"))


def test_settings_are_those_of_the_stocks_group(frame):
    bad = pd.concat([frame, frame.assign(close=-1.0, date=frame["date"] - pd.Timedelta(days=200))])
    assert "leave such rows out with stocks.bad_rows=drop" in refusal(bad)
    check_same(bars_of(bad, bad_rows="drop"), bars_of(frame))
    assert bars_of(frame, symbols=["BBB", "AAA"]).symbols_S == ("BBB", "AAA")
    assert bars_of(frame, exclude=["AAA"], start="2015-01-12").sessions_T[0] == np.datetime64("2015-01-12")
    twice_a_day = pd.concat([frame, frame.assign(date=frame["date"] + pd.Timedelta(hours=3))])
    assert refusal(twice_a_day).endswith("intraday bars; stocks.resample=1d makes daily bars of them")
    assert (bars_of(twice_a_day, resample="1d").volume_TS == 2 * bars_of(frame).volume_TS).all()


def test_what_fits_no_bars_is_refused_in_one_line(frame):
    names = "symbol, date, open, high, low, closing, volume"
    for what, message in (
        ([1], "bars are Bars, or a pandas frame with one row a symbol and day, not a list"),
        (frame.iloc[:0], "the frame has no rows"),
        (frame.drop(columns="symbol"), 'the frame has no symbol column: frame.assign(symbol="AAPL") says whose'),
        (frame.rename(columns={"close": "closing"}), f"the frame has no close column (is it closing?): bars need date, "
         f"open, high, low, close and volume; it has {names}"),
        (frame.assign(Close=1.0), "the frame has two columns for close, close and Close: leave one out"),
        (frame.assign(day=frame["date"]).set_index("date").assign(date=1), "the frame has date as a column and in its"),
        (frame.pivot(index="date", columns="symbol"), "the frame has 2 levels of columns: one row a symbol and day"),
        (frame.assign(symbol=[object()] * len(frame)), "the frame cannot be read: Conversion failed for column symbol"),
        (frame.assign(open="x"), "the frame, column open, cannot be read: Failed to parse string: 'x'"),
        (frame.assign(date="soon"), "the frame, row 1: 'soon' is not a date"),
        (frame.assign(symbol=None), "the frame has rows with an empty symbol"),
        (frame.assign(low=0.0), "AAA on 2015-01-05 in the frame has a price that is zero or negative: low is 0"),
        (frame.iloc[:30], "AAA has 30 rows, and at least 60 are needed: leave it out with stocks.exclude=[AAA]"),
        (frame.assign(split=-2.0), "AAA on 2015-01-05 in the frame has a split of -2: it must be zero or positive"),
        (frame.assign(dividend=99.0), "AAA: a dividend of 99 on 2015-01-06, after a close of 50.1731, cannot be"),
        (frame.assign(split=0.0, adj_close=1.0), "the frame has adj_close beside split or dividend: leave one out"),
        (frame.assign(split=0.0, date=frame["date"] + pd.Timedelta(hours=1)), "the frame has times of day beside"),
    ):  # fmt: skip
        assert refusal(what).startswith(message), what
    assert refusal(frame, bad_row="drop") == "bars_of: there is no setting bad_row; did you mean bad_rows?"
    assert refusal(frame, bad_rows="x") == "stocks.bad_rows=x is not one of refuse, drop"
    assert refusal(bars_of(frame), exclude=["AAA"]).endswith("not a Bars with settings")
