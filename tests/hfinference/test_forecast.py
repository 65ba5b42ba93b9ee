"""Tomorrow's positions: the weights of a backtest at the same close, the engine's orders, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hfinference import backtest_model, load_model
from hfinference.__main__ import main
from hfinference.bars_of_run import bars_of_run
from hfinference.forecast import Holding, forecast_next, memory_of, rows_needed
from hfinference.trained import Table, forecast_of
from hftraining.core.forecast import Forecast
from hftraining.portfolio.config import PortfolioConfig
from hftraining.portfolio.weights import target_weights
from hftraining.trading.config import ProfitTrackerConfig
from hftraining.trading.simulator import Account
from tests.bars_of import make_bars, write_csv_files
from tests.commands import last_object
from tests.runs_of import run_of_kind

TILT = ["portfolio=tilt", "profit_tracker=default"]


@pytest.fixture(scope="module")
def whole(base):
    """The bars of the run, its forecast and the rows of its test days."""
    model = load_model(base)
    bars = bars_of_run(model).universe
    first = int(np.searchsorted(bars.sessions_T, np.datetime64(model.days["test"][0])))
    rows = slice(first, len(bars.sessions_T))
    return bars.rows(rows), forecast_of(model.predictor, Table(bars), bars.symbols_S, rows)


def test_the_weights_are_those_of_a_backtest_at_the_same_close(base, whole):
    bars, forecast = whole
    portfolio, rules = PortfolioConfig(kind="tilt"), ProfitTrackerConfig()
    weights_TS = target_weights(forecast, bars, portfolio, rules)
    for t in (40, len(bars.sessions_T) - 1):
        found = forecast_next(base, str(bars.sessions_T[t]), words=TILT)
        assert found.day == str(bars.sessions_T[t]) and found.since == str(bars.sessions_T[0])
        np.testing.assert_allclose(found.table["weight"][list(bars.symbols_S)], weights_TS[t], atol=1e-6)
        middle = found.table["q50_5"][list(bars.symbols_S)]
        np.testing.assert_allclose(middle, forecast.quantiles_TSHQ[t, :, 1, 2], atol=1e-6)


def test_the_orders_are_those_of_the_fill_engine_for_what_the_account_holds(base, whole):
    bars, forecast = whole
    rules = ProfitTrackerConfig(whole_shares=True, rebalance_band=0.0005, initial_capital=1e6)
    weights_TS = target_weights(forecast, bars, PortfolioConfig(kind="tilt"), rules)
    account, t = Account(len(bars.symbols_S), rules), 50
    for row in range(t):
        prices = (array[row] for array in (bars.open_TS, bars.high_TS, bars.low_TS, bars.close_TS))
        account.step(*prices, weights_TS[row])
    # Without orders on their way: at the close before, all of them are dropped.
    account.book_S["order"] = np.nan
    held = Holding(account.cash, dict(zip(bars.symbols_S, account.shares_S.tolist(), strict=True)))
    prices = [array[t] for array in (bars.open_TS, bars.high_TS, bars.low_TS, bars.close_TS)]
    account.step(*prices, weights_TS[t])
    wanted_S, before_S = account.orders_S, np.array([held.positions[name] for name in bars.symbols_S])
    expected_S = np.where(np.isfinite(wanted_S), wanted_S - before_S, 0.0)
    words = [*TILT, "profit_tracker.whole_shares=true", "profit_tracker.rebalance_band=0.0005"]
    found = forecast_next(base, str(bars.sessions_T[t]), words=words, account=held)
    assert found.equity == pytest.approx(account.equity, abs=1e-9)
    order_S = found.table["order"][list(bars.symbols_S)].to_numpy()
    np.testing.assert_array_equal(order_S, expected_S)
    assert (order_S != 0).any() and set(found.table["side"]) <= {"buy", "sell", ""}
    cost_S = np.abs(order_S) * bars.close_TS[t] * 0.0015
    np.testing.assert_allclose(found.table["cost"][list(bars.symbols_S)], cost_S, rtol=1e-12)


def older_than(score: float, book: float, share: float) -> int:
    """Sessions beyond which two exponential means, one after the other, have at most a share of their weight."""
    t_T = np.arange(4000)
    weight_T = np.convolve((1 - score) * score**t_T, (1 - book) * book**t_T)[: len(t_T)]
    return int(np.argmax(weight_T[::-1].cumsum()[::-1][1:] <= share))


@pytest.mark.parametrize(("n_symbols", "strength"), [(12, 1.0), (300, 1.0), (40, 5.0)])
@pytest.mark.parametrize("lasting", [False, True])
def test_the_default_book_cut_to_what_it_remembers_has_the_weights_of_the_whole(n_symbols, strength, lasting):
    bars = make_bars(n_sessions=900, n_symbols=n_symbols, seed=5)
    rng, shape = np.random.default_rng(1), bars.close_TS.shape
    quantiles_TSHQ = np.sort(rng.normal(size=(*shape, 1, 5)), axis=3)
    forecast = Forecast(quantiles_TSHQ, np.full(shape, np.nan), (5,), (0.1, 0.25, 0.5, 0.75, 0.9), "none")
    portfolio, rules = PortfolioConfig(kind="tilt", strength=strength), ProfitTrackerConfig()
    memory = memory_of(portfolio, bars.present_TS)
    assert memory == older_than(2.0 ** (-1 / 20), 0.95, 1e-6 * n_symbols / (10.0 * strength))
    if lasting:  # what is left out says the opposite of what came after, on every day and as loud as it can
        last_S = rng.normal(size=n_symbols)
        quantiles_TSHQ += 100.0 * last_S[:, None, None]
        quantiles_TSHQ[: 899 - memory] -= 200.0 * last_S[:, None, None]
    own = slice(899 - memory, 900)
    whole_S = target_weights(forecast, bars, portfolio, rules)[-1]
    cut_S = target_weights(forecast.rows(own), bars.rows(own), portfolio, rules)[-1]
    np.testing.assert_allclose(cut_S, whole_S, rtol=0.0, atol=1e-6)
    short = slice(899 - memory // 2, 900)
    apart_S = target_weights(forecast.rows(short), bars.rows(short), portfolio, rules)[-1] - whole_S
    assert np.abs(apart_S).max() > 1e-6


def test_a_day_of_few_stocks_is_remembered_for_longer():
    present_TS, portfolio = np.ones((900, 100), bool), PortfolioConfig(kind="tilt")
    of_many = memory_of(portfolio, present_TS)
    present_TS[850, 5:] = False
    of_few = memory_of(portfolio, present_TS)
    assert of_many == older_than(2.0 ** (-1 / 20), 0.95, 1e-5) < of_few == older_than(2.0 ** (-1 / 20), 0.95, 5e-7)
    present_TS[850] = False  # nobody traded
    assert memory_of(portfolio, present_TS) == of_many


@pytest.mark.parametrize(("kind", "share"), [("head", 5e-7), ("core", 1e-7), ("long_short", 1e-7), ("sign", 1e-7)])
def test_a_place_that_any_difference_may_move_is_remembered_for_longest(kind, share):
    portfolio = PortfolioConfig(kind=kind)
    assert memory_of(portfolio, np.ones((900, 300), bool)) == older_than(2.0 ** (-1 / 20), 0.95, share)


@pytest.mark.parametrize("words", [["portfolio.smoothing=2", "portfolio.trade_rate=0.5"], ["portfolio.smoothing=0"]])
def test_a_book_that_forgets_needs_only_what_it_remembers(base, whole, words):
    bars, forecast = whole
    values = dict(word.removeprefix("portfolio.").split("=") for word in words)
    portfolio = PortfolioConfig(kind="tilt", **{"trade_rate": 1.0} | {n: float(v) for n, v in values.items()})
    expected = target_weights(forecast, bars, portfolio, ProfitTrackerConfig())[-1]
    found = forecast_next(base, words=[*TILT, "portfolio.trade_rate=1", *words])
    assert str(bars.sessions_T[0]) <= found.since
    np.testing.assert_allclose(found.table["weight"][list(bars.symbols_S)], expected, atol=1e-6)
    memory = memory_of(portfolio, bars.present_TS)
    assert memory == (0 if words == ["portfolio.smoothing=0"] else older_than(2.0 ** (-1 / 2), 0.5, 1e-6 * 3 / 10))
    assert memory or found.since == found.day


@pytest.mark.parametrize("changed", [{"kind": "top"}, {"every": 5}, {"weighting": "inverse_volatility"}])
def test_a_book_that_never_forgets_takes_all_of_its_days(changed):
    assert (
        memory_of(
            PortfolioConfig(**{"kind": "tilt", "smoothing": 0.0, "trade_rate": 1.0} | changed), np.ones((9, 5), bool)
        )
        is None
    )


def test_history_is_counted_in_each_symbols_own_bars():
    present_TS = np.ones((100, 3), bool)
    present_TS[:95, 1] = False  # a late listing
    present_TS[40:80, 2] = False  # a gap
    assert rows_needed(present_TS[:, :1], 90, 99, 20) == 70
    assert rows_needed(present_TS[:, [0, 1]], 90, 99, 20) == 70
    assert rows_needed(present_TS, 90, 99, 20) == 30  # ten of them before the gap
    assert rows_needed(present_TS, 90, 99, 200) == 0 == rows_needed(present_TS, 0, 99, 20)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["transformer", "linear", "mlp", "lstm", "patchtst", "ridge", "lightgbm"])
def test_a_forecast_of_a_truncated_history_is_the_backtests_for_every_kind_of_model(folder, tmp_path, kind):
    if kind == "lightgbm":
        pytest.importorskip("lightgbm")
    done = Path(run_of_kind(folder, tmp_path, kind, "evidence.baselines=[]")["folder"])
    model = load_model(done)
    bars = bars_of_run(model).universe
    rows = slice(int(np.searchsorted(bars.sessions_T, np.datetime64(model.days["test"][0]))), len(bars.sessions_T))
    backtested = forecast_of(model.predictor, Table(bars), bars.symbols_S, rows)
    for t in (430, 480, 499):
        found = forecast_next(done, str(bars.sessions_T[t])).table.loc[list(bars.symbols_S)]
        alone = model.predict(bars.rows(slice(0, t + 1)))
        np.testing.assert_allclose(alone.quantiles_TSHQ[-1], backtested.quantiles_TSHQ[t - rows.start], atol=1e-6)
        np.testing.assert_allclose(found["q50_5"], backtested.quantiles_TSHQ[t - rows.start, :, 1, 2], atol=1e-6)


def test_the_command_prints_a_table_and_writes_it_and_counts_as_no_trial(base, state, tmp_path, capsys):
    account = tmp_path / "account.json"
    account.write_text(json.dumps({"cash": 4000.0, "positions": {"S0": 10, "S2": -3.5}}))
    files = ["--csv", str(tmp_path / "next.csv"), "--parquet", str(tmp_path / "next.parquet")]
    assert main(["forecast", str(base), "--account", str(account), *files, "--json", *TILT]) == 0
    said = capsys.readouterr().out
    found = last_object(said)
    assert (
        found["day"] == "2016-11-30" and "decided at the close of 2016-11-30 for the open of the next session" in said
    )
    rows = {row["symbol"]: row for row in found["symbols"]}
    assert rows["S0"]["shares"] == 10 and rows["S2"]["held"] < 0
    read = pd.read_csv(tmp_path / "next.csv", index_col="symbol")
    assert read["order"].to_dict() == pytest.approx({name: row["order"] for name, row in rows.items()})
    assert list(pd.read_parquet(tmp_path / "next.parquet").columns) == list(read.columns)
    assert not (state / "ledger.sqlite").exists()


@pytest.mark.slow
def test_a_new_york_calendar_names_the_next_session_after_a_weekend(base, tmp_path):
    found = forecast_next(base, stocks=["sample"], date="2020-12-24", words=TILT)
    assert (found.day, found.session) == ("2020-12-24", "2020-12-28")
    last = forecast_next(base, stocks=["sample"], words=TILT)
    assert (last.day, last.session) == ("2021-04-21", "2021-04-22") and "never saw" in last.notes[0]
    waits = forecast_next(base, stocks=["sample"], words=[*TILT, "profit_tracker.lag=2"])
    assert (waits.day, waits.session) == ("2021-04-21", "2021-04-23") and "not filled yet" in waits.notes[0]
    waits = forecast_next(base, stocks=["sample"], date="2020-12-24", words=[*TILT, "profit_tracker.lag=2"])
    assert (waits.day, waits.session) == ("2020-12-24", "2020-12-29")


def account_of(text: str, folder: Path) -> Path:
    path = folder / "account.json"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"cash": NaN}', "is damaged"),
        ('{"money": 3}', "money is neither cash nor positions"),
        ('{"positions": {}}', "cash is None, not an amount of money"),
        ('{"cash": 1, "positions": [1]}', "positions is no object of symbols and shares"),
        ('{"cash": 1, "positions": {"S0": "ten"}}', "S0 has ten shares, which is no number of shares"),
        ('{"cash": -5000}', "the account is worth -5,000.00 at the close of"),
        ('{"cash": 1, "positions": {"ZZZ": 1}}', "the account holds ZZZ, which is not among the stocks"),
        ('{"cash": 1e300}', "not an amount of money"),
        ("[]", "holds no JSON object"),
    ],
)
def test_an_account_that_is_none_is_refused_in_one_line(base, tmp_path, capsys, text, message):
    assert main(["forecast", str(base), "--account", str(account_of(text, tmp_path)), *TILT]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--date", "2030-01-01"], "--date 2030-01-01 lies outside the bars"),
        (["--date", "2015-06-01"], "the model was trained on days from 2015-01-01"),
        (["--start", "2016-12-01"], "--start 2016-12-01 lies outside the bars"),
        (["--start", "2016-11-30", "--date", "2016-11-15"], "--start 2016-11-30 is after the close of 2016-11-15"),
        (["--csv", "nowhere/next.csv"], "nowhere/next.csv: there is no folder nowhere"),
        (["--csv", "."], ". is a folder: name a file in it"),
        (["--parquet", ".."], ".. is a folder: name a file in it"),
        (["--rows", "-3"], "--rows -3 is less than 0"),
        (["--csv", "next", "--parquet", "next"], "--csv and --parquet both name next"),
        (["seed=3"], "seed: a trained model is what it is"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_code_2(base, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["forecast", str(base), *arguments]) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and not said.out


def test_bars_that_end_before_the_training_does_are_refused(base, tmp_path, capsys):
    short = write_csv_files(make_bars(n_sessions=200, seed=3), tmp_path)
    assert main(["forecast", str(base), f"stocks.path={short}"]) == 2
    assert "these bars end on 2015-10-07, and the model was trained on days until" in capsys.readouterr().err


def test_a_backtest_of_later_days_says_in_its_trades_what_the_forecast_ordered(own, tmp_path):
    day = forecast_next(own, "2016-10-31", words=TILT, start="2016-10-31")
    found = backtest_model(own, "2016-10-31", outputs=tmp_path, words=TILT)
    bought = found.trades[found.trades["entry_date"] == "2016-11-01"].set_index("symbol")
    assert day.session == "2016-11-01" and set(bought.index) == set(day.table.index[day.table["order"] > 0])
