"""Real windows and books without skill, or with a known one, for the simulations beside this file.

Legend: T sessions, S symbols, N books, D draws.
"""

import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

# After the line above, which finds the project.
# ruff: noqa: E402
import numpy as np
import pandas as pd

from hftraining.trading.config import TradingRules

DATA = HERE.parents[2] / "shared" / "data"
SYMBOLS, LEAD = 20, 273  # symbols of a window, and sessions before it that momentum looks at
COSTS = TradingRules(stop_loss=0.0, take_profit=0.0, max_position_size=1.0, rebalance_band=0.0)
BARE = replace(COSTS, commission=0.0, slippage=0.0, borrow_rate=0.0)
STYLES = ("long-only", "long-short", "sticky", "momentum", "contrarian")
Bars = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@cache
def history(name: str) -> Bars:
    """Open, high, low and close_TS of all symbols, adjusted, NaN where there is no bar."""
    if name == "us300":
        frame = pd.read_parquet(DATA / "us300_2005_2017.parquet")
        glitches = pd.read_csv(DATA / "us300_glitch_rows.csv")
        bad = pd.MultiIndex.from_arrays([glitches["symbol"], pd.to_datetime(glitches["date"])])
        index = pd.MultiIndex.from_arrays([frame["symbol"], pd.to_datetime(frame["date"])])
        frame = frame[~index.isin(bad)]
        scale = 1.0
    else:
        frame = pd.read_parquet(DATA / "sp500_369_1999_2021.parquet")
        scale = frame["adj_close"] / frame["close"]
    wide = []
    for column in ("open", "high", "low", "close"):
        values = frame.assign(value=frame[column] * scale).pivot(index="date", columns="symbol", values="value")
        wide.append(np.ascontiguousarray(values.to_numpy(np.float64)))
    return tuple(wide)


@dataclass(frozen=True)
class Window:
    """Some symbols over `sessions` days, and the closes of LEAD days more before them."""

    bars: Bars
    close_TS: np.ndarray  # with the LEAD days before

    @property
    def sessions(self) -> int:
        """How many days."""
        return len(self.bars[0])


def window(rng: np.random.Generator, name: str, sessions: int, shuffled: bool = False) -> Window:
    """A random window of SYMBOLS symbols that have a bar on 95 % of its days; some are listed on the way.

    shuffled: its days in another order, so that no past price says anything of a later one.
    """
    whole = history(name)
    close_TS = whole[3]
    first = int(rng.integers(LEAD, len(close_TS) - sessions))
    rows = slice(first - LEAD, first + sessions)
    there_S = np.isfinite(close_TS[first : first + sessions]).mean(axis=0) >= 0.95
    chosen = rng.permutation(np.flatnonzero(there_S))[:SYMBOLS]
    cut = tuple(np.ascontiguousarray(part[rows][:, chosen]) for part in whole)
    if shuffled:
        cut = _shuffled(rng, cut)
    return Window(tuple(part[LEAD:] for part in cut), cut[3])


def _shuffled(rng: np.random.Generator, bars: Bars) -> Bars:
    """The same days in another order: each bar keeps its shape relative to the close before it."""
    close_TS = pd.DataFrame(bars[3]).ffill().to_numpy()
    with np.errstate(invalid="ignore"):
        ratios = [np.log(part[1:] / close_TS[:-1]) for part in bars]
    order = rng.permutation(len(ratios[3]))
    ratios = [np.nan_to_num(ratio[order]) for ratio in ratios]
    level_TS = 50.0 * np.exp(np.cumsum(ratios[3], axis=0))
    before_TS = np.vstack([np.full((1, level_TS.shape[1]), 50.0), level_TS[:-1]])
    made = [before_TS * np.exp(ratio) for ratio in ratios]
    return tuple(np.vstack([part[:1], part]) for part in made)


def skill_less(rng: np.random.Generator, place: Window, style: str, count: int) -> np.ndarray:
    """Target weights_NTS of `count` books of one style with random settings; gross exposure 1."""
    return np.stack([_book(rng, place, style) for _ in range(count)])


def _book(rng: np.random.Generator, place: Window, style: str) -> np.ndarray:
    n, s = place.sessions, place.close_TS.shape[1]
    if style in ("momentum", "contrarian"):
        lookback, skip = int(rng.choice([5, 21, 63, 126, 252])), int(rng.choice([0, 1, 21]))
        price_TS = pd.DataFrame(place.close_TS).ffill().to_numpy()
        end_TS = price_TS[LEAD - skip : LEAD - skip + n]
        score_TS = np.log(end_TS / price_TS[LEAD - skip - lookback : LEAD - skip - lookback + n])
        score_TS = score_TS if style == "momentum" else -score_TS
        score_TS = np.nan_to_num(score_TS) + 1e-9 * rng.standard_normal((n, s))
        score_TS = held_for(score_TS, int(rng.choice([1, 5, 21])), rng)
        return by_rank(score_TS, int(rng.choice([2, 4, 7])), is_long_only=bool(rng.random() < 0.5))
    if style == "sticky":
        return by_rank(held_for(rng.standard_normal((n, s)), 100, rng), int(rng.choice([2, 4, 7])), True)
    score_TS = persistent(rng, (n, s), int(rng.choice([1, 5, 10, 20])))
    if style == "long-only":
        return by_rank(score_TS, int(rng.choice([2, 4, 7])), True)
    return score_TS / np.abs(score_TS).sum(axis=1, keepdims=True)


def persistent(rng: np.random.Generator, shape: tuple[int, int], memory: int) -> np.ndarray:
    """Scores of unit variance that last about `memory` sessions."""
    keep = np.exp(-1.0 / memory)
    score_TS = rng.standard_normal(shape)
    for t in range(1, shape[0]):
        score_TS[t] = keep * score_TS[t - 1] + np.sqrt(1.0 - keep**2) * score_TS[t]
    return score_TS


def held_for(score_TS: np.ndarray, sessions: int, rng: np.random.Generator) -> np.ndarray:
    """The scores of every so many sessions, held between, from a random phase on."""
    row_T = np.arange(len(score_TS))
    phase = int(rng.integers(sessions))
    return score_TS[np.maximum(row_T - (row_T - phase) % sessions, 0)]


def by_rank(score_TS: np.ndarray, k: int, is_long_only: bool) -> np.ndarray:
    """Equal weights of the k best, and short in the k worst unless long only; gross exposure 1."""
    rank_TS = score_TS.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    n = score_TS.shape[1]
    long_TS = (rank_TS >= n - k) / k
    return long_TS if is_long_only else (long_TS - (rank_TS < k) / k) / 2.0


def skilled(rng: np.random.Generator, place: Window, style: str, skill: float) -> np.ndarray:
    """weights_TS of a book whose scores know a little of what the stocks do beyond their mean.

    style: "daily" and "tilt" know something of the next open-to-open return (long-short, and long only for about five
    days), "slow" of the next twenty (long only). skill: the weight of the knowledge beside noise of unit variance.
    """
    open_TS = pd.DataFrame(place.bars[0]).bfill().ffill().to_numpy()
    span = {"daily": 1, "tilt": 5, "slow": 20}[style]
    n, s = open_TS.shape
    future_TS = np.zeros((n, s))
    future_TS[: n - 1 - span] = np.log(open_TS[1 + span :] / open_TS[1 : n - span])
    future_TS -= future_TS.mean(axis=1, keepdims=True)
    future_TS /= future_TS.std()
    if style == "daily":
        score_TS = skill * future_TS + rng.standard_normal((n, s))
        return score_TS / np.abs(score_TS).sum(axis=1, keepdims=True)
    score_TS = held_for(skill * future_TS + rng.standard_normal((n, s)), span, rng)
    return by_rank(score_TS, 7, True)
