"""Smoothing and trading towards a target with a gradient: hftraining/model/towards.py."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from hftraining.model.towards import smoothed, traded_towards
from hftraining.trading import towards
from hftraining.trading.caps import cap_weights
from hftraining.trading.config import TradingRules
from tests.naive_engine import random_market
from tests.slowly import mostly_slow

RULES = TradingRules(max_position_size=1.0, stop_loss=0.0, take_profit=0.0, rebalance_band=0.0)


def drawn(seed, missing=0.1, n_windows=2, n_sessions=20, n_symbols=3):
    """Signals with gaps of all lengths, and closes."""
    rng = np.random.default_rng(seed)
    signal = rng.normal(0, 0.4, (n_windows, n_sessions, n_symbols))
    signal[rng.random(signal.shape) < missing] = np.nan
    signal[0, 6:13, 0] = np.nan
    close = np.stack([random_market(rng, n_sessions, n_symbols, missing, 0.05)[3] for _ in range(n_windows)])
    close[0, 6:13, 0] = np.nan
    return torch.tensor(signal), torch.tensor(close)


@pytest.mark.parametrize("half_life", [0.0, 4.0])
def test_each_window_is_smoothed_as_a_portfolio_is(half_life):
    signal, _ = drawn(0, missing=0.3)
    got = smoothed(signal, half_life).numpy()
    for w in range(2):
        assert (got[w] == towards.smoothed(signal[w].numpy(), half_life)).all()


@pytest.mark.parametrize("half_life", [0.0, 1.0, 8.0])
def test_the_gradient_of_the_smoothing_equals_finite_differences(half_life):
    for seed in range(5):
        signal, _ = drawn(seed, missing=[0.0, 0.3][seed % 2])
        known = torch.isfinite(signal)

        def of_known(values, known=known):
            return smoothed(torch.where(known, values, torch.nan), half_life)

        values = torch.where(known, signal, 0.0).requires_grad_()
        assert torch.autograd.gradcheck(of_known, (values,), eps=1e-6, atol=1e-6)
        (gradient,) = torch.autograd.grad(of_known(values).sum(), values)
        assert (gradient[~known] == 0.0).all()


@pytest.mark.parametrize(("rate", "every"), [(0.2, 1), (1.0, 3), (0.5, 2), (1.0, 1)])
@pytest.mark.parametrize(
    "rules", mostly_slow([RULES, TradingRules(max_position_size=0.3, max_gross=0.6, allow_short=False)], quick=(0,))
)
def test_the_gradient_of_trading_towards_a_target_equals_finite_differences(rate, every, rules):
    for seed in range(6):
        signal, close = drawn(seed, missing=[0.0, 0.3][seed % 2])
        # Strictly within the caps, whose edges are kinks; some of the books drift beyond them.
        target = 0.95 * cap_weights(np.nan_to_num(signal.numpy()) + 0.01, rules) + 1e-3
        tensor = torch.tensor(target, requires_grad=True)

        def weights(values, close=close):
            return traded_towards(values, close, rate, every, rules)

        for w in range(2):
            want = towards.traded_towards(target[w], close[w].numpy(), rate, every, rules)
            assert (weights(tensor)[w].detach().numpy() == want).all()
        assert torch.autograd.gradcheck(weights, (tensor,), eps=1e-7, atol=1e-5, rtol=1e-4)


def test_the_gradient_of_a_book_that_drifts_beyond_its_caps_equals_finite_differences():
    close = torch.tensor([100.0, 180.0, 300.0, 280.0], dtype=torch.float64)[None, :, None].repeat(1, 1, 2)
    close[..., 1] = 100.0
    rules = replace(RULES, max_position_size=0.6, max_gross=1.0)
    target = torch.tensor([[0.5, -0.4], [0.55, -0.3], [0.5, -0.45], [0.1, 0.2]], dtype=torch.float64)[None]
    weights = traded_towards(target, close, 0.1, 1, rules)
    assert (weights[0, 1:, 0] == 0.6).any() or (weights.abs().sum(-1) > 0.999).any()
    tensor = target.requires_grad_()
    assert torch.autograd.gradcheck(lambda values: traded_towards(values, close, 0.1, 1, rules), (tensor,), eps=1e-7)


def test_after_the_ruin_of_a_book_the_gradient_is_finite():
    close = torch.tensor([100.0, 300.0, 310.0], dtype=torch.float64)[None, :, None]
    target = torch.full((1, 3, 1), -1.0, dtype=torch.float64, requires_grad=True)
    weights = traded_towards(target, close, 0.5, 1, RULES)
    weights.sum().backward()
    assert torch.isfinite(weights).all() and torch.isfinite(target.grad).all()


def test_a_batch_of_windows_takes_milliseconds():
    generator = torch.Generator().manual_seed(0)
    close = 50 * torch.exp(torch.cumsum(0.01 * torch.randn((16, 128, 8), generator=generator), dim=1))
    head = torch.tanh(torch.randn((16, 128, 8), generator=generator)).requires_grad_()

    def step():
        start = time.perf_counter()
        target = smoothed(head, 10.0) / 8
        traded_towards(target, close, 0.1, 1, RULES).sum().backward()
        return time.perf_counter() - start

    step()  # compiles
    assert min(step() for _ in range(5)) < 0.2
