"""What grows with the number of stocks: no loop of Python over each of them, and a bounded memory for each bar."""

import sys
import tracemalloc

import numpy as np
import pytest

from hftraining.experiment.baselines import baseline_weights
from hftraining.experiment.ground import Ground, lay
from hftraining.experiment.judging import judge
from hftraining.experiment.periods import score_training, unconditional
from hftraining.experiment.probe import ValidationProbe
from hftraining.model import linear, network
from tests.bars_of import make_bars
from tests.compose import compose_config
from tests.runs_of import QUICK

SESSIONS = 500
NO_BLOCKS = "model.context=1"  # nor is attention, which takes a stock at a time: a dozen calls in each layer


def config_of(*overrides: str):
    return compose_config(*QUICK, "stocks=folder", "stocks.path=unread", "portfolio=default", *overrides)


def laid(n_symbols: int, *overrides: str) -> Ground:
    return lay(config_of(*overrides), make_bars(SESSIONS, n_symbols, missing=0.02))


def probed_and_judged(ground: Ground) -> None:
    """What follows the ground but for training: a probe, the judgement of a period, the loss of the training days."""
    valid, config = ground.periods["valid"], ground.config
    ValidationProbe(ground.forecaster, ground.tracker, config.objective, valid, [])(1)
    weights = {name: weights_TS[ground.splits.valid] for name, weights_TS in ground.baselines.items()}
    judge(valid, valid.forecast(ground.forecaster), ground.tracker, weights, config.evidence, config.seed)
    train = ground.periods["train"]
    score_training(train, unconditional(train, ground.forecaster.levels), ground.forecaster)


def calls_of(n_symbols: int) -> int:
    """How many functions Python calls, its own and those of libraries."""
    count = 0

    def note(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        probed_and_judged(laid(n_symbols, NO_BLOCKS))
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.slow
def test_twice_as_many_stocks_make_python_do_no_more_than_a_few_calls_for_each(monkeypatch):
    monkeypatch.setattr(network, "TOKENS_AT_ONCE", 10**6)  # the passes of a network are not a matter of Python
    probed_and_judged(laid(3, NO_BLOCKS))  # compiled and imported
    few, many = calls_of(20), calls_of(40)
    assert abs(many - few) < 20 * 20, f"{few:,} calls for 20 stocks, {many:,} for 40"


@pytest.mark.slow
def test_a_bar_takes_a_bounded_memory():
    probed_and_judged(laid(3))
    tracemalloc.start()
    try:
        ground = laid(100)
        _, before_steps = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        probed_and_judged(ground)
        held, after_steps = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    places = SESSIONS * 100  # a copy of the features in float64 would take 120 bytes of each
    assert before_steps < 580 * places and held < 280 * places and after_steps < 480 * places


def test_baselines_that_forecast_some_stocks_at_a_time_hold_the_same_books(monkeypatch):
    ground = laid(11, "evidence.baselines=[ridge,lightgbm]")
    arguments = ground.config, ground.bars, ground.features, ground.forecaster, ground.lesson
    monkeypatch.setattr("hftraining.experiment.baselines.STOCKS_AT_ONCE", 4)
    for name, weights_TS in baseline_weights(*arguments).items():
        assert np.array_equal(weights_TS, ground.baselines[name]) and weights_TS.any(), name


def test_a_ridge_of_rows_some_at_a_time_is_that_of_all_rows_up_to_rounding(monkeypatch):
    rng = np.random.default_rng(0)
    x_NF = rng.normal(size=(5000, 6)).astype(np.float32)
    label_NH = 0.1 * x_NF[:, :2] + rng.normal(size=(5000, 2))
    penalty_H = np.array([0.1, 10.0])
    whole = linear.fit_ridge(x_NF, label_NH, penalty_H)
    chosen_H = linear.choose_penalties(x_NF[:3000], label_NH[:3000], x_NF[3000:], label_NH[3000:])
    monkeypatch.setattr(linear, "ROWS_AT_ONCE", 999)
    parts = linear.fit_ridge(x_NF, label_NH, penalty_H)
    np.testing.assert_allclose(parts.slope_FH, whole.slope_FH, rtol=1e-10)
    again_H = linear.choose_penalties(x_NF[:3000], label_NH[:3000], x_NF[3000:], label_NH[3000:])
    assert again_H.tolist() == chosen_H.tolist()
