"""Two one-thread processes beside one process of two threads: `python experiments/benchmarks/processes.py`.

Steps a second of the model of the other speed benchmarks (hidden 128, 4 layers, 8 heads, context 60, dropout 0.1) on
windows of 60 bars, 32 a step, of the packaged sample. The three take turns in rounds of a few steps, in wall time,
since the cores are what is shared out; it prints the median of each, and medians of the ratios within a round. On a
machine that is busy with something else the ratios count for less: see the load that it prints.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from hftraining.experiment.config import typed_config  # noqa: E402
from hftraining.experiment.crew import helped  # noqa: E402
from hftraining.experiment.fit import Fitting  # noqa: E402
from hftraining.experiment.ground import lay  # noqa: E402
from hftraining.market.prices import load_bars  # noqa: E402
from hftraining.training.checkpoint import Checkpoints  # noqa: E402
from hftraining.training.trainer import Trainer  # noqa: E402

MODEL = {"hidden_size": 128, "num_layers": 4, "num_heads": 8, "context": 60, "dropout": 0.1}
TRAINING = {"batch_size": 32, "window": 60, "symbols_per_window": 4}
ROUNDS, STEPS = 7, 6
WAYS = {"1 process, 1 thread": (1, 1), "1 process, 2 threads": (1, 2), "2 processes, 1 thread each": (2, 1)}


@contextmanager
def ready(processes: int, threads: int) -> Iterator[Trainer]:
    """A trainer whose helpers, if any, have begun with so many threads."""
    config = typed_config({"model": MODEL, "training": TRAINING | {"processes": processes}})
    ground = lay(config, load_bars(config.stocks))
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        fitting = Fitting.of(ground, Checkpoints(Path(folder)), [])
        assert fitting.trainer
        with helped(ground, fitting.trainer, fitting.started):
            yield fitting.trainer


def seconds_of(trainer: Trainer, threads: int, first: int) -> float:
    """Wall seconds of STEPS steps."""
    torch.set_num_threads(threads)
    started = time.perf_counter()
    for step in range(first, first + STEPS):
        trainer._shared_step(step)
    return time.perf_counter() - started


def main() -> None:
    """The three in turns."""
    one, two, shared = WAYS
    with ready(*WAYS[one]) as a, ready(*WAYS[two]) as b, ready(*WAYS[shared]) as c:
        trainers = {one: a, two: b, shared: c}
        rates: dict[str, list[float]] = {name: [] for name in WAYS}
        for number in range(ROUNDS + 1):  # the first is to warm up
            for name, trainer in trainers.items():
                rates[name].append(STEPS / seconds_of(trainer, WAYS[name][1], 1 + number * STEPS))
    print(f"load: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for name, found in rates.items():
        print(f"{name}: {statistics.median(found[1:]):.2f} steps/s")
    for name in (two, one):
        ratio = statistics.median(x / y for x, y in zip(rates[shared][1:], rates[name][1:], strict=True))
        print(f"{shared}: {ratio:.2f} times {name}")


if __name__ == "__main__":
    main()
