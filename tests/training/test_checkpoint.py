"""Checkpoints are whole or absent, and restore everything: hftraining/training/checkpoint.py."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from hftraining.core.files import sha256
from hftraining.training.checkpoint import CheckpointError, Checkpoints
from tests.small_model import make_model_and_optimizer, take_steps


def fresh():
    model, optimizer = make_model_and_optimizer()
    return model, [optimizer]


def test_training_resumed_from_a_checkpoint_gives_the_same_bits(tmp_path):
    model, optimizer = make_model_and_optimizer()
    take_steps(model, optimizer, 5)
    Checkpoints(tmp_path).save(5, model, [optimizer], {"best_step": None, "note": "kept"})
    take_steps(model, optimizer, 5)

    other, other_optimizer = make_model_and_optimizer(seed=1)
    state = Checkpoints(tmp_path).restore(other, [other_optimizer])
    take_steps(other, other_optimizer, 5)
    assert (state["step"], state["note"]) == (5, "kept")
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def trained_with_muon(n=3):
    """A matrix stepped on by Muon, its bias by AdamW."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 6)
    optimizers = [torch.optim.AdamW([model.bias], fused=True), torch.optim.Muon([model.weight])]
    for _ in range(n):
        model(torch.randn(5, 4)).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
    return model, optimizers


def test_the_moments_of_both_optimisers_are_kept_each_by_its_weight(tmp_path):
    model, optimizers = trained_with_muon()
    Checkpoints(tmp_path).save(3, model, optimizers, {"best_step": None})
    names = set(load_file(tmp_path / "step_00000003" / "optimizer.safetensors"))
    assert names == {"0.step", "0.exp_avg", "0.exp_avg_sq", "1.momentum_buffer", "random.cpu"}
    other, others = trained_with_muon(1)
    Checkpoints(tmp_path).restore(other, others)
    for ours, theirs in zip(optimizers, others, strict=True):
        kept, found = (o.state_dict()["state"][0] for o in (ours, theirs))
        assert kept.keys() == found.keys() and all(torch.equal(kept[name], found[name]) for name in kept)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"1.momentum_buffer": torch.zeros(6, 5)}, "momentum_buffer"),
        ({"1.momentum_buffer": torch.full((6, 4), torch.nan)}, "holds numbers that are no moments"),
        ({"0.exp_avg_sq": torch.full((6,), -1.0)}, "holds numbers that are no moments"),
        ({"1.exp_avg": torch.zeros(6, 4)}, "exp_avg"),
        ({"2.momentum_buffer": torch.zeros(6, 4)}, "momentum_buffer"),
    ],
)
def test_moments_that_are_not_those_of_the_weights_are_refused_in_one_line(tmp_path, change, said):
    model, optimizers = trained_with_muon()
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, model, optimizers, {"best_step": None})
    folder = checkpoints.path(3)
    save_file(load_file(folder / "optimizer.safetensors") | change, folder / "optimizer.safetensors")
    state = json.loads((folder / "state.json").read_text())
    state["sha256"]["optimizer.safetensors"] = sha256(folder / "optimizer.safetensors")
    (folder / "state.json").write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match=said):
        checkpoints.restore(*trained_with_muon(1))


def test_a_checkpoint_of_adamw_alone_is_not_one_of_a_training_with_muon(tmp_path):
    model, _ = trained_with_muon(1)
    Checkpoints(tmp_path).save(1, model, [torch.optim.AdamW(model.parameters())], {"best_step": None})
    Checkpoints(tmp_path).restore(*trained_with_muon(1))  # before a first step there is nothing to tell them apart
    optimizer = torch.optim.AdamW(model.parameters())
    optimizer.step()
    Checkpoints(tmp_path).save(2, model, [optimizer], {"best_step": None})
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors is not of this run"):
        Checkpoints(tmp_path).restore(*trained_with_muon(1))


def test_without_a_checkpoint_nothing_is_restored(tmp_path):
    assert Checkpoints(tmp_path / "none").restore(*fresh()) is None


def test_the_newest_two_and_the_best_are_kept(tmp_path):
    checkpoints, (model, optimizer) = Checkpoints(tmp_path), make_model_and_optimizer()
    take_steps(model, optimizer, 1)
    for step in (10, 20, 30, 40):
        checkpoints.save(step, model, [optimizer], {"best_step": 10 if step < 40 else 40})
        assert checkpoints.steps() == {10: [10], 20: [10, 20], 30: [10, 20, 30], 40: [30, 40]}[step]


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_truncated_newest_checkpoint_is_named_and_the_one_before_is_used(tmp_path, file, caplog):
    checkpoints, (model, optimizer) = Checkpoints(tmp_path), make_model_and_optimizer()
    for step in (10, 20):
        take_steps(model, optimizer, 1)
        checkpoints.save(step, model, [optimizer], {"best_step": None})
    damaged = tmp_path / "step_00000020" / file
    os.truncate(damaged, damaged.stat().st_size // 2)
    assert checkpoints.restore(*fresh())["step"] == 10
    assert "step_00000020 is damaged" in caplog.text


@pytest.mark.slow
def test_a_kill_while_saving_leaves_whole_checkpoints_only(tmp_path):
    script = """
import sys, torch
from pathlib import Path
from hftraining.training.checkpoint import Checkpoints
from tests.small_model import make_model_and_optimizer, take_steps
model, optimizer = make_model_and_optimizer()
take_steps(model, optimizer, 1)
checkpoints, step = Checkpoints(Path(sys.argv[1])), 0
while True:
    step += 1
    checkpoints.save(step, model, [optimizer], {"best_step": None})
    print(step, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    saved = 0
    while saved < 5:
        saved = int(process.stdout.readline())
    time.sleep(0.013)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for line in process.stdout:
        saved = int(line)
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.newest() >= saved
    assert checkpoints.newest() == checkpoints.steps()[-1]
    assert json.loads((tmp_path / f"step_{saved:08d}" / "state.json").read_text())["step"] == saved


def test_a_checkpoint_that_need_not_outlive_the_machine_is_the_same_without_waiting_for_the_disk(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("hftraining.training.checkpoint.sync", synced.append)
    model, optimizer = make_model_and_optimizer()
    for folder, durable in ((tmp_path / "durable", True), (tmp_path / "quick", False)):
        Checkpoints(folder, durable=durable).save(1, model, [optimizer], {"best_step": None})
    assert synced and not any("quick" in str(path) for path in synced)
    ours, theirs = (sorted(p.name for p in (tmp_path / name).rglob("*")) for name in ("durable", "quick"))
    assert ours == theirs and Checkpoints(tmp_path / "quick").newest() == 1
