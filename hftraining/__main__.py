"""What runs left behind, from the command line: `python -m hftraining ledger | report | leaks | compare | ... RUN`."""

import argparse
import difflib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hftraining.core.errors import UserError

if TYPE_CHECKING:
    from hftraining.runs.ledger import Entry

EXIT_DONE, EXIT_OURS, EXIT_USER, EXIT_INTERRUPTED = 0, 1, 2, 3
SIGNATURES_SHOWN = 12  # of those that make up an N


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, with a did-you-mean, where argparse would print the usage first."""

    def error(self, message: str) -> NoReturn:
        _, _, choices = message.partition("invalid choice: ")
        if choices:
            given, _, _ = choices.partition(" (choose from ")
            commands = self._commands()
            close = difflib.get_close_matches(given.strip("'"), commands, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            message = f"{given.strip(chr(39))}: there is no such command{hint} (there are {', '.join(commands)})"
        print(f"error: {message}", file=sys.stderr)
        sys.exit(EXIT_USER)

    def _commands(self) -> list[str]:
        actions = [action for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        return [command for action in actions for command in action.choices]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 done, 1 it found what must not be, 2 the user's input."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except (UserError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_USER
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m hftraining", description=__doc__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.add_argument("--json", action="store_true", help="the last line printed is one JSON object")
        made.set_defaults(command=function)
        return made

    ledger = command("ledger", _ledger, "list every run ever begun, and what makes up N, the number of trials")
    ledger.add_argument("--outputs", type=Path, default=Path("outputs"), help="the folder of the runs")
    ledger.add_argument("--data", metavar="FINGERPRINT", help="only runs on this data (the first digits will do)")
    ledger.add_argument("--kind", help="only runs of this kind: base, finetuned, single, sweeps")
    ledger.add_argument("--last", type=_positive, metavar="N", help="list only the last N runs; N counts them all")
    report = command("report", _report, "build report.html again from the files of a run folder")
    report.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    leaks = command("leaks", _leaks, "replace the days after a random one by noise: nothing before it may change")
    leaks.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    leaks.add_argument("--days", type=_positive, default=50, help="how many random days to try")
    compare = command("compare", _compare, "what differs between runs, and what that did to the numbers")
    compare.add_argument("runs", nargs="+", metavar="RUN", help="run folders, patterns, or folders that hold runs")
    compare.add_argument("--to", type=Path, metavar="FOLDER", help="where compare.html goes")
    replay = command("replay", _replay, "run it again from its folder: equal to the bit, or say why not")
    replay.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    replay.add_argument("--outputs", type=Path, help="where the new run goes; by default beside the old one")
    replay.add_argument("--from-commit", action="store_true", help="with the recorded code, in a temporary worktree")
    record = command("record", _record, "write a record of an experiment from its runs")
    record.add_argument("name", metavar="NAME", help="one word, such as RelativeLabels")
    record.add_argument("runs", nargs="+", metavar="RUN", help="as compare takes them; the first group is the baseline")
    record.add_argument("--question", default="", help="what was asked, in a sentence")
    record.add_argument("--experiments", type=Path, default=Path("experiments"), help="the folder of the records")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def _ledger(options: argparse.Namespace) -> int:
    from hftraining.runs.ledger import LEDGER_FILE, Ledger

    path = options.outputs / LEDGER_FILE
    if not path.is_file():
        raise UserError(f"{path} does not exist: the first run writes it; --outputs names another folder")
    ledger = Ledger(path)
    everything = ledger.entries()
    wanted = [e for e in everything if e.fingerprint.startswith(options.data or "")]
    if options.data and not wanted:
        known = sorted({e.fingerprint for e in everything})
        raise UserError(f"--data {options.data}: no run in {path} used this data (it knows {', '.join(known)})")
    listed = [e for e in wanted if options.kind in (None, e.kind)]
    if options.kind and not listed:
        close = difflib.get_close_matches(options.kind, {e.kind for e in wanted}, n=1)
        raise UserError(f"--kind {options.kind}: no such run" + (f"; did you mean {close[0]}?" if close else ""))
    shown = listed[-options.last :] if options.last else listed
    # N is a property of data and window: a filter by kind or number must not make it smaller.
    pairs = dict.fromkeys((e.fingerprint, e.valid_window) for e in listed)
    groups = {pair: [e for e in everything if (e.fingerprint, e.valid_window) == pair] for pair in pairs}
    openings = {
        (entry.fingerprint, entry.test_window): ledger.openings(entry.fingerprint, entry.test_window)
        for group in groups.values()
        for entry in group
        if entry.test_window
    }
    _print_ledger(shown, len(listed), groups, openings)
    if options.json:
        print(json.dumps(_ledger_object(shown, groups, openings), allow_nan=False))
    return EXIT_DONE


def _print_ledger(
    shown: list["Entry"],
    number: int,
    groups: dict[tuple[str, str], list["Entry"]],
    openings: dict[tuple[str, str], int],
) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from hftraining.runs.ledger import trials_of

    # Not cut off at 80 columns when the output goes to a file or another program.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    table = Table(box=box.SIMPLE, header_style="dim", pad_edge=False, show_edge=False)
    for name in ("started", "kind", "name", "signature", "status"):
        table.add_column(name, overflow="fold")
    table.add_column("Sharpe", justify="right")
    table.add_column("folder", overflow="fold")
    for entry in shown:
        where = escape(str(entry.folder)) if entry.folder.is_dir() else f"[dim]gone: {escape(entry.folder.name)}[/dim]"
        table.add_row(
            entry.started[:19].replace("T", " "),
            escape(entry.kind),
            escape(entry.name),
            escape(entry.signature),
            _status(entry),
            "-" if entry.sharpe is None else f"{entry.sharpe:.2f}",
            where,
        )
    console.print(table)
    console.print()
    if len(shown) < number:
        console.print(f"The last {len(shown)} of {number} runs.\n", style="dim")
    for (fingerprint, window), group in groups.items():
        trials = trials_of(group)
        text = f"[bold]N = {trials.count}[/bold] on {escape(_symbols(group[-1].symbols))}, validation {escape(window)}"
        console.print(f"{text} [dim](data {escape(fingerprint)})[/dim]", soft_wrap=True)
        by_id = {entry.id: entry for entry in group}
        for signature, rows in list(trials.rows.items())[:SIGNATURES_SHOWN]:
            states = ", ".join(_status(by_id[row]) for row in rows)
            results = trials.outcomes[signature]
            counted = f"with {results} different results, each counted" if results > 1 else "counted once"
            again = f"  [dim]run {len(rows)} times, {counted}[/dim]" if len(rows) > 1 else ""
            console.print(f"  {escape(signature)}  {escape(by_id[rows[-1]].name)}: {states}{again}", soft_wrap=True)
        if len(trials.rows) > SIGNATURES_SHOWN:
            console.print(f"  and {len(trials.rows) - SIGNATURES_SHOWN} more", style="dim")
        for test in dict.fromkeys(entry.test_window for entry in group if entry.test_window):
            times = openings[fingerprint, test]
            opened = f"opened {times} time{'s' if times != 1 else ''}" if times else "still sealed"
            console.print(f"  test window {escape(test)}: {opened}", soft_wrap=True)


def _ledger_object(
    shown: list["Entry"], groups: dict[tuple[str, str], list["Entry"]], openings: dict[tuple[str, str], int]
) -> dict[str, Any]:
    from hftraining.core.values import plain, without_nan
    from hftraining.runs.ledger import trials_of

    keys = "id kind name signature fingerprint symbols windows started ended status resumed sharpe result".split()
    runs = [
        {key: getattr(entry, key) for key in keys}
        | {"folder": str(entry.folder), "folder_exists": entry.folder.is_dir()}
        for entry in shown
    ]
    windows = []
    for (fingerprint, window), group in groups.items():
        trials = trials_of(group)
        tests = dict.fromkeys(entry.test_window for entry in group if entry.test_window)
        windows.append(
            {
                "fingerprint": fingerprint,
                "valid": window,
                "n_trials": trials.count,
                "variance_1d": trials.variance_1d,
                "signatures": trials.rows,
                "outcomes": trials.outcomes,
                "test_openings": {test: openings[fingerprint, test] for test in tests},
            }
        )
    return without_nan(plain({"runs": runs, "windows": windows}))


def _status(entry: "Entry") -> str:
    return "running or killed" if entry.status == "running" else entry.status


def _symbols(symbols: Sequence[str]) -> str:
    return ", ".join(symbols) if len(symbols) <= 4 else f"{', '.join(symbols[:3])} and {len(symbols) - 3} more"


def _report(options: argparse.Namespace) -> int:
    from hftraining.reports.report import write_report

    path = write_report(options.run)
    print(path)
    if options.json:
        print(json.dumps({"report": str(path)}))
    return EXIT_DONE


def _leaks(options: argparse.Namespace) -> int:
    if not (options.run / "run.json").is_file():
        raise UserError(f"{options.run} is not a run: it has no run.json")
    from hftraining.experiment.proof import prove_run

    proof = prove_run(options.run, options.days)
    for line in proof.lines:
        print(line)
    print(f"{proof.days} futures replaced: {'nothing before them changed' if proof.ok else 'later days leak'}")
    if options.json:
        print(json.dumps({"ok": proof.ok, "days": proof.days, "lines": list(proof.lines)}))
    return EXIT_DONE if proof.ok else EXIT_OURS


def _compare(options: argparse.Namespace) -> int:
    from hftraining.reports.compare import compare
    from hftraining.reports.compare_page import write_comparison
    from hftraining.reports.compare_text import print_comparison
    from hftraining.runs.record import new_folder

    comparison = compare(options.runs)
    outputs = next((run.files.outputs for run in comparison.runs if run.files.outputs), None)
    folder = options.to or new_folder((outputs or Path("outputs")) / "comparisons")
    folder.mkdir(parents=True, exist_ok=True)
    page = write_comparison(folder, None if options.to else outputs, comparison)
    print_comparison(comparison, str(page))
    if options.json:
        print(json.dumps(comparison.as_json() | {"page": str(page)}, allow_nan=False))
    return EXIT_DONE


def _replay(options: argparse.Namespace) -> int:
    from hftraining.core.errors import Diverged, Interrupted, LeakError
    from hftraining.experiment.replay import replay, replay_from_commit

    try:
        again = (replay_from_commit if options.from_commit else replay)(options.run, options.outputs)
    except Interrupted as interruption:
        print(f"interrupted: {interruption}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except (Diverged, LeakError) as failure:
        print(f"error: {failure}", file=sys.stderr)
        return EXIT_OURS
    print("\n".join(again.bits.lines()))
    if again.bits.equal:
        print(f"equal to the bit: {again.run} and {again.folder}")
    else:
        print(f"not equal: {again.run} and {again.folder}")
        for cause in again.likely:
            print(f"  likely cause: {cause}")
    if options.json:
        print(json.dumps(again.as_object()))
    return EXIT_DONE if again.bits.equal else EXIT_OURS


def _record(options: argparse.Namespace) -> int:
    from datetime import date

    from hftraining.experiment.records import write_record

    folder = write_record(options.name, options.runs, options.question, options.experiments, date.today())
    print(folder)
    if options.json:
        print(json.dumps({"record": str(folder)}))
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
