"""A sweep that is started twice, and trials whose workers died: each is trained once, and stays one trial."""

import json
import shutil
from pathlib import Path

import pytest

from hftraining.core.errors import Interrupted
from hftraining.experiment.run import run_experiment
from hftraining.runs.ledger import Ledger
from hftraining.runs.lock import FolderLock
from hftraining.sweep.storage import open_storage
from hftraining.sweep.trials import place_of
from tests.commands import ended, run_folder, start_train
from tests.compose import compose_config
from tests.runs_of import QUICK, edit_run_json, placed, trained

pytestmark = pytest.mark.slow  # whole runs

SMALL = ("evidence.baselines=[]", "search.patience=2", "search.first=[]", "evidence.ledger=outputs/ledger.sqlite")


@pytest.mark.slow
def test_a_sweep_started_twice_at_once_trains_and_opens_its_choice_once(folder, tmp_path):
    command = ("-m", "search=profit", *QUICK, *SMALL, f"stocks.path={folder}", "search.n_trials=2")
    both = [start_train(tmp_path, *command) for _ in range(2)]
    endings = [ended(process) for process in both]
    assert [code for code, _, _ in endings] == [0, 0], endings
    (final,) = {run_folder(out, tmp_path) for _, out, _ in endings}
    assert [path.name for path in final.parent.glob("final-*")] == [final.name]
    rows = Ledger(tmp_path / "outputs" / "ledger.sqlite").entries()
    assert [row.status for row in rows] == ["done"] * 3 and sum(row.test is not None for row in rows) == 1
    assert json.loads((final / "result.json").read_text())["test_openings"] == 1


@pytest.fixture
def killed(folder, tmp_path) -> tuple[Path, str]:
    """The folder of a trial whose worker ended after its first probe, and the fingerprint of its bars."""
    config = compose_config(*QUICK, f"stocks.path={folder}", *placed(tmp_path))

    def stop(step: int, values: dict) -> None:
        raise Interrupted("the worker ends")

    with pytest.raises(Interrupted):
        run_experiment(config, kind="sweeps", name="study", called="trial-0000", sealed=True, watch=stop)
    trial = tmp_path / "sweeps" / "study" / "trial-0000"
    return trial, json.loads((trial / "run.json").read_text())["data"]["fingerprint"]


def test_a_trial_goes_on_in_the_folder_of_its_dead_worker_and_its_pruner_sees_all_probes(killed, folder, tmp_path):
    trial, fingerprint = killed
    config = compose_config(*QUICK, f"stocks.path={folder}", *placed(tmp_path))
    called, config = place_of(trial.parent, "trial-0000", config, fingerprint)
    assert (called, config.resume) == ("trial-0000", str(trial))
    steps: list[int] = []

    def watch(step: int, values: dict) -> None:
        steps.append(step)
        assert {"eval/loss", "profit/sharpe_ratio"} <= values.keys()

    again = trained(config, kind="sweeps", name="study", called=called, sealed=True, watch=watch)
    assert steps == [3, 6] and Path(again["folder"]) == trial
    (row,) = Ledger(tmp_path / "ledger.sqlite").entries()
    assert row.status == "done" and row.resumed == 1
    steps.clear()
    assert trained(config, kind="sweeps", name="study", called=called, sealed=True, watch=watch) == again
    assert steps == [3, 6]  # finished, but not yet told to the study


@pytest.mark.parametrize("what", ["config", "code", "bars", "in use"])
def test_a_folder_of_another_config_code_or_bars_or_one_in_use_is_left_alone(killed, folder, tmp_path, what):
    trial, fingerprint = killed
    config = compose_config(*QUICK, f"stocks.path={folder}", *placed(tmp_path))
    lock = None
    if what == "config":
        config.training.learning_rate *= 2
    if what == "code":
        edit_run_json(trial, lambda facts: facts["code"].update(digest="0" * 16))
    if what == "in use":
        lock = FolderLock(trial)
    called, own = place_of(trial.parent, "trial-0000", config, "0" * 16 if what == "bars" else fingerprint)
    if lock:
        lock.release()
    assert (called, own.resume) == ("trial-0000_2", None)
    shutil.copytree(trial, trial.with_name("trial-0000_2"))
    if what == "in use":
        assert place_of(trial.parent, "trial-0000", config, fingerprint)[1].resume == str(trial)


def test_a_trial_goes_on_with_what_its_precision_auto_has_come_to(killed, folder, tmp_path):
    trial, fingerprint = killed
    config = compose_config(*QUICK, f"stocks.path={folder}", *placed(tmp_path), "training.precision=auto")
    called, own = place_of(trial.parent, "trial-0000", config, fingerprint)
    assert (called, own.resume, own.training.precision) == ("trial-0000", str(trial), "fp32")
    config.training.learning_rate *= 2
    assert place_of(trial.parent, "trial-0000", config, fingerprint)[1] == config


def test_half_a_line_at_the_end_of_a_journal_is_cut_off_before_anything_is_appended(tmp_path):
    study = open_storage("", tmp_path).create_new_study([], "study")
    journal = tmp_path / "study.journal"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 2, "study_')
    storage = open_storage("", tmp_path)
    storage.set_study_user_attr(study, "name", "value")
    assert open_storage("", tmp_path).get_study_user_attrs(study) == {"name": "value"}
    assert journal.read_bytes().startswith(whole) and b'"study_\n' not in journal.read_bytes()
