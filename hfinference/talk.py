"""What the commands of a trained run print beside the lines of a run."""

from collections.abc import Sequence

import pandas as pd
from rich.markup import escape

from hftraining.core.metrics import Unit
from hftraining.reports.format import number
from hftraining.reports.terminal import plain_table, wide_console
from hftraining.runs.result import AtCosts


def costs_table(found: Sequence[AtCosts]) -> None:
    """The return and Sharpe ratio at each cost a side, with a pair of columns for each lag."""
    lags = sorted({at.lag or 1 for at in found})
    heads = [head for lag in lags for head in (f"return, lag {lag}", "Sharpe")]
    table = plain_table("costs a side", *heads)
    for points in sorted({at.basis_points or 0.0 for at in found}):
        row = [f"{points:g} bp" if points else "none (gross)"]
        for lag in lags:
            at = next(at for at in found if (at.lag or 1) == lag and (at.basis_points or 0.0) == points)
            row += [number(at.total_return, Unit.CHANGE), number(at.sharpe_ratio, Unit.RATIO)]
        table.add_row(*row)
    wide_console().print(table)


def forecast_table(table: pd.DataFrame, most: int, relative: str) -> None:
    """The rows of a forecast, the largest weight first; of more than `most` the first and last ones. 0: all.

    relative: what the medians are relative to: see core.forecast.
    """
    unit = Unit.RATIO if relative in ("zscore", "rank") else Unit.CHANGE
    medians = [name for name in table.columns if name.startswith("q50_")]
    shown = plain_table(
        "symbol", "close", *(f"median, {name[4:]} d" for name in medians), "score", "weight", "held", "order", "cost"
    )
    parts = [table] if not most or len(table) <= most else [table.head(most - most // 2), table.tail(most // 2)]
    for place, part in enumerate(parts):
        if place:
            shown.add_row(f"... {len(table) - most:,} more")
        for symbol, row in part.iterrows():
            shown.add_row(
                escape(str(symbol)),
                f"{row['close']:,.2f}",
                *(number_of(row[name], unit) for name in medians),
                number_of(row["score"], Unit.RATIO),
                number_of(row["weight"], Unit.SHARE),
                number_of(row["held"], Unit.SHARE),
                f"{row['side']} {abs(row['order']):,.4g}" if row["side"] else "",
                f"{row['cost']:,.2f}" if row["side"] else "",
            )
    wide_console().print(shown)


def number_of(value: float, unit: Unit) -> str:
    """A value of a table as text; a dash where it is unknown."""
    return number(None if value != value else value, unit)
