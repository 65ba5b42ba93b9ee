"""Two or more runs side by side: what differed, what that did to the numbers, and whether it is more than noise.

Runs that differ by their seed alone are one group, with a mean and a spread. The first group is what the others are
held against. Two kinds of noise are told apart: that of the market, by a bootstrap of daily returns paired by day,
and that of the seed, by the spread within the groups.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from hftraining.core.errors import UserError
from hftraining.core.values import plain, without_nan
from hftraining.evidence.bootstrap import MIN_RETURNS, Interval, sharpe_difference
from hftraining.evidence.seeds import mean_difference, seeds_needed
from hftraining.reports.deltas import (
    Group,
    code_rows,
    config_rows,
    data_rows,
    environment_rows,
    group_by_seed,
    group_title,
    losses_differ_in,
    run_label,
)
from hftraining.runs.folder import RunFolder, find_runs, read_run
from hftraining.runs.record import dig
from hftraining.trading.metrics import daily_returns

DRAWS, SEED = 2000, 0
# Path in result.json, words, how to show it.
METRICS = (
    ("eval.loss", "Forecast loss, validation", "loss"),
    *(
        (f"{window}.{path}", f"{words}, {name}", show)
        for window, name in (("valid", "validation"), ("test", "test"))
        for path, words, show in (
            ("profit.sharpe_ratio", "Sharpe ratio", "fixed"),
            ("profit.total_return", "Total return", "percent"),
            ("profit.max_drawdown", "Deepest drawdown", "percent"),
            ("profit.win_rate", "Trades won", "share"),
            ("profit.trade_count", "Closed trades", "count"),
            ("profit.turnover", "Turnover a year", "fixed"),
            ("scores.rank_ic.value", "Rank information coefficient", "score"),
            ("null.p", "p against luck", "score"),
            ("baselines.buy_and_hold.sharpe_ratio", "Sharpe ratio of buy and hold", "fixed"),
        )
    ),
)
TESTED = ("eval.loss", "valid.profit.sharpe_ratio", "test.profit.sharpe_ratio")
WINDOWS = ("valid", "test")


@dataclass(frozen=True)
class Comparison:
    """found: everything to say, as one plain object without NaN. groups: with the runs themselves, for their curves."""

    found: dict[str, Any]
    groups: list[Group]


def compare(places: Sequence[str | Path]) -> Comparison:
    """The comparison of all runs found at the places (see `find_runs`). Raises UserError for fewer than two runs."""
    folders = find_runs(places)
    if len(folders) < 2:
        raise UserError(f"{folders[0]}: one run alone has nothing to be compared with")
    return compare_runs([read_run(folder) for folder in folders])


def compare_runs(runs: Sequence[RunFolder]) -> Comparison:
    """The comparison of these runs, at least one."""
    groups = group_by_seed(runs)
    rows = config_rows(groups)
    units = groups if len(groups) > 1 else [Group(run_label(0, i), [run]) for i, run in enumerate(runs)]
    found = {
        "runs": [_run(run, group, i) for group in groups for i, run in enumerate(group.runs)],
        "groups": [_group(group, groups, rows) for group in groups],
        "config": rows,
        "data": data_rows(groups),
        "code": code_rows(groups),
        "environment": environment_rows(groups),
        "losses_differ_in": losses_differ_in(rows),
        "differences": [_difference(units[0], unit) for unit in units[1:]],
    }
    return Comparison(without_nan(plain(found)), groups)


def paired_returns(a: Group, b: Group, window: str) -> tuple[np.ndarray, np.ndarray]:
    """Daily net returns of both over the days that both have; of several seeds the mean, an equal split of money."""
    series = [_mean_returns(group, window) for group in (a, b)]
    days = sorted(series[0].keys() & series[1].keys())
    one, other = (np.array([returns[day] for day in days]) for returns in series)
    return one, other


def _mean_returns(group: Group, window: str) -> dict[str, float]:
    """By ISO day; only days that every seed has."""
    by_run = []
    for run in group.replicates:
        if run.equity is None:
            continue
        part = run.equity[run.equity["window"] == window]
        days = [str(day)[:10] for day in part["date"]][1:]
        by_run.append(dict(zip(days, daily_returns(part["equity"].to_numpy(float)).tolist(), strict=True)))
    shared = set.intersection(*(set(returns) for returns in by_run)) if by_run else set()
    return {day: fmean(returns[day] for returns in by_run) for day in shared}


def _difference(first: Group, other: Group) -> dict[str, Any]:
    """How `other` stands against `first`: market noise for the Sharpe ratios, seed noise for every tested metric."""
    found: dict[str, Any] = {"group": other.label, "against": first.label, "sharpe": {}, "seeds": {}}
    for window in WINDOWS:
        theirs, ours = paired_returns(first, other, window)
        if not len(ours):
            continue
        interval = sharpe_difference(ours, theirs, DRAWS, SEED)
        found["sharpe"][window] = asdict(interval) | {
            "days": len(ours),
            "told_apart": told_apart(interval),
            "enough_days": len(ours) >= MIN_RETURNS,
        }
    for metric in TESTED:
        ours_n, theirs_n = other.values(metric), first.values(metric)
        if ours_n and theirs_n:
            interval = mean_difference(ours_n, theirs_n)
            found["seeds"][metric] = asdict(interval) | {
                "seeds": [len(theirs_n), len(ours_n)],
                "told_apart": told_apart(interval),
                "seeds_needed": seeds_needed(ours_n, theirs_n),
            }
    return found


def told_apart(interval: Interval) -> bool:
    """Whether the whole 95 % interval lies on one side of zero; False where its ends are not known."""
    return interval.low > 0.0 or interval.high < 0.0


def _run(run: RunFolder, group: Group, index: int) -> dict[str, Any]:
    return {
        "label": f"{group.label}{index + 1}",
        "group": group.label,
        "folder": str(run.path),
        "name": run.manifest.get("name"),
        "kind": run.manifest.get("kind"),
        "signature": run.manifest.get("signature"),
        "seed": run.manifest.get("seed"),
        "started": run.manifest.get("started"),
        "finished": bool(run.result),
        "verdict": run.result.get("verdict"),
        "metrics": {metric: dig(run.result, *metric.split(".")) for metric, _, _ in METRICS},
    }


def _group(group: Group, groups: Sequence[Group], rows: list[dict[str, Any]]) -> dict[str, Any]:
    metrics = {}
    for metric, _, _ in METRICS:
        values = group.values(metric)
        spread = stdev(values) if len(values) > 1 else None
        metrics[metric] = {"mean": fmean(values) if values else None, "sd": spread, "n": len(values)}
    return {
        "label": group.label,
        "title": group_title(group, groups, rows),
        "seeds": [run.manifest.get("seed") for run in group.replicates],
        "runs": len(group.runs),
        "metrics": metrics,
    }
