"""Daily curves of runs, and their means over seeds."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import TypeVar

import pandas as pd

from hftraining.reports.deltas import Group
from hftraining.runs.folder import RunFolder
from hftraining.runs.result import PERIODS

Curve = dict[str, float]  # by ISO day
K = TypeVar("K", str, int)


def by_period(frame: pd.DataFrame) -> Iterator[tuple[str, list[str], pd.DataFrame]]:
    """Each period with rows in a frame of days: its key, its ISO days and its rows."""
    for period in PERIODS:
        days = frame[frame["window"] == period]
        if len(days):
            yield period, [str(day)[:10] for day in days["date"]], days


def curve_of(run: RunFolder, period: str, column: str) -> Curve:
    """A column of equity.parquet over one period; empty where the run has none."""
    for name, dates, days in by_period(run.equity) if run.equity is not None else ():
        if name == period:
            return dict(zip(dates, map(float, days[column]), strict=True))
    return {}


def mean_of(curves: Sequence[Mapping[K, float]]) -> dict[K, float]:
    """The mean at each day or step that all curves have, in rising order; NaN where one is NaN."""
    shared = sorted(set.intersection(*map(set, curves))) if curves else []
    return {place: fmean(curve[place] for curve in curves) for place in shared}


def growth_by_period(groups: Sequence[Group]) -> Iterator[tuple[str, Curve, list[tuple[Group, list[Curve]]]]]:
    """What one unit of money became, for each period with a curve: its key, buy and hold, each group's runs."""
    for period in PERIODS:
        curves = [(group, [c for run in group.drawn if (c := _growth(run, period, "equity"))]) for group in groups]
        held = (_growth(run, period, "buy_and_hold") for group in groups for run in group.drawn)
        if any(known for _, known in curves):
            yield period, next(filter(None, held), {}), curves


def _growth(run: RunFolder, period: str, column: str) -> Curve:
    curve = curve_of(run, period, column)
    start = float(run.initial_capital or next(iter(curve.values()), 1.0))
    return {day: value / start for day, value in curve.items()}
