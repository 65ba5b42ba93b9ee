"""A comparison on the console: what differed on top, what that did to the numbers below."""

import json
import sys
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hftraining.core.values import plain
from hftraining.reports.compare_words import DAYS, between, headline, sentences, signed

Found = dict[str, Any]
GROUPS_ACROSS = 5  # more groups stand under each other
FORMATS = {
    "fixed": "{:,.2f}",
    "loss": "{:.4f}",
    "score": "{:.3f}",
    "percent": "{:+.1%}",
    "share": "{:.1%}",
    "count": "{:,.0f}",
}


def print_comparison(found: Found, metrics: tuple[tuple[str, str, str], ...], page: str) -> None:
    """Print everything but the curves. metrics: path in the result, words, format."""
    # Not cut off at 80 columns when the output goes to a file or another program.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    console.print(f"[bold]{escape(headline(found))}[/bold]", soft_wrap=True)
    for line in sentences(found):
        console.print(escape(line), soft_wrap=True)
    console.print()
    labels = [group["label"] for group in found["groups"]]
    _print_groups(console, found)
    _print_rows(console, "config", found["config"], labels)
    if not found["data"]["same"]:
        _print_rows(console, "data", found["data"]["rows"], labels)
        for label, lines in found["data"]["bars"].items():
            for line in lines[:20]:
                console.print(f"  {labels[0]} and {label}: {escape(line)}", soft_wrap=True)
            if len(lines) > 20:
                console.print(f"  and {len(lines) - 20} more lines, all in --json", style="dim")
    _print_rows(console, "code", found["code"]["rows"], labels)
    _print_rows(console, "environment", found["environment"], labels)
    _print_metrics(console, found, metrics)
    _print_differences(console, found)
    console.print(f"\npage: {escape(page)}", soft_wrap=True)


def shown(value: Any) -> str:
    """A value of a delta, several values of one group with commas between them."""
    if isinstance(value, dict) and "each" in value:
        return ", ".join(shown(one) for one in value["each"])
    return value if isinstance(value, str) else json.dumps(plain(value))


def shown_number(value: float | None, how: str) -> str:
    """A metric in its format; a dash for none."""
    return "-" if value is None else FORMATS[how].format(value)


def _table(*heads: str) -> Table:
    table = Table(box=box.SIMPLE, header_style="dim", pad_edge=False, show_edge=False)
    for head in heads:
        table.add_column(escape(head), overflow="fold")
    return table


def _print_groups(console: Console, found: Found) -> None:
    table = _table("", "what sets it apart", "run", "seed", "signature", "folder")
    titles = {group["label"]: group["title"] for group in found["groups"]}
    for run in found["runs"]:
        title = titles[run["group"]] if run["label"] == f"{run['group']}1" else ""
        cells = (run["group"], title, run["label"], str(run["seed"]), str(run["signature"]), run["folder"])
        table.add_row(*map(escape, cells))
    console.print(table)
    console.print()


def _print_rows(console: Console, what: str, rows: list[Found], labels: list[str]) -> None:
    if not rows:
        if what == "config":
            console.print("config: no field differs\n")
        return
    table = _table(what, *labels)
    for row in rows:
        field = escape(("  " if row.get("chosen_by") else "") + row["field"])
        still = "" if row.get("counts", True) else " [dim](cannot change a number)[/dim]"
        table.add_row(field + still, *(escape(shown(row["values"][label])) for label in labels))
    console.print(table)
    console.print()


def _print_metrics(console: Console, found: Found, metrics: tuple[tuple[str, str, str], ...]) -> None:
    groups = found["groups"]
    if len(groups) == 1:
        alone = [{metric: {"mean": v, "sd": None} for metric, v in run["metrics"].items()} for run in found["runs"]]
        columns = list(zip((run["label"] for run in found["runs"]), alone, strict=True))
        columns.append(("mean +- sd", groups[0]["metrics"]))
    else:
        columns = [(group["label"], group["metrics"]) for group in groups]
    if len(columns) <= GROUPS_ACROSS:
        table = _table("", *(label for label, _ in columns))
        for metric, words, how in metrics:
            table.add_row(words, *(_cell(values[metric], how) for _, values in columns))
    else:
        chosen = [entry for entry in metrics if entry[0] == "eval.loss" or "sharpe_ratio" in entry[0]]
        table = _table("", *(words for _, words, _ in chosen))
        for label, values in columns:
            table.add_row(label, *(_cell(values[metric], how) for metric, _, how in chosen))
    console.print(table)
    console.print()


def _cell(metric: Found, how: str) -> str:
    text = shown_number(metric["mean"], how)
    return text if not metric["sd"] else f"{text} +- {shown_number(metric['sd'], how).lstrip('+')}"


def _print_differences(console: Console, found: Found) -> None:
    if not found["differences"]:
        return
    against = found["differences"][0]["against"]
    heads = ("days", "difference", "95 % by days", "mean and 95 % by seeds", "seeds needed")
    table = _table(f"Sharpe ratio beside {against}", *heads)
    for difference in found["differences"]:
        for window, words in DAYS.items():
            market = difference["sharpe"].get(window)
            if not market:
                continue
            seeds = difference["seeds"].get(f"{window}.profit.sharpe_ratio") or {"low": None, "high": None}
            several = min(seeds.get("seeds", [0])) >= 2
            by_seeds = f"{signed(seeds['value'])} {between(seeds)}" if seeds["low"] is not None else "-"
            needed = seeds.get("seeds_needed")
            cells = (difference["group"], words, signed(market["value"]), between(market), by_seeds)
            table.add_row(*cells, (f"{needed:,}" if needed else "no number" if several else "-"))
    console.print(table)
    console.print("by days: paired bootstrap of daily returns; by seeds: Welch's interval of the mean", style="dim")
