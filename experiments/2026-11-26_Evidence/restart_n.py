"""Ways to begin N, the number of trials, and the openings again, each tried with real runs of train.py.

    python experiments/2026-11-26_Evidence/restart_n.py
    python experiments/2026-11-26_Evidence/restart_n.py --earlier OLD_CHECKOUT

A user has two trials on five random walks, each of which has opened the test days. From there each attack is a third
run on the same market, or what it says. The table goes to the console and into restart_n.md beside this file. --earlier
makes the same runs with another checkout, for comparison. These are 33 runs of about six CPU seconds each, and twice as
many with --earlier.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SMALL = (
    *(
        "stocks=folder",
        "objective.horizons=[1,5]",
        "training.window=24",
        "training.symbols_per_window=2",
        "training.threads=1",
    ),
    *("evidence.null_draws=40", "evidence.bootstrap_draws=100", "evidence.leak_days=1", "evidence.baselines=[]"),
)
RIDGE = ("model=ridge", *SMALL)
LONG = ("model=tiny", *SMALL, "training.max_steps=100000", "profit_tracker.every=5")
N_SESSIONS = 500
INTRODUCTION = """# Ways to begin N again

`python experiments/2026-11-26_Evidence/restart_n.py --earlier CHECKOUT`: 33 real runs of train.py, with each of the two
codes, in {seconds:.0f} s (on two cores that others used, too, when this was recorded). Before each attack the user has
two trials, each of which has opened the test days. "Right" is what N and the number of openings must be afterwards.
"""


class World:
    """A user's folder: bars/, outputs/ and the state folder, in which train.py of one tree runs."""

    def __init__(self, folder: Path, tree: Path) -> None:
        self.folder, self.tree = folder, tree

    def copy(self, to: Path) -> "World":
        """The same user, for one attack."""
        return World(Path(shutil.copytree(self.folder, to)), self.tree)

    def start(self, *overrides: str, model: tuple[str, ...] = RIDGE) -> subprocess.Popen[str]:
        """`python train.py` in this folder."""
        paths = {"XDG_STATE_HOME": str(self.folder / "state"), "PYTHONPATH": str(self.tree)}
        command = [sys.executable, str(self.tree / "train.py"), *model, "stocks.path=bars", *overrides]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=self.folder, env=os.environ | paths, **pipes)  # type: ignore[call-overload]

    def result(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        """result.json of a run that was started."""
        out, err = process.communicate()
        if process.returncode:
            raise SystemExit(f"{process.args!r} ended with {process.returncode}:\n{err[-2000:]}")
        folder = self.folder / out.splitlines()[-1].removeprefix("run: ")
        found: dict[str, Any] = json.loads((folder / "result.json").read_text())
        return found

    def run(self, *overrides: str) -> dict[str, Any]:
        """result.json of a run."""
        return self.result(self.start(*overrides))

    def kill_one(self, tree: Path) -> None:
        """Begin a run with the code of a tree, and kill it once it has shown a probe."""
        process = World(self.folder, tree).start("seed=3", "output_dir=killed", model=LONG)
        while not any("eval/loss" in path.read_text() for path in self.folder.glob("killed/*/*/*/metrics.jsonl")):
            if process.poll() is not None:
                raise SystemExit(f"the run to be killed ended too early: {process.communicate()}")
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        shutil.rmtree(self.folder / "killed")


def write_bars(folder: Path) -> None:
    """Five random walks of 500 sessions, one csv file each."""
    rng, shape = np.random.default_rng(3), (N_SESSIONS, 5)
    close_TS = 50.0 * np.exp(np.cumsum(rng.normal(0.0003, 0.02, shape), axis=0))
    open_TS = close_TS * np.exp(rng.normal(0, 0.005, shape))
    high_TS, low_TS = np.maximum(open_TS, close_TS) * 1.004, np.minimum(open_TS, close_TS) * 0.996
    columns = {"open": open_TS, "high": high_TS, "low": low_TS, "close": close_TS, "volume": np.full(shape, 1e6)}
    days = np.busday_offset(np.datetime64("2015-01-01"), np.arange(N_SESSIONS), roll="forward").astype(str)
    folder.mkdir()
    for s in range(shape[1]):
        frame = pd.DataFrame({"date": days} | {name: array_TS[:, s] for name, array_TS in columns.items()})
        frame.to_csv(folder / f"S{s}.csv", index=False)


def changed_files(world: World, name: Callable[[str], str], by: float = 1.0, rows: int = N_SESSIONS) -> str:
    """Other files of the same bars; returns the override that reads them."""
    (world.folder / "others").mkdir()
    for path in (world.folder / "bars").glob("*.csv"):
        frame = pd.read_csv(path).iloc[:rows]
        frame[["open", "high", "low", "close"]] *= by
        frame.to_csv(world.folder / "others" / f"{name(path.stem)}.csv", index=False)
    return "stocks.path=others"


def moved_files(world: World) -> dict[str, Any]:
    """The bars under another path, as they are."""
    shutil.copytree(world.folder / "bars", world.folder / "elsewhere")
    return world.run("seed=1", "stocks.path=elsewhere")


def four_at_once(world: World) -> dict[str, Any]:
    """Four runs that start together; what the last of them to end was told."""
    runs = [world.start(f"seed={seed}", f"output_dir=outputs{seed}") for seed in (3, 4, 5, 6)]
    found = [world.result(process) for process in runs]
    return max(found, key=lambda result: (result["test_openings"], result["n_trials"]))


def killed(world: World, edits: int) -> dict[str, Any]:
    """Three runs of one config that are killed after a look at their probes; the code of `edits` of them was edited."""
    with tempfile.TemporaryDirectory() as temporary:
        for number in range(3):
            tree = world.tree
            if number < edits:
                tree = Path(temporary) / str(number)
                for name in ("hftraining", "conf", "hydra_plugins"):
                    shutil.copytree(world.tree / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
                shutil.copy(world.tree / "train.py", tree)
                with open(tree / "hftraining" / "model" / "objective.py", "a") as file:
                    file.write(f"# edit {number}\n")
            world.kill_one(tree)
    return world.run("seed=4")


def deleted(world: World) -> dict[str, Any]:
    """All run folders are deleted."""
    for folder in (world.folder / "outputs").glob("base"):
        shutil.rmtree(folder)
    return world.run("seed=3")


Attack = Callable[[World], dict[str, Any]]


def overridden(*overrides: str) -> Attack:
    """A run with other fields."""
    return lambda world: world.run("seed=3", *overrides)


def with_files(**changes: Any) -> Attack:
    """A run on other files of the same bars."""
    return lambda world: world.run("seed=3", changed_files(world, **changes))


# attack -> (what is done, N and openings that are right afterwards)
ATTACKS: dict[str, tuple[Attack, int, int]] = {
    "another seed (no attack)": (overridden(), 3, 3),
    "objective.horizons=[1,10]": (overridden("objective.horizons=[1,10]"), 3, 3),
    "profit_tracker.lag=2": (overridden("profit_tracker.lag=2"), 3, 3),
    "test_start a day later": (overridden("stocks.test_start=2016-08-19"), 3, 3),
    "end a day earlier": (overridden("stocks.end=2016-11-29"), 3, 3),
    "start three months later": (overridden("stocks.start=2015-04-01"), 3, 3),
    "four of the five stocks": (overridden("stocks.symbols=[S0,S1,S2,S4]"), 3, 3),
    "one stock": (overridden("stocks.symbols=[S3]", "training.symbols_per_window=1"), 3, 3),
    "the stocks in another order": (overridden("stocks.symbols=[S4,S2,S0,S1,S3]"), 3, 3),
    "another outputs folder": (overridden("output_dir=fresh"), 3, 3),
    "the run folders deleted": (deleted, 3, 3),
    "another path, the same config": (moved_files, 2, 2),
    "another path": (with_files(name=str), 3, 3),
    "stocks renamed": (with_files(name=lambda name: f"X{name}X"), 3, 3),
    "renamed, prices times 0.37": (with_files(name=lambda name: f"X{name}X", by=0.37), 3, 3),
    "lower case": (with_files(name=str.lower), 3, 3),
    "a snapshot without the last month": (with_files(name=str, rows=N_SESSIONS - 21), 3, 3),
    "test days as validation days": (
        overridden("stocks.valid_start=2016-09-20", "stocks.test_start=2016-11-01"),
        3,
        3,
    ),
    "validation days as test days": (
        overridden("stocks.valid_start=2015-10-01", "stocks.test_start=2016-05-02", "stocks.end=2016-08-05"),
        1,
        1,
    ),
    "killed three times, the same code": (lambda world: killed(world, 0), 4, 3),
    "killed three times, edited twice": (lambda world: killed(world, 2), 6, 3),
    "four runs at once": (four_at_once, 6, 6),
}


def measured(tree: Path, name: str, attack: Attack, start: World, work: Path) -> tuple[int, int, str]:
    """N, openings, and what the result warns of, after an attack on a copy of the world."""
    world = World(start.folder, tree).copy(work / f"{tree.name} {name}".replace("/", "-"))
    try:
        result = attack(world)
    finally:
        shutil.rmtree(world.folder)
    said = [text for text in result["warnings"] if "opened test days that are" in text or "no first look" in text]
    return result["n_trials"], result["test_openings"], "; ".join(said)


def table(trees: dict[str, Path], only: str) -> tuple[str, bool]:
    """The table as markdown, and whether the last of the trees counts everything right."""
    heads = [f"{what}{tree}" for tree in trees for what in ("N after", "openings after")]
    lines = [f"| attack | N before | right | {' | '.join(heads)} | said |", f"|{'---|' * (len(heads) + 4)}"]
    print("\n".join(lines), flush=True)
    right = True
    with tempfile.TemporaryDirectory() as temporary:
        work, starts = Path(temporary), {}
        for name, tree in trees.items():
            starts[name] = World(work / f"user{name}", tree)
            starts[name].folder.mkdir()
            write_bars(starts[name].folder / "bars")
            assert [starts[name].run(f"seed={seed}")["n_trials"] for seed in (1, 2)] == [1, 2]
        for attack, (act, n, openings) in ATTACKS.items():
            if only not in attack:
                continue
            found = {name: measured(tree, attack, act, starts[name], work) for name, tree in trees.items()}
            cells = [str(number) for numbers in found.values() for number in numbers[:2]]
            *_, (n_found, openings_found, said) = found.values()
            right = right and (n_found, openings_found) == (n, openings)
            lines.append(f"| {attack} | 2 | {n}, {openings} | {' | '.join(cells)} | {said} |")
            print(lines[-1], flush=True)
    return "\n".join(lines), right


def main() -> int:
    """Print and write the table; exits with 1 where a count is not right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--earlier", type=Path, metavar="CHECKOUT", help="another checkout, for comparison")
    parser.add_argument("--only", default="", metavar="TEXT", help="only attacks with this text in their name")
    options = parser.parse_args()
    begin = time.monotonic()
    trees = {", earlier code": options.earlier.resolve()} if options.earlier else {}
    text, right = table(trees | {"": ROOT}, options.only)
    if not options.only:
        words = INTRODUCTION.format(seconds=time.monotonic() - begin)
        (HERE / "restart_n.md").write_text(f"{words}\n{text}\n")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
