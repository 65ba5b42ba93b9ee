"""Runs on several processes, which are started, lost, stopped and resumed as a user's are."""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hftraining.core.errors import ConfigError, Interrupted
from hftraining.experiment import on_ray
from hftraining.experiment.config import load_config
from hftraining.experiment.ground import use_machine
from hftraining.experiment.replay import replay
from hftraining.experiment.run import run_experiment
from hftraining.reports.console import Console
from hftraining.training.checkpoint import Checkpoints
from hftraining.training.parallel import CrewBroken
from tests.commands import ROOT, TRAIN, ended, start, start_train, train_here, wait_for
from tests.compose import compose_config
from tests.experiment.test_endings_of_processes import descendants, gone
from tests.runs_of import QUICK, fingerprint, placed, run, weights

# Three windows on two processes.
SHARED = ("training.processes=2", "training.batch_size=6", "training.max_steps=12", "training.checkpoint_every=5")
FAST = ("evidence.null_draws=20", "evidence.bootstrap_draws=100", "evidence.baselines=[]")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shared(folder, tmp_path_factory) -> dict:
    """A run on two processes, to read and not to write into."""
    return run(folder, tmp_path_factory.mktemp("shared"), *SHARED, *FAST)


def relative_distance(ours: dict, theirs: dict) -> float:
    ours, theirs = (np.concatenate([array.ravel() for _, array in sorted(found.items())]) for found in (ours, theirs))
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def statuses(output: Path) -> list[str]:
    with sqlite3.connect(output / "ledger.sqlite") as ledger:
        return [status for (status,) in ledger.execute("select status from runs order by rowid")]


def only_run(output: Path) -> Path:
    (folder,) = output.glob("*/*/*/run.json")
    return folder.parent


def test_a_run_on_two_processes_is_that_of_one_up_to_rounding_with_one_folder_and_one_row(shared, folder, tmp_path):
    alone = run(folder, tmp_path, *SHARED, *FAST, "training.processes=1")
    assert relative_distance(weights(shared["folder"]), weights(alone["folder"])) < 1e-5
    assert shared["signature"] != alone["signature"]  # it rounds otherwise
    output = Path(shared["folder"]).parents[2]
    assert only_run(output) == Path(shared["folder"]) and statuses(output) == ["done"]


def test_a_replay_starts_as_many_processes_and_is_equal_to_the_bit(shared, tmp_path):
    again = replay(Path(shared["folder"]), tmp_path, say=lambda line: None)
    assert again.bits.equal and again.causes == []


def test_processes_share_the_threads_of_the_machine_and_run_json_counts_those_of_one(shared):
    assert json.loads((Path(shared["folder"]) / "run.json").read_text())["threads"] == 1
    before = torch.get_num_threads()
    try:
        for override, threads in (("training.threads=0", (os.cpu_count() or 1) // 2), ("training.threads=3", 3)):
            torch.set_num_threads(8)
            use_machine(compose_config("training.processes=2", override))
            assert torch.get_num_threads() == max(1, threads)
        torch.set_num_threads(8)
        use_machine(compose_config("training.processes=2"))
        use_machine(compose_config())  # a later run of a multirun, say, has them all again
        assert torch.get_num_threads() == 8
    finally:
        torch.set_num_threads(before)


def test_ray_is_named_where_it_is_missing_and_nothing_is_left_behind(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"training\.engine=ray needs the extra `ray`: pip install -e '\.\[ray\]'"):
        run(folder, tmp_path, *SHARED, "training.engine=ray")
    assert list(tmp_path.iterdir()) == []


def test_a_cluster_of_ray_that_cannot_be_is_said_before_anything_is_written(folder, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "nonsense")
    with pytest.raises(ConfigError, match="RAY_ADDRESS=nonsense in the environment is no address"):
        run(folder, tmp_path, *SHARED, "training.engine=ray")
    assert list(tmp_path.iterdir()) == []


def test_a_cluster_of_ray_that_is_not_there_ends_in_one_line(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    for name, value in {"RAY_ADDRESS": "auto", "RAY_TMPDIR": str(tmp_path), "RAY_USAGE_STATS_ENABLED": "0"}.items():
        monkeypatch.setenv(name, value)
    before = signal.getsignal(signal.SIGTERM)
    with (
        pytest.raises(CrewBroken, match="Ray: Could not find any running Ray instance") as broken,
        on_ray._cluster(ray, 2),
    ):
        pass
    assert isinstance(broken.value.end, Interrupted) and signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
def test_a_cluster_of_ray_that_asks_for_a_token_which_is_not_here_ends_in_one_line(tmp_path):
    """In a process of its own: Ray reads once how it is to be authenticated."""
    pytest.importorskip("ray")
    code = "import ray; from hftraining.experiment import on_ray\nwith on_ray._cluster(ray, 2): pass"
    given = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        cluster = f"127.0.0.1:{listener.getsockname()[1]}"
        given |= {"RAY_ADDRESS": cluster, "RAY_AUTH_MODE": "token", "HOME": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", code], env=given, text=True, capture_output=True, timeout=120)
    last = done.stderr.splitlines()[-1]
    assert "CrewBroken: Ray: Token authentication is enabled but no authentication token was found" in last


def test_a_run_with_more_processes_than_windows_leaves_nothing_behind(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"training\.processes=4: a step has 3 windows of 2 stocks"):
        run(folder, tmp_path, *SHARED, "training.processes=4")
    assert list(tmp_path.iterdir()) == []


def stopping(monkeypatch, step_to_stop, stop):
    """The next run is stopped in a way after a step."""
    shown = Console.step

    def step(self, number, *more, **settings):
        shown(self, number, *more, **settings)
        if number == step_to_stop:
            stop()

    monkeypatch.setattr(Console, "step", step)


def resumed(path: Path) -> dict:
    config = load_config(path / "config.yaml")
    config.resume = str(path)
    done = run_experiment(config)
    return json.loads((done.folder / "result.json").read_text()) | {"folder": str(done.folder)}


# A killed helper ends and saves in CI in the test below, and goes on to the same bits in test_shared_training.py.
@pytest.mark.parametrize("how", ["the lead gets SIGTERM", pytest.param("a helper is killed", marks=pytest.mark.long)])
def test_a_run_that_is_stopped_is_saved_and_goes_on_to_the_bits_of_the_undisturbed_one(
    shared, folder, tmp_path, monkeypatch, how
):
    lost: dict[int, str] = {}

    def stop():
        for pid, began in descendants(os.getpid()).items():  # other tests of this process have left some, too
            if b"hftraining.experiment.helper" in Path(f"/proc/{pid}/cmdline").read_bytes():
                lost[pid] = began
        assert len(lost) == 1
        if "helper" in how:
            os.kill(next(iter(lost)), signal.SIGKILL)
        else:
            signal.raise_signal(signal.SIGTERM)

    stopping(monkeypatch, 7, stop)
    said = "process 1 of 2 was killed by SIGKILL, in step 8; everything before it is saved"
    with pytest.raises(Interrupted, match=said if "helper" in how else "interrupted after step 7 of 12"):
        run(folder, tmp_path, *SHARED, *FAST)
    monkeypatch.undo()
    assert gone(lost)
    path = only_run(tmp_path)
    assert statuses(tmp_path) == ["interrupted"] and Checkpoints(path / "checkpoints").newest() == 7
    assert fingerprint(resumed(path)) == fingerprint(shared)
    assert statuses(tmp_path) == ["done"]


def last_step(output: Path) -> int:
    """The last step but one, whose line is whole, that the run in a folder of outputs has logged; 0 without any."""
    lines = [line for path in output.glob("*/*/*/metrics.jsonl") for line in path.read_text().splitlines()]
    return json.loads(lines[-2])["step"] if len(lines) > 1 else 0


def begun(output: Path, step: int) -> bool:
    return last_step(output) >= step


def test_helpers_do_not_outlive_a_killed_lead_and_the_run_goes_on(folder, tmp_path):
    words = (*QUICK, *SHARED, *FAST, f"stocks.path={folder}", *placed(tmp_path), "training.max_steps=100000")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process = start_train(tmp_path, *words, "training.log_every=1", TMPDIR=str(temporary))
    wait_for(lambda: begun(tmp_path, 6), process)
    helpers = descendants(process.pid)
    assert helpers and list(temporary.glob("hftraining-helpers-*"))
    process.kill()
    process.communicate()
    assert gone(helpers)
    assert list(temporary.glob("hftraining-helpers-*")) == []  # the helper has put away what the lead could not
    path = only_run(tmp_path)
    logged = last_step(tmp_path)  # beyond the newest checkpoint
    process = start_train(tmp_path, f"resume={path}")
    wait_for(lambda: begun(tmp_path, logged + 3), process)
    helper = next(pid for pid in descendants(process.pid))
    os.kill(helper, signal.SIGKILL)
    code, _, err = ended(process)
    assert code == 3
    # Lost between two steps, while weights are compared, it ends the run at its newest checkpoint, with less to say.
    last = r"interrupted: process 1 of 2 was killed by SIGKILL(, in step \d+; everything before it is saved)?; "
    assert re.fullmatch(last + rf"python train\.py resume={re.escape(str(path))} goes on\n", err)
    assert statuses(tmp_path) == ["interrupted"]


def test_ranks_of_torchrun_make_one_run_with_the_bits_of_helpers(shared, folder, tmp_path):
    words = (*QUICK, *SHARED[1:], *FAST, f"stocks.path={folder}", *placed(tmp_path))
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", TRAIN)
    code, out, err = ended(start(*launcher, *words, cwd=tmp_path, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1"))
    assert code == 0, err
    assert out.count("run: ") == 1 and out.count("leak proof: passed") == 1
    path = only_run(tmp_path)
    assert statuses(tmp_path) == ["done"] and "training.processes: 2" in (path / "config_diff.yaml").read_text()
    found = json.loads((path / "result.json").read_text()) | {"folder": str(path)}
    assert fingerprint(found) == fingerprint(shared) and found["signature"] == shared["signature"]


@pytest.mark.long
def test_a_torchrun_that_restarts_goes_on_in_its_folder(folder, tmp_path):
    words = (*QUICK, *SHARED[1:], *FAST, f"stocks.path={folder}", *placed(tmp_path), "training.max_steps=200")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1", TRAIN)
    words = (*words, "training.log_every=1", "profit_tracker.every=100")
    process = start(*launcher, *words, cwd=tmp_path, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    wait_for(lambda: begun(tmp_path, 6), process)
    ranks = [pid for pid in descendants(process.pid) if b"RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes()]
    os.kill(
        next(pid for pid in ranks if str(TRAIN).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()), signal.SIGKILL
    )
    code, out, err = ended(process)
    assert (code, out.count("run: ")) == (0, 1), err
    assert "one of the 2 processes was lost (" in err or "stopped by SIGTERM" in err
    assert b"resumed from step" in (only_run(tmp_path) / "train.log").read_bytes()
    assert statuses(tmp_path) == ["done"]


@pytest.mark.long
def test_the_trial_of_a_sweep_is_shared(folder, tmp_path):
    words = (*QUICK, *SHARED, *FAST, f"stocks.path={folder}", *placed(tmp_path), "training.max_steps=6")
    code, _, err = train_here(tmp_path, *words, "-m", "search=profit", "search.n_trials=1", "search.first=[]")
    assert code == 0, err
    assert len(list(tmp_path.glob("sweeps/*/trial-*/run.json"))) == 1
