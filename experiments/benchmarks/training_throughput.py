"""A training step and its forecasts at equal size beside PatchTST of two libraries, and the share of the matrix peak.

    python experiments/benchmarks/training_throughput.py --peer-python ~/peers/bin/python

The peers need a Python of their own: `pip install torch transformers accelerate neuralforecast`. One thread, CPU time,
medians. Hidden 128, 4 layers, 8 heads, feed-forward 512, windows of 60 bars, 32 a step, dropout 0.1.

What is unequal: ours reads all 15 features of a bar, the peers one series (their channels are windows of their own: 15
would cost them 15 times as much); ours forecasts two horizons and a position at each of the 60 bars, theirs one horizon
once a window; their data loading and logging is in their steps, and ours, with clipping and the profit loss, in ours;
neuralforecast clips nothing and reads 61 tokens. Their forecasts are timed without what their own predict adds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from hftraining.experiment.config import typed_config  # noqa: E402
from hftraining.experiment.ground import lay  # noqa: E402
from hftraining.experiment.trainers import make_trainer  # noqa: E402
from hftraining.market.prices import load_bars  # noqa: E402
from hftraining.model import layers  # noqa: E402
from hftraining.model.noise import noise  # noqa: E402
from hftraining.training.checkpoint import Checkpoints  # noqa: E402
from hftraining.training.trainer import Trainer  # noqa: E402

WINDOW, BATCH, PEAK_SIDE = 60, 32, 2048
PEERS = Path(__file__).with_name("peer_patchtst.py")


def trainer_at(precision: str, folder: Path, compiled: bool) -> Trainer:
    """A real trainer of the packaged sample at the size of the benchmark."""
    config = typed_config(
        {
            "model": {"hidden_size": 128, "num_layers": 4, "num_heads": 8, "context": WINDOW, "dropout": 0.1},
            "training": {
                "window": WINDOW,
                "batch_size": BATCH,
                "precision": precision,
                "compile": compiled,
                "max_steps": 10_000,
            },
        }
    )
    ground = lay(config, load_bars(config.stocks))
    return make_trainer(config, ground.forecaster.model, ground.windows, lambda step: {}, Checkpoints(folder))


class Parts:
    """One trainer, whose step and whose model alone can be called again and again."""

    def __init__(self, trainer: Trainer):
        self.trainer, self.taken = trainer, 0
        batch = trainer.sampler.batch(1, 1)
        self.given = [torch.from_numpy(part) for part in (batch.x_WKLF, batch.present_WKL, batch.symbol_WK)]
        self.bars = batch.present_WKL.size
        with self._context(1):
            outputs = trainer.forward(*self.given)
        self.gradients = [torch.randn_like(output) / output.numel() for output in outputs]

    def _context(self, step: int):
        return noise(self.trainer.model.train(), 1, step, range(len(self.given[0])))

    def step(self) -> None:
        """All of a training step, its loss read as for a log line."""
        self.taken += 1
        values = self.trainer._step(self.taken)
        float(torch.as_tensor(values["train/loss"]))

    def model(self) -> None:
        """Forward and backward pass alone."""
        is_bf16 = self.trainer.config.precision == "bf16"
        with self._context(1), torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
            outputs = self.trainer.forward(*self.given)
        torch.autograd.backward(outputs, self.gradients)

    def flops(self) -> int:
        """Of the matrix products of a step's forward and backward pass, counted in torch's plain operators."""
        before, layers.MOST_THREADS = layers.MOST_THREADS, 0  # the counter does not see products into given memory
        with FlopCounterMode(display=False) as counter:
            self.model()
        layers.MOST_THREADS = before
        return counter.get_total_flops()


def spent(function, times: int = 1) -> float:
    """Seconds of CPU time of one call, the mean of several in a row."""
    begin = time.process_time()
    for _ in range(times):
        function()
    return (time.process_time() - begin) / times


def measure(precision: str, rounds: int, folder: Path, compiled: bool) -> dict[str, float]:
    """Medians over the rounds, in which step, model and matrix peak take turns."""
    parts = Parts(trainer_at(precision, folder, compiled))
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.randn(PEAK_SIDE, PEAK_SIDE, dtype=kind) for _ in range(2))
    for _ in range(3):
        parts.step()
        parts.model()
    seconds: dict[str, list[float]] = {"step": [], "model": [], "peak": []}
    for _ in range(rounds):
        seconds["step"].append(spent(parts.step, 2))
        seconds["model"].append(spent(parts.model, 2))
        seconds["peak"].append(spent(lambda: torch.mm(left, right)))
    step, model, peak = (statistics.median(seconds[name]) for name in ("step", "model", "peak"))
    rate = 2 * PEAK_SIDE**3 / peak
    return {
        "step_ms": 1e3 * step,
        "windows": BATCH / step,
        "model_ms": 1e3 * model,
        "peak_gflops": rate / 1e9,
        "share_of_step": parts.flops() / step / rate,
        "share_of_model": parts.flops() / model / rate,
        "outside": 1 - model / step,
    }


def forecasts_a_second(rounds: int, folder: Path) -> float:
    """Bars of 24 stocks over 1,500 days, each forecast once, by the face that every forecast takes."""
    model = trainer_at("fp32", folder, compiled=False).model
    n_sessions, n_symbols = 1500, 24
    scaled_TSF = np.random.default_rng(0).normal(size=(n_sessions, n_symbols, 15)).astype(np.float32)
    known_TS = np.ones((n_sessions, n_symbols), bool)
    model.predict(scaled_TSF[:200], known_TS[:200], "cpu")
    seconds = [spent(lambda: model.predict(scaled_TSF, known_TS, "cpu")) for _ in range(rounds)]
    return n_sessions * n_symbols / statistics.median(seconds)


def peers(python: str, n_steps: int) -> dict[str, dict[str, list[float]]]:
    """What peer_patchtst.py measures, in a process of its own."""
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    one_thread.pop("PYTHONPATH", None)
    answer = subprocess.run(
        [python, str(PEERS), str(n_steps)], env=one_thread, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(answer.stdout.strip().splitlines()[-1])


def main() -> None:
    """Measure and print, ours and the peers'."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="a Python that has transformers, accelerate and neuralforecast")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--compile", action="store_true", help="ours by torch.compile")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        ours = {name: measure(name, arguments.rounds, Path(folder), arguments.compile) for name in arguments.precisions}
        rate = forecasts_a_second(5, Path(folder))
    for name, found in ours.items():
        print(
            f"{name}: a step {found['step_ms']:.1f} ms, {found['windows']:.0f} windows a second; model alone "
            f"{found['model_ms']:.1f} ms; peak {found['peak_gflops']:.1f} GFLOP/s, of which a step reaches "
            f"{found['share_of_step']:.1%}, the model {found['share_of_model']:.1%}; outside the model "
            f"{found['outside']:.1%} of a step"
        )
    print(f"forecasts: {rate:,.0f} a second")
    if not arguments.peer_python:
        return
    for name, times in peers(arguments.peer_python, max(5, arguments.rounds)).items():
        step, forecast = (statistics.median(times[part]) for part in ("train", "forecast"))
        windows = 1e3 * BATCH / step
        ratios = ", ".join(f"{kind} {found['windows'] / windows:.2f} times" for kind, found in ours.items())
        print(
            f"{name}: a step {step:.1f} ms, {windows:.0f} windows a second (ours: {ratios}); forecasts "
            f"{1e3 * BATCH / forecast:,.0f} a second (ours: {rate / (1e3 * BATCH / forecast):.0f} times)"
        )


if __name__ == "__main__":
    main()
