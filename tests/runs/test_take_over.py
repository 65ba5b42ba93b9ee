"""A ledger that an earlier version wrote into an outputs folder is taken over, once, and nothing of it is lost."""

import json
import shutil
import sqlite3
from array import array
from contextlib import closing
from pathlib import Path

import pytest

from hftraining.runs import ledger_file, take_over
from hftraining.runs.ledger import Ledger
from hftraining.runs.ledger_file import LedgerError
from hftraining.runs.take_over import TAKEN
from tests.runs.ledgers import any_returns, begin, days, new_ledger, python

CODE = """
from hftraining.runs.take_over import take_over
ledger = Ledger(Path(sys.argv[1]))
print(take_over(ledger.path, Path(sys.argv[1]).parent / "outputs"))
"""


def old_ledger(outputs: Path, schema: int, names=("aa", "bb")) -> Path:
    """A ledger as version 1 or 2 wrote it: each run has ended and opened the test days; one more was killed."""
    outputs.mkdir(parents=True, exist_ok=True)
    path = outputs / "ledger.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        for statements in ledger_file.MIGRATIONS[:schema]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {0x68667472}")
        connection.execute(f"PRAGMA user_version = {schema}")
        for number, name in enumerate([*names, "killed"], start=1):
            ended = name != "killed"
            returns = array("d", any_returns(name)).tobytes() if ended else b""
            dates = json.dumps(days(any_returns(name)).dates if ended else [])
            windows = {"valid": "2011-01-05 to 2012-12-31", "test": "2013-01-04 to 2015-12-31"}
            row = (number, "base", "small", f"base/small/{name}", name, "f00d", '["AAPL", "MSFT"]', json.dumps(windows))
            row = (*row, *windows.values(), f"2025-01-0{number}T10:00:00+00:00", None, "done" if ended else "running")
            connection.execute(
                f"INSERT INTO runs VALUES ({', '.join('?' * 18)})",
                (*row, 0, dates, returns, 1.5 if ended else None, "{}"),
            )
            if ended:
                look = (f"{name} c0de",) if schema == 2 else ()
                connection.execute(
                    f"INSERT INTO openings VALUES ({', '.join('?' * (5 + len(look)))})",
                    (number, number, "f00d", windows["test"], "2025-01-02T10:00:00+00:00", *look),
                )
    return path


@pytest.fixture
def place(tmp_path) -> Path:
    """A folder whose outputs/ an earlier version has used, and an empty ledger beside it."""
    Ledger(tmp_path / "mine.sqlite")
    return tmp_path


def taken(place: Path, **others) -> str | None:
    return take_over.take_over(place / "mine.sqlite", place / "outputs", **others)


@pytest.mark.parametrize("schema", [1, 2])
def test_rows_days_and_openings_are_taken_over_once_and_the_old_file_is_renamed(place, schema):
    old_ledger(place / "outputs", schema)
    said = taken(place)
    assert said.startswith(f"ledger: {place / 'mine.sqlite'} took over 3 runs and 2 openings of test days of ")
    assert said.endswith(f"{place / 'outputs' / 'ledger.sqlite'}, which is now {TAKEN}") and "\n" not in said
    assert {path.name for path in (place / "outputs").iterdir()} == {TAKEN}
    assert taken(place) is None
    ledger = Ledger(place / "mine.sqlite")
    entries = ledger.entries()
    assert [entry.signature for entry in entries] == ["aa", "bb", "killed"]
    assert [entry.folder for entry in entries] == [
        place / "outputs" / "base" / "small" / name for name in ("aa", "bb", "killed")
    ]
    assert [list(entry.valid.returns) for entry in entries[:2]] == [any_returns("aa"), any_returns("bb")]
    assert entries[0].valid.benchmark is None and entries[2].valid is None and entries[0].sharpe == 1.5
    assert entries[0].started == "2025-01-01T10:00:00+00:00" and entries[0].symbols == ("AAPL", "MSFT")
    row = begin(ledger, "new", fingerprint="beef", symbols=["msft"])
    found = ledger.trials(row)
    assert found.count == 4 and len(found.sharpes_1d) == len(found.known) == 2
    assert ledger.open_test(row) == 3 and ledger.openings(row).count == 3
    assert ledger.resume(place / "outputs/base/small/killed") == 3


def test_a_row_of_schema_2_recognises_its_repetition(place):
    old_ledger(place / "outputs", 2)
    taken(place)
    ledger = Ledger(place / "mine.sqlite")
    again = begin(ledger, "aa")
    assert ledger.open_test(again) == 2
    ledger.finish(again, status="done", valid=days(any_returns("aa"), any_returns("market")))
    found = ledger.trials(again)
    assert found.count == 3 and [one.days.benchmark is None for one in found.known] == [False, True]


@pytest.mark.parametrize("killed_in", ["the copying", "between copy and new name"])
def test_a_kill_in_between_neither_loses_nor_doubles_a_row(place, monkeypatch, killed_in):
    old_ledger(place / "outputs", 1)
    with monkeypatch.context() as patch:
        if killed_in == "the copying":
            whole, calls = take_over._copied, []

            def cut_off(*arguments):
                calls.append(arguments)
                if len(calls) == 2:
                    raise KeyboardInterrupt
                return whole(*arguments)

            patch.setattr(take_over, "_copied", cut_off)
        else:

            def killed(*arguments):
                raise KeyboardInterrupt

            patch.setattr(take_over, "_renamed", killed)
        with pytest.raises(KeyboardInterrupt):
            taken(place)
    assert (place / "outputs" / "ledger.sqlite").is_file()
    assert len(Ledger(place / "mine.sqlite").entries()) == (0 if killed_in == "the copying" else 3)
    taken(place)
    ledger = Ledger(place / "mine.sqlite")
    assert len(ledger.entries()) == 3 and ledger.openings(1).count == 2
    assert {path.name for path in (place / "outputs").iterdir()} == {TAKEN}


def test_four_processes_at_once_take_over_each_row_once(place):
    old_ledger(place / "outputs", 2, names=[f"run{number}" for number in range(200)][:9])
    processes = [python(CODE, place / "mine.sqlite") for _ in range(4)]
    answers = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, answers
    assert sum("took over 10 runs and 9 openings" in out for out, _ in answers) <= 1
    ledger = Ledger(place / "mine.sqlite")
    assert len(ledger.entries()) == 10 and ledger.openings(1).count == 9
    assert {path.name for path in (place / "outputs").iterdir()} == {TAKEN}


def test_a_file_that_appears_again_is_taken_over_too_and_replaces_no_other(place):
    for names in (("aa",), ("bb", "cc")):
        old_ledger(place / "outputs", 1, names)
        taken(place)
    assert {path.name for path in (place / "outputs").iterdir()} == {TAKEN, f"{TAKEN}-2"}
    assert sorted(e.signature for e in Ledger(place / "mine.sqlite").entries()) == [
        *("aa", "bb", "cc"),
        *("killed", "killed"),  # begun at other times
    ]


def test_a_copy_of_an_outputs_folder_adds_nothing_to_the_count(place):
    old_ledger(place / "outputs", 2)
    shutil.copytree(place / "outputs", place / "copy" / "outputs")
    taken(place)
    take_over.take_over(place / "mine.sqlite", place / "copy" / "outputs")
    ledger = Ledger(place / "mine.sqlite")
    assert len(ledger.entries()) == 6 and ledger.trials(1).count == 3 and ledger.openings(1).count == 2


def test_the_ledger_in_use_is_not_taken_over_by_itself(place):
    path = old_ledger(place / "outputs", 2)
    ledger = Ledger(path)
    assert take_over.take_over(ledger.path, place / "outputs") is None and path.is_file()
    (place / "link").symlink_to(place / "outputs")
    assert take_over.take_over(ledger.path, place / "link") is None and path.is_file()
    assert ledger.entries()[0].folder == place / "outputs/base/small/aa"
    assert ledger.resume(place / "outputs/base/small/killed") == 3


def test_a_ledger_named_for_some_runs_copies_and_leaves_the_old_file_for_the_users_own(place):
    path = old_ledger(place / "outputs", 2)
    assert taken(place, keep=True).endswith(str(path)) and taken(place, keep=True) is None and path.is_file()
    users = Ledger(place / "users.sqlite")
    assert "took over 3 runs" in take_over.take_over(users.path, place / "outputs")
    assert users.trials(1).count == Ledger(place / "mine.sqlite").trials(1).count == 3


def test_a_ledger_of_this_version_at_another_path_is_taken_over_by_the_ids_of_its_runs(place):
    old = new_ledger(place)
    rows = [begin(old, name, uuid=f"u{name}") for name in ("aa", "bb")]
    old.finish(rows[0], status="done", valid=days(any_returns("aa")), test=days(any_returns("t"), any_returns("m")))
    old.open_test(rows[0])
    ledger = Ledger(place / "mine.sqlite")
    begin(ledger, "bb", uuid="ubb")  # resumed here before
    assert "took over 1 runs and 1 openings" in taken(place)
    assert sorted(str(entry.uuid) for entry in ledger.entries()) == ["uaa", "ubb"]
    (known,) = ledger.openings(1).known
    assert list(known.days.benchmark) == any_returns("m")


def test_a_damaged_old_ledger_is_named_in_one_line_and_stays(place):
    path = old_ledger(place / "outputs", 2)
    path.write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(LedgerError, match=r"outputs/ledger.sqlite is damaged") as caught:
        taken(place)
    assert "\n" not in str(caught.value) and path.is_file()
    assert Ledger(place / "mine.sqlite").entries() == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE months SET digests = 'x', first = 'x'",
        "UPDATE runs SET windows = '[1]'",
        "UPDATE runs SET windows = '{\"valid\": 5}'",
        "UPDATE runs SET name = hex(zeroblob(20000000))",
        "UPDATE runs SET name = 'a' || char(27) || ']0;PWN'",
        "UPDATE runs SET sharpe = 'abc'",
        "UPDATE series SET returns = x'00'",
        "CREATE TRIGGER more AFTER INSERT ON runs BEGIN DELETE FROM runs; END",
        "DROP TABLE runs; CREATE VIEW runs AS "
        "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) SELECT i AS id FROM r",
    ],
)
def test_a_ledger_that_no_code_of_ours_has_written_is_not_taken_over_and_breaks_nothing(place, statement):
    mine = Ledger(place / "mine.sqlite")
    begin(mine, "own", uuid="0123")
    (place / "outputs").mkdir()
    theirs = Ledger(place / "outputs" / "ledger.sqlite")
    row = begin(theirs, "aa", uuid="4567")
    theirs.finish(row, status="done", valid=days(any_returns("aa")), sharpe=1.0)
    with closing(sqlite3.connect(theirs.path)) as connection:
        connection.execute("INSERT INTO months VALUES ('f00d', 1, 1, x'0000000000000000')")
        connection.commit()
        connection.executescript(statement)
    with pytest.raises(LedgerError, match=f"{theirs.path} is (damaged|not a ledger of ours)") as refused:
        take_over.take_over(mine.path, place / "outputs")
    assert str(refused.value).isprintable() and len(str(refused.value)) < 500
    assert [entry.signature for entry in mine.entries()] == ["own"] and theirs.path.is_file()
