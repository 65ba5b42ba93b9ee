"""Metrics against plain numpy and by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hftraining.trading.config import TradingRules
from hftraining.trading.metrics import daily_returns, equity_metrics, sharpe_ratio, summarize, turnover
from hftraining.trading.simulator import simulate

CURVE = np.array([100.0, 110.0, 99.0, 99.0, 120.0])


def of(equity, initial_capital=100.0):
    """The metrics of one curve."""
    return {name: float(values[0]) for name, values in equity_metrics(equity[:, None], initial_capital).items()}


def test_metrics_of_a_short_curve_worked_out_by_hand():
    returns = np.array([0.1, -0.1, 0.0, 120 / 99 - 1])
    assert daily_returns(CURVE) == pytest.approx(returns)
    assert of(CURVE) == {
        "total_return": pytest.approx(0.2),
        "sharpe_ratio": pytest.approx(returns.mean() / returns.std(ddof=1) * math.sqrt(252)),
        "sortino_ratio": pytest.approx(returns.mean() / math.sqrt(0.01 / 4) * math.sqrt(252)),
        "calmar_ratio": pytest.approx((1.2**63 - 1) / 0.1),
        "volatility": pytest.approx(returns.std(ddof=1) * math.sqrt(252)),
        "cagr": pytest.approx(1.2 ** (252 / 4) - 1),
        "max_drawdown": pytest.approx(-0.1),
    }


def test_the_drawdown_counts_from_the_initial_capital_too():
    assert of(np.array([90.0, 95.0]))["max_drawdown"] == pytest.approx(-0.1)


@given(arrays(float, st.integers(2, 40), elements=st.floats(1.0, 1e6)))
def test_the_compiled_moments_equal_plain_numpy(equity):
    returns, found = equity[1:] / equity[:-1] - 1, of(equity, equity[0])
    assert found["max_drawdown"] == pytest.approx((equity / np.maximum.accumulate(equity) - 1).min())
    if len(returns) > 1:
        assert found["volatility"] == pytest.approx(returns.std(ddof=1) * math.sqrt(252), rel=1e-6, abs=1e-9)
    if len(returns) > 1 and returns.std() > 1e-9:
        want = returns.mean() / returns.std(ddof=1) * math.sqrt(252)
        assert found["sharpe_ratio"] == pytest.approx(want, rel=1e-6, abs=1e-9)
    if (returns < 0).any():
        want = returns.mean() / math.sqrt((np.minimum(returns, 0) ** 2).mean()) * math.sqrt(252)
        assert found["sortino_ratio"] == pytest.approx(want, rel=1e-6, abs=1e-9)


@given(arrays(float, st.integers(3, 20), elements=st.floats(-0.2, 0.2)), st.floats(0.0, 0.1))
def test_raising_every_return_never_deepens_the_drawdown(returns, more):
    def drawdown(r):
        return of(np.concatenate([[1.0], np.cumprod(1 + r)]), 1.0)["max_drawdown"]

    assert drawdown(returns + more) >= drawdown(returns) - 1e-12


def test_many_curves_at_once_have_the_metrics_of_each_alone():
    curves = 100 * np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.02, (50, 7)), axis=0))
    alone = [of(curves[:, w]) for w in range(7)]
    for name, values in equity_metrics(curves, 100.0).items():
        assert values.tolist() == [one[name] for one in alone]
    assert sharpe_ratio(curves).tolist() == [one["sharpe_ratio"] for one in alone]


def test_curves_without_variance_losses_or_days_have_no_ratio():
    flat = np.full(10, 100.0)
    found = of(flat)
    assert all(math.isnan(found[name]) for name in ("sharpe_ratio", "sortino_ratio", "calmar_ratio"))
    assert (found["volatility"], found["max_drawdown"]) == (0.0, 0.0)
    assert math.isnan(of(100 * 1.01 ** np.arange(50.0))["sharpe_ratio"])  # it grows by the same every day
    for short in (np.empty(0), flat[:1]):
        assert all(math.isnan(of(short)[name]) for name in ("sharpe_ratio", "volatility", "cagr"))
    assert all(math.isnan(value) for value in of(np.empty(0)).values())


def test_a_nan_in_the_curve_makes_its_metrics_nan():
    found = of(np.array([100.0, np.nan, 90.0, 100.0]))
    assert all(math.isnan(found[name]) for name in ("sharpe_ratio", "sortino_ratio", "volatility", "max_drawdown"))


def test_days_after_a_bankruptcy_return_zero():
    ruined = np.array([100.0, 0.0, 0.0])
    assert daily_returns(ruined).tolist() == [-1.0, 0.0]
    assert of(ruined)["max_drawdown"] == of(ruined)["cagr"] == -1.0


def test_turnover_is_traded_value_a_year_over_mean_equity():
    assert turnover(np.array([0.0, 50.0, 60.0]), np.array([100.0, 100.0, 130.0])) == pytest.approx(110 / 110 * 252 / 2)
    assert math.isnan(turnover(np.zeros(1), np.ones(1)))


def test_open_trades_do_not_count_as_won_or_lost():
    prices = np.array([[100.0], [100.0], [110.0], [110.0], [110.0], [120.0]])
    rules = TradingRules(commission=0, slippage=0, stop_loss=0, take_profit=0, rebalance_band=1)
    weights = np.array([[0.5], [0.5], [0.0], [0.5], [0.5], [0.5]])
    result = simulate(*[prices] * 4, weights, rules)
    summary = summarize(result, rules)
    assert (summary["trade_count"], summary["win_rate"], len(result.trades)) == (1, 1.0, 2)


def test_the_summary_has_all_keys_and_zero_trades_give_nan_win_rate():
    rules = TradingRules()
    summary = summarize(simulate(*[np.full((5, 1), 10.0)] * 4, np.zeros((5, 1)), rules), rules)
    assert list(summary) == [
        "total_return", "sharpe_ratio", "sortino_ratio", "calmar_ratio", "volatility", "cagr", "max_drawdown",
        "win_rate", "trade_count", "turnover", "costs", "exposure",
    ]  # fmt: skip
    assert math.isnan(summary["win_rate"]) and summary["exposure"] == summary["turnover"] == summary["costs"] == 0.0


def test_costs_and_exposure_by_hand():
    rules = replace(TradingRules(), commission=0.01, slippage=0.0, stop_loss=0, take_profit=0, rebalance_band=1.0)
    result = simulate(*[np.full((4, 1), 100.0)] * 4, np.full((4, 1), 0.5), rules)
    summary = summarize(result, rules)
    assert summary["costs"] == pytest.approx(0.005)
    assert summary["exposure"] == pytest.approx((0 + 3 * 5000 / 9950) / 4)
