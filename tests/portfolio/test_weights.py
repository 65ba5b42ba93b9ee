"""From forecasts to target weights, by hand: each stock alone, horizons, what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from hftraining.core.forecast import Forecast
from hftraining.portfolio.weights import target_weights
from hftraining.trading.caps import cap_weights
from hftraining.trading.config import TradingRules
from tests.portfolio.books import LEVELS, RULES, flat_bars, forecast_of, portfolio

WIDE = TradingRules(max_gross=100.0, max_position_size=0.3)
FREE = replace(WIDE, commission=0.0, slippage=0.0)
ROUND_TRIP = 2 * (WIDE.commission + WIDE.slippage)


def weights(config, medians, rules=WIDE, **kwargs):
    """The weights of one session."""
    given = forecast_of([medians], **kwargs)
    return target_weights(given, flat_bars(1, len(medians)), config, rules)[0]


def test_edge_weighs_the_median_against_the_uncertainty_until_full_size():
    config = portfolio("edge", full_size_at=0.1)
    got = weights(config, [0.002, -0.002, 1.0, -1.0], FREE, deviation=0.04)
    assert got == pytest.approx([0.15, -0.15, 0.3, -0.3])


def test_edge_trades_only_what_earns_more_than_a_round_trip_costs():
    below, above = np.log1p(ROUND_TRIP * 0.99), np.log1p(ROUND_TRIP * 1.01)
    assert weights(portfolio("edge"), [below, above], deviation=1e-6).tolist() == [0.0, 0.3]
    below, above = np.log1p(-ROUND_TRIP * 0.99), np.log1p(-ROUND_TRIP * 1.01)
    assert weights(portfolio("edge"), [below, above], deviation=1e-6).tolist() == [0.0, -0.3]


def test_edge_is_full_size_when_the_forecast_is_certain_and_nothing_when_it_is_zero():
    assert weights(portfolio("edge"), [0.01, 0.0, -0.01], deviation=0.0).tolist() == [0.3, 0.0, -0.3]


def test_edge_smooths_the_ratio_and_the_median_that_must_pay_the_costs():
    median = [[0.04], [0.0], [0.0], [np.nan]]
    got = target_weights(
        forecast_of(median, deviation=2.0), flat_bars(4, 1), portfolio("edge", smoothing=1.0, full_size_at=0.1), WIDE
    )
    # Half-life of one session: medians 0.04, 0.02, 0.01, 0.01, over 2 and a full size at 0.1.
    assert got[:, 0] == pytest.approx([0.3 * 0.2, 0.3 * 0.1, 0.3 * 0.05, 0.3 * 0.05])


def test_sign_is_full_size_on_the_side_of_the_smoothed_median():
    assert weights(portfolio("sign"), [1e-9, -5.0, 0.0, np.nan]).tolist() == [0.3, -0.3, 0.0, 0.0]
    got = target_weights(forecast_of([[0.3], [-0.2], [-0.2]]), flat_bars(3, 1), portfolio("sign", smoothing=1.0), WIDE)
    assert got[:, 0].tolist() == [0.3, 0.3, -0.3]  # smoothed: 0.3, 0.05, -0.075


def test_head_takes_the_model_s_own_position():
    got = weights(portfolio("head"), [np.nan] * 4, head=[[0.5, -1.0, 2.0, np.nan]])
    assert got.tolist() == [0.15, -0.3, 0.3, 0.0]


def test_gross_exposure_is_scaled_down_in_proportion():
    assert cap_weights(np.array([0.3, -0.3, 0.6]), replace(WIDE, max_gross=0.45)) == pytest.approx([0.15, -0.15, 0.15])
    assert cap_weights(np.zeros(3), WIDE).tolist() == [0.0, 0.0, 0.0]


def test_the_horizon_is_chosen_by_its_length_and_zero_is_the_longest():
    quantiles = np.zeros((1, 1, 2, 3))
    quantiles[0, 0, 0], quantiles[0, 0, 1] = [0.4, 0.5, 0.6], [-0.6, -0.5, -0.4]
    both = Forecast(quantiles, np.zeros((1, 1)), (1, 20), LEVELS)
    for horizon, weight in ((1, 0.3), (20, -0.3), (0, -0.3)):
        assert target_weights(both, flat_bars(1, 1), portfolio("sign", horizon=horizon), WIDE)[0, 0] == weight


def test_auto_is_timing_for_one_symbol_and_tilt_for_more():
    for n_symbols, kind in ((1, "timing"), (2, "tilt"), (30, "tilt")):
        given = forecast_of(np.random.default_rng(0).normal(size=(40, n_symbols)))
        got, want = (target_weights(given, flat_bars(40, n_symbols), portfolio(k), RULES) for k in ("auto", kind))
        assert (got == want).all() and len(np.unique(got)) > 1


def test_a_forecast_of_other_sessions_or_symbols_than_the_bars_is_refused_with_both_shapes():
    with pytest.raises(ValueError, match=r"forecast: shape \(1, 3\), but bars have \(1, 2\)"):
        target_weights(forecast_of([[0.1, 0.2, 0.3]]), flat_bars(1, 2), portfolio(), RULES)
    with pytest.raises(ValueError, match=r"forecast: shape \(1, 2\), but bars have \(0, 2\)"):
        target_weights(forecast_of([[0.1, 0.2]]), flat_bars(1, 2).rows(slice(0, 0)), portfolio(), RULES)


def test_a_horizon_that_is_not_forecast_is_refused_by_name():
    with pytest.raises(ValueError, match=r"portfolio.horizon=7 is not forecast: horizons are \[5\]"):
        weights(portfolio(horizon=7), [0.1])


@pytest.mark.parametrize("kind", ["edge", "sign", "timing"])
@pytest.mark.parametrize("relative", ["mean", "zscore", "rank", "residual"])
def test_what_needs_absolute_returns_refuses_a_relative_forecast_in_one_line(kind, relative):
    with pytest.raises(ValueError, match=f"portfolio.kind={kind} needs .*relative={relative}.*kind=tilt$"):
        weights(portfolio(kind), [0.1, 0.2], relative=relative)


def test_the_default_of_a_single_symbol_refuses_a_relative_forecast_too():
    with pytest.raises(ValueError, match=r"portfolio\.kind=timing needs"):
        weights(portfolio("auto"), [0.1], relative="zscore")


@pytest.mark.parametrize("kind", ["tilt", "top", "long_short", "core", "head"])
def test_what_ranks_stocks_trades_relative_and_absolute_forecasts_alike(kind):
    absolute, relative = (weights(portfolio(kind), [0.3, 0.1, -0.2], relative=r) for r in ("none", "zscore"))
    assert (absolute == relative).all()


def test_long_short_without_short_positions_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"^portfolio.kind=long_short sells short, but .*allow_short=false.*$"):
        weights(portfolio("long_short"), [0.1, 0.2], replace(WIDE, allow_short=False))


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
        replace(forecast_of([[0.1]]), **change)
