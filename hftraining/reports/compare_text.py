"""A comparison on the console: first what differs, then how the numbers changed."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from hftraining.core.metrics import Unit
from hftraining.reports.compare import Comparison
from hftraining.reports.compare_words import alarms, headline, legend, money_sentences, sentences
from hftraining.reports.deltas import Row, shown_value
from hftraining.reports.format import UNKNOWN, estimate, interval, number
from hftraining.reports.terminal import plain_table, wide_console
from hftraining.runs.result import PERIODS

GROUPS_ACROSS = 5  # more groups become rows
LINES_SHOWN = 20  # of changed bars, for each group


def print_comparison(comparison: Comparison, page: str) -> None:
    """Print everything but the curves. page: the path of compare.html."""
    console = wide_console()
    console.print(f"[bold]{escape(headline(comparison))}[/bold]", soft_wrap=True)
    if names := legend(comparison):
        console.print(escape(names), soft_wrap=True)
    said = [*money_sentences(comparison), *(f"ALARM: {line}" for line in alarms(comparison)), *sentences(comparison)]
    for line in said:
        console.print(escape(line), soft_wrap=True)
    console.print()
    table = plain_table("", "what sets it apart", "run", "seed", "signature", "folder")
    for group in comparison.groups:
        for run in group.runs:
            title = group.title if run is group.runs[0] else ""
            cells = (group.label, title, run.label, run.seed, run.facts.get("signature"), run.files.path)
            table.add_row(*(escape(str(cell)) for cell in cells))
    console.print(table, "")
    labels, data = comparison.labels, comparison.data
    if not comparison.config:
        console.print("config: no field differs\n")
    _print_rows(console, "config", comparison.config, labels)
    _print_rows(console, "data", [] if data.same else data.rows, labels)
    for label, lines in comparison.bars.items():
        for line in lines[:LINES_SHOWN]:
            console.print(f"  {labels[0]} and {label}: {escape(line)}", soft_wrap=True)
        if len(lines) > LINES_SHOWN:
            console.print(f"  and {len(lines) - LINES_SHOWN} more lines, all in --json", style="dim")
    _print_rows(console, "code", comparison.code.rows, labels)
    _print_rows(console, "environment", comparison.environment, labels)
    metrics = comparison.metrics(GROUPS_ACROSS)
    table = plain_table("", *metrics.heads)
    for name, row in zip(metrics.rows, metrics.cells, strict=True):
        table.add_row(name, *(spread.text(shown.unit) for shown, spread in row))
    console.print(table, "")
    _print_differences(console, comparison)
    console.print(f"\npage: {escape(page)}", soft_wrap=True)


def _print_rows(console: Console, what: str, rows: Sequence[Row], labels: Sequence[str]) -> None:
    if not rows:
        return
    table = plain_table(what, *labels)
    for row in rows:
        field = escape(("  " if row.chosen_by else "") + row.field)
        still = " [dim](cannot change a number)[/dim]" if not row.counts else ""
        table.add_row(field + still, *(escape(shown_value(row.values[label])) for label in labels))
    console.print(table, "")


def _print_differences(console: Console, comparison: Comparison) -> None:
    if not comparison.differences:
        return
    heads = ("days", "difference", "95 % by days", "mean and 95 % by seeds", "seeds needed")
    table = plain_table(f"Sharpe ratio beside {comparison.differences[0].against}", *heads)
    for difference, period, days, seeds in comparison.rows():
        by_seeds = estimate(seeds, Unit.RATIO) if seeds.low is not None else UNKNOWN
        by_days = (number(days.value, Unit.RATIO, signed=True), interval(days.low, days.high, Unit.RATIO))
        table.add_row(difference.group, PERIODS[period], *map(escape, by_days), escape(by_seeds), seeds.needed)
    console.print(table)
    console.print("by days: paired bootstrap of daily returns; by seeds: Welch's interval of the mean", style="dim")
