"""Whether the verdict holds its level for the best of many books without skill, and what it loses in power.

    python experiments/2026-11-26_Evidence/selection.py level [--count 300] [--part 0/2]
    python experiments/2026-11-26_Evidence/selection.py power [--count 300] [--part 0/2]
    python experiments/2026-11-26_Evidence/selection.py coverage [--count 100] [--part 0/2]

Writes level.csv, power.csv and coverage.csv beside this file, a row a judged book, or level-0.csv, level-1.csv and so
on in parts; tables.py prints the tables of README.md from them. Every replication has a seed of its own, so a second
run writes the same numbers.

Legend: T sessions, S symbols, N books.
"""

import argparse
import csv
import math
import time
from collections.abc import Iterator

import numpy as np
from markets import BARE, COSTS, HERE, STYLES, Window, skill_less, skilled, window

from hftraining.evidence.bootstrap import sharpe_difference, sharpe_interval
from hftraining.evidence.deflation import deflated_sharpe, expected_maximum_sharpe
from hftraining.evidence.nulls import null_band
from hftraining.evidence.selection import Track, beta_of, judge_excess
from hftraining.evidence.verdict import CHANCE_P
from hftraining.trading.config import TradingRules
from hftraining.trading.metrics import daily_returns
from hftraining.trading.simulator import hold, simulate_draws

MARKETS = ("us300", "sp500_369")
SIZES = (1, 30, 100)
DRAWS, NULL_DRAWS = 1000, 120
WITH_ALL_NULLS = 40  # replications; in the others the null band is drawn only where the rest of the rule passes


def held(place: Window, rules: TradingRules) -> np.ndarray:
    """Daily returns of buy and hold."""
    return daily_returns(hold(*place.bars, rules).equity_T)


Row = dict[str, float]


def judged(
    place: Window,
    weights_NTS: np.ndarray,
    returns_TN: np.ndarray,
    benchmark_T: np.ndarray,
    rules: TradingRules,
    seed: int,
    chosen: int | None = None,
) -> Iterator[tuple[int, Row]]:
    """For each N of SIZES: what a rule may read of the best of the first N books by Sharpe ratio, or of the chosen."""
    sharpe_N = returns_TN.mean(axis=0) / returns_TN.std(axis=0, ddof=1)
    beta_N = np.array([beta_of(returns_T, benchmark_T) for returns_T in returns_TN.T])
    excess_TN = returns_TN - beta_N * benchmark_T[:, None]
    skill_N = excess_TN.mean(axis=0) / excess_TN.std(axis=0, ddof=1)
    days_T = np.arange(len(returns_TN))
    known: dict[int, Row] = {}
    for n in SIZES:
        best = int(sharpe_N[:n].argmax()) if chosen is None else chosen
        own_T = returns_TN[:, best]
        if best not in known:
            known[best] = _alone(own_T, benchmark_T, seed)
        own = Track(days_T, own_T, benchmark_T)
        others = [Track(days_T, returns_TN[:, k], benchmark_T) for k in range(n) if k != best]
        among = judge_excess(own, others, n, DRAWS, seed)
        variances = [float(values_N[:n].var(ddof=1)) if n > 1 else 0.0 for values_N in (sharpe_N, skill_N)]
        luck = expected_maximum_sharpe(n, variances[0]) + (float(sharpe_N[:n].mean()) if n > 1 else 0.0)
        if "p" not in known[best]:
            needed = (chosen is None and seed < WITH_ALL_NULLS) or among.p <= CHANCE_P
            if needed:
                known[best]["p"] = null_band(*place.bars, weights_NTS[best], rules, NULL_DRAWS, seed).p
        yield (
            n,
            {"p": math.nan}
            | known[best]
            | {
                "p_best": among.p,
                "lead_best": among.lead_p,
                "dsr_zero": deflated_sharpe(own_T, n, variances[0]),
                "dsr_excess": deflated_sharpe(excess_TN[:, best], n, variances[1]),
                "z_centred": float(sharpe_N[best] - luck) * math.sqrt(len(own_T) - 1),
            },
        )


def _alone(own_T: np.ndarray, benchmark_T: np.ndarray, seed: int) -> Row:
    own = Track(np.arange(len(own_T)), own_T, benchmark_T)
    alone = judge_excess(own, [], 1, DRAWS, seed)
    apart, itself = sharpe_difference(own_T, benchmark_T, DRAWS, seed), sharpe_interval(own_T, DRAWS, seed)
    return {
        "sharpe": itself.value,
        "held": float(benchmark_T.mean() / benchmark_T.std(ddof=1)) * math.sqrt(252),
        "total_return": float(np.prod(1.0 + own_T) - 1.0),
        "alpha": alone.alpha.value,
        "alpha_low": alone.alpha.low,
        "ir": alone.information_ratio,
        "p_alone": alone.p,
        "lead_alone": alone.lead_p,
        "diff_low": apart.low,
        "diff_high": apart.high,
        "low": itself.low,
        "high": itself.high,
    }


def level(count: int, part: tuple[int, int]) -> Iterator[dict[str, object]]:
    """The best of N books without skill, on real windows of two years, with and without costs."""
    for number in range(part[0], count, part[1]):
        for m, market in enumerate(MARKETS):
            for s, style in enumerate(STYLES):
                for c, (costs, rules) in enumerate((("none", BARE), ("costs", COSTS))):
                    if c and number % 2:
                        continue  # half as many: costs only make it harder to look skilled
                    seed = [number, m, s, c]
                    rng = np.random.default_rng(seed)
                    place = window(rng, market, 504)
                    weights_NTS = skill_less(rng, place, style, max(SIZES))
                    returns_TN = daily_returns(simulate_draws(*place.bars, weights_NTS, rules))
                    benchmark_T = held(place, rules)
                    for n, found in judged(place, weights_NTS, returns_TN, benchmark_T, rules, number):
                        yield {"market": market, "style": style, "costs": costs, "n": n, "number": number} | found


def power(count: int, part: tuple[int, int]) -> Iterator[dict[str, object]]:
    """A book of known skill among N - 1 without, judged for itself: no costs, so that the truth is known."""
    for number in range(part[0], count, part[1]):
        for s, style in enumerate(("daily", "tilt", "slow")):
            for y, years in enumerate((2, 4, 8)):
                market = MARKETS[number % 2]
                slope = slope_of(market, style)
                for i, truth in enumerate((0.5, 1.0, 2.0)):
                    rng = np.random.default_rng([number, s, y, i, 7])
                    place = window(rng, market, 252 * years)
                    others = skill_less(rng, place, "long-short" if style == "daily" else "long-only", max(SIZES) - 1)
                    weights_NTS = np.concatenate([skilled(rng, place, style, truth / slope)[None], others])
                    returns_TN = daily_returns(simulate_draws(*place.bars, weights_NTS, BARE))
                    benchmark_T = held(place, BARE)
                    for n, found in judged(place, weights_NTS, returns_TN, benchmark_T, BARE, number, chosen=0):
                        row = {"market": market, "style": style, "years": years, "truth": truth, "n": n}
                        yield row | {"number": number} | found


def coverage(count: int, part: tuple[int, int]) -> Iterator[dict[str, object]]:
    """How often the intervals hold the truth: two years drawn in blocks from ten, whose own figures are the truth."""
    for number in range(part[0], count, part[1]):
        for m, market in enumerate(MARKETS):
            for s, style in enumerate(STYLES):
                rng = np.random.default_rng([number, m, s, 13])
                place = window(rng, market, 2520)
                weights_NTS = skill_less(rng, place, style, 1)
                for costs, rules in (("none", BARE), ("costs", COSTS)):
                    own_T = daily_returns(simulate_draws(*place.bars, weights_NTS, rules))[:, 0]
                    row = {"market": market, "style": style, "costs": costs, "number": number}
                    yield from (row | found for found in _covered(rng, own_T, held(place, rules), number))


def _covered(
    rng: np.random.Generator, own_T: np.ndarray, benchmark_T: np.ndarray, seed: int
) -> Iterator[dict[str, object]]:
    sharpe, its = (float(series.mean() / series.std(ddof=1)) * math.sqrt(252) for series in (own_T, benchmark_T))
    alpha = 252 * float((own_T - beta_of(own_T, benchmark_T) * benchmark_T).mean())
    for repeat in range(10):
        day_T = blocks(rng, len(own_T), 504, 20)
        ours_T, theirs_T = own_T[day_T], benchmark_T[day_T]
        apart = sharpe_difference(ours_T, theirs_T, DRAWS, seed)
        found = judge_excess(Track(np.arange(504), ours_T, theirs_T), [], 1, DRAWS, seed)
        yield {
            "repeat": repeat,
            "sharpe": sharpe,
            "difference": apart.low <= sharpe - its <= apart.high,
            "alpha": found.alpha.low <= alpha <= found.alpha.high,
            "width": apart.high - apart.low,
        }


def blocks(rng: np.random.Generator, n: int, count: int, length: int) -> np.ndarray:
    """`count` days of n in blocks of a mean length, on a circle."""
    day_T = rng.integers(n, size=count)
    for t in range(1, count):
        if rng.random() >= 1.0 / length:
            day_T[t] = (day_T[t - 1] + 1) % n
    return day_T


SLOPES: dict[tuple[str, str], float] = {}


def slope_of(market: str, style: str) -> float:
    """The information ratio that a skill of 1 would give if it grew in proportion, over random windows."""
    if (market, style) not in SLOPES:
        rng, skill, ratios = np.random.default_rng(11), 0.05, []
        for _ in range(60):
            place = window(rng, market, 1008)
            pair = np.stack([skilled(rng, place, style, side * skill) for side in (1.0, -1.0)])
            returns_TN, benchmark_T = daily_returns(simulate_draws(*place.bars, pair, BARE)), held(place, BARE)
            excess = [returns_TN[:, k] - beta_of(returns_TN[:, k], benchmark_T) * benchmark_T for k in (0, 1)]
            one, other = (float(e.mean() / e.std(ddof=1)) * math.sqrt(252) for e in excess)
            ratios.append((one - other) / 2.0)  # what the market gave both cancels
        SLOPES[market, style] = float(np.mean(ratios)) / skill
    return SLOPES[market, style]


def main() -> None:
    """Run one part of one question and write its rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("question", choices=("level", "power", "coverage"))
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--part", default="0/1", help="K/M: every M-th replication, from K on")
    options = parser.parse_args()
    k, m = map(int, options.part.split("/"))
    rows = {"level": level, "power": power, "coverage": coverage}[options.question](options.count, (k, m))
    started, path = time.monotonic(), HERE / f"{options.question}{f'-{k}' if m > 1 else ''}.csv"
    with open(path, "w", newline="") as file:
        writer = None
        for number, row in enumerate(rows):
            if writer is None:
                writer = csv.DictWriter(file, list(row))
                writer.writeheader()
            writer.writerow(row)
            if number % 300 == 0:
                file.flush()
                print(f"{number} rows, {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
