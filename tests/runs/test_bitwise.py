"""What a replay compares: hftraining/runs/bitwise.py. tests/experiment repeats whole runs."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from hftraining.core.errors import UserError
from hftraining.runs.bitwise import compare_bits


@pytest.fixture
def runs(tmp_path):
    """Two equal run folders whose model has two tensors and the trees of one horizon."""
    first = tmp_path / "first"
    (first / "model").mkdir(parents=True)
    arrays = {"residual_QH": np.array([[-1.0], [0.0], [1.0]]), "intercept_H": np.array([0.1])}
    save_file(arrays, first / "model/model.safetensors")
    for name in ("scaler.json", "trees_5.txt", "config.json"):
        (first / "model" / name).write_text(f"{name} as saved\n")
    (first / "metrics.jsonl").write_text(json.dumps({"step": 1, "seconds": 2.0, "train/loss": 0.5}) + "\n")
    day = {"window": ["valid"], "date": pd.to_datetime(["2020-01-02"]), "equity": [1.0], "buy_and_hold": [1.0]}
    pd.DataFrame(day).to_parquet(first / "equity.parquet")
    return first, shutil.copytree(first, tmp_path / "second")


def test_equal_runs_are_equal_even_with_different_config_json(runs):
    (runs[1] / "model/config.json").write_text("other days\n")
    bits = compare_bits(*runs)
    assert bits.equal and bits.trained_alike and (bits.tensors, bits.steps, bits.days) == (2, 1, 1)
    assert bits.lines()[0] == "weights: 2 tensors, equal to the bit"


def test_every_file_of_the_model_is_compared_tensor_by_tensor_or_whole(runs):
    (runs[1] / "model/trees_5.txt").write_text("another tree\n")
    bits = compare_bits(*runs)
    assert bits.weights == "trees_5.txt differs" and not bits.trained_alike
    save_file(
        {"residual_QH": np.array([[-1.0], [0.0], [1.5]]), "intercept_H": np.array([0.1])},
        runs[1] / "model/model.safetensors",
    )
    expected = "1 of 2 tensors differ, by up to 0.5 (residual_QH); trees_5.txt differs"
    assert compare_bits(*runs).weights == expected


def test_a_file_that_only_one_model_has_is_named(runs):
    (runs[1] / "model/trees_5.txt").rename(runs[1] / "model/trees_20.txt")
    expected = "trees_20.txt is in one of them only; trees_5.txt is in one of them only"
    assert compare_bits(*runs).weights == expected


def test_a_run_without_weights_is_refused(runs):
    (runs[1] / "model/model.safetensors").unlink()
    with pytest.raises(UserError, match=r"second has no model/model\.safetensors"):
        compare_bits(*runs)
