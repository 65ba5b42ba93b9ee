"""A study of a synthetic objective for this process to work on: -m tests.sweep_study FOLDER URL N_TRIALS SECONDS."""

import math
import sys
import time
from pathlib import Path

from hftraining.sweep.config import SearchConfig
from hftraining.sweep.serve import serve
from hftraining.sweep.space import Condition, Param
from hftraining.sweep.study import Study

OBJECTIVES = {"eval/loss": "minimize", "profit/sharpe_ratio": "maximize"}
SPACE = [
    Param("x", "interval(0.0, 1.0)", low=0.0, high=1.0),
    Param("kind", "choice(round, square)", choices={"round": "round", "square": "square"}),
    Param("edge", "range(1, 4)", low=1, high=3, step=1, whole=True, condition=Condition("kind", "=", "square")),
]


def search_config(url="", n_trials=20, **values):
    settings = {
        "name": "synthetic",
        "n_trials": n_trials,
        "objectives": OBJECTIVES,
        "constraints": {"profit/trade_count": ">= 20"},
        "params": {param.name: param.text for param in SPACE},
        "sampler": "random",
        "pruner": "none",
        "storage": url,
        "max_failures": 10_000,
    }
    return SearchConfig(**settings | values)


def metrics_at(x):
    """Loss falls and Sharpe falls with x: every point is on the front, but x below 0.2 breaks the constraint."""
    return {"eval/loss": 1.0 - x, "profit/sharpe_ratio": 1.0 - x**2, "profit/trade_count": 100.0 * x}


class Synthetic:
    """Takes some time, writes down each run that it begins and ends, and fails where it is told to."""

    def __init__(self, folder, seconds=0.0, failing=(), nan=()):
        self.log, self.seconds, self.failing, self.nan = folder / "runs.txt", seconds, failing, nan

    def __call__(self, number, point, watch, facts):
        self._write(f"begin {number}")
        assert ("edge" in point) == (point["kind"] == "square")
        facts["folders"] = [f"trial-{number:04d}"]
        time.sleep(self.seconds)
        if number in self.failing:
            raise ValueError(f"trial {number} was told to fail")
        metrics = metrics_at(point["x"])
        if number in self.nan:
            metrics["profit/sharpe_ratio"] = math.nan
        self._write(f"end {number}")
        return metrics

    def _write(self, line):
        with open(self.log, "a") as file:
            file.write(line + "\n")


def main():
    folder, url, n_trials, seconds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    study = Study(search_config(url, n_trials), folder)
    study.agree({"objectives": OBJECTIVES}, [])
    print(serve(study, SPACE, {}, Synthetic(folder, seconds)), flush=True)


if __name__ == "__main__":
    main()
