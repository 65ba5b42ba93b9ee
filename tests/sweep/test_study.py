"""The study: it counts its trials correctly through failures, kills and interruptions."""

import random
import time

import optuna
import pytest
from optuna.trial import TrialState

from hftraining.core.errors import ConfigError
from hftraining.sweep.conclusion import choose, pareto_front
from hftraining.sweep.config import violation
from hftraining.sweep.serve import FAILING, FULL, INTERRUPTED, serve
from hftraining.sweep.study import Study
from tests.commands import ROOT, ended, start
from tests.sweep_study import OBJECTIVES, SPACE, Synthetic, metrics_at, search_config

OTHER_SAMPLERS = ("gp", "nsga2", "random", "qmc")  # than the default


def worker(folder, url="", n_trials=20, seconds=0.02):
    return start("-m", "tests.sweep_study", folder, url, n_trials, seconds, cwd=ROOT)


def finish(process):
    code, out, err = ended(process)
    assert code == 0 and FULL in out, err
    return out


def states(study):
    return [trial.state for trial in study.study.get_trials(deepcopy=False)]


@pytest.mark.slow
def test_a_hundred_trials_end_though_a_tenth_of_them_raise_and_a_tenth_have_no_number(tmp_path):
    study = Study(search_config(n_trials=100), tmp_path)
    failing, nan = set(range(3, 100, 10)), set(range(7, 100, 10))
    assert serve(study, SPACE, {}, Synthetic(tmp_path, failing=failing, nan=nan)) == FULL
    trials = study.trials()
    assert [t.number for t in trials] == list(range(100))
    assert {t.number for t in trials if t.state == TrialState.FAIL} == failing
    assert {t.number for t in trials if t.state == TrialState.PRUNED} == nan
    assert sum(t.state == TrialState.COMPLETE for t in trials) == 80
    failed = trials[3].user_attrs["facts"]
    assert failed["reason"] == "ValueError: trial 3 was told to fail" and "Traceback" in failed["traceback"]
    assert trials[7].user_attrs["facts"]["reason"] == "profit/sharpe_ratio is not finite"
    # No point of a strictly falling curve dominates another: all points that keep the constraint are on the front.
    able = {t.number for t in trials if t.state == TrialState.COMPLETE and t.params["x"] >= 0.2}
    assert {t.number for t in pareto_front(trials, study.search)} == able
    for trial in trials:
        if trial.state == TrialState.COMPLETE:
            known = metrics_at(trial.params["x"])
            assert trial.values == [known["eval/loss"], known["profit/sharpe_ratio"]]
            assert ("edge" in trial.params) == (trial.params["kind"] == "square")


def test_the_knee_lies_between_the_ends_and_a_metric_chooses_an_end(tmp_path):
    study = Study(search_config(n_trials=60), tmp_path)
    serve(study, SPACE, {}, Synthetic(tmp_path))
    front = pareto_front(study.trials(), study.search)
    by_x = sorted(front, key=lambda trial: trial.params["x"])
    assert choose(front, study.search, "eval/loss") == by_x[-1]
    assert choose(front, study.search, "profit/sharpe_ratio") == by_x[0]
    knee = choose(front, study.search, "knee").params["x"]
    assert by_x[0].params["x"] < knee < by_x[-1].params["x"]


@pytest.mark.parametrize("sampler", ["tpe", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHER_SAMPLERS)])
@pytest.mark.parametrize("pruner", ["median", "hyperband", "none"])
def test_every_sampler_goes_with_every_pruner_on_two_objectives(tmp_path, sampler, pruner):
    def run(number, point, watch, facts):
        for step in range(1, 6):
            watch(step, {"eval/loss": (1.0 - point["x"]) * (1.0 + 1.0 / step)})
        return metrics_at(point["x"])

    n_trials = 12 if sampler == "gp" else 24  # its first ten points are random, each further one takes a second
    search = search_config(n_trials=n_trials, sampler=sampler, pruner=pruner, prune_on=["eval/loss"])
    study = Study(search, tmp_path)
    assert serve(study, SPACE, {}, run) == FULL
    assert TrialState.FAIL not in states(study), [t.user_attrs["facts"] for t in study.failures()]
    assert states(study).count(TrialState.COMPLETE) >= 5
    assert (TrialState.PRUNED in states(study)) == (pruner != "none")


def test_a_pruned_trial_is_worse_than_the_median_of_those_before_it(tmp_path):
    def run(number, point, watch, facts):
        watch(1, {"eval/loss": float(number)})
        return metrics_at(0.5)

    study = Study(search_config(n_trials=8, pruner="median", patience=4, prune_on=["eval/loss"]), tmp_path)
    serve(study, SPACE, {}, run)
    assert states(study) == [TrialState.COMPLETE] * 4 + [TrialState.PRUNED] * 4
    assert "median pruner" in study.trials()[5].user_attrs["facts"]["reason"]


def test_folds_that_agree_prune_a_trial_by_wilcoxon(tmp_path):
    def run(number, point, watch, facts):
        for fold in range(1, 7):
            watch(fold, {"eval/loss": fold + (2.0 if number == 1 else 0.0)})
        return metrics_at(0.5) | {"eval/loss": 3.5}

    search = search_config(n_trials=2, pruner="wilcoxon", folds=6, patience=4, prune_on=["eval/loss"])
    study = Study(search, tmp_path)
    serve(study, SPACE, {}, run)
    assert states(study) == [TrialState.COMPLETE, TrialState.PRUNED]


def test_an_interrupted_study_that_is_resumed_tries_the_same_points(tmp_path):
    whole = Study(search_config(n_trials=16, sampler="tpe"), tmp_path / "whole")
    serve(whole, SPACE, {}, Synthetic(tmp_path))
    first = Study(search_config(n_trials=7, sampler="tpe"), tmp_path / "parts")
    serve(first, SPACE, {}, Synthetic(tmp_path))
    again = Study(search_config(n_trials=16, sampler="tpe"), tmp_path / "parts")
    serve(again, SPACE, {}, Synthetic(tmp_path))
    assert [t.params for t in again.trials()] == [t.params for t in whole.trials()]


def test_an_interrupted_trial_waits_and_is_repeated_under_its_number(tmp_path):
    def stopped(number, point, watch, facts):
        if number == 2:
            raise KeyboardInterrupt
        return metrics_at(point["x"])

    study = Study(search_config(n_trials=5), tmp_path)
    assert serve(study, SPACE, {}, stopped) == INTERRUPTED
    assert states(study) == [TrialState.COMPLETE] * 2 + [TrialState.WAITING]
    assert serve(study, SPACE, {}, Synthetic(tmp_path)) == FULL
    assert states(study) == [TrialState.COMPLETE] * 5


def test_too_many_failures_stop_the_sweep(tmp_path):
    study = Study(search_config(n_trials=20, max_failures=3), tmp_path)
    assert serve(study, SPACE, {}, Synthetic(tmp_path, failing=range(20))) == FAILING
    assert states(study) == [TrialState.FAIL] * 4


def test_the_first_points_are_tried_first_and_once(tmp_path):
    point = {"x": 0.25, "kind": "square", "edge": 2}
    for _ in range(2):
        study = Study(search_config(n_trials=3), tmp_path)
        study.agree({"a": 1}, [point])
    serve(study, SPACE, {}, Synthetic(tmp_path))
    assert [t.params == point for t in study.trials()] == [True, False, False]


def test_another_definition_of_the_same_study_is_refused_with_the_difference(tmp_path):
    study = Study(search_config(), tmp_path)
    study.agree({"objectives": OBJECTIVES, "fixed": {"model.context": 32}}, [])
    with pytest.raises(ConfigError, match=r"fixed.model.context: 64 where the study has 32"):
        study.agree({"objectives": OBJECTIVES, "fixed": {"model.context": 64}}, [])


@pytest.mark.slow
def test_a_worker_killed_twice_in_one_trial_fails_it_and_not_the_others(tmp_path):
    for _ in range(2):
        process = worker(tmp_path, n_trials=3, seconds=60)
        log = tmp_path / "runs.txt"
        begun = log.read_text().count("begin 0") if log.exists() else 0
        while not log.exists() or log.read_text().count("begin 0") == begun:
            time.sleep(0.05)
            assert process.poll() is None, process.communicate()
        process.kill()
        process.communicate()
    finish(worker(tmp_path, n_trials=3))
    study = Study(search_config(n_trials=3), tmp_path)
    assert states(study) == [TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    assert study.trials()[0].user_attrs["facts"]["reason"] == "its worker died 2 times"


def killed_often(folder, url, kills, n_trials):
    """Run two workers, kill one or both at random moments, and start both again each time."""
    rng, log = random.Random(5), folder / "runs.txt"

    def begun():
        return log.read_text().count("begin") if log.exists() else 0

    for kill in range(kills):
        before = begun()
        workers = [worker(folder, url, n_trials, 0.05) for _ in range(2)]
        while begun() < before + 2:
            assert all(process.poll() is None for process in workers), [process.communicate() for process in workers]
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 0.3))
        first, second = workers
        first.kill()
        if kill % 2:  # the other one works alone for a while
            first.wait()
            time.sleep(rng.uniform(0.0, 0.3))
        second.kill()
        for process in workers:
            process.communicate()
    finish(worker(folder, url, n_trials, 0.0))


@pytest.mark.slow
def test_twenty_kills_at_random_moments_leave_exactly_n_trials_and_none_counted_twice(tmp_path):
    killed_often(tmp_path, "", 20, 160)
    study = Study(search_config(n_trials=160), tmp_path)
    trials = study.study.get_trials(deepcopy=False)
    assert [t.number for t in trials] == list(range(160)) and all(t.state.is_finished() for t in trials)
    lines = (tmp_path / "runs.txt").read_text().splitlines()
    failed = {t.number for t in trials if t.state == TrialState.FAIL}
    assert all(t.user_attrs["facts"]["reason"] == "its worker died 2 times" for t in trials if t.number in failed)
    for trial in trials:
        begun, ended = lines.count(f"begin {trial.number}"), lines.count(f"end {trial.number}")
        # A trial was repeated only if its worker died, at most twice, and is complete only if a run ended.
        assert 1 <= begun <= 2 or trial.number in failed
        assert trial.number in failed or ended >= 1
    assert sum(t.user_attrs["owner"]["attempt"] > 1 for t in trials) > 0


@pytest.mark.slow
def test_two_workers_on_one_sqlite_file_share_the_trials(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    workers = [worker(tmp_path, url, 16, 0.1) for _ in range(2)]
    for process in workers:
        finish(process)
    assert states(Study(search_config(url, 16), tmp_path)) == [TrialState.COMPLETE] * 16
    lines = (tmp_path / "runs.txt").read_text().splitlines()
    assert sorted(lines) == sorted(f"{what} {number}" for what in ("begin", "end") for number in range(16))


@pytest.mark.slow
def test_two_processes_that_start_at_once_on_an_empty_postgresql_share_one_study(tmp_path, postgres):
    workers = [worker(tmp_path, postgres, 30, 0.1) for _ in range(2)]
    for process in workers:
        finish(process)
    assert states(Study(search_config(postgres, 30), tmp_path)) == [TrialState.COMPLETE] * 30
    lines = (tmp_path / "runs.txt").read_text().splitlines()
    assert sorted(lines) == sorted(f"{what} {number}" for what in ("begin", "end") for number in range(30))


def test_a_storage_that_cannot_be_used_is_named_without_its_password(tmp_path):
    pytest.importorskip("psycopg")
    with pytest.raises(ConfigError) as caught:
        Study(search_config("postgresql://me:hunter2@127.0.0.1:1/none"), tmp_path)
    assert "127.0.0.1:1" in str(caught.value) and "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"objectives": {"eval/los": "minimize"}}, "eval/los is not one of"),
        ({"objectives": {"eval/loss": "lower"}}, "search.objectives: eval/loss=lower is not one of minimize, maximize"),
        ({"constraints": {"profit/costs": "< 3"}}, "is not like"),
        ({"sampler": "cma"}, "search.sampler=cma is not one of"),
        ({"pruner": "wilcoxon"}, "too few to tell trials apart"),
        ({"prune_on": ["profit/costs"]}, "profit/costs is not one of eval/loss, profit/sharpe_ratio"),
        ({"pruner": "median", "objectives": {"profit/costs": "minimize"}}, "no objective is probed"),
        ({"seeds": [1, 1]}, "different numbers"),
        ({"n_trials": 0}, "at least 1"),
        ({"name": "../x"}, "plain folder name"),
        ({"choose": "profit/costs"}, "search.choose=profit/costs"),
    ],
)
def test_a_search_that_cannot_run_is_refused_with_the_value_that_is_wrong(values, part):
    with pytest.raises(ValueError, match=part.replace("(", r"\(")):
        search_config(**values)


def test_a_violation_is_the_distance_beyond_the_bound():
    assert violation(">= 20", 15) == 5 and violation(">= 20", 25) == -5 and violation("<= 0.5", 0.75) == 0.25


def test_optuna_itself_reads_the_study(tmp_path):
    study = Study(search_config(n_trials=3), tmp_path)
    serve(study, SPACE, {}, Synthetic(tmp_path))
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.journal"))
    plain = optuna.load_study(study_name="synthetic", storage=optuna.storages.JournalStorage(backend))
    assert len(plain.trials) == 3 and len(plain.best_trials) >= 1


def test_the_seed_of_a_search_decides_which_points_are_tried(tmp_path):
    def points(seed, folder):
        study = Study(search_config(n_trials=4, seed=seed), tmp_path / folder)
        serve(study, SPACE, {}, Synthetic(tmp_path))
        return [trial.params for trial in study.trials()]

    assert points(1, "a") == points(1, "b") != points(2, "c")


def test_a_study_prunes_on_the_named_objective(tmp_path):
    def run(number, point, watch, facts):
        watch(1, {"profit/sharpe_ratio": float(number)})
        return metrics_at(0.5)

    study = Study(search_config(n_trials=6, pruner="median", patience=3, prune_on=["profit/sharpe_ratio"]), tmp_path)
    serve(study, SPACE, {}, run)
    assert states(study) == [TrialState.COMPLETE] * 6  # rising is better here


def test_a_trial_is_pruned_only_if_it_is_worse_in_every_objective(tmp_path):
    reached = [(1.0, 1.0), (2.0, 2.0), (3.0, 3.0), (0.5, 0.5), (9.0, 9.0), (9.0, 0.1), (0.2, 9.0)]  # loss, Sharpe

    def run(number, point, watch, facts):
        watch(1, dict(zip(OBJECTIVES, reached[number], strict=True)))
        return metrics_at(0.5)

    study = Study(search_config(n_trials=7, pruner="median", patience=3), tmp_path)
    serve(study, SPACE, {}, run)
    assert [t.number for t in study.trials() if t.state == TrialState.PRUNED] == [5]
    assert (
        study.trials()[5]
        .user_attrs["facts"]["reason"]
        .startswith("eval/loss of 9.0000 and profit/sharpe_ratio of 0.1000 at report 1")
    )


def test_a_repeated_trial_is_not_judged_by_the_reports_of_its_dead_worker(tmp_path):
    study = Study(search_config(n_trials=1), tmp_path)
    with study.working():
        study.report(study.claim(1), 5, {"eval/loss": 7.0})
    with study.working():
        trial = study.claim(1)
        assert trial.number == 0 and trial.user_attrs["reports"] == {}
