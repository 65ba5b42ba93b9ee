"""The argument parser of our commands, and the wrapper that ends each with one line and an exit code."""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from hftraining.core.endings import one_line_endings, stopped_by_signals
from hftraining.core.errors import EXIT_DONE, EXIT_USER, did_you_mean, in_a_line, listed
from hftraining.core.secret import masked_output
from hftraining.core.values import plain, without_nan

Answer = tuple[int, dict[str, Any]]  # the exit code, and what --json prints
Command = Callable[[argparse.Namespace], Answer]
SETTING = re.compile(r"[+~]*[a-z_]+(\.[a-z_]+)*=")  # a symbol such as EURUSD=X is none


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
        if choices and parsers:
            message = f"{given}: there is no such command{hint} (there are {listed(commands, 30)})"
        print(f"error: {in_a_line(message)}", file=sys.stderr)
        sys.exit(EXIT_USER)

    def _get_value(self, action: argparse.Action, text: str) -> Any:
        """As argparse. An empty text, of a variable that is not set, would pass for the working directory or a default.

        Free text may be empty: an account must halt, whatever is said of it.
        """
        if not text.strip() and action.type is not free_text and not isinstance(action, argparse._SubParsersAction):
            raise argparse.ArgumentError(action, "an empty text: is a variable of the shell not set?")
        return super()._get_value(action, text)


class Commands:
    """The commands of `python -m PACKAGE COMMAND`: each takes --json, whose one object is the last line printed."""

    def __init__(self, prog: str, description: str | None) -> None:
        self.parser = Parser(prog=prog, description=description)
        self._commands = self.parser.add_subparsers(metavar="COMMAND", required=True)
        self._with_words: set[str] = set()

    def add(self, name: str, function: Command, text: str, words: bool = False) -> argparse.ArgumentParser:
        """A further command, and its parser, which takes its arguments. text: what it does, for --help.

        words: it takes settings as train.py does, such as portfolio=top, anywhere between its arguments, as
        options.words.
        """
        more = ". Settings such as portfolio=top or profit_tracker.stop_loss=0 may follow" if words else ""
        made: argparse.ArgumentParser = self._commands.add_parser(name, help=text, description=text + more)
        made.add_argument("--json", action="store_true", help="the last line printed is one JSON object")
        made.set_defaults(command=function)
        if words:
            self._with_words.add(name)
        return made

    def run(self, arguments: Sequence[str] | None = None) -> int:
        """Run the command that is asked for; returns its exit code."""
        return run_command(self._run, arguments)

    def _run(self, arguments: Sequence[str] | None) -> int:
        given = list(sys.argv[1:] if arguments is None else arguments)
        takes_words = bool(given) and given[0] in self._with_words
        words = [text for text in given if takes_words and SETTING.match(text)]
        options = self.parser.parse_args([text for text in given if text not in words])
        if takes_words:
            options.words = words
        code, found = options.command(options)
        if options.json:
            print(json.dumps(without_nan(plain(found)), allow_nan=False))
        return int(code)


def free_text(text: str) -> str:
    """An argument that is only read by people, and may be empty."""
    return text


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
