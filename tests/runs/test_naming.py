"""The name of a run folder beside others of one name: it says what differs, in letters that any shell can read."""

import re

import pytest

from hftraining.runs.naming import name_apart
from hftraining.runs.record import DATED, RunRecord, new_folder
from tests.reports.test_report import HOSTILE


def a_run(outputs, signature, **delta):
    facts = {"signature": signature}
    with RunRecord.create(
        outputs, "base", "same", {}, {k.replace("__", "."): v for k, v in delta.items()}, facts
    ) as run:
        return run.folder


def called(tmp_path, signature, **delta):
    name = name_apart(tmp_path / "base" / "same", signature, {k.replace("__", "."): v for k, v in delta.items()})
    return name and re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_(.*)", name).group(1)


def test_the_first_run_and_a_repetition_are_called_by_their_date_alone(tmp_path):
    assert called(tmp_path, "aa", training__max_steps=20) is None
    a_run(tmp_path, "aa", training__max_steps=20)
    assert called(tmp_path, "aa", training__max_steps=20) is None
    assert len(new_folder(tmp_path / "by_date").name) == len("2026-01-31_12-00-00") and DATED.startswith("%Y")


@pytest.mark.parametrize(
    ("theirs", "ours", "said"),
    [
        ({}, {"training__max_steps": 20}, "max_steps-20"),
        ({"training__max_steps": 20}, {}, "max_steps-default"),
        ({"training__max_steps": 20}, {"seed": 3}, "seed-3"),  # what it sets says more than what it leaves alone
        ({"seed": 2, "objective__label": "close"}, {"seed": 3, "objective__label": "close"}, "seed-3"),
        ({}, {"stocks__symbols": ["BRK/B", "A"], "name": "x", "model__name": "tiny"}, "symbols-BRK-B-A"),
        ({}, {"a": 1, "b": 0.5, "c": "x", "d": True, "e": 2}, "a-1_b-0.5_c-x_and-2-more"),
    ],
)
def test_the_name_says_what_differs_from_the_runs_that_are_there(tmp_path, theirs, ours, said):
    a_run(tmp_path, "aa", **theirs)
    assert called(tmp_path, "bb", **ours) == said


def test_fields_that_cannot_change_a_number_are_not_named(tmp_path):
    a_run(tmp_path, "aa", output_dir="here")
    assert called(tmp_path, "bb", output_dir="there", training__device="cuda") is None


def test_what_a_stranger_wrote_into_a_folder_stays_a_plain_name_and_a_damaged_one_is_passed_over(tmp_path):
    a_run(tmp_path, "aa", **{f"../{HOSTILE}": HOSTILE, "x__y;rm -rf $(z)": "\n"})
    broken = a_run(tmp_path, "cc", seed=5)
    (broken / "config_diff.yaml").write_text("a: [")
    said = called(tmp_path, "bb", seed=1, **{"training__note;`": "a b;..c" * 99})
    assert re.fullmatch(r"[A-Za-z0-9._-]+", said) and len(said) <= 100 and ".." not in said
