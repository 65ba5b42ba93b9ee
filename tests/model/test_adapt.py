"""Which weights a fine-tune trains, and what pulls them back: hftraining/model/adapt.py."""

import copy

import pytest
import torch

from hftraining.model.adapt import LowRank, adapt, merge, pull_back
from hftraining.model.config import ModelConfig
from hftraining.model.transformer import BarTransformer
from hftraining.training.checkpoint import Checkpoints

LEVELS = (0.1, 0.5, 0.9)


def make_model(seed=0):
    torch.manual_seed(seed)
    return BarTransformer(
        ModelConfig(hidden_size=16, num_layers=2, num_heads=2, context=8, dropout=0.0), 5, (1, 5), LEVELS
    )


def forecast(model, seed=1):
    torch.manual_seed(seed)
    with torch.no_grad():
        return model(torch.randn(2, 1, 20, 5), torch.ones(2, 1, 20, dtype=torch.bool))


def step(model, optimizer, seed=2):
    torch.manual_seed(seed)
    quantiles, head = model(torch.randn(4, 1, 20, 5), torch.ones(4, 1, 20, dtype=torch.bool))
    optimizer.zero_grad()
    (quantiles.square().mean() + (head - 1.0).square().mean()).backward()
    optimizer.step()


def trainable(model):
    return [p for p in model.parameters() if p.requires_grad]


@pytest.mark.parametrize("method", ["full", "head", "lora", "scratch"])
def test_a_prepared_model_forecasts_as_before_until_it_is_trained(method):
    model = make_model()
    before = forecast(model)
    adapt(model, method, rank=3)
    assert all(torch.equal(a, b) for a, b in zip(before, forecast(model), strict=True))


def test_every_linear_layer_gets_a_low_rank_change_of_rank_times_the_sum_of_its_widths():
    model = make_model()
    moved = adapt(model, "lora", rank=3)
    layers = [layer for layer in model.modules() if isinstance(layer, LowRank)]
    assert len(layers) == 1 + 2 * 4 + 2  # embed, (qkv, out and two of the mlp) a block, quantiles and position
    widths = [(layer.linear.in_features, layer.linear.out_features) for layer in layers]
    assert moved == sum(min(3, *pair) * sum(pair) for pair in widths)


@pytest.mark.parametrize("rank", [1, 3, 64])
def test_merging_makes_a_plain_model_with_the_same_forecasts(rank):
    model = make_model()
    names = set(model.state_dict())
    adapt(model, "lora", rank)
    optimizer = torch.optim.AdamW(trainable(model), lr=0.01)
    for number in range(5):
        step(model, optimizer, number)
    trained = forecast(model)
    merge(model)
    assert set(model.state_dict()) == names and all(p.requires_grad for p in model.parameters())
    for ours, theirs in zip(forecast(model), trained, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    assert not torch.equal(trained[0], forecast(make_model())[0])


def test_each_step_pulls_weights_back_by_shrinkage_times_the_learning_rate():
    plain, pulled = make_model(), make_model()
    start = copy.deepcopy(plain.state_dict())
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in (plain, pulled)]
    pull_back(optimizers[1], shrinkage=3.0)
    for model, optimizer in zip((plain, pulled), optimizers, strict=True):
        step(model, optimizer)
    for name, after in pulled.state_dict().items():
        expected = plain.state_dict()[name] + 0.1 * 3.0 * (start[name] - plain.state_dict()[name])
        torch.testing.assert_close(after, expected, atol=1e-7, rtol=1e-6)


def test_a_resumed_fine_tune_is_pulled_back_to_the_base_and_not_to_its_checkpoint(tmp_path):
    def begin():
        model = make_model()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        pull_back(optimizer, shrinkage=20.0)
        return model, optimizer

    whole, optimizer = begin()
    for number in range(6):
        step(whole, optimizer, number)
        if number == 2:
            Checkpoints(tmp_path).save(3, whole, [optimizer], {"best_step": None})
    restored, optimizer = begin()
    Checkpoints(tmp_path).restore(restored, [optimizer])
    for number in range(3, 6):
        step(restored, optimizer, number)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), restored.parameters(), strict=True))


def test_without_shrinkage_the_optimizer_gets_no_hook():
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pull_back(optimizer, shrinkage=0.0)
    assert not optimizer._optimizer_step_post_hooks
