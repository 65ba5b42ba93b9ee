"""The folder and the journal of a sweep as data: nothing outside is written, and a damaged line is named."""

import json
import os

import pytest

from hftraining.core.errors import ConfigError, UserError
from hftraining.sweep.study import Study
from tests.sweep_study import SPACE, Synthetic, search_config


def a_study(folder, trials=2):
    from hftraining.sweep.serve import serve

    study = Study(search_config(n_trials=trials), folder)
    study.agree({"objectives": {}, "params": {}, "when": {}, "data": "ab"}, [])
    serve(study, SPACE, {}, Synthetic(folder))
    return study


@pytest.mark.parametrize("name", ["study.lock", "study.journal", "best", "best/knee.yaml"])
def test_a_link_in_the_folder_of_a_sweep_is_refused_and_its_target_keeps_its_bytes(tmp_path, name):
    victim = tmp_path / "victim"
    victim.write_text("one line without an end")
    link = tmp_path / "sweep" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(victim)
    with pytest.raises(UserError, match=link.name):
        Study(search_config(), tmp_path / "sweep")
    assert victim.read_text() == "one line without an end"


@pytest.mark.parametrize("name", ["study.journal", "study.lock"])
def test_a_pipe_in_the_folder_of_a_sweep_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(ConfigError, match="neither a file nor a folder"):
        Study(search_config(), tmp_path)


@pytest.mark.parametrize(
    "line", ["[1,2]", "null", "{}", '{"op_code":99,"worker_id":"a"}', '{"op_code":"x","worker_id":"a"}', "[" * 100_000]
)
def test_a_damaged_line_of_a_journal_is_refused_by_the_name_of_the_journal(tmp_path, line):
    a_study(tmp_path)
    with open(tmp_path / "study.journal", "a") as journal:
        journal.write(line + "\n")
    with pytest.raises(ConfigError, match=r"study\.journal is damaged"):
        Study(search_config(), tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("facts", [1]),
        ("facts", {"folders": ["../../../etc"]}),
        ("facts", {"folders": 5}),
        ("facts", {"steps": "x"}),
        ("owner", [1]),
        ("owner", {"x": 1}),
        ("owner", {"host": "a", "worker": "../b", "attempt": 1}),
        ("reports", {"eval/loss": {"x": 1.0}}),
        ("alive", "now"),
    ],
)
def test_an_attribute_of_a_trial_that_no_sweep_writes_is_refused(tmp_path, name, value):
    study = a_study(tmp_path)
    study.storage.create_new_trial(study.study._study_id)
    study.storage.set_trial_user_attr(study.study.trials[-1]._trial_id, name, value)
    with pytest.raises(ConfigError, match=r"study\.journal is damaged \(trial 2"):
        Study(search_config(), tmp_path)


def test_a_folder_of_locks_that_others_may_write_into_is_refused(tmp_path):
    locks = a_study(tmp_path).locks
    locks.chmod(0o777)
    with pytest.raises(ConfigError, match="is not a folder of yours alone"):
        Study(search_config(), tmp_path)
    locks.chmod(0o700)
    (locks / "claim.lock").unlink()
    (locks / "claim.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError):
        Study(search_config(), tmp_path)
    assert not (tmp_path / "victim").exists()
    assert json.loads((tmp_path / "study.journal").read_text().splitlines()[0])
