"""The baselines of a report: rules of the literature, and simple models that learn from the model's own features.

Legend: T sessions, S symbols, H horizons.
"""

from dataclasses import replace

import numpy as np

from hftraining.core.bars import Bars
from hftraining.core.forecast import Forecast
from hftraining.experiment.config import ExperimentConfig
from hftraining.experiment.splits import purge_of
from hftraining.market.features import Features, Scaler
from hftraining.model.base import Forecaster, Learner
from hftraining.model.config import ModelConfig
from hftraining.model.learner import Lesson
from hftraining.portfolio.config import PortfolioConfig
from hftraining.portfolio.weights import target_weights
from hftraining.trading.strategies import STRATEGIES


def baseline_weights(
    config: ExperimentConfig, bars: Bars, features: Features, like: Forecaster, lesson: Lesson
) -> dict[str, np.ndarray]:
    """Target weights_TS of each baseline over the whole history; the models learn from the training days alone.

    like: the run's forecaster, whose scaler and kind of labels they share.
    """
    weights = {}
    for name in config.evidence.baselines:
        if name in STRATEGIES:
            weights[name] = STRATEGIES[name](bars.close_TS, config.profit_tracker)
        else:
            forecast = baseline_forecast(name, config, features, like, lesson)
            weights[name] = target_weights(forecast, bars, without_head(config.portfolio), config.profit_tracker)
    return weights


def baseline_forecast(
    kind: str, config: ExperimentConfig, features: Features, like: Forecaster, lesson: Lesson
) -> Forecast:
    """The forecast for all sessions of a model that brings its own learning. like: see above. Raises LearningError."""
    task = like.scaler, config.objective.horizons, config.objective.quantiles
    forecaster = Forecaster.fresh(ModelConfig(name=kind, kind=kind), *task, config.training.device, like.relative)
    assert isinstance(forecaster.model, Learner)
    forecaster.model.learn(lesson)
    return forecaster.forecast_features(features)


def lesson_of(
    config: ExperimentConfig, features: Features, scaler: Scaler, labels_TSH: np.ndarray, train: slice
) -> Lesson:
    """The scaled features and labels that a model learns from."""
    scaled_TSF = scaler.scale(features.values_TSF)
    return Lesson(scaled_TSF, features.known_TS, labels_TSH, train, purge_of(config), config.seed)


def without_head(portfolio: PortfolioConfig) -> PortfolioConfig:
    """The portfolio for a forecast without a position of its own: `auto` in place of `head`."""
    return replace(portfolio, kind="auto") if portfolio.kind == "head" else portfolio
