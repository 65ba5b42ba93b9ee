"""The ledger counts every trial, through deleted folders, killed runs and concurrent writers."""

import math
import os
import pwd
import shutil
import signal
import sqlite3

import numpy as np
import pytest

from hftraining.runs import ledger_file
from hftraining.runs.ledger import ENDINGS, Ledger, window_text
from hftraining.runs.ledger_file import LedgerError, ledger_path
from hftraining.runs.trials import Days, daily_sharpe
from tests.runs.ledgers import PERIODS, any_returns, begin, days, finish, new_ledger, python, trials


def test_a_row_is_written_before_the_first_step_and_completed_at_the_end(tmp_path):
    ledger = new_ledger(tmp_path)
    row = begin(ledger, "aa", uuid="0123")
    (entry,) = ledger.entries()
    assert (entry.id, entry.status, entry.ended, entry.valid, entry.test) == (row, "running", None, None, None)
    assert entry.windows["train"] == "2001-01-02 to 2010-12-31" and entry.symbols == ("AAPL", "MSFT")
    assert (entry.uuid, entry.code, entry.part_of) == ("0123", "c0de", None)
    dates = np.array(["2011-01-05", "2011-01-06"], dtype="datetime64[ns]")
    ledger.finish(
        row,
        status="done",
        valid=Days(dates, np.array([0.1, 1 / 3]), np.array([0.2, 1 / 7])),
        test=Days(["2013-01-04"], [-0.5]),
        sharpe=np.float64(2.0),
        result={"a": math.nan},
    )
    (entry,) = ledger.entries()
    assert entry.status == "done" and entry.ended is not None
    assert entry.valid.dates == ("2011-01-05", "2011-01-06") and list(entry.valid.returns) == [0.1, 1 / 3]
    assert list(entry.valid.benchmark) == [0.2, 1 / 7]
    assert (entry.test.dates, list(entry.test.returns), entry.test.benchmark) == (("2013-01-04",), [-0.5], None)
    assert entry.sharpe == 2.0 and entry.result == {"a": None}


def test_days_without_as_many_returns_are_our_fault():
    with pytest.raises(AssertionError, match="2 days, 1 returns"):
        Days(["a", "b"], [0.1])
    with pytest.raises(AssertionError, match="1 days, 2 of benchmark"):
        Days(["a"], [0.1], [0.1, 0.2])


def test_every_ending_counts_and_so_does_a_run_that_never_ended(tmp_path):
    ledger = new_ledger(tmp_path)
    for status in ENDINGS:
        ledger.finish(begin(ledger, status), status=status)
    begin(ledger, "killed")
    assert trials(ledger).count == len(ENDINGS) + 1
    assert trials(ledger).sharpes_1d == () and trials(ledger).known == ()


def test_the_same_config_data_and_seed_is_one_trial_no_matter_how_often_it_comes_to_the_same(tmp_path):
    ledger = new_ledger(tmp_path)
    rows = [begin(ledger, "aa"), begin(ledger, "bb"), begin(ledger, "aa")]
    for row in (rows[0], rows[2]):
        finish(ledger, row, [0.01, -0.02])
    assert trials(ledger).count == 2
    assert trials(ledger).rows == {"aa": (rows[0], rows[2]), "bb": (rows[1],)}


def test_a_signature_with_different_returns_ran_under_other_code_and_counts_again(tmp_path):
    ledger = new_ledger(tmp_path)
    for returns in ([0.01, -0.02, 0.03], [0.01, -0.02, 0.03], [0.01, -0.02, np.nextafter(0.03, 1)]):
        finish(ledger, begin(ledger, "aa"), returns)
    begin(ledger, "aa")  # killed: no result of its own
    found = trials(ledger)
    assert found.count == 2 and found.outcomes == {"aa": 2} and len(found.rows["aa"]) == 4
    assert len(found.sharpes_1d) == 2


@pytest.mark.parametrize(
    ("tries", "count"),
    [
        ([("c1", None), ("c1", None), ("c1", None)], 1),  # nobody learns from a crash that repeats
        ([("c1", None), ("c2", None), ("c3", None)], 3),  # edited, looked at and killed, three times
        ([("c1", None), ("c1", [0.1, -0.1])], 1),  # killed, then run to its end
        ([("c1", None), ("c2", [0.1, -0.1])], 2),
        ([("c1", [0.1, -0.1]), ("c2", [0.1, -0.1]), ("c2", None)], 1),  # a replay under other code
        ([("c1", [0.1, -0.1]), ("c2", [0.1, -0.2]), ("c3", None)], 3),
    ],
)
def test_tries_that_were_killed_count_by_their_code_unless_the_same_code_came_to_a_result(tmp_path, tries, count):
    ledger = new_ledger(tmp_path)
    for code, returns in tries:
        row = begin(ledger, "aa", code=code)
        if returns:
            finish(ledger, row, returns)
    assert trials(ledger).count == count


def test_killed_on_other_data_counts_again_and_without_known_code_by_the_time(tmp_path):
    ledger = new_ledger(tmp_path)
    for fingerprint in ("f00d", "beef"):
        begin(ledger, "aa", fingerprint=fingerprint)
    for second in range(3):
        begin(ledger, "bb", code=None, started=f"2026-01-01T10:00:0{second}+00:00")
    assert trials(ledger).count == 5


def test_the_variance_covers_the_known_daily_sharpe_ratios(tmp_path):
    ledger = new_ledger(tmp_path)
    curves = {"aa": [0.01, -0.02, 0.03], "bb": [0.0, 0.01, -0.03], "cc": [0.02, 0.01, 0.0]}
    for signature, returns in curves.items():
        finish(ledger, begin(ledger, signature), returns)
    finish(ledger, begin(ledger, "never-traded"), [0.0, 0.0, 0.0])
    begin(ledger, "killed")
    expected = [np.mean(r) / np.std(r, ddof=1) for r in curves.values()]
    found = trials(ledger)
    assert found.count == 5
    assert found.sharpes_1d == pytest.approx(expected)
    assert found.variance_1d == pytest.approx(np.var(expected, ddof=1))


def test_every_distinct_outcome_is_known_with_its_days_and_benchmark(tmp_path):
    ledger = new_ledger(tmp_path)
    first, again, other = (begin(ledger, signature) for signature in ("aa", "aa", "bb"))
    ledger.finish(first, status="done", valid=days([0.01, -0.02]))  # of an earlier version, without a benchmark
    ledger.finish(again, status="done", valid=days([0.01, -0.02], [0.3, 0.4]))
    ledger.finish(other, status="done", valid=days([0.05, -0.02], [0.3, 0.4]))
    begin(ledger, "killed")
    known = trials(ledger).known
    assert [(one.signature, one.row, one.crossed) for one in known] == [("aa", again, False), ("bb", other, False)]
    assert [list(one.days.returns) for one in known] == [[0.01, -0.02], [0.05, -0.02]]
    assert all(list(one.days.benchmark) == [0.3, 0.4] for one in known)
    assert known[0].days.dates == ("2011-01-05", "2011-01-06")


def test_the_returns_of_the_run_that_asks_are_counted_before_they_are_stored(tmp_path):
    ledger = new_ledger(tmp_path)
    finish(ledger, begin(ledger, "aa"), [0.01, -0.02])
    same, new = begin(ledger, "aa"), begin(ledger, "bb")
    assert ledger.trials(same, days([0.01, -0.02])).count == 2
    found = ledger.trials(new, days([0.07, -0.02], [0.1, 0.2]))
    assert found.count == 2 and [one.row for one in found.known] == [1, new]
    assert found.known[1].days.benchmark == [0.1, 0.2] and len(found.sharpes_1d) == 2


def test_a_sharpe_ratio_without_variance_or_with_a_hole_is_not_a_number():
    assert all(
        math.isnan(daily_sharpe(returns)) for returns in ([], [0.1], [0.0, 0.0], [0.1] * 3, [0.1, math.nan, 0.2])
    )


def test_one_trial_has_no_variance(tmp_path):
    ledger = new_ledger(tmp_path)
    finish(ledger, begin(ledger, "aa"), [0.01, -0.02])
    assert math.isnan(trials(ledger).variance_1d)


def test_deleting_a_run_folder_does_not_lower_n(tmp_path):
    ledger = new_ledger(tmp_path)
    for signature in ("aa", "bb"):
        begin(ledger, signature)
        (ledger.path.parent / "base" / "small" / signature).mkdir(parents=True)
    shutil.rmtree(ledger.path.parent / "base")
    assert trials(Ledger(ledger.path)).count == 2


# --- resuming ---------------------------------------------------------------------------------------------------------


def test_a_resumed_run_is_the_same_trial_and_is_found_by_its_id_wherever_its_folder_is(tmp_path):
    ledger = new_ledger(tmp_path)
    row = begin(ledger, "aa", uuid="0123")
    ledger.finish(row, status="interrupted")
    moved = tmp_path / "elsewhere" / "aa"
    assert ledger.resume(moved, "0123") == row
    (entry,) = ledger.entries()
    assert (entry.status, entry.ended, entry.resumed, entry.folder) == ("running", None, 1, moved)
    assert trials(ledger).count == 1
    with pytest.raises(LedgerError, match="has no row 99"):
        ledger.finish(99, status="done")


def test_a_run_of_an_earlier_version_is_found_by_its_folder(tmp_path, monkeypatch):
    ledger = new_ledger(tmp_path)
    row, other = begin(ledger, "aa"), begin(ledger, "bb", uuid="4567")
    monkeypatch.chdir(ledger.path.parent)
    assert ledger.resume("base/small/aa/") == ledger.resume(ledger.path.parent / "base/small/aa") == row
    assert ledger.resume("base/small/bb") is None, "a run with an id is not found by a folder, which may be another's"
    assert ledger.resume("base/small/zz") is None and ledger.resume("base/small/aa", "89ab") is None
    assert [entry.resumed for entry in ledger.entries()] == [2, 0] and other == 2


def test_a_folder_with_the_id_of_another_run_is_refused_and_leaves_the_row_alone(tmp_path):
    ledger = new_ledger(tmp_path)
    row = begin(ledger, "aa", uuid="0123")
    finish(ledger, row, [0.1, -0.1])
    for facts in ({"signature": "bb", "fingerprint": "f00d"}, {"signature": "aa", "fingerprint": "beef"}):
        with pytest.raises(LedgerError, match="belongs to another run in"):
            ledger.resume(tmp_path / "strange", "0123", facts)
    assert ledger.entries()[0].status == "done" and ledger.entries()[0].resumed == 0
    assert ledger.resume(tmp_path / "own", "0123", {"signature": "aa", "fingerprint": "f00d"}) == row


def test_an_opening_that_is_recorded_again_after_a_kill_is_one_row(tmp_path):
    ledger = new_ledger(tmp_path)
    row = begin(ledger, "aa", uuid="0123")
    assert [ledger.open_test(row), ledger.open_test(row)] == [1, 1]
    with sqlite3.connect(ledger.path) as connection:
        assert connection.execute("SELECT count(*) FROM openings").fetchone() == (1,)
    connection.close()


def test_a_copy_that_is_resumed_shares_the_row_and_neither_result_is_lost(tmp_path):
    ledger = new_ledger(tmp_path)
    row = begin(ledger, "aa", uuid="0123")
    original = ledger.entries()[0].folder
    original.mkdir(parents=True)
    assert ledger.resume(tmp_path / "copy", "0123") == row
    assert ledger.entries()[0].folder == original
    ledger.open_test(row)
    finish(ledger, row, [0.1, -0.1], test=days([0.3, 0.1], first="2013-01-04"))  # the original ends
    assert trials(ledger).count == 1
    assert ledger.resume(tmp_path / "copy", "0123") == row
    ledger.open_test(row)
    finish(ledger, row, [0.1, -0.1], test=days([0.3, 0.1], first="2013-01-04"))  # the same bits again
    assert (trials(ledger).count, ledger.openings(row).count, len(ledger.entries())) == (1, 1, 1)
    ledger.resume(tmp_path / "copy", "0123")
    finish(ledger, row, [0.1, 0.2], test=days([0.3, 0.4], first="2013-01-04"))  # under other code
    found = trials(ledger)
    assert found.count == 2 and {tuple(one.days.returns) for one in found.known} == {(0.1, -0.1), (0.1, 0.2)}
    assert {tuple(one.days.returns) for one in ledger.openings(row).known} == {(0.3, 0.1), (0.3, 0.4)}
    ledger.resume(tmp_path / "copy", "0123")
    ledger.finish(row, status="failed")  # and a failure afterwards takes nothing away
    assert trials(ledger).count == 2


# --- openings ---------------------------------------------------------------------------------------------------------


def test_every_opening_of_a_test_period_is_counted_for_all_runs_together(tmp_path):
    ledger = new_ledger(tmp_path)
    first, second = begin(ledger, "aa"), begin(ledger, "bb", kind="finetuned")
    later = begin(ledger, "cc", windows=PERIODS | {"test": ("2016-01-04", "2016-12-30")})
    assert [ledger.open_test(row) for row in (first, second, later)] == [1, 2, 1]
    assert (ledger.openings(first).count, ledger.openings(later).count) == (2, 1)
    with pytest.raises(LedgerError, match="has no row 99"):
        ledger.open_test(99)


def test_the_same_look_again_is_counted_once(tmp_path):
    ledger = new_ledger(tmp_path)
    run, replay, other_code = begin(ledger, "aa"), begin(ledger, "aa"), begin(ledger, "aa", code="c2")
    assert [ledger.open_test(row) for row in (run, replay, run, other_code)] == [1, 1, 1, 2]
    assert ledger.open_test(begin(ledger, "aa", fingerprint="beef")) == 3, "the same config on other bars is a new look"


def test_openings_know_what_was_seen_on_the_test_days(tmp_path):
    ledger = new_ledger(tmp_path)
    for signature in ("aa", "bb"):
        row = begin(ledger, signature)
        ledger.open_test(row)
        seen = days(any_returns(signature), any_returns("market"), first="2013-01-04")
        ledger.finish(row, status="done", valid=days([0.1, 0.2]), test=seen)
    killed = begin(ledger, "cc")
    ledger.open_test(killed)
    found = ledger.openings(killed)
    assert found.count == found.direct == 3 and [one.signature for one in found.known] == ["aa", "bb"]
    assert [list(one.days.returns) for one in found.known] == [any_returns("aa"), any_returns("bb")]
    assert list(found.known[0].days.benchmark) == any_returns("market")
    own = days(any_returns("cc"), first="2013-01-04")
    assert [one.row for one in ledger.openings(killed, own).known] == [1, 2, killed]


# --- processes and files ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_processes_that_start_together_share_one_ledger_and_lose_no_row(tmp_path):
    path = tmp_path / "outputs" / "ledger.sqlite"  # which the processes make
    code = """
import os
for i in range(30):
    ledger = Ledger(Path(sys.argv[1]))
    row = begin(ledger, f"{os.getpid()}-{i}")
    print(ledger.open_test(row))
    ledger.finish(row, status="done", valid=Days(["d"] * 300, [0.01] * 300))
"""
    processes = [python(code, path) for _ in range(4)]
    answers = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0], answers
    numbers = sorted(int(line) for out, _ in answers for line in out.split())
    assert numbers == list(range(1, 121))  # no two openings were told the same count
    assert Ledger(path).trials(1).count == 120
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_a_process_killed_while_it_writes_leaves_its_rows_and_a_sound_ledger(tmp_path):
    ledger = new_ledger(tmp_path)
    code = """
ledger = Ledger(Path(sys.argv[1]))
for i in range(10**9):
    begin(ledger, f"{i}")
    print(i, flush=True)
"""
    process = python(code, ledger.path)
    for line in process.stdout:
        if (last := int(line)) >= 20:
            break
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    assert trials(ledger).count >= last + 1
    assert {entry.status for entry in ledger.entries()} == {"running"}
    begin(ledger, "after", symbols=["A"])
    assert trials(ledger).rows["after"]


def test_a_newer_schema_is_refused_in_one_line_and_left_unchanged(tmp_path):
    ledger = new_ledger(tmp_path)
    begin(ledger, "aa")
    with sqlite3.connect(ledger.path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = ledger.path.read_bytes()
    with pytest.raises(LedgerError, match="newer version") as caught:
        Ledger(ledger.path)
    assert "\n" not in str(caught.value) and ledger.path.read_bytes() == before


def test_an_older_schema_is_migrated_and_keeps_its_rows(tmp_path, monkeypatch):
    ledger = new_ledger(tmp_path)
    begin(ledger, "aa")
    monkeypatch.setattr(
        ledger_file, "MIGRATIONS", (*ledger_file.MIGRATIONS, ("ALTER TABLE runs ADD COLUMN note TEXT",))
    )
    for _ in range(2):
        assert trials(Ledger(ledger.path)).count == 1


@pytest.mark.parametrize("damage", ["text", "cut", "garbage inside"])
def test_a_damaged_file_is_refused_in_one_line_and_not_replaced(tmp_path, damage):
    ledger = new_ledger(tmp_path)
    for number in range(200):
        begin(ledger, str(number))
    whole = ledger.path.read_bytes()
    broken = {
        "text": b"not a database, but long enough to be looked at" * 100,
        "cut": whole[: len(whole) // 2],
        "garbage inside": whole[:100] + b"\xff" * (len(whole) - 100),
    }[damage]
    ledger.path.write_bytes(broken)
    with pytest.raises(LedgerError) as caught:
        Ledger(ledger.path).entries()
    assert str(ledger.path) in str(caught.value) and "\n" not in str(caught.value)
    assert ledger.path.read_bytes() == broken


def test_another_programs_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE runs (id INTEGER)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="is an SQLite file, but not a ledger"):
        Ledger(path)
    assert path.read_bytes() == before


def test_a_ledger_locked_for_too_long_is_an_error_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger_file, "BUSY_SECONDS", 0.1)
    ledger = new_ledger(tmp_path)
    blocker = sqlite3.connect(ledger.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerError, match="was locked by another process"):
        begin(ledger, "aa")
    blocker.execute("ROLLBACK")
    blocker.close()
    begin(ledger, "aa")


def test_readers_do_not_wait_for_a_writer(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger_file, "BUSY_SECONDS", 0.0)
    ledger = new_ledger(tmp_path)
    begin(ledger, "aa")
    writer = sqlite3.connect(ledger.path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM runs")
    assert trials(ledger).count == 1
    writer.execute("ROLLBACK")
    writer.close()


def test_a_path_where_no_ledger_can_be_made_is_named_with_the_field_that_names_another(tmp_path):
    (tmp_path / "outputs").write_text("a file")
    with pytest.raises(LedgerError, match=r"ledger.sqlite cannot be made \(.*\): evidence.ledger=PATH names another"):
        new_ledger(tmp_path)
    with pytest.raises(LedgerError, match="is a folder, not the file of a ledger"):
        Ledger(tmp_path)


def test_the_users_ledger_lies_in_the_state_folder_and_a_user_without_a_home_is_told_so(tmp_path, state, monkeypatch):
    assert ledger_path(None) == state / "ledger.sqlite"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ledger_path(None) == tmp_path / ".local" / "state" / "hftraining" / "ledger.sqlite"
    assert ledger_path("~/mine.sqlite") == tmp_path / "mine.sqlite"
    monkeypatch.chdir(tmp_path)
    assert ledger_path("mine.sqlite") == tmp_path / "mine.sqlite"

    def nobody(number):
        raise KeyError(number)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(LedgerError, match=r"the ledger of this user has no place \(.*home.*\): evidence.ledger=PATH"):
        ledger_path(None)


def test_a_ledger_that_vanishes_is_not_silently_begun_again(tmp_path):
    ledger = new_ledger(tmp_path)
    row = begin(ledger, "aa")
    for path in ledger.path.parent.glob("ledger.sqlite*"):
        path.unlink()
    with pytest.raises(LedgerError, match="cannot be used"):
        ledger.finish(row, status="done")
    assert not ledger.path.exists()


def test_a_period_is_its_first_and_last_day_in_any_form():
    day = np.datetime64("2011-01-05T00:00", "ns")
    assert window_text((day, "2012-12-31")) == window_text(["2011-01-05", "2012-12-31"]) == "2011-01-05 to 2012-12-31"
    assert window_text("2011-01-05 to 2012-12-31") == "2011-01-05 to 2012-12-31" and window_text(None) == ""
