"""The baselines of a report: rules of the literature, and simple models that learn from the model's own features.

Legend: T sessions, S symbols, H horizons.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hftraining.core.bars import Bars
from hftraining.core.forecast import Forecast, beside
from hftraining.core.progress import phase
from hftraining.experiment.config import ExperimentConfig
from hftraining.experiment.splits import purge_of
from hftraining.market.features.scaler import Scaled, Scaler
from hftraining.market.features.table import Features
from hftraining.model.base import Forecaster, Learner
from hftraining.model.config import ModelConfig
from hftraining.model.learner import Lesson
from hftraining.portfolio.config import PortfolioConfig
from hftraining.portfolio.weights import target_weights
from hftraining.trading.strategies import STRATEGIES

STOCKS_AT_ONCE = 256


def baseline_weights(
    config: ExperimentConfig, bars: Bars, features: Features, like: Forecaster, lesson: Lesson
) -> dict[str, np.ndarray]:
    """Target weights_TS of each baseline over the whole history; the models learn from the training days alone.

    like: the run's forecaster, whose scaler and kind of labels they share.
    """
    weights = {}
    for name in config.evidence.baselines:
        with phase(f"the baseline {name} on {len(bars.symbols_S):,} stocks"):
            if name in STRATEGIES:
                weights[name] = STRATEGIES[name](bars.close_TS, config.profit_tracker)
            else:
                portfolio = without_head(config.portfolio)
                forecaster = taught(name, config, like, lesson)
                forecast = _in_parts(forecaster, features, bars.symbols_S, portfolio.horizon)
                weights[name] = target_weights(forecast, bars, portfolio, config.profit_tracker)
    return weights


def taught(kind: str, config: ExperimentConfig, like: Forecaster, lesson: Lesson) -> Forecaster:
    """A model that brings its own learning, fitted. like: see above. Raises LearningError."""
    task = like.scaler, config.objective.horizons, config.objective.quantiles
    forecaster = Forecaster.fresh(ModelConfig(name=kind, kind=kind), *task, config.training.device, like.relative)
    assert isinstance(forecaster.model, Learner)
    forecaster.model.learn(lesson)
    return forecaster


def _in_parts(forecaster: Forecaster, features: Features, symbols: Sequence[str], horizon: int) -> Forecast:
    """What books read of the forecast for all sessions, some stocks at a time: whole it takes gigabytes."""
    parts = []
    for first in range(0, len(symbols), STOCKS_AT_ONCE):
        some = range(first, min(first + STOCKS_AT_ONCE, len(symbols)))
        parts.append(forecaster.forecast_features(features.of(some), symbols[some.start : some.stop]).alone(horizon))
    return beside(parts)


def lesson_of(
    config: ExperimentConfig, features: Features, scaler: Scaler, labels_TSH: np.ndarray, train: slice
) -> Lesson:
    """The scaled features and labels that a model learns from."""
    return Lesson(
        Scaled(features.values_TSF, scaler), features.known_TS, labels_TSH, train, purge_of(config), config.seed
    )


def without_head(portfolio: PortfolioConfig) -> PortfolioConfig:
    """The portfolio for a forecast without a position of its own: `auto` in place of `head`."""
    return replace(portfolio, kind="auto") if portfolio.kind == "head" else portfolio
