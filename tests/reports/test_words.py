"""The words that all pages share."""

import math

import pytest

from hftraining.reports.words import (
    alarm_lines,
    deflated_meaning,
    evidence_rows,
    judged,
    mean_money,
    money_line,
    verdicts,
)
from hftraining.runs.quantities import Estimate
from hftraining.runs.result import Against, Baseline, Null, PeriodResult, RunResult


def period(ours: float | None, held: float = 0.1, **fields) -> PeriodResult:
    profit = {"total_return": ours, "exposure": 0.5}
    baselines = {"buy_and_hold": Baseline({"total_return": held, "exposure": 1.0})}
    days = {"days": 252, "first": "2019-01-02", "last": "2019-12-31"}
    return PeriodResult(profit=profit, baselines=baselines, **days | fields)


def test_a_run_is_judged_by_its_test_days_if_they_were_opened():
    valid, test = period(0.2), period(-0.463, 0.961)
    assert judged(RunResult(periods={"valid": valid, "test": test})) == "test"
    line = money_line(RunResult(periods={"valid": valid, "test": test}))
    assert line == "It lost 46.3 %, where holding earned 96.1 % (252 test days, 2019-01-02 to 2019-12-31)."
    sealed = money_line(RunResult(periods={"valid": valid}))
    assert sealed == "It earned 20.0 %, where holding earned 10.0 % (252 validation days, 2019-01-02 to 2019-12-31)."
    assert judged(RunResult(periods={"valid": PeriodResult()})) is None and money_line(RunResult()) == ""


def test_the_sentence_of_the_result_is_shown_as_it_was_written():
    written = period(0.2, money="It took no position, where holding earned 10.0 %.")
    assert money_line(RunResult(periods={"valid": written})).startswith("It took no position, where")


def test_the_money_of_several_seeds_is_their_mean_over_those_that_opened_the_test_days():
    opened = [RunResult(periods={"valid": period(9.0), "test": period(ours)}) for ours in (0.2, -0.1)]
    sealed = RunResult(periods={"valid": period(9.0)})
    line = mean_money([*opened, sealed])
    assert line.startswith("It earned 5.0 %, where holding earned 10.0 % (mean of 2 seeds; 252 test days")
    assert mean_money([sealed]).startswith("It earned 900.0 %") and mean_money([]) == ""


def test_verdicts_of_several_seeds_are_counted_without_their_figures():
    said = [RunResult(verdict=text) for text in ("loses (a)", "loses (b)", "no verdict: too short", None)]
    assert verdicts(said) == "2 x loses; 2 x no verdict"
    assert verdicts(said[:1]) == "loses (a)" and verdicts(said[3:]) == "no verdict"


@pytest.mark.parametrize("unknown", [None, math.nan])
def test_only_known_rows_of_evidence_are_shown(unknown):
    empty = period(0.1, benchmark=Against(beta=unknown), null=Null(p=unknown))
    assert evidence_rows({"valid": empty}) == []
    found = period(0.1, benchmark=Against(beta=0.5, alpha=Estimate(0.02, -0.1, 0.14), p=0.3, n_trials=1))
    rows = {row.path: texts for row, texts in evidence_rows({"valid": empty, "test": found})}
    assert rows == {
        "benchmark.alpha": ["-", "+2.0% [-10.0%, +14.0%]"],
        "benchmark.p": ["-", "0.300"],
        "benchmark.beta": ["-", "0.50"],
    }


def test_the_deflated_sharpe_ratio_is_described_by_what_it_is_of_and_by_its_trials():
    assert deflated_meaning(1_200) == (
        "the probability that the true Sharpe ratio of the returns beyond the benchmark exceeds what the best of "
        "1,200 trials without skill would show"
    )
    assert "what one trial without skill would show" in deflated_meaning(1)
    assert "what the best of all trials without" in deflated_meaning(None)
    assert "beyond the benchmark" not in deflated_meaning(2, beyond=False)


def test_alarms_say_of_which_days_they_are():
    result = RunResult(periods={"valid": period(0.1, alarms=["it is high"]), "test": period(0.1, alarms=["it, too"])})
    assert alarm_lines(result) == ["on the validation days it is high", "on the test days it, too"]
