"""The speed of the fill engine beside vectorbt and a plain Python loop, on the same trades.

    python experiments/benchmarks/fill_engine.py [--runs 5] [--quick]

It measures what the product runs: one account that all symbols share, with the twelve metrics of `summarize` (a probe
during training), and many accounts over the same bars at once, with the Sharpe ratio of each (a null band).

Like for like: prices are random walks of 2 % a day. Each symbol is held long or short with a fixed number of shares,
on the side of a 10-day over a 50-day mean, which changes every 37 sessions. vectorbt gets these share counts as
orders; ours gets the weights that mean the same shares. A case whose equities differ by more than 1e-9 at any close is
left out and reported. The positions begin at 1 % of the capital, so that no order is scaled, and nobody pays borrow.
- no stops: vectorbt's from_orders, on the days of change only.
- stop 2 %, target 5 %: vectorbt's from_signals. It looks at stops only from the row after an entry, ours from the bar
  of the entry, so that each session goes to it as two rows (its open, its whole bar), as in
  tests/trading/test_oracles.py. It also applies slippage to targets, so these cases have none.
backtesting.py has no case: it has no account that symbols share, and its stops need a strategy of their own.

Each figure is the median CPU time of a call, one thread, after one call that compiles; the engines take turns, so that
a busy machine slows them all alike. Arrays are prepared beforehand in the layout that suits each engine. Ours also
checks its input. The table at the end holds vectorbt's time / ours.
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
from dataclasses import replace
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
from hftraining.trading.metrics import sharpe_ratio, summarize
from hftraining.trading.simulator import simulate, simulate_draws
from tests.naive_engine import naive_simulate, random_market

# The band is wide, so that a position is left alone for as long as its side lasts.
RULES = TradingRules(
    initial_capital=1e6, borrow_rate=0.0, max_gross=100.0, rebalance_band=10.0, stop_loss=0.0, take_profit=0.0
)
RULES_WITH_EXITS = replace(RULES, slippage=0.0, stop_loss=0.02, take_profit=0.05)
# Of one account vectorbt's time grows nearly with the square of the symbols: 6 s a call at 2,000.
MOST_SHARED = 500
MOST_NAIVE = 10
FIRST_CALL = """
import time, numpy as np
from hftraining.trading.config import TradingRules
from hftraining.trading.metrics import summarize
from hftraining.trading.simulator import simulate
prices, weights, rules = [np.full((500, 10), 10.0)] * 4, np.full((500, 10), 0.05), TradingRules()
start = time.process_time()
summarize(simulate(*prices, weights, rules), rules)
print(time.process_time() - start)
"""
Market = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def side_of_means(close_TS: np.ndarray) -> np.ndarray:
    """1 where the 10-day mean is above the 50-day mean, -1 below, 0 before there is one."""
    table = pd.DataFrame(close_TS)
    sides_TS = np.sign(table.rolling(10).mean() - table.rolling(50).mean()).to_numpy()
    return np.ascontiguousarray(np.nan_to_num(sides_TS))


def weights_of_shares(market: Market, wanted_DTS: np.ndarray, rules: TradingRules) -> np.ndarray:
    """The weights that mean these shares in each draw's account: divided by the equity to which they themselves lead.

    Found by iteration: an error of the equity moves the shares, and that moves the profit, a part of the equity.
    """
    equity_TD = np.full(wanted_DTS.shape[1::-1], rules.initial_capital)
    for _ in range(100):
        weights_DTS = wanted_DTS * market[3] / equity_TD.T[:, :, None]
        before_TD, equity_TD = equity_TD, simulate_draws(*market, weights_DTS, rules)
        if np.allclose(equity_TD, before_TD, rtol=1e-14, atol=0.0):
            break
    return weights_DTS


def seconds_each(calls: list[Callable[[], object]], runs: int) -> list[float]:
    """Median CPU seconds of calls that were made once before, in turns."""
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    for _ in range(runs):
        for call, taken in zip(calls, times, strict=True):
            gc.collect()  # vectorbt's portfolios hold circles of references, and a few large ones fill 20 GB
            start = time.process_time()
            call()
            taken.append(time.process_time() - start)
    return [median(taken) for taken in times]


def side_by_side(prices_TS: np.ndarray, n_draws: int) -> pd.DataFrame:
    """The columns of the bars once for each draw, as vectorbt wants them."""
    return pd.DataFrame(np.tile(prices_TS, (1, n_draws)))


def by_orders(vbt, market: Market, wanted_DTS: np.ndarray, rules: TradingRules, engine: str):
    """A call that gives vectorbt's portfolio of share counts, ordered on the days that they change."""
    n_draws, _, n_symbols = wanted_DTS.shape
    wanted_TC = wanted_DTS.transpose(1, 0, 2).reshape(len(market[3]), -1)
    before_TC = np.vstack([np.zeros_like(wanted_TC[:1]), wanted_TC[:-1]])
    sizes_TC = np.full_like(wanted_TC, np.nan)
    sizes_TC[1:] = np.where(wanted_TC != before_TC, wanted_TC, np.nan)[:-1]
    sizes, opens, closes = pd.DataFrame(sizes_TC), side_by_side(market[0], n_draws), side_by_side(market[3], n_draws)
    groups = np.repeat(np.arange(n_draws), n_symbols)
    return lambda: vbt.Portfolio.from_orders(
        closes, size=sizes, size_type="targetamount", price=opens, fees=rules.commission, slippage=rules.slippage,
        init_cash=rules.initial_capital, freq="1D", cash_sharing=True, group_by=groups, call_seq="auto", engine=engine,
    )  # fmt: skip


def by_signals(vbt, market: Market, wanted_DTS: np.ndarray, rules: TradingRules, engine: str):
    """A call that gives vectorbt's portfolio with stops and targets; two rows a session."""
    n_draws, n_sessions, n_symbols = wanted_DTS.shape
    decided = np.zeros((2 * n_sessions, n_draws * n_symbols))
    decided[2::2] = wanted_DTS.transpose(1, 0, 2).reshape(n_sessions, -1)[:-1]
    is_open_row = (np.arange(2 * n_sessions) % 2 == 0)[:, None]
    opens = np.repeat(market[0], 2, axis=0)
    rows = [opens, *(opens.copy() for _ in range(3))]
    for row, prices_TS in zip(rows[1:], market[1:], strict=True):
        row[1::2] = prices_TS
    open_, high, low, close = (side_by_side(row, n_draws) for row in rows)
    longs, shorts = pd.DataFrame(is_open_row & (decided > 0)), pd.DataFrame(is_open_row & (decided < 0))
    flat = pd.DataFrame(is_open_row & (decided == 0))
    groups = np.repeat(np.arange(n_draws), n_symbols)
    shares = np.abs(wanted_DTS).max(axis=1).reshape(1, -1)
    return lambda: vbt.Portfolio.from_signals(
        close, open=open_, high=high, low=low, entries=longs, short_entries=shorts, exits=flat, short_exits=flat,
        price=close, size=shares, fees=rules.commission, slippage=rules.slippage, init_cash=rules.initial_capital,
        upon_opposite_entry="Reverse", accumulate=False, sl_stop=rules.stop_loss, tp_stop=rules.take_profit,
        stop_entry_price="FillPrice", stop_exit_price="StopMarket", freq="1D", cash_sharing=True, group_by=groups,
        engine=engine,
    )  # fmt: skip


def vectorbt_summary(portfolio) -> list[float]:
    """The metrics of `summarize`, as vectorbt names them."""
    methods = (
        "total_return", "sharpe_ratio", "sortino_ratio", "calmar_ratio", "annualized_volatility", "annualized_return",
        "max_drawdown",
    )  # fmt: skip
    values = [getattr(portfolio, method)() for method in methods]
    orders, trades = portfolio.orders, portfolio.trades
    values += [trades.win_rate(), trades.count(), (orders.size * orders.price).sum(), orders.fees.sum()]
    return [*values, portfolio.gross_exposure().mean()]


def optional(name: str):
    """A module, or None where it is not installed."""
    try:
        return __import__(name)
    except ImportError:
        return None


def compare(n_symbols: int, n_sessions: int, n_draws: int, runs: int, with_exits: bool) -> float:
    """One case: times of all engines, and vectorbt's faster kernel / ours, NaN without a vectorbt that agrees."""
    rules = RULES_WITH_EXITS if with_exits else RULES
    market = random_market(np.random.default_rng(0), n_sessions, n_symbols)
    sides_TS = side_of_means(market[3]) * (0.01 * rules.initial_capital / n_symbols / market[3][0])
    wanted_DTS = np.stack([np.roll(sides_TS, 20 + draw % (n_sessions - 40), axis=0) for draw in range(n_draws)])
    wanted_DTS = sides_TS[None] if n_draws == 1 else wanted_DTS
    weights_DTS = weights_of_shares(market, wanted_DTS, rules)
    equity_TD = simulate_draws(*market, weights_DTS, rules)
    calls: dict[str, Callable[[], object]] = {}
    if n_draws == 1:
        calls["hftraining"] = lambda: summarize(simulate(*market, weights_DTS[0], rules), rules)
        if n_symbols <= MOST_NAIVE:
            lists = [array.tolist() for array in (*market, weights_DTS[0])]
            calls["plain Python loop"] = lambda: naive_simulate(*lists, rules)
    else:
        calls["hftraining"] = lambda: sharpe_ratio(simulate_draws(*market, weights_DTS, rules))
    vbt, kernels = optional("vectorbt"), ["numba", *(["rust"] if optional("vectorbt_rust") else [])]
    said = []
    for kernel in kernels if vbt and n_symbols <= MOST_SHARED else []:
        run = (by_signals if with_exits else by_orders)(vbt, market, wanted_DTS, rules, kernel)
        theirs_TD = np.asarray(run().value()).reshape(-1, n_draws)[1 if with_exits else 0 :: 2 if with_exits else 1]
        apart = float(np.abs(theirs_TD / equity_TD - 1.0).max())
        if apart > 1e-9:
            said.append(f"  vectorbt {kernel}: left out, it trades other trades (equity differs by up to {apart:.1e})")
        elif n_draws == 1:
            calls[f"vectorbt {kernel}"] = lambda run=run: vectorbt_summary(run())
        else:
            calls[f"vectorbt {kernel}"] = lambda run=run: run().sharpe_ratio()
    if not vbt:
        said.append("  vectorbt: not installed")
    taken = dict(zip(calls, seconds_each(list(calls.values()), runs), strict=True))
    accounts = "one account" if n_draws == 1 else f"{n_draws} accounts at once"
    exits = "stop 2 %, target 5 %" if with_exits else "no stops"
    print(f"{accounts}, {n_symbols} symbols x {n_sessions} sessions, {exits}", *said, sep="\n")
    for name, seconds in taken.items():
        rate = n_draws * n_symbols * n_sessions / seconds / 1e6
        print(f"  {name:20s} {rate:9.2f} million bars/s {1e3 * seconds:10.2f} ms", flush=True)
    theirs = [seconds for name, seconds in taken.items() if name.startswith("vectorbt")]
    return min(theirs, default=math.nan) / taken["hftraining"]


def first_call(runs: int) -> None:
    """What the first call costs in a new process, once the compiled code lies on disk."""
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", FIRST_CALL]
    answers = [subprocess.run(command, cwd=root, capture_output=True, check=True, text=True) for _ in range(runs + 1)]
    times = [float(answer.stdout) for answer in answers]
    print(f"first call in a new process, compiled code on disk: {median(times[1:]):.3f} s of CPU")


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="runs behind each median")
    parser.add_argument("--quick", action="store_true", help="10 and 100 symbols, 50 accounts")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["TQDM_DISABLE"] = "1"
    first_call(arguments.runs)
    sizes = [(10, 2500, 1), (100 if arguments.quick else 500, 2500, 1), (10, 500, 50 if arguments.quick else 500)]
    ratios = {
        "no stops" if not exits else "stop 2 %, target 5 %": {
            f"{n_draws} x {n_symbols} x {n_sessions}": compare(n_symbols, n_sessions, n_draws, arguments.runs, exits)
            for n_symbols, n_sessions, n_draws in sizes
        }
        for exits in (False, True)
    }
    print(f"\nvectorbt's time / ours (accounts x symbols x sessions), medians of {arguments.runs}, metrics included")
    print(pd.DataFrame(ratios).round(1).to_string())


if __name__ == "__main__":
    main()
