"""The step loop and its schedule: hftraining/training/."""

import itertools
import math

import numpy as np
import pytest
import torch

from hftraining.core.errors import Diverged
from hftraining.core.metrics import BEST_TAGS, higher_is_better
from hftraining.market.features.names import BASIC
from hftraining.market.features.scaler import Scaler
from hftraining.market.features.table import make_features
from hftraining.market.labels import make_labels
from hftraining.market.windows import WindowSampler
from hftraining.model.base import KINDS
from hftraining.model.config import ModelConfig, ObjectiveConfig
from hftraining.model.objective import Objective
from hftraining.model.transformer import BarTransformer
from hftraining.trading.config import TradingRules
from hftraining.training.checkpoint import CheckpointError, Checkpoints
from hftraining.training.config import TrainingConfig
from hftraining.training.optimizer import hidden_matrices, learning_rate, make_optimizers
from hftraining.training.trainer import Trainer
from hftraining.training.unasked import UnaskedSteps
from tests.bars_of import make_bars
from tests.slowly import mostly_slow

LEVELS = (0.1, 0.5, 0.9)


def make_trainer(folder, probe=None, seed=1, bars=None, sampler=None, dropout=0.2, **fields):
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
        ModelConfig(hidden_size=16, num_layers=1, num_heads=2, context=8, dropout=dropout),
        len(BASIC),
        (1, 5),
        LEVELS,
    )
    objective = Objective(ObjectiveConfig(horizons=[1, 5], quantiles=list(LEVELS)), TradingRules())
    probe = probe or (lambda step: {"eval/loss": 1.0 / step})
    return Trainer(model, objective, sampler, config, seed, probe, 5, Checkpoints(folder))


def run(trainer):
    logged = {}
    trainer.train(lambda step, values: logged.__setitem__(step, dict(values)), lambda step, values: None)
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


@pytest.mark.slow
def test_the_model_of_the_best_probe_by_the_chosen_metric_is_kept(tmp_path):
    """Each probe gives every metric; the best step is the one where this metric was best, whatever the others were."""
    best_at = {tag: 5 * (1 + n % 3) for n, tag in enumerate(BEST_TAGS)}
    kept = {}
    for metric in BEST_TAGS:
        weights = {}

        def probe(step, weights=weights):
            weights[step] = trainer.model.embed.weight.clone()  # noqa: B023
            worse = abs(step - best_at[metric]) if step < 20 else math.nan  # noqa: B023
            others = dict.fromkeys(BEST_TAGS, 1.0 / step) | {"profit/trade_count": float(step)}
            return others | {metric: -worse if higher_is_better(metric) else worse}  # noqa: B023

        trainer = make_trainer(tmp_path / metric.replace("/", "_"), probe=probe, best_metric=metric)
        run(trainer)
        trainer.load_best()
        kept[metric] = trainer.progress.best_step
        assert torch.equal(trainer.model.embed.weight, weights[trainer.progress.best_step])
    assert kept == best_at


def test_where_no_probe_had_the_chosen_metric_the_last_weights_are_kept_and_it_is_said(tmp_path, caplog):
    """A book without closed trades has no win rate."""
    trainer = make_trainer(
        tmp_path, probe=lambda step: {"eval/loss": 1.0 / step}, best_metric="profit/win_rate", patience=1
    )
    run(trainer)
    last = weights_of(trainer)
    trainer.load_best()
    assert trainer.progress.best_step is None and torch.equal(weights_of(trainer), last)
    assert "training.best_metric=profit/win_rate was not finite in any probe: the last weights are kept" in caplog.text


def test_a_metric_that_is_no_probed_one_with_a_better_direction_is_refused():
    for tag in ("profit/luck", "profit/trade_count", "profit/loss_correlation", "profit/costs"):
        with pytest.raises(ValueError, match=f"training.best_metric={tag} is not one of eval/loss, eval/profit_loss"):
            TrainingConfig(best_metric=tag)
    with pytest.raises(ValueError, match=r"did you mean profit/sharpe_ratio\?"):
        TrainingConfig(best_metric="profit/sharp_ratio")


def test_numbers_are_fetched_from_the_device_on_logged_steps_alone(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, log_every=4, checkpoint_every=7, accumulate=2)
    fetched, step_of = [], trainer.sampler.batch
    monkeypatch.setattr(trainer.sampler, "batch", lambda seed, step: fetched.append(step) or step_of(seed, step))
    item = torch.Tensor.item
    monkeypatch.setattr(torch.Tensor, "item", lambda tensor: fetched.append("item") or item(tensor))
    run(trainer)
    steps, last = set(), 0
    for event in fetched:
        last = last if event == "item" else event
        steps |= {last} if event == "item" else set()
    assert steps == {4, 5, 8, 10, 12, 15, 16, 20}  # log_every=4, and a probe every fifth


@pytest.mark.slow
def test_the_values_of_a_step_that_was_not_logged_can_still_be_read(tmp_path):
    seen = {}
    make_trainer(tmp_path, log_every=20).train(lambda *_: None, lambda step, values: seen.__setitem__(step, values))
    logged = run(make_trainer(tmp_path / "logged", log_every=1))
    assert {step: dict(values) for step, values in seen.items()} == {step: dict(v) for step, v in logged.items()}


@pytest.mark.slow
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


def test_a_constant_rate_stays_at_the_peak_and_wsd_falls_in_a_line_over_the_last_share():
    shape = {"learning_rate": 1.0, "warmup_steps": 10, "max_steps": 110}
    rates = {
        name: [learning_rate(step, TrainingConfig(**shape, schedule=name, **more)) for step in range(1, 111)]
        for name, more in (("cosine", {}), ("constant", {}), ("wsd", {"decay_share": 0.5}))
    }
    assert rates["cosine"][:10] == rates["constant"][:10] == rates["wsd"][:10]
    assert set(rates["constant"][9:]) == {1.0}
    assert set(rates["wsd"][9:55]) == {1.0}
    assert rates["wsd"][55:] == pytest.approx(np.linspace(1.0, 0.1, 56)[1:])
    assert rates["wsd"][-1] == pytest.approx(rates["cosine"][-1]) == pytest.approx(0.1)


def test_a_decay_longer_than_what_the_warm_up_leaves_begins_after_it():
    config = TrainingConfig(learning_rate=1.0, warmup_steps=80, max_steps=100, schedule="wsd", decay_share=0.9)
    assert [learning_rate(step, config) for step in (80, 90, 100)] == pytest.approx([1.0, 0.55, 0.1])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"optimizer": "mion"}, "training.optimizer=mion is not one of adamw, muon; did you mean muon?"),
        ({"schedule": "cosin"}, "is not one of cosine, constant, wsd; did you mean cosine?"),
        ({"decay_share": 0.3}, "training.decay_share=0.3 belongs to training.schedule=wsd, not cosine: leave it out"),
        ({"schedule": "wsd", "decay_share": 0.0}, r"training.decay_share=0.0 must lie in \(0, 1\]"),
        ({"accumulate": 0}, "training.accumulate=0 must be at least 1"),
    ],
)
def test_an_optimiser_schedule_or_division_that_there_is_not_is_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        TrainingConfig(**fields)


def test_matrices_decay_and_biases_and_norms_do_not(tmp_path):
    trainer = make_trainer(tmp_path)
    (optimizer,) = make_optimizers(trainer.model, TrainingConfig(weight_decay=0.3))
    groups = optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert all(p.ndim >= 2 for p in groups[0]["params"]) and all(p.ndim < 2 for p in groups[1]["params"])
    assert sum(len(group["params"]) for group in groups) == len(list(trainer.model.parameters()))


def test_muon_steps_on_the_hidden_matrices_alone_and_adamw_on_all_the_rest(tmp_path):
    trainer = make_trainer(tmp_path, optimizer="muon")
    adamw, muon = trainer.optimizers
    assert (type(adamw), type(muon)) == (torch.optim.AdamW, torch.optim.Muon)
    names = {id(weight): name for name, weight in trainer.model.named_parameters()}
    on = [{names[id(p)] for group in o.param_groups for p in group["params"]} for o in trainer.optimizers]
    layers = ("time.qkv", "time.out", "mlp.0", "mlp.2")
    assert on[1] == {f"blocks.0.{layer}.weight" for layer in layers}
    assert on[0] | on[1] == set(names.values()) and not on[0] & on[1]


@pytest.mark.parametrize(
    ("kind", "first"),
    [
        ("mlp", {"layers.0.weight"}),
        ("lstm", {"embed.weight"}),
        ("patchtst", {"places", "patch.weight", "scale.weight"}),
    ],
)
def test_what_meets_the_features_first_and_what_gives_the_forecasts_is_no_hidden_matrix(kind, first):
    model = KINDS[kind](ModelConfig(kind=kind, hidden_size=16), len(BASIC), (1, 5), LEVELS)
    hidden = {id(p) for p in hidden_matrices(model)}
    outer = {name for name, p in model.named_parameters() if p.ndim == 2 and id(p) not in hidden}
    assert hidden and outer == first | {"quantiles.weight", "position.weight"}


def test_a_step_of_muon_is_nearly_an_orthogonal_matrix_of_the_size_of_an_adamw_step(tmp_path):
    trainer = make_trainer(
        tmp_path, optimizer="muon", weight_decay=0.0, warmup_steps=0, learning_rate=0.01, max_steps=1
    )
    weight = trainer.model.blocks[0].time.out.weight
    before = weight.detach().clone()
    run(trainer)
    moved = (before - weight.detach()) / learning_rate(1, trainer.config)
    singular = torch.linalg.svdvals(moved) / (0.2 * 16**0.5)  # the scale of Liu et al. (2025) for 16 x 16
    # Five iterations of Newton and Schulz bring all but the smallest as near to one.
    assert singular.max() < 1.4 and singular[7] > 0.6


@pytest.mark.parametrize("change", mostly_slow(["accumulate", "ema", "optimizer", "schedule"], quick=(0,)))
def test_each_choice_changes_what_it_should_and_nothing_else(tmp_path, change):
    """Raw weights after the first steps: of the same batches, masks and rates unless the choice says otherwise."""
    choice = {"accumulate": 2, "ema": 0.9, "optimizer": "muon", "schedule": "constant"}[change]
    found = []
    for name, fields in (("without", {}), ("with", {change: choice})):
        trainer = make_trainer(tmp_path / name, log_every=1, dropout=0.1, **fields)
        logged = run(trainer)
        found.append((logged, {name: p.detach().clone() for name, p in trainer.model.named_parameters()}))
    (plain, weights), (logged, changed) = found
    rates = [[values["train/learning_rate"] for values in log.values()] for log in (plain, logged)]
    same = {name for name in weights if torch.equal(weights[name], changed[name])}
    assert plain.keys() == logged.keys() and plain[1].keys() == logged[1].keys()
    assert plain[1]["train/loss"] == pytest.approx(logged[1]["train/loss"], rel=1e-6)
    assert (rates[0] != rates[1]) == (change == "schedule") and rates[0][:5] == rates[1][:5]
    if change == "ema":
        assert same == set(weights)
    elif change == "accumulate":
        for name, weight in weights.items():
            torch.testing.assert_close(changed[name], weight, rtol=1e-3, atol=2e-5)
    else:
        assert len(same) < len(weights) / 2
        assert plain[1]["train/grad_norm"] == logged[1]["train/grad_norm"]
    if change == "schedule":  # the same first six steps: five of warm-up and the first after it starts both falls
        assert [plain[s]["train/loss"] for s in range(1, 7)] == [logged[s]["train/loss"] for s in range(1, 7)]


@pytest.mark.slow
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


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("bad", mostly_slow([{1, 2, 9}, {4}, set()], quick=(0,)))
def test_a_device_that_is_not_asked_skips_the_same_steps_as_a_cpu_that_looks(tmp_path, bad, optimizer, caplog):
    """The same trainer on this machine, once as if it had to wait for a device."""
    ended, skipped = [], []
    for asks in (True, False):
        trainer = make_trainer(
            tmp_path / str(asks), log_every=5, ema=0.8, learning_rate=3e-3, optimizer=optimizer, checkpoint_every=5
        )
        draw = trainer.sampler.batch

        def poisoned(seed, step, draw=draw):
            batch = draw(seed, step)
            batch.x_WKLF[:] = np.nan if step in bad else batch.x_WKLF
            return batch

        trainer.sampler.batch = poisoned
        if not asks:
            trainer.unasked = UnaskedSteps(trainer.optimizers, trainer.average, 0, 0)
        run(trainer)
        ended.append(trainer)
        skipped.append((trainer.progress.skipped_steps, trainer.progress.skipped_in_a_row))
    looked, unasked = ended
    assert skipped == [(len(bad), 0)] * 2
    assert torch.equal(weights_of(looked), weights_of(unasked))
    for name, average in looked.average.weights.items():
        torch.testing.assert_close(unasked.average.weights[name], average, rtol=1e-6, atol=1e-7)
    assert ("steps skipped, since they were not finite" in caplog.text) == bool(bad)


def test_a_device_that_is_not_asked_stops_a_training_that_has_diverged_when_it_is_next_logged(tmp_path):
    trainer = make_trainer(tmp_path, log_every=4)
    trainer.unasked = UnaskedSteps(trainer.optimizers, None, 0, 0)
    with torch.no_grad():
        trainer.model.embed.weight.fill_(math.nan)
    with pytest.raises(Diverged, match="training stopped at step 10: 10 steps in a row were not finite; try a lower"):
        run(trainer)
