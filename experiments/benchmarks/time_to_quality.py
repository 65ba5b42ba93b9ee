"""How much CPU time a forecast as good as neuralforecast's takes: same target, same inputs, same validation cells.

    python experiments/benchmarks/time_to_quality.py --path us300_2005_2017.parquet --peer-python ~/peers/bin/python

The peer needs a Python of its own: `pip install torch neuralforecast`. One thread, CPU time; both learn from the days
of 2006 to 2012 and are scored on 2013; later days are not used. The stocks are those with a bar on every one of the
days, of which one is left out that half of the stocks of us300 lack (2011-02-17).

--target return: y of the next day, the log return of the close less the mean return of the day over the stocks, by the
stock's volatility of the 20 days before (objective.label=close, relative=mean, horizons=[1]), of which hardly anything
can be known. --target range: the log of the next day's log(high / low), in units of the training days, much of which
can: it shows how fast each learns what is there. The peer learns the series y from its last 60 values by its own
defaults, and is scored at each of its validations (every 100 steps). Ours reads the same column y over at most 60 days
(`small` with context 20: 58; `tiny` with 30: 59), and, apart, the 15 features of `basic`; its other values are those of
`python train.py` without the profit loss, and it is scored as often as NHITS, 10 times.

Scored alike by one function: the mean absolute error over all (day, stock) cells of the validation days, beside that of
the forecast 0, with the t of the daily difference, and the daily rank IC with its t. Seconds are CPU time of the
training steps and what lies between them, without validations (of either), imports, and the reading of data.

Legend: T sessions, S symbols, V validation sessions, N validations.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

# After the line above.
# ruff: noqa: E402
import numpy as np
import torch

from hftraining.core.bars import ARRAYS, Bars
from hftraining.evidence.scores import daily_rank_ic
from hftraining.experiment.baselines import lesson_of
from hftraining.experiment.compose import composed
from hftraining.experiment.config import typed_config
from hftraining.experiment.ground import untrained, windows_of
from hftraining.experiment.trainers import make_trainer
from hftraining.market.features.kernels import lag
from hftraining.market.features.names import BASIC
from hftraining.market.features.registry import feature
from hftraining.market.features.rows import VOLATILITY_ROWS, Rows
from hftraining.market.features.table import make_features
from hftraining.market.labels import make_labels
from hftraining.market.prices import load_bars
from hftraining.market.windows import Splits
from hftraining.training.checkpoint import Checkpoints

PEER = Path(__file__).with_name("peer_quality.py")
FIRST, FIRST_VALID, AFTER = "2006-01-01", "2013-01-01", "2014-01-01"
LEAST_PRESENT = 0.9  # of the stocks, on a day that counts
INPUT_SIZE, PROBES = 60, 10
SERIES = ()  # in place of the columns of ours: the series itself
OURS = {  # name -> words of the command line, and what it reads; the receptive field is at most INPUT_SIZE days
    "small": (("model=small", "model.context=20"), SERIES),
    "tiny": (("model=tiny", "model.context=30"), SERIES),
    "small, basic": (("model=small", "model.context=20"), BASIC),
}


@feature("series_return", inputs=["close", "market"], lookback=VOLATILITY_ROWS + 1)
def series_return(rows: Rows) -> np.ndarray:
    """Return of the day less the market's, by the volatility of the days before."""
    return (rows.return_SN - rows.on_days(rows.market_T)) / lag(rows.volatility_SN, 1)


@feature("series_range", inputs=["high", "low"], lookback=0)
def series_range(rows: Rows) -> np.ndarray:
    """Log of the day's range, log(high / low) plus a tenth of a percent so that a day without one is finite."""
    return np.log(np.log(rows.high_SN / rows.low_SN) + 0.001)


@dataclasses.dataclass(frozen=True)
class Curve:
    """What one training came to at each validation: seconds of CPU time so far, and forecasts_NVS of the next day."""

    steps: np.ndarray
    seconds: np.ndarray
    forecasts_NVS: np.ndarray

    def errors(self, label_VS: np.ndarray) -> np.ndarray:
        """error_N, the mean absolute error of each validation."""
        return np.array([np.abs(forecast_VS - label_VS).mean() for forecast_VS in self.forecasts_NVS])


def scored(forecast_VS: np.ndarray, label_VS: np.ndarray) -> dict[str, float]:
    """Mean absolute error, how much of it is less than that of the forecast 0, and rank IC; each t is over days."""
    less_V = (np.abs(label_VS) - np.abs(forecast_VS - label_VS)).mean(axis=1)
    ic_V = daily_rank_ic(forecast_VS, label_VS)
    ic_V = ic_V[np.isfinite(ic_V)]  # a day on which all forecasts are equal has none
    return {
        "mae": float(np.abs(forecast_VS - label_VS).mean()),
        "less": float(less_V.mean()),
        "less_t": _t(less_V),
        "ic": float(ic_V.mean()) if len(ic_V) else np.nan,
        "ic_t": _t(ic_V) if len(ic_V) > 1 else np.nan,
    }


def _t(value_V: np.ndarray) -> float:
    return float(value_V.mean() / value_V.std(ddof=1) * len(value_V) ** 0.5)


def bars_of(path: str) -> Bars:
    """The bars of the stocks that have one on every day, but for days that many lack."""
    words = ["stocks=folder", f"stocks.path={path}", "stocks.bad_rows=drop", f"stocks.valid_start='{FIRST_VALID}'"]
    bars = load_bars(typed_config(composed(words)).stocks)
    bars = bars.rows(slice(*np.searchsorted(bars.sessions_T, [np.datetime64(FIRST), np.datetime64(AFTER)])))
    present_T = bars.present_TS.mean(axis=1)
    kept = {name: getattr(bars, name)[present_T >= LEAST_PRESENT] for name in ("sessions_T", *ARRAYS)}
    bars = dataclasses.replace(bars, **kept)
    return bars.of([name for name, whole in zip(bars.symbols_S, bars.present_TS.all(axis=0), strict=True) if whole])


class Task:
    """One set of bars, the series y_TS that the peer learns, and labels_TSH of ours, which are y of the day after."""

    def __init__(self, bars: Bars, target: str):
        self.bars, self.series = bars, f"series_{target}"
        features = make_features(bars, [self.series])
        at, last = int(np.searchsorted(bars.sessions_T, np.datetime64(FIRST_VALID))), len(bars.sessions_T) - 1
        self.splits = Splits(slice(0, at - 1), slice(at - 1, last), slice(last, last + 1))  # days of decision
        y_TS = features.values_TSF[:, :, 0]
        if target == "range":  # in units of the training days, as labels of ours are
            y_TS = (y_TS - y_TS[:at].mean()) / y_TS[:at].std()
        first = int(np.flatnonzero(np.isfinite(y_TS).all(axis=1))[0])
        assert np.isfinite(y_TS[first:]).all()
        self.y_TS = y_TS[first:]
        self.labels_TSH = np.full((*y_TS.shape, 1), np.nan, np.float32)
        self.labels_TSH[:-1, :, 0] = y_TS[1:]
        self.label_VS = self.labels_TSH[self.splits.valid, :, 0]
        if target == "return":
            own_TSH = make_labels(bars, features.volatility_TS, [1], 1, "close", "mean")
            assert np.allclose(self.label_VS, own_TSH[self.splits.valid, :, 0], atol=1e-4, rtol=1e-4)

    def ours(self, words: tuple[str, ...], columns: tuple[str, ...], seed: int) -> Curve:
        """One training of ours, by the Trainer that every run has. Prints how good it is before the first step."""
        task = ["objective=forecast", "objective.label=close", "objective.relative=mean", "objective.horizons=[1]"]
        config = typed_config(composed([*task, "training.patience=0", f"seed={seed}", *words]))
        config.profit_tracker.every = config.training.max_steps // PROBES
        features = make_features(self.bars, columns or [self.series])
        forecaster = untrained(config, features, self.splits, "mean", self.bars.symbols_S)
        assert forecaster.receptive_field <= INPUT_SIZE
        lesson = lesson_of(config, features, forecaster.scaler, self.labels_TSH, self.splits.train)
        windows = windows_of(config, self.bars, lesson, forecaster)
        rows = slice(self.splits.valid.start - forecaster.receptive_field + 1, self.splits.valid.stop)
        middle, n_valid = config.objective.quantiles.index(0.5), len(self.label_VS)
        steps, seconds, forecasts, aside = [], [], [], [0.0]

        def forecast() -> np.ndarray:
            scaled_TSF = np.asarray(lesson.scaled_TSF[rows])
            quantiles_TSHQ, _ = forecaster.model.predict(scaled_TSF, lesson.known_TS[rows], "cpu")
            return quantiles_TSHQ[-n_valid:, :, 0, middle]

        def probe(step: int) -> dict[str, float]:
            stopped = time.process_time()
            steps.append(step)
            seconds.append(stopped - begun - aside[0])
            forecasts.append(forecast())
            aside[0] += time.process_time() - stopped
            return {"eval/loss": float(np.abs(forecasts[-1] - self.label_VS).mean())}

        with tempfile.TemporaryDirectory() as folder:
            trainer = make_trainer(config, forecaster.model, windows, probe, Checkpoints(Path(folder), durable=False))
            print(f"before the first step: MAE {np.abs(forecast() - self.label_VS).mean():.5f}", flush=True)
            begun = time.process_time()
            trainer.train(lambda step, values: None, lambda step, values: None)
        return Curve(np.array(steps), np.array(seconds), np.stack(forecasts))

    def peer(self, python: str, name: str, seed: int, max_steps: int) -> Curve:
        """One training of a model of neuralforecast, in a process of its own."""
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONPATH", None)
        with tempfile.TemporaryDirectory() as folder:
            given, out = Path(folder) / "y.npy", Path(folder) / "out.npz"
            np.save(given, self.y_TS)
            words = [len(self.label_VS), INPUT_SIZE, name, seed, max_steps]
            subprocess.run([python, PEER, given, *map(str, words), out], env=environment, cwd=folder, check=True)
            found = np.load(out)
            curve = Curve(found["steps"], found["seconds"], found["forecasts"])
            # What neuralforecast itself says its validation loss is, of the same forecasts.
            assert np.allclose(found["losses"], curve.errors(self.label_VS), atol=2e-4), "another validation loss"
        return curve


def said(name: str, curve: Curve, label_VS: np.ndarray) -> tuple[float, float]:
    """Print the best validation of a training; returns its error and seconds."""
    errors_N = curve.errors(label_VS)
    best = int(errors_N.argmin())
    found = scored(curve.forecasts_NVS[best], label_VS)
    print(
        f"{name}: best at step {curve.steps[best]} of {curve.steps[-1]}, {curve.seconds[best]:.1f} s (all "
        f"{curve.seconds[-1]:.1f} s): MAE {found['mae']:.5f}, {found['less']:+.5f} better than 0 (t "
        f"{found['less_t']:.1f}), rank IC {found['ic']:.4f} (t {found['ic_t']:.1f})",
        flush=True,
    )
    return float(errors_N[best]), float(curve.seconds[best])


def main() -> None:
    """Train the peers, then ours, and print when ours was as good."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", required=True, help="parquet or csv file of bars, e.g. us300")
    parser.add_argument("--target", choices=["return", "range"], default="return")
    parser.add_argument("--peer-python", help="a Python that has neuralforecast")
    parser.add_argument("--peers", nargs="*", default=["NHITS", "PatchTST"], help="models of neuralforecast")
    parser.add_argument("--peer-seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--peer-steps", type=int, default=0, help="at most, in place of the model's default")
    parser.add_argument("--ours", nargs="*", default=list(OURS), choices=list(OURS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--keep", type=Path, help="a JSON file of the curves' errors and seconds, added to")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = Task(bars_of(arguments.path), arguments.target)
    label_VS = task.label_VS
    print(f"{label_VS.shape[1]} stocks, {len(label_VS)} days; MAE of the forecast 0: {np.abs(label_VS).mean():.5f}")
    curves: dict[str, list] = (
        json.loads(arguments.keep.read_text()) if arguments.keep and arguments.keep.exists() else {}
    )

    def note(name: str, curve: Curve) -> None:
        said(name, curve, label_VS)
        curves.setdefault(name, []).append([curve.errors(label_VS).tolist(), curve.seconds.tolist()])
        if arguments.keep:
            arguments.keep.write_text(json.dumps(curves))

    for name in arguments.peers if arguments.peer_python else ():
        for seed in arguments.peer_seeds:
            note(name, task.peer(arguments.peer_python, name, seed, arguments.peer_steps))
    for name in arguments.ours:
        for seed in arguments.seeds:
            note(name, task.ours(*OURS[name], seed))
    for peer in (name for name in curves if name not in OURS):
        target = median(min(errors) for errors, _ in curves[peer])
        needed = median(seconds[int(np.argmin(errors))] for errors, seconds in curves[peer])
        for name in (name for name in curves if name in OURS):
            reached = [next((s for e, s in zip(*curve, strict=True) if e <= target), np.inf) for curve in curves[name]]
            shares = ", ".join(f"{seconds:.1f} s" if seconds < np.inf else "never" for seconds in reached)
            print(
                f"{name}: as good as {peer}'s {target:.5f} ({needed:.1f} s) after {shares}: "
                f"{needed / median(reached):.1f} times as fast"
            )


if __name__ == "__main__":
    main()
