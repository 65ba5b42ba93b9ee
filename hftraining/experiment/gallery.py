"""The gallery of leaks: each planted into the code that makes the numbers, and caught by the leak proof, or not."""

import functools
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from hftraining import profit_tracker
from hftraining.core.bars import Bars
from hftraining.evidence.leaks import LeakReport
from hftraining.experiment import fit, ground, splits
from hftraining.experiment import planted_book as book
from hftraining.experiment import planted_code as code
from hftraining.experiment import planted_data as data
from hftraining.experiment.compose import composed
from hftraining.experiment.config import ExperimentConfig, typed_config
from hftraining.experiment.periods import Period
from hftraining.experiment.planting import (
    Plant,
    all_features,
    feature,
    labels,
    planted,
    planted_everywhere,
    planted_item,
)
from hftraining.experiment.probe import ValidationProbe
from hftraining.experiment.proof import prove
from hftraining.market.features.scaler import Scaler
from hftraining.market.features.table import make_features
from hftraining.market.labels import trailing_beta
from hftraining.market.prices import load_bars
from hftraining.market.windows import WindowSampler
from hftraining.model import transformer
from hftraining.model.learner import MeanModel
from hftraining.model.network import Network
from hftraining.portfolio import weights
from hftraining.trading.strategies import STRATEGIES

SMALL = ("model.hidden_size=16", "model.num_heads=2", "model.num_layers=2", "model.context=8", "evidence.baselines=[]")
DAYS, SWEPT = 2, 1000  # as at the start of a run; of `leaks RUN` with its 50 days
SEEDS = (0, 1, 2, 3)


@dataclass(frozen=True)
class Leak:
    """plant: puts it into the code while a context lasts. rare: shows on rare days; `leaks RUN` looks for it."""

    name: str
    plant: Plant
    rare: bool = False
    overrides: tuple[str, ...] = SMALL


@dataclass(frozen=True)
class Row:
    """A leak, whether each seed caught it, and the first sentence that named it."""

    name: str
    caught: list[bool]
    said: str
    seconds: float

    def as_object(self) -> dict[str, Any]:
        """For --json."""
        return {"name": self.name, "caught": all(self.caught), "seeds": self.caught, "said": self.said}


def tried(leak: Leak, bars: Bars, seeds: Sequence[int] = SEEDS) -> Row:
    """Plant a leak and make the leak proof once a seed: the automatic one, or for a rare leak that of `leaks RUN`."""
    started = time.perf_counter()
    reports = [proof_with(leak, bars, seed) for seed in seeds]
    said = next((report.lines[0] for report in reports if report.lines), "")
    return Row(leak.name, [not report.ok for report in reports], said, time.perf_counter() - started)


def proof_with(leak: Leak, bars: Bars, seed: int) -> LeakReport:
    """One proof while the leak is in the code."""
    config = replace(config_of(leak.overrides), seed=seed)
    with leak.plant():
        laid = ground.lay(config, bars)
        return prove(laid, 0 if leak.rare else DAYS, seed, swept=SWEPT if leak.rare else 0)


@functools.cache
def config_of(overrides: tuple[str, ...]) -> ExperimentConfig:
    """The config of a small model on the packaged sample of five stocks."""
    return typed_config(composed(["stocks=sample5", "evidence.leak_days=2", *overrides]))


def sample_bars() -> Bars:
    """The packaged sample of five stocks, on which the gallery is shown."""
    return load_bars(config_of(()).stocks)


def show(seeds: Sequence[int] = SEEDS) -> list[Row]:
    """Try every leak, and a clean run beside them, and print a table while they are tried."""
    bars, rows = sample_bars(), []
    heads = ("planted", "caught, of the seeds", "what the proof said first")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for leak in (*LEAKS, *CLEAN):
        row = tried(leak, bars, seeds)
        print(f"| {row.name} | {sum(row.caught)} of {len(row.caught)} | {row.said} |", flush=True)
        rows.append(row)
    return rows


def is_right(rows: Sequence[Row]) -> bool:
    """Whether every seed caught every leak, and none raised an alarm without one."""
    clean = {leak.name for leak in CLEAN}
    return all(any(row.caught) is False if row.name in clean else all(row.caught) for row in rows)


def _at(owner: Any, name: str, make: Callable[[Any], Any]) -> Plant:
    return lambda: planted(owner, name, make)


def _in(table: dict[str, Any], name: str, make: Callable[[Any], Any]) -> Plant:
    return lambda: planted_item(table, name, make)


def _everywhere(real: Any, make: Callable[[Any], Any]) -> Plant:
    return lambda: planted_everywhere(real, make(real))


def _instead(real: Any, leaky: Any) -> Plant:
    return lambda: planted_everywhere(real, leaky)


_PATIENT = (*SMALL, "training.patience=1")
_MONTHLY = (*SMALL, "portfolio.every=21", "portfolio.trade_rate=1.0")
_LAG_2 = (*SMALL, "profit_tracker.lag=2")
_RIDGE = ("model=ridge", "evidence.baselines=[]")
_ZSCORE, _RANK, _RESIDUAL = ((*SMALL, f"objective.relative={kind}") for kind in ("zscore", "rank", "residual"))
_BESIDE = (*SMALL[:-1], "evidence.baselines=[reversal,ridge]")

DATA = (
    Leak("tomorrow's return as a feature", feature(data.return_of_tomorrow)),
    Leak("tomorrow's open in the gap", feature(data.gap_of_tomorrow)),
    Leak("tomorrow's return on the test days only", feature(data.from_the_test_days_on(data.return_of_tomorrow))),
    Leak("price over its maximum of all years (Feng et al. 2019)", feature(data.over_the_maximum_of_all_years)),
    Leak("z-score over the whole sample, by symbol", all_features(data.standardised)),
    Leak("min-max over the whole sample, by symbol", all_features(data.between_minimum_and_maximum)),
    Leak("clipped at quantiles of the whole sample", all_features(data.clipped_at_quantiles)),
    Leak("holes filled with the symbol's mean of the whole sample", all_features(data.filled_with_the_mean)),
    Leak("holes filled backwards", all_features(data.filled_backwards)),
    Leak("holes interpolated", all_features(data.interpolated)),
    Leak("centred moving average", all_features(data.centred)),
    Leak("feature: has a bar tomorrow", feature(data.has_a_bar_tomorrow)),
    Leak("feature: bars until the last bar", feature(data.bars_until_the_last)),
    Leak("feature: trades until the end", feature(data.lives_until_the_end)),
    Leak("feature: sessions until the end of the data", feature(data.sessions_until_the_end)),
    Leak("feature: sessions until the next split or dividend", feature(data.sessions_until_the_next_split)),
    Leak("feature: price level, which later splits rescale", feature(data.price_level)),
    Leak("market mean of the symbols that survive", feature(data.market_of_survivors)),
    Leak("market mean over tomorrow's listings", feature(data.market_with_listings_of_tomorrow)),
    Leak("market mean by the traded value of the whole sample", feature(data.market_by_traded_value)),
    Leak("universe of those that trade most in the whole sample", all_features(data.of_the_liquid_half)),
    Leak("a cache of features that hides what it knows", _everywhere(make_features, code.cached)),
    Leak("labels that reach three sessions further", labels(data.labels_further)),
    Leak("labels smoothed over the next days", labels(data.labels_smoothed)),
    Leak("labels over the deviation of all labels", labels(data.labels_over_their_deviation)),
    Leak("labels close to close from the day before the decision", labels(data.labels_from_the_day_before)),
    Leak("labels that begin at the open of the day decided", labels(data.labels_without_lag)),
    Leak("labels of the symbols that survive", labels(data.labels_of_survivors)),
    Leak("labels by the deviation of tomorrow", labels(data.labels_over_tomorrow), overrides=_ZSCORE),
    Leak("labels ranked among later listings", labels(data.labels_of_later_listings), overrides=_RANK),
    Leak("beta over all years", _instead(trailing_beta, data.beta_of_all_years), overrides=_RESIDUAL),
    Leak("beta of next month", _instead(trailing_beta, data.beta_of_next_month), overrides=_RESIDUAL),
)
LEARNING = (
    Leak("scaler fitted on all days", _at(Scaler, "fit", code.scaler_of_more_days(None))),
    Leak("scaler fitted six rows into the purge", _at(Scaler, "fit", code.scaler_of_more_days(6))),
    Leak("purge removed", _at(splits, "purge_of", code.no_purge)),
    Leak("purge one session short", _at(splits, "purge_of", code.purge_of_one_less)),
    Leak("purge of the shortest horizon", _at(splits, "purge_of", code.purge_of_the_shortest_horizon)),
    Leak("no purge before the test days", _at(splits, "make_splits", code.no_purge_before_the_test_days)),
    Leak("training on all days", _at(ground, "lesson_of", code.lesson_of_more_days(None))),
    Leak("training one session into the purge", _at(ground, "lesson_of", code.lesson_of_more_days(1))),
    Leak("training on the symbols that survive", _at(ground, "windows_of", code.windows_of_survivors)),
    Leak("one batch in fifty from the end", _at(WindowSampler, "__init__", code.one_batch_in_fifty_from_the_end)),
    Leak("ridge learns from all days", _at(ground, "lesson_of", code.lesson_of_more_days(None)), overrides=_RIDGE),
    Leak(
        "ridge chooses its penalty on validation days",
        _at(MeanModel, "learn", code.chosen_on_later_days),
        overrides=_RIDGE,
    ),
    Leak(
        "a baseline learns from all days",
        _at(ground, "baseline_weights", code.baseline_lesson_of_all_days),
        overrides=_BESIDE,
    ),
    Leak("the probe moves the weights", _at(ValidationProbe, "__call__", book.probe_that_trains)),
    Leak("checkpoint chosen on test days", _at(fit.Fitting, "of", book.chosen_on_the_test_days)),
    Leak("early stopping on test days", _at(fit.Fitting, "of", book.stopped_on_the_test_days), overrides=_PATIENT),
    Leak("quantiles calibrated on test days", _at(fit.Fitting, "run", book.calibrated_on_the_test_days)),
    Leak(
        "validation loss that counts later labels",
        _everywhere(ground.lay, book.tested_on_labels_too),
    ),
)
TRADING = (
    Leak("attention sees five bars ahead", _at(transformer, "Band", code.attention_ahead)),
    Leak("features less their mean over time", _at(Network, "predict", code.less_the_mean_over_time)),
    Leak("Period.forecast off by one", _at(Period, "forecast", code.forecast_of_tomorrow)),
    Leak("forecasts less their mean of the period", _at(Period, "forecast", code.forecast_less_its_mean)),
    Leak("Period.cut takes tomorrow's features", _at(Period, "cut", code.features_of_tomorrow)),
    Leak("features standardised by period", _at(Period, "cut", code.standardised_by_period)),
    Leak("weights smoothed both ways", _at(profit_tracker, "target_weights", book.smoothed_both_ways)),
    Leak("tomorrow's score", _at(weights, "smoothed", book.score_of_tomorrow)),
    Leak("tomorrow's score, traded monthly", _at(weights, "smoothed", book.score_of_tomorrow), overrides=_MONTHLY),
    Leak("sold a week before the last bar", _at(profit_tracker, "target_weights", book.flat_before_the_last_bar)),
    Leak("weights shifted in ProfitTracker", _at(profit_tracker, "target_weights", code.a_day_ahead)),
    Leak("weights over a mean of the period", _at(profit_tracker, "target_weights", book.over_the_largest)),
    Leak(
        "weights at a volatility of the whole period", _at(profit_tracker, "target_weights", book.calm_over_the_period)
    ),
    Leak("nothing bought that does not survive", _at(profit_tracker, "target_weights", book.only_survivors)),
    Leak("lag 0: filled at the open of the decision's day", _at(profit_tracker, "simulate", book.filled_a_day_early)),
    Leak("lag 2 filled after one", _at(profit_tracker, "simulate", book.filled_a_day_early), overrides=_LAG_2),
    Leak("filled at the middle of the day", _at(profit_tracker, "simulate", book.filled_at_the_middle_of_the_day)),
    Leak("flat where the stop would be hit", _at(profit_tracker, "simulate", book.flat_where_the_stop_would_be_hit)),
    Leak("marked at tomorrow's equity", _at(profit_tracker, "simulate", book.marked_at_tomorrow)),
    Leak("buy and hold of those that survive", _at(profit_tracker.ProfitTracker, "buy_and_hold", book.hold_survivors)),
    Leak(
        "a baseline decides a day ahead",
        _in(STRATEGIES, "reversal", code.a_day_ahead),
        overrides=_BESIDE,
    ),
)
RARE = (
    Leak("tomorrow's return on one day in 100", feature(data.now_and_then(data.return_of_tomorrow)), rare=True),
    Leak("tomorrow's return beyond four sigma", feature(data.return_of_a_wild_tomorrow), rare=True),
    Leak("a forecast of tomorrow on one day in 97", _at(Period, "forecast", code.tomorrow_now_and_then), rare=True),
    Leak(
        "flat before a fall at the end of a month",
        _at(profit_tracker, "target_weights", book.flat_before_a_fall),
        rare=True,
    ),
)
LEAKS = (*DATA, *LEARNING, *TRADING, *RARE)
CLEAN = (
    Leak("nothing planted", nullcontext),
    Leak("nothing planted, labels z-scored", nullcontext, overrides=_ZSCORE),
    Leak("nothing planted, labels as ranks", nullcontext, overrides=_RANK),
    Leak("nothing planted, labels of residuals", nullcontext, overrides=_RESIDUAL),
    Leak("nothing planted, many days", nullcontext, rare=True),
)
