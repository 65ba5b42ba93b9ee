"""Runs that were broken off at either end, edited, or taken up twice: each as a named case of tests/crash."""

import json
import shutil
import sqlite3
from pathlib import Path

import pandas as pd
import pytest
import yaml

from hftraining.core.errors import ConfigError
from hftraining.experiment.config import load_config
from hftraining.experiment.finetune import run as run_any
from hftraining.experiment.replay import replay
from hftraining.experiment.run import run_experiment
from hftraining.market.snapshots import save_snapshot
from hftraining.runs.ledger import Ledger
from hftraining.runs.lock import FolderInUse, FolderLock
from hftraining.runs.record import RunRecord
from tests.compose import compose_config
from tests.runs_of import QUICK, edit_run_json, hashes, own_copy, own_ledger, snapshot_run, tuned_config
from tests.slowly import mostly_slow


@pytest.fixture
def done(reference, tmp_path) -> Path:
    """A copy of a finished run, alone in outputs and in their ledger: other tests repeat runs beside the first."""
    first = Path(reference["folder"])
    outputs = tmp_path / "outputs"
    folder = own_copy(first, outputs.joinpath(*first.parts[-3:]))
    shutil.copy(first.parents[2] / "ledger.sqlite", outputs)
    with sqlite3.connect(outputs / "ledger.sqlite") as connection:
        others = "(SELECT id FROM runs WHERE folder != ?)"
        for table, column in (("openings", "run_id"), ("series", "run_id"), ("runs", "id")):
            connection.execute(f"DELETE FROM {table} WHERE {column} IN {others}", (str(first),))
        connection.execute("UPDATE runs SET folder = ?", (str(folder),))
    connection.close()
    assert len(entries(folder)) == 1
    set_ledger(folder, str(outputs / "ledger.sqlite"))
    return folder


def set_ledger(folder: Path, path: str | None) -> None:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["evidence"]["ledger"] = path
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def resumed(folder: Path):
    config = load_config(folder / "config.yaml")
    config.resume = str(folder)
    return run_any(config)


def entries(folder: Path):
    return Ledger(folder.parents[2] / "ledger.sqlite").entries()


def test_a_run_that_lacks_its_report_alone_gets_it_and_nothing_else_of_it_changes(done):
    before = hashes(done)
    (done / "report.html").unlink()
    assert resumed(done).folder == done
    assert hashes(done).keys() == before.keys()
    changed = {name for name in before if hashes(done)[name] != before[name]}
    assert changed <= {"report.html", ".lock"}
    with pytest.raises(ConfigError, match="is finished: there is nothing to resume"):
        resumed(done)


def test_a_run_without_result_is_concluded_again_to_the_same_bytes_with_one_row_and_one_opening(done):
    before, rows, result = hashes(done), len(entries(done)), json.loads((done / "result.json").read_text())
    for name in ("result.json", "report.html", "equity.parquet"):
        (done / name).unlink()
    resumed(done)
    kept = {name for name in before if name.endswith((".parquet", ".safetensors"))}
    assert {name: hashes(done)[name] for name in kept} == {name: before[name] for name in kept}
    again = json.loads((done / "result.json").read_text())
    assert again.pop("warnings") and result.pop("warnings")  # they name the ledger, which was moved with the run
    assert again == result and len(entries(done)) == rows and again["test_openings"] == 1


@pytest.mark.slow
def test_a_finished_run_that_the_users_ledger_does_not_know_gets_its_row_with_its_returns(done):
    wanted = entries(done)[0]
    set_ledger(done, None)
    (done.parents[2] / "ledger.sqlite").unlink()
    resumed(done)
    (found,) = own_ledger().entries()
    assert found.status == "done" and found.uuid == wanted.uuid
    for period in ("valid", "test"):
        assert list(getattr(found, period).returns) == list(getattr(wanted, period).returns)


@pytest.mark.slow
def test_no_ledger_is_made_where_the_config_of_a_folder_that_was_handed_on_says(done, tmp_path):
    set_ledger(done, str(tmp_path / "elsewhere" / "ledger.sqlite"))
    lines: list[str] = []
    replay(done, done.parents[2], lines.append)
    assert any("your own ledger counts this repetition" in line for line in lines)
    assert own_ledger().entries()[-1].status == "done"
    (done / "result.json").unlink()
    with pytest.raises(ConfigError, match="does not exist: put it back, or take it out of"):
        resumed(done)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.slow
def test_a_run_on_a_snapshot_is_resumed_with_it_though_a_newer_one_of_the_same_request_is_stored(tmp_path):
    run = snapshot_run(tmp_path)
    snapshots = tmp_path / "outputs" / "snapshots"
    name = json.loads((run / "run.json").read_text())["data"]["snapshot"]
    raw = pd.read_parquet(snapshots / f"{name}.parquet")
    newer = save_snapshot(
        snapshots, raw.assign(volume=raw["volume"] * 2), {"symbols": ["S0", "S1"], "start": None, "end": None}
    )
    manifest = json.loads((snapshots / f"{newer}.json").read_text())
    manifest["requests"][0]["retrieved"] = "2999-01-01T00:00:00+00:00"
    (snapshots / f"{newer}.json").write_text(json.dumps(manifest))
    for missing in ("result.json", "report.html"):
        (run / missing).unlink()
    assert resumed(run).folder == run


@pytest.mark.slow
def test_a_run_killed_before_its_ledger_row_gets_one_when_it_is_resumed(folder, tmp_path, monkeypatch):
    config = compose_config(
        *QUICK, f"stocks.path={folder}", f"output_dir={tmp_path}", f"evidence.ledger={tmp_path}/ledger.sqlite"
    )

    def killed(*arguments, **settings):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "begin", killed)
        with pytest.raises(KeyboardInterrupt):
            run_experiment(config)
    (begun,) = (tmp_path / "base").glob("*/*")
    assert entries(begun) == []
    resumed(begun)
    assert [(row.status, row.resumed) for row in entries(begun)] == [("done", 0)]


def test_no_folder_of_a_run_appears_before_it_is_whole_and_what_a_failure_left_is_removed(tmp_path):
    seen: list[list[str]] = []

    def look(folder: Path) -> None:
        seen.append([path.name for path in (tmp_path / "base" / "x").glob("[!.]*")])
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError):
        RunRecord.create(tmp_path, "base", "x", {}, {}, {}, more=look)
    assert seen == [[]] and list((tmp_path / "base" / "x").iterdir()) == []


@pytest.mark.parametrize(
    ("edit", "said"),
    mostly_slow(
        [
            (lambda config: config["training"].update(learning_rate=0.5), "training.learning_rate: 0.5 now, "),
            (lambda config: config.pop("objective"), "objective.horizons: the default now, "),
            (lambda config: config.update(seed=9), "seed: 9 now, the default when it began"),
        ],
        quick=(0,),
    ),
)
@pytest.mark.slow
def test_an_edited_config_is_neither_resumed_nor_replayed_nor_tuned_from(done, edit, said):
    config = yaml.safe_load((done / "config.yaml").read_text())
    edit(config)
    (done / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError, match="is not the config that the run began with") as refused:
        replay(done, done.parents[2], lambda text: None)
    assert said in str(refused.value)
    with pytest.raises(ConfigError, match="is not the config that the run began with"):
        tuned_config(done, done.parents[2])
    (done / "result.json").unlink()
    with pytest.raises(ConfigError, match="is not the config that the run began with"):
        resumed(done)


@pytest.mark.slow
def test_an_edit_that_changes_no_number_is_the_users_own(done):
    config = yaml.safe_load((done / "config.yaml").read_text())
    config["profit_tracker"]["report_every"] = 7
    (done / "config.yaml").write_text(yaml.safe_dump(config))
    (done / "result.json").unlink()
    assert resumed(done).folder == done


@pytest.mark.slow
def test_of_two_that_resume_a_run_at_once_one_runs_and_the_other_says_who_does(done):
    (done / "result.json").unlink()
    outcomes: list[object] = []

    def attempt() -> None:
        try:
            outcomes.append(resumed(done).folder)
        except FolderInUse as refused:
            outcomes.append(str(refused))

    lock = FolderLock(done)
    before = hashes(done)
    attempt()
    assert [text for text in outcomes if "is in use by process" in str(text)] and hashes(done) == before
    lock.release()
    attempt()
    assert outcomes[1:] == [done]


@pytest.mark.slow
def test_a_sealed_trial_that_a_user_resumes_by_hand_keeps_its_test_days_sealed(folder, tmp_path):
    config = compose_config(
        *QUICK, f"stocks.path={folder}", f"output_dir={tmp_path}", f"evidence.ledger={tmp_path}/ledger.sqlite"
    )
    trial = run_experiment(config, kind="sweeps", name="study", called="trial-0000", sealed=True).folder
    (trial / "result.json").unlink()
    finished = resumed(trial)
    assert finished.result.test is None and "test" not in json.loads((trial / "result.json").read_text())
    assert entries(trial)[0].test is None
    edit_run_json(trial, lambda facts: facts.pop("sealed"))  # of a version that did not write it
    (trial / "result.json").unlink()
    assert resumed(trial).result.test is None


@pytest.mark.slow
def test_a_replay_that_was_killed_goes_on_in_its_own_folder(done, monkeypatch):
    outputs, lines = done.parents[2], list[str]()

    def killed(*arguments, **settings):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunRecord, "write_result", killed)
        with pytest.raises(KeyboardInterrupt):
            replay(done, outputs, lines.append)
    again = replay(done, outputs, lines.append)
    assert again.bits.equal and any(f"going on with {again.folder}" in line for line in lines)
    assert len(list(done.parent.iterdir())) == 2 and len(entries(done)) == 2
    (again.folder / "replay.json").unlink()  # killed after its run had ended: compared, and not made again
    assert replay(done, outputs, lines.append).folder == again.folder and len(entries(done)) == 2
    half = done.parent / ".begun-0123abcd"
    shutil.copytree(again.folder, half)  # as of a replay that was killed before its folder was whole
    (half / "replay.json").unlink()
    new = replay(done, outputs, lines.append).folder
    assert new not in (again.folder, half)  # one that was compared is never taken for the next


@pytest.mark.slow
def test_a_candidate_that_was_killed_before_its_first_checkpoint_stays_one_trial(base, tmp_path, monkeypatch):
    config = tuned_config(base, tmp_path, "training.methods=[head]")

    def killed(*arguments, **settings):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunRecord, "log", killed)
        with pytest.raises(KeyboardInterrupt):
            run_any(config)
    (begun,) = (tmp_path / "finetuned").glob("*/*")
    resumed(begun)
    rows = Ledger(tmp_path / "ledger.sqlite").entries()
    assert [row.status for row in rows] == ["done", "done"]
