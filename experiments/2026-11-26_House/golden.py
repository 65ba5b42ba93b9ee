"""The golden record: the same commands in two source trees must give the same weights and numbers.

    python golden.py write --tree OLD_CHECKOUT      # golden.json, beside this file
    python golden.py check --tree NEW_CHECKOUT      # compares with golden.json; exits with 1 on a difference

It takes about three minutes on one core. Each run has one thread and its own outputs folder below a temporary one.
The numbers depend on the machine's vector unit, so write and check on the same machine.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors.numpy import load_file

HERE = Path(__file__).resolve().parent
GOLDEN = HERE / "golden.json"
SMALL = ["model=tiny", "training.max_steps=60", "training.threads=1", "profit_tracker.every=20"]
RUNS = {
    "default": [],
    "profit": ["objective=profit"],
    "bf16": ["training.precision=bf16"],
    "relative": ["objective.relative=mean"],
    "lightgbm": ["evidence.baselines=[lightgbm,ridge,momentum]"],
    "cross_asset": ["model.cross_asset=true"],
    "top_k_lag_2": ["profit_tracker.policy=top_k", "profit_tracker.lag=2"],
    "one_stock": ["stocks.symbols=[AAPL]", "training.symbols_per_window=1", "training.patience=1"],
}


def command(tree: Path, *arguments: str) -> list[str]:
    """The command line of a tree's train.py."""
    return [sys.executable, str(tree / "train.py"), *arguments]


def run(tree: Path, work: Path, *arguments: str) -> str:
    """Run train.py to its end; returns the run folder that its last line names."""
    answer = subprocess.run(command(tree, *arguments), cwd=work, capture_output=True, text=True)
    if answer.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {answer.returncode}:\n{answer.stderr[-2000:]}")
    return answer.stdout.strip().splitlines()[-1].removeprefix("run: ")


def killed_and_resumed(tree: Path, work: Path) -> str:
    """A run that SIGKILL ends after its fourth checkpoint and that is then resumed."""
    arguments = [*SMALL, "training.checkpoint_every=10", "output_dir=resumed"]
    process = subprocess.Popen(command(tree, *arguments), cwd=work, stdout=subprocess.DEVNULL)
    while not list(work.glob("resumed/base/*/*/checkpoints/step_00000040")):
        if process.poll() is not None:
            raise SystemExit("the run to be killed ended too early")
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (folder,) = work.glob("resumed/base/*/*")
    return run(tree, work, f"resume={folder.relative_to(work)}")


def weights(folder: Path) -> str:
    """sha256 of all tensors of a model folder, independent of their order in the file."""
    digest = hashlib.sha256()
    for name, array in sorted(load_file(folder / "model.safetensors").items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def numbers(value: object, path: str = "") -> dict[str, float]:
    """All numbers of a JSON value by their dotted paths, without texts and nulls."""
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in numbers(item, f"{path}.{key}" if path else key).items()}
    if isinstance(value, list):
        return {k: v for i, item in enumerate(value) for k, v in numbers(item, f"{path}.{i}").items()}
    return {} if value is None or isinstance(value, str) else {path: value}


def seen(folder: Path) -> dict[str, object]:
    """The weights, signature and numbers of a run."""
    result = json.loads((folder / "result.json").read_text())
    return {
        "weights": weights(folder / "model"),
        "signature": result["signature"],
        "numbers": numbers({key: value for key, value in result.items() if key != "base"}),
        "candidates": {path.parent.name: weights(path) for path in sorted(folder.glob("candidates/*/model"))},
    }


def record(tree: Path, only: list[str]) -> dict[str, object]:
    """Run everything; returns what `seen` gives of each run."""
    os.environ["GOMP_SPINCOUNT"] = "3000"
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        for name, arguments in RUNS.items():
            if only and name not in only:
                continue
            found[name] = seen(work / run(tree, work, *SMALL, *arguments, f"output_dir={name}"))
            print(name, flush=True)
        if only:
            return found
        (base,) = work.glob("default/base/*/*")
        tuned = [f"init_from={base.relative_to(work)}", "stocks.symbols=[MSFT]", "training.max_steps=40"]
        found["finetune"] = seen(work / run(tree, work, *tuned, "profit_tracker.every=20", "output_dir=default"))
        print("finetune", flush=True)
        found["resumed"] = seen(work / killed_and_resumed(tree, work))
        print("resumed", flush=True)
        search = ["-m", "search=profit", "hydra.sweeper.n_trials=4", *SMALL, "output_dir=sweep"]
        found["sweep"] = seen(work / run(tree, work, *search))
        for folder in sorted(work.glob("sweep/sweeps/*/trial-*")):
            if (folder / "result.json").is_file():
                found[f"sweep {folder.name}"] = seen(folder)
        print("sweep", flush=True)
    return found


def differences(ours: object, theirs: object, path: str = "") -> list[str]:
    """The differences, one a line."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        lines = [f"{path}{key} is in one of them only" for key in sorted(ours.keys() ^ theirs.keys())]
        for key in ours.keys() & theirs.keys():
            lines += differences(ours[key], theirs[key], f"{path}{key}: ")
        return lines
    return [] if ours == theirs else [f"{path}{theirs} became {ours}"]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=("write", "check"))
    parser.add_argument("--tree", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=[], choices=list(RUNS), help="check these runs alone")
    options = parser.parse_args()
    found = json.loads(json.dumps(record(options.tree.resolve(), options.only)))
    if options.do == "write":
        GOLDEN.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
        return 0
    golden = {name: run for name, run in json.loads(GOLDEN.read_text()).items() if not options.only or name in found}
    lines = differences(found, golden)
    print("\n".join(sorted(lines)) if lines else f"equal to the bit: {len(found)} runs")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
