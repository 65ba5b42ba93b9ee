"""A walk-forward from Python."""

import pytest

from hfinference import walk_forward
from hftraining.core.errors import ConfigError
from tests.bars_of import make_bars
from tests.runs_of import QUICK, placed


def test_words_without_a_walk_are_refused():
    with pytest.raises(ConfigError, match=r"walk_forward.every=0 trains once: say how often anew"):
        walk_forward(["model=ridge"])


@pytest.mark.slow
def test_a_walk_on_bars_in_memory_has_a_result_for_each_fold(tmp_path):
    words = [*QUICK, "stocks.path=unread", *placed(tmp_path), "walk_forward=40", "training.max_steps=2"]
    done = walk_forward(words, make_bars(400, 3, seed=8))
    # Of 54 validation days the last 14 are less than half a fold; of 60 test days the last 20 are not.
    assert [fold.days for fold in done.result.folds] == [54, 40, 20]
    assert (done.folder / "report.html").is_file()
