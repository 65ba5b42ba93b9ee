"""Paper trading: a replay is the backtest of its days, each day is traded once, and what is wrong halts it."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from hfinference import backtest_model, load_model
from hfinference.__main__ import main
from hfinference.live.entries import money
from hfinference.live.journal import Journal
from hftraining.core.errors import UserError
from hftraining.runs.ledger import Ledger
from tests.commands import last_object
from tests.hfinference.live.paper import content, replayed
from tests.runs_of import own_ledger

CENT = 0.005
BOOKS = {
    "edge, stops and targets": (),
    "tilt": ("portfolio=tilt", "profit_tracker=default"),
    "shorts, lag 2": ("portfolio=long_short", "profit_tracker=default", "profit_tracker.lag=2"),
    "top, whole shares": (
        *("portfolio=top", "profit_tracker=default", "profit_tracker.whole_shares=true"),
        "profit_tracker.initial_capital=100000",
    ),
}


@pytest.fixture(scope="module")
def days(own):
    first = load_model(own).days["test"][0]
    return first, str(np.busday_offset(first, 40, roll="forward"))


def same_account(paper, backtest):
    """To the cent: equity at every close, buy and hold, and every trade."""
    for name in ("equity", "buy_and_hold"):
        difference_T = paper.equity[name].to_numpy() - backtest.equity[name].to_numpy()
        assert np.abs(difference_T).max() < CENT
    assert [str(day) for day in paper.equity["date"]] == [str(day) for day in backtest.equity["date"]]
    by = ["symbol", "entry_date", "exit_date", "pnl"]
    ours, theirs = (found.trades.sort_values(by).reset_index(drop=True) for found in (paper, backtest))
    assert len(ours) == len(theirs)
    for name in ("symbol", "side", "exit_reason", "entry_date", "exit_date"):
        texts = (frame[name].astype("datetime64[s]") if "date" in name else frame[name] for frame in (ours, theirs))
        assert [str(value) for value in next(texts)] == [str(value) for value in next(texts)]
    for name in ("shares", "entry_price", "exit_price", "costs", "pnl"):
        assert np.abs(ours[name] - theirs[name]).max() < CENT


@pytest.mark.parametrize(
    "words",
    [BOOKS[name] if n == 0 else pytest.param(BOOKS[name], marks=pytest.mark.slow) for n, name in enumerate(BOOKS)],
)
def test_a_replay_is_the_backtest_of_its_days_to_the_cent(own, days, tmp_path, words):
    paper = replayed(own, *days, tmp_path / "journal", *words)
    backtest = backtest_model(own, *days, words=words, outputs=tmp_path)
    same_account(paper, backtest)
    with Journal.read(tmp_path / "journal") as journal:
        journal.check()
        last = journal.last_session()
        held = sum(count / 1e9 * last.closes[symbol] for symbol, count in journal.positions().items())
        assert money(journal.cash()) + held == pytest.approx(paper.final_equity, abs=1e-4)
        assert {mark.decision for mark in journal.sessions()} == {"traded"}


@pytest.mark.slow
def test_a_replay_of_some_of_the_stocks_sees_the_others_as_the_market_as_the_backtest_does(own, days, tmp_path):
    words = ("portfolio=tilt", "profit_tracker=default")
    paper = replayed(own, *days, tmp_path / "journal", *words, stocks=["S2", "S0"])
    same_account(paper, backtest_model(own, *days, words=words, stocks=["S2", "S0"], outputs=tmp_path))
    with Journal.read(tmp_path / "journal") as journal:
        assert journal.facts["symbols"] == ["S2", "S0"] and journal.facts["universe"] == ["S0", "S1", "S2"]


@pytest.mark.slow
def test_the_same_replay_again_gives_the_same_and_writes_nothing(own, days, tmp_path):
    first = replayed(own, *days, tmp_path)
    before = content(tmp_path)
    again = replayed(own, *days, tmp_path)
    pd.testing.assert_frame_equal(first.equity, again.equity)
    pd.testing.assert_frame_equal(first.trades, again.trades)
    assert content(tmp_path) == before and again.is_done


@pytest.mark.slow
def test_a_replay_is_the_trial_of_the_backtest_with_the_same_settings(own, days, tmp_path):
    ledger, costs = Ledger(Path(load_model(own).config.evidence.ledger)), "profit_tracker.commission=0.003"
    before = len(ledger.entries())
    replayed(own, *days, tmp_path / "a", costs)
    row = ledger.entries()[-1]
    assert len(ledger.entries()) == before + 1 and (row.status, row.kind) == ("done", "backtest") and row.test_window
    backtest_model(own, *days, words=[costs], outputs=tmp_path)
    assert len(ledger.entries()) == before + 1 and ledger.entries()[-1].uuid == row.uuid
    replayed(own, *days, tmp_path / "b", "profit_tracker.commission=0.01")
    assert len(ledger.entries()) == before + 2
    assert own_ledger().entries() == []


@pytest.mark.slow
def test_the_command_says_what_the_account_has_and_its_last_line_is_an_object(own, days, tmp_path, capsys):
    arguments = ["paper", str(own), "--replay", *days, "--journal", str(tmp_path / "journal"), "--json"]
    assert main(arguments) == 0
    found = last_object(capsys.readouterr().out)
    backtest = backtest_model(own, *days, outputs=tmp_path)
    assert found["final_equity"] == pytest.approx(backtest.final_equity, abs=CENT)
    assert found["done"] and found["backtest_difference"] < CENT and Path(found["page"]).is_file()
    assert main([*arguments[:-1], "--status"]) == 0 and "2016" in capsys.readouterr().out


@pytest.mark.slow
def test_a_replay_of_days_of_the_training_is_refused_unless_it_is_asked_for(own, tmp_path, capsys):
    first, last = load_model(own).days["train"]
    arguments = ["paper", str(own), "--replay", str(np.busday_offset(last, -5, roll="backward")), last]
    assert main([*arguments, "--journal", str(tmp_path)]) == 2 and first in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
    assert main([*arguments, "--journal", str(tmp_path), "--in-sample"]) == 0
    assert "in sample" in capsys.readouterr().out
    said = f"in sample: the model was trained on days from {first} to {last}"
    assert said[1:] in (tmp_path / "status.html").read_text()
    assert main(["paper", str(own), "--status", "--journal", str(tmp_path), "--json"]) == 0
    out = capsys.readouterr().out
    assert said in out and last_object(out)["in_sample"].startswith(said)


@pytest.mark.slow
def test_an_account_goes_on_with_no_other_model_also_in_the_folder_of_its_own(own, days, tmp_path):
    run = Path(shutil.copytree(own, tmp_path / "run"))
    first = replayed(run, days[0], np.busday_offset(days[0], 4), tmp_path / "journal")
    before = content(tmp_path / "journal")
    model = load_model(run)
    with torch.no_grad():
        next(model.predictor.model.parameters()).mul_(1.5)
    model.save(run / "model")
    with pytest.raises(UserError, match="run has another model than it began with: bring the model back, or begin"):
        replayed(run, days[0], np.busday_offset(days[0], 4), tmp_path / "journal")
    assert content(tmp_path / "journal") == before and first.is_done


@pytest.mark.slow
def test_settings_make_another_journal_and_the_same_ones_the_same(own, days, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(own, run)
    for words in ((), ("profit_tracker.commission=0.004",), ("profit_tracker.commission=0.004",)):
        replayed(run, *days, None, *words)
    names = sorted(path.name for path in (run / "paper").iterdir())
    assert len(names) == 2 and names[1].startswith(f"{names[0]}_") and len(names[1]) == len(names[0]) + 9
