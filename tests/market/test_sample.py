"""The packaged sample of 40 stocks: its rule, its bars and its events, against the source that it was taken from."""

import runpy
import time

import numpy as np
import pandas as pd
import pytest

from hftraining.market import sample
from hftraining.market.config import StocksConfig
from hftraining.market.prices import load_bars
from tests.commands import ROOT
from tests.compose import compose_config

FILE = ROOT / "hftraining" / "market" / "sample" / "sample.parquet"
ADDED = ("AAPL", "GOOGL", "TSLA")


@pytest.fixture(scope="module")
def bars():
    return load_bars(StocksConfig())


@pytest.fixture(scope="module")
def raw() -> pd.DataFrame:
    return pd.read_parquet(FILE)


@pytest.fixture(scope="module")
def source(shared_data) -> pd.DataFrame:
    path = shared_data / "sp500_369_1999_2021.parquet"
    if not path.exists():
        pytest.skip(f"the source of the sample is not at {path}")
    bars = pd.read_parquet(path, columns=["symbol", "date", "close", "volume", "adj_close"])
    return bars.assign(date=pd.to_datetime(bars["date"]))


def test_it_holds_40_names_from_1999_to_2021_in_less_than_three_megabytes(bars):
    assert len(bars.symbols_S) == 40 and bars.close_TS.shape == (5402, 40)
    assert (str(bars.sessions_T[0]), str(bars.sessions_T[-1])) == ("1999-11-01", "2021-04-21")
    assert FILE.stat().st_size < 3_000_000
    absent = dict(zip(bars.symbols_S, (~bars.present_TS).sum(axis=0), strict=True))
    assert {symbol: str(bars.sessions_T[n]) for symbol, n in absent.items() if n} == {
        "GOOGL": "2004-08-19",
        "TSLA": "2010-06-29",
    }


def test_it_says_that_its_names_survived_and_nothing_else(bars):
    assert bars.warnings == (sample.HINDSIGHT,)
    assert load_bars(StocksConfig(symbols=["TSLA"], start="2014-01-02")).warnings == (sample.HINDSIGHT,)
    assert bars.source == "packaged sample" and bars.snapshot is None


def test_its_names_are_those_of_the_rule(bars, source):
    median = {}
    for symbol, rows in source[source["date"] < "2004-01-01"].groupby("symbol"):
        median[symbol] = np.median(rows["close"].to_numpy() * rows["volume"].to_numpy())
    ranked = sorted((symbol for symbol in median if symbol not in ADDED), key=lambda symbol: -median[symbol])
    assert bars.symbols_S == tuple(sorted([*ranked[:37], *ADDED]))


@pytest.mark.slow
def test_its_script_makes_the_rows_that_are_packaged(shared_data, source, raw):
    script = runpy.run_path(str(ROOT / "experiments" / "sample" / "make_sample.py"))
    made = script["sample_of"](script["read_source"](shared_data / "sp500_369_1999_2021.parquet"))
    for name in raw.columns:
        np.testing.assert_array_equal(made[name].to_numpy(), raw[name].astype(made[name].dtype).to_numpy())


def test_its_adjusted_closes_are_those_of_the_source(bars, source):
    wide = source[source["symbol"].isin(bars.symbols_S)].pivot(index="date", columns="symbol", values="adj_close")
    assert np.array_equal(wide.index.to_numpy().astype("datetime64[D]"), bars.sessions_T)
    np.testing.assert_allclose(bars.close_TS, wide[list(bars.symbols_S)].to_numpy("float64"), rtol=1e-4)


def test_the_return_through_an_ex_date_is_that_of_holding(bars, raw):
    """By hand: AAPL's 7 for 1 and the dividend before it, and MO, which gave away two thirds of itself."""
    for symbol, day, paid, shares in (("AAPL", "2014-05-08", 3.29, 1), ("AAPL", "2014-06-09", 0, 7.000007),
                                      ("MO", "2008-03-31", 50.480701, 1), ("C", "2011-05-09", 0, 0.1)):  # fmt: skip
        traded = raw[raw["symbol"] == symbol].set_index("date")
        row = traded.index.get_loc(pd.Timestamp(day).date())
        before, after = traded.iloc[row - 1], traded.iloc[row]
        t, s = int(np.searchsorted(bars.sessions_T, np.datetime64(day))), bars.symbols_S.index(symbol)
        held = (after["close"] * shares + paid) / before["close"]
        assert bars.close_TS[t, s] / bars.close_TS[t - 1, s] == pytest.approx(held, rel=1e-9)
        for name in ("open", "high", "low"):
            got = getattr(bars, f"{name}_TS")[t, s] / bars.close_TS[t, s]
            assert got == pytest.approx(after[name] / after["close"], rel=1e-12)
        money = bars.close_TS[t - 1, s] * bars.volume_TS[t - 1, s]
        assert money == pytest.approx(before["close"] * before["volume"], rel=1e-9)


def test_its_events_are_all_splits_and_dividends_in_shares_of_the_last_day(bars, raw):
    events = bars.events
    assert list(events.columns) == ["symbol", "date", "split", "dividend"]
    assert (events["split"] != 0).sum() == (raw["split"] != 0).sum() == 35
    assert (events["dividend"] != 0).sum() == (raw["dividend"] != 0).sum() == 2880
    apple = events[events["symbol"] == "AAPL"].set_index("date")
    assert list(apple.index[apple["split"] != 0].astype(str)) == [
        "2000-06-21",
        "2005-02-28",
        "2014-06-09",
        "2020-08-31",
    ]
    assert apple.loc["2014-05-08", "dividend"] == pytest.approx(3.29 / (7.000007 * 4), rel=1e-12)
    assert apple.loc["2020-11-06", "dividend"] == pytest.approx(0.205)


def test_of_some_names_and_days_it_has_their_bars_and_events(bars):
    part = load_bars(StocksConfig(symbols=["MSFT", "AAPL"], start="2003-01-02", end="2005-12-30"))
    rows = slice(*np.searchsorted(bars.sessions_T, np.array(["2003-01-02", "2005-12-31"], "datetime64[D]")))
    whole = bars.of(["MSFT", "AAPL"]).rows(rows)
    assert np.array_equal(part.sessions_T, whole.sessions_T)
    # Without the dividends after the last day, all rows of a symbol are higher by one factor.
    factor_TS = part.close_TS / whole.close_TS
    np.testing.assert_allclose(factor_TS, np.broadcast_to(factor_TS[:1], factor_TS.shape), rtol=1e-9)
    assert set(part.events["symbol"]) == {"MSFT", "AAPL"}
    assert part.events["date"].between("2003-01-02", "2005-12-30").all() and len(part.events) == 10


def test_it_is_what_a_run_trains_on_by_default():
    stocks = compose_config().stocks
    assert (stocks.source, stocks.valid_start, stocks.test_start) == ("sample", "2013-01-01", "2016-01-01")
    five = compose_config("stocks=sample5").stocks
    assert (five.source, five.valid_start, five.test_start) == ("sample5", None, None)


def test_it_loads_in_less_than_a_second(bars):
    began = time.process_time()
    load_bars(StocksConfig())
    assert time.process_time() - began < 1
