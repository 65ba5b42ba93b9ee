"""The console: the numbers of the report in plain lines, with a dash for an unknown one."""

from dataclasses import replace
from pathlib import Path

import pytest

from hftraining.core.metrics import PROFIT
from hftraining.reports.console import Console
from hftraining.reports.words import loss_line
from hftraining.runs.quantities import Estimate
from hftraining.runs.result import (
    Against,
    Baseline,
    CandidateResult,
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
FOLDER = Path("outputs/base/small/day")


def test_the_summary_is_a_table_then_money_verdict_losses_and_alarms_and_ends_with_report_and_next_command(capsys):
    losses = {"train": Losses(0.24, 0.25, 0.23), "valid": Losses(0.26, 0.25, 0.23)}
    periods = {"valid": a_period(), "test": replace(a_period(), alarms=["it is too good"])}
    Console(10, 0, 5).summary(
        RunResult(steps=5, loss=losses, periods=periods, n_trials=2, test_openings=3, verdict="beats chance"), FOLDER
    )
    lines = lines_of(capsys)
    assert lines[0] == "after all costs, with 95 % intervals" and lines[1] == "validation holding test holding"
    for row in ("total return +50.0% -4.0%", "closed trades 1,234 1,234", "turnover a year 0.5x 0.5x"):
        name, ours, theirs = row.rsplit(" ", 2)
        assert lines.count(f"{name} {ours} {theirs} {ours} {theirs}") == 1
    assert "[-0.75, 1.75] [-0.75, 1.75]" in lines and "chance of luck, p 0.310 0.310" in lines
    assert lines[lines.index("alpha a year -2.0% -2.0%") + 1] == "[-6.0%, +2.0%] [-6.0%, +2.0%]"
    assert lines[lines.index(MONEY) :] == [
        MONEY,
        "verdict on the test days (openings so far: 3, trials on these data: 2): beats chance",
        MONEY.replace("test", "validation") + " Indistinguishable from chance (p = 0.31)",
        'forecast loss: 0.2400 on the training days, 0.2600 on the validation days, NOT below "nothing changes" '
        "(0.2500), one constant forecast has 0.2300",
        "ALARM: on the test days it is too good",
        "report: outputs/base/small/day/report.html",
        "next: python -m hftraining portfolios outputs/base/small/day (other portfolios of these forecasts, without "
        "training)",
    ]


def test_baselines_but_holding_are_on_the_page_alone(capsys):
    Console(10, 0, 5).summary(RunResult(periods={"valid": a_period()}, n_trials=1, verdict="none"), FOLDER)
    assert "trend" not in capsys.readouterr().out


def test_the_summary_of_a_sealed_run_without_a_loss_is_about_the_validation_days_only(capsys):
    nothing = {"train": Losses(float("nan"), 0.25), "valid": Losses()}
    result = RunResult(loss=nothing, periods={"valid": PeriodResult()}, n_trials=1, verdict="none")
    Console(10, 0, 5).summary(result, FOLDER)
    lines = lines_of(capsys)
    assert lines[:2] == [
        "finished, without a profit to show",
        "verdict on the validation days (trials on these data: 1): none",
    ]
    assert lines[2].startswith("report: ") and not [line for line in lines if "loss" in line or "test" in line]


@pytest.mark.parametrize(
    ("valid", "said"),
    [
        ((0.26, 0.25, 0.23), 'NOT below "nothing changes" (0.2500), one constant forecast has 0.2300'),
        ((0.24, 0.25, 0.23), 'below "nothing changes" (0.2500), but NOT below one constant forecast (0.2300)'),
        ((0.22, 0.25, 0.23), 'below "nothing changes" (0.2500), and below one constant forecast (0.2300)'),
        ((0.22, 0.25, None), 'below "nothing changes" (0.2500)'),
    ],
)
def test_the_loss_is_set_beside_both_forecasts_that_know_nothing(valid, said):
    assert loss_line(RunResult(loss={"valid": Losses(*valid)})) == (
        f"forecast loss: {valid[0]:.4f} on the validation days, {said}"
    )


def test_a_report_is_printed_when_it_is_due(capsys):
    console = Console(10, 0, 4)
    for step in range(1, 11):
        console.step(step, {"train/loss": 0.5}, {"model": METRICS} if step % 2 == 0 else None)
    titles = [line for line in lines_of(capsys) if line.startswith("validation days after")]
    assert titles == [f"validation days after step {step}" for step in (4, 8)]


def test_a_probe_has_a_line_with_the_training_loss_of_the_same_kind_and_says_whether_it_is_the_best(capsys):
    console = Console(4, 0, 500)
    probe = {"eval/loss": 0.3, "profit/sharpe_ratio": 1.25, "profit/total_return": -0.02}
    for step, loss in enumerate((0.1, 0.3, 0.5, 0.6), start=1):
        mixed = {"train/loss": -8.7654, "train/forecast_loss": loss}
        console.step(step, mixed | (probe if step in (2, 4) else {}), None, best=step == 2)
    lines = lines_of(capsys)
    assert lines[1] == "step 2/4: best so far, validation loss 0.3000 (training 0.2000), Sharpe 1.25, return -2.0%"
    assert lines[3] == "step 4/4: validation loss 0.3000 (training 0.5500), Sharpe 1.25, return -2.0%"
    assert lines[0].startswith("step 1/4: training loss 0.1000") and "8.7654" not in "".join(lines)


def test_nothing_unknown_is_printed_as_nan(capsys):
    console = Console(2, 0, 1)
    console.step(1, {"train/loss": 0.5}, None)
    console.step(2, {"train/loss": 0.5, "eval/loss": 0.4, "profit/sharpe_ratio": float("nan")}, {"model": METRICS})
    out = capsys.readouterr().out
    assert "nan" not in out and "Sharpe -, return -" in out


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
