"""Endings of commands carry their exit code, their word and the ledger's status: hftraining/core/errors.py."""

import pytest

from hftraining.core import errors
from hftraining.core.errors import (
    ConfigError,
    Ending,
    Interrupted,
    LeakError,
    Pruned,
    UserError,
    did_you_mean,
    status_of,
)


@pytest.mark.parametrize(
    ("ending", "code", "word", "status"),
    [
        (UserError, 2, "error", "failed"),
        (ConfigError, 2, "error", "failed"),
        (Interrupted, 3, "interrupted", "interrupted"),
        (Pruned, 1, "error", "pruned"),
        (LeakError, 1, "error", "failed"),
    ],
)
def test_an_ending_knows_its_exit_code_its_word_and_its_status(ending, code, word, status):
    end = ending("what, where, what to do")
    assert (end.exit_code, end.word, end.status, str(end)) == (code, word, status, "what, where, what to do")
    assert status_of(end) == status


def test_a_user_error_is_also_a_value_error():
    assert issubclass(ConfigError, UserError) and issubclass(UserError, ValueError)


def test_every_error_of_the_file_is_an_ending():
    classes = [
        value for value in vars(errors).values() if isinstance(value, type) and value.__module__ == errors.__name__
    ]
    assert len(classes) > 5 and all(issubclass(value, Ending) for value in classes)


def test_ctrl_c_counts_as_interrupted_and_an_unexpected_error_as_failed():
    assert status_of(KeyboardInterrupt()) == "interrupted" and status_of(ZeroDivisionError()) == "failed"


def test_did_you_mean_names_the_closest_word_or_says_nothing():
    assert did_you_mean("smal", ["tiny", "small", "large"]) == "; did you mean small?"
    assert did_you_mean("x", ["tiny", "small"]) == "" and did_you_mean("x", []) == ""
