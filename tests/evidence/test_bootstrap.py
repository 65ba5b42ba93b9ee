"""The bootstrap against arch, by hand and by properties."""

import math

import numpy as np
import pytest
from arch.bootstrap import StationaryBootstrap, optimal_block_length
from arch.bootstrap._samplers_python import stationary_bootstrap_sample
from hypothesis import given, settings
from hypothesis import strategies as st

from hftraining.evidence.bootstrap import (
    _studentised_draws,
    block_length,
    newey_west_error,
    resampled_days,
    sharpe_difference,
    sharpe_interval,
)


def returns(seed=0, n=500, keep=0.0):
    rng = np.random.default_rng(seed)
    values = rng.normal(0.0005, 0.01, n)
    for t in range(1, n):
        values[t] += keep * values[t - 1]
    return values


def sharpe(series):
    return series.mean() / series.std(ddof=1) * math.sqrt(252)


def test_resampled_days_are_those_of_arch_for_the_same_random_numbers():
    rng = np.random.default_rng(1)
    for length in (1.0, 3.0, 40.0):
        start_T, uniform_T = rng.integers(0, 200, 200), rng.random(200)
        ours_T = np.empty(200, np.int64)
        resampled_days(start_T, uniform_T, 1 / length, ours_T)
        assert (ours_T == stationary_bootstrap_sample(start_T.copy(), uniform_T, 1 / length)).all()


def test_block_length_is_that_of_arch_and_at_least_one():
    values = returns(2, keep=0.4)
    assert block_length(values) == optimal_block_length(values)["stationary"].iloc[0] > 1
    assert block_length(returns(3)) >= 1.0
    assert block_length(np.zeros(100)) == 1.0


def test_the_spread_of_drawn_sharpe_ratios_is_that_of_arch():
    values = returns(4, keep=0.3)
    length = block_length(values)
    theirs = StationaryBootstrap(length, values, seed=5).apply(sharpe, 4000).ravel()
    rng, day_T, ours = np.random.default_rng(6), np.empty(500, np.int64), []
    for _ in range(4000):
        resampled_days(rng.integers(0, 500, 500), rng.random(500), 1 / length, day_T)
        ours.append(sharpe(values[day_T]))
    assert np.std(ours) == pytest.approx(np.std(theirs), rel=0.06)
    assert np.mean(ours) == pytest.approx(np.mean(theirs), abs=0.08)


def test_interval_is_close_to_the_studentised_one_of_arch():
    """Where days are independent, so that both may use the plain error of a Sharpe ratio."""
    values = returns(8)
    assert block_length(values) == 1.0

    def error(series):
        z = (series - series.mean()) / series.std(ddof=1)
        daily = series.mean() / series.std(ddof=1)
        return np.sqrt(np.var(z - daily / 2 * (z**2 - 1)) / len(z) * 252)

    theirs = StationaryBootstrap(1.0, values, seed=8).conf_int(
        sharpe, 4000, method="studentized", std_err_func=lambda estimate, series: error(series)
    )
    ours = sharpe_interval(values, 4000, 9)
    assert ours.value == pytest.approx(sharpe(values))
    assert [ours.low, ours.high] == pytest.approx(theirs.ravel(), abs=0.1)


@pytest.mark.slow
def test_a_draw_is_studentised_by_the_influence_of_its_blocks_worked_out_by_hand():
    values = np.array([0.01, -0.02, 0.03, 0.00, 0.02])
    start_DT, uniform_DT = np.array([[1, 0, 4, 0, 0]]), np.array([[0.0, 0.9, 0.1, 0.9, 0.9]])
    drawn = values[[1, 2, 4, 0, 1]]  # two blocks: days 1, 2 and days 4, 0, 1
    daily = drawn.mean() / drawn.std(ddof=1)
    z = (drawn - drawn.mean()) / drawn.std(ddof=1)
    influence = z - daily / 2 * (z**2 - 1)
    error = math.sqrt(influence[:2].sum() ** 2 + influence[2:].sum() ** 2) / 5
    found = _studentised_draws(values[None], np.array([1.0]), start_DT, uniform_DT, 0.5, 0.1, 0.0)
    assert found == pytest.approx([(daily - 0.1) / error])


def test_newey_west_is_that_of_a_naive_loop():
    values = returns(10, 60, keep=0.5)
    e, n = values - values.mean(), 60
    total = sum(
        max(0, 1 - abs(i - j) / 4) * e[i] * e[j] for i in range(n) for j in range(n)
    )  # lags 3: Bartlett weights 3/4, 2/4, 1/4
    assert newey_west_error(values, 3) == pytest.approx(math.sqrt(total) / n)
    assert newey_west_error(values, 0) == pytest.approx(values.std() / math.sqrt(n))


def test_autocorrelated_returns_have_a_wider_interval():
    plain, kept = sharpe_interval(returns(11), 500, 0), sharpe_interval(returns(11, keep=0.4), 500, 0)
    assert kept.high - kept.low > 1.2 * (plain.high - plain.low)


def test_paired_blocks_make_the_difference_of_two_like_series_narrow():
    ours = returns(12)
    theirs = ours + np.random.default_rng(13).normal(0, 0.001, 500)
    paired = sharpe_difference(ours, theirs, 500, 0)
    strangers = sharpe_difference(ours, returns(14), 500, 0)
    assert paired.value == pytest.approx(sharpe(ours) - sharpe(theirs))
    assert paired.high - paired.low < 0.3 * (strangers.high - strangers.low)


def test_equal_series_differ_by_nothing():
    same = sharpe_difference(returns(15), returns(15), 500, 0)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_an_interval_that_cannot_be_computed_is_nan():
    for nothing in (np.empty(0), np.array([0.1]), np.zeros(300), np.append(returns(), math.nan)):
        assert all(math.isnan(x) for x in vars(sharpe_interval(nothing, 100, 0)).values())
    short = sharpe_interval(returns(16, 10), 100, 0)
    assert math.isfinite(short.value) and math.isnan(short.low) and math.isnan(short.high)
    assert math.isnan(sharpe_difference(returns(), np.zeros(500), 100, 0).value)


def test_series_of_different_lengths_cannot_be_paired():
    with pytest.raises(ValueError, match="cannot be paired"):
        sharpe_difference(returns(), returns(n=499), 100, 0)


@given(st.integers(0, 10_000), st.integers(20, 120), st.floats(0.1, 50))
@settings(max_examples=40, deadline=None)
def test_the_interval_holds_the_value_repeats_with_the_seed_and_ignores_the_unit(seed, n, scale):
    values = returns(seed, n)
    found = sharpe_interval(values, 100, seed)
    assert found.low <= found.high
    assert found == sharpe_interval(values, 100, seed)
    scaled = sharpe_interval(values * scale, 100, seed)
    assert [scaled.value, scaled.low, scaled.high] == pytest.approx([found.value, found.low, found.high], rel=1e-6)


def test_chunks_of_draws_do_not_change_what_an_interval_means(monkeypatch):
    whole = sharpe_interval(returns(17), 2000, 0)
    monkeypatch.setattr("hftraining.evidence.bootstrap._CHUNK_VALUES", 50_000)
    parts = sharpe_interval(returns(17), 2000, 0)
    assert [parts.low, parts.high] == pytest.approx([whole.low, whole.high], abs=0.25)


@pytest.mark.slow
@pytest.mark.parametrize("keep", [0.0, 0.2])
def test_the_interval_covers_the_true_sharpe_in_92_to_97_percent(keep):
    truth = 0.0005 / (1 - keep) / (0.01 / math.sqrt(1 - keep**2)) * math.sqrt(252)
    held = 0
    for seed in range(600):
        values = returns([18, seed], 350, keep)[50:]
        found = sharpe_interval(values, 1000, seed)
        held += found.low <= truth <= found.high
    assert 0.92 <= held / 600 <= 0.97


def test_the_interval_of_two_books_that_differ_on_a_day_or_two_stays_finite_and_small():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        one = rng.normal(0.0005, 0.01, 500)
        other = one.copy()
        other[rng.integers(500, size=2)] += 0.004
        found = sharpe_difference(one, other, 1000, seed)
        assert -0.5 < found.low <= found.value <= found.high < 0.5
