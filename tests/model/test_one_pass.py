"""Attention, feed-forward and dropout of a CPU, some rows at a time, beside the plain formulas in float64."""

import copy

import pytest
import torch

from hftraining.model import feed_forward
from hftraining.model.adapt import LowRank
from hftraining.model.attention import Band, TimeAttention
from hftraining.model.config import ModelConfig
from hftraining.model.feed_forward import FeedForward
from hftraining.model.layers import RmsNorm
from hftraining.model.noise import Dropout, noise
from tests.model.test_layers import torchs_operators


def results(layer, x, gradient, *others):
    """What a layer gives, the gradient of x, and those of its weights, all in float64."""
    layer.zero_grad()
    x = x.clone().requires_grad_()
    y = layer(x, *others)
    y.backward(gradient.to(y.dtype))
    return [part.double() for part in (y.detach(), x.grad, *(weight.grad for weight in layer.parameters()))]


def exact(layer, x, gradient, *others):
    """The same from float64 numbers, which take the plain formulas."""
    return results(copy.deepcopy(layer).double(), x.double(), gradient.double(), *others)


@pytest.mark.parametrize("rows_at_once", [1, 7, 1000])
def test_a_feed_forward_step_and_its_gradients_are_those_of_its_layers_however_many_rows_are_at_once(
    monkeypatch, rows_at_once
):
    torch.manual_seed(0)
    layer, x, gradient = FeedForward(12), torch.randn(3, 5, 12), torch.randn(3, 5, 12)
    monkeypatch.setattr(feed_forward, "NUMBERS_AT_ONCE", 48 * rows_at_once)
    for ours, plain in zip(results(layer, x, gradient), exact(layer, x, gradient), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        alone = layer(x).double()
    assert torch.equal(alone, results(layer, x, gradient)[0])


def test_a_feed_forward_step_in_bf16_is_as_far_from_the_formula_as_bf16_is():
    torch.manual_seed(0)
    layer, x, gradient = FeedForward(64), torch.randn(2, 50, 64), torch.randn(2, 50, 64)
    with torch.autocast("cpu", torch.bfloat16):
        ours = results(layer, x, gradient)
        assert layer(x).dtype == torch.bfloat16
    for one, plain in zip(ours, exact(layer, x, gradient), strict=True):
        assert (one - plain).norm() < 2**-7 * plain.norm()


def test_a_feed_forward_step_with_a_change_of_low_rank_trains_it():
    layer = FeedForward(8).requires_grad_(False)
    layer[0] = LowRank(layer[0], 2)
    layer(torch.randn(4, 8)).sum().backward()
    assert layer[0].up.grad.any() and layer[0].linear.weight.grad is None


@pytest.mark.parametrize(("length", "context"), [(1, 4), (9, 16), (32, 32), (33, 40), (60, 60), (60, 33)])
def test_attention_in_training_and_its_gradients_are_those_of_the_plain_formula(length, context):
    torch.manual_seed(0)
    layer = TimeAttention(ModelConfig(hidden_size=24, num_heads=3, context=context))
    x, gradient = torch.randn(2, 5, length, 24), torch.randn(2, 5, length, 24)
    present = torch.rand(10, length) > 0.2
    band = Band(present, context, 8, training=True)
    assert band.at_once
    ours_and_plain = [results(layer, x, gradient, band)]
    with torchs_operators():
        ours_and_plain.append(results(layer, x, gradient, band))
    for ours, theirs in zip(*ours_and_plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_attention_keeps_no_trace_of_a_bar_that_a_query_may_not_see():
    torch.manual_seed(0)
    layer, present = TimeAttention(ModelConfig(hidden_size=8, num_heads=2, context=5)), torch.ones(1, 10, dtype=bool)
    present[0, 3] = False
    x = torch.randn(1, 1, 10, 8)
    band = Band(present, 5, 4, training=True)
    before, other = layer(x, band), x.clone()
    other[0, 0, 3] = 1e4  # absent: seen by itself alone
    other[0, 0, 9] = -1e4  # the last: seen by no other
    other[0, 0, 0] = 1e4  # seen until 4
    changed = (layer(other, band) != before).any(dim=-1)[0, 0]
    assert changed.tolist() == [True, True, True, True, True, False, False, False, False, True]


def test_dropout_with_its_sum_is_dropout_and_then_the_sum_to_the_gradient():
    torch.manual_seed(0)
    site, gradient = Dropout(0.3).train(), torch.randn(2, 6, 5)
    inputs = [torch.randn(2, 6, 5).requires_grad_() for _ in range(2)]
    with noise(site, 1, 2, range(2)):
        together = site.added_to(*inputs)
        apart = inputs[0] + site(inputs[1])
    for one, other in zip(
        torch.autograd.grad(together, inputs, gradient), torch.autograd.grad(apart, inputs, gradient), strict=True
    ):
        assert torch.equal(one, other)
    torch.testing.assert_close(together, apart)
    assert 0 < (together == inputs[0]).sum() < 30  # some were dropped
    assert torch.equal(site.eval().added_to(*inputs), inputs[0] + inputs[1])


def test_weights_in_bf16_are_taken_for_the_numbers_that_they_are_or_not_at_all():
    torch.manual_seed(0)
    layer, x = FeedForward(8).bfloat16(), torch.randn(3, 8).bfloat16()
    torch.testing.assert_close(layer(x).double(), exact(layer, x, x)[0], rtol=0, atol=0.03)
    site, sum_ = Dropout(0.5).train(), torch.randn(3, 8).bfloat16()
    with noise(site, 1, 2, range(3)):
        together = site.added_to(sum_, x)
        torch.testing.assert_close(together, sum_ + site(x))
    with pytest.raises(TypeError, match="BFloat16"):
        RmsNorm(8).bfloat16()(torch.randn(3, 8))


def test_what_is_not_finite_stays_so_through_dropout_also_where_it_is_dropped():
    site, x = Dropout(0.5).train(), torch.full((1, 1000), float("nan"))
    with noise(site, 1, 2, range(1)):
        assert site(x).isnan().all() and site.added_to(torch.zeros(1, 1000), x).isnan().all()
