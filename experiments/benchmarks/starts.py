"""How much CPU a start costs: help and tab completion, beside bare Python and `import torch` on the same machine.

    python experiments/benchmarks/starts.py

For each command: the median of five starts in user plus system CPU seconds, and its ratio to bare Python and to torch.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TRAIN = str(ROOT / "train.py")
STARTS = 5
LINE = "python train.py model="
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "python train.py --help": [TRAIN, "--help"],
    "python -m hftraining --help": ["-m", "hftraining", "--help"],
    "tab completion": [TRAIN, "-sc", "query=bash"],
}


def seconds(words: list[str], folder: str) -> float:
    """The user plus system CPU seconds of one start."""
    variables = os.environ | {"PYTHONPATH": str(ROOT), "COMP_LINE": LINE, "COMP_POINT": str(len(LINE))}
    before = os.times()
    subprocess.run([sys.executable, *words], cwd=folder, env=variables, check=True, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    """Measure and print a line for each command."""
    with tempfile.TemporaryDirectory() as folder:
        for words in COMMANDS.values():  # compile and cache once
            seconds(words, folder)
        medians = {
            name: statistics.median(seconds(words, folder) for _ in range(STARTS)) for name, words in COMMANDS.items()
        }
    python, torch, *_ = medians.values()
    print(f"{'':28}  {'CPU s':>6}  {'x python':>8}  {'x torch':>8}")
    for name, median in medians.items():
        print(f"{name:28}  {median:6.2f}  {median / python:8.1f}  {median / torch:8.2f}")


if __name__ == "__main__":
    main()
