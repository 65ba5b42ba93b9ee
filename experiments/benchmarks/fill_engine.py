"""How fast the fill engine is beside vectorbt (numba and rust kernels), backtesting.py and a plain Python loop.

    python experiments/benchmarks/fill_engine.py [--runs 5] [--quick]

One thread. Engines are timed in turns; each figure is the median of the runs in million bars (sessions x symbols)
a second, after one run that compiles. Everything that an engine needs to hand over its metrics is timed: ours
validates its input and gives the twelve metrics of `summarize`; vectorbt is asked for the same ones, and our ratio
is to its faster kernel. Each engine gets its arrays in the layout that suits it, made beforehand.

Prices are random walks of 2 % a day; positions of 0.3 of equity follow the side of a 10-day over a 50-day mean,
which changes every 37 sessions. Independent accounts trade it in three ways, because how often a bar trades
decides the speed of our engine more than anything else:
- no stops: always in the market, 0.03 trades a bar. vectorbt is told of the crossings only.
- stop and target (2 % and 5 %), one entry a crossing: flat from the exit to the next crossing, of which
  alone vectorbt is told again.
- stop and target, entered again: the position is taken up at the next open while the side lasts, as the rules of
  money have it for a target weight: 0.4 trades a bar, since a stop of 2 % is one day's move.
With one account the weights are those of the first way over the number of symbols; vectorbt gets its orders on the
days of change only. Both sides then do about the same work; ours also watches its rebalance band.

The table at the end holds our ratios for all sizes and ways. Five runs take some seven minutes, nearly all of them
vectorbt's at 5,000 symbols; --quick leaves that size out and takes one.
"""

import argparse
import gc
import math
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

for variable in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ[variable] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

# After the lines above, which libraries read as they are imported.
# ruff: noqa: E402
import numpy as np
import pandas as pd

from hftraining.trading.config import TradingRules
from hftraining.trading.metrics import summarize, summarize_draws
from hftraining.trading.records import STOP_LOSS, TAKE_PROFIT
from hftraining.trading.simulator import simulate, simulate_alone, simulate_draws
from tests.naive_engine import naive_simulate, random_market

SIDES_FREE = TradingRules(stop_loss=0.0, take_profit=0.0)
SIDES_WITH_EXITS = TradingRules()
# With one account vectorbt's time grows nearly with the square of the symbols: 6 s a call at 2,000, too long at 5,000.
MOST_SHARED = 500
FIRST_CALL = """
import time, numpy as np
from hftraining.trading.config import TradingRules
from hftraining.trading.metrics import summarize
from hftraining.trading.simulator import simulate
prices, weights, rules = [np.full((500, 10), 10.0)] * 4, np.full((500, 10), 0.05), TradingRules()
start = time.perf_counter()
summarize(simulate(*prices, weights, rules), rules)
print(time.perf_counter() - start)
"""


def side_of_means(close: np.ndarray) -> np.ndarray:
    """1 where the 10-day mean is above the 50-day mean, -1 below, 0 before there is one."""
    table = pd.DataFrame(close)
    sides = np.sign(table.rolling(10).mean() - table.rolling(50).mean()).to_numpy()
    return np.ascontiguousarray(np.nan_to_num(sides))


def crossings(sides: np.ndarray) -> np.ndarray:
    """The side on the day that it begins, else 0."""
    return np.where(sides != np.vstack([np.zeros_like(sides[:1]), sides[:-1]]), sides, 0.0)


def flat_after_exits(market, sides: np.ndarray, rules: TradingRules) -> np.ndarray:
    """The sides, but 0 from a stop or target to the next crossing."""
    trades = simulate_alone(*market, 0.3 * sides, rules).trades
    trades = trades[np.isin(trades["reason"], (STOP_LOSS, TAKE_PROFIT))]
    trades = trades[sides[trades["exit_t"], trades["symbol"]] == trades["side"]]
    exits = np.zeros(sides.shape, np.int64)
    np.add.at(exits, (trades["exit_t"], trades["symbol"]), 1)
    so_far = exits.cumsum(axis=0)
    at_crossing = np.maximum.accumulate(np.where(crossings(sides) != 0, so_far - exits, 0), axis=0)
    return np.where(so_far > at_crossing, 0.0, sides)


def seconds_each(calls: list[Callable[[], object]], runs: int) -> list[float]:
    """Median times of calls that were made once before, in turns, so that a busy machine slows them all alike."""
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
        gc.collect()
    for _ in range(runs):
        for call, taken in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
            if taken[-1] > 1.0:  # vectorbt's portfolios hold circles of references, and a few large ones fill 20 GB
                gc.collect()
    return [median(taken) for taken in times]


def seconds(call: Callable[[], object], runs: int) -> float:
    """Median time of one call."""
    return seconds_each([call], runs)[0]


def vectorbt_alone(vbt, market, sides, rules, engine: str):
    """One account a symbol by from_signals, entering where sides is not 0 and no position is held, and the metrics."""
    open_, high, low, close = map(pd.DataFrame, market)
    decided = np.vstack([np.zeros_like(sides[:1]), sides[:-1]])
    shares = 0.3 * 10_000 / market[3][0]
    exits = {} if rules.stop_loss == 0 else {"sl_stop": rules.stop_loss, "tp_stop": rules.take_profit}
    longs, shorts = pd.DataFrame(decided > 0), pd.DataFrame(decided < 0)

    def call():
        portfolio = vbt.Portfolio.from_signals(
            close, open=open_, high=high, low=low, entries=longs, short_entries=shorts, price=open_, size=shares,
            fees=rules.commission, slippage=rules.slippage, init_cash=rules.initial_capital, freq="1D",
            upon_opposite_entry="Reverse", stop_entry_price="FillPrice", engine=engine, **exits,
        )  # fmt: skip
        return vectorbt_metrics(portfolio)

    return call


def vectorbt_shared(vbt, market, weights, rules, engine: str):
    """One account that all symbols share, by from_orders towards target weights on the days that they change."""
    open_, _, _, close = map(pd.DataFrame, market)
    sizes = np.full_like(weights, np.nan)
    changes = np.vstack([np.ones_like(weights[:1], bool), weights[1:] != weights[:-1]])
    sizes[1:] = np.where(changes[:-1], weights[:-1], np.nan)
    sizes = pd.DataFrame(sizes)

    def call():
        portfolio = vbt.Portfolio.from_orders(
            close, size=sizes, size_type="targetpercent", price=open_, fees=rules.commission, slippage=rules.slippage,
            init_cash=rules.initial_capital, freq="1D", cash_sharing=True, group_by=True, call_seq="auto",
            engine=engine,
        )  # fmt: skip
        return vectorbt_metrics(portfolio)

    return call


def vectorbt_metrics(portfolio):
    """The metrics of `summarize`, as vectorbt names them."""
    methods = (
        "total_return", "sharpe_ratio", "sortino_ratio", "calmar_ratio", "annualized_volatility", "annualized_return",
        "max_drawdown",
    )  # fmt: skip
    values = [getattr(portfolio, method)() for method in methods]
    orders, trades = portfolio.orders, portfolio.trades
    values += [trades.win_rate(), trades.count(), (orders.size * orders.price).sum(), orders.fees.sum()]
    return [*values, portfolio.gross_exposure().mean()]


def backtesting_alone(bt, market, sides, rules):
    """One account a symbol by backtesting.py: a market order on each change of side."""

    class Sides(bt.Strategy):
        column = 0

        def init(self):
            self.side = 0

        def next(self):
            side = sides[len(self.data) - 1, self.column]
            if side != self.side:
                self.position.close()
                if side:
                    (self.buy if side > 0 else self.sell)(size=10)
                self.side = side

    def call():
        for s in range(sides.shape[1]):
            frame = pd.DataFrame({n: a[:, s] for n, a in zip(("Open", "High", "Low", "Close"), market, strict=True)})
            frame.index = pd.bdate_range("2000-01-03", periods=len(frame))
            bt.Backtest(frame, Sides, cash=rules.initial_capital, commission=rules.commission).run(column=s)

    return call


def line(name: str, bars: float, taken: float | None, best: float | None = None) -> float | None:
    """Print one figure and what it is of the fastest other engine."""
    if taken is None:
        print(f"  {name:34s} not installed")
        return None
    rate = bars / taken / 1e6
    print(
        f"  {name:34s} {rate:9.2f} million bars/s  {1e3 * taken:10.2f} ms" + (f"  x{rate / best:.1f}" if best else "")
    )
    return rate


def optional(name: str):
    """A module, or None where it is not installed."""
    try:
        return __import__(name)
    except ImportError:
        return None


def compare(n_symbols: int, n_sessions: int, runs: int) -> dict[str, float]:
    """All engines on one size of market, ours last and with its ratio to the fastest vectorbt; these ratios by way."""
    ratios = {}
    market = random_market(np.random.default_rng(0), n_sessions, n_symbols)
    sides, bars = side_of_means(market[3]), n_sessions * n_symbols
    few = tuple(prices[:, :10] for prices in market)
    lists = [prices.tolist() for prices in few]
    vbt, rust, bt = optional("vectorbt"), optional("vectorbt_rust"), optional("backtesting")
    engines = ([("numba", vbt)] if vbt else []) + ([("rust", vbt)] if vbt and rust else [])
    weights = 0.3 * sides
    once = 0.3 * flat_after_exits(market, sides, SIDES_WITH_EXITS)
    for title, rules, entries, ours_weights in (
        ("no stops", SIDES_FREE, crossings(sides), weights),
        ("stop 2 %, target 5 %, one entry a crossing", SIDES_WITH_EXITS, crossings(sides), once),
        ("stop 2 %, target 5 %, entered again", SIDES_WITH_EXITS, sides, weights),
    ):
        print(f"{n_symbols} x {n_sessions}, independent accounts, {title}")
        calls = [vectorbt_alone(module, market, entries, rules, kind) for kind, module in engines]
        calls.append(lambda w=ours_weights, r=rules: summarize_draws(simulate_alone(*market, w, r), r))
        *theirs, ours = seconds_each(calls, runs)
        rates = [line(f"vectorbt {kind}", bars, taken) for (kind, _), taken in zip(engines, theirs, strict=True)]
        best = max((rate for rate in rates if rate), default=None)
        ratios[f"independent accounts, {title}"] = line("hftraining", bars, ours, best) / (best or math.nan)
    shared = weights / n_symbols
    for title, rules in (("no stops", SIDES_FREE), ("stop 2 %, target 5 %", SIDES_WITH_EXITS)):
        print(f"{n_symbols} x {n_sessions}, one account, {title}")
        calls = [lambda w=shared, r=rules: summarize(simulate(*market, w, r), r)]
        beside = rules is SIDES_FREE and n_symbols <= MOST_SHARED
        if beside:
            calls += [vectorbt_shared(module, market, shared, rules, kind) for kind, module in engines]
        ours, *theirs = seconds_each(calls, runs)
        if beside:
            rates = [line(f"vectorbt {kind}", bars, taken) for (kind, _), taken in zip(engines, theirs, strict=True)]
            best = max((rate for rate in rates if rate), default=None)
            ten = shared[:, :10].tolist()
            naive = seconds(lambda w=ten: naive_simulate(*lists, w, SIDES_FREE), runs)
            line("plain Python loop (10 symbols)", n_sessions * 10, naive)
            if bt:
                one = seconds(backtesting_alone(bt, tuple(p[:, :1] for p in market), sides[:, :1], rules), runs)
                line("backtesting.py (1 symbol)", n_sessions, one)
            else:
                line("backtesting.py", 0, None)
        rate = line("hftraining", bars, ours, best if beside else None)
        if beside:
            ratios[f"one account, {title}"] = rate / (best or math.nan)
    return ratios


def null_metrics(market, weights_DTS: np.ndarray) -> dict[str, np.ndarray]:
    """Simulate draws and summarise them."""
    return summarize_draws(simulate_draws(*market, weights_DTS, SIDES_WITH_EXITS), SIDES_WITH_EXITS)


def null_band(runs: int) -> None:
    """500 portfolios over the same bars, with weights that last and with weights that change every day."""
    market = random_market(np.random.default_rng(0), 500, 10)
    for name, base in (
        ("sides of means", 0.1 * side_of_means(market[3])),
        ("other weights every day", np.random.default_rng(1).normal(0, 0.1, (500, 10))),
    ):
        shifted = np.stack([np.roll(base, 20 + draw % 460, axis=0) for draw in range(500)])
        taken = seconds(lambda w=shifted: null_metrics(market, w), runs)
        print(f"500 null portfolios, 10 x 500, {name}: {taken:.3f} s")


def first_call(runs: int) -> None:
    """What the first call costs in a new process, once the compiled code lies on disk."""
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", FIRST_CALL]
    answers = [subprocess.run(command, cwd=root, capture_output=True, check=True, text=True) for _ in range(runs + 1)]
    times = [float(answer.stdout) for answer in answers]
    print(f"first call in a new process, compiled code on disk: {median(times[1:]):.3f} s")


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="runs behind each median")
    parser.add_argument("--quick", action="store_true", help="only 10 x 2,500 and 500 x 2,500")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["TQDM_DISABLE"] = "1"
    first_call(arguments.runs)
    null_band(arguments.runs)
    sizes = (10, 500) if arguments.quick else (10, 500, 5000)
    ratios = {f"{n_symbols} x 2500": compare(n_symbols, 2500, arguments.runs) for n_symbols in sizes}
    print(f"\nour speed / vectorbt's faster kernel, medians of {arguments.runs}, metrics included, one thread")
    print(pd.DataFrame(ratios).round(1).to_string())


if __name__ == "__main__":
    main()
