"""Plain values, and one text for equal values: hftraining/core/values.py."""

import math
from pathlib import Path

import numpy as np
import pytest

from hftraining.core.values import canonical, flatten, plain, without_nan


def test_plain_values_have_only_the_types_of_json():
    value = {1: np.float64(0.5), "list": (np.arange(2), Path("a/b")), "none": None, "yes": True}
    assert plain(value) == {"1": 0.5, "list": [[0, 1], "a/b"], "none": None, "yes": True}
    assert type(plain(np.int64(3))) is int and type(plain(np.bool_(True))) is bool


def test_nan_and_infinity_become_null_at_any_depth():
    assert without_nan({"a": [1.0, math.nan, {"b": math.inf}], "c": -math.inf}) == {
        "a": [1.0, None, {"b": None}],
        "c": None,
    }


def test_nested_mappings_flatten_to_dotted_names_and_empty_ones_disappear():
    assert flatten({"a": {"b": {"c": 1}, "d": {}}, "e": [2]}) == {"a.b.c": 1, "e": [2]}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        ([1, 2], (1.0, 2)),
        ({"a": 1, "b": 2}, {"b": 2.0, "a": 1}),
        (np.float32(0.5), 0.5),
        (math.nan, math.nan),
    ],
)
def test_equal_values_have_one_text(one, other):
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(
    ("one", "other"), [(True, 1), (1, "1"), (None, 0), (math.inf, -math.inf), ([], None), (0.1, 0.2)]
)
def test_different_values_have_different_texts(one, other):
    assert canonical(one) != canonical(other)
