"""The step loop and its schedule: hftraining/training/."""

import itertools
import math

import numpy as np
import pytest
import torch

from hftraining.core.errors import Diverged
from hftraining.market.features import FEATURES, Scaler, make_features
from hftraining.market.labels import make_labels
from hftraining.market.windows import WindowSampler
from hftraining.model.config import ModelConfig, ObjectiveConfig
from hftraining.model.objective import Objective
from hftraining.model.transformer import BarTransformer
from hftraining.trading.config import TradingRules
from hftraining.training.checkpoint import CheckpointError, Checkpoints
from hftraining.training.config import TrainingConfig
from hftraining.training.optimizer import learning_rate, make_optimizer
from hftraining.training.trainer import Trainer
from tests.bars_of import make_bars

LEVELS = (0.1, 0.5, 0.9)


def make_trainer(folder, probe=None, seed=1, bars=None, sampler=None, **fields):
    bars = bars or make_bars(n_sessions=250)
    features = make_features(bars)
    labels = make_labels(bars, features.volatility_TS, [1, 5], 1, "open", "none")
    scaled = Scaler.fit(features, slice(0, 200)).scale(features.values_TSF)
    config = TrainingConfig(
        **{"max_steps": 20, "batch_size": 4, "symbols_per_window": 2, "window": 24, "warmup_steps": 5} | fields
    )
    sampler = sampler or WindowSampler(bars, scaled, features.known_TS, labels, slice(0, 200), config.window, 4, 2)
    torch.manual_seed(seed)
    model = BarTransformer(
        ModelConfig(hidden_size=16, num_layers=1, num_heads=2, context=8), len(FEATURES), (1, 5), LEVELS
    )
    objective = Objective(ObjectiveConfig(horizons=[1, 5], quantiles=list(LEVELS)), TradingRules())
    probe = probe or (lambda step: {"eval/loss": 1.0 / step})
    return Trainer(model, objective, sampler, config, seed, probe, 5, Checkpoints(folder))


def run(trainer):
    logged = {}
    trainer.train(lambda step, values: logged.__setitem__(step, values), lambda step, values: None)
    return logged


def test_the_loss_of_the_training_windows_goes_down(tmp_path):
    logged = run(make_trainer(tmp_path, max_steps=150, log_every=1, learning_rate=3e-3))
    losses = [logged[step]["train/forecast_loss"] for step in sorted(logged)]
    assert np.mean(losses[-20:]) < np.mean(losses[:20])


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path):
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        trainer = make_trainer(tmp_path / name, seed=seed)
        run(trainer)
        weights.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_step_with_a_non_finite_loss_is_skipped_and_counted(tmp_path, caplog):
    trainer = make_trainer(tmp_path, max_steps=3, log_every=1)
    draw = trainer.sampler.batch

    def poisoned(seed, step):
        batch = draw(seed, step)
        if step == 2:
            batch.x_WKLF[:] = np.nan
        return batch

    trainer.sampler.batch = poisoned
    seen = {}
    trainer.train(
        lambda *_: None, lambda step, _: seen.__setitem__(step, [p.clone() for p in trainer.model.parameters()])
    )
    assert all(torch.equal(a, b) for a, b in zip(seen[1], seen[2], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(seen[2], seen[3], strict=True))
    assert trainer.progress.skipped_steps == 1
    assert "step 2 skipped: the loss is not finite" in caplog.text


def test_ten_skipped_steps_in_a_row_stop_training(tmp_path):
    trainer = make_trainer(tmp_path)
    with torch.no_grad():
        trainer.model.embed.weight.fill_(math.nan)
    with pytest.raises(Diverged, match="training stopped at step 10"):
        run(trainer)


def test_the_model_of_the_best_probe_by_the_chosen_metric_is_kept(tmp_path):
    values = {5: (3.0, 0.1), 10: (1.0, 0.4), 15: (2.0, 0.9), 20: (2.5, math.nan)}
    kept = {}
    for metric in ("eval/loss", "profit/sharpe_ratio"):
        weights = {}

        def probe(step, weights=weights):
            weights[step] = trainer.model.embed.weight.clone()  # noqa: B023
            return {"eval/loss": values[step][0], "profit/sharpe_ratio": values[step][1]}

        trainer = make_trainer(tmp_path / metric.replace("/", "_"), probe=probe, best_metric=metric)
        run(trainer)
        trainer.load_best()
        kept[metric] = trainer.progress.best_step
        assert torch.equal(trainer.model.embed.weight, weights[trainer.progress.best_step])
    assert kept == {"eval/loss": 10, "profit/sharpe_ratio": 15}


def test_patience_ends_training_after_so_many_probes_without_a_better_one(tmp_path):
    losses = {5: 3.0, 10: 1.0, 15: 2.0, 20: 0.5, 25: 0.7, 30: math.nan, 35: 0.4}
    ended = {}
    for patience in (0, 1, 2, 3):
        trainer = make_trainer(
            tmp_path / str(patience), probe=lambda step: {"eval/loss": losses[step]}, max_steps=35, patience=patience
        )
        run(trainer)
        ended[patience] = (trainer.progress.step, trainer.progress.best_step)
    assert ended == {0: (35, 35), 1: (15, 10), 2: (30, 20), 3: (35, 35)}


def test_a_training_that_patience_ended_has_the_best_weights_of_the_longer_one_and_does_not_resume(tmp_path):
    def probe(step):
        return {"eval/loss": float(step)}

    steps, weights = [], []
    for patience in (0, 2):
        trainer = make_trainer(tmp_path / str(patience), probe=probe, patience=patience, checkpoint_every=100)
        run(trainer)
        trainer.load_best()
        steps.append(trainer.progress.step)
        weights.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert steps == [20, 15] and torch.equal(*weights)
    again = make_trainer(tmp_path / "2", probe=probe, patience=2, checkpoint_every=100)
    assert again.resume() == 15
    assert run(again) == {} and again.progress.step == 15


def test_the_learning_rate_warms_up_and_decays_to_a_tenth():
    config = TrainingConfig(learning_rate=1.0, warmup_steps=10, max_steps=110)
    rates = [learning_rate(step, config) for step in range(1, 111)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert rates[59] == pytest.approx(0.55)
    assert rates[-1] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(rates[9:]))


def test_matrices_decay_and_biases_and_norms_do_not(tmp_path):
    trainer = make_trainer(tmp_path)
    groups = make_optimizer(trainer.model, TrainingConfig(weight_decay=0.3)).param_groups
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert all(p.ndim >= 2 for p in groups[0]["params"]) and all(p.ndim < 2 for p in groups[1]["params"])
    assert sum(len(group["params"]) for group in groups) == len(list(trainer.model.parameters()))


def test_bf16_changes_the_numbers_a_little_and_still_learns(tmp_path):
    losses = {}
    for precision in ("fp32", "bf16"):
        logged = run(make_trainer(tmp_path / precision, precision=precision, max_steps=60, log_every=1))
        losses[precision] = [logged[step]["train/forecast_loss"] for step in sorted(logged)]
    assert losses["fp32"] != losses["bf16"]
    np.testing.assert_allclose(losses["bf16"], losses["fp32"], rtol=0.05)


def weights_of(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def test_the_averaged_weights_are_those_of_a_naive_loop_and_probes_and_the_saved_model_use_them(tmp_path):
    raw, probed = {}, {}

    def probe(step):
        probed[step] = weights_of(trainer)
        return {"eval/loss": 1.0 / step}

    trainer = make_trainer(tmp_path, probe=probe, ema=0.8, learning_rate=3e-3)
    average = weights_of(trainer).double()
    trainer.train(lambda *_: None, lambda step, _: raw.__setitem__(step, weights_of(trainer)))
    for step in range(1, 21):
        decay = min(0.8, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * raw[step].double()
        if step in probed:
            torch.testing.assert_close(probed[step].double(), average, rtol=1e-5, atol=1e-6)
            assert not torch.equal(probed[step], raw[step])
    trainer.load_best()
    assert torch.equal(weights_of(trainer), probed[20])


def test_training_goes_on_with_the_raw_weights_whether_or_not_they_are_averaged(tmp_path):
    raw = {}
    for ema in (0.0, 0.9):
        trainer = make_trainer(tmp_path / str(ema), ema=ema)
        run(trainer)
        raw[ema] = weights_of(trainer)
        names = {path.name for path in (tmp_path / str(ema) / "step_00000020").iterdir()}
        assert ("average.safetensors" in names) == bool(ema)
    assert torch.equal(raw[0.0], raw[0.9])


def test_an_averaged_training_that_was_broken_off_goes_on_to_the_same_bits(tmp_path):
    def ended(trainer):
        run(trainer)
        return weights_of(trainer), torch.cat([value.flatten() for value in trainer.average.weights.values()])

    class Killed(Exception):
        pass

    def killed_at_13(step, values):
        if step == 13:
            raise Killed

    settings = {"ema": 0.9, "checkpoint_every": 4, "learning_rate": 3e-3}
    whole = ended(make_trainer(tmp_path / "whole", **settings))
    with pytest.raises(Killed):
        make_trainer(tmp_path / "broken", **settings).train(lambda *_: None, killed_at_13)
    again = make_trainer(tmp_path / "broken", **settings)
    assert again.resume() == 12
    for ours, theirs in zip(ended(again), whole, strict=True):
        assert torch.equal(ours, theirs)


def test_a_checkpoint_without_an_average_is_not_one_of_an_averaged_training(tmp_path):
    run(make_trainer(tmp_path))
    with pytest.raises(CheckpointError, match=r"average\.safetensors is not of this run"):
        make_trainer(tmp_path, ema=0.9).resume()


def test_a_skipped_step_leaves_the_average_as_it_was(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=3, ema=0.5)
    draw = trainer.sampler.batch

    def poisoned(seed, step):
        batch = draw(seed, step)
        if step == 2:
            batch.x_WKLF[:] = np.nan
        return batch

    trainer.sampler.batch = poisoned
    seen = {}
    trainer.train(
        lambda *_: None, lambda step, _: seen.__setitem__(step, trainer.average.weights["embed.weight"].clone())
    )
    assert torch.equal(seen[1], seen[2]) and not torch.equal(seen[2], seen[3])


@pytest.mark.parametrize("ema", [1.0, -0.1, math.nan])
def test_a_decay_that_never_takes_anything_in_is_refused(ema):
    with pytest.raises(ValueError, match=r"training\.ema=.* must lie in \[0, 1\)"):
        TrainingConfig(ema=ema)


def test_weights_that_do_not_move_are_their_own_average_to_the_bit_and_the_model_gets_its_own_back(tmp_path):
    trainer = make_trainer(tmp_path, ema=0.9, learning_rate=3e-3)
    frozen = trainer.model.embed.weight.requires_grad_(False).clone()
    run(trainer)
    raw = weights_of(trainer)
    assert torch.equal(trainer.average.weights["embed.weight"], frozen)
    with pytest.raises(KeyError), trainer.average.in_place():
        assert not torch.equal(weights_of(trainer), raw)
        raise KeyError
    assert torch.equal(weights_of(trainer), raw)
