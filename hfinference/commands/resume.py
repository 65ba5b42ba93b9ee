"""`python -m hfinference resume RUN`: lift what halts a paper account."""

import argparse
from dataclasses import asdict

from hfinference.commands.halt import account_arguments
from hftraining.core.command import Answer, Commands
from hftraining.core.errors import EXIT_DONE


def add_to(commands: Commands) -> None:
    """The command and its arguments."""
    text = "lift what halts a paper account, and say what it was; refused while its cause is still there"
    account_arguments(commands.add("resume", _resume, text))


def _resume(options: argparse.Namespace) -> Answer:
    from hfinference.live.latch import account_to_resume, resume

    folder = account_to_resume(options.run, options.journal)
    found = resume(folder)
    for row in found.lifted:
        print(f"lifted: halted since {row.at} ({row.name}): {row.reason}")
    if found.cancelled is not None:
        print(f"flatten is no longer asked for ({found.cancelled})")
    elif not found.lifted:
        print("the account was not halted")
    if found.is_flattening:
        print("flatten is still asked for: the next decision closes all positions; resume again to cancel that")
    print(f"account: {folder}")
    return EXIT_DONE, {
        "folder": str(folder),
        "lifted": [asdict(row) for row in found.lifted],
        "flattening": found.is_flattening,
        "cancelled": found.cancelled,
    }
