"""What training minimises: hftraining/model/objective.py."""

import math

import numpy as np
import pytest
import torch

from hftraining.model.config import ObjectiveConfig
from hftraining.model.differentiable import account_equity
from hftraining.model.losses import pinball_loss
from hftraining.model.objective import Objective, net_sharpe, position_weights
from hftraining.portfolio.config import PortfolioConfig
from hftraining.portfolio.weights import target_weights
from hftraining.trading.config import TradingRules
from hftraining.trading.simulator import simulate
from tests.portfolio.books import forecast_of, random_bars

LEVELS = torch.tensor([0.1, 0.5, 0.9])


def test_pinball_loss_equals_a_calculation_by_hand():
    quantiles = torch.tensor([[[-1.0, 0.0, 1.0]]])
    label = torch.tensor([[2.0]])
    # 0.1 * 3, 0.5 * 2 and 0.9 * 1 for three quantiles below the label
    assert pinball_loss(quantiles, label, LEVELS).item() == pytest.approx((0.3 + 1.0 + 0.9) / 3)
    assert pinball_loss(quantiles, -label, LEVELS).item() == pytest.approx((0.9 + 1.0 + 0.3) / 3)


def test_the_true_quantiles_have_the_lowest_pinball_loss():
    rng = np.random.default_rng(0)
    label = torch.from_numpy(rng.normal(size=(20_000, 1)))
    truth = torch.special.ndtri(LEVELS.double())
    best = pinball_loss(truth.expand(20_000, 1, 3), label, LEVELS.double())
    for shift in (-0.2, 0.2):
        assert pinball_loss((truth + shift).expand(20_000, 1, 3), label, LEVELS.double()) > best
    assert pinball_loss((truth * 1.3).expand(20_000, 1, 3), label, LEVELS.double()) > best


def test_unknown_labels_do_not_count_and_without_any_label_loss_and_gradient_are_zero():
    quantiles = torch.zeros(2, 1, 3, requires_grad=True)
    label = torch.tensor([[2.0], [math.nan]])
    assert pinball_loss(quantiles, label, LEVELS) == pinball_loss(quantiles[:1], label[:1], LEVELS)
    nothing = pinball_loss(quantiles, torch.full((2, 1), math.nan), LEVELS)
    nothing.backward()
    assert nothing == 0 and torch.equal(quantiles.grad, torch.zeros_like(quantiles))


def test_net_sharpe_equals_mean_over_spread_of_the_pooled_daily_returns():
    rng = np.random.default_rng(0)
    equity = np.cumprod(1 + rng.normal(0.001, 0.01, (3, 50)), axis=1)
    returns = (equity[:, 1:] / equity[:, :-1] - 1).ravel()
    expected = returns.mean() / returns.std(ddof=1) * 252**0.5
    assert net_sharpe(torch.from_numpy(equity)).item() == pytest.approx(expected, rel=1e-3)


def test_an_account_that_stays_flat_scores_zero_and_still_has_a_gradient():
    equity = torch.full((2, 10), 10_000.0, requires_grad=True)
    net_sharpe(equity).backward()
    assert net_sharpe(equity) == 0
    assert torch.isfinite(equity.grad).all()


def test_position_weights_respect_both_caps_and_leave_out_absent_symbols():
    rules = TradingRules(max_position_size=0.6, max_gross=1.0)
    head = torch.tensor([[[1.0, -1.0, 0.5], [0.1, 0.1, 0.9]]])
    present = torch.tensor([[[True, True, True], [True, True, False]]])
    close = torch.full((1, 2, 3), 50.0)
    weights = position_weights(head, present, close, rules)[0]
    torch.testing.assert_close(weights[0], torch.tensor([0.6, -0.6, 0.3]) / 1.5)
    torch.testing.assert_close(weights[1], torch.tensor([0.06, 0.06, 0.0]))
    only_long = position_weights(head, present, close, TradingRules(max_position_size=0.6, allow_short=False))
    assert (only_long >= 0).all()


@pytest.mark.parametrize("missing", [0.0, 0.15])
def test_the_account_of_the_objective_is_that_of_the_portfolio_head_in_the_engine(missing):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        bars = random_bars(seed, 60, 4, missing)
        head_TS = np.where(bars.present_TS & (rng.random((60, 4)) > missing), rng.uniform(-1, 1, (60, 4)), np.nan)
        pace = {
            "smoothing": float(rng.choice([0.0, 1.0, 10.0])),
            "trade_rate": float(rng.choice([0.1, 0.5, 1.0])),
            "every": int(rng.choice([1, 1, 5])),
        }
        rules = TradingRules(
            max_position_size=float(rng.choice([0.3, 1.0])),
            allow_short=bool(rng.random() < 0.7),
            stop_loss=0.0,
            take_profit=0.0,
            rebalance_band=0.0,
        )
        opens, closes, head = (torch.tensor(array)[None] for array in (bars.open_TS, bars.close_TS, head_TS))
        weights = position_weights(head, torch.isfinite(head), closes, rules, **pace)
        forecast = forecast_of(np.full((60, 4), np.nan), head=head_TS)
        want = target_weights(forecast, bars, PortfolioConfig(kind="head", **pace), rules)
        np.testing.assert_allclose(weights[0].numpy(), want, atol=1e-12)
        engine = simulate(bars.open_TS, bars.high_TS, bars.low_TS, bars.close_TS, want, rules)
        got = account_equity(opens, closes, weights, rules)[0].numpy()
        np.testing.assert_allclose(got, engine.equity_T, rtol=1e-9, atol=1e-8 * rules.initial_capital)


def test_the_objective_trades_at_the_pace_that_it_is_given():
    config = ObjectiveConfig(horizons=[1, 5], forecast_weight=0.0, profit_weight=1.0)
    shape = (2, 2, 60)
    torch.manual_seed(0)
    prices = 50 * torch.exp(torch.cumsum(0.01 * torch.randn(shape), dim=-1))
    head = (0.9 * torch.sign(torch.randn(shape))).requires_grad_()
    present = torch.ones(shape, dtype=torch.bool)

    def loss(**pace):
        objective = Objective(config, TradingRules(), **pace)
        return objective(torch.zeros(*shape, 2, 5), head, torch.zeros(*shape, 2), present, prices, prices).profit

    at_once = loss()
    for pace in ({"smoothing": 10.0}, {"trade_rate": 0.1}, {"every": 10}):
        slower = loss(**pace)
        assert slower < at_once  # a book that flips each day pays its costs each day
        (gradient,) = torch.autograd.grad(slower, head)
        assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0


def test_a_head_that_has_diverged_gives_a_loss_that_is_not_finite():
    for value in (math.nan, math.inf):
        assert not math.isfinite(batch_of(value, 0.0, forecast_weight=0.0, profit_weight=1.0)[0].total.detach())


def batch_of(head_value, drift, rules=None, **config):
    torch.manual_seed(0)
    shape = (2, 2, 60)
    prices = 50 * torch.exp(torch.cumsum(torch.full(shape, drift) + 0.01 * torch.randn(shape), dim=-1))
    head = torch.full(shape, head_value, requires_grad=True)
    quantiles = torch.zeros(*shape, 2, 5, requires_grad=True)
    label = torch.randn(*shape, 2)
    objective = Objective(ObjectiveConfig(horizons=[1, 5], **config), rules or TradingRules())
    loss = objective(quantiles, head, label, torch.ones(shape, dtype=torch.bool), prices, prices)
    loss.total.backward()
    return loss, quantiles, head


def test_the_forecast_objective_moves_quantiles_alone_and_the_profit_objective_the_head_alone():
    loss, quantiles, head = batch_of(0.3, 0.01, forecast_weight=1.0, profit_weight=0.0)
    assert quantiles.grad.abs().sum() > 0 and head.grad is None
    assert math.isnan(loss.profit)
    loss, quantiles, head = batch_of(0.3, 0.01, forecast_weight=0.0, profit_weight=1.0)
    assert quantiles.grad is None and head.grad.abs().sum() > 0
    assert math.isnan(loss.forecast)


def test_the_mixed_objective_is_the_weighted_sum_of_its_parts():
    loss, *_ = batch_of(0.3, 0.01, forecast_weight=2.0, profit_weight=0.25)
    assert loss.total.item() == pytest.approx(2 * loss.forecast.item() + 0.25 * loss.profit.item())


def test_in_a_rising_market_a_long_book_has_a_lower_profit_loss_than_a_short_one_and_costs_raise_it():
    free = TradingRules(commission=0.0, slippage=0.0)
    config = {"forecast_weight": 0.0, "profit_weight": 1.0}
    long, short = (batch_of(sign, 0.01, **config)[0].profit for sign in (0.5, -0.5))
    assert long < 0 < short
    assert batch_of(0.5, 0.01, rules=free, **config)[0].profit < long
