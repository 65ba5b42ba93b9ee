"""The differentiable account against the engine, and its gradient against finite differences."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hftraining.model.differentiable import account_equity
from hftraining.trading.config import TradingRules
from hftraining.trading.simulator import simulate
from tests.naive_engine import random_market, random_rules, random_weights

RULES = TradingRules(stop_loss=0.0, take_profit=0.0, rebalance_band=0.0)


def drawn(seed, missing, n_windows=3):
    rng = np.random.default_rng(seed)
    n_sessions, n_symbols = int(rng.integers(2, 30)), int(rng.integers(1, 5))
    markets = [random_market(rng, n_sessions, n_symbols, missing, rng.choice([0.02, 0.1])) for _ in range(n_windows)]
    weights = np.stack([random_weights(rng, n_sessions, n_symbols) for _ in range(n_windows)])
    rules = replace(random_rules(rng), stop_loss=0.0, take_profit=0.0, rebalance_band=0.0, whole_shares=False)
    return markets, weights, rules


def tensors(markets, dtype=torch.float64):
    return tuple(torch.tensor(np.stack([market[i] for market in markets]), dtype=dtype) for i in (0, 3))


@pytest.mark.parametrize("missing", [0.0, 0.15])
def test_equity_equals_that_of_the_fill_engine(missing):
    for seed in range(100):
        markets, weights, rules = drawn(seed, missing)
        got = account_equity(*tensors(markets), torch.tensor(weights), rules).numpy()
        for w, market in enumerate(markets):
            want = simulate(*market, weights[w], rules).equity_T
            np.testing.assert_allclose(got[w], want, rtol=1e-9, atol=1e-8 * rules.initial_capital)


def test_float32_prices_and_weights_give_the_same_equity_to_1e_5():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        markets = [random_market(rng, 128, 4) for _ in range(4)]
        weights = rng.normal(0, 0.1, (4, 128, 4))
        got = account_equity(*tensors(markets, torch.float32), torch.tensor(weights, dtype=torch.float32), RULES)
        assert got.dtype == torch.float32
        for w, market in enumerate(markets):
            want = simulate(*market, weights[w], RULES).equity_T
            np.testing.assert_allclose(got[w].numpy(), want, rtol=1e-5)


@pytest.mark.parametrize("missing", [0.0, 0.15])
def test_the_gradient_equals_finite_differences(missing):
    for seed in range(40):
        markets, weights, rules = drawn(seed, missing, n_windows=2)
        # A weight of exactly zero lies on the kink of the costs, where a difference has no single answer.
        weights = np.where(weights == 0.0, 0.01, weights) + np.random.default_rng(seed).normal(0, 1e-3, weights.shape)
        opens, closes = tensors(markets)

        def growth(weights_WTS, opens=opens, closes=closes, rules=rules):
            return account_equity(opens, closes, weights_WTS, rules) / rules.initial_capital

        tensor = torch.tensor(weights, requires_grad=True)
        assert torch.autograd.gradcheck(growth, (tensor,), eps=1e-7, atol=1e-5, rtol=1e-4)


def test_the_gradient_at_zero_weights_is_finite():
    opens, closes = tensors([random_market(np.random.default_rng(0), 30, 3)])
    weights = torch.zeros((1, 30, 3), dtype=torch.float64, requires_grad=True)
    account_equity(opens, closes, weights, RULES)[0, -1].backward()
    assert torch.isfinite(weights.grad).all() and weights.grad.abs().sum() > 0


def test_the_gradient_after_a_bankruptcy_is_zero_and_finite():
    prices = torch.tensor([100.0, 100.0, 500.0, 100.0, 100.0], dtype=torch.float64)[None, :, None]
    weights = torch.full((1, 5, 1), -1.0, dtype=torch.float64, requires_grad=True)
    equity = account_equity(prices, prices, weights, RULES)
    assert equity[0, 2:].tolist() == [0.0, 0.0, 0.0]
    equity.sum().backward()
    assert torch.isfinite(weights.grad).all() and (weights.grad[0, 1:] == 0).all()


def test_perfect_foresight_scores_higher_than_its_negation_and_the_gradient_points_to_it():
    opens, closes = tensors([random_market(np.random.default_rng(0), 60, 2)])
    foresight = torch.zeros_like(opens)
    foresight[:, :-2] = 0.3 * torch.sign(opens[:, 2:] - opens[:, 1:-1])
    score = [account_equity(opens, closes, side * foresight, RULES)[0, -1] for side in (1, 0, -1)]
    assert score[0] > score[1] > score[2]
    weights = torch.full_like(opens, 1e-3, requires_grad=True)
    account_equity(opens, closes, weights, replace(RULES, commission=0.0, slippage=0.0))[0, -1].backward()
    assert (weights.grad * foresight).sum() > 0


def test_shapes_that_differ_and_weights_that_are_not_finite_are_refused():
    prices = torch.ones((2, 5, 3))
    with pytest.raises(ValueError, match=r"weights: shape \(2, 5, 2\)"):
        account_equity(prices, prices, torch.zeros((2, 5, 2)), RULES)
    weights = torch.zeros((2, 5, 3))
    weights[1, 4, 0] = float("nan")
    with pytest.raises(ValueError, match="weights: nan at window 1, session 4, symbol 0"):
        account_equity(prices, prices, weights, RULES)
