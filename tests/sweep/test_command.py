"""`python train.py -m search=profit` as a user runs it: from the command line to the chosen configuration."""

import json
import os
import re
import signal
import subprocess
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
import yaml

from hftraining.core.errors import ConfigError
from hftraining.experiment.compose import Composer
from hftraining.experiment.config import typed_config
from hftraining.experiment.inherit import signature_of
from hftraining.market.prices import load_bars
from hftraining.reports.format import typeset
from hftraining.reports.words import LEGEND
from hftraining.runs.ledger import Ledger
from hftraining.sweep.space import parse_space, points_of_grid
from hftraining.sweep.trials import folds_of
from tests.browser import drawn, needs_browser
from tests.commands import ended, run_folder, start_train, train, train_here, wait_for
from tests.compose import CONF, compose_config
from tests.slowly import mostly_slow

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "model=tiny",
    "stocks=sample5",
    "training.max_steps=20",
    "training.window=48",
    "training.threads=1",
    "profit_tracker.every=5",
    "evidence.baselines=[trend]",
    "evidence.null_draws=100",
    "evidence.bootstrap_draws=100",
    "evidence.leak_days=1",
    "evidence.ledger=outputs/ledger.sqlite",  # of the working folder: the sweep of this module is made once
)
CANARY = "canary-5f1e"


def sweep(folder, *overrides, by=train_here, **environment):
    return by(folder, "-m", "search=profit", *SMALL, *overrides, A_SECRET=CANARY, **environment)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A small sweep: its working folder and its output."""
    base = tmp_path_factory.mktemp("sweep")
    code, out, err = sweep(base, "hydra.sweeper.n_trials=7", "search.patience=2")
    assert (code, err) == (0, "")
    return base, out


@pytest.fixture(scope="module")
def study_folder(swept):
    return swept[0] / "outputs" / "sweeps" / "profit-sample5"


@pytest.mark.slow
def test_a_sweep_ends_with_a_run_of_the_chosen_configuration(swept, study_folder):
    base, out = swept
    run = run_folder(out, base)
    result, summary = (
        json.loads((run / "result.json").read_text()),
        json.loads((study_folder / "sweep.json").read_text()),
    )
    assert summary["verdict"] == result["verdict"] and summary["test_openings"] == result["test_openings"] == 1
    assert summary["n_trials"] == result["n_trials"] == 7  # the choice was one of the seven
    trials = pd.read_parquet(study_folder / "trials.parquet")
    assert len(trials) == 7 and set(trials["state"]) <= {"complete", "pruned"}
    chosen = trials.set_index("number").loc[summary["chosen"]["trial"]]
    assert chosen["signature"] == result["signature"]
    assert chosen["eval/loss"] == pytest.approx(result["eval"]["loss"])
    assert summary["money"].startswith(result["test"]["money"].removesuffix(".") + " (")
    page = (study_folder / "sweep.html").read_text()
    headline = typeset(result["test"]["money"].removesuffix("."))
    assert page.index(f'id="headline">{headline}') < page.index('id="verdict"') < page.index('class="lede"')
    assert "Chance that luck does as well, p" in page  # the same evidence as in the report
    assert summary["steps"]["trained"] == trials["steps"].sum() <= summary["steps"]["unpruned"] == 7 * 20


@pytest.mark.slow
def test_no_trial_has_seen_a_test_day(study_folder):
    trials = sorted(study_folder.glob("trial-*"))
    assert len(trials) == 7
    for folder in trials:
        if (folder / "result.json").exists():
            assert "test" not in json.loads((folder / "result.json").read_text())
            assert set(pd.read_parquet(folder / "equity.parquet")["window"]) == {"valid"}
    ledger = Ledger(study_folder.parents[1] / "ledger.sqlite")
    opened = [entry for entry in ledger.entries() if entry.test_window]
    assert [entry.folder.name.startswith("final-") for entry in opened] == [True]


@pytest.mark.slow
def test_the_same_command_again_finds_the_study_full_and_does_not_open_the_test_days_again(swept, study_folder):
    before = (study_folder / "sweep.json").read_text()
    code, out, err = sweep(swept[0], "hydra.sweeper.n_trials=7", "search.patience=2", by=train)
    assert code == 0, err
    assert "trial 0" not in out and (study_folder / "sweep.json").read_text() == before
    assert len(list(study_folder.glob("trial-*"))) == 7


@pytest.mark.slow
def test_another_fixed_part_or_objective_is_refused_with_the_difference(swept):
    code, _, err = sweep(swept[0], "hydra.sweeper.n_trials=7", "objective.horizons=[1,5]")
    assert code == 2 and "fixed.objective.horizons: [1, 5] where the study has absent" in err
    code, _, err = sweep(swept[0], "hydra.sweeper.n_trials=7", "search.seeds=[1,2]")
    assert code == 2 and "seeds: [1, 2] where the study has [1]" in err and err.count("\n") == 1


@pytest.mark.slow
def test_a_best_file_composes_to_the_trial_and_trains_to_its_weights(swept, study_folder):
    base, _ = swept
    summary = json.loads((study_folder / "sweep.json").read_text())
    trial = study_folder / f"trial-{summary['chosen']['trial']:04d}"
    best = f"+best={study_folder / 'best' / 'knee.yaml'}"
    code, out, err = train_here(base, "training.log_every=3", best, "name=again")
    assert code == 0, err
    again = run_folder(out, base)
    signatures = [json.loads((run / "run.json").read_text())["signature"] for run in (trial, again)]
    assert signatures[0] == signatures[1]
    assert yaml.safe_load((again / "config_diff.yaml").read_text())["training.patience"] == 2  # the search's own value
    assert (trial / "model" / "model.safetensors").read_bytes() == (again / "model" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_no_secret_reaches_a_file_of_a_sweep(swept):
    for path in (swept[0] / "outputs").rglob("*"):
        assert not path.is_file() or CANARY.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("overrides", "part"),
    mostly_slow(
        [
            (("search.sampler=cma",), "search.sampler=cma is not one of"),
            (("model=tiny,smal",), "model=smal is not one of"),
            (("training.learnin_rate=1,2",), "did you mean training.learning_rate"),
            (("seed=1,2",), "seed cannot be searched"),
            (("model=linear",), "not linear: model.dropout=0.2 searches it no more"),
            (("model=tiny,linear",), "+search.when={model.dropout: model!=linear}"),
            (("search.workers=2",), "hydra/launcher=joblib"),
            (("training.learning_rate=interval(3,1)",), "needs a lower end"),
            (("search.first=[{training.learning_rate:5.0}]",), "lies outside"),
            (("search.sampler=grid",), "is not a choice or a range"),
            (("search.storage=nonsense://x",), "search.storage=nonsense://x"),
            (("search.storage=",), "search.storage= is empty: give a value, or leave it out"),
            (("hydra.sweeper.n_trials=0",), "search.n_trials=0 must be at least 1"),
            (("search.samplr=gp",), "did you mean search.sampler?"),
            (("search.constraints={profit/costs: '<= 2000'}",), "+search.constraints="),
        ],
        quick=(2, 4, 12),
    ),
)
def test_a_sweep_that_cannot_run_ends_in_one_line_and_writes_nothing(tmp_path, overrides, part):
    code, _, err = sweep(tmp_path, *overrides)
    assert (code, err.count("\n")) == (2, 1) and part in err, err
    assert not list(tmp_path.rglob("trial-*"))


def test_a_storage_of_a_variable_that_is_set_to_nothing_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_URL", " ")
    code, _, err = sweep(tmp_path, "search.storage=${oc.env:STUDY_URL}")
    assert code == 2 and err.startswith("error: search.storage refers to an empty value, and each machine"), err
    assert not (tmp_path / "sweeps").exists()


def test_a_search_without_m_and_a_size_without_a_search_are_refused(tmp_path):
    for arguments, part in (
        (["search=profit"], "python train.py -m"),
        (["-m", "seed=1,2", "hydra.sweeper.n_trials=3"], "choose one with search=profit"),
    ):
        code, _, err = train_here(tmp_path, *arguments)
        assert code == 2 and part in err, err


@pytest.mark.slow
def test_a_plain_multirun_ends_with_a_table_of_configurations_over_seeds(tmp_path):
    few = ("training.max_steps=5", "stocks.symbols=[AAPL,MSFT]", "training.symbols_per_window=2")
    code, out, err = train_here(tmp_path, *SMALL, *few, "seed=1,2", "-m", "model.dropout=0.1,0.2")
    assert code == 0, err
    table = out[out.index("configurations, mean +- spread over seeds") :]
    assert table.index("test return") < table.index("verdict (test days)") < table.index("Buy and hold: ")
    assert table.count("+-") > 6 and "dropout=0.1" in table and "4 times" in table
    lines = table[: table.index("Buy and hold: ")].splitlines()
    assert len(lines) == 4, table  # the title, the heads, a line for each
    alarms = [json.loads((tmp_path / json.loads(line)["folder"] / "result.json").read_text())["valid"]["alarms"]
              for listing in (tmp_path / "outputs" / "sweeps" / "multirun").glob("*/runs.jsonl")
              for line in listing.read_text().splitlines()]  # fmt: skip
    assert (LEGEND in table) >= any(alarms) and (LEGEND in table) == ("(!)" in lines[2] + lines[3])
    (listed,) = (tmp_path / "outputs" / "sweeps" / "multirun").glob("*/runs.jsonl")
    assert len(listed.read_text().splitlines()) == 4


@pytest.mark.slow
@pytest.mark.long
def test_folds_and_seeds_are_runs_of_their_own_and_one_trial(tmp_path):
    code, _, err = sweep(
        tmp_path, "hydra.sweeper.n_trials=3", "search.folds=3", "search.seeds=[1,2]", "search.pruner=none"
    )
    folder = tmp_path / "outputs" / "sweeps" / "profit-sample5"
    assert code == 0 or "meets search.constraints" in err, err
    names = {path.name for path in folder.glob("trial-0000-*")}
    assert names == {f"trial-0000-fold{fold}-seed{seed}" for fold in (1, 2, 3) for seed in (1, 2)}
    losses = [json.loads((folder / name / "result.json").read_text())["eval"]["loss"] for name in names]
    trials = pd.read_parquet(folder / "trials.parquet").set_index("number")
    assert trials.loc[0, "eval/loss"] == pytest.approx(sum(losses) / 6)
    whole = [e for e in Ledger(tmp_path / "outputs" / "ledger.sqlite").entries() if e.folder.name == "trial-0000"]
    assert len(whole) == 1 and len(whole[0].valid.returns) > 400 and len(whole[0].valid.benchmark) > 400
    counted = [json.loads(path.read_text())["n_trials"] for path in folder.glob("trial-*/result.json")]
    assert max(counted) == 3, "a trial of six parts counts once"


@pytest.mark.slow
@pytest.mark.long
def test_two_workers_at_once_survive_the_death_of_one(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    process = start_train(
        tmp_path,
        *("-m", "search=profit", *SMALL, "training.max_steps=100"),
        *("hydra.sweeper.n_trials=6", "search.workers=2", "hydra/launcher=joblib"),
    )
    folder = tmp_path / "outputs" / "sweeps" / "profit-sample5"
    wait_for(lambda: len(list(folder.glob("trial-*/metrics.jsonl"))) >= 2, process)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    workers = [pid for pid in children if b"LokyProcess" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(int(workers[0]), signal.SIGKILL)
    code, _, err = ended(process)
    assert code == 0 or "meets search.constraints" in err, err
    assert "a worker died" in err
    trials = pd.read_parquet(folder / "trials.parquet")
    assert sorted(trials["number"]) == list(range(6)) and set(trials["state"]) <= {"complete", "pruned"}


@pytest.mark.slow
@pytest.mark.long
def test_a_sweep_on_a_local_ray_completes(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    code, _, err = sweep(tmp_path, "hydra.sweeper.n_trials=3", "search.workers=2", "hydra/launcher=ray", by=train)
    # With so few trials and steps it may be that none trades enough: the sweep then says so, and keeps its trials.
    assert code == 0 or "meets search.constraints" in err, err[-2000:]
    assert len(pd.read_parquet(tmp_path / "outputs" / "sweeps" / "profit-sample5" / "trials.parquet")) == 3


@pytest.mark.slow
@needs_browser
def test_a_browser_draws_the_page_of_a_sweep_without_an_error(tmp_path, study_folder):
    document = drawn(study_folder / "sweep.html", tmp_path)
    charts = re.findall(r'<div class="chart[^"]*" id="([\w-]+)"', document)
    assert {"front-chart", "history-chart-0", "parallel-chart"} <= {name for name in charts}
    assert document.count("main-svg") >= len(charts)
    assert document[document.index('id="trials"') :].count("<tr>") == 8


def test_a_point_gives_the_config_that_its_command_line_composes():
    composer = Composer(["training=default", "training.batch_size=8"])
    point = {"model": "tiny", "objective": "profit", "training.learning_rate": 0.001, "objective.horizons": [1, 5]}
    assert composer.config(point) == compose_config(*composer.overrides(point))


def test_a_point_with_a_field_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match=r"did you mean training\.learning_rate"):
        Composer().config({"training.learnin_rate": 1.0})


def test_hydras_sweep_syntax_becomes_parameters():
    texts = {
        "a": "interval(0.0, 1.0)",
        "b": "int(tag(log, interval(1, 64)))",
        "c": "range(1, 8, 2)",
        "d": "choice(x, 3, [1, 2])",
        "e": "x,y",
    }
    space = {param.name: param for param in parse_space(texts, {})}
    assert (space["a"].low, space["a"].high, space["a"].whole) == (0.0, 1.0, False)
    assert (space["b"].low, space["b"].high, space["b"].log, space["b"].whole) == (1, 64, True, True)
    assert space["c"].grid() == [1, 3, 5, 7]  # a range ends before its stop
    assert list(space["d"].choices.values()) == ["x", 3, [1, 2]]
    assert space["e"].grid() == ["x", "y"]


def test_a_grid_has_every_point_once_without_parameters_whose_conditions_fail():
    space = parse_space({"depth": "range(1, 4)", "kind": "choice(a, b)"}, {"depth": "kind=b"})
    assert [param.name for param in space] == ["kind", "depth"]  # what a condition names comes first
    assert points_of_grid(space, {}) == [{"kind": "a"}, *({"kind": "b", "depth": depth} for depth in (1, 2, 3))]


def test_conditions_that_form_a_circle_are_refused():
    with pytest.raises(ConfigError, match="circle"):
        parse_space({"a": "1,2", "b": "1,2"}, {"a": "b=1", "b": "a=1"})


def test_walk_forward_folds_cut_the_validation_days_and_train_on_all_before(tmp_path):
    config = compose_config("stocks=sample5")
    bars = load_bars(config.stocks)
    whole, folds = config.stocks, folds_of(config, 4)
    assert folds_of(config, 1) == [whole]
    borders = [fold.valid_start for fold in folds] + [folds[-1].test_start]
    rows = [int((bars.sessions_T < pd.Timestamp(day).to_datetime64()).sum()) for day in borders]
    n = len(bars.sessions_T)
    assert rows[0] == int(0.7 * n) and rows[-1] == int(0.85 * n)
    lengths = [b - a for a, b in pairwise(rows)]
    assert max(lengths) - min(lengths) <= 1
    assert all(a.test_start == b.valid_start for a, b in pairwise(folds))


def test_the_default_search_names_fields_that_exist():
    search = yaml.safe_load((CONF / "search" / "profit.yaml").read_text())["search"]
    for name in search["params"]:
        group, field = name.split(".")
        assert hasattr(getattr(typed_config({}), group), field), name
    assert signature_of(typed_config({})) == signature_of(compose_config())


@pytest.mark.slow
def test_the_metric_that_chooses_and_the_seeds_of_the_choice_take_effect_and_one_seed_opens_the_test_days(tmp_path):
    code, _, err = sweep(
        tmp_path,
        *("training.max_steps=40", "profit_tracker.every=10", "hydra.sweeper.n_trials=3"),
        *("search.choose=eval/loss", "search.final_seeds=2"),
    )
    assert code == 0, err
    folder = tmp_path / "outputs" / "sweeps" / "profit-sample5"
    summary = json.loads((folder / "sweep.json").read_text())
    trials = pd.read_parquet(folder / "trials.parquet").query("feasible")
    assert summary["chosen"]["trial"] == trials.loc[trials["eval/loss"].idxmin(), "number"]
    assert len(summary["runs"]) == 2 and summary["test_openings"] == 1
    first, second = (json.loads((tmp_path / run / "result.json").read_text()) for run in summary["runs"])
    assert "test" in first and "test" not in second
