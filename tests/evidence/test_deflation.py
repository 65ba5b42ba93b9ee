"""Deflation against the worked example, numbers by hand, and a PBO written from the paper alone."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kurtosis, norm, rankdata, skew

from hftraining.evidence.deflation import (
    deflated_sharpe,
    expected_maximum_sharpe,
    probabilistic_sharpe,
    probability_of_backtest_overfitting,
)


def test_the_worked_example_of_bailey_and_lopez_de_prado_is_reproduced():
    daily, variance = 2.5 / math.sqrt(250), 0.5 / 250
    benchmark = expected_maximum_sharpe(100, variance)
    assert benchmark == pytest.approx(0.1132, abs=5e-5)
    assert probabilistic_sharpe(daily, benchmark, 1250, -3, 10) == pytest.approx(0.9004, abs=5e-5)
    fewer = expected_maximum_sharpe(46, variance)
    assert probabilistic_sharpe(daily, fewer, 1250, -3, 10) == pytest.approx(0.9505, abs=5e-5)


def test_the_expected_maximum_equals_that_of_simulated_trials():
    drawn = np.random.default_rng(0).normal(0, 0.05, (20_000, 50)).max(axis=1).mean()
    assert expected_maximum_sharpe(50, 0.05**2) == pytest.approx(drawn, rel=0.02)


def test_a_single_trial_is_deflated_by_nothing():
    assert expected_maximum_sharpe(1, math.nan) == 0.0
    values = np.random.default_rng(1).normal(0.001, 0.01, 300)
    daily = values.mean() / values.std(ddof=1)
    spread = 1 - skew(values) * daily + (kurtosis(values, fisher=False) - 1) / 4 * daily**2
    by_scipy = norm.cdf(daily * math.sqrt(299) / math.sqrt(spread))
    assert deflated_sharpe(values, 1, math.nan) == pytest.approx(by_scipy)


def test_a_deflated_sharpe_that_cannot_be_computed_is_nan():
    for nothing in (np.empty(0), np.array([0.1]), np.zeros(100), np.array([0.1, math.nan, 0.2])):
        assert math.isnan(deflated_sharpe(nothing, 10, 0.01))
    assert math.isnan(deflated_sharpe(np.array([0.1, -0.1, 0.2]), 10, math.nan))
    with pytest.raises(ValueError, match="n_trials=0"):
        expected_maximum_sharpe(0, 0.1)
    with pytest.raises(ValueError, match="variance=-1"):
        expected_maximum_sharpe(5, -1)


@given(st.integers(0, 10_000), st.integers(1, 500), st.floats(0, 0.01))
@settings(max_examples=100, deadline=None)
def test_more_trials_never_raise_the_deflated_sharpe(seed, n_trials, variance):
    values = np.random.default_rng(seed).normal(0.001, 0.01, 60)
    found = deflated_sharpe(values, n_trials, variance)
    assert 0.0 <= deflated_sharpe(values, n_trials + 1, variance) <= found + 1e-12 <= 1.0 + 1e-12


def pbo_by_the_paper(returns_TN, blocks):
    """Bailey et al. (2015), steps 1 to 6 of the procedure, one combination after the other."""
    pieces = np.array_split(returns_TN, blocks)
    logits = []
    for chosen in itertools.combinations(range(blocks), blocks // 2):
        inside = np.concatenate([pieces[b] for b in range(blocks) if b in chosen])
        outside = np.concatenate([pieces[b] for b in range(blocks) if b not in chosen])
        best = np.argmax(inside.mean(0) / inside.std(0, ddof=1))
        omega = rankdata(outside.mean(0) / outside.std(0, ddof=1))[best] / (returns_TN.shape[1] + 1)
        logits.append(math.log(omega / (1 - omega)))
    return np.array(logits)


@pytest.mark.parametrize(("days", "trials", "blocks"), [(160, 5, 8), (203, 12, 8), (100, 2, 6), (130, 30, 10)])
def test_pbo_equals_a_loop_over_the_combinations_of_the_paper(days, trials, blocks):
    returns_TN = np.random.default_rng(days).normal(0.0003, 0.01, (days, trials))
    found = probability_of_backtest_overfitting(returns_TN, blocks)
    expected = pbo_by_the_paper(returns_TN, blocks)
    assert found.logits_C == pytest.approx(expected)
    assert found.value == np.mean(expected <= 0)


def test_pbo_of_one_trial_with_skill_among_noise_is_small():
    returns_TN = np.random.default_rng(3).normal(0, 0.01, (500, 20))
    returns_TN[:, 7] += 0.004
    assert probability_of_backtest_overfitting(returns_TN).value < 0.01


def test_pbo_of_noise_is_about_a_half():
    values = [
        probability_of_backtest_overfitting(np.random.default_rng(seed).normal(0, 0.01, (200, 20)), 10).value
        for seed in range(100)
    ]
    assert np.mean(values) == pytest.approx(0.5, abs=0.07)


def test_a_trial_that_won_a_half_and_lost_the_other_is_overfit():
    rng = np.random.default_rng(4)
    returns_TN = rng.normal(0, 0.001, (40, 2))
    returns_TN[:20, 0] += 0.01
    returns_TN[20:, 1] += 0.01
    found = probability_of_backtest_overfitting(returns_TN, 2)
    assert found.value == 1.0
    assert found.logits_C == pytest.approx([math.log(1 / 2)] * 2)  # rank 1 of 2: omega = 1/3


def test_equal_trials_share_their_rank():
    one = np.random.default_rng(5).normal(0, 0.01, (64, 1))
    assert probability_of_backtest_overfitting(np.repeat(one, 3, axis=1), 8).logits_C == pytest.approx(0.0)


def test_pbo_gives_the_reason_if_it_cannot_be_computed():
    alone = probability_of_backtest_overfitting(np.ones((100, 1)))
    assert math.isnan(alone.value) and alone.reason == "1 trials over 100 days, but it needs 2 trials and 32 days"
    with pytest.raises(ValueError, match="blocks=3"):
        probability_of_backtest_overfitting(np.ones((100, 2)), 3)
    with pytest.raises(ValueError, match="finite"):
        probability_of_backtest_overfitting(np.full((100, 2), math.nan))
