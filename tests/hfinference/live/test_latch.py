"""Halt, resume and flatten: by command, by a file, while a trader holds the journal, and what refuses to resume."""

import json
import os
import resource
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hfinference.__main__ import main
from hfinference.live.entries import Mark, micro
from hfinference.live.journal import Journal
from hfinference.live.journal_file import REPLAY
from hfinference.live.latch import account_folder, end_flatten, flatten, flatten_asked, halt, halt_of, resume
from hfinference.live.risk import Halt
from hftraining.core.errors import UserError
from hftraining.runs.lock import FolderInUse

FACTS = {"capital_micro": micro(10_000.0)}


@pytest.fixture
def run(tmp_path) -> Path:
    """A run folder with one paper account, of one session."""
    with Journal.open(tmp_path / "run/paper/live", FACTS) as journal:
        journal.mark(Mark("2024-05-02", micro(10_000.0), micro(10_000.0)))
    return tmp_path / "run"


@pytest.fixture
def folder(run) -> Path:
    return run / "paper/live"


def said(capsys, *words) -> tuple[int, str, str]:
    """Exit code, what was printed, and the line of an error."""
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def test_halt_works_while_a_trader_holds_the_journal(run, folder, capsys):
    with Journal.open(folder, FACTS) as trader:
        code, out, _ = said(capsys, "halt", run, "--reason", "earnings\x1b[2J tonight", "--json")
        assert code == 0
        halted = json.loads(out.splitlines()[-1])["halted"]
        assert (halted["name"], halted["reason"]) == ("by_hand", "earnings\\x1b[2J tonight")
        assert trader.halted().reason == "earnings\\x1b[2J tonight"
        assert (folder / "HALT").read_text() == "earnings\\x1b[2J tonight\n"


@pytest.mark.parametrize("command", ["halt", "flatten"])
def test_an_account_halts_whatever_the_reason_is(run, folder, capsys, command):
    assert said(capsys, command, run, "--reason", "")[0] == 0
    assert (halt_of(folder) if command == "halt" else flatten_asked(folder)) is not None


def test_the_first_halt_stays_when_it_is_asked_for_again(folder):
    first = halt(folder, "one")
    assert halt(folder, "two") == first and first.reason == "one"


def test_a_file_made_by_touch_halts_and_is_lifted_and_remembered(run, folder, capsys):
    (folder / "HALT").touch()
    assert halt_of(folder).name == "by_hand"
    code, out, _ = said(capsys, "resume", run)
    assert code == 0 and out.startswith("lifted: halted since ") and "(by_hand): the file" in out
    assert halt_of(folder) is None and not (folder / "HALT").exists()
    with Journal.read(folder) as journal:
        (row,) = journal.halts()
    assert row.name == "by_hand" and row.how == "resume" and row.lifted_at


def test_resume_says_every_halt_that_lasted(run, folder, capsys):
    with Journal.open(folder, FACTS) as journal:
        journal.halt("stale_bars", "the bars end early", "2024-05-02")
        journal.halt("daily_loss", "the account fell", "2024-05-02")
    code, out, _ = said(capsys, "resume", run, "--json")
    assert code == 0 and "(stale_bars): the bars end early" in out and "(daily_loss): the account fell" in out
    assert [row["name"] for row in json.loads(out.splitlines()[-1])["lifted"]] == ["stale_bars", "daily_loss"]
    code, out, _ = said(capsys, "resume", run)
    assert code == 0 and out.startswith("the account was not halted\n")


def test_resume_takes_a_file_away_that_a_running_trader_has_not_seen(folder):
    with Journal.open(folder, FACTS) as trader:
        halt(folder, "a moment")
        assert [row.reason for row in resume(folder).lifted] == ["a moment"]
        assert trader.halted() is None
        trader.halt("drawdown", "fell", "2024-05-02")
        with pytest.raises(FolderInUse, match="trader that has halted: wait until it ends"):
            resume(folder)
        assert trader.halted().name == "drawdown"


def test_resume_is_refused_while_the_clock_is_behind_the_journal(folder):
    halt(folder)
    with pytest.raises(UserError, match=r"^not resumed, since the cause is still there \(clock\): our clock is "):
        resume(folder, datetime.now(UTC) - timedelta(minutes=10))
    assert halt_of(folder)
    assert resume(folder, datetime.now(UTC)).lifted


def test_resume_is_refused_for_an_account_that_is_worth_nothing(tmp_path):
    with Journal.open(tmp_path, FACTS) as journal:
        journal.mark(Mark("2024-05-02", micro(10_000.0), 0))
        journal.halt("bankrupt", "worth nothing")
    with pytest.raises(UserError, match=r"still there \(bankrupt\): the account is worth nothing: begin another"):
        resume(tmp_path)
    assert halt_of(tmp_path).name == "bankrupt"


def test_resume_is_refused_while_the_sums_of_the_journal_do_not_agree(tmp_path):
    with Journal.open(tmp_path, FACTS) as journal:
        journal.mark(Mark("2024-05-02", micro(9_000.0), micro(10_000.0)))
        journal.halt("journal", "the cash is not what the fills make")
    with pytest.raises(UserError, match=r"still there \(journal\): .* is not what its fills make"):
        resume(tmp_path)
    assert halt_of(tmp_path).name == "journal"


def test_a_damaged_journal_is_not_resumed_but_can_be_halted(run, folder, capsys):
    (folder / "journal.sqlite").write_bytes(b"nothing" * 1000)
    assert said(capsys, "halt", run)[0] == 0
    code, _, err = said(capsys, "resume", run)
    assert code == 2 and err.startswith("halted (journal): ") and err.count("\n") == 1
    assert (folder / "HALT").exists()


def test_flatten_is_asked_by_a_file_and_ends_in_a_halt(run, folder, capsys):
    code, out, _ = said(capsys, "flatten", run, "--reason", "holidays")
    assert code == 0 and "opens none, and then the account halts: holidays" in out
    assert flatten_asked(folder) == "holidays"
    assert flatten(folder, "another") == "holidays"
    with Journal.open(folder, FACTS) as trader:
        end_flatten(trader)
        assert trader.halted().name == "by_hand" and trader.halted().reason == "flat, holidays: resume trades again"
    assert flatten_asked(folder) is None


def test_flatten_of_a_halted_account_says_that_it_waits_for_resume_which_does_not_cancel_it(run, folder, capsys):
    halt(folder, "look first")
    code, out, _ = said(capsys, "flatten", run, "--json")
    assert code == 0 and "it is halted now (by_hand): look first; resume it, and the closing orders are sent" in out
    assert json.loads(out.splitlines()[-1])["halted"]["reason"] == "look first"
    assert resume(folder).is_flattening and flatten_asked(folder)
    found = resume(folder)
    assert not found.lifted and found.cancelled == "asked for with the command flatten"
    assert flatten_asked(folder) is None


def test_a_flatten_that_cannot_be_read_is_asked_for_all_the_same(folder):
    (folder / "FLATTEN").symlink_to("/etc/hostname")
    assert "FLATTEN" in flatten_asked(folder)
    (folder / "FLATTEN").unlink()
    (folder / "FLATTEN").mkdir()
    assert flatten_asked(folder)


def test_the_account_of_a_run_is_the_one_that_was_traded_last(run, folder, capsys):
    assert account_folder(run) == folder
    with Journal.open(run / "paper/replay_2020-01-02_2020-12-31", FACTS):
        pass
    later = datetime.now().timestamp() + 10
    os.utime(run / "paper/replay_2020-01-02_2020-12-31/journal.sqlite", (later, later))
    assert account_folder(run).name == "replay_2020-01-02_2020-12-31"
    halt(folder, "this one")  # which is no trading
    assert account_folder(run).name == "replay_2020-01-02_2020-12-31"
    assert account_folder(run, folder) == folder


def replay_in(run: Path, name: str, later: float = 10.0) -> Path:
    """A replay of a run that has ended, used after all its other accounts."""
    folder = run / "paper" / name
    with Journal.open(folder, FACTS | {REPLAY: ["2024-05-02", "2024-05-03"]}) as journal:
        for day in ("2024-05-02", "2024-05-03"):
            journal.mark(Mark(day, micro(10_000.0), micro(10_000.0)))
    for path in folder.iterdir():
        os.utime(path, (time.time() + later, time.time() + later))
    return folder


def test_halt_names_the_other_accounts_of_the_run_that_go_on(run, folder, capsys):
    replay_in(run, "replay_1")
    other, waiting = run / "paper/replay_2", run / "paper/alpaca"
    Journal.open(waiting, FACTS).close()  # which a cron job may take up
    with Journal.open(other, FACTS | {REPLAY: ["2024-05-02", "2024-05-03"]}):
        code, out, _ = said(capsys, "halt", run, "--journal", folder, "--json")
    assert code == 0 and json.loads(out.splitlines()[-1])["not_halted"] == [str(waiting), str(other)]
    assert f"note: the account {other} is not halted: --journal {other} halts it" in out
    assert not (other / "HALT").exists()
    halt(waiting)
    assert json.loads(said(capsys, "halt", run, "--json")[1].splitlines()[-1])["not_halted"] == []


@pytest.mark.parametrize("command", ["halt", "flatten"])
def test_a_replay_after_it_takes_no_halt_and_no_flatten_away_from_the_account_that_trades(run, folder, capsys, command):
    replay = replay_in(run, "replay_2024-05-02_2024-05-03")
    assert account_folder(run) == replay  # of which --status speaks
    code, out, _ = said(capsys, command, run)
    assert code == 0 and f"account: {folder}\n" in out and "note" not in out
    assert (folder / command.upper()).exists() and not (replay / command.upper()).exists()
    code, out, _ = said(capsys, "resume", run)
    assert code == 0 and f"account: {folder}\n" in out and not (folder / command.upper()).exists()
    code, out, _ = said(capsys, command, run, "--journal", replay)
    assert code == 0 and "is a replay that has ended, of which nothing more is traded" in out


def test_resume_lifts_no_halt_that_nobody_named_where_two_accounts_of_a_run_are_halted(run, folder, capsys):
    halt(folder, "until I am back")
    replay = replay_in(run, "replay_1")
    with Journal.open(replay, {}) as journal:
        journal.halt("drawdown", "fell", "2024-05-03")
    code, out, err = said(capsys, "resume", run)
    assert code == 2 and err.count("\n") == 1 and not out
    assert f"2 accounts of {run} are halted or flattening, {folder}, {replay}: name one (--journal" in err
    assert halt_of(folder).reason == "until I am back" and halt_of(replay).name == "drawdown"
    assert said(capsys, "resume", run, "--journal", replay)[0] == 0
    assert halt_of(replay) is None and halt_of(folder)


@pytest.mark.parametrize("command", ["halt", "resume", "flatten"])
def test_a_run_without_an_account_is_one_line(command, tmp_path, capsys):
    for words, line in (
        ([tmp_path / "none"], "none does not exist: give a run folder"),
        ([tmp_path], "has no paper account yet: python -m hfinference paper"),
        ([tmp_path, "--journal", tmp_path / "none"], "none has no journal (journal.sqlite): give the folder of one"),
    ):
        code, out, err = said(capsys, command, *words)
        assert code == 2 and line in err and err.count("\n") == 1 and not out
    assert not (tmp_path / "none").exists()


def test_a_full_disk_loses_the_reason_and_not_the_halt(folder):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))  # no byte can be written, as on a full disk
    try:
        found = halt(folder, "lost")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert found.name == "by_hand" and (folder / "HALT").read_text() == ""
    assert [path.name for path in folder.iterdir() if path.name.endswith(".tmp")] == []


@pytest.mark.parametrize("ask", [halt, flatten])
def test_a_halt_that_cannot_be_made_does_not_say_that_anything_is_halted(ask):
    name = ask.__name__
    with pytest.raises(UserError, match=f"^NOT {name}.*: /proc/self/{name.upper()} cannot be made") as found:
        ask(Path("/proc/self"))  # in which nobody can make a file
    assert not isinstance(found.value, Halt)


def test_a_folder_named_halt_or_flatten_is_asked_for_as_a_file_is_and_removed_by_nobody_else(run, folder, capsys):
    for name in ("HALT", "FLATTEN"):
        (folder / name).mkdir()
        assert halt_of(folder) if name == "HALT" else flatten_asked(folder)
        code, _, err = said(capsys, "resume", run)
        assert code == 2 and err.count("\n") == 1
        assert f"{folder / name} is a folder, which is not removed here: remove it, then resume" in err
        (folder / name).rmdir()
        said(capsys, "resume", run)
        assert halt_of(folder) is None and flatten_asked(folder) is None
