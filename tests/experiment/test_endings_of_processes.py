"""No process of ours outlives the one that started it, and none leaves its worktree behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hftraining.core import keeper
from tests.commands import ROOT, ended, start, start_train, wait_for
from tests.experiment.test_stranger_patches import PROJECT, git
from tests.runs_of import FAST, QUICK, edit_run_json, own_copy

SECONDS = 30.0  # on a busy machine


def descendants(pid: int) -> dict[int, str]:
    """All processes that descend from one, by their start times, which tell them from later ones of the same number."""
    parents, starts = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            facts = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(path.parent.name)], starts[int(path.parent.name)] = int(facts[1]), facts[19]
    found, todo = set(), [pid]
    while todo:
        children = [child for child, parent in parents.items() if parent == todo[0]]
        found |= set(children)
        todo = [*todo[1:], *children]
    return {child: starts[child] for child in found}


def alive(processes: dict[int, str]) -> list[int]:
    """Those that have not ended; a zombie has."""
    found = []
    for pid, began in processes.items():
        try:
            facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if facts[19] == began and facts[0] != "Z":
            found.append(pid)
    return found


def gone(processes: dict[int, str]) -> bool:
    """Whether all end within SECONDS; those that do not are ended."""
    deadline = time.monotonic() + SECONDS
    while alive(processes) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = alive(processes)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return not left


@pytest.fixture
def replaying(reference, tmp_path):
    """A function that starts `replay --from-commit --trust` of a project whose replay never ends, and waits for it."""
    tree, temporary = tmp_path / "project", tmp_path / "temporary"
    temporary.mkdir()
    sleeping = f"""
import pathlib, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
pathlib.Path({str(tmp_path / "began")!r}).touch()
time.sleep(1000)
"""
    for name, text in (PROJECT | {"hftraining/__main__.py": sleeping}).items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    git(tree, "init", "-q")
    git(tree, "add", "-A")
    git(tree, "commit", "-qm", "x")
    commit = git(tree, "rev-parse", "HEAD").decode().strip()
    # The command as it is, for a project that lies elsewhere, and whose child has little time to save.
    code = (
        "import pathlib, sys\n"
        "from hftraining.core.command import run_command\n"
        "from hftraining.experiment import recorded_code\n"
        f"recorded_code.SOURCE_TREE = pathlib.Path({str(tree)!r})\n"
        "again = lambda words: recorded_code.replay_from_commit(pathlib.Path(sys.argv[1]))\n"
        "sys.exit(run_command(again))\n"
    )

    def begin(name: str = "theirs") -> tuple[subprocess.Popen[str], dict[int, str]]:
        (tmp_path / "began").unlink(missing_ok=True)
        run = tmp_path / "outputs" / name
        if not run.exists():
            own_copy(Path(reference["folder"]), run)
            (run / "code.patch").unlink(missing_ok=True)
            known = {"commit": commit, "dirty": False, "digest": None, "patch": None}
            edit_run_json(run, lambda manifest: manifest.update(code=known))
        process = start("-c", code, run, cwd=ROOT, TMPDIR=str(temporary))
        wait_for((tmp_path / "began").exists, process)
        return process, descendants(process.pid)

    def left() -> tuple[int, int]:
        """Temporary folders, and worktrees beside the tree itself."""
        return len(list(temporary.iterdir())), git(tree, "worktree", "list").count(b"\n") - 1

    return begin, left


STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
print("began", flush=True)
time.sleep(1000)
"""


def kept(code: str) -> subprocess.Popen[bytes]:
    """A keeper with little patience, of a process that runs this code."""
    keeping = "import sys; from hftraining.core import keeper; keeper.GRACE_SECONDS = 0.5; keeper.keep(sys.argv[1:])"
    words = [sys.executable, "-c", keeping, sys.executable, "-c", code]
    return subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)


@pytest.mark.parametrize("how", ["its starter closes the pipe", "the keeper is killed"])
def test_a_kept_process_that_ignores_sigterm_ends_all_the_same(how):
    process = kept(STUBBORN)
    assert process.stdout.readline() == b"began\n"
    processes = descendants(process.pid)
    assert len(processes) == 2
    if "pipe" in how:
        process.stdin.close()
    else:
        process.kill()
    keeper.release(process)
    assert gone(processes)
    process.stdout.close()


def test_a_keeper_passes_on_the_exit_code():
    process = subprocess.Popen(
        [sys.executable, "-I", keeper.__file__, sys.executable, "-c", "raise SystemExit(7)"],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    assert keeper.release(process) == 7
    process.communicate()


@pytest.mark.slow
def test_a_replay_from_a_commit_ends_with_its_child_and_worktree_whatever_ends_it(replaying):
    begin, left = replaying
    process, children = begin()
    assert len(children) >= 3 and left() == (1, 1)  # the keeper, the replay, and what that started
    process.send_signal(signal.SIGTERM)
    code, _, err = ended(process, timeout=60)
    assert (code, err.count("\n")) == (3, 1) and "its worktree removed" in err
    assert gone(children) and left() == (0, 0)

    process, children = begin()
    process.kill()
    ended(process)
    assert gone(children) and left() == (1, 1)  # nobody was left to remove it

    process, children = begin()
    assert left() == (1, 1)  # its own: that of the killed one was removed, with its worktree
    kept_by = next(pid for pid in children if b"keeper.py" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(kept_by, signal.SIGKILL)
    code, _, err = ended(process, timeout=60)
    assert code == 2 and "could not repeat it" in err and left() == (0, 0)
    assert gone(children)


@pytest.mark.slow
@pytest.mark.parametrize(  # the same launcher and workers; those of a multirun that have no job yet are below
    "search", [pytest.param(True, id="a sweep"), pytest.param(False, id="a multirun", marks=pytest.mark.long)]
)
def test_workers_of_joblib_end_with_the_process_that_started_them(folder, tmp_path, search):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    long = [text for text in (*QUICK, *FAST) if not text.startswith("training.max_steps")]
    words = (
        ("search=profit", "search.workers=2", "hydra.sweeper.n_trials=4", "search.pruner=none")
        if search
        else ("seed=1,2", "hydra.launcher.n_jobs=2")
    )
    process = start_train(
        tmp_path,
        *("-m", *words, "hydra/launcher=joblib", "training.max_steps=100000", *long),
        *(f"stocks.path={folder}", f"output_dir={tmp_path}/outputs", f"evidence.ledger={tmp_path}/ledger.sqlite"),
    )
    wait_for(lambda: len(list(tmp_path.rglob("metrics.jsonl"))) >= 2, process)
    children = descendants(process.pid)
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children]
    assert sum(b"LokyProcess" in command for command in commands) == 2
    process.kill()
    process.communicate()
    assert gone(children)
    saved = list(tmp_path.rglob("checkpoints/*"))
    assert len({path.parent for path in saved}) == 2, "both saved before they ended"


@pytest.mark.slow
def test_workers_of_joblib_that_have_not_begun_a_job_end_with_the_process_that_started_them(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ("seed=1,2", "model=tiny", "stocks=sample5", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    process = start_train(tmp_path, "-m", *words)

    def workers() -> bool:
        commands = [Path(f"/proc/{pid}/cmdline") for pid in descendants(process.pid)]
        return any(b"LokyProcess" in path.read_bytes() for path in commands if path.exists())

    wait_for(workers, process, every=0.01)
    children = descendants(process.pid)
    process.kill()
    process.communicate()
    assert gone(children) and not list(tmp_path.rglob("run.json"))
