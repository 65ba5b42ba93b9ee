"""What a search of portfolios prints: the best of them beside the run's own and buy and hold, then the verdict."""

from collections.abc import Mapping

from rich.markup import escape

from hftraining.core.metrics import BY_NAME
from hftraining.experiment.portfolios import Portfolios, Tried
from hftraining.reports.console import plain_table, wide_console
from hftraining.reports.format import number, plural

SHOWN = 10
METRICS = ("cagr", "sharpe_ratio", "max_drawdown", "turnover", "costs")


def print_portfolios(found: Portfolios, page: str) -> None:
    """Print the SHOWN best by Sharpe ratio; page: where the picture of all of them is."""
    console = wide_console()
    table = plain_table("portfolio", *(BY_NAME[name].words for name in METRICS))
    for column in table.columns[1:]:
        column.justify = "right"
    ranked = sorted(found.tried, key=lambda one: -one.sharpe)
    for one in ranked[:SHOWN]:
        table.add_row(*_cells(_name(one, found), one.metrics))
    if found.own not in ranked[:SHOWN]:
        table.add_row(*_cells(_name(found.own, found), found.own.metrics))
    table.add_row(*_cells("buy and hold", found.judged.report.buy_and_hold.metrics))
    console.print(table, "")
    result = found.judged.result
    for line in (
        f"The best of {plural(len(found.tried), 'portfolio')} on these validation days. {result.money}",
        f"As the best of {plural(found.n_trials, 'trial')}: {result.verdict}",
        f"all of them: {page}",
        f"train anew with it: {found.command}",
    ):
        console.print(escape(line), soft_wrap=True)


def _name(one: Tried, found: Portfolios) -> str:
    settings = " ".join(f"{name}={value}" for name, value in one.settings.items()) or "the defaults"
    return f"{settings} (the run's own)" if one is found.own else settings


def _cells(name: str, metrics: Mapping[str, float]) -> tuple[str, ...]:
    return (escape(name), *(number(metrics[metric], BY_NAME[metric].unit) for metric in METRICS))
