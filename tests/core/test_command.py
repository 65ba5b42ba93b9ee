"""How a command of ours ends: one line and an exit code: hftraining/core/command.py."""

from pathlib import Path

import pytest

from hftraining.core.command import Parser, free_text, positive, run_command
from hftraining.core.errors import Interrupted, LeakError, UserError


def parser():
    parser = Parser(prog="ours")
    parser.add_argument("--last", type=positive)
    parser.add_argument("--why", type=free_text, default="")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in ("report", "replay"):
        made = commands.add_parser(name)
        made.add_argument("--to", type=Path)
        made.add_argument("--stocks", nargs="*")
    return parser


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("reprt", "error: reprt: there is no such command; did you mean report? (there are report, replay)"),
        ("--last 0 report", "error: argument --last: 0 is not a positive number"),
        ("--last x report", "error: argument --last: invalid positive value: 'x'"),
        ("", "error: the following arguments are required: COMMAND"),
    ],
)
def test_a_wrong_word_prints_one_line_and_gives_exit_code_2(capsys, words, line):
    with pytest.raises(SystemExit) as stopped:
        parser().parse_args(words.split())
    captured = capsys.readouterr()
    assert (stopped.value.code, captured.out, captured.err) == (2, "", line + "\n")


@pytest.mark.parametrize(
    ("end", "code", "line"),
    [
        (UserError("here\n  and there"), 2, "error: here and there"),
        (LeakError("it leaks"), 1, "error: it leaks"),
        (Interrupted("after step 3"), 3, "interrupted: after step 3"),
        (KeyboardInterrupt(), 3, "interrupted: stopped"),
        (KeyboardInterrupt("SIGTERM"), 3, "interrupted: stopped by SIGTERM"),
    ],
)
def test_an_expected_ending_prints_one_line_and_gives_its_exit_code(capsys, end, code, line):
    def act(arguments):
        raise end

    assert run_command(act, []) == code
    assert capsys.readouterr().err == line + "\n"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["report", "--to="], "argument --to: an empty text: is a variable of the shell not set?"),
        (["report", "--to", " "], "argument --to: an empty text: is a variable of the shell not set?"),
        (["report", "--stocks", "AAPL", ""], "argument --stocks: an empty text: is a variable of the shell not set?"),
        (["--last=", "report"], "argument --last: an empty text: is a variable of the shell not set?"),
        ([""], ": there is no such command (there are report, replay)"),
    ],
)
def test_an_empty_text_which_would_pass_for_the_working_directory_or_a_default_is_refused(capsys, words, line):
    with pytest.raises(SystemExit) as stopped:
        parser().parse_args(words)
    assert (stopped.value.code, capsys.readouterr().err) == (2, f"error: {line}\n")


def test_free_text_may_be_empty():
    for words in (["--why", ""], ["--why="], []):
        assert parser().parse_args([*words, "report"]).why == ""


def test_success_gives_its_exit_code():
    assert run_command(lambda arguments: len(arguments), ["a"]) == 1
