"""ProfitTracker on its own, as its docstring shows it."""

from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest

from hftraining.core.bars import Bars
from hftraining.core.forecast import Forecast
from hftraining.portfolio.config import PortfolioConfig
from hftraining.portfolio.weights import target_weights
from hftraining.profit_tracker import ProfitTracker
from hftraining.trading.config import ProfitTrackerConfig
from hftraining.trading.metrics import summarize
from hftraining.trading.simulator import simulate
from tests.bars_of import frame_of
from tests.naive_engine import random_market, random_rules
from tests.naive_hold import market_with_listings, naive_hold


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
        portfolio=PortfolioConfig(kind="sign", smoothing=0.0, trade_rate=1.0),
        initial_capital=10000,
        commission=0.001,
        slippage=0.0005,
        max_position_size=0.3,
        stop_loss=0.02,
        take_profit=0.05,
    )
    report = tracker.evaluate(bars, forecast)
    weights = target_weights(forecast, bars, tracker.portfolio, tracker.config)
    alone = simulate(bars.open_TS, bars.high_TS, bars.low_TS, bars.close_TS, weights, tracker.config)
    assert report.metrics == pytest.approx(summarize(alone, tracker.config))
    assert report.equity.tolist() == alone.equity_T.tolist()
    assert list(report.equity.index) == list(pd.DatetimeIndex(bars.sessions_T))
    assert list(report.trades) == [
        "symbol", "side", "shares", "entry_date", "entry_price", "exit_date", "exit_price", "costs", "pnl",
        "exit_reason",
    ]  # fmt: skip
    assert report.metrics["total_return"] > report.buy_and_hold.metrics["total_return"]


def test_a_frame_is_traded_as_its_bars_are_and_refused_in_one_line_where_it_fits_no_bars(bars, forecast):
    tracker = ProfitTracker(portfolio=PortfolioConfig(kind="sign"))
    ours = tracker.evaluate(frame_of(bars), forecast)
    assert ours.metrics == tracker.evaluate(bars, forecast).metrics and ours.metrics["trade_count"] > 0
    assert tracker.risk_matched(frame_of(bars), 0.5).metrics == tracker.risk_matched(bars, 0.5).metrics
    pd.testing.assert_series_equal(tracker.buy_and_hold(frame_of(bars)).equity, tracker.buy_and_hold(bars).equity)
    with pytest.raises(ValueError, match=r"^the frame has no high column: bars need [a-z, ]+; it has [a-z, ]+$"):
        tracker.evaluate(frame_of(bars).drop(columns="high"), forecast)


def test_foresight_earns_and_its_negation_loses_and_zeros_trade_nothing(bars, forecast):
    tracker = ProfitTracker(portfolio=PortfolioConfig(kind="sign", smoothing=0.0, trade_rate=1.0))
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


def from_market(market) -> Bars:
    n_sessions, n_symbols = market[3].shape
    sessions = pd.bdate_range("2020-01-01", periods=n_sessions).to_numpy().astype("datetime64[D]")
    return Bars(tuple(f"S{s}" for s in range(n_symbols)), sessions, *market, np.ones(market[3].shape))


def eventful_market():
    """Four symbols: one from the start, listings at sessions 10 and 25, a hole at 15 to 17, a delisting after 40."""
    market = random_market(np.random.default_rng(4), 60, 4, 0.0, 0.03)
    for prices in market:
        prices[:10, 1] = prices[:25, 2] = prices[15:18, 0] = prices[41:, 3] = np.nan
    return market


@pytest.mark.parametrize("lag", [1, 2])
def test_a_late_listing_joins_at_equal_weight_and_the_others_give_up_in_proportion(lag):
    tracker = ProfitTracker(lag=lag)
    held = tracker.buy_and_hold(from_market(eventful_market()))
    market = eventful_market()
    equity, shares = naive_hold(market[0], market[3], tracker.config)
    np.testing.assert_allclose(held.equity, equity, rtol=1e-12)
    np.testing.assert_allclose(held.simulation.shares_TS, shares, rtol=1e-12)
    # By hand: two are held when the third comes, so it gets a third of the equity, and they keep two thirds.
    t, close_TS = 10, market[3]
    assert held.simulation.shares_TS[t + lag, 1] == pytest.approx(held.equity.iloc[t] / 3 / close_TS[t, 1], rel=0.05)
    for s in (0, 3):
        left = held.simulation.shares_TS[t + lag, s] / held.simulation.shares_TS[t, s]
        assert left == pytest.approx(2 / 3, rel=0.02)
    changes = np.flatnonzero(np.diff(held.simulation.shares_TS, axis=0).any(axis=1)) + 1
    assert changes.tolist() == [lag, 10 + lag, 25 + lag, 40]  # never rebalanced otherwise


def test_buy_and_hold_equals_a_naive_loop_on_random_markets_with_late_listings():
    for seed in range(300):
        rng = np.random.default_rng(seed)
        market = market_with_listings(rng, int(rng.integers(2, 50)), int(rng.integers(1, 7)), seed % 3 * 0.05)
        rules = replace(random_rules(rng), whole_shares=False)
        tracker = ProfitTracker(**{field.name: getattr(rules, field.name) for field in fields(rules)})
        held = tracker.buy_and_hold(from_market(market)).simulation
        equity, shares = naive_hold(market[0], market[3], rules)
        np.testing.assert_allclose(held.equity_T, equity, rtol=1e-9, err_msg=str(seed))
        np.testing.assert_allclose(held.shares_TS, shares, rtol=1e-7, atol=1e-9, err_msg=str(seed))


def test_without_late_listings_buy_and_hold_buys_once_and_nothing_else(bars):
    """To the bit what the engine makes of one equal weight that a band as wide as the account leaves alone."""
    tracker = ProfitTracker()
    never = replace(tracker.config, stop_loss=0.0, take_profit=0.0, rebalance_band=1e6)
    weights_TS = np.full(bars.close_TS.shape, 1 / 3)
    alone = simulate(bars.open_TS, bars.high_TS, bars.low_TS, bars.close_TS, weights_TS, never)
    assert tracker.buy_and_hold(bars).equity.tolist() == alone.equity_T.tolist()


def test_buy_and_hold_up_to_a_day_does_not_depend_on_later_bars():
    rng = np.random.default_rng(8)
    market = market_with_listings(rng, 50, 6, 0.05)
    held = ProfitTracker().buy_and_hold(from_market(market))
    ends = [int(np.flatnonzero(np.isfinite(column))[-1]) for column in market[3].T]
    for t in range(49):
        other = [prices.copy() for prices in market]
        later = market_with_listings(np.random.default_rng(t), 50, 6, 0.3)
        for prices, new in zip(other, later, strict=True):
            prices[t + 1 :] = new[t + 1 :]
            # Whether a symbol trades again is known when its last bar closes: a delisting is announced.
            prices[t + 1 :, [end <= t for end in ends]] = np.nan
            prices[-1, [end > t for end in ends]] = 50.0
        again = ProfitTracker().buy_and_hold(from_market(other))
        assert again.equity.iloc[: t + 1].tolist() == held.equity.iloc[: t + 1].tolist()


@pytest.mark.parametrize("lag", [1, 2])
def test_buy_and_hold_in_whole_shares_makes_room_and_keeps_every_symbol(lag):
    held = ProfitTracker(lag=lag, whole_shares=True, initial_capital=500).buy_and_hold(from_market(eventful_market()))
    shares_TS = held.simulation.shares_TS
    assert (shares_TS == np.trunc(shares_TS)).all()
    assert (shares_TS[lag:, 0] >= 1).all() and (shares_TS[10 + lag :, 1] >= 1).all()
    assert (held.simulation.cash_T >= 0).all()


@pytest.mark.parametrize("exposure", [0.3, 1.0])
def test_the_risk_matched_benchmark_is_buy_and_hold_with_a_part_of_the_capital(exposure):
    bars = from_market(eventful_market())
    tracker = ProfitTracker(stop_loss=0.01)
    whole, part = tracker.buy_and_hold(bars), tracker.risk_matched(bars, exposure)
    expected = 10_000 * (1 - exposure) + exposure * whole.equity
    np.testing.assert_allclose(part.equity, expected, rtol=1e-12)
    held = whole.simulation
    gross = exposure * (held.shares_TS * pd.DataFrame(bars.close_TS).ffill().fillna(0.0)).sum(axis=1) / expected.array
    np.testing.assert_allclose(part.simulation.gross_T, gross, rtol=1e-9)
    assert part.metrics["total_return"] == pytest.approx(exposure * whole.metrics["total_return"])
    assert part.metrics["costs"] == pytest.approx(exposure * whole.metrics["costs"])
    assert part.metrics["exposure"] == pytest.approx(np.mean(gross))


def test_the_risk_matched_benchmark_caps_leverage_and_is_flat_without_exposure(bars):
    tracker = ProfitTracker()
    assert tracker.risk_matched(bars, 1.7).equity.tolist() == tracker.buy_and_hold(bars).equity.tolist()
    for nothing in (0.0, float("nan")):
        flat = tracker.risk_matched(bars, nothing)
        assert (flat.equity == 10_000).all() and flat.metrics["exposure"] == 0 and flat.metrics["total_return"] == 0


def test_buy_and_hold_is_computed_once_for_the_same_bars(bars):
    tracker = ProfitTracker()
    first = tracker.buy_and_hold(bars)
    assert tracker.buy_and_hold(bars) is first
    assert tracker.buy_and_hold(bars.rows(slice(0, 50))) is not first


def test_a_config_and_fields_combine_and_unknown_fields_are_refused():
    config = ProfitTrackerConfig(commission=0.01, lag=2)
    assert ProfitTracker(config, commission=0.02).config == replace(config, commission=0.02)
    assert ProfitTracker().config == ProfitTrackerConfig() and ProfitTracker().portfolio == PortfolioConfig()
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
