"""The ledger for the console: every run ever begun, and what makes up N, the number of trials on the same days."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hftraining.core.errors import UserError, did_you_mean
from hftraining.core.values import plain, without_nan
from hftraining.runs.ledger import Entry, Ledger, Trials, trials_of

SIGNATURES_SHOWN = 12  # of those that make up an N
KEYS = "id kind name signature fingerprint symbols windows started ended status resumed sharpe result".split()


@dataclass(frozen=True)
class Window:
    """The trials on one set of bars and validation days. openings: how often their test windows were opened."""

    fingerprint: str
    valid: str
    entries: list[Entry]
    trials: Trials
    openings: dict[str, int]


@dataclass(frozen=True)
class Listing:
    """What is shown of a ledger: some of the `number` runs that were asked for, and the windows of all of these."""

    shown: list[Entry]
    number: int
    windows: list[Window]

    def as_json(self) -> dict[str, Any]:
        """The object that --json prints."""
        runs = [
            {key: getattr(entry, key) for key in KEYS}
            | {"folder": str(entry.folder), "folder_exists": entry.folder.is_dir()}
            for entry in self.shown
        ]
        windows = [
            {
                "fingerprint": window.fingerprint,
                "valid": window.valid,
                "n_trials": window.trials.count,
                "variance_1d": window.trials.variance_1d,
                "signatures": window.trials.rows,
                "outcomes": window.trials.outcomes,
                "test_openings": window.openings,
            }
            for window in self.windows
        ]
        found: dict[str, Any] = without_nan(plain({"runs": runs, "windows": windows}))
        return found


def listing(ledger: Ledger, data: str | None, kind: str | None, last: int | None) -> Listing:
    """The runs of a ledger, filtered by the first digits of their data's fingerprint, by kind, and to the last few.

    Raises UserError where a filter leaves nothing.
    """
    everything = ledger.entries()
    wanted = [entry for entry in everything if entry.fingerprint.startswith(data or "")]
    if data and not wanted:
        known = ", ".join(sorted({entry.fingerprint for entry in everything}))
        raise UserError(f"--data {data}: no run in {ledger.path} used this data (it knows {known})")
    listed = [entry for entry in wanted if kind in (None, entry.kind)]
    if kind and not listed:
        raise UserError(f"--kind {kind}: no such run{did_you_mean(kind, {entry.kind for entry in wanted})}")
    # N is a property of data and window: a filter by kind or number must not make it smaller.
    pairs = dict.fromkeys((entry.fingerprint, entry.valid_window) for entry in listed)
    windows = []
    for fingerprint, valid in pairs:
        entries = [entry for entry in everything if (entry.fingerprint, entry.valid_window) == (fingerprint, valid)]
        tests = dict.fromkeys(entry.test_window for entry in entries if entry.test_window)
        openings = {test: ledger.openings(fingerprint, test) for test in tests}
        windows.append(Window(fingerprint, valid, entries, trials_of(entries), openings))
    return Listing(listed[-last:] if last else listed, len(listed), windows)


def print_listing(found: Listing) -> None:
    """The table of the runs, then N and the test openings of each window."""
    # Not cut off at 80 columns when the output goes to a file or another program.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    console.print(_table(found.shown))
    console.print()
    if len(found.shown) < found.number:
        console.print(f"The last {len(found.shown)} of {found.number} runs.\n", style="dim")
    for window in found.windows:
        for line in _lines(window):
            console.print(line, soft_wrap=True)


def _table(entries: Sequence[Entry]) -> Table:
    table = Table(box=box.SIMPLE, header_style="dim", pad_edge=False, show_edge=False)
    for name in ("started", "kind", "name", "signature", "status"):
        table.add_column(name, overflow="fold")
    table.add_column("Sharpe", justify="right")
    table.add_column("folder", overflow="fold")
    for entry in entries:
        table.add_row(
            entry.started[:19].replace("T", " "),
            *(escape(text) for text in (entry.kind, entry.name, entry.signature)),
            _status(entry),
            "-" if entry.sharpe is None else f"{entry.sharpe:.2f}",
            escape(str(entry.folder)) if entry.folder.is_dir() else f"[dim]gone: {escape(entry.folder.name)}[/dim]",
        )
    return table


def _lines(window: Window) -> Iterator[str]:
    trials, by_id = window.trials, {entry.id: entry for entry in window.entries}
    symbols = escape(_symbols(window.entries[-1].symbols))
    where = f"on {symbols}, validation {escape(window.valid)} [dim](data {escape(window.fingerprint)})[/dim]"
    yield f"[bold]N = {trials.count}[/bold] {where}"
    for signature, rows in list(trials.rows.items())[:SIGNATURES_SHOWN]:
        states = ", ".join(_status(by_id[row]) for row in rows)
        results = trials.outcomes[signature]
        counted = f"with {results} different results, each counted" if results > 1 else "counted once"
        again = f"  [dim]run {len(rows)} times, {counted}[/dim]" if len(rows) > 1 else ""
        yield f"  {escape(signature)}  {escape(by_id[rows[-1]].name)}: {states}{again}"
    if len(trials.rows) > SIGNATURES_SHOWN:
        yield f"[dim]  and {len(trials.rows) - SIGNATURES_SHOWN} more[/dim]"
    for test, times in window.openings.items():
        opened = f"opened {times} time{'s' if times != 1 else ''}" if times else "still sealed"
        yield f"  test window {escape(test)}: {opened}"


def _status(entry: Entry) -> str:
    return "running or killed" if entry.status == "running" else entry.status


def _symbols(symbols: Sequence[str]) -> str:
    return ", ".join(symbols) if len(symbols) <= 4 else f"{', '.join(symbols[:3])} and {len(symbols) - 3} more"
