"""`python -m hfinference flatten RUN`: let a paper account close all that it holds, and then stay halted."""

import argparse
from dataclasses import asdict

from hfinference.commands.halt import account_arguments
from hftraining.core.command import Answer, Commands, free_text
from hftraining.core.errors import EXIT_DONE


def add_to(commands: Commands) -> None:
    """The command and its arguments."""
    text = "let a paper account close all that it holds, from its next decision on, and then stay halted"
    parser = commands.add("flatten", _flatten, text)
    account_arguments(parser)
    parser.add_argument("--reason", type=free_text, default="", metavar="TEXT", help="why, for whoever looks later")


def _flatten(options: argparse.Namespace) -> Answer:
    from hfinference.live.latch import OVER, account_at_work, flatten, going_on_beside, halt_of, is_over

    folder = account_at_work(options.run, options.journal)
    reason = flatten(folder, options.reason)
    halted = halt_of(folder)
    print(f"the next decision closes all positions and opens none, and then the account halts: {reason}")
    if halted:
        print(f"it is halted now ({halted.name}): {halted.reason}; resume it, and the closing orders are sent")
    print(f"account: {folder}")
    if is_over(folder):
        print(OVER)
    others = list(map(str, going_on_beside(folder)))
    for other in others:
        print(f"note: the account {other} goes on trading: --journal {other} names it")
    values = {"folder": str(folder), "reason": reason, "halted": asdict(halted) if halted else None}
    return EXIT_DONE, values | {"going_on": others}
