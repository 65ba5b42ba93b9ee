"""The identity of a run: what differs from the defaults, its signature, and where it ran."""

import json
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftraining.runs.identity import code_version, config_delta, library_versions, manifest, signature

DEFAULTS = {
    "seed": 0,
    "init_from": None,
    "model": {"name": "small", "hidden_size": 64},
    "stocks": {"symbols": [], "snapshots": "outputs/snapshots"},
    "training": {"learning_rate": 1e-3, "device": "cpu", "log_every": 10, "threads": 0},
    "profit_tracker": {"report_every": 500, "allow_short": True},
}


def signed(changes: dict) -> str:
    config = {key: dict(value) if isinstance(value, dict) else value for key, value in DEFAULTS.items()}
    for name, value in changes.items():
        group, _, field = name.rpartition(".")
        (config[group] if group else config)[field] = value
    return signature(config_delta(config, DEFAULTS))


def test_the_delta_names_what_differs_and_nothing_else():
    config = DEFAULTS | {"seed": 3, "model": {"name": "wide", "hidden_size": 128}}
    delta = config_delta(config, DEFAULTS)
    assert delta == {"model.hidden_size": 128, "model.name": "wide", "seed": 3}
    assert list(delta) == sorted(delta)
    assert config_delta(DEFAULTS, DEFAULTS) == {}


def test_a_missing_field_is_null_and_a_truth_is_not_a_number():
    assert config_delta({"a": None}, {}) == {}
    assert config_delta({}, {"a": 5}) == {"a": None}
    assert config_delta({"a": True}, {"a": 1}) == {"a": True}
    assert config_delta({"a": "1"}, {"a": 1}) == {"a": "1"}


def test_the_spelling_of_a_value_does_not_matter():
    assert config_delta({"a": 1.0, "b": (1, 2), "c": np.int64(3)}, {"a": 1, "b": [1.0, 2], "c": 3}) == {}
    assert signed({"seed": 3}) == signed({"seed": 3.0})
    assert signed({"stocks.symbols": ("A", "B")}) == signed({"stocks.symbols": ["A", "B"]})
    assert signed({"stocks.symbols": ["A", "B"]}) != signed({"stocks.symbols": ["B", "A"]})


def test_a_signature_is_eight_hex_digits_and_stays_what_it_was():
    assert signature({}) == "bf21a9e8"  # sha1 of {}
    assert signature({"seed": 3}) != signature({"seed": 4}) != signature({})


@pytest.mark.parametrize(
    "change",
    [
        {"model.name": "other"},
        {"training.device": "cuda"},
        {"training.log_every": 1},
        {"profit_tracker.report_every": 7},
        {"stocks.snapshots": "/elsewhere"},
        {"resume": "outputs/single/x"},
        {"init_from": "outputs/base/x"},  # what it is counts: tests/test_finetuning.py
        {"output_dir": "elsewhere"},
    ],
)
def test_what_cannot_change_a_number_does_not_change_the_signature(change):
    assert signed(change) == signed({})
    assert signed(change | {"seed": 1}) == signed({"seed": 1})


@pytest.mark.parametrize(
    "change",
    [
        {"model.hidden_size": 128},
        {"training.learning_rate": 1.0000001e-3},
        {"training.threads": 1},
        {"profit_tracker.allow_short": False},
        {"stocks.symbols": ["A"]},
    ],
)
def test_what_can_change_a_number_changes_the_signature(change):
    assert signed(change) != signed({})


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers())


@given(st.dictionaries(st.text(min_size=1), VALUES), st.randoms())
def test_the_order_of_overrides_does_not_change_the_signature(delta, random):
    items = list(delta.items())
    random.shuffle(items)
    assert signature(dict(items)) == signature(delta)


def some_manifest() -> dict:
    return manifest(
        signature="0123abcd",
        seed=7,
        threads=2,
        fingerprint="ab" * 8,
        source="sample",
        symbols=("AAPL", "MSFT"),
        first="2001-01-02",
        last="2015-12-31",
        argv=["train.py", "seed=7"],
    )


def test_the_manifest_is_json_and_names_code_data_and_machine():
    found = json.loads(json.dumps(some_manifest()))
    assert found["data"] == {
        "fingerprint": "ab" * 8,
        "source": "sample",
        "symbols": ["AAPL", "MSFT"],
        "first": "2001-01-02",
        "last": "2015-12-31",
    }
    assert found["argv"] == ["train.py", "seed=7"]
    assert found["versions"]["numpy"] == np.__version__
    assert set(found["code"]) == {"commit", "dirty"}


def test_the_manifest_holds_no_environment_variable(monkeypatch):
    monkeypatch.setenv("BROKER_KEY", "canary-5d1f")
    assert "canary-5d1f" not in json.dumps(some_manifest())


def test_the_versions_cover_what_can_change_a_number():
    assert {"torch", "numpy", "pandas", "numba", "hydra-core"} <= set(library_versions())


def test_the_code_is_dirty_when_a_source_file_differs_from_the_commit(tmp_path):
    def git(*arguments: str) -> None:
        who = ("-c", "user.name=t", "-c", "user.email=t@example.com")
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True)

    tree = tmp_path.resolve()
    assert code_version(tree) == {"commit": None, "dirty": None}
    git("init")
    (tree / "code.py").write_text("a = 1\n")
    assert code_version(tree) == {"commit": None, "dirty": True}
    git("add", ".")
    git("commit", "-m", "first")
    clean = code_version(tree)
    assert clean["dirty"] is False and len(clean["commit"]) == 40
    (tree / "notes.txt").write_text("not code")
    assert code_version(tree) == clean
    (tree / "code.py").write_text("a = 2\n")
    assert code_version(tree) == clean | {"dirty": True}
    (tree / "inner").mkdir()
    assert code_version(tree / "inner") == {"commit": None, "dirty": None}
