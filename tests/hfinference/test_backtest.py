"""Backtests: the numbers of the run again, other rules, days and stocks, what counts, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hfinference import backtest_model, load_model
from hfinference.__main__ import main
from hftraining.core.errors import UserError
from hftraining.runs.ledger import Ledger
from tests.bars_of import make_bars, write_csv_files
from tests.commands import last_object
from tests.runs_of import hashes, run_of_kind, tune


def into(folder: Path) -> Path:
    folder.mkdir()
    return folder


def result_of(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def windows(folder: Path) -> dict:
    """What a run says of its traded days; a candidate of a fine-tune never sees the test days."""
    result = result_of(folder)
    return {name: result[name] for name in ("valid", "test") if name in result}


def same_as_the_run(folder: Path, outputs: Path) -> None:
    for period in windows(folder).values():
        found = backtest_model(folder, period["first"], period["last"], outputs=outputs)
        assert found.metrics["total_return"] == pytest.approx(period["profit"]["total_return"], abs=1e-9)
        for name, beside in period["baselines"].items():
            ours = found.period.baselines[name].metrics["total_return"]
            assert ours == pytest.approx(beside["total_return"], abs=1e-9)
        assert found.period.scores["rank_ic"].value == pytest.approx(period["scores"]["rank_ic"]["value"], abs=1e-9)
        assert found.period.null.p == pytest.approx(period["null"]["p"], abs=1e-9)


def test_the_runs_own_days_give_the_runs_own_numbers(own, tmp_path):
    same_as_the_run(own, tmp_path)
    assert "ridge" in result_of(own)["valid"]["baselines"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ridge", "lstm"])
def test_so_do_runs_of_other_kinds_of_model(folder, tmp_path, kind):
    same_as_the_run(Path(run_of_kind(folder, tmp_path, kind)["folder"]), tmp_path)


@pytest.mark.slow
def test_so_does_a_fine_tune_which_trades_some_stocks_in_the_market_of_its_base(base, tmp_path):
    tuned = Path(tune(base, tmp_path, "training.methods=[full]")["folder"])
    same_as_the_run(tuned, tmp_path)
    same_as_the_run(tuned / "candidates" / "full", tmp_path)


def test_the_command_ends_with_one_object_and_a_page(own, tmp_path, capsys):
    valid = windows(own)["valid"]
    more = ["portfolio=top", "profit_tracker.stop_loss=0", "--lag", "2", "--json"]
    before = hashes(own)
    assert main(["backtest", str(own), "--start", valid["first"], "--end", valid["last"], *more]) == 0
    said = capsys.readouterr().out
    found = last_object(said)
    assert found["days"] == {"sessions": valid["days"], "first": valid["first"], "last": valid["last"]}
    equity = pd.read_parquet(Path(found["folder"]) / "equity.parquet")
    assert found["final_equity"] == equity["equity"].iloc[-1] != 10_000 and set(equity["window"]) == {"backtest"}
    assert {(at["basis_points"], at["lag"]) for at in found["at_costs"]} == {
        (points, lag) for points in (0, 5, 10, 20) for lag in (1, 2)
    }
    page = (Path(found["folder"]) / "report.html").read_text()
    assert "10 bp, lag 2" in page and "profit_tracker.stop_loss" not in page.split("What differs")[0]
    assert "validation days of the model, which chose what was kept" in page
    config = (Path(found["folder"]) / "config.yaml").read_text()
    assert "kind: top" in config and "lag: 2" in config and "verdict on the backtest days" in said
    assert hashes(own) == before  # nothing is written into the run


@pytest.mark.slow
def test_each_setting_is_a_trial_once_and_days_from_the_test_days_on_are_an_opening(own, tmp_path):
    ledger = Ledger(own.parents[2] / "ledger.sqlite")
    valid, test = windows(own).values()
    before = len(ledger.entries())
    first = backtest_model(own, valid["first"], valid["last"], commission=0.002)
    again = backtest_model(own, valid["first"], valid["last"], commission=0.002)
    dearer = backtest_model(own, valid["first"], valid["last"], commission=0.003)
    assert first.result.n_trials == again.result.n_trials == dearer.result.n_trials - 1
    assert len(ledger.entries()) == before + 2 and first.result.test_openings is None
    opened = backtest_model(own, valid["first"], test["last"], commission=0.002)
    row = ledger.entries()[-1]
    assert (row.kind, row.status) == ("backtest", "done")
    assert row.test_window == f"{test['first']} to {test['last']}" and row.valid_window.startswith(valid["first"])
    assert opened.result.test_openings == result_of(own)["test_openings"] + 1
    # The run's own rules on a part of its test days: numbers that nobody has seen.
    later = str(np.datetime64(test["first"]) + 20)
    looks = [backtest_model(own, later, test["last"]).result.test_openings for _ in range(2)]
    assert looks == [opened.result.test_openings + 1] * 2
    assert backtest_model(own, test["first"], test["last"]).result.test_openings == looks[0]  # as the run itself


@pytest.mark.slow
def test_higher_costs_earn_less_and_the_table_holds_what_a_backtest_at_these_costs_gives(own, tmp_path):
    valid = windows(own)["valid"]
    days = valid["first"], valid["last"]
    free = {"slippage": 0.0, "commission": 0.001, "words": ["portfolio=tilt"]}
    found = backtest_model(own, *days, outputs=tmp_path, words=["portfolio=tilt"])
    for lag in (1, 2):
        at = next(at for at in found.period.at_costs if (at.basis_points, at.lag) == (10, lag))
        other = backtest_model(own, *days, outputs=tmp_path, lag=lag, **free)
        assert at.total_return == pytest.approx(other.metrics["total_return"], abs=1e-12)
    by_lag = [at.total_return for at in found.period.at_costs if at.lag == 1]
    assert by_lag == sorted(by_lag, reverse=True)


@pytest.mark.slow
def test_later_bars_and_other_stocks_are_traded_and_what_the_model_never_saw_is_said(own, tmp_path):
    longer = write_csv_files(make_bars(n_sessions=600, seed=3), into(tmp_path / "longer"))
    later = backtest_model(own, "2016-12-01", outputs=tmp_path, words=[f"stocks.path={longer}"])
    assert later.period.days == 100 and later.result.in_sample is None
    others = write_csv_files(make_bars(n_sessions=600, n_symbols=5, seed=4), into(tmp_path / "others"))
    words = [f"stocks.path={others}", "stocks.symbols=[S3,S4]"]
    found = backtest_model(own, "2016-12-01", outputs=tmp_path, words=words)
    assert set(found.trades["symbol"]) <= {"S3", "S4"}
    assert any("never saw S3, S4" in text for text in found.result.warnings)
    facts = json.loads((found.folder / "run.json").read_text())
    assert facts["data"]["symbols"] == ["S3", "S4"] and str(others) in (found.folder / "config.yaml").read_text()


def test_days_of_the_training_are_refused_unless_said_and_then_marked_everywhere(own, tmp_path, capsys):
    arguments = ["backtest", str(own), "--start", "2015-09-01", "--end", "2015-12-31", "--outputs", str(tmp_path)]
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert "the model was trained on days from 2015-01-01" in said.err and said.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    assert main([*arguments, "--in-sample", "--json"]) == 0
    said = capsys.readouterr().out
    found = last_object(said)
    assert "IN SAMPLE: in sample: the model was trained" in said and found["verdict"] == "in sample: no evidence"
    assert found["in_sample"] == result_of(Path(found["folder"]))["in_sample"]
    assert "In sample: the model was trained" in (Path(found["folder"]) / "report.html").read_text()


def test_days_that_the_last_training_labels_reach_over_are_refused_too(own, tmp_path):
    days = load_model(own).days
    after = str(np.datetime64(days["train"][1]) + 1)
    assert after < days["valid"][0]
    with pytest.raises(UserError, match=rf"its labels reach up to {days['valid'][0]}: start on {days['valid'][0]}"):
        backtest_model(own, after, outputs=tmp_path)


def test_an_empty_day_is_none_and_not_the_default(own, tmp_path):
    for days in (("", None), (None, " ")):
        with pytest.raises(UserError, match=r"--(start|end) +is not a day"):
            backtest_model(own, *days, outputs=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--start", "2030-01-01"], "--start 2030-01-01 lies outside the bars, which go from 2015-01-01 to"),
        (["--end", "2030-01-01"], "--end 2030-01-01 lies outside the bars"),
        (["--start", "2016-10-08", "--end", "2016-10-09"], "no trading day lies from 2016-10-08 to 2016-10-09"),
        (["--start", "2016-10-10", "--end", "2016-10-09"], "--start 2016-10-10 is after --end 2016-10-09"),
        (["--start", "soon"], "--start soon is not a day such as 2019-01-31"),
        (["--start="], "argument --start: an empty text: is a variable of the shell not set?"),
        (["model.hidden_size=8"], "model.hidden_size: a trained model is what it is"),
        (["portfolio=topp"], "portfolio=topp: there is no such option; did you mean top?"),
        (["--stocks", "ZZZ"], "ZZZ"),
        (["--lag", "3"], "argument --lag: invalid choice: 3"),
        (["--snapshot", "x"], "--snapshot x: these stocks are of source=files, not of yahoo"),
    ],
)
@pytest.mark.slow
def test_what_cannot_be_is_one_line_exit_code_2_and_nothing_written(own, tmp_path, capsys, arguments, message):
    assert main(["backtest", str(own), "--outputs", str(tmp_path), *arguments]) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_bars_that_end_before_the_training_does_and_a_run_without_a_model_are_refused(own, tmp_path):
    short = write_csv_files(make_bars(n_sessions=200, seed=3), into(tmp_path / "short"))
    with pytest.raises(UserError, match="these bars end on 2015-10-07, and the model was trained on days until 2016"):
        backtest_model(own, "2015-03-01", words=[f"stocks.path={short}"], outputs=tmp_path)
    found = backtest_model(own, outputs=tmp_path)
    with pytest.raises(UserError, match="has no model: it is a backtest of "):
        backtest_model(found.folder)
    assert np.isfinite(found.final_equity)
