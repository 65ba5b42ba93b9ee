"""What a profit consists of: by month and by symbol, from the account and the trades of a run folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from hftraining.core.metrics import Unit
from hftraining.reports.curves import by_period
from hftraining.reports.format import number
from hftraining.runs.result import PERIODS, AtCosts, PeriodResult

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
SYMBOLS_SHOWN = 8  # at each end


@dataclass(frozen=True)
class Growth:
    """The return of the model and of buy and hold over a month or a year, fractions."""

    ours: float
    held: float


@dataclass
class Year:
    """A calendar year of a period, as far as it reaches. months: by number, 1 to 12, those with a session."""

    year: int
    whole: Growth
    months: dict[int, Growth] = field(default_factory=dict)


@dataclass(frozen=True)
class Booked:
    """The trades of a symbol in a period, in currency: their number, costs, and profit after these."""

    trades: int = 0
    costs: float = 0.0
    profit: float = 0.0


def years_of(equity: pd.DataFrame, initial_capital: float) -> dict[str, list[Year]]:
    """Returns by month and year of each period with days, from close to close; the first from the initial capital.

    equity: as equity.parquet. A month without a session is left out.
    """
    found = dict[str, list[Year]]()
    for period, _, days in by_period(equity):
        curves = days.set_index(pd.DatetimeIndex(days["date"]))[["equity", "buy_and_hold"]].astype(float)
        by_month, by_year = (_growth(curves, rule, initial_capital) for rule in ("M", "Y"))
        years = {when.year: Year(when.year, growth) for when, growth in by_year.items()}
        for when, growth in by_month.items():
            years[when.year].months[when.month] = growth
        found[period] = list(years.values())
    return found


def _growth(curves: pd.DataFrame, rule: str, initial_capital: float) -> dict[pd.Period, Growth]:
    """Returns by calendar month ("M") or year ("Y")."""
    ends = curves.groupby(pd.DatetimeIndex(curves.index).to_period(rule)).last()
    before = ends.shift(1)
    before.iloc[0] = initial_capital
    changes = ends / before - 1.0
    return {when: Growth(*map(float, row)) for when, row in zip(changes.index, changes.to_numpy(), strict=True)}


def symbol_rows(trades: pd.DataFrame) -> tuple[list[str], list[tuple[str, list[Booked]]]]:
    """The periods with trades; and each symbol's trades by period, open ones included, the most profitable first.

    By the last period, which judges the run where it is the test period.
    """
    periods = [period for period in PERIODS if (trades["window"] == period).any()]
    booked = {
        key: Booked(len(part), float(part["costs"].sum()), float(part["pnl"].sum()))
        for key, part in trades.groupby(["symbol", "window"])
    }
    rows = [
        (str(symbol), [booked.get((symbol, period), Booked()) for period in periods])
        for symbol in trades["symbol"].unique()
    ]
    return periods, sorted(rows, key=lambda row: (-row[1][-1].profit, row[0]))


def cost_rows(
    periods: Mapping[str, PeriodResult], commission: float, slippage: float
) -> list[tuple[str, str, list[AtCosts]]]:
    """What the model earned at each cost a side: words, kind, and the numbers by period; as set comes last.

    Where positions were filled after several lags, the words say which.

    commission, slippage: of the run, fractions of the traded value. Empty where an older version wrote the result.
    """
    found = {(at.lag or 0, at.basis_points or 0.0) for period in periods.values() for at in period.at_costs}
    if not found:
        return []
    rows, apart = [], len({lag for lag, _ in found}) > 1
    for lag, point in sorted(found):
        at = [_at(period, lag, point) for period in periods.values()]
        words = f"{point:g} bp" if point else "none (gross)"
        rows.append((f"{words}, lag {lag}" if apart else words, "theirs", at))
    net = (commission + slippage) * 1e4
    as_set = [
        AtCosts(net, period.profit.get("total_return"), period.profit.get("sharpe_ratio"))
        for period in periods.values()
    ]
    return [*rows, (f"{net:g} bp, as set (net)", "ours", as_set)]


def _at(period: PeriodResult, lag: int, point: float) -> AtCosts:
    rows = ((at.lag or 0, at.basis_points or 0.0) for at in period.at_costs)
    place = next((n for n, row in enumerate(rows) if row == (lag, point)), None)
    return AtCosts(point) if place is None else period.at_costs[place]


def percent(value: float) -> str:
    """+4.2, without its sign of percent: a table of months would repeat it a hundred times."""
    return number(value, Unit.CHANGE).removesuffix("%")
