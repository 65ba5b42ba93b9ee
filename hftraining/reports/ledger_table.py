"""The ledger on the console: all runs ever begun, and the trials that N counts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.markup import escape

from hftraining.core.errors import UserError, did_you_mean
from hftraining.core.metrics import Unit
from hftraining.core.values import plain, without_nan
from hftraining.reports.console import plain_table, wide_console
from hftraining.reports.format import number, plural
from hftraining.runs.ledger import Entry, Ledger, Trials, trials_of

SIGNATURES_SHOWN = 12  # of those that make up an N
KEYS = "id kind name signature fingerprint symbols windows started ended status resumed sharpe result".split()


@dataclass(frozen=True)
class Pool:
    """The trials on the same bars and validation days. openings: how often their test periods were opened."""

    fingerprint: str
    valid: str
    entries: list[Entry]
    trials: Trials
    openings: dict[str, int]


@dataclass(frozen=True)
class Listing:
    """The runs to show, out of `number` that match the filters, and the pools of all that match."""

    shown: list[Entry]
    number: int
    pools: list[Pool]

    def as_json(self) -> dict[str, Any]:
        """The object that --json prints."""
        runs = [
            {key: getattr(entry, key) for key in KEYS}
            | {"folder": str(entry.folder), "folder_exists": entry.folder.is_dir()}
            for entry in self.shown
        ]
        windows = [
            {
                "fingerprint": pool.fingerprint,
                "valid": pool.valid,
                "n_trials": pool.trials.count,
                "variance_1d": pool.trials.variance_1d,
                "signatures": pool.trials.rows,
                "outcomes": pool.trials.outcomes,
                "test_openings": pool.openings,
            }
            for pool in self.pools
        ]
        found: dict[str, Any] = without_nan(plain({"runs": runs, "windows": windows}))
        return found


def listing(ledger: Ledger, data: str | None, kind: str | None, last: int | None) -> Listing:
    """The last runs of a ledger of this kind, whose data's fingerprint begins with `data`. None does not filter.

    Raises UserError where no run matches.
    """
    everything = ledger.entries()
    wanted = [entry for entry in everything if entry.fingerprint.startswith(data or "")]
    if data and not wanted:
        known = ", ".join(sorted({entry.fingerprint for entry in everything}))
        raise UserError(f"--data {data}: no run in {ledger.path} used this data (it knows {known})")
    listed = [entry for entry in wanted if kind in (None, entry.kind)]
    if kind and not listed:
        raise UserError(f"--kind {kind}: no such run{did_you_mean(kind, {entry.kind for entry in wanted})}")
    # N belongs to bars and validation days: a filter by kind or number must not make it smaller.
    pairs = dict.fromkeys((entry.fingerprint, entry.valid_window) for entry in listed)
    pools = []
    for fingerprint, valid in pairs:
        entries = [entry for entry in everything if (entry.fingerprint, entry.valid_window) == (fingerprint, valid)]
        tests = dict.fromkeys(entry.test_window for entry in entries if entry.test_window)
        openings = {test: ledger.openings(fingerprint, test) for test in tests}
        pools.append(Pool(fingerprint, valid, entries, trials_of(entries), openings))
    return Listing(listed[-last:] if last else listed, len(listed), pools)


def print_listing(found: Listing) -> None:
    """Print the table of the runs, then N and the openings of the test periods of each pool."""
    console = wide_console()
    table = plain_table("started", "kind", "name", "signature", "status", "Sharpe", "folder")
    table.columns[5].justify = "right"
    for entry in found.shown:
        texts = (entry.started[:19].replace("T", " "), entry.kind, entry.name, entry.signature, _status(entry))
        folder = escape(str(entry.folder)) if entry.folder.is_dir() else f"[dim]gone: {escape(entry.folder.name)}[/dim]"
        table.add_row(*map(escape, texts), number(entry.sharpe, Unit.RATIO), folder)
    console.print(table, "")
    if len(found.shown) < found.number:
        console.print(f"The last {len(found.shown)} of {found.number} runs.\n", style="dim")
    for pool in found.pools:
        for line in _lines(pool):
            console.print(line, soft_wrap=True)


def _lines(pool: Pool) -> Iterator[str]:
    trials, by_id = pool.trials, {entry.id: entry for entry in pool.entries}
    symbols = escape(_symbols(pool.entries[-1].symbols))
    where = f"on {symbols}, validation {escape(pool.valid)} [dim](data {escape(pool.fingerprint)})[/dim]"
    yield f"[bold]N = {trials.count}[/bold] {where}"
    for signature, rows in list(trials.rows.items())[:SIGNATURES_SHOWN]:
        states = ", ".join(_status(by_id[row]) for row in rows)
        results = trials.outcomes[signature]
        counted = f"{results} different results, each counted" if results > 1 else "counted once"
        again = f"  [dim]run {len(rows)} times, {counted}[/dim]" if len(rows) > 1 else ""
        yield f"  {escape(signature)}  {escape(by_id[rows[-1]].name)}: {states}{again}"
    if len(trials.rows) > SIGNATURES_SHOWN:
        yield f"[dim]  and {len(trials.rows) - SIGNATURES_SHOWN} more[/dim]"
    for test, times in pool.openings.items():
        opened = f"opened {plural(times, 'time')}" if times else "still sealed"
        yield f"  test window {escape(test)}: {opened}"


def _status(entry: Entry) -> str:
    return "running or killed" if entry.status == "running" else entry.status


def _symbols(symbols: Sequence[str]) -> str:
    return ", ".join(symbols) if len(symbols) <= 4 else f"{', '.join(symbols[:3])} and {len(symbols) - 3} more"
