"""`python -m hfinference halt RUN`: stop a paper account at once."""

import argparse
from pathlib import Path

from hftraining.core.command import Answer, Commands, free_text
from hftraining.core.errors import EXIT_DONE


def add_to(commands: Commands) -> None:
    """The command and its arguments."""
    text = "stop a paper account at once: nothing more is sent, also by a trader that runs"
    parser = commands.add("halt", _halt, text)
    account_arguments(parser)
    parser.add_argument("--reason", type=free_text, default="", metavar="TEXT", help="why, for whoever looks later")


def account_arguments(parser: argparse.ArgumentParser) -> None:
    """Those that name a paper account."""
    parser.add_argument("run", type=Path, metavar="RUN", help="the run folder that is paper traded")
    parser.add_argument(
        "--journal", type=Path, metavar="FOLDER", help="of the account; by default the one of the run at work"
    )


def _halt(options: argparse.Namespace) -> Answer:
    from hfinference.live.latch import OVER, account_at_work, going_on_beside, halt, is_over

    folder = account_at_work(options.run, options.journal)
    found = halt(folder, options.reason)
    print(f"halted since {found.at}: {found.reason}")
    print(f"account: {folder}")
    if is_over(folder):
        print(OVER)
    others = list(map(str, going_on_beside(folder)))
    for other in others:
        print(f"note: the account {other} is not halted: --journal {other} halts it")
    halted = {"name": found.name, "reason": found.reason, "at": found.at}
    return EXIT_DONE, {"folder": str(folder), "halted": halted, "not_halted": others}
