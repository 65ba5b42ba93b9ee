"""Precision and compilation change rounding alone: hftraining/training/precision.py and the trainer."""

import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from hftraining.core.errors import ConfigError
from hftraining.training import precision
from hftraining.training.config import TrainingConfig
from hftraining.training.precision import fastest, settled
from tests.training.test_trainer import make_trainer, run


def trained(folder, **fields):
    """The trainer after 8 steps, its losses, and the batches that it drew."""
    trainer = make_trainer(folder, max_steps=8, log_every=1, **fields)
    batches, draw = [], trainer.sampler.batch

    def noted(seed, step):
        batches.append(draw(seed, step))
        return batches[-1]

    trainer.sampler.batch = noted
    logged = run(trainer)
    return trainer, torch.tensor([logged[step]["train/loss"] for step in sorted(logged)]), batches


def assert_only_rounding_differs(one, other, tolerance):
    """tolerance: of the losses, relative."""
    (trainer, losses, batches), (changed, their_losses, their_batches) = one, other
    assert len(batches) == len(their_batches) == 8
    for ours, theirs in zip(batches, their_batches, strict=True):
        for name, array in vars(ours).items():
            assert array.tobytes() == getattr(theirs, name).tobytes()
    assert not torch.equal(losses, their_losses)
    torch.testing.assert_close(losses, their_losses, rtol=tolerance, atol=0)
    weights, their_weights = trainer.model.state_dict(), changed.model.state_dict()
    assert weights.keys() == their_weights.keys()
    assert not all(torch.equal(weight, their_weights[name]) for name, weight in weights.items())
    for name, weight in weights.items():
        assert their_weights[name].dtype == weight.dtype == torch.float32
        # Adam moves a weight by up to the rate in a step, whatever the size of its gradient.
        torch.testing.assert_close(their_weights[name], weight, rtol=0, atol=8 * 3e-4)


def test_bf16_changes_the_rounding_of_a_training_and_nothing_else(tmp_path):
    one, other = trained(tmp_path / "a"), trained(tmp_path / "b", precision="bf16")
    assert_only_rounding_differs(one, other, tolerance=0.01)
    differ = {name for name, value in asdict(one[0].config).items() if value != getattr(other[0].config, name)}
    assert differ == {"precision"}


def test_in_bf16_the_linear_layers_multiply_bf16_and_the_outputs_are_fp32(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=1, precision="bf16")
    kinds = {}
    for name, module in trainer.model.named_modules():
        module.register_forward_hook(lambda module, given, out, name=name: kinds.setdefault(name, out))
    run(trainer)
    assert kinds["blocks.0.mlp"].dtype == kinds["blocks.0.time.qkv"].dtype == torch.bfloat16
    assert kinds["blocks.0"].dtype == kinds["norm"].dtype == torch.float32
    assert {part.dtype for part in kinds[""]} == {torch.float32}


@pytest.mark.slow
def test_compilation_changes_the_rounding_of_a_training_and_nothing_else(tmp_path):
    one, other = trained(tmp_path / "a"), trained(tmp_path / "b", compile=True)
    assert_only_rounding_differs(one, other, tolerance=1e-4)
    saved = {path.name for path in (tmp_path / "b").rglob("*") if path.is_file()}
    assert saved == {path.name for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert make_trainer(tmp_path / "b", max_steps=8).resume() == 8  # the names in a checkpoint are those of any model


def test_auto_becomes_a_precision_and_other_choices_stay():
    asked = TrainingConfig(precision="auto")
    config = settled(asked)
    assert config == TrainingConfig(precision=fastest("cpu"))
    assert asked.precision == "auto"
    for kept in ("fp32", "bf16"):
        assert settled(TrainingConfig(precision=kept)).precision == kept
    flags = re.search(r"^flags\s*:(.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    if flags is None or not {"avx512_bf16", "amx_bf16"} & set(flags[1].split()):
        assert config.precision == "fp32"


def test_without_instructions_for_bf16_auto_is_fp32_and_bf16_warns(monkeypatch, caplog):
    monkeypatch.setattr(precision, "BF16_UNITS", ("none_of_this_cpu",))
    fastest.cache_clear()
    assert settled(TrainingConfig(precision="auto")).precision == "fp32"
    assert not caplog.text
    assert settled(TrainingConfig(precision="bf16")).precision == "bf16"
    assert "this CPU has no instructions for it" in caplog.text
    fastest.cache_clear()


@pytest.mark.parametrize(
    ("fp32", "bf16", "chosen"), [(4.0, 1.0, "bf16"), (1.0, 4.0, "fp32"), (1.31, 1.0, "bf16"), (1.29, 1.0, "fp32")]
)
def test_bf16_is_chosen_where_its_product_takes_less_time_by_a_clock_that_others_disturb(
    monkeypatch, fp32, bf16, chosen
):
    clock, seconds, multiply = [0.0], {torch.float32: fp32, torch.bfloat16: bf16}, torch.mm
    disturbed = np.random.default_rng(0).permutation(np.r_[np.zeros(12), 50.0 * np.arange(1, 7)]).tolist()

    def product(left, right):
        clock[0] += seconds[left.dtype] + disturbed.pop()
        return multiply(left, right)

    monkeypatch.setattr(torch, "mm", product)
    monkeypatch.setattr(precision.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(precision, "cpu", lambda: {"flags": ["amx_bf16"]})
    fastest.cache_clear()
    assert fastest("cpu") == chosen and not disturbed
    fastest.cache_clear()


def test_compilation_without_a_compiler_is_refused(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"training.compile=true needs a C\+\+ compiler, and no-such-compiler is not"):
        settled(TrainingConfig(compile=True))
    assert settled(TrainingConfig()) == TrainingConfig()
