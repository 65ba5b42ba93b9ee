"""The argument parser of our commands, and the wrapper that ends each with one line and an exit code."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from hftraining.core.errors import EXIT_INTERRUPTED, EXIT_USER, Ending, did_you_mean
from hftraining.core.secret import masked_output


class Parser(argparse.ArgumentParser):
    """Reports an error in one line, with a suggestion, where argparse would print the usage first."""

    def error(self, message: str) -> NoReturn:
        """Print the line and exit with 2."""
        _, _, choices = message.partition("invalid choice: ")
        if choices:
            given = choices.partition(" (choose from ")[0].strip("'")
            parsers = [action for action in self._actions if isinstance(action, argparse._SubParsersAction)]
            commands = [command for action in parsers for command in action.choices]
            hint = did_you_mean(given, commands)
            message = f"{given}: there is no such command{hint} (there are {', '.join(commands)})"
        print(f"error: {message}", file=sys.stderr)
        sys.exit(EXIT_USER)


def positive(text: str) -> int:
    """An argument that is a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def run_command(act: Callable[[Sequence[str] | None], int], arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. An expected ending prints one line to stderr; other errors are raised."""
    with masked_output():
        return _one_line_endings(act, arguments)


def _one_line_endings(act: Callable[[Sequence[str] | None], int], arguments: Sequence[str] | None) -> int:
    try:
        return act(arguments)
    except Ending as end:
        print(f"{end.word}: {' '.join(str(end).split())}", file=sys.stderr)
        return end.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
