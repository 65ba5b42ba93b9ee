"""What a run costs on 300, 1,000 and 5,000 symbols, phase by phase: `python experiments/benchmarks/scale.py`.

Bars are random walks of 2,500 sessions with holes and late listings, written as one parquet file. Each size is a child
process with one thread that goes through a whole run (20 steps, one probe) after a small one has warmed it up. The
table has CPU seconds and the highest resident memory within each phase; an exponent of 1 is linear growth between two
sizes. The child replaces no code of the run: it only times the calls of the functions in PHASES.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

SIZES, SESSIONS, STEPS = (300, 1000, 5000), 2500, 20
SMALL, SMALL_SESSIONS = 12, 700  # of the run that loads and compiles everything
STOCKS_A_GROUP = 100  # of rows in the parquet file
HOLES, LATE = 0.005, 0.2  # shares: of bars that are missing, of symbols that are listed late
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

# Phase, module, function within it. What happens within a phase of the first kind counts as that phase's alone.
WHOLE = [("leak proof", "experiment.prepare", "prove"), ("a probe", "experiment.probe", "ValidationProbe.__call__")]
PHASES = [
    *WHOLE,
    ("bars", "experiment.prepare", "load_bars"),
    ("ground, the rest", "experiment.prepare", "lay"),
    ("features", "experiment.ground", "make_features"),
    ("labels", "experiment.ground", "make_labels"),
    ("scaled features", "experiment.ground", "lesson_of"),
    ("baselines", "experiment.ground", "baseline_weights"),
    ("windows", "experiment.ground", "windows_of"),
    ("training, the rest", "experiment.run", "fit"),
    ("a step", "training.trainer", "Trainer._step"),
    ("end, the rest", "experiment.run", "conclude"),
    ("forecasts", "experiment.periods", "Period.forecast"),
    ("losses", "experiment.conclude", "score_losses"),
    ("judging, the rest", "experiment.conclude", "judge"),
    ("null bands", "experiment.judging", "null_band"),
    ("intervals", "experiment.judging", "sharpe_interval"),
    ("intervals", "experiment.judging", "sharpe_difference"),
    ("verdict", "experiment.ledger_row", "LedgerRow.judge"),
    ("report", "experiment.conclude", "write_report"),
]
REST = "folder and ledger"
ONE_OF_MANY = ("a probe", "a step")


class Stopwatch:
    """CPU seconds and highest memory in MB of each phase; what a phase within another takes is not the other's."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.peak: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self.stack = [REST]
        self.since = time.process_time()

    def switch(self) -> None:
        """Charge what was used since the last switch to the phase that runs."""
        now, name = time.process_time(), self.stack[-1]
        self.seconds[name] += now - self.since
        self.peak[name] = max(self.peak[name], highest_memory())
        self.since = time.process_time()

    def timed(self, name: str, function):
        """The same function, timed unless it runs within a whole phase."""

        def call(*arguments, **named):
            if self.stack[-1] in {whole for whole, *_ in WHOLE}:
                return function(*arguments, **named)
            self.switch()
            self.stack.append(name)
            self.calls[name] += 1
            try:
                return function(*arguments, **named)
            finally:
                self.switch()
                self.stack.pop()

        return call


def highest_memory() -> float:
    """MB that the process has held at most since the last call. Linux only."""
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")  # begins anew
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def write_bars(path: Path, n_symbols: int, n_sessions: int, seed: int = 0) -> None:
    """Random walks with a common market, holes and late listings, symbol after symbol, as one parquet file."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(seed)
    sessions_T = np.busday_offset(np.datetime64("2010-01-01"), np.arange(n_sessions), roll="forward")
    market_T = rng.normal(0.0003, 0.01, n_sessions)
    schema = pa.schema(
        [("symbol", pa.dictionary(pa.int32(), pa.string())), ("date", pa.date32())]
        + [(name, pa.float64()) for name in ("open", "high", "low", "close", "volume")]
    )
    names, waiting = pa.array([f"S{s:05}" for s in range(n_symbols)]), []
    with pq.ParquetWriter(path, schema) as writer:
        for s in range(n_symbols):
            close_T = 50.0 * np.exp(np.cumsum(market_T + rng.normal(0.0, 0.015, n_sessions)))
            open_T = np.r_[50.0, close_T[:-1]] * np.exp(rng.normal(0.0, 0.004, n_sessions))
            high_T = np.maximum(open_T, close_T) * np.exp(np.abs(rng.normal(0.0, 0.004, n_sessions)))
            low_T = np.minimum(open_T, close_T) * np.exp(-np.abs(rng.normal(0.0, 0.004, n_sessions)))
            volume_T = np.round(np.exp(rng.normal(14.0, 0.4, n_sessions)))
            first = int(rng.integers(0, n_sessions // 2)) if rng.random() < LATE else 0
            kept_N = np.flatnonzero((rng.random(n_sessions) >= HOLES) & (np.arange(n_sessions) >= first))
            code_N = pa.DictionaryArray.from_arrays(pa.array(np.full(len(kept_N), s, np.int32)), names)
            columns = [sessions_T[kept_N], *(of_T[kept_N] for of_T in (open_T, high_T, low_T, close_T, volume_T))]
            waiting.append(pa.table([code_N, *map(pa.array, columns)], schema=schema))
            if len(waiting) == STOCKS_A_GROUP or s == n_symbols - 1:
                writer.write_table(pa.concat_tables(waiting))
                waiting.clear()


def child(bars: Path, small: Path, overrides: list[str]) -> None:
    """One run, timed; prints a JSON object."""
    import importlib

    import torch

    from hftraining.experiment.compose import composed
    from hftraining.experiment.config import typed_config
    from hftraining.experiment.run import run_experiment

    torch.set_num_threads(1)
    settings = [f"training.max_steps={STEPS}", f"profit_tracker.every={STEPS}", "training.warmup_steps=2"]

    def run(path: Path, folder: str) -> None:
        typed = ["stocks=folder", f"stocks.path={path}", f"output_dir={folder}", f"evidence.ledger={folder}/ledger"]
        run_experiment(typed_config(composed([*settings, *typed, *overrides])), [])

    with tempfile.TemporaryDirectory() as folder:
        run(small, folder)
    watch = Stopwatch()
    for name, module, function in PHASES:
        owner = importlib.import_module(f"hftraining.{module}")
        *inside, last = function.split(".")
        for part in inside:
            owner = getattr(owner, part)
        setattr(owner, last, watch.timed(name, getattr(owner, last)))
    highest_memory()
    with tempfile.TemporaryDirectory() as folder:
        watch.since = time.process_time()
        run(bars, folder)
        watch.switch()
    print(json.dumps({"seconds": watch.seconds, "peak": watch.peak, "calls": watch.calls}))


def measured(n_symbols: int, overrides: list[str], verbose: bool) -> dict:
    """What a child process found out about one size."""
    alone = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "ARROW_NUM_THREADS"), "1")
    with tempfile.TemporaryDirectory() as folder:
        bars, small = Path(folder) / "bars.parquet", Path(folder) / "small.parquet"
        write_bars(bars, n_symbols, SESSIONS)
        write_bars(small, SMALL, SMALL_SESSIONS)
        command = [sys.executable, __file__, *overrides, "--child", str(bars), str(small)]
        own = os.environ | alone | {"XDG_STATE_HOME": folder, "XDG_CACHE_HOME": folder}
        answer = subprocess.run(command, env=own, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
        if verbose:
            print(answer.stdout)
        return json.loads(answer.stdout.splitlines()[-1])


def table(found: dict[int, dict]) -> list[str]:
    """Phase, then for each size its CPU seconds and highest memory, and between sizes the exponent of the seconds."""
    sizes = list(found)
    heads = [f"{size:>9,} CPU s {'MB':>7}" for size in sizes]
    lines = [f"{'phase':<20}" + "".join(heads) + "  exponents"]

    def line(name: str, seconds: list[float], peaks: list[float]) -> None:
        cells = [f"{second:15.2f} {peak:7,.0f}" for second, peak in zip(seconds, peaks, strict=True)]
        lines.append(f"{name:<20}" + "".join(cells) + "  " + exponents(sizes, seconds))

    each: dict[str, list[float]] = {}
    for name in [*dict.fromkeys(name for name, *_ in PHASES), REST]:
        parts = [one["calls"].get(name, 1) if name in ONE_OF_MANY else 1 for one in found.values()]
        all_calls = [one["seconds"].get(name, 0.0) for one in found.values()]
        each[name] = [seconds / part for seconds, part in zip(all_calls, parts, strict=True)]
        line(name, each[name], [one["peak"].get(name, 0.0) for one in found.values()])
    peaks = [max(one["peak"].values()) for one in found.values()]
    line("the run", [sum(one["seconds"].values()) for one in found.values()], peaks)
    lines.append(f"memory grows with the exponents {exponents(sizes, peaks)}")
    for size, probe, step in zip(sizes, each["a probe"], each["a step"], strict=True):
        lines.append(f"{size:,} symbols: a probe costs {probe / step:.1f} steps")
    return lines


def exponents(sizes: list[int], values: list[float]) -> str:
    """The slope of log value over log size, from each size to the next; - where a value is too small to say."""
    pairs = zip(sizes[:-1], values[:-1], sizes[1:], values[1:], strict=True)
    return " ".join(f"{math.log(w / v) / math.log(b / a):.2f}" if min(v, w) > 0.02 else "-" for a, v, b, w in pairs)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="of the run, e.g. model=tiny")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--verbose", action="store_true", help="what the run prints, too")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    parser.add_argument("--child", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child, options.overrides)
        return
    found = {size: measured(size, options.overrides, options.verbose) for size in options.sizes}
    if options.json:
        options.json.write_text(json.dumps(found))
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
