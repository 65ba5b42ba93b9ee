"""How a command can end: the line that it prints, its exit code, and the status of its run in the ledger."""

import difflib
from collections.abc import Iterable

EXIT_DONE, EXIT_OURS, EXIT_USER, EXIT_INTERRUPTED = 0, 1, 2, 3
MOST_CHARACTERS = 1200  # of the line that a command ends with: a few lines of a terminal


class Ending(Exception):
    """An expected ending of a command. Its text is one line: what, where, what to do.

    exit_code: of the process. status: of the run in the ledger. word: what the line begins with.
    """

    exit_code = EXIT_OURS
    status = "failed"
    word = "error"


class UserError(Ending, ValueError):
    """The request cannot be met: what, where, what to do, in one line."""

    exit_code = EXIT_USER


class ConfigError(UserError):
    """The config cannot be run: what, where, what to do, in one line."""


class Interrupted(Ending):
    """A signal came. Everything up to and including the last step is saved."""

    exit_code = EXIT_INTERRUPTED
    status = "interrupted"
    word = "interrupted"


class Pruned(Ending):
    """The pruner stopped the run, which has no result."""

    status = "pruned"


class Diverged(Ending):
    """The loss or the gradient was not finite for ten steps in a row: other settings are needed."""

    exit_code = EXIT_USER


class LeakError(Ending):
    """The leak proof failed: a value known on one day changed with later bars."""


class SweepFailed(Ending):
    """Too many trials failed, or the workers could not run."""


class Fault(Ending):
    """An error that nobody foresaw: ours. Its text says where the traceback is."""


def status_of(error: BaseException) -> str:
    """The status of a run that ended with this exception: failed, unless the exception has its own.

    Whoever stops reading our output, as `| head` does, interrupts the run.
    """
    if isinstance(error, KeyboardInterrupt | BrokenPipeError):
        return Interrupted.status
    return error.status if isinstance(error, Ending) else Ending.status


def closest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known word closest to a misspelt one, None where none is close."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)), None)


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The text "; did you mean X?" for the known word closest to a misspelt one, empty where none is close."""
    close = closest(word, known, cutoff)
    return "" if close is None else f"; did you mean {close}?"


def in_a_line(text: str, most: int = MOST_CHARACTERS) -> str:
    """Text as one printable line of at most about `most` characters; what is cut is counted.

    White space becomes single spaces. What a terminal would act upon, or could not print, is escaped.
    """
    cut = f"{text[:most]} ... and {len(text) - most:,} more characters" if len(text) > most else text
    return "".join(letter if letter.isprintable() else ascii(letter).strip("'") for letter in " ".join(cut.split()))


def listed(items: Iterable[object], most: int = 10) -> str:
    """The items with commas between them; of a long list the first ones: "a, b, c and 9,990 more"."""
    texts = [str(item) for item in items]
    more = f" and {len(texts) - most:,} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more
