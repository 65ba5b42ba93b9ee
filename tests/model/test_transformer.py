"""The causal transformer of hftraining/model/transformer.py."""

import pytest
import torch

from hftraining.model.config import ModelConfig
from hftraining.model.transformer import BarTransformer, TimeAttention, band_mask, rotary, rotate

LEVELS = (0.1, 0.5, 0.9)


def make_model(**fields) -> BarTransformer:
    torch.manual_seed(0)
    config = ModelConfig(**{"hidden_size": 16, "num_layers": 2, "num_heads": 2, "context": 8, "dropout": 0.0} | fields)
    model = BarTransformer(config, 5, (1, 5), LEVELS).eval()
    with torch.no_grad():  # larger than at the start, so that every path shows in the output
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def some_input(n_windows=2, n_symbols=3, length=50):
    torch.manual_seed(1)
    return torch.randn(n_windows, n_symbols, length, 5), torch.ones(n_windows, n_symbols, length, dtype=torch.bool)


@pytest.mark.parametrize("cross_asset", [False, True])
@pytest.mark.parametrize("day", [0, 7, 8, 31, 48])
def test_outputs_up_to_day_t_are_equal_to_the_bit_when_later_inputs_change(day, cross_asset):
    model, (x, present) = make_model(cross_asset=cross_asset), some_input()
    changed, gone = x.clone(), present.clone()
    changed[:, :, day + 1 :] = 100 * torch.randn_like(changed[:, :, day + 1 :])
    gone[:, :, day + 1 :] = torch.rand_like(gone[:, :, day + 1 :].float()) > 0.5
    with torch.inference_mode():
        for before, after in zip(model(x, present), model(changed, gone), strict=True):
            assert torch.equal(before[:, :, : day + 1], after[:, :, : day + 1])
            assert not torch.equal(before[:, :, day + 1 :], after[:, :, day + 1 :])


@pytest.mark.parametrize("length", [9, 24, 33, 49])
def test_a_forecast_is_the_same_whether_the_bars_end_today_or_later(length):
    model, (x, present) = make_model(), some_input()
    with torch.inference_mode():
        for whole, cut in zip(model(x, present), model(x[:, :, :length], present[:, :, :length]), strict=True):
            torch.testing.assert_close(whole[:, :, :length], cut, rtol=0, atol=1e-6)


def test_a_forecast_depends_on_the_receptive_field_and_on_nothing_before_it():
    model, (x, present) = make_model(), some_input()
    reach = model.receptive_field
    assert reach == 2 * 7 + 1
    today = 40
    with torch.inference_mode():
        inside, outside = x.clone(), x.clone()
        inside[:, :, today - reach + 1] += 1.0
        outside[:, :, : today - reach + 1] += 1.0
        before = model(x, present)[0][:, :, today]
        torch.testing.assert_close(model(outside, present)[0][:, :, today], before, rtol=0, atol=1e-6)
        assert (model(inside, present)[0][:, :, today] - before).abs().max() > 1e-5
        later_start = model(x[:, :, today - reach + 1 :], present[:, :, today - reach + 1 :])[0][:, :, reach - 1]
        torch.testing.assert_close(later_start, before, rtol=0, atol=1e-5)


def test_blockwise_attention_equals_attention_with_the_whole_band_as_mask():
    config = ModelConfig(hidden_size=16, num_layers=1, num_heads=2, context=8, dropout=0.0)
    torch.manual_seed(0)
    attention = TimeAttention(config)
    x, present = torch.randn(2, 3, 37, 16), torch.rand(2, 3, 37) > 0.2
    rotation = rotary(37, 8, x.device)
    blockwise = attention(x, band_mask(present.flatten(0, 1), 8), rotation)

    qkv = attention.qkv(x).view(6, 37, 3, 2, 8)
    query, key = (rotate(qkv[:, :, i], rotation).transpose(1, 2) for i in (0, 1))
    distance = torch.arange(37)[:, None] - torch.arange(37)[None, :]
    allowed = (distance >= 0) & (distance < 8) & present.flatten(0, 1)[:, None, None, :] | (distance == 0)
    score = (query @ key.transpose(-1, -2) / 8**0.5).masked_fill(~allowed, float("-inf")).softmax(dim=-1)
    plain = (score @ qkv[:, :, 2].transpose(1, 2)).transpose(1, 2).reshape(2, 3, 37, 16)
    torch.testing.assert_close(blockwise, attention.out(plain), rtol=1e-5, atol=1e-6)


def test_an_absent_bar_does_not_reach_the_forecasts_of_later_bars():
    model, (x, present) = make_model(), some_input()
    present[:, :, 20] = False
    changed = x.clone()
    changed[:, :, 20] = 50.0
    with torch.inference_mode():
        for before, after in zip(model(x, present), model(changed, present), strict=True):
            assert torch.equal(before[:, :, 21:], after[:, :, 21:])


def test_symbols_see_each_other_only_with_cross_asset_and_then_in_any_order():
    x, present = some_input()
    changed = x.clone()
    changed[:, 1] += 1.0
    with torch.inference_mode():
        alone, together = make_model(), make_model(cross_asset=True)
        assert torch.equal(alone(x, present)[0][:, 0], alone(changed, present)[0][:, 0])
        assert not torch.equal(together(x, present)[0][:, 0], together(changed, present)[0][:, 0])
        order = torch.tensor([2, 0, 1])
        permuted = together(x[:, order], present[:, order])[0]
        torch.testing.assert_close(permuted, together(x, present)[0][:, order], rtol=1e-5, atol=1e-5)


def test_quantiles_never_cross_and_positions_lie_within_one():
    quantiles, head = make_model()(*some_input())
    assert (quantiles.diff(dim=-1) >= 0).all()
    assert (head.abs() <= 1).all()


def test_an_untrained_model_forecasts_about_a_standard_normal():
    torch.manual_seed(0)
    model = BarTransformer(ModelConfig(), 5, (1, 5), LEVELS).eval()
    quantiles, _ = model(*some_input())
    expected = torch.tensor([-1.2816, 0.0, 1.2816]).expand_as(quantiles)
    assert (quantiles - expected).abs().max() < 1.0


def test_rotary_positions_make_scores_depend_on_distance_alone():
    torch.manual_seed(0)
    query, key = torch.randn(8), torch.randn(8)
    rotation = rotary(3000, 8, query.device)
    turned = [rotate(v.expand(1, 3000, 1, 8), rotation)[0, :, 0] for v in (query, key)]
    near, far = turned[0][5] @ turned[1][2], turned[0][2905] @ turned[1][2902]
    assert abs(near - far) < 1e-4
    assert abs(near - turned[0][5] @ turned[1][4]) > 1e-3
