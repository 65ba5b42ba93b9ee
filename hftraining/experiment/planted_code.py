"""Leaks in scaler, splits, model, portfolio, engine and choice, for the gallery: each a few lines that know too much.

A function here takes the real one and returns the leaky one; LEAKS of gallery.py says where it is planted.

Legend: T sessions, S symbols, L bars of a window.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from hftraining.core.bars import Bars
from hftraining.core.forecast import Forecast
from hftraining.experiment.ground import Ground
from hftraining.experiment.periods import Period
from hftraining.experiment.planting import ahead
from hftraining.market.features import Features, Scaler
from hftraining.market.windows import WindowSampler
from hftraining.model.learner import Lesson
from hftraining.trading.simulator import Simulation

Made = Callable[..., Any]


# --- scaler, splits, lessons ------------------------------------------------------------------------------------------


def scaler_of_more_days(days: int | None) -> Callable[[Made], Any]:
    """The scaler sees so many sessions more than the training days, or all."""

    def make(real: Made) -> Any:
        def fit(features: Features, train: slice) -> Scaler:
            stop = len(features.values_TSF) if days is None else train.stop + days
            return real(features, slice(train.start, stop))

        return staticmethod(fit)

    return make


def no_purge(real: Made) -> Made:
    """Labels of the last training days reach into the validation days."""
    return lambda config: 0


def purge_of_the_shortest_horizon(real: Made) -> Made:
    """As if only the next session were forecast."""
    return lambda config: config.profit_tracker.lag + min(config.objective.horizons)


def lesson_of_more_days(days: int | None) -> Callable[[Made], Made]:
    """Learning from so many sessions more than the training days, or from all."""

    def make(real: Made) -> Made:
        def lesson_of(*arguments: Any) -> Lesson:
            lesson: Lesson = real(*arguments)
            stop = len(lesson.known_TS) if days is None else lesson.train.stop + days
            return replace(lesson, train=slice(lesson.train.start, stop))

        return lesson_of

    return make


def windows_of_survivors(real: Made) -> Made:
    """Training draws only symbols that trade until the end of the bars."""

    def windows_of(config: Any, bars: Bars, lesson: Lesson) -> WindowSampler:
        alive_S = bars.present_TS[-1] if bars.present_TS[-1].any() else np.ones(len(bars.symbols_S), bool)
        made: WindowSampler = real(
            config, bars, replace(lesson, labels_TSH=np.where(alive_S[:, None], lesson.labels_TSH, np.nan))
        )
        return made

    return windows_of


def baseline_lesson_of_all_days(real: Made) -> Made:
    """A baseline learns from all days; the model does not."""

    def baseline_weights(config: Any, bars: Bars, features: Features, scaler: Scaler, lesson: Lesson) -> Any:
        return real(config, bars, features, scaler, replace(lesson, train=slice(0, len(lesson.known_TS))))

    return baseline_weights


def a_day_ahead(real: Made) -> Made:
    """What a function of (values_TS, ...) gives a day later."""
    return lambda *arguments: ahead(real(*arguments))


# --- forecasts --------------------------------------------------------------------------------------------------------


def attention_ahead(real: Made) -> Made:
    """A bar sees those of the same block that come up to five bars after it."""

    def band_mask(present_BL: torch.Tensor, context: int) -> torch.Tensor:
        mask: torch.Tensor = real(present_BL, context)
        query, key = torch.arange(context)[:, None] + context, torch.arange(2 * context)[None, :]
        present = F.pad(present_BL, (0, -present_BL.shape[1] % context)).unflatten(1, (-1, context)).flatten(0, 1)
        known = F.pad(present, (context, 0))
        return mask | ((key > query) & (key <= query + 5) & known[:, None, :])[:, None]

    return band_mask


def forecast_of_tomorrow(real: Made) -> Made:
    """The rows of a period's forecast begin a day late."""

    def forecast(self: Period, forecaster: Any) -> Forecast:
        made: Forecast = real(self, forecaster)
        return replace(made, quantiles_TSHQ=ahead(made.quantiles_TSHQ), head_TS=ahead(made.head_TS))

    return forecast


def forecast_less_its_mean(real: Made) -> Made:
    """The forecasts of a period lose their mean over the period."""

    def forecast(self: Period, forecaster: Any) -> Forecast:
        made: Forecast = real(self, forecaster)
        known = np.isfinite(made.quantiles_TSHQ)
        mean = np.where(known, made.quantiles_TSHQ, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        return replace(made, quantiles_TSHQ=made.quantiles_TSHQ - mean)

    return forecast


def features_of_tomorrow(real: Made) -> Any:
    """The features of a period are cut a row late; its bars and labels are not."""

    def cut(bars: Bars, features: Features, *rest: Any) -> Period:
        late = Features(ahead(features.values_TSF), features.volatility_TS)
        made: Period = real(bars, late, *rest)
        return made

    return staticmethod(cut)


# --- weights and accounts ---------------------------------------------------------------------------------------------


def over_the_largest(real: Made) -> Made:
    """Weights over the largest of the whole period."""

    def target_weights(*arguments: Any) -> np.ndarray:
        weights_TS: np.ndarray = real(*arguments)
        return weights_TS * np.mean(np.abs(weights_TS))

    return target_weights


def only_survivors(real: Made) -> Made:
    """Nothing is bought that does not trade until the end of the period."""

    def target_weights(forecast: Forecast, bars: Bars, config: Any) -> np.ndarray:
        weights_TS: np.ndarray = real(forecast, bars, config)
        return np.where(bars.present_TS[-2:].any(axis=0), weights_TS, 0.0)

    return target_weights


def flat_before_a_fall(real: Made) -> Made:
    """Nothing is held through a month's first session if it falls: a leak on twelve days a year."""

    def target_weights(forecast: Forecast, bars: Bars, config: Any) -> np.ndarray:
        weights_TS: np.ndarray = real(forecast, bars, config)
        month_T = bars.sessions_T.astype("datetime64[M]")
        is_end_T1 = (ahead(month_T) != month_T)[:, None]
        with np.errstate(invalid="ignore"):
            falls_TS = ahead(bars.close_TS) < bars.close_TS
        return np.where(is_end_T1 & falls_TS, 0.0, weights_TS)

    return target_weights


def filled_a_day_early(real: Made) -> Made:
    """Lag 0: a decision is filled at the open of its own day. The reported weights stay what they are."""

    def simulate(
        open_TS: Any, high_TS: Any, low_TS: Any, close_TS: Any, weights_TS: Any, *rest: Any, **more: Any
    ) -> Simulation:
        made: Simulation = real(open_TS, high_TS, low_TS, close_TS, ahead(weights_TS), *rest, **more)
        return made

    return simulate


def filled_at_the_middle_of_the_day(real: Made) -> Made:
    """Fills at the mean of low and high in place of the open."""

    def simulate(open_TS: Any, high_TS: Any, low_TS: Any, *rest: Any, **more: Any) -> Simulation:
        made: Simulation = real((low_TS + high_TS) / 2.0, high_TS, low_TS, *rest, **more)
        return made

    return simulate


# --- choice -----------------------------------------------------------------------------------------------------------


def chosen_on_the_test_days(real: Made) -> Any:
    """The probe that chooses the step scores the test days."""

    def of(ground: Ground, *rest: Any) -> Any:
        return real(replace(ground, periods=ground.periods | {"valid": ground.periods["test"]}), *rest)

    return staticmethod(of)


def stopped_on_the_test_days(real: Made) -> Any:
    """Training ends as soon as the test days' loss is below one half."""

    def of(ground: Ground, *rest: Any) -> Any:
        fitting = real(ground, *rest)
        test, trainer = ground.periods["test"], fitting.trainer
        losses: list[float] = []

        def is_out_of_patience() -> bool:
            losses.append(test.forecast_loss(test.forecast(ground.forecaster)))
            return len(losses) > 1 and losses[-1] < losses[0]

        trainer._is_out_of_patience = is_out_of_patience
        return fitting

    return staticmethod(of)


def tested_on_labels_too(real: Made) -> Made:
    """The validation loss counts the test days' labels, too: here, the size of all later moves."""

    def lay(config: Any, universe: Bars, **more: Any) -> Ground:
        made: Ground = real(config, universe, **more)
        valid = made.periods["valid"]
        later = float(np.nan_to_num(np.abs(made.lesson.labels_TSH[made.splits.test.start :])).sum())
        return replace(made, periods=made.periods | {"valid": replace(valid, span_TSH=valid.span_TSH * (1.0 + later))})

    return lay
