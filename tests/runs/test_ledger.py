"""The ledger counts every trial, through deleted folders, killed runs and concurrent writers."""

import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hftraining.runs import ledger as ledger_module
from hftraining.runs.ledger import ENDINGS, Ledger, LedgerError, daily_sharpe, window_text

ROOT = Path(__file__).parents[2]
PERIODS = {
    "train": ("2001-01-02", "2010-12-31"),
    "valid": ("2011-01-05", "2012-12-31"),
    "test": ("2013-01-04", "2015-12-31"),
}
HEADER = """
import sys
from pathlib import Path
from hftraining.runs.ledger import Ledger
def begin(ledger, signature):
    return ledger.begin(kind="base", name="n", folder=Path(sys.argv[1]).parent / signature, signature=signature,
        fingerprint="f00d", symbols=["A"], windows={"valid": ("2011-01-05", "2012-12-31"), "test": ("2013", "2015")})
"""


def new_ledger(folder: Path) -> Ledger:
    return Ledger(folder / "outputs" / "ledger.sqlite")


def begin(ledger: Ledger, signature: str, **others) -> int:
    row = {
        "kind": "base",
        "name": "small",
        "folder": ledger.path.parent / "base" / "small" / signature,
        "signature": signature,
        "fingerprint": "f00d",
        "symbols": ["AAPL", "MSFT"],
        "windows": PERIODS,
    }
    return ledger.begin(**(row | others))


def finish(ledger: Ledger, row: int, returns: list[float], status: str = "done") -> None:
    days = [f"2011-01-{5 + number:02}" for number in range(len(returns))]
    ledger.finish(row, status=status, valid_dates=days, valid_returns=returns, sharpe=1.5, result={"loss": 0.2})


def trials(ledger: Ledger):
    return ledger.trials("f00d", PERIODS["valid"])


def python(code: str, ledger: Ledger) -> subprocess.Popen:
    command = [sys.executable, "-c", HEADER + code, str(ledger.path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def test_a_row_is_written_before_the_first_step_and_completed_at_the_end(tmp_path):
    ledger = new_ledger(tmp_path)
    row = begin(ledger, "aa")
    (entry,) = ledger.entries()
    assert (entry.id, entry.status, entry.ended, entry.valid_returns) == (row, "running", None, ())
    assert entry.windows["train"] == "2001-01-02 to 2010-12-31" and entry.symbols == ("AAPL", "MSFT")
    days = np.array(["2011-01-05", "2011-01-06"], dtype="datetime64[ns]")
    ledger.finish(
        row,
        status="done",
        valid_dates=days,
        valid_returns=np.array([0.1, 1 / 3]),
        sharpe=np.float64(2.0),
        result={"a": math.nan},
    )
    (entry,) = ledger.entries()
    assert entry.status == "done" and entry.ended is not None
    assert entry.valid_dates == ("2011-01-05", "2011-01-06") and entry.valid_returns == (0.1, 1 / 3)
    assert entry.sharpe == 2.0 and entry.result == {"a": None}


def test_every_ending_counts_and_so_does_a_run_that_never_ended(tmp_path):
    ledger = new_ledger(tmp_path)
    for status in ENDINGS:
        ledger.finish(begin(ledger, status), status=status)
    begin(ledger, "killed")
    assert trials(ledger).count == len(ENDINGS) + 1
    assert trials(ledger).sharpes_1d == ()


def test_the_same_config_data_and_seed_is_one_trial_no_matter_how_often_it_runs(tmp_path):
    ledger = new_ledger(tmp_path)
    rows = [begin(ledger, "aa"), begin(ledger, "bb"), begin(ledger, "aa")]
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


def test_trials_are_counted_for_each_data_and_validation_period(tmp_path):
    ledger = new_ledger(tmp_path)
    begin(ledger, "aa")
    begin(ledger, "bb", fingerprint="beef")
    begin(ledger, "cc", windows=PERIODS | {"valid": ("2011-01-05", "2012-12-28")})
    begin(ledger, "dd", windows=PERIODS | {"test": ("2013-01-04", "2014-12-31")})
    assert trials(ledger).count == 2
    assert ledger.trials("beef", "2011-01-05 to 2012-12-31").count == 1
    assert ledger.trials("none", PERIODS["valid"]).count == 0


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


def test_a_resumed_run_is_the_same_trial_and_is_found_by_its_folder(tmp_path, monkeypatch):
    ledger = new_ledger(tmp_path)
    row = begin(ledger, "aa")
    ledger.finish(row, status="interrupted")
    monkeypatch.chdir(ledger.path.parent)
    assert ledger.resume("base/small/aa/") == row
    assert ledger.resume(ledger.path.parent / "base/small/aa") == row
    (entry,) = ledger.entries()
    assert (entry.status, entry.ended, entry.resumed) == ("running", None, 2)
    assert trials(ledger).count == 1
    with pytest.raises(LedgerError, match="has no run in base/small/zz"):
        ledger.resume("base/small/zz")
    with pytest.raises(LedgerError, match="has no row 99"):
        ledger.finish(99, status="done")


def test_the_outputs_folder_may_move_and_its_runs_are_still_found(tmp_path):
    row = begin(new_ledger(tmp_path), "aa")
    (tmp_path / "outputs").rename(tmp_path / "archive")
    moved = Ledger(tmp_path / "archive" / "ledger.sqlite")
    assert moved.entries()[0].folder == tmp_path / "archive/base/small/aa"
    assert moved.resume(tmp_path / "archive/base/small/aa") == row


def test_every_opening_of_a_test_period_is_counted_for_all_runs_together(tmp_path):
    ledger = new_ledger(tmp_path)
    first, second = begin(ledger, "aa"), begin(ledger, "bb", kind="finetuned")
    other_days = begin(ledger, "cc", windows=PERIODS | {"test": ("2014-01-02", "2015-12-31")})
    assert [ledger.open_test(row) for row in (first, second, first, other_days)] == [1, 2, 3, 1]
    assert ledger.openings("f00d", PERIODS["test"]) == 3
    with pytest.raises(LedgerError, match="has no row 99"):
        ledger.open_test(99)


def test_the_same_look_again_is_counted_once(tmp_path):
    ledger = new_ledger(tmp_path)
    run, replay, other_code = begin(ledger, "aa"), begin(ledger, "aa"), begin(ledger, "aa")
    looks = [(run, "aa code1"), (replay, "aa code1"), (other_code, "aa code2"), (run, ""), (run, "")]
    assert [ledger.open_test(row, look) for row, look in looks] == [1, 1, 2, 3, 4]
    assert ledger.openings("f00d", PERIODS["test"]) == 4


def test_openings_of_a_ledger_without_looks_count_one_each(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger_module, "MIGRATIONS", ledger_module.MIGRATIONS[:1])
    row = begin(new_ledger(tmp_path), "aa")
    with sqlite3.connect(tmp_path / "outputs" / "ledger.sqlite") as connection:
        for _ in range(3):
            connection.execute(
                "INSERT INTO openings (run_id, fingerprint, test_window, opened) "
                "SELECT id, fingerprint, test_window, '' FROM runs"
            )
    monkeypatch.undo()
    ledger = new_ledger(tmp_path)
    assert ledger.openings("f00d", PERIODS["test"]) == 3
    assert ledger.open_test(row, "aa code1") == 4


def test_processes_that_start_together_share_one_ledger_and_lose_no_row(tmp_path):
    ledger = Ledger.__new__(Ledger)  # a path only: the processes create the file
    ledger.path = tmp_path / "outputs" / "ledger.sqlite"
    code = """
import os
for i in range(40):
    ledger = Ledger(Path(sys.argv[1]))
    row = begin(ledger, f"{os.getpid()}-{i}")
    print(ledger.open_test(row))
    ledger.finish(row, status="done", valid_dates=["d"] * 300, valid_returns=[0.01] * 300)
"""
    processes = [python(code, ledger) for _ in range(3)]
    answers = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], answers
    numbers = sorted(int(line) for out, _ in answers for line in out.split())
    assert numbers == list(range(1, 121))  # no two openings were told the same count
    assert Ledger(ledger.path).trials("f00d", PERIODS["valid"]).count == 120
    with sqlite3.connect(ledger.path) as connection:
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
    process = python(code, ledger)
    for line in process.stdout:
        if (last := int(line)) >= 20:
            break
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    assert trials(ledger).count >= last + 1
    assert {entry.status for entry in ledger.entries()} == {"running"}
    begin(ledger, "after")
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
        ledger_module, "MIGRATIONS", (*ledger_module.MIGRATIONS, ("ALTER TABLE runs ADD COLUMN note TEXT",))
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
    monkeypatch.setattr(ledger_module, "BUSY_SECONDS", 0.1)
    ledger = new_ledger(tmp_path)
    blocker = sqlite3.connect(ledger.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerError, match="was locked by another process"):
        begin(ledger, "aa")
    blocker.execute("ROLLBACK")
    blocker.close()
    begin(ledger, "aa")


def test_readers_do_not_wait_for_a_writer(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger_module, "BUSY_SECONDS", 0.0)
    ledger = new_ledger(tmp_path)
    begin(ledger, "aa")
    writer = sqlite3.connect(ledger.path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM runs")
    assert trials(ledger).count == 1
    writer.execute("ROLLBACK")
    writer.close()


def test_a_path_where_no_ledger_can_be_created_is_named(tmp_path):
    (tmp_path / "outputs").write_text("a file")
    with pytest.raises(LedgerError, match="cannot be made"):
        new_ledger(tmp_path)


def test_a_period_is_its_first_and_last_day_in_any_form():
    day = np.datetime64("2011-01-05T00:00", "ns")
    assert window_text((day, "2012-12-31")) == window_text(["2011-01-05", "2012-12-31"]) == "2011-01-05 to 2012-12-31"
    assert window_text("2011-01-05 to 2012-12-31") == "2011-01-05 to 2012-12-31" and window_text(None) == ""
