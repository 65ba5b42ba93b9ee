"""The page of a sweep: the words of the report, and a mark at trials that are too good to be true."""

import re

from hftraining.runs.result import Against, PeriodResult, RunResult, write_result
from hftraining.sweep.page import write_sweep_page
from hftraining.sweep.serve import FULL, serve
from hftraining.sweep.study import Study
from hftraining.sweep.summary import Choice, OpenedDays, Overfitting, Summary
from tests.sweep_study import OBJECTIVES, SPACE, Synthetic, search_config


def page_of(folder, **values) -> str:
    """The page of a study of five trials, of which trial 2 has an alarm."""
    study = Study(search_config(n_trials=5), folder)
    assert serve(study, SPACE, {}, Synthetic(folder)) == FULL
    for number in range(5):
        trial = folder / f"trial-{number:04d}"
        trial.mkdir()
        alarms = ["it is too good"] if number == 2 else []
        write_result(trial, RunResult(periods={"valid": PeriodResult(alarms=alarms)}))
    settings = {
        "name": "synthetic",
        "objectives": OBJECTIVES,
        "trials": {"complete": 5},
        "steps": {"trained": 1, "unpruned": 2},
        "front": [0],
        "chosen": Choice("knee", 0, {}, [0.5, 0.5]),
        "pbo": Overfitting(None, 5, 16, "too few days"),
        "runs": ["run"],
        "seeds": {},
        "n_trials": 9,
        "deflated_sharpe": 0.25,
        "test_openings": 1,
        "test": OpenedDays({"sharpe_ratio": -1.26, "total_return": -0.306}, [-2.9, -0.02]),
        "money": "It lost 30.6 %, where holding earned 23.8 % (491 test days).",
        "verdict": "loses (figures)",
        "alarms": [],
        "benchmark": None,
    }
    opened = RunResult(periods={"valid": PeriodResult(benchmark=Against(beta=0.5)), "test": PeriodResult()})
    return write_sweep_page(study, Summary(**settings | values), opened, folder).read_text()


def sweep_folder(tmp_path):
    folder = tmp_path / "outputs" / "sweeps" / "synthetic"
    folder.mkdir(parents=True)
    return folder


def test_the_page_of_a_sweep_begins_with_the_money_then_the_verdict_then_alarms(tmp_path):
    page = page_of(sweep_folder(tmp_path), alarms=["on the test days it is too good"])
    places = [
        page.index(text) for text in ('id="headline">It lost', 'id="verdict">loses', "<li>On the test days it is")
    ]
    assert places == sorted(places) and places[-1] < page.index('class="lede"')
    assert "Sharpe ratio was &minus;1.26 [&minus;2.90, &minus;0.02]" in page


def test_only_trials_with_an_alarm_are_marked_and_a_legend_explains_the_mark(tmp_path):
    page = page_of(sweep_folder(tmp_path))
    marked = re.findall(r'>(\d+)</a> <span class="mark">\(!\)</span>', page)
    assert marked == ["2"] and "(!) too good to be true: a leak until proven otherwise" in page


def test_the_deflated_sharpe_ratio_is_that_of_the_returns_beyond_the_benchmark_where_this_is_known(tmp_path):
    page = page_of(sweep_folder(tmp_path / "older"))
    assert (
        "deflated Sharpe ratio is 0.250: the probability that the true Sharpe ratio exceeds what the best of 9" in page
    )
    page = page_of(sweep_folder(tmp_path / "newer"), benchmark=Against(deflated_sharpe=0.125, n_trials=12))
    said = "is 0.125: the probability that the true Sharpe ratio of the returns beyond the benchmark exceeds what the"
    assert f"{said} best of 12 trials without skill would show" in page
    page = page_of(sweep_folder(tmp_path / "unknown"), deflated_sharpe=None)
    assert "deflated" not in page and 'data-metric="valid.benchmark.beta">0.50<' in page
