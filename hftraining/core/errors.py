"""How a command can end: the line that it prints, its exit code, and the status of its run in the ledger."""

import difflib
from collections.abc import Iterable

EXIT_DONE, EXIT_OURS, EXIT_USER, EXIT_INTERRUPTED = 0, 1, 2, 3


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
    """The loss or the gradient was not finite for ten steps in a row."""


class LeakError(Ending):
    """The leak proof failed: a value known on one day changed with later bars."""


class SweepFailed(Ending):
    """Too many trials failed, or the workers could not run."""


def status_of(error: BaseException) -> str:
    """The status of a run that ended with this exception: failed, unless the exception has its own."""
    if isinstance(error, KeyboardInterrupt):
        return Interrupted.status
    return error.status if isinstance(error, Ending) else Ending.status


def closest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known word closest to a misspelt one, None where none is close."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)), None)


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The text "; did you mean X?" for the known word closest to a misspelt one, empty where none is close."""
    close = closest(word, known, cutoff)
    return "" if close is None else f"; did you mean {close}?"
