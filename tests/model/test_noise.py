"""Dropout as a function of (seed, step, window, site): hftraining/model/noise.py."""

import numpy as np
import pytest
import torch

from hftraining.model.config import ModelConfig
from hftraining.model.noise import Dropout, noise, random_words
from hftraining.model.transformer import BarTransformer


class TwoSites(torch.nn.Module):
    def __init__(self, p=0.25):
        super().__init__()
        self.first, self.second = Dropout(p), Dropout(p)

    def forward(self, x):
        return self.first(x), self.second(x)


def masks(windows, seed=1, step=1, p=0.25, shape=(3, 10, 8)):
    model = TwoSites(p)
    with noise(model, seed, step, windows):
        return torch.stack(model(torch.ones(len(windows), *shape)))


def make_transformer():
    torch.manual_seed(0)
    config = ModelConfig(hidden_size=16, num_layers=2, num_heads=2, context=8, dropout=0.3, cross_asset=True)
    return BarTransformer(config, 5, (1, 5), (0.1, 0.5, 0.9))


def test_random_words_are_those_of_splitmix64():
    # The first four of the seed 1234567, as published with the algorithm's reference implementations.
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    words = random_words(torch.tensor([1234567]), 5)[0]
    assert words.numpy().view(np.uint64).tolist() == published


def test_a_window_draws_the_same_whichever_windows_are_beside_it():
    whole = masks(range(6))
    for parts in ([[0, 1, 2], [3, 4, 5]], [[0], [1, 2, 3, 4], [5]]):
        assert torch.equal(torch.cat([masks(part) for part in parts], dim=1), whole)
    assert torch.equal(masks([4, 1]), whole[:, [4, 1]])


def test_seed_step_window_and_site_each_change_the_mask():
    drawn = [masks([0])[0], masks([0])[1], masks([1])[0], masks([0], step=2)[0], masks([0], seed=2)[0]]
    drawn += [masks([1], step=0)[0], masks([2], seed=0, step=0)[0], masks([0], seed=1 << 70)[0]]
    for i, one in enumerate(drawn):
        for other in drawn[:i]:
            agree = (one == other).float().mean().item()
            assert agree == pytest.approx(0.25**2 + 0.75**2, abs=0.15)


@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.9])
def test_the_stated_share_is_dropped_and_the_rest_keeps_the_sum(p):
    drawn = masks(range(4), p=p, shape=(50_000,))
    n = drawn.numel()
    assert (drawn == 0).float().mean().item() == pytest.approx(p, abs=5 * np.sqrt(p * (1 - p) / n) + 1 / 65_536)
    assert drawn[drawn > 0].unique().item() == pytest.approx(1 / (1 - p), rel=1e-3)


@pytest.mark.parametrize(("p", "lanes"), [(1.6 / 65_536, 2), (0.3, 19_661), (1 - 1e-7, 65_535)])
def test_what_is_kept_is_scaled_by_the_share_that_p_is_rounded_to(p, lanes):
    kept = masks(range(8), p=p, shape=(100, 500))
    assert kept.unique().tolist() == [0.0, np.float32(65_536 / (65_536 - lanes))]


def test_neighbours_lanes_windows_and_steps_drop_independently():
    first, second = (masks(range(8), step=step, shape=(40_000,))[0] for step in (1, 2))
    pairs = [(first[:, :-lag], first[:, lag:]) for lag in (1, 2, 3, 4, 8, 128)]
    pairs += [(first[:-1], first[1:]), (first, second)]
    for one, other in pairs:
        correlation = np.corrcoef(one.flatten(), other.flatten())[0, 1]
        assert abs(correlation) < 5 / np.sqrt(one.numel())


def test_torchs_random_state_neither_matters_nor_moves():
    torch.manual_seed(0)
    before, drawn = torch.get_rng_state(), masks([0, 1])
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(1)
    assert torch.equal(masks([0, 1]), drawn)


def test_training_without_noise_is_refused_and_forecasts_need_none():
    model = make_transformer()
    x, present = torch.randn(2, 3, 20, 5), torch.ones(2, 3, 20, dtype=torch.bool)
    with pytest.raises(RuntimeError, match="needs its masks"):
        model.train()(x, present)
    with noise(model, 1, 1, range(2)):
        noisy = model(x, present)[0]
        assert torch.equal(model(x, present)[0], noisy)
    with pytest.raises(RuntimeError, match="needs its masks"):
        model(x, present)
    assert torch.equal(model.eval()(x, present)[0], model(x, present)[0])
    assert not torch.equal(model(x, present)[0], noisy)


def test_other_windows_than_the_model_is_given_are_refused():
    model = make_transformer().train()
    with noise(model, 1, 1, range(3)), pytest.raises(ValueError, match="3 windows have noise"):
        model(torch.randn(2, 3, 20, 5), torch.ones(2, 3, 20, dtype=torch.bool))


def test_a_transformer_trains_alike_on_all_windows_and_on_parts_of_them():
    model = make_transformer().train()
    x, present = torch.randn(4, 3, 20, 5), torch.rand(4, 3, 20) > 0.1
    with noise(model, 1, 7, range(4)):
        whole = model(x, present)[0]
    parts = []
    for windows in ([0], [1, 2, 3]):
        with noise(model, 1, 7, windows):
            parts.append(model(x[windows], present[windows])[0])
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-5)
