"""`python -m hfinference backtest RUN --start DAY --end DAY`."""

import argparse
from pathlib import Path

from hftraining.core.command import Answer, Commands
from hftraining.core.errors import EXIT_DONE


def add_to(commands: Commands) -> None:
    """The command and its arguments."""
    text = "trade a run's forecasts on other days, stocks or costs, or by another portfolio, with the whole evidence"
    parser = commands.add("backtest", _backtest, text, words=True)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder, of any kind of model")
    parser.add_argument("--start", metavar="DAY", help="the first day; by default the first test day of the run")
    parser.add_argument("--end", metavar="DAY", help="the last day; by default the last that there is")
    parser.add_argument(
        "--stocks", nargs="+", default=(), metavar="STOCKS", help="an option of conf/stocks, or symbols"
    )
    parser.add_argument("--snapshot", metavar="ID", help="of Yahoo's bars; by default that of the run")
    parser.add_argument("--lag", type=int, choices=(1, 2), help="sessions from decision to fill; by default the run's")
    parser.add_argument("--in-sample", action="store_true", help="allow days of the training, and mark the page")
    parser.add_argument("--outputs", type=Path, metavar="FOLDER", help="where it goes; by default beside the run")


def _backtest(options: argparse.Namespace) -> Answer:
    from hfinference.backtest import backtest_model
    from hfinference.talk import costs_table
    from hftraining.core.progress import phases_shown
    from hftraining.reports.console import Console

    words = options.words + ([f"profit_tracker.lag={options.lag}"] if options.lag else [])
    with phases_shown(not options.json):
        found = backtest_model(
            options.run,
            options.start,
            options.end,
            stocks=options.stocks,
            snapshot=options.snapshot,
            words=words,
            in_sample=options.in_sample,
            outputs=options.outputs,
            say=print,
        )
    period = found.period
    print(f"backtest of {options.run}: {period.days} sessions, {period.first} to {period.last}")
    Console(0, 0, 1).summary(found.result, found.folder)
    costs_table(period.at_costs)
    return EXIT_DONE, found.as_object()
