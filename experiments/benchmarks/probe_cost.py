"""The cost of a validation probe beside 100 training steps: `python experiments/benchmarks/probe_cost.py`.

Runs the default run (model=small stocks=sample) in this process, times each step and each probe, and prints the
ratio of their medians. A probe is one forward pass over the validation days, the whole portfolio through the fill
engine, and all metrics.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from hftraining.experiment.config import typed_config  # noqa: E402
from hftraining.experiment.probe import ValidationProbe  # noqa: E402
from hftraining.experiment.run import run_experiment  # noqa: E402
from hftraining.training.trainer import Trainer  # noqa: E402


def timed(function, seconds):
    """The function, with the seconds of each call appended to a list."""

    def call(*arguments):
        started = time.perf_counter()
        result = function(*arguments)
        seconds.append(time.perf_counter() - started)
        return result

    return call


def main() -> None:
    """One run, timed."""
    steps: list[float] = []
    probes: list[float] = []
    Trainer._step = timed(Trainer._step, steps)
    ValidationProbe.__call__ = timed(ValidationProbe.__call__, probes)
    with tempfile.TemporaryDirectory() as folder:
        values = {"output_dir": folder, "training": {"max_steps": 300}, "profit_tracker": {"every": 20}}
        run_experiment(typed_config(values), [])
    step, probe = statistics.median(steps[20:]), statistics.median(probes[1:])
    print(f"median of {len(steps) - 20} steps: {1e3 * step:.1f} ms")
    print(f"median of {len(probes) - 1} probes: {1e3 * probe:.1f} ms")
    print(f"a probe costs {probe / (100 * step):.2%} of 100 steps")


if __name__ == "__main__":
    main()
