"""Two or more runs side by side: what differs, how the numbers changed, and whether that is more than noise.

Runs that differ by their seed alone form one group, with a mean and a spread. All groups are compared with the first.
There are two kinds of noise: the market's, measured by a bootstrap of daily returns paired by day, and the seed's,
measured by the spread within the groups.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hftraining.core.errors import UserError
from hftraining.core.metrics import BY_NAME, Unit
from hftraining.core.values import plain, without_nan
from hftraining.evidence.bootstrap import MIN_RETURNS, Interval, sharpe_difference
from hftraining.evidence.seeds import mean_difference, seeds_needed
from hftraining.reports.curves import curve_of, mean_of
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
from hftraining.reports.tables import SCORES
from hftraining.reports.words import BY_PATH, alarm_lines, metric_words, money_line
from hftraining.runs.folder import RunFolder, find_runs, read_run
from hftraining.runs.quantities import Estimate
from hftraining.runs.result import PERIODS
from hftraining.trading.metrics import daily_returns

DRAWS, SEED = 2000, 0


@dataclass(frozen=True)
class Shown:
    """A metric that a comparison shows. path: in result.json."""

    path: str
    words: str
    unit: Unit

    @property
    def brief(self) -> bool:
        """Whether it is shown even for many groups."""
        return self.path == LOSS or self.path.endswith(("total_return", "sharpe_ratio"))


def _shown_of(period: str) -> list[Shown]:
    rows = [(f"profit.{name}", metric_words(name), BY_NAME[name].unit) for name in PROFIT]
    rows += [(f"{HOLDING}.{name}", f"{metric_words(name)} of buy and hold", BY_NAME[name].unit) for name in HELD_PROFIT]
    rows.sort(key=lambda row: not row[0].endswith("total_return"))  # the money first
    rows += [(number, BY_PATH[path].words, BY_PATH[path].unit) for path, number in NUMBERS.items()]
    rows.append(("scores.rank_ic.value", SCORES["rank_ic"][0], Unit.SCORE))
    return [Shown(f"{period}.{path}", f"{words}, {PERIODS[period]}", unit) for path, words, unit in rows]


LOSS = "eval.loss"
HOLDING = "baselines.buy_and_hold"
HELD_PROFIT = ("total_return", "sharpe_ratio")
NUMBERS = {  # the rows of evidence that are means over seeds, and where their number is
    "benchmark.alpha": "benchmark.alpha.value",
    "benchmark.beta": "benchmark.beta",
    "benchmark.information_ratio": "benchmark.information_ratio",
    "benchmark.p": "benchmark.p",
    "benchmark.deflated_sharpe": "benchmark.deflated_sharpe",
    "null.p": "null.p",
}
PROFIT = ("total_return", "sharpe_ratio", "max_drawdown", "win_rate", "trade_count", "turnover")
SHARPE = {period: f"{period}.profit.sharpe_ratio" for period in PERIODS}
HELD = {period: f"{period}.{HOLDING}.sharpe_ratio" for period in PERIODS}
SHOWN = (
    *_shown_of("valid"),
    *_shown_of("test"),
    Shown(LOSS, "Forecast loss, validation", Unit.LOSS),
    Shown("parameters", "Parameters", Unit.COUNT),
)
TESTED = (LOSS, *SHARPE.values())


@dataclass(frozen=True)
class ByDays(Estimate):
    """A difference of Sharpe ratios and its paired bootstrap interval. told_apart: the interval excludes zero."""

    days: int = 0
    told_apart: bool = False
    enough_days: bool = False


@dataclass(frozen=True)
class BySeeds(Estimate):
    """A difference of means and Welch's interval. seeds: how many the first group and the other one have."""

    seeds: list[int] = field(default_factory=lambda: [0, 0])
    told_apart: bool = False
    seeds_needed: int | None = None

    @property
    def several(self) -> bool:
        """Whether both sides have several seeds."""
        return min(self.seeds) > 1

    @property
    def needed(self) -> str:
        """How many seeds each side would need to tell this difference from none, for a table."""
        return f"{self.seeds_needed:,}" if self.seeds_needed else "no number" if self.several else "-"


@dataclass(frozen=True)
class Difference:
    """A group compared with the first one. sharpe: by period. seeds: by the paths of TESTED that both groups have."""

    group: str
    against: str
    sharpe: dict[str, ByDays]
    seeds: dict[str, BySeeds]

    def sharpe_by_seeds(self, period: str = "valid") -> BySeeds:
        """The difference of the mean Sharpe ratios; its value is None where it is unknown."""
        return self.seeds.get(SHARPE[period], BySeeds())


@dataclass(frozen=True)
class MetricTable:
    """The metrics of a comparison. cells: by rows, then by heads."""

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
        """The differences of the Sharpe ratios by group and period."""
        return [
            (difference, period, by_days, difference.sharpe_by_seeds(period))
            for difference in self.differences
            for period, by_days in difference.sharpe.items()
        ]

    def metrics(self, most: int) -> MetricTable:
        """One row for each metric; beyond `most` columns one row for each group, with the brief metrics alone.

        A single group has a column for each of its runs.
        """
        columns = [(group.label, group) for group in self.groups]
        if len(self.groups) == 1:
            columns = [*((run.label, Group(run.label, [run])) for run in self.runs), ("mean", self.groups[0])]
        labels = [label for label, _ in columns]
        if len(columns) <= most:
            known = [shown for shown in SHOWN if any(group.values(shown.path) for _, group in columns)]
            cells = [[(shown, group.spread(shown.path)) for _, group in columns] for shown in known]
            return MetricTable(labels, [shown.words for shown in known], cells)
        brief = [shown for shown in SHOWN if shown.brief]
        cells = [[(shown, group.spread(shown.path)) for shown in brief] for _, group in columns]
        return MetricTable([shown.words for shown in brief], labels, cells)

    def as_json(self) -> dict[str, Any]:
        """The object that `compare --json` prints: plain, null for NaN."""
        found = asdict(replace(self, groups=[]))  # a group holds frames, which must not be copied
        for row in (*found["data"]["rows"], *found["code"]["rows"], *found["environment"]):
            del row["counts"], row["chosen_by"]  # only a field of the config has these
        found["data"]["bars"] = found.pop("bars")
        found["groups"] = [
            {
                "label": group.label,
                "title": group.title,
                "seeds": group.seeds,
                "runs": len(group.runs),
                "metrics": {shown.path: asdict(group.spread(shown.path)) for shown in SHOWN},
            }
            for group in self.groups
        ]
        runs = [
            {
                "label": run.label,
                "group": run.group,
                "folder": run.files.path,
                **{key: run.facts.get(key) for key in ("name", "kind", "signature", "seed", "started")},
                "finished": run.result is not None,
                "money": money_line(run.result) if run.result else None,
                "verdict": run.result.verdict if run.result else None,
                "alarms": alarm_lines(run.result) if run.result else [],
                "metrics": {shown.path: run.numbers.get(shown.path) for shown in SHOWN},
            }
            for run in self.runs
        ]
        return without_nan(plain({"runs": runs} | found))


def compare(places: Sequence[str | Path]) -> Comparison:
    """Compare all runs found at the places (see `find_runs`). Raises UserError for fewer than two runs."""
    folders = find_runs(places)
    if len(folders) < 2:
        raise UserError(f"{folders[0]}: one run alone has nothing to be compared with")
    return compare_runs([read_run(folder) for folder in folders])


def compare_runs(runs: Sequence[RunFolder]) -> Comparison:
    """Compare these runs, at least one."""
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


def _mean_returns(group: Group, period: str) -> dict[str, float]:
    """Daily net returns by ISO day: the mean over the seeds, an equal split of the money, on the days that all have."""
    returns = []
    for run in group.replicates:
        if run.files.equity is not None:
            curve = curve_of(run.files, period, "equity")
            values = daily_returns(np.array(list(curve.values()))).tolist()
            returns.append(dict(zip(list(curve)[1:], values, strict=True)))
    return mean_of(returns)


def _difference(first: Group, other: Group) -> Difference:
    """`other` compared with `first`: Sharpe ratios by days, every tested metric by seeds."""
    sharpe, seeds = {}, {}
    for period in PERIODS:
        ours, theirs = _mean_returns(other, period), _mean_returns(first, period)
        if days := sorted(ours.keys() & theirs.keys()):
            ours_T, theirs_T = (np.array([returns[day] for day in days]) for returns in (ours, theirs))
            found = _found(sharpe_difference(ours_T, theirs_T, DRAWS, SEED))
            sharpe[period] = ByDays(**found, days=len(days), enough_days=len(days) >= MIN_RETURNS)
    for path in TESTED:
        ours_n, theirs_n = other.values(path), first.values(path)
        if ours_n and theirs_n:
            numbers, needed = [len(theirs_n), len(ours_n)], seeds_needed(ours_n, theirs_n)
            seeds[path] = BySeeds(**_found(mean_difference(ours_n, theirs_n)), seeds=numbers, seeds_needed=needed)
    return Difference(other.label, first.label, sharpe, seeds)


def _found(interval: Interval) -> dict[str, Any]:
    """Value and ends, None where unknown, and whether the whole interval lies on one side of zero."""
    ends: dict[str, Any] = without_nan(asdict(interval))
    return ends | {"told_apart": interval.low > 0.0 or interval.high < 0.0}
