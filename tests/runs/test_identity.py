"""The identity of a run: its delta from the defaults, its signature, and where it ran."""

import json
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftraining.runs.code_version import PATCH_BYTES, code_patch, code_version, source_digest
from hftraining.runs.environment import environment, library_versions, numerics
from hftraining.runs.identity import config_delta, manifest, signature

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


def test_the_delta_holds_exactly_the_fields_that_differ():
    config = DEFAULTS | {"seed": 3, "model": {"name": "wide", "hidden_size": 128}}
    delta = config_delta(config, DEFAULTS)
    assert delta == {"model.hidden_size": 128, "model.name": "wide", "seed": 3}
    assert list(delta) == sorted(delta)
    assert config_delta(DEFAULTS, DEFAULTS) == {}


def test_a_missing_field_equals_null_and_true_is_not_one():
    assert config_delta({"a": None}, {}) == {}
    assert config_delta({}, {"a": 5}) == {"a": None}
    assert config_delta({"a": True}, {"a": 1}) == {"a": True}
    assert config_delta({"a": "1"}, {"a": 1}) == {"a": "1"}


def test_the_spelling_of_a_value_does_not_matter():
    assert config_delta({"a": 1.0, "b": (1, 2), "c": np.int64(3)}, {"a": 1, "b": [1.0, 2], "c": 3}) == {}
    assert signed({"seed": 3}) == signed({"seed": 3.0})
    assert signed({"stocks.symbols": ("A", "B")}) == signed({"stocks.symbols": ["A", "B"]})
    assert signed({"stocks.symbols": ["A", "B"]}) != signed({"stocks.symbols": ["B", "A"]})


def test_a_signature_is_eight_hex_digits_and_never_changes():
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
        {"init_from": "outputs/base/x"},  # what it is counts: tests/experiment/test_finetuning.py
        {"output_dir": "elsewhere"},
    ],
)
def test_a_field_that_cannot_change_a_number_does_not_change_the_signature(change):
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
def test_a_field_that_can_change_a_number_changes_the_signature(change):
    assert signed(change) != signed({})


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers())


@pytest.mark.slow
@given(st.dictionaries(st.text(min_size=1), VALUES), st.randoms())
def test_the_order_of_overrides_does_not_change_the_signature(delta, random):
    items = list(delta.items())
    random.shuffle(items)
    assert signature(dict(items)) == signature(delta)


DATA = {"fingerprint": "ab" * 8, "source": "sample", "symbols": ["AAPL", "MSFT"], "snapshot": "cd" * 8}


def some_manifest() -> dict:
    return manifest(signature="0123abcd", seed=7, threads=2, data=DATA, argv=["train.py", "seed=7"])


def test_the_manifest_is_json_and_names_code_data_and_machine():
    found = json.loads(json.dumps(some_manifest()))
    assert found["data"] == DATA
    assert found["argv"] == ["train.py", "seed=7"]
    assert found["versions"]["numpy"] == np.__version__
    assert set(found["code"]) == {"commit", "dirty", "digest", "patch"}


def test_the_manifest_holds_no_environment_variable(monkeypatch):
    monkeypatch.setenv("BROKER_KEY", "canary-5d1f")
    assert "canary-5d1f" not in json.dumps(some_manifest())


def test_the_versions_cover_the_libraries_that_can_change_a_number():
    assert {"torch", "numpy", "pandas", "numba", "hydra-core"} <= set(library_versions())


def test_the_environment_records_what_can_change_the_last_bit():
    import torch

    found = environment()
    assert found["numerics"]["vector_unit"] == torch.backends.cpu.get_cpu_capability()
    assert found["numerics"]["threads"] == torch.get_num_threads()
    assert set(numerics()) == {"vector_unit", "threads", "cuda", "mkl", "onednn", "numpy_blas"}
    assert json.loads(json.dumps(found)) == found and "flags" in found["cpu"]


@pytest.fixture
def tree(tmp_path):
    """A checkout with one commit of some sources, and `git` to change it."""

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=t", "-c", "user.email=t@example.com")
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True)

    tree = tmp_path.resolve()
    assert code_version(tree)["commit"] is None and code_version(tree)["dirty"] is None
    assert code_patch(tree) == (b"", None)
    (tree / "hftraining" / "trading").mkdir(parents=True)
    (tree / "hftraining" / "trading" / "code.py").write_text("a = 1\n")
    (tree / "conf").mkdir()
    (tree / "conf" / "config.yaml").write_text("seed: 1\n")
    git("init")
    assert code_version(tree) == {"commit": None, "dirty": True, "digest": source_digest(tree)}
    git("add", ".")
    git("commit", "-m", "first")
    return tree


def test_the_code_is_dirty_when_a_source_file_differs_from_the_commit(tree):
    clean = code_version(tree)
    assert clean["dirty"] is False and len(clean["commit"]) == 40
    (tree / "notes.py").write_text("not what a run is made by")
    assert code_version(tree) == clean and code_patch(tree) == (b"", None)
    (tree / "hftraining" / "trading" / "code.py").write_text("a = 2\n")
    changed = code_version(tree)
    assert changed["dirty"] is True and changed["commit"] == clean["commit"] and changed["digest"] != clean["digest"]
    assert code_version(tree / "hftraining")["commit"] is None


def test_commit_plus_patch_is_the_code_that_ran(tree, tmp_path_factory):
    (tree / "hftraining" / "trading" / "code.py").write_text("a = 2\n")
    (tree / "hftraining" / "trading" / "new.py").write_bytes(b"# latin: \xe9\nb = 3\n")
    (tree / "conf" / "model").mkdir()
    (tree / "conf" / "model" / "mine.yaml").write_text("hidden_size: 8\n")
    (tree / "keys.yaml").write_text("secret: canary-77\n")
    patch, note = code_patch(tree)
    assert note is None and b"canary-77" not in patch
    again = tmp_path_factory.mktemp("again") / "tree"
    subprocess.run(["git", "clone", "-q", str(tree), str(again)], check=True, capture_output=True)
    assert source_digest(again) != source_digest(tree)
    subprocess.run(["git", "-C", str(again), "apply", "-"], input=patch, check=True, capture_output=True)
    assert source_digest(again) == source_digest(tree)
    assert (again / "conf" / "model" / "mine.yaml").read_text() == "hidden_size: 8\n"


def test_a_patch_with_a_secret_is_left_out_with_a_note_and_a_search_is_never_in_it(tree):
    (tree / "conf" / "search").mkdir()
    (tree / "conf" / "search" / "mine.yaml").write_text("search:\n  storage: postgresql://me:canary-77@h/db\n")
    assert code_patch(tree) == (b"", None) and code_version(tree)["dirty"] is False
    code, config = tree / "hftraining" / "trading" / "code.py", tree / "conf" / "config.yaml"
    for path, text, kept in (
        (code, "password = ask()\nsorted(x, key=len)\n", True),
        (code, "connect('postgresql://h/db')\n", True),
        (code, "connect('postgresql://me:canary-77@h/db')\n", False),
        (config, "seed: 2  # see https://h/x\n", True),
        (config, "password: ${oc.env:X}\n", True),
        (config, "password: canary-77\n", False),
        (config, "ray: {_redis_password: canary-77}\n", False),
        (config, "address: ray://me:canary-77@h\n", False),
    ):
        before = path.read_text()
        path.write_text(text)
        patch, note = code_patch(tree)
        assert bool(patch) is kept and b"canary" not in patch, text
        assert kept or note == f"left out: {path.relative_to(tree)} seems to hold a secret"
        path.write_text(before)


def test_a_patch_that_would_fill_the_disk_is_left_out_with_a_note(tree):
    (tree / "hftraining" / "data.py").write_text("x = 1\n" * (PATCH_BYTES // 6))
    patch, note = code_patch(tree)
    assert patch == b"" and note.startswith("left out: 1,")


def test_the_digest_covers_the_modules_that_make_numbers_and_no_config(tree):
    before = source_digest(tree)
    (tree / "conf" / "config.yaml").write_text("seed: 2\n")
    assert source_digest(tree) == before
    (tree / "hftraining" / "trading" / "code.py").rename(tree / "hftraining" / "trading" / "other.py")
    assert source_digest(tree) != before


def test_editing_a_report_or_command_does_not_change_the_digest(tree):
    before, everything = source_digest(tree), source_digest(tree, None)
    (tree / "hftraining" / "reports").mkdir()
    (tree / "hftraining" / "reports" / "page.py").write_text("title = 'another'\n")
    (tree / "hftraining" / "__main__.py").write_text("help = 'another'\n")
    assert source_digest(tree) == before and source_digest(tree, None) != everything
