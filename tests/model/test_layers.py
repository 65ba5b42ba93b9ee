"""Layers of one pass over the numbers, beside torch's formulas in float64: hftraining/model/layers.py."""

from contextlib import contextmanager

import pytest
import torch
from torch.nn import functional as F

from hftraining.model import layers
from hftraining.model.layers import Gelu, RmsNorm, rotary, split_heads
from hftraining.model.noise import noise, random_words
from tests.model.test_noise import make_transformer, masks


@contextmanager
def torchs_operators():
    """As on a CPU with many threads: the plain formulas."""
    before, layers.MOST_THREADS = layers.MOST_THREADS, 0
    try:
        yield
    finally:
        layers.MOST_THREADS = before


def norm_of(x, weight):
    layer = RmsNorm(x.shape[-1])
    layer.weight = torch.nn.Parameter(weight)
    return layer(x), layer.weight


def heads_of(qkv, rotation, *around):
    return torch.stack(split_heads(qkv, 2, rotation, *around))


@pytest.mark.parametrize("width", [1, 7, 64, 128])
def test_rms_norm_and_its_gradients_are_those_of_the_formula(width):
    torch.manual_seed(0)
    x, weight = 3 * torch.randn(2, 5, width), torch.randn(width)
    ours, exact = x.clone().requires_grad_(), x.double().requires_grad_()
    y, parameter = norm_of(ours, weight)
    double = weight.double().requires_grad_()
    z = exact / (exact.square().mean(dim=-1, keepdim=True) + torch.finfo(torch.float32).eps).sqrt() * double
    gradient = torch.randn_like(x)
    y.backward(gradient)
    z.backward(gradient.double())
    for one, other in ((y, z), (ours.grad, exact.grad), (parameter.grad, double.grad)):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-8)])
def test_gelu_and_its_derivative_are_those_of_the_formula(kind, tolerance):
    x = torch.linspace(-12, 12, 4001).to(kind).requires_grad_()
    exact = x.detach().double().requires_grad_()
    y, z = Gelu()(x), F.gelu(exact)
    y.sum().backward()
    z.sum().backward()
    assert y.dtype == x.grad.dtype == kind
    assert torch.equal(Gelu()(x.detach()), y)
    torch.testing.assert_close(y.double(), z, rtol=tolerance, atol=1e-6)
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=tolerance, atol=1e-6)


def test_heads_and_their_gradient_are_those_of_the_plain_rotation():
    torch.manual_seed(0)
    qkv, rotation, gradient = (
        torch.randn(3, 11, 3 * 12),
        rotary(11, 6, torch.device("cpu")),
        torch.randn(3, 3, 2, 11, 6),
    )
    results = []
    for inputs in (qkv.clone().requires_grad_(), qkv.double().requires_grad_()):  # float64 takes the plain formula
        heads = heads_of(inputs, rotation)
        heads.backward(gradient.to(heads.dtype))
        results.append((heads.double(), inputs.grad.double()))
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)


def test_zeros_around_the_bars_of_a_head_change_neither_them_nor_their_gradient():
    torch.manual_seed(0)
    rotation, gradient = rotary(11, 6, torch.device("cpu")), torch.randn(3, 3, 2, 18, 6)
    for kind in (torch.float32, torch.float64):  # by the loops, and by the plain formula
        qkv, bare = (torch.linspace(-1, 1, 3 * 11 * 36, dtype=kind).view(3, 11, 36).requires_grad_() for _ in range(2))
        wide, own = heads_of(qkv, rotation, 5, 2), heads_of(bare, rotation)
        assert torch.equal(wide[..., 5:16, :], own)
        assert not wide[..., :5, :].any() and not wide[..., 16:, :].any()
        wide.backward(gradient.to(kind))
        own.backward(gradient[..., 5:16, :].to(kind))
        assert torch.equal(qkv.grad, bare.grad)


def test_a_row_that_is_not_finite_stays_so_and_touches_no_other():
    x = torch.randn(4, 8)
    for strange in (float("nan"), float("inf")):
        x[2, 3] = strange
        for result in (norm_of(x, torch.ones(8))[0], Gelu()(x), Gelu()(x.bfloat16())):
            assert result[[0, 1, 3]].isfinite().all()
            assert not result[2].isfinite().all()


def test_torchs_operators_draw_the_same_masks_and_compute_the_same_model_up_to_rounding():
    drawn, words = masks(range(3), shape=(7, 3)), random_words(torch.tensor([5, -5]), 9)
    model, x, present = make_transformer().train(), torch.randn(2, 3, 20, 5), torch.rand(2, 3, 20) > 0.1

    def forward_and_gradient():
        model.zero_grad()
        with noise(model, 1, 1, range(2)):
            quantiles, head = model(x, present)
        (quantiles.square().mean() + head.mean()).backward()
        return quantiles.detach(), [weight.grad.clone() for weight in model.parameters()]

    ours, gradients = forward_and_gradient()
    with torchs_operators():
        assert torch.equal(masks(range(3), shape=(7, 3)), drawn)
        assert torch.equal(random_words(torch.tensor([5, -5]), 9), words)
        plain, plain_gradients = forward_and_gradient()
    assert not torch.equal(plain, ours)  # another order of sums: so the switch did something
    torch.testing.assert_close(plain, ours, rtol=1e-4, atol=1e-5)
    for one, other in zip(gradients, plain_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
