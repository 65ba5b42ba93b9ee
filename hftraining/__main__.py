"""Commands about finished runs: `python -m hftraining ledger | report | leaks | compare | ... RUN`."""

import argparse
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from hftraining.core.command import Answer, Commands, free_text, positive
from hftraining.core.errors import EXIT_DONE, EXIT_OURS, UserError

# A command imports what it needs when it is called, so that --help and the ledger import nothing heavy.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 done, 1 a leak or a difference was found, 2 the user's input."""
    return _commands().run(arguments)


def _commands() -> Commands:
    found = Commands("python -m hftraining", __doc__)
    command = found.add
    ledger = command("ledger", _ledger, "list every run ever begun and the runs that make up N, the number of trials")
    ledger.add_argument("--ledger", type=Path, metavar="PATH", help="as evidence.ledger; your own unless given")
    ledger.add_argument("--outputs", type=Path, metavar="FOLDER", help="list only runs in this folder; N counts all")
    ledger.add_argument("--data", metavar="FINGERPRINT", help="only runs on this data (the first digits will do)")
    ledger.add_argument("--kind", help="only rows of this kind: base, finetuned, single, sweeps, portfolio")
    ledger.add_argument("--last", type=positive, metavar="N", help="list only the last N runs; N counts them all")
    report = command("report", _report, "build report.html again from the files of a run folder")
    report.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    leaks = command("leaks", _leaks, "replace the days after a random one by noise: nothing before it may change")
    leaks.add_argument("run", type=Path, metavar="RUN", nargs="?", help="a run folder")
    leaks.add_argument("--days", type=positive, default=50, help="how many futures to replace; 20 times as many end")
    leaks.add_argument("--gallery", action="store_true", help="plant known leaks into the code, and say which are seen")
    compare = command("compare", _compare, "how runs differ, in configuration and in numbers")
    compare.add_argument("runs", nargs="+", metavar="RUN", help="run folders, patterns, or folders that hold runs")
    compare.add_argument("--to", type=Path, metavar="FOLDER", help="where compare.html goes")
    portfolios = command(
        "portfolios", _portfolios, "trade a run's validation forecasts in hundreds of ways; trains nothing"
    )
    portfolios.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    portfolios.add_argument("--kinds", nargs="+", default=(), metavar="KIND", help="only these: tilt, top, core, ...")
    portfolios.add_argument("--to", type=Path, metavar="FOLDER", help="where portfolios.html goes; by default into RUN")
    replay = command("replay", _replay, "repeat a run from its folder: equal to the bit, or the reason why not")
    replay.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    replay.add_argument("--outputs", type=Path, help="where the new run goes; by default beside the old one")
    replay.add_argument("--from-commit", action="store_true", help="with the recorded code, in a temporary worktree")
    replay.add_argument("--trust", action="store_true", help="run the recorded code.patch without asking")
    record = command("record", _record, "write a record of an experiment from its runs")
    record.add_argument("name", metavar="NAME", help="one word, such as RelativeLabels")
    record.add_argument("runs", nargs="+", metavar="RUN", help="as compare takes them; the first group is the baseline")
    record.add_argument("--question", type=free_text, default="", help="what was asked, in a sentence")
    record.add_argument("--experiments", type=Path, default=Path("experiments"), help="the folder of the records")
    return found


def _ledger(options: argparse.Namespace) -> Answer:
    from hftraining.reports.ledger_table import listing, print_listing
    from hftraining.runs.ledger import Ledger
    from hftraining.runs.ledger_file import LEDGER_FILE, ledger_path

    path = ledger_path(options.ledger and str(options.ledger))
    if not path.is_file():
        old = (options.outputs or Path("outputs")) / LEDGER_FILE
        earlier = f" and takes over {old} of an earlier version (--ledger {old} shows it)" if old.is_file() else ""
        raise UserError(f"{path} does not exist: the first run writes it{earlier}; --ledger names another one")
    found = listing(Ledger(path), options.data, options.kind, options.last, options.outputs)
    print_listing(found)
    return EXIT_DONE, found.as_json()


def _report(options: argparse.Namespace) -> Answer:
    from hftraining.reports.report import write_report

    path = write_report(options.run)
    print(path)
    return EXIT_DONE, {"report": str(path)}


def _leaks(options: argparse.Namespace) -> Answer:
    if options.gallery == bool(options.run):
        raise UserError("leaks wants either a RUN or --gallery")
    if options.gallery:
        from hftraining.experiment.gallery import is_right, show

        rows = show()
        return EXIT_DONE if is_right(rows) else EXIT_OURS, {"leaks": [row.as_object() for row in rows]}
    if not (options.run / "run.json").is_file():
        raise UserError(f"{options.run} is not a run: it has no run.json")
    from hftraining.experiment.proof import prove_run
    from hftraining.runs.folder import JUDGED
    from hftraining.runs.manifest import read_facts

    if kind := JUDGED.get(str(read_facts(options.run).get("kind"))):
        raise UserError(f"{options.run} is {kind}, not a run that was trained: leaks wants what it was made of")
    proof = prove_run(options.run, options.days)
    for line in proof.lines:
        print(line)
    print(f"{proof.days} futures replaced: {'nothing before them changed' if proof.ok else 'later days leak'}")
    found = {"ok": proof.ok, "days": proof.days, "lines": list(proof.lines)}
    return EXIT_DONE if proof.ok else EXIT_OURS, found


def _compare(options: argparse.Namespace) -> Answer:
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
    return EXIT_DONE, comparison.as_json() | {"page": str(page)}


def _portfolios(options: argparse.Namespace) -> Answer:
    from hftraining.experiment.portfolio_table import print_portfolios, write_portfolios
    from hftraining.experiment.portfolios import try_portfolios
    from hftraining.experiment.replay import finished_run

    finished_run(options.run)
    if options.to:
        options.to.mkdir(parents=True, exist_ok=True)  # before portfolios are tried whose page it could not take
    found = try_portfolios(options.run, options.kinds)
    page = write_portfolios(options.to or options.run, found)
    print_portfolios(found, str(page))
    return EXIT_DONE, found.as_object() | {"page": str(page)}


def _replay(options: argparse.Namespace) -> Answer:
    from hftraining.experiment.recorded_code import replay_from_commit
    from hftraining.experiment.replay import replay

    if options.trust and not options.from_commit:
        raise UserError("--trust goes with --from-commit: a replay runs your own code otherwise")
    if options.from_commit:
        again = replay_from_commit(options.run, options.outputs, trust=options.trust)
    else:
        again = replay(options.run, options.outputs)
    print("\n".join(again.bits.lines()))
    print(f"{'equal to the bit' if again.bits.equal else 'not equal'}: {again.run} and {again.folder}")
    if not again.bits.equal:
        for cause in again.likely:
            print(f"  likely cause: {cause}")
    return EXIT_DONE if again.bits.equal else EXIT_OURS, again.as_object()


def _record(options: argparse.Namespace) -> Answer:
    from hftraining.experiment.records import write_record

    folder = write_record(options.name, options.runs, options.question, options.experiments, date.today())
    print(folder)
    return EXIT_DONE, {"record": str(folder)}


if __name__ == "__main__":
    sys.exit(main())
