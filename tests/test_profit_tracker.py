"""ProfitTracker on its own, as its docstring shows it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hftraining.core.bars import Bars
from hftraining.core.forecast import Forecast
from hftraining.portfolio.weights import target_weights
from hftraining.profit_tracker import ProfitTracker
from hftraining.trading.config import ProfitTrackerConfig
from hftraining.trading.metrics import summarize
from hftraining.trading.simulator import simulate
from tests.naive_engine import random_market


@pytest.fixture
def bars():
    market = random_market(np.random.default_rng(0), 120, 3, 0.0, 0.02)
    sessions = pd.bdate_range("2020-01-01", periods=120).to_numpy().astype("datetime64[D]")
    return Bars(("AAA", "BBB", "CCC"), sessions, *market, np.ones((120, 3)))


@pytest.fixture
def forecast(bars):
    """What the next open to open returns will be: perfect foresight."""
    future = np.full((120, 3), np.nan)
    future[:-2] = np.log(bars.open_TS[2:] / bars.open_TS[1:-1])
    quantiles = future[:, :, None, None] + np.array([-0.01, 0.0, 0.01])
    return Forecast(quantiles, np.sign(future), (1,), (0.1, 0.5, 0.9))


def test_the_documented_call_gives_metrics_trades_and_equity(bars, forecast):
    tracker = ProfitTracker(
        initial_capital=10000,
        commission=0.001,
        slippage=0.0005,
        max_position_size=0.3,
        stop_loss=0.02,
        take_profit=0.05,
    )
    report = tracker.evaluate(bars, forecast)
    weights = target_weights(forecast, bars, tracker.config)
    alone = simulate(bars.open_TS, bars.high_TS, bars.low_TS, bars.close_TS, weights, tracker.config)
    assert report.metrics == pytest.approx(summarize(alone, tracker.config))
    assert report.equity.tolist() == alone.equity_T.tolist()
    assert list(report.equity.index) == list(pd.DatetimeIndex(bars.sessions_T))
    assert list(report.trades) == [
        "symbol", "side", "shares", "entry_date", "entry_price", "exit_date", "exit_price", "costs", "pnl",
        "exit_reason",
    ]  # fmt: skip
    assert report.metrics["total_return"] > report.buy_and_hold.metrics["total_return"]


def test_foresight_earns_and_its_negation_loses_and_zeros_trade_nothing(bars, forecast):
    tracker = ProfitTracker(policy="sign")
    reverse = replace(forecast, quantiles_TSHQ=-forecast.quantiles_TSHQ)
    nothing = replace(forecast, quantiles_TSHQ=0.0 * forecast.quantiles_TSHQ)
    assert tracker.evaluate(bars, forecast).metrics["total_return"] > 0.2
    assert tracker.evaluate(bars, reverse).metrics["total_return"] < -0.2
    report = tracker.evaluate(bars, nothing)
    assert (report.equity == 10_000).all() and report.trades.empty


def test_buy_and_hold_buys_equal_shares_of_capital_once_and_pays_for_it_once(bars):
    held = ProfitTracker(commission=0.0, slippage=0.0).buy_and_hold(bars)
    shares = 10_000 / 3 / bars.close_TS[0]
    scale = min(1.0, 10_000 / (shares * bars.open_TS[1]).sum())
    worth = (shares * scale * bars.close_TS[1:]).sum(axis=1) + 10_000 - scale * (shares * bars.open_TS[1]).sum()
    np.testing.assert_allclose(held.equity.to_numpy()[1:], worth, rtol=1e-12)
    assert len(held.simulation.trades) == 3 and held.metrics["trade_count"] == 0
    costly = ProfitTracker().buy_and_hold(bars)
    assert (costly.simulation.costs_T > 0).sum() == 1


@pytest.mark.parametrize("lag", [1, 2])
def test_buy_and_hold_never_rebalances_whole_shares_either(bars, lag):
    held = ProfitTracker(lag=lag, whole_shares=True).buy_and_hold(bars)
    assert (held.simulation.shares_TS[lag:] == held.simulation.shares_TS[lag]).all()
    assert held.simulation.shares_TS[lag].any()


def test_buy_and_hold_leaves_out_symbols_that_are_not_listed_at_the_start(bars):
    arrays = {}
    for name in ("open_TS", "high_TS", "low_TS", "close_TS"):
        array = getattr(bars, name).copy()
        array[:10, 2] = np.nan
        arrays[name] = array
    held = ProfitTracker().buy_and_hold(replace(bars, **arrays))
    assert not held.simulation.shares_TS[:, 2].any() and held.simulation.shares_TS[-1, :2].all()


def test_buy_and_hold_is_computed_once_for_the_same_bars(bars):
    tracker = ProfitTracker()
    first = tracker.buy_and_hold(bars)
    assert tracker.buy_and_hold(bars) is first
    assert tracker.buy_and_hold(bars.rows(slice(0, 50))) is not first


def test_a_config_and_fields_combine_and_unknown_fields_are_refused():
    config = ProfitTrackerConfig(commission=0.01, policy="sign")
    assert ProfitTracker(config, commission=0.02).config == replace(config, commission=0.02)
    assert ProfitTracker().config == ProfitTrackerConfig()
    with pytest.raises(TypeError, match="comission"):
        ProfitTracker(comission=0.01)
    with pytest.raises(ValueError, match="stop_loss=2"):
        ProfitTracker(stop_loss=2)


def test_forecasts_of_other_sessions_and_unsorted_bars_are_refused(bars, forecast):
    with pytest.raises(ValueError, match=r"forecast: shape \(120, 3\), but bars have \(50, 3\)"):
        ProfitTracker().evaluate(bars.rows(slice(0, 50)), forecast)
    with pytest.raises(ValueError, match=r"sessions: .* at row 1 does not come after"):
        ProfitTracker().evaluate(replace(bars, sessions_T=bars.sessions_T[::-1]), forecast)


def test_without_sessions_the_metrics_are_nan_and_nothing_is_raised(bars, forecast):
    empty = replace(forecast, quantiles_TSHQ=forecast.quantiles_TSHQ[:0], head_TS=forecast.head_TS[:0])
    report = ProfitTracker().evaluate(bars.rows(slice(0, 0)), empty)
    assert np.isnan(report.metrics["total_return"]) and report.trades.empty and report.equity.empty
