"""The verdict's wording and the config's refusals."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftraining.evidence.bootstrap import Interval
from hftraining.evidence.config import EvidenceConfig
from hftraining.evidence.verdict import verdict

WORSE, BETTER = Interval(-0.1, -1.0, 0.8), Interval(0.9, 0.2, 1.6)
UNKNOWN = Interval(math.nan, math.nan, math.nan)


@pytest.mark.parametrize(
    ("arguments", "trials", "sentence"),
    [
        ((0.31, WORSE), {}, "indistinguishable from chance (p = 0.31)"),
        (
            (0.01, WORSE),
            {},
            "beats chance but not buy and hold (p = 0.01; Sharpe difference -0.1 [-1.0, 0.8])",
        ),
        ((0.01, BETTER), {}, "beats buy and hold (p = 0.01; Sharpe difference 0.9 [0.2, 1.6])"),
        ((0.31, BETTER), {}, "indistinguishable from chance (p = 0.31)"),
        (
            (0.01, BETTER),
            {"deflated_sharpe": 0.41, "n_trials": 100},
            "indistinguishable from chance (p = 0.01; deflated Sharpe 0.41 over 100 trials)",
        ),
        (
            (0.01, BETTER),
            {"deflated_sharpe": 0.97, "n_trials": 100},
            "beats buy and hold (p = 0.01; Sharpe difference 0.9 [0.2, 1.6]; deflated Sharpe 0.97 over 100 trials)",
        ),
        (
            (0.01, BETTER),
            {"deflated_sharpe": math.nan, "n_trials": 2},
            "indistinguishable from chance (p = 0.01; deflated Sharpe unknown over 2 trials)",
        ),
        ((0.01, BETTER), {"deflated_sharpe": 0.41}, "beats buy and hold (p = 0.01; Sharpe difference 0.9 [0.2, 1.6])"),
        (
            (1.0, UNKNOWN),
            {"reason": "nothing was traded"},
            "indistinguishable from chance (p = 1.00; nothing was traded)",
        ),
        ((0.01, UNKNOWN), {}, "beats chance but not buy and hold (p = 0.01; Sharpe difference unknown)"),
        ((math.nan, UNKNOWN), {"reason": "30 sessions are too short"}, "no verdict: 30 sessions are too short"),
        ((math.nan, UNKNOWN), {}, "no verdict: nothing was traded, or the window is too short"),
        ((0.052, BETTER), {}, "indistinguishable from chance (p = 0.052)"),
        ((0.05, BETTER), {}, "beats buy and hold (p = 0.05; Sharpe difference 0.9 [0.2, 1.6])"),
        (
            (0.002, Interval(0.5, 0.04, 0.9)),
            {},
            "beats buy and hold (p = 0.002; Sharpe difference 0.50 [0.04, 0.90])",
        ),
    ],
)  # fmt: skip
def test_the_verdict_is_the_sentence_of_the_rules(arguments, trials, sentence):
    assert verdict(*arguments, **trials) == sentence


def test_an_impossible_p_and_zero_trials_are_refused():
    for p, n_trials in ((1.2, 1), (-0.1, 1), (0.5, 0)):
        with pytest.raises(ValueError, match="must lie in"):
            verdict(p, WORSE, n_trials=n_trials)


@given(st.floats(0, 1), st.floats(-3, 3), st.floats(0, 3), st.floats(0, 1), st.integers(1, 300))
def test_a_large_p_or_a_small_deflated_sharpe_is_chance_and_only_a_positive_difference_beats(
    p, low, width, deflated, n_trials
):
    said = verdict(p, Interval(low + width / 2, low, low + width), deflated_sharpe=deflated, n_trials=n_trials)
    chance = p > 0.05 or (n_trials > 1 and deflated < 0.95)
    assert said.startswith("indistinguishable from chance (") == chance
    assert said.startswith("beats buy and hold (") == (not chance and low > 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"null_draws": 19}, "evidence.null_draws=19 must be at least 20"),
        ({"bootstrap_draws": 99}, "evidence.bootstrap_draws=99 must be at least 100"),
        ({"leak_days": 0}, "evidence.leak_days=0 must be at least 1"),
        ({"baselines": ["momentun"]}, "did you mean momentum?"),
        ({"baselines": ["oracle"]}, "oracle is not one of momentum, trend, reversal, ridge, lightgbm"),
        ({"baselines": ["trend", "trend"]}, "must name each baseline once"),
    ],
)
def test_a_config_with_too_few_draws_or_wrong_baselines_is_refused_with_its_value(fields, message):
    with pytest.raises(ValueError, match="evidence") as refused:
        EvidenceConfig(**fields)
    assert message in str(refused.value)


def test_an_empty_list_of_baselines_is_allowed():
    assert EvidenceConfig(baselines=[]).baselines == []
