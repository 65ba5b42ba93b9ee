"""From forecasts to target weights, by hand."""

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftraining.core.bars import Bars
from hftraining.core.forecast import Forecast
from hftraining.portfolio.weights import target_weights
from hftraining.trading.caps import cap_weights
from hftraining.trading.config import POLICIES, ProfitTrackerConfig

LEVELS = (0.1, 0.5, 0.9)
WIDE = ProfitTrackerConfig(max_gross=100.0, max_position_size=0.3)
ROUND_TRIP = 2 * (WIDE.commission + WIDE.slippage)


def forecast(medians, spread=0.1, head=None, horizons=(5,)):
    """One session; the same median and outer quantiles for every horizon."""
    medians = np.array([medians], float)
    quantiles = np.stack([medians - spread / 2, medians, medians + spread / 2], axis=-1)
    heads = np.full(medians.shape, np.nan) if head is None else np.array([head], float)
    return Forecast(np.stack([quantiles] * len(horizons), axis=2), heads, horizons, LEVELS)


def bars_of(forecast):
    """Bars of the forecast's sessions and symbols, all prices 100."""
    n_sessions, n_symbols = forecast.head_TS.shape
    days = np.arange(n_sessions).astype("datetime64[D]")
    return Bars(tuple("ABCDEFGH"[:n_symbols]), days, *[np.full((n_sessions, n_symbols), 100.0)] * 5)


def weights(config, *args, **kwargs):
    given = forecast(*args, **kwargs)
    return target_weights(given, bars_of(given), config)[0]


def test_edge_weighs_the_median_against_the_uncertainty_until_full_size():
    deviation = 0.1 / (2 * NormalDist().inv_cdf(0.9))
    median = 0.05 * deviation
    config = replace(WIDE, full_size_at=0.1, commission=0.0, slippage=0.0)
    assert weights(config, [median, -median, 1.0, -1.0]) == pytest.approx([0.15, -0.15, 0.3, -0.3])


def test_edge_trades_only_what_earns_more_than_a_round_trip_costs():
    just_below, just_above = np.log1p(ROUND_TRIP * 0.99), np.log1p(ROUND_TRIP * 1.01)
    got = weights(WIDE, [just_below, just_above], spread=1e-6)
    assert got.tolist() == [0.0, 0.3]
    down = weights(WIDE, [np.log1p(-ROUND_TRIP * 0.99), np.log1p(-ROUND_TRIP * 1.01)], spread=1e-6)
    assert down.tolist() == [0.0, -0.3]


def test_edge_is_full_size_when_the_forecast_is_certain_and_nothing_when_it_is_zero():
    assert weights(WIDE, [0.01, 0.0, -0.01], spread=0.0).tolist() == [0.3, 0.0, -0.3]


def test_sign_is_full_size_on_the_side_of_the_median():
    assert weights(replace(WIDE, policy="sign"), [1e-9, -5.0, 0.0, np.nan]).tolist() == [0.3, -0.3, 0.0, 0.0]


def test_top_k_buys_the_best_and_sells_the_worst():
    config = replace(WIDE, policy="top_k", top_k=2)
    assert weights(config, [0.03, -0.02, 0.01, 0.02, -0.01]).tolist() == [0.3, -0.3, 0.0, 0.3, -0.3]


def test_top_k_ranks_only_symbols_with_a_forecast_and_never_takes_both_sides_of_one():
    config = replace(WIDE, policy="top_k", top_k=3)
    assert weights(config, [np.nan, 0.01, 0.03, 0.02, np.nan]).tolist() == [0.0, -0.3, 0.3, 0.0, 0.0]
    assert weights(config, [0.01, np.nan]).tolist() == [0.0, 0.0]


def test_top_k_without_shorts_only_buys():
    config = replace(WIDE, policy="top_k", top_k=2, allow_short=False)
    assert weights(config, [0.01, 0.03, 0.02]).tolist() == [0.0, 0.3, 0.3]


def test_top_k_of_zeros_trades_nothing():
    config = replace(WIDE, policy="top_k", top_k=1)
    assert weights(config, [0.0, 0.0, 0.0]).tolist() == [0.0, 0.0, 0.0]
    assert weights(config, [0.02, 0.01, 0.0]).tolist() == [0.3, 0.0, 0.0]


def test_head_takes_the_model_s_own_position():
    config = replace(WIDE, policy="head")
    assert weights(config, [np.nan] * 4, head=[0.5, -1.0, 2.0, np.nan]).tolist() == [0.15, -0.3, 0.3, 0.0]


@pytest.mark.parametrize("policy", POLICIES)
def test_without_shorts_every_policy_is_long_or_flat(policy):
    config = replace(WIDE, policy=policy, allow_short=False)
    assert (weights(config, [-0.5, 0.5, -0.1], head=[-1, 1, -1]) >= 0).all()


def test_gross_exposure_is_scaled_down_in_proportion():
    assert cap_weights(np.array([0.3, -0.3, 0.6]), replace(WIDE, max_gross=0.45)) == pytest.approx([0.15, -0.15, 0.15])
    assert cap_weights(np.zeros(3), WIDE).tolist() == [0.0, 0.0, 0.0]


def test_the_horizon_is_chosen_by_its_length_and_zero_is_the_longest():
    quantiles = np.zeros((1, 1, 2, 3))
    quantiles[0, 0, 0], quantiles[0, 0, 1] = [0.4, 0.5, 0.6], [-0.6, -0.5, -0.4]
    both = Forecast(quantiles, np.zeros((1, 1)), (1, 20), LEVELS)
    for horizon, weight in ((1, 0.3), (20, -0.3), (0, -0.3)):
        assert target_weights(both, bars_of(both), replace(WIDE, policy="sign", horizon=horizon))[0, 0] == weight


def test_a_forecast_of_other_sessions_or_symbols_than_the_bars_is_refused_with_both_shapes():
    two, three = forecast([0.1, 0.2]), forecast([0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match=r"forecast: shape \(1, 3\), but bars have \(1, 2\)"):
        target_weights(three, bars_of(two), WIDE)
    with pytest.raises(ValueError, match=r"forecast: shape \(1, 2\), but bars have \(0, 2\)"):
        target_weights(two, bars_of(two).rows(slice(0, 0)), WIDE)


def test_a_horizon_that_is_not_forecast_is_refused_by_name():
    with pytest.raises(ValueError, match=r"profit_tracker.horizon=7 is not forecast: horizons are \[5\]"):
        weights(replace(WIDE, horizon=7), [0.1])


@given(
    st.lists(st.one_of(st.floats(-0.5, 0.5), st.just(float("nan")), st.just(0.0)), min_size=1, max_size=8),
    st.sampled_from(POLICIES),
    st.floats(0.05, 1.0),
    st.floats(0.1, 2.0),
    st.integers(1, 5),
)
def test_weights_are_finite_within_the_caps_and_zero_without_a_forecast(medians, policy, size, gross, k):
    config = ProfitTrackerConfig(policy=policy, max_position_size=size, max_gross=gross, top_k=k)
    got = weights(config, medians, head=medians)
    assert np.isfinite(got).all()
    assert (np.abs(got) <= size).all() and np.abs(got).sum() <= gross * (1 + 1e-12)
    assert (got[~(np.nan_to_num(medians) != 0)] == 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head_TS": np.zeros((2, 2))}, "quantiles: shape"),
        ({"horizons": (5, 6)}, "quantiles: shape"),
        ({"levels": (0.9, 0.5, 0.1)}, "levels: .* must rise"),
        ({"levels": (0.1, 0.4, 0.9)}, "contain 0.5"),
    ],
)
def test_forecasts_whose_axes_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(forecast([0.1]), **change)
