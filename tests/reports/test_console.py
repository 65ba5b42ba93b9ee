"""The console: the numbers of the report in plain lines, with a dash for an unknown one."""

from dataclasses import replace

import pytest

from hftraining.core.metrics import PROFIT
from hftraining.reports.console import Console
from hftraining.runs.result import (
    Against,
    Baseline,
    CandidateResult,
    Estimate,
    Losses,
    Null,
    PeriodResult,
    Recommendation,
    RunResult,
)

METRICS = {metric.name: 0.5 for metric in PROFIT} | {"trade_count": 1234.0, "win_rate": float("nan")}


def lines_of(capsys: pytest.CaptureFixture) -> list[str]:
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def a_period() -> PeriodResult:
    return PeriodResult(
        days=3,
        first="2020-01-01",
        last="2020-01-03",
        profit=METRICS,
        baselines={"buy_and_hold": Baseline(METRICS | {"total_return": -0.04}), "trend": Baseline({})},
        null=Null(p=0.31, band=[-1.25, 0.0, 1.5], draws=500),
        interval=[-0.75, 1.75],
        benchmark=Against(beta=0.8, alpha=Estimate(-0.02, -0.06, 0.02)),
        verdict="indistinguishable from chance (p = 0.31)",
    )


MONEY = "It earned 50.0 %, where holding lost 4.0 % (3 test days, 2020-01-01 to 2020-01-03)."


def test_the_summary_begins_with_money_and_verdict_and_shows_every_metric_beside_the_baselines(capsys):
    losses = {"train": Losses(0.24, 0.25, 0.23), "valid": Losses(0.26, 0.25, 0.23)}
    periods = {"valid": a_period(), "test": replace(a_period(), alarms=["it is too good"])}
    Console(10, 0, 5).summary(
        RunResult(loss=losses, periods=periods, n_trials=2, test_openings=3, verdict="beats chance")
    )
    lines = lines_of(capsys)
    assert lines[0] == MONEY
    assert lines[1] == "verdict on the test days (openings so far: 3, trials on these data: 2): beats chance"
    assert lines[2].startswith('training days: forecast loss 0.2400 is below that of "nothing changes" (0.2500)')
    assert lines[3].startswith('validation days: forecast loss 0.2600 is NOT below that of "nothing changes"')
    assert lines.count("total return +50.0% -4.0% -") == 2 and lines.count("closed trades 1,234 1,234 -") == 2
    assert lines.count("win rate - - -") == 2 and lines.count("turnover a year 0.5x 0.5x -") == 2
    assert lines.count("Sharpe ratio of the model: 0.50 [-0.75, 1.75]") == 2
    assert lines.count("Sharpe ratio of luck, 5 % to 95 %: -1.25 to 1.50") == 2
    assert lines.count("Alpha a year: -2.0% [-6.0%, +2.0%]") == 2 and lines.count("Beta to buy and hold: 0.80") == 2
    assert lines.count(MONEY.replace("test", "validation")) == 1 and lines.count(MONEY) == 1
    assert lines[-1] == "ALARM: on the test days it is too good"


def test_the_summary_of_a_sealed_run_without_a_loss_is_about_the_validation_days_only(capsys):
    nothing = {"train": Losses(float("nan"), 0.25), "valid": Losses()}
    Console(10, 0, 5).summary(RunResult(loss=nothing, periods={"valid": PeriodResult()}, n_trials=1, verdict="none"))
    lines = lines_of(capsys)
    assert not [line for line in lines if "forecast loss" in line or "test" in line]
    assert lines[:2] == [
        "finished, without a profit to show",
        "verdict on the validation days (trials on these data: 1): none",
    ]
    assert not [line for line in lines if "Sharpe ratio of" in line or "ALARM" in line]


def test_a_report_is_printed_when_it_is_due_and_at_the_last_step(capsys):
    console = Console(10, 0, 4)
    for step in range(1, 11):
        console.step(step, {"train/loss": 0.5}, {"strategy": METRICS} if step % 2 == 0 else None)
    titles = [line for line in lines_of(capsys) if line.startswith("validation days after")]
    assert titles == [f"validation days after step {step}" for step in (4, 8, 10)]


def test_a_recommendation_names_the_choice_and_shows_each_candidate(capsys):
    candidates = {
        "base": CandidateResult(loss=0.3, profit={"total_return": 0.1}, money="It earned 10.0 %.", verdict="loses"),
        "nothing_changes": CandidateResult(loss=0.31, loss_difference=Estimate(0.01, -0.02, 0.03)),
    }
    Console(10, 0, 5).recommendation(Recommendation("base", "keep the base model", n_trials=3, candidates=candidates))
    lines = lines_of(capsys)
    assert "base * +10.0% - - - 0.3000 - -" in lines
    assert "nothing changes - - - - 0.3100 +0.0100 [-0.0200, 0.0300] -" in lines
    assert "base: It earned 10.0 %. Verdict: loses" in lines
    assert lines[-1] == "recommendation: keep the base model"
