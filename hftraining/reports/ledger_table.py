"""The ledger on the console: all runs ever begun, and the trials that N counts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.markup import escape

from hftraining.core.errors import UserError, did_you_mean
from hftraining.core.metrics import Unit
from hftraining.core.values import plain, without_nan
from hftraining.reports.format import number, plural
from hftraining.reports.terminal import plain_table, wide_console
from hftraining.runs.ledger import Entry, Ledger
from hftraining.runs.seen import Place
from hftraining.runs.trials import Trials

SIGNATURES_SHOWN = 12  # of those that make up an N
KEYS = "id kind name signature fingerprint symbols windows started ended status resumed sharpe result".split()


@dataclass(frozen=True)
class Pool:
    """What N counts for runs on the same symbols and validation days: all trials that overlap with them.

    fingerprint: of the newest of these runs. openings: by their test days, as ISO text, how often days that overlap
    with these were opened.
    """

    fingerprint: str
    valid: str
    symbols: tuple[str, ...]
    trials: Trials
    openings: dict[str, int]


@dataclass(frozen=True)
class Listing:
    """The runs to show, out of `number` that match the filters, and the pools of all that match.

    by_id: every run of the ledger, for a pool may count runs that do not match.
    """

    shown: list[Entry]
    number: int
    pools: list[Pool]
    by_id: dict[int, Entry]

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
                "symbols": pool.symbols,
                "valid": pool.valid,
                "n_trials": pool.trials.count,
                "crossed": pool.trials.crossed,
                "variance_1d": pool.trials.variance_1d,
                "signatures": pool.trials.rows,
                "outcomes": pool.trials.outcomes,
                "test_openings": pool.openings,
            }
            for pool in self.pools
        ]
        found: dict[str, Any] = without_nan(plain({"runs": runs, "windows": windows}))
        return found


def listing(
    ledger: Ledger,
    data: str | None = None,
    kind: str | None = None,
    last: int | None = None,
    outputs: Path | None = None,
) -> Listing:
    """The last runs of this kind, whose data's fingerprint begins with `data` and whose folder lies in `outputs`.

    None does not filter. N belongs to symbols and validation days: a filter does not make it smaller. Raises UserError
    where no run matches.
    """
    everything = ledger.entries(with_days=False)
    wanted = [entry for entry in everything if entry.fingerprint.startswith(data or "")]
    if data and not wanted:
        known = ", ".join(sorted({entry.fingerprint for entry in everything}))
        raise UserError(f"--data {data}: no run in {ledger.path} used this data (it knows {known})")
    if outputs is not None:
        place = outputs.resolve()
        wanted = [entry for entry in wanted if entry.folder.is_relative_to(place)]
        if not wanted:
            raise UserError(f"--outputs {outputs}: no run in {ledger.path} lies there; leave it out to list them all")
    listed = [entry for entry in wanted if kind in (None, entry.kind)]
    if kind and not listed:
        raise UserError(f"--kind {kind}: no such run{did_you_mean(kind, {entry.kind for entry in wanted})}")
    groups: dict[tuple[frozenset[str], str], list[Entry]] = {}
    for entry in listed:
        place_of_it = entry.place("valid")
        assert place_of_it is not None
        groups.setdefault((place_of_it.symbols, entry.valid_window), []).append(entry)
    pools = [_pool(ledger, entries) for entries in groups.values()]
    by_id = {entry.id: entry for entry in everything}
    return Listing(listed[-last:] if last else listed, len(listed), pools, by_id)


def _pool(ledger: Ledger, entries: Sequence[Entry]) -> Pool:
    """The pool of runs on the same symbols and validation days, which may have seen them in several snapshots."""
    newest = entries[-1]
    prints = frozenset(entry.fingerprint for entry in entries)
    tests = {e.test_window: replace(place, fingerprints=prints) for e in entries if (place := e.place("test"))}
    openings = {text: ledger.tries(place, "test").direct for text, place in tests.items()}
    valid = newest.place("valid")
    assert isinstance(valid, Place)
    trials = ledger.tries(replace(valid, fingerprints=prints))
    return Pool(newest.fingerprint, newest.valid_window, newest.symbols, trials, openings)


def print_listing(found: Listing) -> None:
    """Print the table of the runs, then N and the openings of the test periods of each pool."""
    console = wide_console()
    table = plain_table("started", "kind", "name", "signature", "status", "Sharpe", "folder")
    table.columns[5].justify = "right"
    for entry in found.shown:
        texts = (entry.started[:19].replace("T", " "), entry.kind, entry.name, entry.signature, _status(entry))
        folder = _shown(entry.folder)
        table.add_row(*map(escape, texts), number(entry.sharpe, Unit.RATIO), folder)
    console.print(table, "")
    if len(found.shown) < found.number:
        console.print(f"The last {len(found.shown)} of {found.number} runs.\n", style="dim")
    counted = list[dict[str, tuple[int, ...]]]()
    for pool in found.pools:
        for line in _lines(pool, found.by_id, pool.trials.rows in counted):
            console.print(line, soft_wrap=True)
        counted.append(pool.trials.rows)


def _lines(pool: Pool, by_id: dict[int, Entry], is_known: bool) -> Iterator[str]:
    """is_known: the trials were listed under an earlier pool; days or stocks that differ a little have the same."""
    trials, symbols = pool.trials, escape(_symbols(pool.symbols))
    where = f"on {symbols}, validation {escape(pool.valid)} [dim](data {escape(pool.fingerprint)})[/dim]"
    yield f"[bold]N = {trials.count}[/bold] {where}"
    shown = [] if is_known else list(trials.rows.items())[:SIGNATURES_SHOWN]
    for signature, rows in shown:
        states = ", ".join(_status(by_id[row]) for row in rows)
        results = trials.outcomes[signature]
        counted = f"{results} different results, each counted" if results > 1 else "counted once"
        again = f"  [dim]run {len(rows)} times, {counted}[/dim]" if len(rows) > 1 else ""
        yield f"  {escape(signature)}  {escape(by_id[rows[-1]].name)}: {states}{again}"
    if is_known:
        yield "[dim]  the same trials as above[/dim]"
    elif len(trials.rows) > SIGNATURES_SHOWN:
        yield f"[dim]  and {len(trials.rows) - SIGNATURES_SHOWN} more[/dim]"
    if trials.crossed:
        yield f"  and {plural(trials.crossed, 'trial')} whose opened test days are among these validation days"
    for test, times in pool.openings.items():
        opened = f"opened {plural(times, 'time')}" if times else "still sealed"
        yield f"  test window {escape(test)}: {opened}"


def _shown(folder: Path) -> str:
    """A folder as one would type it here."""
    if not folder.is_dir():
        return f"[dim]gone: {escape(folder.name)}[/dim]"
    return escape(str(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder))


def _status(entry: Entry) -> str:
    return "running or killed" if entry.status == "running" else entry.status


def _symbols(symbols: Sequence[str]) -> str:
    return ", ".join(symbols) if len(symbols) <= 4 else f"{', '.join(symbols[:3])} and {len(symbols) - 3} more"
