import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from hftraining.experiment.config import ExperimentConfig
from hftraining.market.config import MarketDataError, StocksConfig
from hftraining.market.prices import load_bars
from tests.bars_of import load, made_bars, refused
from tests.yahoo_server import Chart, serving

CONF = Path(__file__).resolve().parents[2] / "conf" / "stocks"


@pytest.fixture
def path(tmp_path):
    made_bars(("AAPL", "GOOG", "MSFT")).to_parquet(tmp_path / "bars.parquet")
    return tmp_path / "bars.parquet"


def test_symbols_come_in_the_order_asked_for_without_the_excluded_ones(path):
    assert load(path).symbols_S == ("AAPL", "GOOG", "MSFT")
    assert load(path, symbols=["MSFT", "GOOG", "AAPL"], exclude=["GOOG"]).symbols_S == ("MSFT", "AAPL")


def test_a_symbol_in_another_case_is_found_and_that_is_said(path):
    bars = load(path, symbols=["msft", "AAPL", "Goog"], exclude=["goog"])
    assert (
        bars.symbols_S == ("MSFT", "AAPL") and bars.fingerprint() == load(path, symbols=["MSFT", "AAPL"]).fingerprint()
    )
    (said,) = bars.warnings
    assert said.startswith("no such symbol, but in another case: msft is read as MSFT, Goog is read as GOOG")
    assert refused(path, symbols=["aapl", "AAPL"]) == "stocks.symbols names AAPL twice"


def test_where_both_cases_are_there_a_symbol_is_the_one_that_is_written(tmp_path):
    made_bars(("aapl", "AAPL", "Msft", "MSFT")).to_parquet(tmp_path / "bars.parquet")
    bars = load(tmp_path / "bars.parquet", symbols=["aapl", "Msft"])
    assert bars.symbols_S == ("aapl", "Msft") and bars.warnings == ()
    assert "AaPL is not in the data; did you mean " in refused(tmp_path / "bars.parquet", symbols=["AaPL"])


@pytest.mark.parametrize("source", ["sample", "sample5"])
def test_a_symbol_of_the_packaged_samples_is_found_in_any_case(source):
    bars = load_bars(StocksConfig(source=source, symbols=["aapl"]))
    assert bars.symbols_S == ("AAPL",) and "aapl is read as AAPL" in bars.warnings[0]


def test_an_unknown_symbol_is_refused_with_the_closest_known_one(path):
    assert refused(path, symbols=["GOGO"]) == "stocks.symbols: GOGO is not in the data; did you mean GOOG?"
    assert refused(path, symbols=["gogo"]) == "stocks.symbols: gogo is not in the data; did you mean GOOG?"
    assert refused(path, exclude=["MSTF"]) == "stocks.exclude: MSTF is not in the data; did you mean MSFT?"
    assert refused(path, symbols=["ZZ"]).endswith("there are AAPL, GOOG, MSFT")
    assert refused(path, exclude=["AAPL", "MSFT", "GOOG"]).endswith("leaves no symbol")


def test_start_and_end_are_inclusive_and_need_not_be_sessions(path):
    bars = load(path, start="2015-01-10", end="2015-04-08")
    assert (str(bars.sessions_T[0]), str(bars.sessions_T[-1])) == ("2015-01-12", "2015-04-08")


@pytest.mark.parametrize("change", [{"start": "2016-01-04"}, {"end": "2014-06-02"}, {"start": "1999-01-04"}])
def test_dates_outside_the_data_are_refused_with_the_span_of_the_data(path, change):
    assert "lies outside the data, which run from 2015-01-05 to 2015-04-10" in refused(path, **change)


def test_nothing_left_is_an_error_and_so_is_a_symbol_without_rows_on_the_asked_days(tmp_path):
    bars = made_bars(days=140)
    bars = bars[(bars["symbol"] == "AAA") | (bars["date"] < "2015-03-01")]
    bars.to_parquet(tmp_path / "bars.parquet")
    message = refused(tmp_path / "bars.parquet", start="2015-03-09")
    assert message.startswith("BBB has 0 rows") and "stocks.exclude=[BBB]" in message
    bars.assign(close=-1.0).to_parquet(tmp_path / "minus.parquet")
    assert "no usable row is left" in refused(tmp_path / "minus.parquet", bad_rows="drop")


def test_bars_outside_the_requested_days_are_not_checked(tmp_path):
    bars = made_bars(days=90)
    bars.loc[0, "close"] = 0.0
    bars.to_parquet(tmp_path / "bars.parquet")
    assert "zero or negative" in refused(tmp_path / "bars.parquet")
    assert load(tmp_path / "bars.parquet", start="2015-01-06").warnings == ()


def test_sessions_rise_and_arrays_agree_about_what_is_missing(shared_data):
    bars = load(shared_data / "stocknet88_2012_2017.parquet", bad_rows="drop")
    assert (np.diff(bars.sessions_T) > np.timedelta64(0, "D")).all()
    for array in (bars.open_TS, bars.high_TS, bars.low_TS, bars.volume_TS):
        assert np.array_equal(np.isfinite(array), bars.present_TS)
    lacking = ~bars.present_TS[bars.sessions_T == np.datetime64("2016-06-29")][0]
    # GMRE was listed two days later.
    assert [bars.symbols_S[s] for s in np.flatnonzero(lacking)] == ["GMRE", "PTR", "REX", "SNP"]
    assert bars.present_TS[:, bars.symbols_S.index("GMRE")].sum() == 297


@pytest.mark.slow
def test_339_real_stocks_are_refused_step_by_step_until_all_faults_are_excluded(shared_data):
    path = shared_data / "sp500_339_2015_2020.parquet"
    assert "CBS on 2019-12-04" in refused(path)
    exclude: list[str] = []
    for _ in range(12):
        try:
            bars = load(path, bad_rows="drop", exclude=exclude)
            break
        except MarketDataError as error:
            named = str(error).partition("stocks.exclude=[")[2].partition("]")[0]
            assert named, error
            exclude += named.split(",")
    # UA became another share class, BHF had another company's prices, the last one has two rows.
    assert {"UA", "BHF"} < set(exclude) and len(exclude) <= 6
    assert len(bars.symbols_S) == 339 - len(exclude)
    assert sum("followed by another one for the same day" in warning for warning in bars.warnings) == 1


@pytest.mark.parametrize("name", ["sample", "sample5", "tech10", "single", "folder"])
def test_every_stocks_yaml_holds_only_what_differs_from_the_defaults(name):
    values = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert values["name"] == name
    # What sample.yaml says is the default of the tree, which the other groups undo.
    defaults = StocksConfig() if name == "sample" else ExperimentConfig().stocks
    for key, value in values.items():
        assert key == "name" or getattr(defaults, key) != value, key
    if name == "folder":
        with pytest.raises(ValueError, match=r"stocks\.path is missing: say which"):
            StocksConfig(**values)
        values["path"] = "bars"
    StocksConfig(**values)


def test_the_config_refuses_contradictions():
    for values, said in [
        ({"source": "sampel"}, "stocks.source=sampel is not one of sample, sample5, yahoo, files"),
        ({"path": "bars"}, "stocks.path=bars needs stocks.source=files"),
        ({"source": "yahoo"}, "stocks.symbols is empty"),
        ({"symbols": ["A", "A"]}, "stocks.symbols names A twice"),
        ({"snapshot": "0123456789abcdef"}, "needs stocks.source=yahoo"),
        ({"source": "yahoo", "symbols": ["A"], "snapshot": "0", "refresh": True}, "contradicts"),
        ({"refresh": True}, "stocks.refresh=true needs stocks.source=yahoo"),
        ({"start": "2012-01-02", "end": "2011-01-03"}, "stocks.start=2012-01-02 must come before stocks.end"),
        ({"valid_start": "01/02/2011"}, "is not an ISO date such as 2011-01-03"),
    ]:
        with pytest.raises(ValueError, match=said):
            StocksConfig(**values)


def test_importing_the_config_stays_light():
    code = (
        "import sys, hftraining.market.config; print([m for m in ('pandas', 'numpy', 'yfinance') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.slow
def test_loading_files_does_not_import_yfinance():
    code = (
        "import sys; from hftraining.market.prices import load_bars; "
        "from hftraining.market.config import StocksConfig; "
        "[load_bars(StocksConfig(source=name)) for name in ('sample', 'sample5')]; print('yfinance' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_the_sample_of_five_is_the_same_bars_as_ever():
    assert [load_bars(StocksConfig(source="sample5")).fingerprint() for _ in range(2)] == ["8e40f8387fddd0fa"] * 2


@pytest.fixture
def from_yahoo(tmp_path):
    """Load AAA and BBB from a loopback Yahoo, after a change to what it knows of BBB."""
    from curl_cffi.requests import Session

    with serving(tmp_path) as server:
        bars = made_bars(days=70)
        columns = ["date", "open", "high", "low", "close", "close", "volume"]
        for symbol, rows in bars.assign(date=bars["date"].dt.strftime("%Y-%m-%d")).groupby("symbol"):
            server.charts[symbol] = Chart(symbol, [tuple(row) for row in rows[columns].to_numpy().tolist()])

        def run(change=lambda chart: None, **changes):
            change(server.charts["BBB"])
            config = StocksConfig(source="yahoo", symbols=["BBB", "AAA"], snapshots=str(tmp_path / "kept"), **changes)
            with Session(impersonate="chrome", verify=server.ca_file, proxies={"https": server.proxy}) as session:
                return load_bars(config, session)

        yield run


def test_bars_of_yahoo_come_in_the_order_asked_for_and_name_their_snapshot(from_yahoo):
    bars, made = from_yahoo(), made_bars()
    assert bars.symbols_S == ("BBB", "AAA") and bars.close_TS.shape == (70, 2)
    assert np.array_equal(bars.close_TS[:, 1], made["close"].to_numpy()[:70])
    assert len(bars.snapshot) == 16 and bars.snapshot in bars.source
    again = from_yahoo(snapshot=bars.snapshot)
    assert again.fingerprint() == bars.fingerprint()


def test_the_same_request_to_yahoo_is_answered_from_its_snapshot_until_a_refresh(from_yahoo):
    def move(chart):
        day, o, h, lo, c, a, v = chart.rows[-1]
        chart.rows[-1] = (day, o, h + 1, lo, c + 1, a + 1, v)

    first, again = from_yahoo(), from_yahoo(move)
    assert again.fingerprint() == first.fingerprint() and "stocks.refresh=true" in again.warnings[0]
    anew = from_yahoo(refresh=True)
    assert anew.snapshot != first.snapshot and anew.close_TS[-1, 0] == first.close_TS[-1, 0] + 1


def test_dividends_of_yahoo_lower_the_prices_before_them_once(from_yahoo):
    def pay(chart):
        chart.dividends = {"2015-01-12": 2.0}
        chart.rows = [
            (day, o, h, lo, c, c * (1 - 2.0 / chart.rows[4][4]) if day < "2015-01-12" else c, v)
            for day, o, h, lo, c, _, v in chart.rows
        ]

    bars = from_yahoo(pay)
    close = made_bars()["close"].to_numpy()[70:]
    assert bars.warnings == ()
    assert bars.close_TS[5, 0] / bars.close_TS[4, 0] == pytest.approx(close[5] / (close[4] - 2.0), rel=1e-12)
    assert bars.close_TS[4, 0] / bars.close_TS[0, 0] == pytest.approx(close[4] / close[0], rel=1e-12)
    assert bars.events.values.tolist()[0][0] == "BBB" and bars.events["dividend"].tolist() == [2.0]


def test_bars_of_yahoo_are_audited_like_all_others(from_yahoo):
    def slip(chart):
        day, o, h, lo, c, a, v = chart.rows[7]
        chart.rows[7] = (day, o, h, lo, c / 100, a / 100, v)

    bars = from_yahoo(slip)
    assert np.isnan(bars.close_TS[7, 0]) and "BBB on 2015-01-14" in " ".join(bars.warnings)


def test_too_few_bars_of_yahoo_are_refused_by_name(from_yahoo):
    with pytest.raises(MarketDataError, match=r"BBB has 20 rows.*stocks\.exclude=\[BBB\]"):
        from_yahoo(lambda chart: chart.rows.__delitem__(slice(20, None)))


def test_a_symbol_excluded_from_yahoo_must_be_among_those_asked_for(from_yahoo):
    with pytest.raises(MarketDataError, match=r"stocks\.exclude: BBC is not among stocks\.symbols; did you mean BBB\?"):
        from_yahoo(exclude=["BBC"])
    assert from_yahoo(exclude=["BBB"]).symbols_S == ("AAA",)
