"""What is judged outside a training: its folder, its page, its row of the ledger, and how often it counts."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from hfinference.judged import Asked, judged_folder
from hftraining.__main__ import main
from hftraining.experiment.judging import judge_book
from hftraining.profit_tracker import ProfitTracker
from hftraining.runs.ledger import Ledger
from hftraining.runs.result import read_result
from tests.bars_of import make_bars
from tests.commands import last_object
from tests.compose import compose_config
from tests.runs_of import FAST

BARS = make_bars(n_sessions=300, n_symbols=3, seed=8)
FIRST = str(BARS.sessions_T[0])
WEIGHTS_TS = np.random.default_rng(2).dirichlet(np.ones(3), 300)


def asked(output: Path, **changes) -> Asked:
    config = compose_config(*FAST, f"evidence.ledger={output}/ledger.sqlite")
    source = {"folder": "outputs/base/x/y", "id": "ab" * 16, "signature": "cafe0000"}
    return dataclasses.replace(Asked("backtests", "small", config, BARS, [source]), **changes)


def conclude(output: Path, **changes):
    """A book judged in a folder of its own."""
    wanted = asked(output, **changes)
    tracker, evidence = ProfitTracker(wanted.config.profit_tracker), wanted.config.evidence
    with judged_folder(wanted, output / "outputs", ["test"]) as found:
        window = (FIRST, str(BARS.sessions_T[-1]))
        judged = judge_book(wanted.bars, WEIGHTS_TS, tracker, {}, evidence, 1, window)
        return found.conclude(judged, ["said by the caller"])


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return conclude(tmp_path_factory.mktemp("judged"))


def test_its_folder_holds_all_that_a_run_has_but_a_training(done):
    names = {path.name for path in done.folder.iterdir()}
    assert {"config.yaml", "config_diff.yaml", "run.json", "result.json", "report.html"} <= names
    assert {"equity.parquet", "trades.parquet", "null_band.parquet"} <= names and "checkpoints" not in names
    assert done.folder.parts[-4:-1] == ("outputs", "backtests", "small")
    facts = json.loads((done.folder / "run.json").read_text())
    assert facts["kind"] == "backtests" and facts["made_of"][0]["signature"] == "cafe0000"
    result = read_result(done.folder)
    assert list(result.periods) == ["backtest"] and result.test_openings is None
    assert result.verdict == result.periods["backtest"].verdict and "said by the caller" in result.warnings


def test_its_page_says_nothing_of_a_training_that_was_not(done):
    page = (done.folder / "report.html").read_text()
    assert "300 backtest days" in page and "No model was trained on any of these days." in page
    for untrue in ("trained on neither", "validation days", "chose the step", "each period", "Test window"):
        assert untrue not in page, untrue
    assert "on these days, this one included" in page and "outputs/base/x/y" in page


@pytest.mark.slow
def test_the_same_again_is_the_same_trial_and_other_settings_days_or_bars_are_others(tmp_path):
    first = conclude(tmp_path)
    assert first.result.n_trials == 1 and conclude(tmp_path).result.n_trials == 1
    dearer = asked(tmp_path).config
    dearer.profit_tracker.commission = 0.01
    assert conclude(tmp_path, config=dearer).result.n_trials == 2
    rows = Ledger(tmp_path / "ledger.sqlite").entries()
    assert [(row.kind, row.status, row.resumed) for row in rows] == [("backtest", "done", 1), ("backtest", "done", 0)]
    assert rows[0].valid_window == f"{FIRST} to {BARS.sessions_T[-1]}" and rows[0].test_window == ""


@pytest.mark.slow
def test_days_from_the_first_test_day_on_are_an_opening_which_the_ledger_knows_by_these_days_alone(tmp_path):
    since = str(BARS.sessions_T[200])
    found = conclude(tmp_path, test_first=since)
    assert found.result.test_openings == 1
    (row,) = Ledger(tmp_path / "ledger.sqlite").entries()
    assert row.test_window == f"{since} to {BARS.sessions_T[-1]}"
    assert row.test.dates[0] == since and list(row.test.returns) == list(row.valid.returns)[199:]
    assert conclude(tmp_path, test_first=since).result.test_openings == 1


@pytest.mark.slow
def test_days_that_the_model_was_trained_on_are_marked_on_the_page_and_in_the_result_and_prove_nothing(tmp_path):
    sentence = "in sample: the model was trained on these days"
    found = conclude(tmp_path, in_sample=sentence)
    result, page = json.loads((found.folder / "result.json").read_text()), (found.folder / "report.html").read_text()
    assert result["in_sample"] == sentence and result["verdict"] == "in sample: no evidence"
    assert page.count("In sample: the model was trained on these days") >= 2
    assert "says nothing about other days" in page and "No model was trained" not in page


def test_an_exception_ends_the_row_and_leaves_no_result(tmp_path):
    with pytest.raises(ZeroDivisionError), judged_folder(asked(tmp_path), tmp_path / "outputs") as found:
        raise ZeroDivisionError
    assert [row.status for row in Ledger(tmp_path / "ledger.sqlite").entries()] == ["failed"]
    assert not (found.folder / "result.json").exists()


@pytest.mark.parametrize("command", ["leaks", "replay", "portfolios"])
def test_what_wants_a_training_refuses_a_backtest_in_one_line(done, capsys, command):
    assert main([command, str(done.folder)]) == 2
    said = capsys.readouterr().err
    assert "is a backtest, not a run that was trained" in said and said.count("\n") == 1


@pytest.mark.slow
def test_a_report_is_built_again_from_its_files_and_two_are_compared(done, tmp_path, capsys):
    before = (done.folder / "report.html").read_bytes()
    assert main(["report", str(done.folder)]) == 0 and (done.folder / "report.html").read_bytes() == before
    dearer = asked(tmp_path).config
    dearer.profit_tracker.commission = 0.01
    other = conclude(tmp_path, config=dearer)
    capsys.readouterr()
    assert main(["compare", str(done.folder), str(other.folder), "--to", str(tmp_path), "--json"]) == 0
    said = capsys.readouterr().out
    assert last_object(said)["differences"][0]["sharpe"]["backtest"]["value"] < 0 and "backtest days" in said
