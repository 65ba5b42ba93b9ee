"""Alarms: nothing that a stock forecaster can reach passes without one sentence of suspicion."""

import math

import pytest

from hftraining.evidence.alarms import MOST_ACCURACY, MOST_IC, MOST_SHARPE, alarms
from hftraining.runs.result import Estimate, Score

CALM = Estimate(0.5, -0.5, 1.5)
LEAKS = "a leak until proven otherwise: python -m hftraining leaks RUN --days 50"


def test_numbers_that_people_have_reached_raise_no_alarm():
    scores = {"ic": Score(0.04, 2.0, 0.0, 0.08, 500), "accuracy": Score(0.53, 1.0, 0.5, 0.56, 500)}
    assert alarms(scores, CALM) == []
    assert alarms({"ic": Score(MOST_IC), "accuracy": Score(MOST_ACCURACY)}, Estimate(MOST_SHARPE, 2.0, 4.0)) == []


@pytest.mark.parametrize("unknown", [None, math.nan])
def test_an_unknown_number_raises_no_alarm(unknown):
    assert alarms({"ic": Score(unknown), "rank_ic": Score(unknown)}, Estimate(unknown)) == []
    assert alarms({}, Estimate()) == []


@pytest.mark.parametrize(
    ("scores", "sharpe", "sentence"),
    [
        (
            {"ic": Score(0.2, 9.0, 0.15, 0.25, 500)},
            CALM,
            f"the information coefficient is 0.200 (95 % interval 0.150 to 0.250), above 0.060: {LEAKS}",
        ),
        (
            {"rank_ic": Score(0.081, 2.1, 0.004, 0.158, 60)},
            CALM,
            "the rank information coefficient is 0.081 (95 % interval 0.004 to 0.158), above 0.060: "
            f"{LEAKS}; so few days may do it by luck",
        ),
        (
            {"accuracy": Score(0.61, 9.0, 0.58, 0.64, 500)},
            CALM,
            f"the share of right directions is 61.0 % (95 % interval 58.0 % to 64.0 %), above 56.0 %: {LEAKS}",
        ),
        (
            {"mcc": Score(0.9, 9.0, 0.8, 1.0, 500)},
            Estimate(3.4, None, None),
            "the Sharpe ratio after all costs is 3.40 (interval unknown), above 3.00: "
            f"{LEAKS}; so few days may do it by luck",
        ),
    ],
)
def test_an_alarm_names_the_figure_its_interval_the_threshold_and_the_remedy(scores, sharpe, sentence):
    assert alarms(scores, sharpe) == [sentence]


def test_each_number_has_an_alarm_of_its_own():
    high = Score(0.9, 9.0, 0.8, 1.0, 500)
    assert len(alarms({"ic": high, "rank_ic": high, "accuracy": high, "mcc": high}, Estimate(5.0, 4.0, 6.0))) == 4
