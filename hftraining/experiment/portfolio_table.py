"""What a search of portfolios shows: the best beside the run's own and holding, the verdict, and a page of them all."""

from collections.abc import Mapping
from pathlib import Path

from rich.markup import escape

from hftraining.core.metrics import BY_NAME
from hftraining.experiment.portfolios import Portfolios, Tried
from hftraining.reports import frontier
from hftraining.reports.format import number, plural
from hftraining.reports.terminal import plain_table, wide_console
from hftraining.runs.quantities import Estimate

SHOWN = 10
METRICS = ("cagr", "sharpe_ratio", "max_drawdown", "turnover", "costs")


def write_portfolios(folder: Path, found: Portfolios) -> Path:
    """Write portfolios.html into a folder, which is made if it is absent; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    result, difference = found.judged.result, found.judged.difference
    lead = Estimate(difference.value, difference.low, difference.high)
    n_symbols = found.judged.report.weights_TS.shape[1]
    rows = [
        frontier.Tried(
            one.read(n_symbols),
            {**one.metrics},
            is_chosen=one is found.own,
            p=result.null.p if one is found.best and result.null else None,
            lead=lead if one is found.best else None,
        )
        for one in found.tried
    ]
    return frontier.write_frontier(
        folder,
        found.outputs if folder == found.run else None,
        rows,
        {**found.judged.report.buy_and_hold.metrics},
        name=found.run.parent.name,
        headline=f"The best of {plural(len(found.tried), 'portfolio')}: {result.verdict}",
        sentences=[
            f"{result.money} That is the best of them, chosen in hindsight.",
            "It is the run's own." if found.best is found.own else f"To train anew with it: {found.command}",
        ],
    )


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
        "that is the run's own" if found.best is found.own else f"train anew with it: {found.command}",
    ):
        console.print(escape(line), soft_wrap=True)


def _name(one: Tried, found: Portfolios) -> str:
    settings = " ".join(f"{name}={value}" for name, value in one.settings.items()) or "the defaults"
    return f"{settings} (the run's own)" if one is found.own else settings


def _cells(name: str, metrics: Mapping[str, float]) -> tuple[str, ...]:
    return (escape(name), *(number(metrics[metric], BY_NAME[metric].unit) for metric in METRICS))
