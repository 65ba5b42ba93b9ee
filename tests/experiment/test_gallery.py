"""Every planted leak is caught, and nothing else is: hftraining/experiment/gallery.py."""

from dataclasses import replace

import pytest

from hftraining.experiment.gallery import CLEAN, LEAKS, is_right, proof_with, sample_bars, tried
from hftraining.market.features.scaler import Scaler
from tests.bars_of import make_bars
from tests.slowly import mostly_slow

FEW = ("objective.horizons=[1,5]", "training.threads=1")


@pytest.fixture(scope="module")
def bars():
    return make_bars(n_sessions=500, n_symbols=5, missing=0.02)


def quick(leak):
    return replace(leak, overrides=(*leak.overrides, *FEW))


@pytest.mark.parametrize(
    "leak", mostly_slow([leak for leak in LEAKS if not leak.rare], quick=range(0, 99, 9)), ids=lambda leak: leak.name
)
def test_a_planted_leak_is_caught_at_the_start_of_a_run(leak, bars):
    report = proof_with(quick(leak), bars, seed=1)
    assert not report.ok and all(line.count("\n") == 0 for line in report.lines)


@pytest.mark.parametrize("seed", mostly_slow(range(3), quick=(0,)))
def test_without_a_leak_there_is_no_alarm(bars, seed):
    assert proof_with(quick(CLEAN[0]), bars, seed).lines == []


@pytest.mark.parametrize(
    "leak", mostly_slow([leak for leak in CLEAN[1:] if not leak.rare], quick=(0,)), ids=lambda leak: leak.name
)
def test_without_a_leak_labels_across_stocks_raise_no_alarm(bars, leak):
    assert proof_with(quick(leak), bars, seed=1).lines == []


def test_a_plant_leaves_the_code_as_it_was(bars):
    before = vars(Scaler)["fit"]
    leak = next(leak for leak in LEAKS if leak.name == "scaler fitted on all days")
    with leak.plant():
        assert vars(Scaler)["fit"] is not before
    assert vars(Scaler)["fit"] is before


@pytest.mark.slow
def test_a_missed_leak_and_a_false_alarm_are_both_wrong(bars):
    clean = tried(CLEAN[0], bars, seeds=(0,))
    missed = replace(clean, name=LEAKS[0].name)
    alarm = replace(clean, caught=[True])
    assert is_right([clean]) and not is_right([clean, missed]) and not is_right([alarm])


# Of the others, one seed on drawn bars shows in CI what four on real bars show.
ON_REAL_BARS = [pytest.param(leak, marks=[] if leak.rare else pytest.mark.long) for leak in LEAKS]


@pytest.mark.slow
@pytest.mark.parametrize("leak", ON_REAL_BARS, ids=lambda leak: leak.name)
def test_every_seed_catches_a_planted_leak_on_real_bars(leak):
    row = tried(leak, sample_bars())
    assert row.caught == [True] * 4, row


@pytest.mark.slow
@pytest.mark.parametrize("leak", CLEAN, ids=lambda leak: leak.name)
@pytest.mark.long
def test_no_seed_raises_an_alarm_on_real_bars_without_a_leak(leak):
    row = tried(leak, sample_bars())
    assert row.caught == [False] * 4, row.said
