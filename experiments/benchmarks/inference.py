"""What a trained run costs at work: a backtest of 300 stocks x 1,000 sessions, and `forecast` for 500 symbols.

    python experiments/benchmarks/inference.py [--runs 3] [--threads 2] [--json FILE] [words, such as model=base]

Bars are those of scale.py: random walks with holes and late listings, each set one parquet file. A run of model=small
learns for a few steps from 12 stocks over 700 sessions (its weights do not matter), and then works on other stocks by
stocks.path. Everything happens in a child process, in process, after a backtest and a forecast of the
12 stocks: imports are over, and numba has compiled or taken what it needs from its cache. Three lots are printed:

- backtest: of the 1,000 sessions after the run's days, with 700 before them, the evidence, ledger row and page; the
  file is read anew (nothing is kept of it). Wall clock and CPU of all threads, part by part.
- forecast: of 500 symbols with 2,500 sessions, with the default portfolio and with one that forgets everything
  (portfolio.smoothing=0 portfolio.trade_rate=1). `read anew`: on a first day, the file is read and every session is
  forecast. `first call`: the bars are kept in the cache, no forecast is. `next day`: as it is on every day but the
  first, each call decides a session after the one before it. The sessions that the portfolio runs over stand beside.
- what is beyond the parts is named `the rest`.

Medians of --runs calls. The child replaces no code of the product: it only times the calls of the functions in PARTS.
"""

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "experiments" / "benchmarks")]

# After the line above.
# ruff: noqa: E402
from scale import SMALL, SMALL_SESSIONS, write_bars

BACKTEST, FORECAST = (300, SMALL_SESSIONS + 1000), (500, 2500)  # symbols, sessions
THREADS = 2
FORGETFUL = ("portfolio.smoothing=0", "portfolio.trade_rate=1")
SETTLED = 2.1  # seconds: files that were just written are not kept
REST = "the rest"

# Part, module, function within it.
PARTS = [
    ("model", "hfinference.forecast", "load_model"),
    ("model", "hfinference.backtest", "load_model"),
    ("reading", "hfinference.forecast", "bars_of_run"),
    ("reading", "hfinference.backtest", "bars_of_run"),
    ("features", "hfinference.trained", "make_features"),
    ("labels", "hfinference.backtest", "make_labels"),
    ("kept forecasts", "hfinference.forecast", "kept_forecast"),
    ("forecasts", "hfinference.forecast", "forecast_of"),
    ("forecasts", "hfinference.backtest", "forecast_of"),
    ("weights", "hftraining.profit_tracker", "ProfitTracker.weights"),
    ("engine", "hftraining.experiment.judging", "simulate"),
    ("engine", "hftraining.profit_tracker", "ProfitTracker.trade"),
    ("null band", "hftraining.experiment.judging", "null_band"),
    ("bootstrap", "hftraining.experiment.judging", "sharpe_interval"),
    ("bootstrap", "hftraining.experiment.judging", "sharpe_difference"),
    ("baselines", "hfinference.backtest", "lesson_of"),
    ("baselines", "hfinference.backtest", "baseline_weights"),
    ("scores", "hfinference.backtest", "with_scores"),
    ("verdict", "hfinference.judged", "decide"),
    ("report", "hfinference.judged", "write_report"),
    ("table, orders", "hfinference.forecast", "_table"),
]


class Stopwatch:
    """Wall clock and CPU seconds of each part; what a part within another takes is not the other's."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Anew."""
        self.wall: dict[str, float] = defaultdict(float)
        self.cpu: dict[str, float] = defaultdict(float)
        self.stack = [REST]
        self.since = time.perf_counter(), time.process_time()

    def switch(self) -> None:
        """Charge what was used since the last switch to the part that runs."""
        now = time.perf_counter(), time.process_time()
        self.wall[self.stack[-1]] += now[0] - self.since[0]
        self.cpu[self.stack[-1]] += now[1] - self.since[1]
        self.since = now

    def timed(self, name: str, function):
        """The same function, timed."""

        def call(*arguments, **named):
            self.switch()
            self.stack.append(name)
            try:
                return function(*arguments, **named)
            finally:
                self.switch()
                self.stack.pop()

        return call

    def found(self) -> dict:
        """The parts since the beginning."""
        self.switch()
        return {"wall": dict(self.wall), "cpu": dict(self.cpu)}


def watched() -> Stopwatch:
    """A stopwatch on all of PARTS."""
    watch = Stopwatch()
    for name, module, function in PARTS:
        owner = importlib.import_module(module)
        *inside, last = function.split(".")
        for part in inside:
            owner = getattr(owner, part)
        setattr(owner, last, watch.timed(name, getattr(owner, last)))
    return watch


def trained(bars: Path, folder: Path, threads: int, words: list[str]) -> Path:
    """The folder of a run that took a few steps, with little evidence; a backtest is asked for the usual."""
    from hftraining.experiment.compose import composed
    from hftraining.experiment.config import typed_config
    from hftraining.experiment.run import run_experiment

    settings = ["training.max_steps=4", "training.warmup_steps=2", "training.patience=0", "profit_tracker.every=4"]
    typed = ["stocks=folder", f"stocks.path={bars}", f"training.threads={threads}", f"output_dir={folder}/outputs"]
    few = ["evidence.null_draws=40", "evidence.bootstrap_draws=100", "evidence.baselines=[]", "evidence.leak_days=1"]
    few += ["training.batch_size=2", "training.window=128", "training.symbols_per_window=4"]
    done = run_experiment(typed_config(composed([*settings, *typed, *few, *words])), [])
    return Path(done.folder)


def child(folder: Path, n_runs: int, words: list[str]) -> None:
    """Everything that is timed; prints a JSON object."""
    import numpy as np
    import torch

    from hfinference import backtest_model, load_model
    from hfinference.forecast import forecast_next
    from hfinference.kept_forecasts import ROOM
    from hftraining.evidence.config import EvidenceConfig
    from hftraining.experiment.compose import override

    threads = torch.get_num_threads()
    run = trained(folder / "small.parquet", folder, threads, words)
    usual = EvidenceConfig()
    full = [
        override(f"evidence.{name}", getattr(usual, name)) for name in ("null_draws", "bootstrap_draws", "baselines")
    ]
    last = load_model(run).days["test"]
    watch, found = watched(), defaultdict(list)

    def note(name: str, facts: dict) -> None:
        found[name].append(watch.found() | facts)
        print(f"{name}: {sum(found[name][-1]['cpu'].values()):.2f} s of CPU", file=sys.stderr)

    def backtest(name: str, start: str, more: list[str]) -> None:
        watch.begin()
        done = backtest_model(run, start, words=[*full, *more], outputs=folder / "again")
        note(name, {"sessions": done.period.days})

    def forecast(name: str, more: list[str], date: str | None = None) -> None:
        watch.begin()
        done = forecast_next(run, date, words=more)
        note(name, {"since": done.since, "day": done.day})

    backtest("warm", last[0], [])
    forecast("warm", [])
    forecast("warm", list(FORGETFUL))
    after = next_day(last[1])
    days = [str(day) for day in np.busday_offset("2010-01-01", np.arange(FORECAST[1])[-n_runs - 1 :], roll="forward")]
    anew = "stocks.cache=false"
    time.sleep(SETTLED)
    asked = f"stocks.path={folder / 'forecast.parquet'}"
    kept, aside = folder / "hftraining" / ROOM, folder / "aside"
    forecast("filling", [asked], days[0])
    for day in days[1:]:
        for name, more in (("default portfolio", ()), ("memoryless", FORGETFUL)):
            forecast(f"forecast, {name}, next day", [asked, *more], day)
            kept.rename(aside)
            forecast(f"forecast, {name}, first call", [asked, *more], day)
            shutil.rmtree(kept, ignore_errors=True)
            forecast(f"forecast, {name}, read anew", [asked, anew, *more], day)
            shutil.rmtree(kept, ignore_errors=True)
            aside.rename(kept)
        backtest("backtest", after, [f"stocks.path={folder / 'backtest.parquet'}", anew])
    del found["warm"], found["filling"]
    print(json.dumps(found))


def next_day(day: str) -> str:
    """The day after one, ISO."""
    import numpy as np

    return str(np.datetime64(day) + 1)


def measured(n_runs: int, threads: int, words: list[str]) -> dict:
    """What a child process found out."""
    alone = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), str(threads))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_bars(folder / "small.parquet", SMALL, SMALL_SESSIONS)
        write_bars(folder / "backtest.parquet", *BACKTEST, seed=1)
        write_bars(folder / "forecast.parquet", *FORECAST, seed=2)
        command = [sys.executable, __file__, *words, "--runs", str(n_runs), "--child", name]
        own = os.environ | alone | {"XDG_STATE_HOME": name, "XDG_CACHE_HOME": name}
        answer = subprocess.run(command, env=own, cwd=name, stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(answer.stdout.splitlines()[-1])


def table(found: dict[str, list[dict]]) -> list[str]:
    """A block for each kind of call: its days, its sums, its parts."""
    lines = []
    for name, calls in found.items():
        days = (
            f"{calls[0]['sessions']:,} sessions"
            if "sessions" in calls[0]
            else "from {since} to {day}".format(**calls[0])
        )
        wall, cpu = (median(sum(call[kind].values()) for call in calls) for kind in ("wall", "cpu"))
        lines.append(f"{name} ({days}): {wall:.2f} s by the clock, {cpu:.2f} s of CPU")
        for part in dict.fromkeys(name for name, *_ in PARTS) | {REST: None}:
            wall, cpu = (median(call[kind].get(part, 0.0) for call in calls) for kind in ("wall", "cpu"))
            if wall or cpu:
                lines.append(f"  {part:<14} {wall:6.2f} {cpu:6.2f}")
    return lines


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="of the run, e.g. model=tiny")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--json", type=Path, help="a file for the figures")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.runs, options.words)
        return
    found = measured(options.runs, options.threads, options.words)
    if options.json:
        options.json.write_text(json.dumps(found))
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
