"""A line for a phase that takes long, where lines are wanted, and none elsewhere."""

import time

import pytest

from hftraining.core import progress
from hftraining.core.progress import UNSAID, phase, phases_shown
from hftraining.experiment.ground import lay
from hftraining.experiment.run import run_experiment
from tests.bars_of import make_bars
from tests.compose import compose_config
from tests.runs_of import QUICK, placed


def waited(seconds: float = 0.2) -> None:
    with phase("the outer one"), phase("the inner one"):
        time.sleep(seconds)


@pytest.fixture
def at_once(monkeypatch):
    """Every phase that takes more than an instant says what it does."""
    monkeypatch.setattr(progress, "UNSAID", 0.0)


@pytest.mark.slow
def test_a_phase_of_more_than_two_seconds_says_what_it_does_while_it_does_it(capsys):
    with phases_shown():
        with phase("a quick one"):
            pass
        with phase("features of 5,000 stocks"):
            time.sleep(UNSAID + 1.0)
            assert capsys.readouterr().out == "features of 5,000 stocks ...\n"


def test_of_phases_within_each_other_the_outer_one_speaks(capsys, at_once):
    with phases_shown():
        waited()
    assert capsys.readouterr().out == "the outer one ...\n"


def test_nothing_is_said_where_nobody_asked_for_it_nor_after_a_failure(capsys, at_once):
    waited()
    with phases_shown(), pytest.raises(ZeroDivisionError), phases_shown(False):
        raise ZeroDivisionError
    with phases_shown(), phases_shown(False):
        waited()
    assert capsys.readouterr().out == ""


def config_of(folder):
    return compose_config(*QUICK, "stocks=folder", "stocks.path=unread", *placed(folder))


def test_the_ground_of_a_run_names_its_phases(tmp_path, capsys, at_once):
    with phases_shown():
        lay(config_of(tmp_path), make_bars(420, 12))
    said = capsys.readouterr().out
    assert "15 features of 12 stocks ...\n" in said and "the baseline ridge on 12 stocks ...\n" in said


@pytest.mark.slow
def test_a_run_names_its_phases_and_a_trial_of_a_sweep_none(tmp_path, capsys, at_once):
    bars = make_bars(420, 12)
    run_experiment(config_of(tmp_path), [], bars)
    said = capsys.readouterr().out
    for words in ("the leak proof ...", "the evidence on the test days ...", "the loss of the training days ..."):
        assert f"{words}\n" in said
    run_experiment(config_of(tmp_path), [], bars, sealed=True)
    assert " ...\n" not in capsys.readouterr().out
