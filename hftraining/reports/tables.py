"""The rows of a report's longer tables."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from hftraining.core.metrics import Unit
from hftraining.reports.format import filled, is_known, number
from hftraining.runs.quantities import Estimate, Score
from hftraining.runs.result import PERIODS, Baseline, FoldResult, PeriodResult

BASELINES = {
    "buy_and_hold": "Buy and hold, equal weights",
    "risk_matched": "Buy and hold with the model's mean exposure",
    "momentum": "Momentum, 12 months less the last",
    "momentum_top": "Momentum, the best fifth alone",
    "trend": "Trend of each stock, by its volatility",
    "reversal": "Reversal of the last day",
    "ridge": "Ridge regression, same features",
    "lightgbm": "LightGBM, same features",
}
SCORES = {
    "ic": ("Information coefficient", "correlation of forecast and outcome across stocks, each day"),
    "rank_ic": ("Rank information coefficient", "the same of ranks"),
    "accuracy": ("Right direction", "the share of forecasts with the right sign"),
    "mcc": ("Matthews correlation", "of forecast and actual direction; 0 is a coin toss"),
}
FOLD_COLUMNS = ("from", "period", "Sharpe", "return", "rank IC", "t", "loss", "step", "days", "trained to")
TRADES_SHOWN = 200  # at each end


def baseline_rows(
    periods: Mapping[str, PeriodResult], who: str = "model"
) -> list[tuple[str, str, list[tuple[str, Baseline]]]]:
    """The model first, then the traded baselines: label, kind, and for each period path and numbers.

    who: whose account it is, if not a model's. The lead of the model over a baseline is without an interval where an
    older version wrote the result.
    """
    ours = [(f"{name}.profit", Baseline(period.profit, period.difference)) for name, period in periods.items()]
    found = {name for period in periods.values() for name in period.baselines}
    names = [name for name in BASELINES if name in found] + sorted(found - set(BASELINES))
    labels = {name: words.replace("the model", f"the {who}") for name, words in BASELINES.items()}
    return [(f"The {who}", "ours", ours)] + [
        (
            labels.get(name, name.replace("_", " ")),
            "theirs",
            [(f"{w}.baselines.{name}", _with_lead(period, name)) for w, period in periods.items()],
        )
        for name in names
    ]


def fold_rows(folds: Sequence[FoldResult]) -> list[list[str]]:
    """The folds of a walk-forward, in the texts that FOLD_COLUMNS heads."""
    return [
        [
            fold.first,
            PERIODS.get(fold.period, fold.period),
            number(fold.sharpe_ratio, Unit.RATIO),
            number(fold.total_return, Unit.CHANGE),
            number((fold.rank_ic or Score()).value, Unit.SCORE),
            filled("{:,.1f}", (fold.rank_ic or Score()).t),
            number(fold.loss, Unit.LOSS),
            filled("{:,}", fold.best_step),
            filled("{:,}", fold.days),
            fold.train_last,
        ]
        for fold in folds
    ]


def _with_lead(period: PeriodResult, name: str) -> Baseline:
    found = period.baselines.get(name, Baseline({}))
    ours, theirs = period.profit.get("sharpe_ratio"), found.metrics.get("sharpe_ratio")
    if found.lead is None and is_known(ours) and is_known(theirs):
        known = period.difference if name == "buy_and_hold" else None
        return replace(found, lead=known or Estimate(ours - theirs))
    return found


def score_rows(periods: Mapping[str, PeriodResult]) -> list[tuple[str, str, list[tuple[str, Score]]]]:
    """The scores that any period has: label, meaning, and for each period path and score."""
    return [
        (label, meaning, [(f"{w}.scores.{name}", period.scores.get(name, Score())) for w, period in periods.items()])
        for name, (label, meaning) in SCORES.items()
        if any(name in period.scores for period in periods.values())
    ]


def exit_rows(trades: pd.DataFrame) -> tuple[list[str], list[tuple[str, list[tuple[int, float]]]]]:
    """The periods with trades; and how trades ended, the most frequent first: number and profit by period."""
    periods = [period for period in PERIODS if (trades["window"] == period).any()]
    rows = []
    for reason in trades["exit_reason"].value_counts().index:
        ended = [trades[(trades["exit_reason"] == reason) & (trades["window"] == period)] for period in periods]
        rows.append((str(reason), [(len(part), float(part["pnl"].sum())) for part in ended]))
    return periods, rows


def trades_shown(trades: pd.DataFrame) -> list[list[dict[Any, Any]]]:
    """All trades in one list; of many trades the first and the last ones in two lists."""
    parts = [trades] if len(trades) <= 2 * TRADES_SHOWN else [trades.head(TRADES_SHOWN), trades.tail(TRADES_SHOWN)]
    return [part.to_dict("records") for part in parts]
