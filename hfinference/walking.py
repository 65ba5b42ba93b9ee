"""A walk-forward from Python: what `python train.py walk_forward=yearly` does, on the bars of a config or on others."""

from collections.abc import Sequence

from hftraining.core.bars import Bars
from hftraining.core.errors import ConfigError
from hftraining.experiment.compose import composed
from hftraining.experiment.config import typed_config
from hftraining.experiment.run import run_experiment
from hftraining.runs.result import FinishedRun


def walk_forward(words: Sequence[str] = ("walk_forward=yearly",), bars: Bars | None = None) -> FinishedRun:
    """Train anew along time, and trade the forecasts of all folds by one account; returns the run's folder and result.

    words: as typed to train.py, e.g. ["model=ridge", "walk_forward=252", "walk_forward.workers=2"]. bars: instead of
    those of the words' stocks. With several workers a script needs `if __name__ == "__main__":`, as they import it.
    Raises ConfigError for words without a walk_forward, and as run_experiment.
    """
    config = typed_config(composed(list(words)))
    if not config.walk_forward.every:
        raise ConfigError("walk_forward.every=0 trains once: say how often anew, e.g. walk_forward=yearly")
    return run_experiment(config, list(words), bars)
