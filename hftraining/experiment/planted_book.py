"""Leaks in weights, accounts and the choice of a step, for the gallery: each a few lines that know too much.

A function here takes the real one and returns the leaky one; LEAKS of gallery.py says where it is planted.

Legend: T sessions, S symbols.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from hftraining.core.bars import ARRAYS, Bars
from hftraining.core.forecast import Forecast
from hftraining.experiment.ground import Ground
from hftraining.experiment.planting import ahead
from hftraining.experiment.probe import ValidationProbe
from hftraining.model.network import Network
from hftraining.trading.simulator import Simulation

Made = Callable[..., Any]


def over_the_largest(real: Made) -> Made:
    """Weights over the largest of the whole period."""

    def target_weights(*arguments: Any) -> np.ndarray:
        weights_TS: np.ndarray = real(*arguments)
        return weights_TS * np.mean(np.abs(weights_TS))

    return target_weights


def only_survivors(real: Made) -> Made:
    """Nothing is bought that does not trade until the end of the period."""

    def target_weights(forecast: Forecast, bars: Bars, *rules: Any) -> np.ndarray:
        weights_TS: np.ndarray = real(forecast, bars, *rules)
        return np.where(bars.present_TS[-2:].any(axis=0), weights_TS, 0.0)

    return target_weights


def flat_before_the_last_bar(real: Made) -> Made:
    """A symbol is sold a week before its last bar, unless that is the last session of the period."""

    def target_weights(forecast: Forecast, bars: Bars, *rules: Any) -> np.ndarray:
        weights_TS: np.ndarray = np.array(real(forecast, bars, *rules))
        left_TS = np.cumsum(bars.present_TS[::-1], axis=0)[::-1]  # bars from today on
        ends_S = ~np.asarray(bars.present_TS[-1])
        return np.where((left_TS <= 5) & ends_S, 0.0, weights_TS)

    return target_weights


def smoothed_both_ways(real: Made) -> Made:
    """Weights are the mean of today's and tomorrow's."""

    def target_weights(*arguments: Any) -> np.ndarray:
        weights_TS: np.ndarray = real(*arguments)
        return (weights_TS + ahead(weights_TS)) / 2.0

    return target_weights


def flat_before_a_fall(real: Made) -> Made:
    """Nothing is held through a month's first session if it falls: a leak on twelve days a year."""

    def target_weights(forecast: Forecast, bars: Bars, *rules: Any) -> np.ndarray:
        weights_TS: np.ndarray = real(forecast, bars, *rules)
        month_T = bars.sessions_T.astype("datetime64[M]")
        is_end_T1 = (ahead(month_T) != month_T)[:, None]
        with np.errstate(invalid="ignore"):
            falls_TS = ahead(bars.close_TS) < bars.close_TS
        return np.where(is_end_T1 & falls_TS, 0.0, weights_TS)

    return target_weights


def calm_over_the_period(real: Made) -> Made:
    """Weights scaled down to a volatility that the book had over the whole period."""

    def target_weights(forecast: Forecast, bars: Bars, *rules: Any) -> np.ndarray:
        weights_TS: np.ndarray = real(forecast, bars, *rules)
        return_TS = np.nan_to_num(np.diff(np.log(bars.close_TS), axis=0))
        volatility = float(np.std((weights_TS[:-1] * return_TS).sum(axis=1)))
        return weights_TS * min(1.0, 0.01 / max(volatility, 1e-9))

    return target_weights


def hold_survivors(real: Made) -> Made:
    """Buy and hold buys the symbols that trade on the last session of the period."""

    def buy_and_hold(self: Any, bars: Bars, *rest: Any) -> Any:
        dead_S = np.isnan(bars.close_TS[-1])
        arrays: dict[str, Any] = {name: np.where(dead_S, np.nan, getattr(bars, name)) for name in ARRAYS}
        return real(self, replace(bars, **arrays), *rest)

    return buy_and_hold


def flat_where_the_stop_would_be_hit(real: Made) -> Made:
    """Nothing is held on a day whose low lies more than a percent below its open."""

    def simulate(
        open_TS: Any, high_TS: Any, low_TS: Any, close_TS: Any, weights_TS: Any, *rest: Any, **more: Any
    ) -> Any:
        with np.errstate(invalid="ignore"):
            falls_TS = ahead(low_TS / open_TS < 0.99)
        return real(open_TS, high_TS, low_TS, close_TS, np.where(falls_TS, 0.0, weights_TS), *rest, **more)

    return simulate


def marked_at_tomorrow(real: Made) -> Made:
    """The equity of a day is that of the next."""

    def simulate(*arguments: Any, **more: Any) -> Simulation:
        made: Simulation = real(*arguments, **more)
        return replace(made, equity_T=ahead(made.equity_T))

    return simulate


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


def probe_that_trains(real: Made) -> Made:
    """The probe moves the weights by the mean label of the validation days."""

    def call(self: ValidationProbe, step: int) -> Any:
        model = self.forecaster.model
        assert isinstance(model, Network)
        with torch.no_grad():
            next(model.parameters()).mul_(1.0 + float(np.nan_to_num(self.valid.labels_TSH).mean()))
        return real(self, step)

    return call


def calibrated_on_the_test_days(real: Made) -> Made:
    """After training, the quantiles are moved by the mean label of the test days."""

    def run(self: Any, *arguments: Any) -> Any:
        fitted = real(self, *arguments)
        later = self.ground.lesson.labels_TSH[self.ground.splits.test.start :]
        with torch.no_grad():
            fitted.forecaster.model.quantiles.bias.add_(float(np.nan_to_num(later).sum()))
        return fitted

    return run
