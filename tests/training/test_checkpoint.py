"""Checkpoints are whole or absent, and restore everything: hftraining/training/checkpoint.py."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from hftraining.training.checkpoint import Checkpoints
from tests.small_model import make_model_and_optimizer, take_steps


def test_training_resumed_from_a_checkpoint_gives_the_same_bits(tmp_path):
    model, optimizer = make_model_and_optimizer()
    take_steps(model, optimizer, 5)
    Checkpoints(tmp_path).save(5, model, optimizer, {"best_step": None, "note": "kept"})
    take_steps(model, optimizer, 5)

    other, other_optimizer = make_model_and_optimizer(seed=1)
    state = Checkpoints(tmp_path).restore(other, other_optimizer)
    take_steps(other, other_optimizer, 5)
    assert (state["step"], state["note"]) == (5, "kept")
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_without_a_checkpoint_nothing_is_restored(tmp_path):
    assert Checkpoints(tmp_path / "none").restore(*make_model_and_optimizer()) is None


def test_the_newest_two_and_the_best_are_kept(tmp_path):
    checkpoints, (model, optimizer) = Checkpoints(tmp_path), make_model_and_optimizer()
    take_steps(model, optimizer, 1)
    for step in (10, 20, 30, 40):
        checkpoints.save(step, model, optimizer, {"best_step": 10 if step < 40 else 40})
        assert checkpoints.steps() == {10: [10], 20: [10, 20], 30: [10, 20, 30], 40: [30, 40]}[step]


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_truncated_newest_checkpoint_is_named_and_the_one_before_is_used(tmp_path, file, caplog):
    checkpoints, (model, optimizer) = Checkpoints(tmp_path), make_model_and_optimizer()
    for step in (10, 20):
        take_steps(model, optimizer, 1)
        checkpoints.save(step, model, optimizer, {"best_step": None})
    damaged = tmp_path / "step_00000020" / file
    os.truncate(damaged, damaged.stat().st_size // 2)
    assert checkpoints.restore(*make_model_and_optimizer())["step"] == 10
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
    checkpoints.save(step, model, optimizer, {"best_step": None})
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
        Checkpoints(folder, durable=durable).save(1, model, optimizer, {"best_step": None})
    assert synced and not any("quick" in str(path) for path in synced)
    ours, theirs = (sorted(p.name for p in (tmp_path / name).rglob("*")) for name in ("durable", "quick"))
    assert ours == theirs and Checkpoints(tmp_path / "quick").newest() == 1
