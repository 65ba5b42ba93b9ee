"""The members of an ensemble in words: their table on the console and in the report, and how alike they are."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hftraining.core.metrics import Unit
from hftraining.reports.format import UNKNOWN, estimate, filled, interval, is_known, number, plural
from hftraining.runs.folder import MEMBERS_FOLDER
from hftraining.runs.member_results import EnsembleResult, MemberPeriod
from hftraining.runs.record import read_metrics
from hftraining.runs.result import PERIODS, PeriodResult, RunResult

SHOWN = 12  # members whose correlations are shown: all are in result.json
# Key in data-metric, heading, text of a member in a period.
COLUMNS: tuple[tuple[str, str, Callable[[MemberPeriod], str]], ...] = (
    ("profit.sharpe_ratio", "Sharpe", lambda row: _sharpe(row)),
    ("marginal", "Sharpe it adds", lambda row: estimate(row.marginal, Unit.RATIO)),
    ("alpha", "alpha a year", lambda row: estimate(row.alpha, Unit.CHANGE)),
    ("ic", "IC (t)", lambda row: _ic(row)),
    ("loss", "loss", lambda row: number(row.loss, Unit.LOSS)),
)


def _sharpe(row: MemberPeriod) -> str:
    low, high = row.interval if row.interval else (None, None)
    return f"{number(row.profit.get('sharpe_ratio'), Unit.RATIO)} {interval(low, high, Unit.RATIO)}".removesuffix(" -")


def _ic(row: MemberPeriod) -> str:
    value, t = (row.ic.value, row.ic.t) if row.ic else (None, None)
    return f"{number(value, Unit.SCORE)} ({filled('{:,.1f}', t)})" if is_known(value) else UNKNOWN


def as_row(result: RunResult, name: str) -> MemberPeriod:
    """The ensemble itself as a row of the table of a period."""
    period = result.periods.get(name, PeriodResult())
    alpha = period.benchmark.alpha if period.benchmark else None
    loss = result.loss[name].model if name in result.loss else None
    return MemberPeriod(period.profit, period.interval, loss, period.scores.get("ic"), alpha)


def cpu_seconds(folder: Path, found: EnsembleResult) -> dict[str, float]:
    """The processor time that training each member in the folder of the run took, where its steps are there."""
    spent = {}
    for member in found.members:
        within = member.name == Path(member.name).name and member.folder == f"{MEMBERS_FOLDER}/{member.name}"
        if within and (steps := read_metrics(folder / member.folder)):
            spent[member.name] = steps[-1].get("cpu_seconds", math.nan)
    return spent


def periods_of(found: EnsembleResult) -> list[str]:
    """The periods in which the members were measured."""
    return [name for name in PERIODS if any(name in member.periods for member in found.members)]


def sentences(found: EnsembleResult, cpu_seconds: Mapping[str, float]) -> list[str]:
    """What the ensemble is, and what it took. cpu_seconds: of training, by member, where they are known."""
    sizes = [member.parameters for member in found.members if member.parameters is not None]
    lines = [f"The mean of {plural(len(found.members), 'model')}, weights: {found.weighting}."]
    if len(sizes) == len(found.members):
        lines.append(f"Together they have learned {number(sum(sizes), Unit.COUNT)} numbers.")
    if cpu_seconds and len(cpu_seconds) == len(found.members):
        spent = sum(cpu_seconds.values())
        lines.append(f"Training them took {number(spent, Unit.COUNT)} s of processor time, all together.")
    if found.in_sample:
        lines.append(
            "These weights were fitted to the validation days: figures on these are in sample, and may be too good."
        )
    return lines


def matrices(found: EnsembleResult) -> dict[str, list[tuple[str, list[list[Any]]]]]:
    """Period -> heading and rows: correlations of errors and of forecasts, for as many members as are shown."""
    tables = {}
    for name, known in found.correlations.items():
        parts = [("Errors", known.errors), ("Forecasts", known.forecasts)]
        tables[name] = [(title, [row[:SHOWN] for row in rows[:SHOWN]]) for title, rows in parts if rows]
    return tables
