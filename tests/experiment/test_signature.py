"""The signature of the real config tree: what changes it, what must not, and runs that prove it."""

import dataclasses
import json
import shutil
import signal
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hftraining.core.errors import Interrupted
from hftraining.core.values import flatten
from hftraining.experiment.config import ExperimentConfig, load_config, typed_config
from hftraining.market import kept, kept_bars
from hftraining.market.features import cache
from hftraining.reports.console import Console
from hftraining.runs.identity import CANNOT_CHANGE_A_NUMBER, cannot_change_a_number, config_delta, signature
from tests.commands import ROOT, python
from tests.compose import CONF, compose_config
from tests.effects import EFFECT
from tests.runs_of import fingerprint, own_copy, run, snapshot_run, trained, tune

pytestmark = pytest.mark.slow  # two runs a test

DEFAULTS = dataclasses.asdict(typed_config({}))


def signed(config: ExperimentConfig | dict) -> str:
    values = dataclasses.asdict(config) if isinstance(config, ExperimentConfig) else config
    return signature(config_delta(values, DEFAULTS))


def with_field(name: str, value) -> dict:
    values = {key: dict(part) if isinstance(part, dict) else part for key, part in DEFAULTS.items()}
    *groups, field = name.split(".")
    part = values
    for group in groups:
        part[group] = dict(part[group])
        part = part[group]
    part[field] = value
    return values


def another(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return [*value, "another"] if isinstance(value, list) else f"{value or ''}another"


@pytest.mark.parametrize("name", flatten(DEFAULTS))
def test_changing_a_field_changes_the_signature_unless_it_is_listed_as_unable_to_change_a_number(name):
    changed = signed(with_field(name, another(flatten(DEFAULTS)[name])))
    assert (changed == signed(DEFAULTS)) == cannot_change_a_number(name)


def test_every_pattern_of_the_list_matches_a_field():
    for pattern in CANNOT_CHANGE_A_NUMBER:
        assert any(fnmatchcase(name, pattern) for name in flatten(DEFAULTS)), pattern


# The test that shows equal weights for a field left out of the signature; the runs of EFFECT show it for the rest.
SHOWN_HERE = {
    "output_dir": "test_where_the_outputs_go_changes_no_bit",
    "training.engine": "test_what_starts_the_processes_changes_no_bit",
    "walk_forward.workers": "test_workers_that_share_the_folds_change_no_bit",
    "profit_tracker.report_every": "test_how_often_the_report_is_printed_changes_no_bit",
    "stocks.calendar": "test_naming_gaps_by_another_calendar_changes_no_bit",
    "features.cache": "test_features_from_the_cache_change_no_bit",
    "stocks.cache": "test_bars_from_the_cache_change_no_bit",
    "stocks.path": "test_where_the_bars_lie_changes_no_bit",
    "stocks.snapshots": "test_where_snapshots_are_kept_changes_no_bit",
    "evidence.ledger": "test_where_trials_are_counted_changes_no_bit",
    "resume": "test_resuming_after_an_interruption_changes_no_bit",
    "init_from": "test_the_path_of_a_base_changes_no_bit_of_its_fine_tunes",
}
ONLY_REASONED = {"training.device"}  # it takes a CUDA device to show that it does change the last bits


def test_every_field_left_out_of_the_signature_has_a_test_that_shows_equal_weights():
    without_effect = {"folder", "metrics", "config.yaml"}  # for these test_experiment.py holds the weights to be equal
    shown = {key.split("=")[0] for key, effect in EFFECT.items() if effect in without_effect}
    left_out = {name for name in flatten(DEFAULTS) if cannot_change_a_number(name)}
    assert left_out - shown - ONLY_REASONED == set(SHOWN_HERE)
    assert all(test in globals() for test in SHOWN_HERE.values())


def test_where_the_outputs_go_changes_no_bit(folder, reference, tmp_path):
    assert fingerprint(run(folder, tmp_path / "quite" / "elsewhere")) == fingerprint(reference)


def test_where_the_bars_lie_changes_no_bit(folder, reference, tmp_path):
    elsewhere = own_copy(folder, tmp_path / "other" / "bars")
    assert fingerprint(run(elsewhere, tmp_path / "out")) == fingerprint(reference)


def test_features_from_the_cache_change_no_bit(folder, reference, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "LEAST_VALUES", 1)
    monkeypatch.setattr(kept, "user_cache_path", lambda name: tmp_path / "cache" / name)
    run(folder, tmp_path / "off", "features.cache=false")
    assert not (tmp_path / "cache").exists()
    for name in ("made", "kept"):
        assert fingerprint(run(folder, tmp_path / name)) == fingerprint(reference)
        assert (tmp_path / "cache" / "hftraining" / "features").is_dir()


def test_bars_from_the_cache_change_no_bit(folder, reference, tmp_path, monkeypatch):
    monkeypatch.setattr(kept_bars, "LEAST_BYTES", 1)
    monkeypatch.setattr(kept_bars, "COARSEST_CLOCK", 0)
    monkeypatch.setattr(kept, "user_cache_path", lambda name: tmp_path / "cache" / name)
    run(folder, tmp_path / "off", "stocks.cache=false")
    assert not (tmp_path / "cache").exists()
    for name in ("made", "kept"):
        assert fingerprint(run(folder, tmp_path / name)) == fingerprint(reference)
        assert len(list((tmp_path / "cache" / "hftraining" / "bars").glob("*.bin"))) == 1


def test_naming_gaps_by_another_calendar_changes_no_bit(folder, reference, tmp_path):
    again = run(folder, tmp_path, "stocks.calendar=XTKS")
    assert fingerprint(again) == fingerprint(reference)
    assert again["signature"] == reference["signature"]
    named = [warning for warning in again["warnings"] if "no sessions of XTKS" in warning]
    assert named and not set(named) & set(reference["warnings"])


def test_where_trials_are_counted_changes_no_bit(folder, reference, tmp_path):
    again = run(folder, tmp_path / "out", f"evidence.ledger={tmp_path}/counted/here.sqlite")
    assert fingerprint(again) == fingerprint(reference)
    assert again["signature"] == reference["signature"]
    assert (tmp_path / "counted" / "here.sqlite").is_file() and not (tmp_path / "out" / "ledger.sqlite").exists()


def test_how_often_the_report_is_printed_changes_no_bit(folder, reference, tmp_path):
    assert fingerprint(run(folder, tmp_path, "profit_tracker.report_every=3")) == fingerprint(reference)


@pytest.mark.long  # tests/experiment/test_walk_forward.py kills two workers, and comes to the bytes of one
def test_workers_that_share_the_folds_change_no_bit(folder, tmp_path):
    """On the same threads, which training.threads sets."""
    one, two = (run(folder, tmp_path / str(n), "walk_forward=35", f"walk_forward.workers={n}") for n in (1, 2))
    assert fingerprint(one) == fingerprint(two) and len(one["folds"]) == 4
    assert one["signature"] == two["signature"]
    names = [path.relative_to(one["folder"]) for path in Path(one["folder"]).glob("folds/*/forecast.safetensors")]
    assert len(names) == 4
    for name in names:
        assert (Path(one["folder"]) / name).read_bytes() == (Path(two["folder"]) / name).read_bytes()
    holders = {path.read_text() for path in Path(two["folder"]).glob("folds/*/.lock")}
    assert len(holders) == 4, "each fold was trained in a process of its own"


def test_the_path_of_a_base_changes_no_bit_of_its_fine_tunes(base, tmp_path):
    moved = shutil.copytree(base, tmp_path / "moved" / "base")
    runs = [
        Path(tune(place, tmp_path / name, "training.methods=[full]")["folder"])
        for name, place in (("here", base), ("there", moved))
    ]
    files = [(run / "candidates" / "full" / "model" / "model.safetensors").read_bytes() for run in runs]
    signatures = [json.loads((run / "run.json").read_text())["signature"] for run in runs]
    assert files[0] == files[1] and signatures[0] == signatures[1]


def test_resuming_after_an_interruption_changes_no_bit(folder, reference, tmp_path, monkeypatch):
    def stop_at_3(self, step, *shown, **more):
        if step == 3:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Console, "step", stop_at_3)
    with pytest.raises(Interrupted):
        run(folder, tmp_path)
    monkeypatch.undo()
    (path,) = tmp_path.glob("base/*/*")
    config = load_config(path / "config.yaml")
    config.resume = str(path)
    assert signed(config) == signed(load_config(path / "config.yaml"))
    assert fingerprint(trained(config)) == fingerprint(reference)


def test_where_snapshots_are_kept_changes_no_bit(tmp_path):
    path = snapshot_run(tmp_path)
    shutil.move(tmp_path / "outputs" / "snapshots", tmp_path / "elsewhere")
    config = load_config(path / "config.yaml")
    config.stocks.snapshots = str(tmp_path / "elsewhere")
    other = trained(config)
    first = {"folder": str(path), "test": {}}
    assert fingerprint(first)["weights"] == fingerprint(other)["weights"]
    assert fingerprint(first)["equity"] == fingerprint(other)["equity"]


POOL = {
    "model.hidden_size": [32, 64, 128],
    "model.dropout": [0.2, 0.0, 0.35],
    "training.learning_rate": [3e-4, 1e-3],
    "training.max_steps": [500, 12],
    "training.precision": ["fp32", "bf16"],
    "training.compile": [False, True],
    "stocks.symbols": [[], ["AAPL", "MSFT"]],
    "objective.horizons": [[5, 20], [1, 3]],
    "objective.relative": ["auto", "mean"],
    "profit_tracker.commission": [0.001, 0.0, 0.002],
    "portfolio.kind": ["auto", "top"],
    "evidence.baselines": [["momentum", "momentum_top", "trend", "reversal", "ridge"], []],
    "seed": [1, 2, 3],
}


@st.composite
def settings_of_a_run(draw):
    """Some fields with values, in two orders; each field comes from the command line or from a file."""
    names = draw(st.lists(st.sampled_from(sorted(POOL)), unique=True))
    values = {name: draw(st.sampled_from(POOL[name])) for name in names}
    in_file = draw(st.sets(st.sampled_from(names))) if names else set()
    return values, in_file, draw(st.permutations(names))


def text_of(name, value) -> str:
    return f"{name}={yaml.safe_dump(value, default_flow_style=True, width=1000).splitlines()[0].replace(' ', '')}"


def composed(overrides, searchpath: Path | None = None) -> ExperimentConfig:
    more = [f"hydra.searchpath=[file://{searchpath}]"] if searchpath else []
    return compose_config(*more, *overrides)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(settings_of_a_run())
def test_neither_the_order_of_overrides_nor_the_way_of_giving_a_value_changes_the_signature(tmp_path, drawn):
    values, in_file, other_order = drawn
    expected = signed(composed([text_of(name, value) for name, value in values.items()]))
    nested: dict = {}
    for name in in_file:
        group, _, field = name.rpartition(".")
        (nested.setdefault(group, {}) if group else nested)[field] = values[name]
    (tmp_path / "experiment").mkdir(exist_ok=True)
    (tmp_path / "experiment" / "drawn.yaml").write_text("# @package _global_\n" + yaml.safe_dump(nested))
    given_on_the_line = [text_of(name, values[name]) for name in other_order if name not in in_file]
    assert signed(composed([*given_on_the_line, "experiment=drawn"], tmp_path)) == expected
    # A spelled-out default changes nothing; another value does.
    same = {name: value for name, value in values.items() if value == POOL[name][0] and name != "model.hidden_size"}
    assert signed(composed([text_of(name, value) for name, value in same.items()])) == signed(DEFAULTS)


def test_a_group_file_and_its_values_spelled_out_have_one_signature():
    tiny = ("model.hidden_size=32", "model.num_layers=2", "model.num_heads=2", "model.context=32")
    assert signed(composed(["model=tiny"])) == signed(composed(tiny)) != signed(DEFAULTS)


@pytest.mark.parametrize("path", sorted((CONF / "experiment").glob("*.yaml")), ids=lambda path: path.stem)
def test_an_experiment_composes_names_its_runs_and_says_how_it_was_run_and_what_it_showed(path):
    config = compose_config(f"experiment={path.stem}")
    assert config.name == path.stem and signed(config) != signed(DEFAULTS)
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert head[0] == "# @package _global_" and head[1].startswith(f"# python train.py -m experiment={path.stem} seed=")
    assert any(line.startswith("# Showed ") for line in head)


def test_the_command_line_comes_after_an_experiment_which_comes_after_the_groups():
    assert compose_config("experiment=tiny_model").model.hidden_size == 32
    assert compose_config("experiment=tiny_model", "model.hidden_size=16").model.hidden_size == 16


def test_the_machine_does_not_change_the_signature(tmp_path):
    code = (
        "import dataclasses\nfrom hftraining.experiment.config import typed_config\n"
        "from hftraining.runs.identity import config_delta, signature\nfrom tests.compose import compose_config\n"
        "config = compose_config('model=tiny', 'stocks.symbols=[MSFT,AAPL]', 'training.learning_rate=1e-3')\n"
        "defaults = dataclasses.asdict(typed_config({}))\n"
        "print(signature(config_delta(dataclasses.asdict(config), defaults)))"
    )
    machines = (
        {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1", "TZ": "Asia/Tokyo", "LC_ALL": "C"},
        {"PYTHONHASHSEED": "2", "OMP_NUM_THREADS": "7", "TZ": "America/New_York", "CUDA_VISIBLE_DEVICES": ""},
    )
    answers = [python("-c", code, cwd=tmp_path, PYTHONPATH=str(ROOT), **machine) for machine in machines]
    found = {out.strip() for _, out, _ in answers}
    here = signed(compose_config("training.learning_rate=0.001", "model=tiny", "stocks.symbols=[MSFT,AAPL]"))
    assert found == {here}


@pytest.mark.slow
@pytest.mark.long
def test_what_starts_the_processes_changes_no_bit(folder, tmp_path):
    pytest.importorskip("ray")
    two = ("training.processes=2", "training.batch_size=6")
    here, there = (run(folder, tmp_path / name, *two, f"training.engine={name}") for name in ("local", "ray"))
    assert fingerprint(here) == fingerprint(there) and here["signature"] == there["signature"]
