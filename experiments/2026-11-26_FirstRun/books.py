"""Portfolios on kept forecasts, traded by the product's engine and rules beside holding and equal weights.

Legend: T sessions, S symbols.
"""

from collections.abc import Iterable
from functools import cache as once
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scores import kept
from sets import Set

from hftraining.core.bars import Bars
from hftraining.core.forecast import Forecast
from hftraining.evidence.bootstrap import sharpe_difference, sharpe_interval
from hftraining.evidence.selection import Track, judge_excess
from hftraining.portfolio.config import PortfolioConfig
from hftraining.portfolio.weights import target_weights
from hftraining.trading.config import TradingRules
from hftraining.trading.metrics import daily_returns, summarize
from hftraining.trading.simulator import SESSIONS_PER_YEAR, Simulation, hold, simulate

# The default rules of the first run: no stops, one stock may be the whole book, no band.
RULES = TradingRules(max_position_size=1.0, stop_loss=0.0, take_profit=0.0, rebalance_band=0.0)
DRAWS, SEED = 2000, 1
PACES: tuple[dict[str, Any], ...] = (
    {"every": 21, "trade_rate": 1.0},
    {"every": 1, "trade_rate": 1.0},
    {"every": 1, "trade_rate": 0.1},
    {"every": 1, "trade_rate": 0.05},
)


def grid() -> list[PortfolioConfig]:
    """Every portfolio that is tried; all but the last eight written down before any was looked at."""
    tilt = [
        PortfolioConfig(kind="tilt", strength=strength, smoothing=smoothing, trade_rate=rate)
        for strength, smoothing, rate in product((0.25, 0.5, 1.0), (0.0, 5.0, 10.0, 20.0), (0.05, 0.1, 0.2, 1.0))
    ]
    others = [
        PortfolioConfig(kind=kind, fraction=0.2, keep=0.5, share=0.3, smoothing=smoothing, **pace)
        for kind, smoothing, pace in product(("top", "long_short", "core"), (0.0, 10.0, 20.0), PACES)
    ]
    return [*tilt, *others, *after_the_scores()]


def after_the_scores() -> list[PortfolioConfig]:
    """Added once the rank correlations were known, which are surer at 5 sessions; counted with the others."""
    settings = product((0.5, 1.0), (10.0, 20.0), (0.05, 0.1))
    return [PortfolioConfig(kind="tilt", horizon=5, strength=s, smoothing=m, trade_rate=r) for s, m, r in settings]


EQUAL = PortfolioConfig(kind="tilt", strength=0.0, trade_rate=0.05)  # equal weights at the slowest pace of the grid


def name_of(book: PortfolioConfig) -> str:
    """kind, strength (tilt), smoothing, trade_rate, every; horizon where it is not the longest."""
    strength = f" {book.strength:g}" if book.kind == "tilt" else ""
    every = "" if book.every == 1 else f", every {book.every}"
    horizon = f", {book.horizon} sessions" if book.horizon else ""
    return f"{book.kind}{strength}, smoothing {book.smoothing:g}, rate {book.trade_rate:g}{every}{horizon}"


def prices(bars: Bars) -> tuple[np.ndarray, ...]:
    """Open, high, low and close."""
    return bars.open_TS, bars.high_TS, bars.low_TS, bars.close_TS


def traded(found: Set, forecast: Forecast, book: PortfolioConfig, period: str) -> Simulation:
    """The account of a portfolio over a period."""
    bars = found.bars.rows(found.rows(period))
    return simulate(*prices(bars), target_weights(forecast, bars, book, RULES), RULES)


@once
def held(found: Set, period: str) -> Simulation:
    """Buy and hold of all that could be bought."""
    return hold(*prices(found.bars.rows(found.rows(period))), RULES)


def figures(simulation: Simulation) -> dict[str, float]:
    """Net Sharpe ratio, return, and turnover and costs a year; costs as a share of the mean equity."""
    summary = summarize(simulation, RULES)
    share = simulation.costs_T.sum() / simulation.equity_T.mean()
    return {
        "sharpe": summary["sharpe_ratio"],
        "cagr": summary["cagr"],
        "drawdown": summary["max_drawdown"],
        "turnover": summary["turnover"],
        "costs": float(share) * SESSIONS_PER_YEAR / (len(simulation.equity_T) - 1),
        "exposure": summary["exposure"],
    }


def evidence(found: Set, simulation: Simulation, period: str, equal: Simulation) -> dict[str, float]:
    """The Sharpe ratio, its difference to holding and to equal weights, and alpha a year to holding, with intervals."""
    days = found.bars.sessions_T[found.rows(period)][1:]
    ours, theirs = (daily_returns(of.equity_T) for of in (simulation, held(found, period)))
    excess = judge_excess(Track(days, ours, theirs), [], 1, DRAWS, SEED)
    intervals = {
        "sharpe": sharpe_interval(ours, DRAWS, SEED),
        "to_hold": sharpe_difference(ours, theirs, DRAWS, SEED),
        "to_equal": sharpe_difference(ours, daily_returns(equal.equity_T), DRAWS, SEED),
        "alpha": excess.alpha,
    }
    ends = {f"{name}_{end}": getattr(of, end) for name, of in intervals.items() for end in ("value", "low", "high")}
    return {**ends, "beta": excess.beta}


def try_all(
    data: Path, cache: Path, sets: Iterable[str], seeds: Iterable[int], models: Iterable[str], labels: Iterable[str],
    books: list[PortfolioConfig], period: str, with_evidence: bool,
) -> pd.DataFrame:  # fmt: skip
    """One row a set, model, label, seed and portfolio, kept as they come. with_evidence: intervals, which take long."""
    kind = f"evidence_{period}" if with_evidence else f"grid_{period}"
    tables = []
    for found, model, label, seed, forecast in kept(data, cache, sets, seeds, period, models, labels):
        path = cache / "books" / kind / found.name / f"{model}_{label}_{seed}.csv"
        known = pd.read_csv(path) if path.exists() else pd.DataFrame({"book": []})
        missing = [book for book in books if name_of(book) not in set(known.book)]
        if missing:
            rows = pd.DataFrame(rows_of(found, forecast, missing, period, with_evidence))
            rows = rows.assign(set=found.name, model=model, label=label, seed=seed)
            known = pd.concat([known, rows]) if len(known) else rows
            path.parent.mkdir(parents=True, exist_ok=True)
            known.to_csv(path, index=False)
        tables.append(known[known.book.isin([name_of(book) for book in books])])
    return pd.concat(tables)


def rows_of(
    found: Set, forecast: Forecast, books: list[PortfolioConfig], period: str, with_evidence: bool
) -> list[dict[str, Any]]:
    """The figures of portfolios on one forecast."""
    equal = traded(found, forecast, EQUAL, period)
    lead = {"hold_sharpe": figures(held(found, period))["sharpe"], "equal_sharpe": figures(equal)["sharpe"]}
    rows = []
    for book in books:
        simulation = traded(found, forecast, book, period)
        more = evidence(found, simulation, period, equal) if with_evidence else {}
        settings = {name: getattr(book, name) for name in ("kind", "strength", "smoothing", "trade_rate", "every")}
        rows.append({"book": name_of(book), **settings, **figures(simulation), **lead, **more})
    return rows
