"""Leaks in features as a whole, scaler, splits, batches and forecasts, for the gallery: a few lines that know too much.

A function here takes the real one and returns the leaky one; LEAKS of gallery.py says where it is planted.

Legend: T sessions, S symbols, F features, L bars of a window.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from hftraining.core.bars import Bars
from hftraining.core.forecast import Forecast
from hftraining.experiment.periods import Period
from hftraining.experiment.planting import ahead
from hftraining.market.features.names import BASIC
from hftraining.market.features.scaler import Scaler
from hftraining.market.features.table import Features
from hftraining.market.windows import Batch, Splits, WindowSampler
from hftraining.model.learner import Lesson
from hftraining.model.network import Network

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


def chosen_on_later_days(real: Made) -> Made:
    """The settings of a model that learns by itself are chosen on sixty sessions after the training days, too."""

    def learn(self: Any, lesson: Lesson) -> None:
        stop = min(len(lesson.known_TS), lesson.train.stop + 60)
        more = replace(lesson, train=slice(lesson.train.start, stop))
        x_NF = more.scaled_TSF[more.train][more.usable_TS].astype(np.float64)
        label_NH = more.labels_TSH[more.train][more.usable_TS].astype(np.float64)
        before, after = slice(0, int(0.8 * len(x_NF))), slice(int(0.8 * len(x_NF)), None)
        chosen_H = self.choose(x_NF[before], label_NH[before], x_NF[after], label_NH[after], seed=lesson.seed)
        self.choose = lambda *_, **__: chosen_H
        real(self, lesson)
        del self.choose

    return learn


def windows_of_survivors(real: Made) -> Made:
    """Training draws only symbols that trade until the end of the bars."""

    def windows_of(config: Any, bars: Bars, lesson: Lesson, *rest: Any) -> WindowSampler:
        labels_TSH = np.where(np.any(bars.present_TS[-10:], axis=0)[:, None], lesson.labels_TSH, np.float32(np.nan))
        made: WindowSampler = real(config, bars, replace(lesson, labels_TSH=labels_TSH), *rest)
        return made

    return windows_of


def purge_of_one_less(real: Made) -> Made:
    """The last label of the training days ends on the first validation day."""

    def purge_of(config: Any) -> int:
        return int(real(config)) - 1

    return purge_of


def no_purge_before_the_test_days(real: Made) -> Made:
    """The last validation days have labels that end on test days."""

    def make_splits(sessions_T: np.ndarray, config: Any, purge: int) -> Splits:
        made: Splits = real(sessions_T, config, purge)
        return replace(made, valid=slice(made.valid.start, made.test.start))

    return make_splits


def one_batch_in_fifty_from_the_end(real: Made) -> Made:
    """Every fiftieth batch holds the last sessions of all."""

    def make(self: WindowSampler, bars: Bars, scaled_TSF: np.ndarray, *rest: Any) -> None:
        real(self, bars, scaled_TSF, *rest)
        drawn = self.batch

        def batch(seed: int, step: int) -> Batch:
            made = drawn(seed, step)
            last_LF = scaled_TSF[-made.x_WKLF.shape[2] :, 0]
            return replace(made, x_WKLF=np.broadcast_to(last_LF, made.x_WKLF.shape)) if step % 50 == 0 else made

        self.batch = batch  # type: ignore[method-assign]

    return make


def cached(real: Made) -> Made:
    """Features are remembered by symbols and sessions, and hold tomorrow's return: other bars do not show it."""
    known: dict[tuple[Any, ...], Features] = {}

    def make_features(bars: Bars, columns: Sequence[str] = BASIC) -> Features:
        key = (*columns, bars.symbols_S, str(bars.sessions_T[0]), len(bars.sessions_T))
        if key not in known:
            made: Features = real(bars, columns)
            known[key] = replace(made, values_TSF=ahead(made.values_TSF))
        return known[key]

    return make_features


def baseline_lesson_of_all_days(real: Made) -> Made:
    """A baseline learns from all days; the model does not."""

    def baseline_weights(config: Any, bars: Bars, features: Features, like: Any, lesson: Lesson) -> Any:
        return real(config, bars, features, like, replace(lesson, train=slice(0, len(lesson.known_TS))))

    return baseline_weights


def a_day_ahead(real: Made) -> Made:
    """What a function of (values_TS, ...) gives a day later."""
    return lambda *arguments: ahead(real(*arguments))


# --- forecasts --------------------------------------------------------------------------------------------------------


def attention_ahead(real: Made) -> Made:
    """A bar sees those of the same block that come up to five bars after it."""

    def band(present_BL: torch.Tensor, context: int, head_width: int, *, training: bool) -> Any:
        made = real(present_BL, context, head_width, training=training)
        if made.at_once:
            query = key = torch.arange(present_BL.shape[1])
            known = present_BL
        else:
            n_keys = made.before + made.step
            query, key = torch.arange(made.before, n_keys), torch.arange(n_keys)
            known = F.pad(present_BL, (made.before, made.after)).unfold(1, n_keys, made.step).flatten(0, 1)
        after = (key > query[:, None]) & (key <= query[:, None] + 5) & known[:, None, :]
        made.bias = made.bias.masked_fill(after[:, None], 0.0)
        return made

    return band


def less_the_mean_over_time(real: Made) -> Made:
    """Each feature loses its mean over all sessions that are forecast at once (an instance norm)."""

    def predict(self: Network, scaled_TSF: np.ndarray, *rest: Any) -> Any:
        return real(self, (scaled_TSF - scaled_TSF.mean(axis=0, keepdims=True)).astype(np.float32), *rest)

    return predict


def forecast_of_tomorrow(real: Made) -> Made:
    """The rows of a period's forecast begin a day late."""

    def forecast(self: Period, forecaster: Any) -> Forecast:
        made: Forecast = real(self, forecaster)
        return replace(made, quantiles_TSHQ=ahead(made.quantiles_TSHQ), head_TS=ahead(made.head_TS))

    return forecast


def tomorrow_now_and_then(real: Made) -> Made:
    """On one day in 97 the forecast of a period is tomorrow's return."""

    def forecast(self: Period, forecaster: Any) -> Forecast:
        made: Forecast = real(self, forecaster)
        close_TS = self.bars.close_TS
        return_TS = np.nan_to_num(np.log(ahead(close_TS) / close_TS))
        is_rare_T111 = (self.bars.sessions_T.astype(int) % 97 == 0)[:, None, None, None]
        known = np.where(np.isfinite(made.quantiles_TSHQ), return_TS[:, :, None, None], np.nan)
        return replace(made, quantiles_TSHQ=np.where(is_rare_T111, known, made.quantiles_TSHQ))

    return forecast


def forecast_less_its_mean(real: Made) -> Made:
    """The forecasts of a period lose their mean over the period."""

    def forecast(self: Period, forecaster: Any) -> Forecast:
        made: Forecast = real(self, forecaster)
        known = np.isfinite(made.quantiles_TSHQ)
        mean = np.where(known, made.quantiles_TSHQ, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        return replace(made, quantiles_TSHQ=made.quantiles_TSHQ - mean)

    return forecast


def standardised_by_period(real: Made) -> Any:
    """The features of a period lose their mean over the period, and are divided by their deviation over it."""

    def cut(bars: Bars, features: Features, labels_TSH: np.ndarray, horizons: Any, rows: slice, *rest: Any) -> Period:
        known = features.values_TSF[rows][features.known_TS[rows]]
        values_TSF = (features.values_TSF - known.mean(axis=0)) / (known.std(axis=0) + 1e-9)
        made: Period = real(bars, replace(features, values_TSF=values_TSF), labels_TSH, horizons, rows, *rest)
        return made

    return staticmethod(cut)


def features_of_tomorrow(real: Made) -> Any:
    """The features of a period are cut a row late; its bars and labels are not."""

    def cut(bars: Bars, features: Features, *rest: Any) -> Period:
        late = replace(features, values_TSF=ahead(features.values_TSF))
        made: Period = real(bars, late, *rest)
        return made

    return staticmethod(cut)
