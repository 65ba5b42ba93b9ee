"""How a command of ours ends: one line and an exit code: hftraining/core/command.py."""

import pytest

from hftraining.core.command import Parser, positive, run_command
from hftraining.core.errors import Interrupted, LeakError, UserError


def parser():
    parser = Parser(prog="ours")
    parser.add_argument("--last", type=positive)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in ("report", "replay"):
        commands.add_parser(name)
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


@pytest.mark.parametrize("words", [[""], ["report", ""], ["--last", "", "report"]])
def test_an_empty_argument_which_would_be_taken_for_the_working_directory_is_refused(capsys, words):
    with pytest.raises(SystemExit) as stopped:
        parser().parse_args(words)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: an argument is empty: is a variable of the shell not set?\n"


def test_success_gives_its_exit_code():
    assert run_command(lambda arguments: len(arguments), ["a"]) == 1
