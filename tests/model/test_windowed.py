"""The networks that read a window anew for each bar: linear, mlp, lstm and patchtst, beside the transformer."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hftraining.model import windowed
from hftraining.model.adapt import adapt, merge
from hftraining.model.base import KINDS
from hftraining.model.config import NETWORKS, WINDOWED, ModelConfig, count_weights
from hftraining.model.noise import noise

LEVELS, HORIZONS, N_FEATURES = (0.1, 0.5, 0.9), (1, 5), 5
SHAPES = {
    "transformer": {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "context": 6},
    "linear": {"context": 6},
    "mlp": {"hidden_size": 16, "num_layers": 2, "context": 6},
    "lstm": {"hidden_size": 16, "num_layers": 2, "context": 6},
    "patchtst": {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "context": 6, "patch_length": 2, "stride": 2},
}
APART = {"channel_independent": True, "patch_length": 3, "stride": 1}
VARIANTS = [*((kind, {}) for kind in NETWORKS), ("patchtst", APART), ("mlp", {"context": 1})]
EMBEDDED = [kind for kind in NETWORKS if kind != "linear"]


def make_model(kind, dropout=0.0, **fields):
    """A model in use, with larger weights than at the start, so that every path shows."""
    torch.manual_seed(0)
    dropouts = {} if kind == "linear" else {"dropout": dropout}
    config = ModelConfig(kind=kind, **{**SHAPES[kind], **dropouts, **fields})
    model = KINDS[kind](config, N_FEATURES, HORIZONS, LEVELS).eval()
    model.seat([-1] * 3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def some_input(n_windows=2, n_symbols=3, length=30):
    torch.manual_seed(1)
    present = torch.rand(n_windows, n_symbols, length) > 0.1
    return torch.randn(n_windows, n_symbols, length, N_FEATURES), present


@pytest.mark.parametrize(("kind", "fields"), VARIANTS)
def test_outputs_up_to_day_t_are_equal_to_the_bit_when_later_inputs_change(kind, fields):
    model, (x, present) = make_model(kind, **fields), some_input()
    for day in (0, 5, 17, 28):
        changed, gone = x.clone(), present.clone()
        changed[:, :, day + 1 :] *= -30.0
        gone[:, :, day + 1 :] = torch.rand_like(gone[:, :, day + 1 :].float()) > 0.5
        with torch.inference_mode():
            for before, after in zip(model(x, present), model(changed, gone), strict=True):
                assert torch.equal(before[:, :, : day + 1], after[:, :, : day + 1])
                assert not torch.equal(before[:, :, day + 1 :], after[:, :, day + 1 :])


@pytest.mark.parametrize(("kind", "fields"), VARIANTS)
def test_a_forecast_is_the_same_wherever_the_bars_begin_and_end(kind, fields, monkeypatch):
    """Wherever they begin, if they hold the receptive field; and however many windows are read at once."""
    model, (x, present) = make_model(kind, **fields), some_input()
    reach = model.receptive_field
    with torch.inference_mode():
        whole = model(x, present)[0]
        for today in (0, 11, 20):
            ends_today = model(x[:, :, : today + 1], present[:, :, : today + 1])[0][:, :, today]
            torch.testing.assert_close(ends_today, whole[:, :, today], rtol=2e-6, atol=1e-6)
        for today in range(reach - 1, 30, 7):
            rows = slice(today - reach + 1, today + 1)
            torch.testing.assert_close(
                model(x[:, :, rows], present[:, :, rows])[0][:, :, -1], whole[:, :, today], rtol=2e-6, atol=1e-6
            )
        monkeypatch.setattr(windowed, "BARS_AT_ONCE", 200)  # five windows of six bars and six symbols
        torch.testing.assert_close(model(x, present)[0], whole, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(("kind", "fields"), VARIANTS)
def test_an_absent_bar_does_not_reach_the_forecasts_of_later_bars(kind, fields):
    model, (x, present) = make_model(kind, **fields), some_input()
    present[:, :, 20] = False
    changed = x.clone()
    changed[:, :, 20] = 50.0
    with torch.inference_mode():
        for before, after in zip(model(x, present), model(changed, present), strict=True):
            assert torch.equal(before[:, :, 21:], after[:, :, 21:])


@pytest.mark.parametrize("kind", WINDOWED)
def test_bars_that_are_absent_are_what_comes_before_the_first_bar(kind):
    """Whatever their symbol's vector and the bias of an embedding would make of them."""
    embedding = {} if kind == "linear" else {"symbol_embedding": True}
    model, (x, present), symbol = make_model(kind, **embedding), some_input(), torch.tensor([[0, 1, 2], [2, 0, 1]])
    present[:, :, :9] = False
    with torch.inference_mode():
        whole, later = model(x, present, symbol)[0], model(x[:, :, 9:], present[:, :, 9:], symbol)[0]
    torch.testing.assert_close(whole[:, :, 9:], later, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(("kind", "fields"), VARIANTS)
def test_quantiles_never_cross_and_an_untrained_model_forecasts_about_a_standard_normal(kind, fields):
    quantiles, head = make_model(kind, **fields)(*some_input())
    assert (quantiles.diff(dim=-1) >= 0).all() and (head.abs() <= 1).all()
    torch.manual_seed(0)
    config = ModelConfig(kind=kind, **{**SHAPES[kind], **fields})
    quantiles, _ = KINDS[kind](config, N_FEATURES, HORIZONS, LEVELS).eval()(*some_input())
    assert (quantiles - torch.tensor([-1.2816, 0.0, 1.2816])).abs().max() < 1.0


@pytest.mark.parametrize("universe", [0, 7])
@pytest.mark.parametrize(("kind", "fields"), VARIANTS)
def test_weights_are_counted_as_torch_counts_them(kind, fields, universe):
    for more in ({}, {"symbol_embedding": True}) if kind in EMBEDDED else ({},):
        model = make_model(kind, **fields, **more)
        model.seat([-1] * universe)
        held = sum(weight.numel() for weight in model.parameters())
        assert held == count_weights(model.config, N_FEATURES, 6, n_symbols=universe)


@pytest.mark.parametrize("kind", EMBEDDED)
def test_a_symbol_counts_by_its_vector_alone(kind):
    model, (x, present) = make_model(kind, symbol_embedding=True), some_input()
    with torch.inference_mode():
        model.symbols.weight.normal_()
        known, turned = torch.tensor([[0, 1, 2], [2, 0, -1]]), torch.tensor([[1, 2, 0], [0, 1, -1]])
        given = model(x, present, known)[0]
        for symbols in (None, torch.full((2, 3), -1), turned):
            assert not torch.equal(model(x, present, symbols)[0][:, :2], given[:, :2])
        assert torch.equal(given[1, 2], model(x, present)[0][1, 2])
        model.seat([2, 0, 1])
        torch.testing.assert_close(model(x, present, turned)[0], given, rtol=0, atol=1e-6)
        model.symbols.weight.zero_()
        assert torch.equal(model(x, present, known)[0], model(x, present)[0])


@pytest.mark.parametrize("kind", NETWORKS)
def test_each_method_of_fine_tuning_moves_its_weights_and_merges_into_a_plain_model(kind):
    x, present = some_input()
    for method in ("full", "head", "lora"):
        model = make_model(kind)
        before = {name: weight.clone() for name, weight in model.state_dict().items()}
        moved = adapt(model, method, 2)
        assert 0 < moved <= sum(weight.numel() for weight in model.parameters())
        optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.1)
        for _ in range(2):  # the second factor of lora has no gradient in the first
            sum(part.square().mean() for part in model(x, present)).backward()
            optimizer.step()
        tuned = model(x, present)[0]
        merge(model)
        torch.testing.assert_close(model(x, present)[0], tuned, rtol=0, atol=1e-5)
        after = model.state_dict()
        assert after.keys() == before.keys()
        changed = {name for name in after if not torch.equal(after[name], before[name])}
        heads = {"quantiles.weight", "quantiles.bias", "position.weight", "position.bias"}
        linear = {name for name in after if name.endswith(".weight") and "norm" not in name and "lstm" not in name}
        assert changed == {"full": after.keys(), "head": heads, "lora": linear}[method]


@pytest.mark.parametrize("kind", EMBEDDED)
def test_dropout_is_drawn_window_by_window(kind):
    model, (x, present) = make_model(kind, dropout=0.5).train(), some_input()
    with noise(model, 1, 2, [0, 1]):
        both = model(x, present)[0]
    with noise(model, 1, 2, [1]):
        second = model(x[1:], present[1:])[0]
    torch.testing.assert_close(second, both[1:], rtol=0, atol=1e-5)
    with noise(model, 1, 3, [0, 1]):
        assert not torch.allclose(model(x, present)[0], both)


def test_linear_is_a_sum_over_the_lags_and_features_of_present_bars():
    model, (x, present) = make_model("linear"), some_input(1, 1, 12)
    quantiles = model(x, present)[0][0, 0].detach().numpy()
    weight_OFC = model.quantiles.weight.detach().numpy().reshape(6, N_FEATURES, 6)
    for today in range(12):
        total_O = model.quantiles.bias.detach().numpy().astype(float)
        for lag in range(min(6, today + 1)):
            if present[0, 0, today - lag]:
                total_O = total_O + weight_OFC[:, :, 5 - lag] @ x[0, 0, today - lag].numpy()
        np.testing.assert_allclose(quantiles[today], np.sort(total_O.reshape(2, 3), axis=1), rtol=1e-4, atol=1e-5)


def test_lstm_begins_anew_for_each_forecast():
    model, (x, _) = make_model("lstm"), some_input(1, 1, 12)
    quantiles = model(x, torch.ones(1, 1, 12, dtype=torch.bool))[0]
    for today in (5, 11):
        states, _ = model.lstm(model.embed(x[0, 0, today - 5 : today + 1])[None])
        alone = model.quantiles(model.norm(states[0, -1])).view(2, 3).sort(dim=-1).values
        torch.testing.assert_close(quantiles[0, 0, today], alone, rtol=0, atol=1e-6)


def test_patchtst_reads_a_window_less_its_mean_over_its_deviation_patch_by_patch():
    x, present = some_input(1, 1, 6)
    present[0, 0] = torch.tensor([False, False, False, True, True, True])
    model = make_model("patchtst", num_layers=1)
    got = model(x, present)[0][0, 0, -1]

    rows = x[0, 0, 3:]
    mean, deviation = rows.mean(dim=0), (rows.var(dim=0, correction=0) + 0.01).sqrt()
    window = torch.zeros(6, N_FEATURES)
    window[3:] = (rows - mean) / deviation
    tokens = [model.scale(torch.stack([mean, deviation], dim=-1).flatten())]
    tokens += [model.patch(window[first : first + 2].T.flatten()) for first in (0, 2, 4)]
    seen = torch.tensor([True, False, True, True])  # the first patch has no bar
    z = (torch.stack(tokens) + model.places)[seen]
    block = model.blocks[0]
    query, key, value = block.qkv(block.attention_norm(z)).chunk(3, dim=-1)
    heads = [slice(0, 8), slice(8, 16)]
    mixed = [(query[:, h] @ key[:, h].T / 8**0.5).softmax(dim=-1) @ value[:, h] for h in heads]
    z = z + block.out(torch.cat(mixed, dim=-1))
    z = z + block.mlp(block.mlp_norm(z))
    flat = torch.zeros(4, 16)
    flat[seen] = model.norm(z)
    expected = model.quantiles(flat.flatten()).view(2, 3).sort(dim=-1).values
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_patchtst_by_channels_reads_each_feature_with_the_same_weights_and_by_itself():
    model, (x, present) = make_model("patchtst", **APART), some_input()
    swapped = torch.tensor([2, 1, 0, 3, 4])
    windows = (part.unfold(2, 6, 1) for part in (x, present))
    plain = model.at_the_end(*windows, None).unflatten(-1, (N_FEATURES, -1))
    windows = (part.unfold(2, 6, 1) for part in (x[..., swapped], present))
    other = model.at_the_end(*windows, None).unflatten(-1, (N_FEATURES, -1))
    torch.testing.assert_close(other, plain[..., swapped, :], rtol=0, atol=1e-5)
    assert F.cosine_similarity(plain[..., 0, :], plain[..., 1, :], dim=-1).max() < 1.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "lstm", "context": 1001}, r"context=1001 must be at most 1,000"),
        ({"kind": "lstm", "num_heads": 2}, r"num_heads=2 belongs to model.kind=transformer or patchtst, not lstm"),
        ({"kind": "mlp", "cross_asset": True}, r"cross_asset=True belongs to model.kind=transformer, not mlp"),
        ({"kind": "linear", "dropout": 0.1}, r"dropout=0.1 belongs to .* lstm or patchtst, not linear: leave it out"),
        ({"kind": "ridge", "context": 5}, r"context=5 belongs to model.kind=.*, lstm or patchtst, not ridge"),
        ({"patch_length": 4}, r"patch_length=4 belongs to model.kind=patchtst, not transformer"),
        ({"kind": "patchtst", "patch_length": 65}, r"patch_length=65 must be at most context=64"),
        ({"kind": "patchtst", "stride": 9}, r"stride=9 must be at most patch_length=8, or bars would be left out"),
        ({"kind": "patchtst", "stride": 7, "context": 32}, r"context=32 is not patch_length=8 plus .* context=29"),
        (
            {"kind": "patchtst", "context": 1000, "stride": 1},
            r"stride=1 gives 993 patches in context=1000, more than 256",
        ),
        ({"kind": "patchtst", "hidden_size": 30}, r"hidden_size=30 does not divide into num_heads=4 heads: .*size=32"),
        ({"kind": "lstm", "hidden_size": 30_000}, r"weights of about 8\.6e\+10 bytes"),
        ({"kind": "mlp", "num_layers": 0}, r"num_layers=0 must be at least 1"),
    ],
)
def test_a_shape_that_cannot_be_is_refused_in_one_line(fields, message):
    with pytest.raises(ValueError, match=message) as caught:
        ModelConfig(**fields)
    assert "\n" not in str(caught.value)


def test_each_field_of_patchtst_makes_another_network():
    shapes = [
        {name: tuple(weight.shape) for name, weight in make_model("patchtst", **fields).state_dict().items()}
        for fields in ({}, {"patch_length": 4}, {"stride": 1}, {"channel_independent": True})
    ]
    assert all(one != other for number, one in enumerate(shapes) for other in shapes[:number])


def test_windowed_kinds_are_the_networks_but_the_transformer():
    assert {kind for kind in NETWORKS if issubclass(KINDS[kind], windowed.Windowed)} == set(WINDOWED)


def test_features_that_are_read_one_by_one_take_as_many_times_smaller_parts(monkeypatch):
    config = ModelConfig(kind="patchtst", hidden_size=8, num_heads=2, context=8, channel_independent=True)
    model, rows = KINDS["patchtst"](config, 5, (1,), (0.1, 0.5, 0.9)), []
    whole = model.at_the_end
    monkeypatch.setattr(model, "at_the_end", lambda x, *others: rows.append(x.shape[2]) or whole(x, *others))
    monkeypatch.setattr(windowed, "BARS_AT_ONCE", 8 * 5 * 3)
    model.predict(np.zeros((7, 1, 5), np.float32), np.ones((7, 1), bool), "cpu")
    assert rows == [3, 3, 1]
