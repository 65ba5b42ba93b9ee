"""No other way to name, cut or place the same data begins N or the openings again: whole runs, one ledger a user."""

import json
import shutil
import sqlite3
from pathlib import Path

import pandas as pd
import pytest

from hftraining.evidence.config import EvidenceConfig
from hftraining.experiment import run as running
from hftraining.experiment.config import load_config
from hftraining.runs import identity
from hftraining.runs.code_version import code_version
from hftraining.runs.ledger import Ledger
from hftraining.runs.ledger_file import LedgerError
from hftraining.runs.take_over import TAKEN
from tests.bars_of import make_bars, write_csv_files
from tests.commands import ended, run_folder, start_train, train_here
from tests.compose import compose_config
from tests.runs.test_take_over import old_ledger
from tests.runs_of import FAST, QUICK, any_kind, own_copy, own_ledger, trained

pytestmark = pytest.mark.slow  # whole runs

LEARNER = tuple(
    text for text in QUICK if not text.startswith(("model", "training.batch", "training.warmup", "evidence"))
)
SMALL = ("model=ridge", *LEARNER, *FAST, "evidence.baselines=[]", "profit_tracker.every=100")


def counted(bars: Path, outputs: Path, *overrides: str) -> dict:
    """A small run that the user's own ledger counts."""
    return trained(compose_config(*SMALL, f"stocks.path={bars}", f"output_dir={outputs}", *overrides))


def counts(result: dict) -> tuple[int, int]:
    return result["n_trials"], result["test_openings"]


@pytest.fixture(scope="module")
def bars(tmp_path_factory) -> Path:
    return write_csv_files(make_bars(n_sessions=500, n_symbols=5, seed=3), tmp_path_factory.mktemp("bars"))


@pytest.fixture(scope="module")
def before(bars, tmp_path_factory) -> Path:
    """The state folder of a user with two trials, each of which has opened the test days."""
    home = tmp_path_factory.mktemp("before")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(home / "state"))
        assert [counts(counted(bars, home / "outputs", f"seed={seed}")) for seed in (1, 2)] == [(1, 1), (2, 2)]
    return home


@pytest.fixture
def user(before, state) -> Path:
    """That user's state folder, as a copy for one test."""
    shutil.copytree(before / "state" / "hftraining", state)
    return state


def renamed(bars: Path, to: Path) -> Path:
    for number, path in enumerate(sorted(bars.glob("*.csv"))):
        shutil.copy(path, to / f"OTHER{number}.csv")
    return to


def scaled(bars: Path, to: Path) -> Path:
    for number, path in enumerate(sorted(bars.glob("*.csv"))):
        frame = pd.read_csv(path)
        frame[["open", "high", "low", "close"]] *= 0.37
        frame.to_csv(to / f"OTHER{number}.csv", index=False)
    return to


def grown(bars: Path, to: Path) -> Path:
    """The snapshot of a month before: without the last 20 sessions."""
    for path in bars.glob("*.csv"):
        pd.read_csv(path).iloc[:-20].to_csv(to / path.name, index=False)
    return to


def lower_case(bars: Path, to: Path) -> Path:
    for path in bars.glob("*.csv"):
        shutil.copy(path, to / path.name.lower())
    return to


@pytest.mark.parametrize(
    "overrides",
    [
        "objective.horizons=[1,10]",
        "profit_tracker.lag=2",
        "stocks.test_start=2016-08-31",
        "stocks.valid_start=2016-05-04",
        "stocks.end=2016-11-29",
        "stocks.start=2015-01-05",
        "stocks.symbols=[S0,S1,S2,S4]",
        "stocks.symbols=[S4,S2,S0,S1,S3]",
        "stocks.symbols=[S3] training.symbols_per_window=1",
        "output_dir={}/elsewhere",
    ],
)
def test_another_description_of_the_data_is_one_more_trial_and_one_more_opening(user, bars, tmp_path, overrides):
    result = counted(bars, tmp_path / "outputs", "seed=3", *overrides.format(tmp_path).split())
    assert counts(result) == (3, 3)


@pytest.mark.parametrize("change", [renamed, scaled, grown, lower_case])
def test_other_files_of_the_same_bars_are_one_more_trial_and_one_more_opening(user, bars, tmp_path, change):
    (tmp_path / "files").mkdir()
    assert counts(counted(change(bars, tmp_path / "files"), tmp_path / "outputs", "seed=3")) == (3, 3)


def test_the_same_config_on_the_same_bars_at_another_path_is_nothing_new(user, bars, tmp_path):
    moved = own_copy(bars, tmp_path / "moved")
    assert counts(counted(moved, tmp_path / "outputs", "seed=1")) == (2, 2)


def test_test_days_that_become_validation_days_are_counted_and_said_to_be_seen(user, bars, tmp_path):
    later = ("stocks.valid_start=2016-09-20", "stocks.test_start=2016-11-01")
    result = counted(bars, tmp_path / "outputs", "seed=3", *later)
    assert counts(result) == (3, 3)
    assert any(
        "2 of the 3 trials opened test days that are validation days here" in text for text in result["warnings"]
    )


def test_validation_days_that_become_test_days_are_said_to_be_no_first_look(user, bars, tmp_path):
    earlier = ("stocks.valid_start=2015-10-01", "stocks.test_start=2016-05-02", "stocks.end=2016-08-05")
    result = counted(bars, tmp_path / "outputs", "seed=3", *earlier)
    assert counts(result) == (1, 1)
    assert any("no first look: 2 trials had some of them as validation days" in text for text in result["warnings"])


def test_runs_that_were_killed_count_by_their_code(user, bars, tmp_path, monkeypatch):
    def broken(*arguments, **settings):
        raise RuntimeError("killed after a look at the probes")

    monkeypatch.setattr(running, "fit", broken)
    for digest in ("c1", "c1", "c2", "c3"):
        monkeypatch.setattr(identity, "code_version", lambda digest=digest: code_version() | {"digest": digest})
        with pytest.raises(RuntimeError):
            counted(bars, tmp_path / "outputs", "seed=3")
    monkeypatch.undo()
    monkeypatch.setenv("XDG_STATE_HOME", str(user.parent))
    assert counts(counted(bars, tmp_path / "outputs", "seed=4")) == (6, 3)


@pytest.mark.slow
@pytest.mark.parametrize("several", [2, pytest.param(4, marks=pytest.mark.long)])
def test_runs_at_once_are_as_many_trials(user, bars, tmp_path, several):
    shared, seeds = (*SMALL, f"stocks.path={bars}"), range(3, 3 + several)
    runs = [start_train(tmp_path, *shared, f"seed={seed}", f"output_dir=outputs{seed}") for seed in seeds]
    results = []
    for code, out, err in map(ended, runs):
        assert code == 0, err
        results.append(json.loads((run_folder(out, tmp_path) / "result.json").read_text()))
    assert sorted(result["test_openings"] for result in results) == [*seeds]
    row = own_ledger().entries()[-1].id
    assert own_ledger().trials(row).count == own_ledger().openings(row).count == 2 + several


# --- where the ledger lies --------------------------------------------------------------------------------------------


def test_the_ledger_keeps_what_a_run_and_its_benchmark_earned_a_day(user, before):
    for entry in own_ledger().entries():
        equity = pd.read_parquet(entry.folder / "equity.parquet")
        for window, found in (("valid", entry.valid), ("test", entry.test)):
            curves = equity[equity["window"] == window].set_index("date")[["equity", "buy_and_hold"]]
            expected = curves.pct_change().iloc[1:]
            assert list(found.dates) == [str(day.date()) for day in expected.index]
            assert list(found.returns) == pytest.approx(expected["equity"].tolist(), abs=1e-12)
            assert list(found.benchmark) == pytest.approx(expected["buy_and_hold"].tolist(), abs=1e-12)
    rows = [entry.id for entry in own_ledger().entries()]
    assert len(own_ledger().trials(rows[0]).known) == len(own_ledger().openings(rows[0]).known) == 2


def test_a_ledger_by_name_counts_by_itself_and_only_there(user, bars, tmp_path):
    named = f"evidence.ledger={tmp_path}/of/a/paper.sqlite"
    assert counts(counted(bars, tmp_path / "outputs", "seed=3", named)) == (1, 1)
    assert len(Ledger(tmp_path / "of" / "a" / "paper.sqlite").entries()) == 1 and len(own_ledger().entries()) == 2
    assert counts(counted(bars, tmp_path / "outputs", "seed=4")) == (3, 3)


def test_a_run_says_which_ledger_counts_it(user, bars, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = counted(bars, tmp_path / "outputs", "seed=3")
    named = counted(bars, tmp_path / "outputs", "seed=3", "evidence.ledger=paper.sqlite")
    paths = [json.loads((Path(result["folder"]) / "run.json").read_text())["ledger"] for result in (own, named)]
    assert paths == [str(user / "ledger.sqlite"), str(tmp_path / "paper.sqlite")]
    said = f"trials and openings are counted in {tmp_path}/paper.sqlite alone (evidence.ledger)"
    assert said in named["warnings"] and not any("evidence.ledger" in text for text in own["warnings"])
    assert load_config(Path(named["folder"]) / "config.yaml").evidence.ledger == str(tmp_path / "paper.sqlite")


@pytest.mark.parametrize("obstacle", ["a file", "a folder"])
def test_a_state_folder_that_cannot_be_used_ends_the_run_in_one_line_before_it_begins(bars, tmp_path, state, obstacle):
    if obstacle == "a file":
        state.parent.mkdir(parents=True)
        state.write_text("in the way")
    else:
        (state / "ledger.sqlite").mkdir(parents=True)
    code, _, err = train_here(tmp_path, *SMALL, f"stocks.path={bars}")
    assert code == 2 and "evidence.ledger=PATH names another place" in err and err.count("\n") == 1, err
    assert str(state / "ledger.sqlite") in err and not (tmp_path / "outputs").exists()


def test_an_empty_name_of_a_ledger_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"evidence.ledger is empty: name a file"):
        EvidenceConfig(ledger="")


def test_the_ledger_of_an_earlier_version_is_taken_over_when_a_run_begins(bars, tmp_path, capsys):
    old_ledger(tmp_path / "outputs", 2)
    with sqlite3.connect(tmp_path / "outputs" / "ledger.sqlite") as connection:
        connection.execute("""UPDATE runs SET symbols = '["S1", "QQ"]', valid_window = '2016-05-02 to 2016-08-01'""")
    connection.close()
    result = counted(bars, tmp_path / "outputs")
    assert "took over 3 runs and 2 openings of test days" in capsys.readouterr().out
    assert counts(result) == (4, 1)  # their test days are others
    assert (tmp_path / "outputs" / TAKEN).is_file() and not (tmp_path / "outputs" / "ledger.sqlite").exists()
    counted(bars, tmp_path / "outputs", "seed=2")
    assert "took over" not in capsys.readouterr().out


# --- resuming ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def interrupted(bars, tmp_path, monkeypatch) -> Path:
    """The folder of a run that an exception ended."""

    def broken(*arguments, **settings):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(running, "fit", broken)
        with pytest.raises(RuntimeError):
            counted(bars, tmp_path / "outputs")
    return next((tmp_path / "outputs" / "base").glob("*/*"))


def resumed(folder: Path) -> dict:
    config = load_config(folder / "config.yaml")
    config.resume = str(folder)
    return any_kind(config)


def test_a_run_is_resumed_in_its_row_wherever_its_folder_lies_now(interrupted, tmp_path):
    (tmp_path / "outputs").rename(tmp_path / "archive")
    moved = tmp_path / "archive" / interrupted.relative_to(tmp_path / "outputs")
    assert counts(resumed(moved)) == (1, 1)
    (entry,) = own_ledger().entries()
    assert (entry.status, entry.resumed, entry.folder) == ("done", 1, moved)
    assert entry.uuid == json.loads((moved / "run.json").read_text())["id"]


def test_a_run_and_its_copy_are_one_trial(interrupted, tmp_path):
    copy = own_copy(interrupted, interrupted.with_name("copy"))
    assert [counts(resumed(path)) for path in (interrupted, copy)] == [(1, 1), (1, 1)]
    (entry,) = own_ledger().entries()
    assert (entry.status, entry.resumed, entry.folder) == ("done", 2, interrupted)


def test_a_run_of_another_users_ledger_is_resumed_in_a_new_row(interrupted, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))
    assert counts(resumed(interrupted)) == (1, 1)
    (entry,) = own_ledger().entries()
    assert (entry.status, entry.resumed, entry.signature) == (
        *("done", 0),
        json.loads((interrupted / "run.json").read_text())["signature"],
    )


def test_a_run_of_an_earlier_version_is_resumed_in_the_row_of_its_folder(interrupted, tmp_path):
    path = interrupted / "run.json"
    facts = json.loads(path.read_text())
    del facts["id"]
    path.write_text(json.dumps(facts))
    with sqlite3.connect(own_ledger().path) as connection:
        connection.execute("UPDATE runs SET uuid = NULL")
    connection.close()
    assert counts(resumed(interrupted)) == (1, 1)
    (entry,) = own_ledger().entries()
    assert (entry.status, entry.resumed) == ("done", 1)


def test_a_ledger_that_is_none_is_named_with_its_path(bars, tmp_path):
    (tmp_path / "notes.txt").write_text("no ledger, but long enough to be looked at" * 100)
    with pytest.raises(LedgerError, match=r"notes.txt is damaged"):
        counted(bars, tmp_path / "outputs", f"evidence.ledger={tmp_path}/notes.txt")
