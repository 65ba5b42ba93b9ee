"""The gradient of a batch does not depend on how its windows are divided: hftraining/training/gradient.py."""

import pytest
import torch

from hftraining.model.config import ModelConfig, ObjectiveConfig
from hftraining.model.noise import noise
from hftraining.model.objective import Objective
from hftraining.model.transformer import BarTransformer
from hftraining.trading.config import TradingRules
from hftraining.training.gradient import shares, whole_gradient

WINDOWS, PLACES, BARS, FEATURES, LEVELS = 5, 4, 12, 3, (0.1, 0.5, 0.9)
OBJECTIVES = {
    "pinball": {"loss": "pinball", "profit_weight": 0.0},
    "mse": {"loss": "mse", "profit_weight": 0.0},
    "ic": {"loss": "ic", "profit_weight": 0.0},
    "profit": {"forecast_weight": 0.0, "profit_weight": 1.0},
    "mixed": {"loss": "pinball", "profit_weight": 0.02},
}


def a_batch():
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(WINDOWS, PLACES, BARS, FEATURES, generator=draw)
    label = torch.randn(WINDOWS, PLACES, BARS, 1, generator=draw)
    label[torch.rand(label.shape, generator=draw) < 0.3] = torch.nan
    label[1] = torch.nan  # a window without any label
    present = torch.rand(WINDOWS, PLACES, BARS, generator=draw) < 0.9
    close = 50.0 * torch.exp(0.02 * torch.randn(WINDOWS, PLACES, BARS, generator=draw).cumsum(-1))
    return x, label, present, close * 0.999, close


def a_model(dropout=0.0):
    torch.manual_seed(0)
    config = ModelConfig(hidden_size=8, num_layers=2, num_heads=2, context=6, dropout=dropout)
    return BarTransformer(config, FEATURES, (5,), LEVELS).train()


def gradient_of(objective, parts, batch=None, dropout=0.0):
    x, label, present, open_, close = batch or a_batch()
    model = a_model(dropout)
    objective = Objective(ObjectiveConfig(horizons=[5], quantiles=list(LEVELS), **objective), TradingRules())

    def forward(windows):
        with noise(model, 1, 7, windows):
            return model(x[windows.start : windows.stop], present[windows.start : windows.stop])

    loss = whole_gradient(model, forward, objective, (label, present, open_, close), parts)
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, loss


@pytest.mark.parametrize("parts", [1, 2, 3, WINDOWS])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_gradient_and_the_loss_of_a_batch_are_those_of_one_ordinary_pass_however_it_is_divided(objective, parts):
    x, label, present, open_, close = a_batch()
    model = a_model()
    config = ObjectiveConfig(horizons=[5], quantiles=list(LEVELS), **OBJECTIVES[objective])
    plain = Objective(config, TradingRules())(*model(x, present), label, present, open_, close)
    plain.total.backward()
    wanted = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    found, loss = gradient_of(OBJECTIVES[objective], parts)
    assert found.keys() >= wanted.keys()
    torch.testing.assert_close(loss.total, plain.total.detach(), rtol=1e-5, atol=1e-7)
    largest = max(float(grad.abs().max()) for grad in wanted.values())
    for name, gradient in found.items():
        expected = wanted.get(name, torch.zeros(()))
        torch.testing.assert_close(gradient, expected.expand_as(gradient), rtol=1e-4, atol=1e-5 * largest)
        assert parts > 1 or torch.equal(gradient, wanted[name])
    assert not loss.total.requires_grad


@pytest.mark.parametrize("objective", ["mse", "mixed"])
def test_with_dropout_each_part_and_each_pass_draws_the_masks_of_the_whole_batch(objective):
    whole, _ = gradient_of(OBJECTIVES[objective], 1, dropout=0.3)
    without, _ = gradient_of(OBJECTIVES[objective], 1)
    name = "blocks.0.mlp.0.weight"
    assert not torch.allclose(whole[name], without[name], rtol=0.05)
    for parts in (2, WINDOWS):
        found, _ = gradient_of(OBJECTIVES[objective], parts, dropout=0.3)
        largest = max(float(grad.abs().max()) for grad in whole.values())
        for key, gradient in whole.items():
            torch.testing.assert_close(found[key], gradient, rtol=1e-4, atol=1e-5 * largest)


def test_a_sharpe_ratio_differentiated_window_by_window_would_give_another_gradient():
    whole, _ = gradient_of(OBJECTIVES["profit"], 1)
    parts = [gradient_of(OBJECTIVES["profit"], 1, tuple(a[w : w + 1] for a in a_batch()))[0] for w in range(WINDOWS)]
    name = "position.weight"
    apart = sum(part[name] for part in parts) / WINDOWS
    assert (apart - whole[name]).norm() > 0.1 * whole[name].norm()


def kept_at_most(objective, parts):
    """The most bytes that autograd held at a time for backward passes."""
    held, most = 0, 0

    class Kept:
        def __init__(self, tensor):
            nonlocal held, most
            self.tensor, self.size = tensor, tensor.numel() * tensor.element_size()
            held += self.size
            most = max(most, held)

        def __del__(self):
            nonlocal held
            held -= self.size

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        gradient_of(objective, parts)
    return most


@pytest.mark.parametrize("objective", ["pinball", "mixed"])
def test_more_parts_keep_less_for_the_backward_pass(objective):
    whole, halves, windows = (kept_at_most(OBJECTIVES[objective], parts) for parts in (1, 2, WINDOWS))
    assert windows < 0.5 * whole and windows < halves < whole


def test_outputs_that_are_not_finite_leave_a_gradient_that_is_not_in_any_number_of_parts():
    batch = a_batch()
    batch[0][0] = torch.nan
    for parts in (1, 3):
        gradients, loss = gradient_of(OBJECTIVES["mixed"], parts, batch)
        assert not torch.isfinite(loss.total)
        assert not all(torch.isfinite(gradient).all() for gradient in gradients.values())


def test_windows_are_divided_into_consecutive_parts_that_differ_by_one_at_most():
    for n in range(1, 12):
        for parts in range(1, n + 1):
            divided = shares(range(3, 3 + n), parts)
            assert [window for part in divided for window in part] == list(range(3, 3 + n))
            assert max(map(len, divided)) - min(map(len, divided)) <= 1 and len(divided) == parts
