"""The verdict's wording and the config's refusals."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftraining.evidence.bootstrap import Interval
from hftraining.evidence.config import EvidenceConfig
from hftraining.evidence.selection import Excess
from hftraining.evidence.verdict import verdict

ALIKE, BETTER, WORSE = Interval(-0.1, -1.0, 0.8), Interval(0.9, 0.2, 1.6), Interval(-2.3, -4.1, -0.5)
OWN, RUINED = Interval(1.1, -0.3, 2.5), Interval(-2.5, -4.29, -1.02)
UNKNOWN = Interval(math.nan, math.nan, math.nan)


def excess(p: float, lead_p: float = 0.01, n_trials: int = 1) -> Excess:
    return Excess(0.4, Interval(0.031, 0.004, 0.058), 1.2, 0.026, p, lead_p, 0.9, n_trials)


def say(p=0.01, alpha=None, difference=BETTER, interval=OWN, total_return=0.2, **more) -> str:
    return verdict(p, alpha or excess(0.02), difference, interval, total_return, **more)


ALPHA = "alpha 3.1 % a year [0.4, 5.8]"
SKILL = f"p = 0.01; {ALPHA}, p = 0.02"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, f"beats buy and hold ({SKILL}; Sharpe difference 0.9 [0.2, 1.6])"),
        ({"difference": ALIKE}, f"beats chance but not buy and hold ({SKILL}; Sharpe difference -0.1 [-1.0, 0.8])"),
        ({"difference": UNKNOWN}, f"beats chance but not buy and hold ({SKILL}; Sharpe difference unknown)"),
        ({"p": 0.31}, f"indistinguishable from chance (p = 0.31; {ALPHA}, p = 0.02)"),
        (
            {"alpha": excess(0.34)},
            f"indistinguishable from chance (p = 0.01; {ALPHA}, p = 0.34)",
        ),
        (
            {"alpha": excess(0.34, n_trials=12)},
            f"indistinguishable from chance (p = 0.01; {ALPHA}, p = 0.34 as the best of 12 trials)",
        ),
        ({"total_return": -0.01}, f"indistinguishable from chance ({SKILL}; it earned nothing)"),
        ({"difference": WORSE}, "loses (Sharpe difference -2.3 [-4.1, -0.5] to buy and hold)"),
        ({"p": 0.9, "difference": ALIKE, "interval": RUINED}, "loses (Sharpe ratio -2.5 [-4.3, -1.0])"),
        (
            {"alpha": excess(0.02, lead_p=0.2, n_trials=12)},
            f"beats chance but not buy and hold (p = 0.01; {ALPHA}, p = 0.02 as the best of 12 trials; "
            "Sharpe difference 0.9 [0.2, 1.6], p = 0.20 as the best of 12 trials)",
        ),
        (
            {"alpha": excess(0.02, lead_p=0.02, n_trials=12)},
            f"beats buy and hold (p = 0.01; {ALPHA}, p = 0.02 as the best of 12 trials; "
            "Sharpe difference 0.9 [0.2, 1.6])",
        ),
        (
            {
                "p": 1.0,
                "alpha": excess(math.nan),
                "difference": UNKNOWN,
                "interval": UNKNOWN,
                "reason": "nothing was traded",
            },
            "indistinguishable from chance (p = 1.00; alpha unknown; nothing was traded)",
        ),
        ({"p": math.nan, "reason": "30 sessions are too short"}, "no verdict: 30 sessions are too short"),
        ({"p": math.nan}, "no verdict: nothing was traded, or the window is too short"),
        ({"p": 0.152}, f"indistinguishable from chance (p = 0.152; {ALPHA}, p = 0.02)"),
        (
            {"p": 0.15, "difference": Interval(0.5, 0.04, 0.9), "rival": "the base model"},
            f"beats the base model (p = 0.15; {ALPHA}, p = 0.02; Sharpe difference 0.50 [0.04, 0.90])",
        ),
    ],
)  # fmt: skip
def test_the_verdict_is_the_sentence_of_the_rules(arguments, sentence):
    assert say(**arguments) == sentence


def test_an_impossible_p_is_refused():
    for p in (1.2, -0.1):
        with pytest.raises(ValueError, match="must lie in"):
            say(p=p)


@given(
    st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.integers(1, 300), st.floats(-3, 3), st.floats(0, 3),
    st.floats(-3, 3), st.floats(-0.9, 2.0),
)  # fmt: skip
def test_only_a_book_that_earns_and_passes_every_test_is_better_than_anything(
    p, alpha_p, lead_p, n_trials, low, width, own_high, total_return
):
    difference, own = Interval(low + width / 2, low, low + width), Interval(own_high - 1, own_high - 2, own_high)
    said = say(p, excess(alpha_p, lead_p, n_trials), difference, own, total_return)
    loses = difference.high < 0 or own.high < 0
    skilled = not loses and p <= 0.15 and alpha_p <= 0.05 and total_return > 0
    beats = skilled and low > 0 and (n_trials == 1 or lead_p <= 0.025)
    assert said.startswith("loses (") == loses
    assert said.startswith("indistinguishable from chance (") == (not loses and not skilled)
    assert said.startswith("beats chance but not buy and hold (") == (skilled and not beats)
    assert said.startswith("beats buy and hold (") == beats


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"null_draws": 19}, "evidence.null_draws=19 must be at least 20"),
        ({"bootstrap_draws": 99}, "evidence.bootstrap_draws=99 must be at least 100"),
        ({"leak_days": 0}, "evidence.leak_days=0 must be at least 1"),
        ({"baselines": ["momentun"]}, "did you mean momentum?"),
        ({"baselines": ["oracle"]}, "oracle is not one of momentum, momentum_top, trend, reversal, ridge, lightgbm"),
        ({"baselines": ["trend", "trend"]}, "must name each baseline once"),
    ],
)
def test_a_config_with_too_few_draws_or_wrong_baselines_is_refused_with_its_value(fields, message):
    with pytest.raises(ValueError, match="evidence") as refused:
        EvidenceConfig(**fields)
    assert message in str(refused.value)


def test_an_empty_list_of_baselines_is_allowed():
    assert EvidenceConfig(baselines=[]).baselines == []
