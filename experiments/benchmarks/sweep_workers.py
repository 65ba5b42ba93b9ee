"""Trials a second of two one-thread workers against one: python experiments/benchmarks/sweep_workers.py.

Each round runs the same sweep of real trainings four times, by one worker and by two (joblib), on a journal file and
on one SQLite file. For comparison it also trains one configuration alone, then twice at the same time, as two processes
that share nothing. Times run from the first trial's start to the last one's end, so that the number of trials is the
same; they leave out the start of the command and its conclusion. Medians of five rounds.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import optuna

from hftraining.sweep.storage import open_storage

ROOT = Path(__file__).resolve().parents[2]
TRAINING = "model=tiny stocks=sample5 training.threads=1 profit_tracker.every=60 evidence.baselines=[]".split()
SWEEP = "-m search=profit search.pruner=none search.sampler=random hydra/launcher=joblib".split()


def train(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """A training or a sweep, begun."""
    command = [sys.executable, str(ROOT / "train.py"), *arguments, *TRAINING]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def ended(process: subprocess.Popen[bytes]) -> None:
    """Wait for it. Stops the benchmark where it failed."""
    _, errors = process.communicate()
    if process.returncode:
        sys.exit(f"train.py ended with {process.returncode}:\n{errors.decode()}")


def sweep_seconds(folder: Path, workers: int, sqlite: bool, trials: int, steps: int) -> float:
    """Seconds from the first trial's start to the last one's end."""
    name = f"workers{workers}-{'sqlite' if sqlite else 'journal'}-{time.time_ns()}"
    url = f"sqlite:///{folder / name}.db" if sqlite else ""
    sweep = [*SWEEP, f"search.workers={workers}", f"search.name={name}", f"hydra.sweeper.n_trials={trials}"]
    ended(train(folder, *sweep, f"search.storage='{url}'", f"training.max_steps={steps}"))
    storage = open_storage(url, folder / "outputs" / "sweeps" / name)
    done = optuna.load_study(study_name=name, storage=storage).trials
    assert len(done) == trials and all(trial.state.is_finished() for trial in done)
    begun = min(trial.datetime_start for trial in done if trial.datetime_start)
    return (max(trial.datetime_complete for trial in done if trial.datetime_complete) - begun).total_seconds()


def alone_seconds(folder: Path, at_once: int, steps: int) -> float:
    """Seconds of so many equal trainings side by side."""
    begin = time.monotonic()
    for process in [train(folder, f"training.max_steps={steps}", f"seed={seed}") for seed in range(at_once)]:
        ended(process)
    return time.monotonic() - begin


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    ratios: dict[str, list[float]] = {"journal file": [], "one SQLite file": [], "two processes that share nothing": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        alone_seconds(folder, 1, 20)  # compiles what is compiled once a machine
        for _ in range(arguments.rounds):
            for label, sqlite in (("journal file", False), ("one SQLite file", True)):
                one, two = (
                    sweep_seconds(folder, workers, sqlite, arguments.trials, arguments.steps) for workers in (1, 2)
                )
                ratios[label].append(one / two)
            one, two = (alone_seconds(folder, at_once, 4 * arguments.steps) for at_once in (1, 2))
            ratios["two processes that share nothing"].append(2.0 * one / two)
            print(json.dumps({label: round(values[-1], 2) for label, values in ratios.items()}), flush=True)
    for label, values in ratios.items():
        print(f"{label:34} {statistics.median(values):.2f} times, {min(values):.2f} to {max(values):.2f}")


if __name__ == "__main__":
    main()
