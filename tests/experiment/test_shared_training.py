"""One training on several processes: the same as on one up to rounding, and on as many again to the bit."""

import contextlib
import copy
import dataclasses
import functools
import os
import signal

import pytest
import torch

from hftraining.core.errors import ConfigError, Diverged, Interrupted
from hftraining.experiment.base_run import BaseRun
from hftraining.experiment.candidate import candidate_ground
from hftraining.experiment.fit import Fitting
from hftraining.experiment.ground import lay
from hftraining.experiment.trainers import job_of
from hftraining.market.prices import load_bars
from hftraining.training.checkpoint import Checkpoints
from tests.compose import compose_config
from tests.crews import forked_crew
from tests.runs_of import QUICK, tuned_config

FIVE = ("training.batch_size=10", "training.learning_rate=0.003", "model.dropout=0.2")  # windows of two stocks


@pytest.fixture(scope="module")
def bars(folder):
    return load_bars(compose_config(*QUICK, f"stocks.path={folder}").stocks)


LAID: dict = {}


def ground_of(bars, *overrides):
    """A ground with a model of its own; the rest is laid once."""
    if overrides not in LAID:
        LAID[overrides] = lay(compose_config(*QUICK, *FIVE, "stocks.path=loaded-already", *overrides), bars)
    return dataclasses.replace(LAID[overrides], forecaster=copy.deepcopy(LAID[overrides].forecaster))


def train(bars, place, processes, *overrides, on_step=lambda step, values, crew: None):
    """Train on so many processes; returns the trainer, its logged steps in trainer.logged."""
    return train_on(ground_of(bars, *overrides), place, processes, on_step)


def train_on(ground, place, processes, on_step=lambda step, values, crew: None):
    fitting = Fitting.of(ground, Checkpoints(place, durable=False), [])
    trainer = fitting.trainer
    trainer.logged = {}
    many = forked_crew(place / f"crew{fitting.first}", processes) if processes > 1 else contextlib.nullcontext()
    with many as crew:
        if crew:
            crew.send(*job_of(ground, trainer, fitting.started))
            trainer.crew = crew
        try:
            trainer.train(trainer.logged.__setitem__, lambda step, values: on_step(step, values, crew))
        finally:
            if crew and crew.is_idle:
                crew.leave()
    return trainer


def weights_of(trainer):
    return torch.cat([weight.flatten() for weight in trainer.model.state_dict().values()])


def apart(trainer, other):
    """The distance of two trainers' weights, relative to how far training moved them."""
    return float((weights_of(trainer) - weights_of(other)).norm() / weights_of(other).norm())


TEN_STEPS = ("training.max_steps=10", "training.log_every=1")
HARD = {
    "forecasts": (),
    "profit": ("objective=profit", "portfolio=head"),
    "both": ("objective=mixed", "model.cross_asset=true"),
    "an average": ("objective.loss=mse", "training.ema=0.9"),
    "muon": ("training.optimizer=muon",),
    "a vector for each symbol": ("model.symbol_embedding=true",),
    "lstm": ("model.kind=lstm", "model.num_heads=4"),
    "patchtst": ("model.kind=patchtst", "model.patch_length=4", "model.stride=4"),
}


@pytest.fixture(scope="module")
def alone(bars, tmp_path_factory):
    """Trainings on one process, by name."""
    return functools.cache(
        lambda name, *more: train(bars, tmp_path_factory.mktemp("alone"), 1, *TEN_STEPS, *HARD[name], *more)
    )


NEAR = {"muon": 1e-3}  # torch takes the root of its matrices in bfloat16, which rounds at 4e-3
SHARES = ((2, 1), (2, 2), (3, 1))  # processes, and parts in each
CASES = [("both", *shares) for shares in SHARES]
CASES += [(name, *SHARES[number % 3]) for number, name in enumerate(HARD) if name != "both"]


@pytest.mark.parametrize(
    ("name", "processes", "accumulate"),
    [pytest.param(*case, marks=[] if case == ("both", 3, 1) else pytest.mark.slow) for case in CASES],
)
@pytest.mark.slow
def test_processes_with_uneven_shares_give_the_weights_of_one_up_to_rounding(
    alone, bars, tmp_path, name, processes, accumulate
):
    shares = f"training.processes={processes}", f"training.accumulate={accumulate}"
    shared = train(bars, tmp_path, processes, *TEN_STEPS, *HARD[name], *shares)
    assert shared.logged.keys() == alone(name).logged.keys()
    for step, values in alone(name).logged.items():
        near = 1e-4 if step == 1 or name not in NEAR else 10 * NEAR[name]
        for tag in ("train/loss", "train/grad_norm"):
            assert shared.logged[step][tag] == pytest.approx(values[tag], rel=near, abs=1e-6)
    assert apart(shared, alone(name)) < NEAR.get(name, 1e-5)
    assert apart(alone(name, "seed=2"), alone(name)) > 0.01


class Killed(Exception):
    pass


def stop_at(step_to_end):
    """The lead falls after a step, as where it is killed before it saves."""

    def on_step(step, values, crew):
        if step == step_to_end:
            raise Killed

    return on_step


RESUMED = ("training.processes=2", "training.max_steps=9", "training.checkpoint_every=1", "profit_tracker.every=5")


@pytest.mark.slow
def test_a_training_on_two_processes_goes_on_to_the_same_bits_from_every_step(bars, tmp_path):
    settings = (*RESUMED, "training.ema=0.9", "training.accumulate=2", "objective=mixed", "training.optimizer=muon")
    whole = train(bars, tmp_path / "whole", 2, *settings)
    for step in range(2, 9):
        with pytest.raises(Killed):
            train(bars, tmp_path / "broken", 2, *settings, on_step=stop_at(step))
    again = train(bars, tmp_path / "broken", 2, *settings)
    assert torch.equal(weights_of(again), weights_of(whole))
    for name, weight in whole.average.weights.items():
        assert torch.equal(again.average.weights[name], weight)


@pytest.mark.slow
def test_a_killed_helper_ends_the_training_with_all_saved_and_it_goes_on_to_the_same_bits(bars, tmp_path):
    settings = (*RESUMED, "training.checkpoint_every=100")
    whole = train(bars, tmp_path / "whole", 2, *settings)

    def kill(step, values, crew):
        if step == 5:
            os.kill(crew.pids[0], signal.SIGKILL)

    with pytest.raises(
        Interrupted, match=r"one of the 2 processes was lost \(.*\), in step 6; everything before it is"
    ):
        train(bars, tmp_path / "broken", 2, *settings, on_step=kill)
    assert Checkpoints(tmp_path / "broken").newest() == 5
    again = train(bars, tmp_path / "broken", 2, *settings)
    assert torch.equal(weights_of(again), weights_of(whole))
    assert again.logged[9]["train/loss"] == whole.logged[9]["train/loss"]


@pytest.mark.slow
def test_a_training_that_diverges_ends_as_on_one_process(bars, tmp_path):
    settings = ("training.processes=2", "training.max_steps=20", "training.warmup_steps=0", "training.grad_clip=1e12")
    with pytest.raises(Diverged, match="10 steps in a row were not finite"):
        train(bars, tmp_path, 2, *settings, "training.learning_rate=100", "training.weight_decay=1e6")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "head", "lora", "scratch"])
def test_a_candidate_of_a_fine_tune_is_the_same_on_two_processes(base, folder, tmp_path, method):
    config = tuned_config(
        base, tmp_path, f"training.methods=[{method}]", "training.shrinkage=0.5", *FIVE[:1], symbol="S0,S1"
    )
    ground = lay(config, load_bars(compose_config(*QUICK, f"stocks.path={folder}").stocks), base=BaseRun.open(base))
    one, two = (train_on(candidate_ground(method, ground)[0], tmp_path / str(n), n) for n in (1, 2))
    assert apart(two, one) < 1e-5


def test_more_processes_than_windows_are_refused_with_both_numbers(bars):
    assert ground_of(bars, "training.processes=5").windows.windows_per_batch == 5
    with pytest.raises(ConfigError, match=r"training\.processes=6: a step has 5 windows of 2 stocks, and a window is"):
        ground_of(bars, "training.processes=6")
    with pytest.raises(ConfigError, match=r"training\.accumulate=3 times training\.processes=2: a step has 5 windows"):
        ground_of(bars, "training.processes=2", "training.accumulate=3")


def test_stocks_that_would_learn_alone_to_look_at_each_other_are_refused(bars):
    ground_of(bars, "model.cross_asset=true", "training.symbols_per_window=2")
    with pytest.raises(ConfigError, match=r"model\.cross_asset=true: with training\.symbols_per_window=1 .* alone in"):
        ground_of(bars, "model.cross_asset=true", "training.symbols_per_window=1")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        (["training.processes=0"], r"training\.processes=0 must be at least 1"),
        (["training.processes=257"], r"training\.processes=257 must be at most 256"),
        (["training.engine=slurm"], r"training\.engine=slurm is not one of local, ray"),
        (["training.engine=ray"], r"training\.engine=ray starts processes: set training\.processes, e\.g\. to 2"),
        (
            ["model=ridge", "training.processes=2"],
            r"training\.processes=2 share .*model\.kind=ridge learns in one",
        ),
        (["model=lightgbm", "training.processes=2"], r"model\.kind=lightgbm learns in one process: leave it out"),
    ],
)
def test_processes_that_make_no_sense_are_refused(override, line):
    with pytest.raises(ConfigError, match=line):
        compose_config(*override)
