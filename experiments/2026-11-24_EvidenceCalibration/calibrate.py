"""Whether the evidence is honest: what it says of simulated markets whose truth is known.

    python experiments/2026-11-24_EvidenceCalibration/calibrate.py [--quick] [--only null]

One process, about 20 minutes for all; --only asks one question of null, interval, trials, power, scores. Prints a
table a question and writes power_curve.csv beside this file. Every market has a seed of its own, so a second run
prints the same numbers.

Legend: T sessions, S symbols, N trials.
"""

import argparse
import csv
import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

# After the line above, which finds the project.
# ruff: noqa: E402
import numpy as np
from scipy.stats import kstest

from hftraining.evidence.bootstrap import Interval, sharpe_difference, sharpe_interval
from hftraining.evidence.deflation import deflated_sharpe, probability_of_backtest_overfitting
from hftraining.evidence.nulls import null_band
from hftraining.evidence.scores import daily_scores
from hftraining.evidence.verdict import verdict
from hftraining.trading.config import TradingRules
from hftraining.trading.metrics import daily_returns, sharpe_ratio
from hftraining.trading.simulator import simulate_draws

SESSIONS, SYMBOLS, DRAWS = 500, 2, 300
RULES = TradingRules()  # costs, stops and targets as a default run has them
BARE = replace(RULES, stop_loss=0.0, take_profit=0.0, commission=0.0, slippage=0.0, borrow_rate=0.0)
UNKNOWN = Interval(math.nan, math.nan, math.nan)
Bars = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def market(rng: np.random.Generator, kind: str) -> tuple[Bars, np.ndarray]:
    """Open, high, low, close_TS, and the return_TS from open to open that a decision of the day before earns."""
    shape = (SESSIONS, SYMBOLS)
    common = rng.standard_normal((SESSIONS, 1))
    shock = math.sqrt(0.3) * common + math.sqrt(0.7) * rng.standard_normal(shape)
    volatility = np.full(shape, 0.015)
    if kind == "garch":
        level = np.ones(SYMBOLS)
        for t in range(SESSIONS):
            volatility[t] = 0.015 * np.sqrt(level)
            level = 0.03 + 0.87 * level + 0.10 * level * shock[t] ** 2
    return_TS = 0.0004 + volatility * shock
    open_TS = 50.0 * np.exp(np.cumsum(return_TS, axis=0))
    close_TS = np.vstack([open_TS[1:], open_TS[-1:]]) * np.exp(rng.normal(0.0, 0.004, shape))
    spread = np.exp(np.abs(rng.normal(0.0, 0.004, (2, *shape))))
    bars = (open_TS, np.maximum(open_TS, close_TS) * spread[0], np.minimum(open_TS, close_TS) / spread[1], close_TS)
    return bars, return_TS


def persistent(rng: np.random.Generator, memory: int) -> np.ndarray:
    """Positions that know nothing and last about `memory` sessions."""
    keep = math.exp(-1.0 / memory) if memory else 0.0
    signal = rng.standard_normal((SESSIONS, SYMBOLS))
    for t in range(1, SESSIONS):
        signal[t] = keep * signal[t - 1] + math.sqrt(1.0 - keep**2) * signal[t]
    return 0.3 * np.tanh(2.0 * signal)


def trailing(close_TS: np.ndarray, lookback: int, side: float) -> np.ndarray:
    """Long what rose (side 1) or fell (side -1) over the lookback; before it is filled, over what there is."""
    first = np.maximum(np.arange(SESSIONS) - lookback, 0)
    return 0.3 * side * np.sign(np.log(close_TS / close_TS[first]))


BOOKS: dict[str, Callable[[np.random.Generator, Bars], np.ndarray]] = {
    "noise, new each day": lambda rng, bars: persistent(rng, 0),
    "noise, lasts 20 days": lambda rng, bars: persistent(rng, 20),
    "noise, lasts 60 days": lambda rng, bars: persistent(rng, 60),
    "long or flat, lasts 20 days": lambda rng, bars: np.maximum(persistent(rng, 20), 0.0),
    "momentum, 20 days": lambda rng, bars: trailing(bars[3], 20, 1.0),
    "momentum, 120 days": lambda rng, bars: trailing(bars[3], 120, 1.0),
    "reversal, 5 days": lambda rng, bars: trailing(bars[3], 5, -1.0),
    "reversal, 120 days": lambda rng, bars: trailing(bars[3], 120, -1.0),
    "reversal, 20 days": lambda rng, bars: trailing(bars[3], 20, -1.0),
    "reversal, 60 days": lambda rng, bars: trailing(bars[3], 60, -1.0),
}


def null_without_skill(markets: int) -> None:
    """The p-values of books without skill must be uniform. Every second market has changing volatility."""
    print(f"\n| book, on {markets} markets without skill | KS p | beats chance (p <= 0.05) | p <= 0.5 |")
    print("|---|---|---|---|")
    for number, (name, book) in enumerate(BOOKS.items()):
        found, said = [], 0
        for seed in range(markets):
            rng = np.random.default_rng([1, number, seed])
            bars, _ = market(rng, "garch" if seed % 2 else "normal")
            p = null_band(*bars, book(rng, bars), RULES, DRAWS, seed).p
            found.append(p)
            said += verdict(p, UNKNOWN).startswith("beats")
        half = np.mean(np.array(found) <= 0.5)
        print(f"| {name} | {kstest(found, 'uniform').pvalue:.3f} | {said / markets:.1%} | {half:.1%} |", flush=True)


def returns_of(kind: str, rng: np.random.Generator, n: int) -> tuple[np.ndarray, float]:
    """Daily returns and their true daily Sharpe ratio."""
    sharpe = 0.06  # about 0.95 a year
    if kind == "normal":
        return sharpe + rng.standard_normal(n), sharpe
    if kind == "student t, 4":
        return sharpe + rng.standard_t(4, n) / math.sqrt(2.0), sharpe
    if kind == "negative skew":
        values = np.where(rng.random(n) < 0.05, rng.normal(-2.0, 2.0, n), rng.normal(0.16, 0.7, n))
        mean = 0.05 * -2.0 + 0.95 * 0.16
        return values, mean / math.sqrt(0.05 * 8.0 + 0.95 * (0.49 + 0.16**2) - mean**2)
    warm = n + 200
    shock, values = rng.standard_normal(warm), np.zeros(warm)
    if kind == "garch":
        level = 1.0
        for t in range(warm):
            values[t] = shock[t] * math.sqrt(level)
            level = 0.03 + 0.10 * values[t] ** 2 + 0.87 * level
        return sharpe + values[200:], sharpe
    keep = float(kind.split()[-1])
    for t in range(1, warm):
        values[t] = keep * values[t - 1] + shock[t]
    return sharpe + math.sqrt(1.0 - keep**2) * values[200:], sharpe


def interval_coverage(markets: int) -> None:
    """The 95 % interval must hold the true Sharpe ratio in 92 to 97 % of the markets."""
    print(f"\n| returns, {markets} samples each | days | interval holds the truth | above it | below it | mean width |")
    print("|---|---|---|---|---|---|")
    year = math.sqrt(252)
    for kind in ("normal", "student t, 4", "negative skew", "garch", "autocorrelated 0.1", "autocorrelated 0.2"):
        for days in (250, 500):
            low, high = np.empty(markets), np.empty(markets)
            for seed in range(markets):
                sample, truth = returns_of(kind, np.random.default_rng([2, days, seed]), days)
                interval = sharpe_interval(sample, 1000, seed)
                low[seed], high[seed] = interval.low / year, interval.high / year
            held, over, under = ((low <= truth) & (truth <= high)).mean(), (low > truth).mean(), (high < truth).mean()
            width = year * (high - low).mean()
            print(f"| {kind} | {days} | {held:.1%} | {over:.1%} | {under:.1%} | {width:.2f} |", flush=True)
    for correlation in (0.3, 0.9):
        held = 0
        for seed in range(markets):
            shock = np.random.default_rng([3, seed]).standard_normal((2, SESSIONS))
            ours = 0.08 + correlation * shock[0] + math.sqrt(1.0 - correlation**2) * shock[1]
            interval = sharpe_difference(ours, 0.03 + shock[0], 1000, seed)
            held += interval.low <= 0.05 * year <= interval.high
        print(f"| difference, correlated {correlation} | {SESSIONS} | {held / markets:.1%} | | | |", flush=True)


def best_of_noise(repeats: int, trials: int) -> None:
    """The best of many trials without skill must not be believed once it is deflated, though it is without."""
    naive = deflated = 0
    overfit = []
    for seed in range(repeats):
        rng = np.random.default_rng([4, seed])
        bars, _ = market(rng, "normal")
        weights_NTS = np.stack([persistent(rng, 5) for _ in range(trials)])
        equity_TN = simulate_draws(*bars, weights_NTS, RULES)
        returns_TN = daily_returns(equity_TN)
        sharpe_N = np.asarray(sharpe_ratio(equity_TN))
        best = int(sharpe_N.argmax())
        p = null_band(*bars, weights_NTS[best], RULES, DRAWS, seed).p
        spread = float((sharpe_N / math.sqrt(252)).var(ddof=1))
        worth = deflated_sharpe(returns_TN[:, best], trials, spread)
        naive += verdict(p, UNKNOWN).startswith("beats")
        told = verdict(p, UNKNOWN, deflated_sharpe=worth, n_trials=trials)
        deflated += told.startswith("indistinguishable from chance")
        overfit.append(probability_of_backtest_overfitting(returns_TN).value)
    mean, error = np.mean(overfit), np.std(overfit, ddof=1) / math.sqrt(repeats)
    print(f"\n| best of {trials} trials of noise, {repeats} times | |")
    print("|---|---|")
    print(f"| naive verdict: beats chance | {naive / repeats:.1%} |")
    print(f"| deflated verdict: indistinguishable from chance | {deflated / repeats:.1%} |")
    print(f"| PBO, mean and its standard error | {mean:.3f} +- {error:.3f} |", flush=True)


def power(markets: int) -> list[tuple[float, float, float, float, float]]:
    """How often a known edge is seen; the edge is the correlation of the signal with what it trades on."""
    rows = []
    print("\n| correlation of signal and return | Sharpe | beats chance | interval above 0 | deflated, 20 trials |")
    print("|---|---|---|---|---|")
    for edge in (0.0, 0.02, 0.04, 0.06, 0.08, 0.10, 0.15, 0.20):
        seen, above, kept, sharpes = 0, 0, 0, []
        for seed in range(markets):
            rng = np.random.default_rng([5, seed])
            bars, return_TS = market(rng, "normal")
            future_TS = np.vstack([return_TS[2:], np.zeros((2, SYMBOLS))]) / return_TS.std()
            signal_TS = edge * future_TS + math.sqrt(1.0 - edge**2) * rng.standard_normal(return_TS.shape)
            weights_TS = 0.3 * np.sign(signal_TS)
            band = null_band(*bars, weights_TS, BARE, DRAWS, seed)
            returns_T = daily_returns(simulate_draws(*bars, weights_TS[None], BARE))[:, 0]
            seen += verdict(band.p, UNKNOWN).startswith("beats")
            above += sharpe_interval(returns_T, 1000, seed).low > 0.0
            kept += deflated_sharpe(returns_T, 20, 1.0 / SESSIONS) >= 0.95
            sharpes.append(band.sharpe)
        row = (edge, float(np.mean(sharpes)), seen / markets, above / markets, kept / markets)
        rows.append(row)
        print("| {:.2f} | {:.2f} | {:.1%} | {:.1%} | {:.1%} |".format(*row), flush=True)
    return rows


def score_coverage(markets: int) -> None:
    """|t| of scores of noise above 1.96 must be about 5 %, also where labels overlap and forecasts last."""
    print(f"\n| scores of noise, {markets} samples of {SESSIONS} days: interval holds the truth |", end="")
    print(" ic | rank_ic | accuracy | mcc |")
    print("|---|---|---|---|---|")
    for symbols in (1, 5, 30):
        for overlap in (1, 5, 20):
            held = dict.fromkeys(("ic", "rank_ic", "accuracy", "mcc"), 0)
            for seed in range(markets):
                rng = np.random.default_rng([6, symbols, overlap, seed])
                shock = rng.standard_normal((SESSIONS + overlap, symbols)) + rng.standard_normal(
                    (SESSIONS + overlap, 1)
                )
                sums = np.cumsum(shock, axis=0)
                forecast = rng.standard_normal((SESSIONS, symbols))
                for t in range(1, SESSIONS):
                    forecast[t] = 0.9 * forecast[t - 1] + math.sqrt(0.19) * forecast[t]
                scores = daily_scores(forecast, sums[overlap:] - sums[:-overlap], overlap)
                for name, score in scores.items():
                    held[name] += score.low <= (0.5 if name == "accuracy" else 0.0) <= score.high
            shares = " | ".join(f"{count / markets:.1%}" for count in held.values())
            print(f"| {symbols} symbols, overlap {overlap} | {shares} |", flush=True)


def main() -> None:
    """Ask all questions, in the order of the README."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the samples, to see that it runs")
    parser.add_argument("--only", choices=("null", "interval", "trials", "power", "scores"))
    arguments = parser.parse_args()
    share = 10 if arguments.quick else 1
    started = time.perf_counter()
    if arguments.only in (None, "null"):
        null_without_skill(400 // share)
    if arguments.only in (None, "interval"):
        interval_coverage(1000 // share)
    if arguments.only in (None, "trials"):
        best_of_noise(200 // share, 100)
    if arguments.only in (None, "power"):
        rows = power(200 // share)
        with open(HERE / "power_curve.csv", "w", newline="") as file:
            csv.writer(file).writerows([("edge", "sharpe", "beats_chance", "interval_above_0", "deflated"), *rows])
    if arguments.only in (None, "scores"):
        score_coverage(300 // share)
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
