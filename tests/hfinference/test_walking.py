"""A walk-forward from Python."""

import pytest

from hfinference import walk_forward
from hftraining.core.errors import ConfigError
from hftraining.runs.ledger import Ledger
from tests.bars_of import make_bars, write_csv_files
from tests.hfinference.live.paper import replayed
from tests.runs_of import QUICK, placed


def test_words_without_a_walk_are_refused():
    with pytest.raises(ConfigError, match=r"walk_forward.every=0 trains once: say how often anew"):
        walk_forward(["model=ridge"])


@pytest.mark.slow
def test_a_walk_on_bars_in_memory_has_a_result_for_each_fold(tmp_path):
    (tmp_path / "bars").mkdir()
    bars, path = make_bars(400, 3, seed=8), tmp_path / "bars"
    words = [*QUICK, f"stocks.path={path}", *placed(tmp_path), "walk_forward=40", "training.max_steps=2"]
    done = walk_forward(words, bars)
    # Of 54 validation days the last 14 are less than half a fold; of 60 test days the last 20 are not.
    assert [fold.days for fold in done.result.folds] == [54, 40, 20]
    assert (done.folder / "report.html").is_file()

    # What trades it has the last fold's model alone, and all test days of the run are test days: the last fold's, too,
    # whose step was chosen on days of the fold before.
    write_csv_files(bars, path)
    first, last = (fold for fold in done.result.folds if fold.period == "test")
    start = max(first.first, last.inner_first)
    assert start < last.first
    paper = replayed(done.folder, start, last.last, tmp_path / "journal")
    assert "trained anew every 40 sessions" in paper.notes[0] and last.train_last in paper.notes[0]
    assert Ledger(tmp_path / "ledger.sqlite").entries()[-1].test_window == f"{start} to {last.last}"
