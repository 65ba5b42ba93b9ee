"""The days of a config: training, validation and test, with the purge between them."""

import dataclasses

from hftraining.core.bars import Bars
from hftraining.experiment.config import ExperimentConfig
from hftraining.market.windows import Splits, make_splits


def splits_of(config: ExperimentConfig, bars: Bars) -> Splits:
    """The training, validation and test days of a config; training.history keeps only the last training days."""
    splits = make_splits(bars.sessions_T, config.stocks, purge_of(config))
    if not config.training.history:
        return splits
    train = slice(max(splits.train.start, splits.train.stop - config.training.history), splits.train.stop)
    return dataclasses.replace(splits, train=train)


def purge_of(config: ExperimentConfig) -> int:
    """The sessions before a border whose labels would reach over it: lag + longest horizon."""
    return config.profit_tracker.lag + max(config.objective.horizons)
