"""What pruning saves on the packaged sample's default search, and what it costs: see README.md beside this file.

    python experiments/2026-11-24_Pruning/pruning.py OUTPUTS run [--ways WAY ...]   sweeps that are not there yet
    python experiments/2026-11-24_Pruning/pruning.py OUTPUTS table                  what came out
    python experiments/2026-11-24_Pruning/pruning.py OUTPUTS replay SWEEP           rules on the same, unpruned trials

Every seed stands for the sampler's and for the trainings'. A sweep has one worker of one thread, so that it does the
same whatever else runs; two sweeps run side by side.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[2]


WAYS = {
    "none": ["search.pruner=none", "training.patience=0"],  # every trial to its last step
    "loss": ["search.prune_on=[eval/loss]", "training.patience=0"],  # the median pruner on the loss alone
    "default": [],  # as conf/search/profit.yaml has it
}


def sweep(outputs: Path, way: str, seed: int, trials: int) -> None:
    """The default search, pruned in one of the ways."""
    name = f"{way}-seed{seed}"
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        "-m",
        "search=profit",
        "stocks=sample5",
        *WAYS[way],
        f"search.name={name}",
    ]
    command += [f"search.seed={seed}", f"search.seeds=[{seed}]", "training.threads=1", f"output_dir={outputs}"]
    with (outputs / f"{name}.txt").open("w") as log:
        done = subprocess.run([*command, f"hydra.sweeper.n_trials={trials}"], stdout=log, stderr=subprocess.STDOUT)
    print(f"{name}: ended with {done.returncode}", flush=True)


def hypervolume(points: np.ndarray, worst: np.ndarray) -> float:
    """The area between a front of two costs and a point that is worse than all of it."""
    area, height = 0.0, worst[1]
    for loss, cost in points[np.argsort(points[:, 0])]:
        if loss < worst[0] and cost < height:
            area += (worst[0] - loss) * (height - cost)
            height = cost
    return area


def row_of(folder: Path) -> dict[str, float]:
    """A finished sweep in numbers."""
    summary = json.loads((folder / "sweep.json").read_text())
    trials = pd.read_parquet(folder / "trials.parquet")
    able = trials[trials["feasible"]]
    costs = np.column_stack([able["eval/loss"], -able["profit/sharpe_ratio"]])
    return {
        "steps": summary["steps"]["trained"],
        "saved": 1.0 - summary["steps"]["trained"] / summary["steps"]["unpruned"],
        "complete": int((trials["state"] == "complete").sum()),
        "best loss": able["eval/loss"].min(),
        "best Sharpe": able["profit/sharpe_ratio"].max(),
        "hypervolume": 100.0 * hypervolume(costs, np.array([0.312, 3.0])),
        "seconds": trials["seconds"].sum(),
    }


def curves_of(folder: Path) -> list[np.ndarray]:
    """Loss and Sharpe ratio at each probe of every complete trial of a sweep, in the trials' order: (probes, 2)."""
    curves = []
    for place in sorted(path.parent for path in folder.glob("trial-*/result.json")):
        lines = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
        probes = [line for line in lines if "eval/loss" in line]
        curves.append(np.array([[line["eval/loss"], line["profit/sharpe_ratio"]] for line in probes]))
    return curves


def replayed(curves: list[np.ndarray], metrics: list[int], patience: int, startup: int = 4) -> dict[str, float]:
    """What the median rule on these metrics and this patience would have made of trials that ran to their end.

    metrics: 0 the loss, 1 the Sharpe ratio; none prunes nothing. The points stay those of the unpruned sweep.
    """
    sign = np.array([1.0, -1.0])
    seen: list[list[np.ndarray]] = []
    kept, steps, complete = [], 0, 0
    for curve in curves:
        reached: list[np.ndarray] = []
        best, is_pruned = 0, False
        for number, probe in enumerate(curve):
            best = number if probe[0] < curve[best][0] else best
            reached.append(sign * curve[best])
            others = [other[number] for other in seen if len(other) > number]
            if metrics and complete >= startup and others:
                is_pruned = all(reached[-1][m] > np.median([other[m] for other in others]) for m in metrics)
            if is_pruned or (patience and number - best >= patience):
                break
        seen.append(reached)
        steps += len(reached)
        if not is_pruned:
            complete += 1
            kept.append(curve[best])
    found = np.array(kept)
    whole = np.array([curve[curve[:, 0].argmin()] for curve in curves])
    return {
        "saved": 1.0 - steps / sum(len(curve) for curve in curves),
        "complete": complete,
        "best loss": found[:, 0].min(),
        "of all": whole[:, 0].min(),
        "best Sharpe": found[:, 1].max(),
        "of all ": whole[:, 1].max(),
    }


def main() -> None:
    """Run or tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outputs", type=Path)
    parser.add_argument("do", choices=("run", "table", "replay"))
    parser.add_argument("sweep", nargs="?", help="to replay: a sweep that was not pruned")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--at-once", type=int, default=2)
    arguments = parser.parse_args()
    outputs = arguments.outputs.resolve()
    outputs.mkdir(parents=True, exist_ok=True)
    wanted = [(way, seed) for way in arguments.ways for seed in arguments.seeds]
    if arguments.do == "run":
        with ThreadPoolExecutor(arguments.at_once) as pool:
            for way, seed in wanted:
                if not (outputs / "sweeps" / f"{way}-seed{seed}" / "sweep.json").exists():
                    pool.submit(sweep, outputs, way, seed, arguments.trials)
        return
    if arguments.do == "replay":
        curves = curves_of(outputs / "sweeps" / arguments.sweep)
        print("best probe of each trial:", [int(curve[:, 0].argmin()) + 1 for curve in curves])
        rules: dict[str, list[int]] = {"nothing": [], "loss": [0], "loss and Sharpe": [0, 1]}
        told = {
            f"{name}, patience {p}": replayed(curves, rule, p) for name, rule in rules.items() for p in (0, 1, 2, 3)
        }
        print(pd.DataFrame(told).T.round(5).to_string())
        return
    rows = {f"{way}, seed {seed}": row_of(outputs / "sweeps" / f"{way}-seed{seed}") for way, seed in wanted}
    print(pd.DataFrame(rows).T.round(4).to_string())


if __name__ == "__main__":
    main()
