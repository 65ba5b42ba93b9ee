"""Alarms: nothing that a stock forecaster can reach passes without one sentence of suspicion."""

import math

import numpy as np
import pytest

from hftraining.evidence.alarms import MOST_ACCURACY, MOST_IC, MOST_SHARPE, alarms
from hftraining.runs.quantities import Estimate, Score

CALM = Estimate(0.5, -0.5, 1.5)
LEAKS = "a leak until proven otherwise: python -m hftraining leaks RUN --days 50"

SURE = f"and so is the lower end of the interval, which luck hardly does: {LEAKS}"


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
            f"the information coefficient is 0.200 (95 % interval 0.150 to 0.250), above 0.060, {SURE}",
        ),
        (
            {"rank_ic": Score(0.081, 2.1, 0.004, 0.158, 60)},
            CALM,
            "the rank information coefficient is 0.081 (95 % interval 0.004 to 0.158), above 0.060, "
            f"which the lower end of the interval is not: luck on few days, or {LEAKS}",
        ),
        (
            {"accuracy": Score(0.61, 9.0, 0.58, 0.64, 500)},
            CALM,
            f"the share of right directions is 61.0 % (95 % interval 58.0 % to 64.0 %), above 56.0 %, {SURE}",
        ),
        (
            {"mcc": Score(0.9, 9.0, 0.8, 1.0, 500)},
            Estimate(3.4, None, None),
            f"the Sharpe ratio after all costs is 3.40 (interval unknown), above 3.00, which may be luck, or {LEAKS}",
        ),
    ],
)
def test_an_alarm_names_the_figure_its_interval_the_threshold_and_the_remedy(scores, sharpe, sentence):
    assert alarms(scores, sharpe) == [sentence]


def test_luck_of_few_days_and_a_leak_both_ring_and_their_words_tell_them_apart():
    rng = np.random.default_rng(0)
    luck, sure = [], []
    for _ in range(200):
        few_T = rng.choice([-0.02, 0.02], 15)  # coins: 9 or more of 15 come out right in 30 % of the cases
        found = share_of_right_directions(few_T, rng.choice([-0.02, 0.02], 15))
        luck += alarms({"accuracy": found}, CALM)
        label_T = rng.normal(0.0, 0.02, 250)
        found = share_of_right_directions(label_T + rng.normal(0.0, 0.02, 250), label_T)  # it has seen the answer
        sure += alarms({"accuracy": found}, CALM)
    assert len(sure) == 200 and sum("and so is the lower end" in sentence for sentence in sure) == 200
    assert 20 < len(luck) < 100 and sum("luck on few days" in sentence for sentence in luck) > 0.9 * len(luck)


def share_of_right_directions(forecast_T: np.ndarray, label_T: np.ndarray) -> Score:
    """With the interval of a share of independent days."""
    share, n = float((np.sign(forecast_T) == np.sign(label_T)).mean()), len(label_T)
    error = math.sqrt(share * (1.0 - share) / n)
    return Score(share, None, share - 1.96 * error, share + 1.96 * error, n)


def test_each_number_has_an_alarm_of_its_own():
    high = Score(0.9, 9.0, 0.8, 1.0, 500)
    assert len(alarms({"ic": high, "rank_ic": high, "accuracy": high, "mcc": high}, Estimate(5.0, 4.0, 6.0))) == 4
