"""Decisions that anyone made, traded by the engine with the whole evidence: in Python and as a command."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from hfinference import evaluate
from hfinference.__main__ import main
from hftraining.core.errors import UserError
from hftraining.evidence.config import EvidenceConfig
from hftraining.profit_tracker import ProfitTracker
from hftraining.runs.ledger import Ledger
from hftraining.runs.ledger_file import ledger_path
from hftraining.runs.result import read_result
from hftraining.trading.config import ProfitTrackerConfig
from tests.bars_of import make_bars, write_csv_files
from tests.browser import drawn, needs_browser
from tests.commands import last_object
from tests.naive_engine import naive_simulate

BARS = make_bars(300, 4, seed=5)
DAYS = [str(day) for day in BARS.sessions_T]
LITTLE = EvidenceConfig(null_draws=40, bootstrap_draws=100, baselines=["momentum", "reversal"])
FEW = ("evidence.null_draws=40", "evidence.bootstrap_draws=100")


def frame_of_book(book, column="weight") -> pd.DataFrame:
    """One row for each entry of {session: {symbol: value}}."""
    rows = [(DAYS[t], symbol, value) for t, day in book.items() for symbol, value in day.items()]
    return pd.DataFrame(rows, columns=["date", "symbol", column])


def random_book(seed=0, every=3, scale=1.0):
    rng = np.random.default_rng(seed)
    return {
        t: dict(zip(BARS.symbols_S, scale * rng.dirichlet(np.ones(4)) * rng.choice([-1, 1], 4), strict=True))
        for t in range(20, 300, every)
    }


@pytest.mark.parametrize("lag", [1, 2])
@pytest.mark.parametrize("column", ["weight", "position"])
def test_buy_and_hold_as_decisions_is_the_buy_and_hold_of_the_report(lag, column):
    rules = ProfitTrackerConfig(lag=lag)
    first = {s: 0.25 if column == "weight" else 2500 / BARS.close_TS[10, k] for k, s in enumerate(BARS.symbols_S)}
    found = evaluate(frame_of_book({10: first}, column), BARS, rules, evidence=LITTLE)
    held = found.judgement.report.buy_and_hold
    assert len(found.equity) == 290 and found.metrics["turnover"] > 0.0 and len(found.trades) == 4
    np.testing.assert_allclose(found.equity.to_numpy(), held.equity.to_numpy(), rtol=1e-9)
    for name, value in held.metrics.items():
        assert found.metrics[name] == pytest.approx(value, rel=1e-9, nan_ok=True)
    own = ProfitTracker(rules).buy_and_hold(BARS.rows(slice(10, None)))
    np.testing.assert_array_equal(held.equity.to_numpy(), own.equity.to_numpy())


@pytest.mark.parametrize("in_shares", [False, True])
def test_the_account_is_that_of_a_naive_loop_over_the_rows(in_shares):
    rules = ProfitTrackerConfig(stop_loss=0.05, take_profit=0.1, lag=2, max_gross=1.2)
    book = random_book(scale=60.0 if in_shares else 1.0)
    found = evaluate(frame_of_book(book, "position" if in_shares else "weight"), BARS, rules, evidence=LITTLE)
    wanted = [[book[t][s] for s in BARS.symbols_S] if t in book else [np.nan] * 4 for t in range(20, 300)]
    prices = [getattr(BARS, f"{name}_TS")[20:].tolist() for name in ("open", "high", "low", "close")]
    naive = naive_simulate(*prices, wanted, rules, in_shares)
    np.testing.assert_allclose(found.equity.to_numpy(), naive.equity, rtol=1e-9)
    assert len(found.trades) == len(naive.trades) > 100


def test_a_book_has_baselines_null_band_costs_and_intervals_but_no_verdict_until_it_is_counted():
    found = evaluate(frame_of_book(random_book()), BARS, evidence=LITTLE)
    result = found.judgement.result
    assert set(result.baselines) == {"buy_and_hold", "risk_matched", "momentum", "reversal"}
    assert 0.0 < result.null.p <= 1.0 and len(result.interval) == 2 and not result.verdict
    returns = [at.total_return for at in result.at_costs]
    assert returns == sorted(returns, reverse=True) and found.warnings == ()


def test_positions_at_other_costs_are_the_same_shares():
    found = evaluate(frame_of_book(random_book(scale=20.0), "position"), BARS, evidence=LITTLE)
    free = ProfitTrackerConfig(commission=0.0, slippage=0.0, borrow_rate=0.0)
    same = evaluate(frame_of_book(random_book(scale=20.0), "position"), BARS, free, evidence=LITTLE)
    assert found.judgement.result.at_costs[0].total_return == same.metrics["total_return"]
    np.testing.assert_array_equal(same.trades["shares"], found.trades["shares"])


def test_positions_beyond_the_account_are_refused_with_what_allows_them():
    frame = frame_of_book({10: {"S0": 100.0}, 20: {"S0": 4000.0}}, "position")
    with pytest.raises(UserError, match=rf"the positions of {DAYS[20]} are worth .* times the account") as caught:
        evaluate(frame, BARS, evidence=LITTLE)
    assert "4000 shares of S0" in str(caught.value) and "profit_tracker.initial_capital=" in str(caught.value)
    assert evaluate(frame, BARS, ProfitTrackerConfig(initial_capital=1e6), evidence=LITTLE).metrics["trade_count"] == 0


@pytest.mark.parametrize(
    ("window", "said"),
    [
        ({"start": "2015-01-10", "end": "2015-01-11"}, "has no decision from"),
        ({"end": DAYS[20]}, "nothing would be filled"),
        ({"start": "soon"}, "start=soon is not an ISO date"),
        ({"start": DAYS[40], "end": DAYS[30]}, "has no decision from"),
        ({"start": "1900-01-01"}, "--start 1900-01-01 lies outside the bars"),
        ({"end": "2100-01-01"}, "--end 2100-01-01 lies outside the bars"),
    ],
)
def test_windows_in_which_nothing_can_be_traded_are_refused(window, said):
    with pytest.raises(UserError, match=said):
        evaluate(frame_of_book(random_book()), BARS, evidence=LITTLE, **window)


def test_a_day_that_is_written_otherwise_is_the_same_day():
    frame = frame_of_book(random_book())
    plain = evaluate(frame, BARS, evidence=LITTLE, start=DAYS[40], end=DAYS[99]).equity
    dense = evaluate(
        frame, BARS, evidence=LITTLE, start=DAYS[40].replace("-", ""), end=DAYS[99].replace("-", "")
    ).equity
    pd.testing.assert_series_equal(dense, plain)
    assert str(dense.index[-1])[:10] == DAYS[99]


def test_there_must_be_a_trading_day_between_start_and_end():
    frame = pd.DataFrame({"date": ["2015-01-10"], "symbol": ["S0"], "weight": [0.5]})  # a Saturday
    with pytest.raises(UserError, match="there is no trading day between 2015-01-10 and 2015-01-11"):
        evaluate(frame, BARS, evidence=LITTLE, start="2015-01-10", end="2015-01-11")


def test_a_long_end_without_decisions_is_mentioned():
    book = {t: day for t, day in random_book().items() if t < 100}
    (note,) = evaluate(frame_of_book(book), BARS, evidence=LITTLE).notes
    assert note.startswith(f"the last decision is of {DAYS[98]}; on the 201 sessions after it the book only drifts")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with bars and decisions."""
    folder = tmp_path_factory.mktemp("evaluate")
    (folder / "bars").mkdir()
    write_csv_files(BARS, folder / "bars")
    frame_of_book(random_book()).to_csv(folder / "mine.csv", index=False)
    return folder


def run(files, tmp_path, *words, decisions="mine.csv"):
    stocks = ["--stocks", f"stocks.path={files / 'bars'}"]  # as the help has it
    arguments = ["evaluate", str(files / decisions), *stocks, *FEW, *words, "--outputs", str(tmp_path / "out")]
    return main([*arguments, "--json"])


@pytest.mark.slow
def test_the_command_leaves_a_report_and_a_trial_that_counts(files, tmp_path, capsys):
    assert run(files, tmp_path) == 0
    found = last_object(capsys.readouterr().out)
    result = read_result(tmp_path / found["folder"])
    assert found["final_equity"] == pytest.approx(10_000 * (1 + found["metrics"]["total_return"]))
    assert found["verdict"] == result.verdict and result.n_trials == 1 and not found["hindsight"]
    again = evaluate(pd.read_csv(files / "mine.csv"), BARS, evidence=dataclasses.replace(LITTLE, baselines=[]))
    assert found["final_equity"] == pytest.approx(again.equity.iloc[-1], rel=1e-9)
    facts = json.loads((tmp_path / found["folder"] / "run.json").read_text())
    assert facts["kind"] == "evaluations" and facts["made_of"][0]["folder"].endswith("mine.csv")
    page = (tmp_path / found["report"]).read_text()
    assert "The book" in page or "the book" in page
    assert run(files, tmp_path) == 0  # the same again is no other trial
    assert last_object(capsys.readouterr().out)["n_trials"] == 1
    for word in ("profit_tracker.commission=0", "--lag=2"):
        assert run(files, tmp_path, word) == 0
    assert last_object(capsys.readouterr().out)["n_trials"] == 3
    rows = Ledger(ledger_path(None)).entries()
    assert {(row.kind, row.name, row.status) for row in rows} == {("evaluation", "mine", "done")} and len(rows) == 3
    assert rows[0].valid_window == f"{DAYS[20]} to {DAYS[-1]}"


def test_weights_that_know_tomorrow_get_an_alarm_and_no_evidence(files, tmp_path, capsys):
    tomorrow_TS = np.log(BARS.open_TS[2:] / BARS.open_TS[1:-1])
    frame_of_book({t: {BARS.symbols_S[tomorrow_TS[t].argmax()]: 1.0} for t in range(20, 298)}).to_csv(
        files / "known.csv", index=False
    )
    assert run(files, tmp_path, decisions="known.csv") == 0
    out = capsys.readouterr().out
    found = last_object(out)
    assert found["verdict"] == "hindsight: no evidence" and "ALARM: on the backtest days the weights know later" in out
    page = (tmp_path / found["report"]).read_text()
    assert "the weights know later prices" in page and "what they earned was not to be had" in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["portfolio=top"], "portfolio: decisions are traded as they are"),
        (["profit_tracker.comission=0"], "profit_tracker.comission: there is no such field"),
        (["evidence.baselines=[ridge]"], "ridge and lightgbm learn from a model's features"),
        (["profit_tracker.max_gross=0.5"], "beyond profit_tracker.max_gross=0.5"),
        (["--end", "2014-01-01"], "--end 2014-01-01 lies outside the bars"),
        (["--stocks", "S0", "S7"], "stocks.symbols: S7 is not in the data"),
        (["--stocks", "S0", "S1"], "S2 is not a symbol of the bars"),
        (["--stocks", "sample", "single"], "give one option of the stocks group"),
    ],
)
def test_a_command_that_cannot_be_met_ends_in_one_line_and_leaves_nothing(files, tmp_path, capsys, words, said):
    assert run(files, tmp_path, *words) == 2
    err = capsys.readouterr().err
    assert said in err and err.startswith("error: ") and len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists() and not ledger_path(None).exists()


def test_bars_must_be_named(files, capsys):
    assert main(["evaluate", str(files / "mine.csv")]) == 2
    assert capsys.readouterr().err.startswith("error: whose bars? --stocks sample")


@needs_browser
@pytest.mark.slow
def test_the_page_is_drawn_without_an_error(files, tmp_path, capsys):
    assert run(files, tmp_path) == 0
    report = tmp_path / last_object(capsys.readouterr().out)["report"]
    assert "equity-chart" in drawn(report.resolve(), tmp_path)
