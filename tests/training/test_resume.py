"""A training that was broken off goes on to the same bits, from any of its steps and after any number of kills."""

import math
import os
import random
import shutil
import signal
import time

import pytest
import torch

from tests.crash.every_point import undisturbed, warm
from tests.crash.kinds import TINY, differences, scene
from tests.crash.server import Server
from tests.training.test_trainer import make_trainer, run

STEPS = 40
HARD = {"optimizer": "muon", "ema": 0.9, "accumulate": 2, "learning_rate": 3e-3, "schedule": "wsd"}
KILLS = int(os.environ.get("HFTRAINING_KILLS", "6"))  # of the last two tests


def state_of(trainer):
    """All that a training has become: weights, their average, the moments, and its progress."""
    known = [optimizer.state_dict()["state"] for optimizer in trainer.optimizers]
    states = [of_weight[number] for of_weight in known for number in sorted(of_weight)]
    moments = [state[name] for state in states for name in sorted(state)]
    tensors = [*trainer.model.state_dict().values(), *trainer.average.weights.values(), *moments]
    return torch.cat([tensor.flatten().float() for tensor in tensors]), vars(trainer.progress)


@pytest.mark.slow
def test_from_each_of_forty_steps_in_mid_accumulation_with_averages_and_muon_the_rest_is_the_same_to_the_bit(tmp_path):
    """The probe's values go up and down, so that the best step is one of the middle."""

    def probe(step):
        return {"eval/loss": abs(step - 20.0)}

    settings = {**HARD, "max_steps": STEPS, "probe": probe, "patience": 0, "dropout": 0.2}
    whole = make_trainer(tmp_path / "whole", checkpoint_every=1, **settings)
    kept = tmp_path / "kept"

    def keep(step, values):
        if step > 1:
            shutil.copytree(whole.checkpoints.path(step - 1), kept / f"step_{step - 1:08d}")

    whole.train(lambda *_: None, keep)
    wanted, progress = state_of(whole)
    assert (progress["step"], progress["best_step"]) == (STEPS, 20)
    for step in range(1, STEPS):
        folder = tmp_path / f"from{step}"
        for begun in {step, 20 if step > 20 else step}:  # the newest, and the best
            shutil.copytree(kept / f"step_{begun:08d}", folder / f"step_{begun:08d}")
        again = make_trainer(folder, checkpoint_every=100, seed=1, **settings)
        with torch.no_grad():
            again.model.embed.weight.fill_(9.0)  # whatever was there before
        torch.rand(step)
        assert again.resume() == step
        run(again)
        found, reached = state_of(again)
        assert torch.equal(found, wanted), f"resumed from step {step}"
        assert reached == progress
        shutil.rmtree(folder)


def live(trainer, seconds):
    """Go on with a training in a fork, which SIGKILL ends after so many seconds; returns whether it came to its end."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            trainer.resume()
            run(trainer)
            code = 0
        finally:
            os._exit(code)
    due, ended = time.monotonic() + seconds, 0
    while not ended and time.monotonic() < due:
        ended, status = os.waitpid(pid, os.WNOHANG)
        time.sleep(0.001)
    if not ended:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL)
    return code == 0


@pytest.fixture
def one_thread():
    """The threads of OpenMP do not survive a fork, which would wait for them for ever."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_a_training_that_is_killed_again_and_again_ends_with_the_state_of_one_that_was_not(tmp_path, one_thread):
    """SIGKILL at random moments of the step loop and of its checkpoints, which are written after every step."""
    settings = {**HARD, "max_steps": STEPS, "patience": 0, "dropout": 0.2, "checkpoint_every": 1}
    whole = make_trainer(tmp_path / "whole", **settings)
    began = time.monotonic()
    run(whole)
    seconds, chance, kills = time.monotonic() - began, random.Random(KILLS), 0
    wanted, progress = state_of(whole)
    while kills < KILLS:
        trainer = make_trainer(tmp_path / f"after{kills}", **settings)  # of which each fork has a copy
        while kills < KILLS and not live(trainer, chance.uniform(0.0, 0.6 * seconds)):
            kills += 1
        assert live(trainer, math.inf)
        assert trainer.resume() == STEPS
        found, reached = state_of(trainer)
        assert torch.equal(found, wanted) and reached == progress, f"after {kills} kills"
    print(f"{kills} kills")


@pytest.mark.slow
@pytest.mark.long
def test_a_run_that_is_killed_at_any_moments_ends_with_the_files_and_ledger_of_one_that_was_not(tmp_path):
    """SIGKILL at random moments of `python train.py`, from its imports on to its report; each time it is resumed."""
    words = [f"training.{name}={value}" for name, value in (HARD | {"max_steps": STEPS, "checkpoint_every": 1}).items()]
    chance = random.Random(KILLS)
    with Server(tmp_path) as server:
        made = scene("base", server, tmp_path)
        made.command = (*TINY, *words, "training.batch_size=4", "profit_tracker.every=8")
        warm(made, tmp_path)
        began = time.monotonic()
        wanted, _ = undisturbed(made)
        seconds, kills = time.monotonic() - began, 0
        while kills < KILLS:
            made.fresh()
            ended = made.go(kill_after=chance.uniform(0.0, seconds))
            while ended.code == -signal.SIGKILL:
                kills += 1
                ended = made.resume(kill_after=chance.uniform(0.0, seconds) if kills < KILLS else None)
            assert ended.code == 0, ended.err
            assert differences(made.end(), wanted) == [], f"after {kills} kills"
