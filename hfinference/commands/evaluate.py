"""`python -m hfinference evaluate WEIGHTS.csv --stocks ...`: decisions of any tool, traded with the whole evidence."""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from hftraining.core.command import Answer, Commands
from hftraining.core.errors import EXIT_DONE, UserError

GROUPS = ("stocks", "profit_tracker", "evidence")  # whose fields may be set


def add_to(commands: Commands) -> None:
    """The command and its arguments."""
    text = "trade decisions that anyone made, in any tool, with the whole evidence"
    parser = commands.add("evaluate", _evaluate, text, words=True)
    parser.add_argument(
        "decisions", type=Path, metavar="FILE", help="csv or parquet with date, symbol, and weight or position (shares)"
    )
    parser.add_argument(
        "--stocks",
        nargs="*",
        default=(),
        metavar="STOCKS",
        help="an option of conf/stocks, symbols (alone: Yahoo's), both, or stocks.path=FILE",
    )
    parser.add_argument("--start", metavar="DAY", help="the first day; by default that of the first decision")
    parser.add_argument("--end", metavar="DAY", help="the last day; by default the last that there is")
    parser.add_argument("--lag", type=int, choices=(1, 2), help="sessions from decision to fill; by default 1")
    parser.add_argument("--name", help="of the folder; by default that of the file")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), metavar="FOLDER", help="where it goes")


def _evaluate(options: argparse.Namespace) -> Answer:
    from hfinference.decisions import read_decisions
    from hfinference.evaluation import prepared
    from hfinference.overrides import with_words
    from hfinference.talk import costs_table
    from hftraining.core.progress import phases_shown
    from hftraining.experiment.config import ExperimentConfig, typed_config
    from hftraining.market.prices import load_bars
    from hftraining.reports.console import Console

    defaults = asdict(ExperimentConfig(name=options.name or options.decisions.name.partition(".")[0]))
    values = with_words(defaults, _words(options), GROUPS, "decisions are traded as they are, so that")
    config = typed_config(values | {"output_dir": str(options.outputs)})
    rows = read_decisions(options.decisions)  # before bars, which may take long
    with phases_shown(not options.json):
        book = prepared(rows, load_bars(config.stocks), config, options.start, options.end)
        found, finished = book.recorded(options.outputs, sys.argv)
    period = found.judgement.result
    print(f"evaluation of {options.decisions}: {period.days} sessions, {period.first} to {period.last}")
    Console(0, 0, 1).summary(finished.result, finished.folder)
    costs_table(period.at_costs)
    for note in found.notes:
        print(f"note: {note}")
    return EXIT_DONE, {
        "folder": str(finished.folder),
        "report": str(finished.folder / "report.html"),
        "final_equity": float(found.equity.iloc[-1]),
        "metrics": found.metrics,
        "buy_and_hold": found.judgement.report.buy_and_hold.metrics,
        "hindsight": found.hindsight.sentences,
        "warnings": list(finished.result.warnings),
        "verdict": finished.result.verdict,
        "n_trials": finished.result.n_trials,
    }


def _words(options: argparse.Namespace) -> list[str]:
    """The settings, with the option of the stocks group that they go with."""
    from hftraining.experiment.compose import as_override, options_of

    words, chosen = list(options.words), [name for name in options.stocks if name in options_of("stocks")]
    symbols = [name for name in options.stocks if name not in chosen]
    for word in words:
        if word.startswith("evidence.baselines") and ("ridge" in word or "lightgbm" in word):
            raise UserError(f"{word}: ridge and lightgbm learn from a model's features, which decisions do not have")
    if len(chosen) > 1:
        raise UserError(f"--stocks {' '.join(chosen)}: give one option of the stocks group")
    if chosen:
        words.insert(0, f"stocks={chosen[0]}")
    elif any(word.startswith("stocks.path=") for word in words):
        words.insert(0, "stocks=folder")
    elif symbols:
        words.insert(0, "stocks=single")
    elif not any(word.startswith("stocks=") for word in words):
        raise UserError("whose bars? --stocks sample, --stocks AAPL MSFT (Yahoo's), or stocks.path=FILE")
    some = [f"stocks.symbols={as_override(symbols)}"] if symbols else []
    return [*words, *some, *([f"profit_tracker.lag={options.lag}"] if options.lag else [])]
