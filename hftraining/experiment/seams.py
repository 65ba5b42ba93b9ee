"""The leak proof of a walk-forward: other bars from a fold on change no forecast before it, and no training up to it.

It goes through the code of the walk: which days a fold has, its ground, its training, its forecasts, their stitching.

Legend: T sessions.
"""

import copy
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hftraining.core.bars import Bars
from hftraining.core.errors import UserError
from hftraining.core.forecast import Forecast
from hftraining.evidence.leaks import Known, changed, unmoved
from hftraining.evidence.noise import other_future
from hftraining.experiment.config import ExperimentConfig
from hftraining.experiment.fit import Fitting
from hftraining.experiment.folds import Fold, fold_ground, folds_along, forecast_of, stitched, until_the_end
from hftraining.experiment.ground import Ground
from hftraining.experiment.outcome import WORDS, content_of, unheard
from hftraining.experiment.small import SmallRun, small_run
from hftraining.experiment.splits import purge_of
from hftraining.model.base import Forecaster
from hftraining.training.checkpoint import Checkpoints


@dataclass(frozen=True)
class _Small:
    """A walk made small."""

    run: SmallRun
    config: ExperimentConfig
    folds: list[Fold]
    relative: str

    def taken(self, bars: Bars, count: int) -> tuple[dict[str, Known], dict[str, Known]]:
        """The first folds on these bars: the weights that each has learned, and the stitched forecasts by day."""
        weights: dict[str, Known] = {}
        forecasts: list[Forecast] = []
        before: Forecaster | None = None
        folds = self.folds[:count]
        for fold in folds:
            own = until_the_end(fold, bars, purge_of(self.config))
            ground = fold_ground(self.config, fold, own, self.relative, before)
            with tempfile.TemporaryDirectory(prefix="hftraining-proof-") as folder, unheard():
                checkpoints = Checkpoints(Path(folder) / "checkpoints", durable=False)
                learned = Fitting.of(ground, checkpoints, []).run(lambda *_: None, lambda *_: None).forecaster
                learned.model.save(Path(folder))
                content = content_of(Path(folder))
            scaler = np.array([*learned.scaler.mean_F, *learned.scaler.std_F])
            weights[f"the weights of fold {fold.number}"] = Known(content, np.zeros(len(content), int))
            weights[f"the scaler of fold {fold.number}"] = Known(scaler, np.zeros(len(scaler), int))
            forecasts.append(forecast_of(fold, ground, learned))
            if self.config.walk_forward.finetune:
                before = replace(learned, model=copy.deepcopy(learned.model))
        first = {fold.period: fold.rows.start for fold in reversed(folds)}
        return weights, {
            f"stitched forecasts of the {WORDS[period]} days": Known.since(forecast.quantiles_TSHQ, first[period])
            for period, forecast in stitched(folds, forecasts).items()
        }


def seam_lines(ground: Ground, rng: np.random.Generator) -> list[str]:
    """What is wrong with the walk of a run, one sentence each.

    A random fold but the first is chosen, and all bars from its first day on are replaced. Raises UserError where not
    even the small walk can be taken.
    """
    run = small_run(ground, rng, ground.splits.valid.start)
    n_valid = run.splits.valid.stop - run.splits.valid.start
    walk = replace(ground.config.walk_forward, every=max(1, n_valid // 2), workers=1)
    config = replace(run.config, walk_forward=walk)
    sessions_T = run.bars.sessions_T
    folds = folds_along(config, run.splits, sessions_T, list(run.judged))
    small = _Small(run, config, folds, ground.forecaster.relative)
    place = int(rng.integers(1, len(folds)))
    seam = folds[place].rows.start
    taught, seen = small.taken(run.bars, place + 1)
    since = f"bars from {sessions_T[seam]} on, the first day of fold {folds[place].number}"
    try:
        taught_too, seen_too = small.taken(other_future(run.bars, seam - 1, rng), place + 1)
    except (UserError, ValueError) as error:
        return [f"the folds cannot be trained with other {since}: {error}"]
    lines = [f"{name} change with {since}" for name in changed(taught, taught_too, 0)]
    lines += [f"{name} before that day change with {since}" for name in changed(seen, seen_too, seam - 1)]
    if not lines and unmoved(seen, seen_too, seam - 1, (WORDS[folds[place].period],)):
        lines = [f"forecasts are the same with other {since}: the proof sees nothing"]
    return lines
