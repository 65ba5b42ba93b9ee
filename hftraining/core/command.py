"""The argument parser of our commands, and the wrapper that ends each with one line and an exit code."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from hftraining.core.endings import one_line_endings, stopped_by_signals
from hftraining.core.errors import EXIT_DONE, EXIT_USER, did_you_mean, in_a_line, listed
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
            message = f"{given}: there is no such command{hint} (there are {listed(commands, 30)})"
        print(f"error: {in_a_line(message)}", file=sys.stderr)
        sys.exit(EXIT_USER)


def positive(text: str) -> int:
    """An argument that is a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def run_command(
    act: Callable[[Sequence[str] | None], int],
    arguments: Sequence[str] | None = None,
    goes_on: str = "the same command does it again",
) -> int:
    """Run a command and return its exit code. Whatever it raises is one line: see one_line_endings.

    goes_on: what the user types after an interruption; {folder} is that of the run.
    """
    try:
        with masked_output(), stopped_by_signals(), one_line_endings(goes_on=goes_on):
            return act(arguments)
    except SystemExit as stopped:
        return stopped.code if isinstance(stopped.code, int) else EXIT_DONE
