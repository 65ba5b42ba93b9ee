"""The causal transformer of hftraining/model/transformer.py."""

import pytest
import torch
from safetensors.torch import save_file

from hftraining.model.attention import Band, TimeAttention
from hftraining.model.config import ModelConfig
from hftraining.model.layers import rotary, rotate
from hftraining.model.transformer import BarTransformer

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


@pytest.mark.parametrize("length", [5, 8, 9, 16, 17, 24, 33, 49])
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


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("length", "heads"), [(5, 2), (8, 2), (13, 2), (16, 2), (17, 2), (37, 2), (130, 1)])
def test_attention_in_blocks_or_at_once_equals_attention_with_the_whole_band_as_mask(length, heads, training):
    context = 8 if length < 100 else 70  # the last has more keys than the batched products are used for
    torch.manual_seed(0)
    attention = TimeAttention(ModelConfig(hidden_size=16, num_heads=heads, context=context))
    x, present = torch.randn(2, 3, length, 16), torch.rand(2, 3, length) > 0.2
    banded = attention(x, Band(present.flatten(0, 1), context, 16 // heads, training=training))

    qkv = attention.qkv(x).view(6, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
    query, key = (rotate(part, *rotary(length, 16 // heads, x.device).unbind(dim=-1)) for part in qkv[:2])
    distance = torch.arange(length)[:, None] - torch.arange(length)[None, :]
    allowed = (distance >= 0) & (distance < context) & present.flatten(0, 1)[:, None, None, :] | (distance == 0)
    score = (query @ key.transpose(-1, -2) / (16 / heads) ** 0.5).masked_fill(~allowed, float("-inf")).softmax(dim=-1)
    plain = (score @ qkv[2]).transpose(1, 2).reshape(2, 3, length, 16)
    torch.testing.assert_close(banded, attention.out(plain), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("context", [1, 8])
@pytest.mark.parametrize("cross_asset", [False, True])
@pytest.mark.parametrize("begin", [1, 15, 24, 32, 47, 49])
def test_the_rows_that_are_asked_for_are_those_of_a_pass_over_all(begin, cross_asset, context):
    model, (x, present) = make_model(cross_asset=cross_asset, context=context), some_input()
    present[:, 1, 20:30] = False
    with torch.inference_mode():
        whole, asked = model(x, present), model(x, present, None, begin)
    for of_all, of_some in zip(whole, asked, strict=True):
        torch.testing.assert_close(of_some, of_all[:, :, begin:], rtol=0, atol=1e-6)


def test_a_pass_computes_in_each_layer_only_what_later_layers_see():
    model, (x, present) = make_model(num_layers=3), some_input(length=100)
    rows = []
    for block in model.blocks:
        block.mlp.register_forward_hook(lambda layer, given, result: rows.append(result.shape[2]))
    with torch.inference_mode():
        model(x, present, None, 99)
    # The last row lies in the block of 96, that layer sees 7 before it, from the block of 72 on, and so on.
    assert model(x, present, None, 99)[0].shape[2] == 1 and rows[:3] == [100 - 48, 100 - 72, 100 - 96]
    x[:, :, : 48 - 7] = float("nan")
    assert torch.isfinite(model(x, present, None, 99)[0]).all()


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


def test_before_training_a_model_that_looks_across_stocks_is_the_model_that_does_not():
    torch.manual_seed(3)
    alone = BarTransformer(ModelConfig(hidden_size=16, num_heads=2), 5, (1, 5), LEVELS).eval()
    torch.manual_seed(3)
    together = BarTransformer(ModelConfig(hidden_size=16, num_heads=2, cross_asset=True), 5, (1, 5), LEVELS).eval()
    x, present = some_input()
    for ours, theirs in zip(together(x, present), alone(x, present), strict=True):
        assert torch.equal(ours, theirs)
    together(x, present)[0].square().sum().backward()
    gates = [weight for name, weight in together.named_parameters() if name.endswith("assets_gate")]
    assert len(gates) == 3 and all(gate.grad.abs().max() > 0 for gate in gates), "so that they open"


def test_a_model_of_an_earlier_version_looks_across_stocks_in_full(tmp_path):
    """Its file has no gates, and forecasts what a model with gates of one does."""
    model, given = make_model(cross_asset=True), some_input()
    for block in model.blocks:
        torch.nn.init.ones_(block.assets_gate)
    save_file({name: w for name, w in model.state_dict().items() if "gate" not in name}, tmp_path / "model.safetensors")
    again = make_model(cross_asset=True)
    again.load(tmp_path)
    assert torch.equal(again(*given)[0], model(*given)[0])


def test_with_a_context_of_one_a_bar_is_forecast_as_if_it_were_the_only_one():
    one, more = make_model(context=1), make_model(context=8)
    x, present = some_input()
    assert one.receptive_field == 1
    with torch.inference_mode():
        for bar in range(x.shape[2]):
            day = slice(bar, bar + 1)
            alone = more(x[:, :, day], present[:, :, day])
            for ours, theirs in zip(one(x, present), alone, strict=True):
                torch.testing.assert_close(ours[:, :, day], theirs, rtol=0, atol=2e-6)  # of up to 4


def test_a_symbol_adds_its_vector_and_one_that_is_unknown_adds_nothing():
    model, (x, present) = make_model(symbol_embedding=True), some_input()
    model.seat([-1] * 4)
    with torch.inference_mode():
        plain = model(x, present)[0]
        numbers = torch.tensor([[0, 3, -1], [2, -1, 1]])
        assert torch.equal(model(x, present, numbers)[0], plain), "all vectors begin at zero"
        vectors = model.symbols.weight.normal_()
        given = model(x, present, numbers)[0]
        for window, symbol, number in ((0, 0, 0), (0, 1, 3), (1, 0, 2), (1, 2, 1)):
            bias = model.embed.bias.clone()
            model.embed.bias += vectors[number]
            torch.testing.assert_close(given[window, symbol], model(x, present)[0][window, symbol], rtol=0, atol=1e-5)
            model.embed.bias.copy_(bias)
        assert torch.equal(given[0, 2], plain[0, 2]) and torch.equal(given[1, 1], plain[1, 1])
        model.seat([2, -1, 0])
        torch.testing.assert_close(model.symbols.weight, torch.stack([vectors[2], torch.zeros(16), vectors[0]]))


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
    angles = rotary(3000, 8, query.device).unbind(dim=-1)
    turned = [rotate(v.expand(1, 1, 3000, 8), *angles)[0, 0] for v in (query, key)]
    near, far = turned[0][5] @ turned[1][2], turned[0][2905] @ turned[1][2902]
    assert abs(near - far) < 1e-4
    assert abs(near - turned[0][5] @ turned[1][4]) > 1e-3
