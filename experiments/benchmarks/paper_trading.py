"""What paper trading costs: the daily step of 500 stocks, and 24 hours in which nothing happens.

    python experiments/benchmarks/paper_trading.py [--symbols 500] [--days 5] [--threads 1] [--json FILE] [words]

Bars are those of scale.py: random walks with holes and late listings, 2,500 sessions of New York, one parquet file a
day, each with a session more than the one before. A run of model=small learns for a few steps from 12 stocks (its
weights do not matter) and then trades the others by stocks.path. Everything happens in a child process, with a clock
that the benchmark sets, after a first session: imports are over, and numba has compiled or taken what it needs from its
cache.

- daily step: `paper RUN --once` on each of --days sessions, of an account with --history sessions behind it. It opens
  and verifies the journal, loads the model, reads the file of that day anew, settles the orders of the day before,
  forecasts, and plans the next ones. CPU of all threads, part by part; what is beyond the parts is `the rest`.
- idle: the loop of `paper RUN` itself from a Saturday's 00:00 to Sunday's: its wake-ups, and their CPU. What the system
  adds to each real sleep is measured on 200 sleeps of a millisecond, and added.

Medians of the days. The child replaces no code of the product: it only times the calls of the functions in PARTS.
"""

import argparse
import importlib
import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "experiments" / "benchmarks")]

# After the line above.
# ruff: noqa: E402
from inference import REST, SETTLED, Stopwatch, trained
from scale import SMALL, SMALL_SESSIONS, write_bars

SESSIONS = 2_500
BEGIN = date(2010, 1, 4)

# Part, module, function within it.
PARTS = [
    ("model", "hfinference.live.trader", "load_model"),
    ("reading", "hfinference.live.trader", "bars_of_run"),
    ("journal", "hfinference.live.journal_file", "JournalFile._query"),
    ("changes", "hfinference.live.session", "PaperSessions._change"),
    ("changes", "hfinference.live.memory", "BarMemory.keep"),
    ("features", "hfinference.trained", "make_features"),
    ("forecast", "hfinference.live.session", "forecast_of"),
    ("weights", "hfinference.live.session", "PaperSessions._weights"),
    ("engine", "hfinference.live.embedded", "EmbeddedDesk.reconcile"),
    ("engine", "hfinference.live.embedded", "EmbeddedDesk.settle"),
    ("engine", "hfinference.live.embedded", "EmbeddedDesk.decide"),
    ("buy and hold", "hftraining.profit_tracker", "ProfitTracker.buy_and_hold"),
    ("gate", "hfinference.live.session", "check_bars"),
    ("gate", "hfinference.live.session", "check_orders"),
]


class Stopped(Exception):
    """The clock has reached the end of what is measured."""


class SetClock:
    """Stands where it was set; a sleep moves it on as far as the system's clock would sleep, at once."""

    def __init__(self, instant: datetime) -> None:
        from hfinference.live.clock import SystemClock

        most = inspect.signature(SystemClock).parameters["most"].default
        self.instant, self.end = instant, datetime.max.replace(tzinfo=UTC)
        self.most, self.wakeups = timedelta(seconds=most), 0

    def now(self) -> datetime:
        """As set."""
        return self.instant

    def sleep(self, until: datetime) -> None:
        """Move on. Raises Stopped at the end."""
        self.wakeups += 1
        self.instant = min(until, self.instant + self.most)
        if self.instant >= self.end:
            raise Stopped


def sessions_of_new_york() -> list[date]:
    """As many as the bars have."""
    from hfinference.live.exchange import Exchange

    return Exchange().sessions(BEGIN, BEGIN + timedelta(days=2 * SESSIONS))[:SESSIONS]


def cut(source: Path, target: Path, last: int) -> None:
    """The first `last` sessions of a file of scale.py, which has one on each weekday, as sessions of New York."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pq.read_table(source)
    row_N = np.busday_count(np.datetime64("2010-01-01"), rows["date"].to_numpy())
    dates_N = np.array(sessions_of_new_york(), "datetime64[D]")[row_N]
    there = rows.set_column(rows.schema.get_field_index("date"), "date", pa.array(dates_N))
    pq.write_table(there.filter(pa.array(row_N < last)), target)


def child(folder: Path, options: argparse.Namespace) -> None:
    """Everything that is timed; prints a JSON object."""
    import torch

    from hfinference.live.exchange import Exchange
    from hfinference.live.trader import SETTLES, LiveTrader

    run = trained(folder / "small.parquet", folder, torch.get_num_threads(), options.words)
    days, watch, steps = sessions_of_new_york(), watched(), list[dict]()

    def step(row: int) -> tuple[LiveTrader, SetClock, str]:
        cut(folder / "bars.parquet", folder / "today.parquet", row + 1)
        clock = SetClock(Exchange().close_of(days[row]) + SETTLES)
        words = [f"stocks.path={folder / 'today.parquet'}", "risk.max_missing=0.2"]
        said = list[str]()
        time.sleep(SETTLED)
        watch.begin()
        trader = LiveTrader(run, words=words, journal=folder / "account", clock=clock, say=said.append)
        trader.start_paper_trading(once=True)
        used = sum(watch.found()["cpu"].values())
        print(f"{used:.2f} s of CPU: {said[-1]}", file=sys.stderr)
        return trader, clock, said[-1]

    first = SESSIONS - options.days
    for row in (first - options.history - 1, first - 1):  # an account with sessions, whose decisions came too late
        step(row)
    for row in range(first, SESSIONS):
        trader, clock, line = step(row)
        assert line.endswith(", traded"), line
        steps.append(watch.found())
    print(json.dumps({"steps": steps, "idle": idle(trader, clock)}))


def idle(trader, clock: SetClock) -> dict:
    """CPU seconds and wake-ups of 24 hours in which no session closes, in the trader's own loop."""
    saturday = clock.instant.date() + timedelta(days=(5 - clock.instant.weekday()) % 7)
    start = max(clock.instant, datetime.combine(saturday, datetime.min.time(), UTC) + timedelta(hours=2))
    marks = list[tuple[float, int]]()
    sleep = clock.sleep

    def noted(until: datetime) -> None:
        if not marks and clock.instant >= start:
            marks.append((time.process_time(), clock.wakeups))
        sleep(until)

    clock.sleep, clock.end = noted, start + timedelta(days=1)  # type: ignore[method-assign]
    try:
        trader.start_paper_trading()
    except Stopped:
        used, wakeups = time.process_time() - marks[0][0], clock.wakeups - marks[0][1]
    begun = time.process_time()
    for _ in range(200):
        time.sleep(0.001)
    return {"cpu": used, "wakeups": wakeups, "sleeps": (time.process_time() - begun) / 200 * wakeups}


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


def measured(options: argparse.Namespace) -> dict:
    """What a child process found out."""
    alone = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), str(options.threads))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_bars(folder / "small.parquet", SMALL, SMALL_SESSIONS)
        write_bars(folder / "bars.parquet", options.symbols, SESSIONS, seed=2)
        numbers = [f"--{word}={getattr(options, word)}" for word in ("symbols", "days", "history")]
        command = [sys.executable, __file__, *options.words, *numbers, "--child", name]
        own = os.environ | alone | {"XDG_STATE_HOME": name, "XDG_CACHE_HOME": name}
        answer = subprocess.run(command, env=own, cwd=name, stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(answer.stdout.splitlines()[-1])


def table(found: dict) -> list[str]:
    """The daily step and its parts, and the idle day."""
    steps, rest = found["steps"], found["idle"]
    total: Callable[[dict], float] = lambda step: sum(step["cpu"].values())  # noqa: E731
    lines = [f"daily step: {median(map(total, steps)):.2f} s of CPU ({min(map(total, steps)):.2f} to "
             f"{max(map(total, steps)):.2f})"]  # fmt: skip
    for part in dict.fromkeys(name for name, *_ in PARTS) | {REST: None}:
        lines.append(f"  {part:<14} {median(step['cpu'].get(part, 0.0) for step in steps):6.2f}")
    lines.append(f"24 hours idle: {rest['cpu'] + rest['sleeps']:.2f} s of CPU in {rest['wakeups']:,} wake-ups, "
                 f"{rest['sleeps']:.2f} of them the system's for sleeping")  # fmt: skip
    return lines


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="of the run, e.g. model=tiny")
    parser.add_argument("--symbols", type=int, default=500)
    parser.add_argument("--days", type=int, default=5, help="sessions that are measured")
    parser.add_argument("--history", type=int, default=40, help="sessions of the account before them")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="a file for the figures")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options)
        return
    found = measured(options)
    if options.json:
        options.json.write_text(json.dumps(found))
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
