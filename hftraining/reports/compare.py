"""Two or more runs side by side: what differed, what that did to the numbers, and whether it is more than noise.

Runs that differ by their seed alone are one group, with a mean and a spread. The first group is what the others are
held against. Two kinds of noise are told apart: that of the market, by a bootstrap of daily returns paired by day,
and that of the seed, by the spread within the groups.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from hftraining.core.errors import UserError
from hftraining.core.metrics import BY_NAME, Unit
from hftraining.core.values import plain, without_nan
from hftraining.evidence.bootstrap import MIN_RETURNS, Interval, sharpe_difference
from hftraining.evidence.seeds import mean_difference, seeds_needed
from hftraining.reports.deltas import (
    Delta,
    Group,
    Row,
    Run,
    Spread,
    changed_bars,
    code_delta_of,
    config_rows,
    data_delta_of,
    environment_rows,
    group_by_seed,
    group_title,
    losses_differ_in,
)
from hftraining.reports.format import capitalised
from hftraining.runs.folder import RunFolder, find_runs, read_run
from hftraining.runs.result import PERIODS, Estimate
from hftraining.trading.metrics import daily_returns

DRAWS, SEED = 2000, 0


@dataclass(frozen=True)
class Shown:
    """A number that a comparison shows. path: in result.json."""

    path: str
    words: str
    unit: Unit

    @property
    def brief(self) -> bool:
        """Whether it is shown for many groups too."""
        return self.path == LOSS or self.path.endswith("sharpe_ratio")


def _shown_of(window: str) -> list[Shown]:
    rows = [(f"profit.{name}", capitalised(BY_NAME[name].words), BY_NAME[name].unit) for name in PROFIT]
    rows += [
        ("scores.rank_ic.value", "Rank information coefficient", Unit.SCORE),
        ("null.p", "p against luck", Unit.SCORE),
        ("baselines.buy_and_hold.sharpe_ratio", "Sharpe ratio of buy and hold", Unit.RATIO),
    ]
    return [Shown(f"{window}.{path}", f"{words}, {PERIODS[window]}", unit) for path, words, unit in rows]


LOSS = "eval.loss"
PROFIT = ("sharpe_ratio", "total_return", "max_drawdown", "win_rate", "trade_count", "turnover")
SHARPE = {window: f"{window}.profit.sharpe_ratio" for window in PERIODS}
HELD = {window: f"{window}.baselines.buy_and_hold.sharpe_ratio" for window in PERIODS}
SHOWN = (Shown(LOSS, "Forecast loss, validation", Unit.LOSS), *_shown_of("valid"), *_shown_of("test"))
TESTED = (LOSS, *SHARPE.values())


@dataclass(frozen=True)
class ByDays(Estimate):
    """A difference of Sharpe ratios, and its paired bootstrap interval over days. told_apart: it excludes zero."""

    days: int = 0
    told_apart: bool = False
    enough_days: bool = False


@dataclass(frozen=True)
class BySeeds(Estimate):
    """A difference of means, and Welch's interval over seeds. seeds: of the first group and of the other one."""

    seeds: list[int] = field(default_factory=lambda: [0, 0])
    told_apart: bool = False
    seeds_needed: int | None = None

    @property
    def several(self) -> bool:
        """Whether both sides have several seeds."""
        return min(self.seeds) > 1

    @property
    def needed(self) -> str:
        """How many seeds would tell such a difference from none, in words of a table."""
        return f"{self.seeds_needed:,}" if self.seeds_needed else "no number" if self.several else "-"


@dataclass(frozen=True)
class Difference:
    """How a group stands against the first one. sharpe: by window. seeds: by each path of TESTED that both have."""

    group: str
    against: str
    sharpe: dict[str, ByDays]
    seeds: dict[str, BySeeds]

    def sharpe_by_seeds(self, window: str = "valid") -> BySeeds:
        """The difference of the mean Sharpe ratios; one without a value where it is not known."""
        return self.seeds.get(SHARPE[window], BySeeds())


@dataclass(frozen=True)
class MetricTable:
    """The numbers of a comparison. cells: a row for each of rows, a column for each of heads."""

    heads: list[str]
    rows: list[str]
    cells: list[list[tuple[Shown, Spread]]]


@dataclass(frozen=True)
class Comparison:
    """Everything that a comparison found."""

    groups: list[Group]
    config: list[Row]
    data: Delta
    bars: dict[str, list[str]]  # changed symbols and days, by group
    code: Delta
    environment: list[Row]
    losses_differ_in: list[str]
    differences: list[Difference]

    @property
    def runs(self) -> list[Run]:
        """All runs, group by group."""
        return [run for group in self.groups for run in group.runs]

    @property
    def labels(self) -> list[str]:
        """The labels of the groups."""
        return [group.label for group in self.groups]

    def rows(self) -> list[tuple[Difference, str, ByDays, BySeeds]]:
        """The differences of the Sharpe ratios, one a window."""
        return [
            (difference, window, difference.sharpe[window], difference.sharpe_by_seeds(window))
            for difference in self.differences
            for window in PERIODS
            if window in difference.sharpe
        ]

    def metrics(self, most: int) -> MetricTable:
        """A row a metric; where that needs more than `most` columns, a row a group and the brief metrics alone.

        The runs of a single group have columns of their own.
        """
        columns = [(group.label, group) for group in self.groups]
        if len(self.groups) == 1:
            columns = [*((run.label, Group(run.label, [run])) for run in self.runs), ("mean", self.groups[0])]
        labels = [label for label, _ in columns]
        if len(columns) <= most:
            cells = [[(shown, group.spread(shown.path)) for _, group in columns] for shown in SHOWN]
            return MetricTable(labels, [shown.words for shown in SHOWN], cells)
        brief = [shown for shown in SHOWN if shown.brief]
        cells = [[(shown, group.spread(shown.path)) for shown in brief] for _, group in columns]
        return MetricTable([shown.words for shown in brief], labels, cells)

    def as_json(self) -> dict[str, Any]:
        """The comparison as one plain object without NaN: what `compare --json` prints."""
        found = {
            "runs": [_run(run) for run in self.runs],
            "groups": [_group(group) for group in self.groups],
            "config": [asdict(row) for row in self.config],
            "data": {"same": self.data.same, "rows": _rows(self.data.rows), "bars": self.bars},
            "code": {"same": self.code.same, "rows": _rows(self.code.rows)},
            "environment": _rows(self.environment),
            "losses_differ_in": self.losses_differ_in,
            "differences": [asdict(difference) for difference in self.differences],
        }
        return without_nan(plain(found))


def compare(places: Sequence[str | Path]) -> Comparison:
    """The comparison of all runs found at the places (see `find_runs`). Raises UserError for fewer than two runs."""
    folders = find_runs(places)
    if len(folders) < 2:
        raise UserError(f"{folders[0]}: one run alone has nothing to be compared with")
    return compare_runs([read_run(folder) for folder in folders])


def compare_runs(runs: Sequence[RunFolder]) -> Comparison:
    """The comparison of these runs, at least one."""
    groups = group_by_seed(runs)
    config = config_rows(groups)
    for group in groups:
        group.title = group_title(group, groups, config)
    units = groups if len(groups) > 1 else [Group(run.label, [run]) for run in groups[0].runs]
    return Comparison(
        groups,
        config,
        data_delta_of(groups),
        changed_bars(groups),
        code_delta_of(groups),
        environment_rows(groups),
        losses_differ_in(config),
        [_difference(units[0], unit) for unit in units[1:]],
    )


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
        if (equity := run.files.equity) is None:
            continue
        part = equity[equity["window"] == window]
        days = [str(day)[:10] for day in part["date"]][1:]
        by_run.append(dict(zip(days, daily_returns(part["equity"].to_numpy(float)).tolist(), strict=True)))
    shared = set.intersection(*(set(returns) for returns in by_run)) if by_run else set()
    return {day: fmean(returns[day] for returns in by_run) for day in shared}


def _difference(first: Group, other: Group) -> Difference:
    """How `other` stands against `first`: market noise for the Sharpe ratios, seed noise for every tested metric."""
    sharpe, seeds = {}, {}
    for window in PERIODS:
        theirs, ours = paired_returns(first, other, window)
        if len(ours):
            interval = sharpe_difference(ours, theirs, DRAWS, SEED)
            enough = len(ours) >= MIN_RETURNS
            sharpe[window] = ByDays(**_ends(interval), days=len(ours), told_apart=_apart(interval), enough_days=enough)
    for path in TESTED:
        ours_n, theirs_n = other.values(path), first.values(path)
        if ours_n and theirs_n:
            interval = mean_difference(ours_n, theirs_n)
            numbers, needed = [len(theirs_n), len(ours_n)], seeds_needed(ours_n, theirs_n)
            seeds[path] = BySeeds(**_ends(interval), seeds=numbers, told_apart=_apart(interval), seeds_needed=needed)
    return Difference(other.label, first.label, sharpe, seeds)


def _ends(interval: Interval) -> dict[str, Any]:
    """The fields of an estimate, None for what is not known."""
    return without_nan(plain(asdict(interval)))


def _apart(interval: Interval) -> bool:
    """Whether the whole 95 % interval lies on one side of zero; False where its ends are not known."""
    return interval.low > 0.0 or interval.high < 0.0


def _run(run: Run) -> dict[str, Any]:
    return {
        "label": run.label,
        "group": run.group,
        "folder": str(run.files.path),
        **{key: run.facts.get(key) for key in ("name", "kind", "signature", "seed", "started")},
        "finished": run.result is not None,
        "verdict": run.result.verdict if run.result else None,
        "metrics": {shown.path: run.numbers.get(shown.path) for shown in SHOWN},
    }


def _group(group: Group) -> dict[str, Any]:
    return {
        "label": group.label,
        "title": group.title,
        "seeds": group.seeds,
        "runs": len(group.runs),
        "metrics": {shown.path: asdict(group.spread(shown.path)) for shown in SHOWN},
    }


def _rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [{"field": row["field"], "values": row["values"]} for row in map(asdict, rows)]
