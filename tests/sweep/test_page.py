"""The page of a sweep: the words of the report, and a mark at trials that are too good to be true."""

import re

import pytest

from hftraining.runs.result import Against, PeriodResult, RunResult, write_result
from hftraining.sweep.page import write_sweep_page
from hftraining.sweep.serve import FULL, serve
from hftraining.sweep.space import Param
from hftraining.sweep.study import Study
from hftraining.sweep.summary import Choice, OpenedDays, Overfitting, Summary
from tests.browser import laid_out, needs_browser
from tests.sweep_study import OBJECTIVES, SPACE, Synthetic, search_config


def page_of(folder, n_trials=5, space=SPACE, **values) -> str:
    """The page of a study of five trials, of which trial 2 has an alarm."""
    study = Study(search_config(n_trials=n_trials), folder)
    assert serve(study, space, {}, Synthetic(folder)) == FULL
    for number in range(n_trials):
        trial = folder / f"trial-{number:04d}"
        trial.mkdir()
        alarms = ["it is too good"] if number == 2 else []
        write_result(trial, RunResult(periods={"valid": PeriodResult(alarms=alarms)}))
    settings = {
        "name": "synthetic",
        "objectives": OBJECTIVES,
        "trials": {"complete": n_trials},
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
    assert "deflated Sharpe" not in page and 'data-metric="valid.benchmark.beta">0.50<' in page


def test_the_page_shows_the_chosen_parameters_and_the_command_that_trains_them(tmp_path):
    folder = sweep_folder(tmp_path)
    chosen = Choice("eval/loss", 3, {"training.learning_rate": 0.003, "model": "<b>"}, [0.5, 0.5])
    page = page_of(folder, chosen=chosen)
    top = page[page.index('id="chosen"') : page.index("<h2>History")]
    assert "<dt><code>training.learning_rate</code></dt><dd><code>0.003</code></dd>" in top and "&lt;b&gt;" in top
    assert f"<code>python train.py +best={folder}/best/eval_loss.yaml</code>" in top


def test_a_broken_constraint_is_named_with_the_number_that_breaks_it_and_counted(tmp_path):
    page = page_of(sweep_folder(tmp_path), n_trials=12)
    rows = re.findall(r"<tr><td><a[^>]*>(\d+)</a>.*?</tr>", page, re.S)
    whys = re.findall(r"profit/trade_count is ([\d.]+), not &gt;= 20", page)
    # The synthetic trade count is 100 x; the pages cells show x.
    xs = [
        float(row)
        for row in re.findall(r"<td>breaks a constraint</td><td>[^<]*</td><td>[^<]*</td>.*?<td>(0\.\d+)</td>", page)
    ]
    assert len(rows) == 12 and whys and sorted(map(float, whys)) == pytest.approx(sorted(100 * x for x in xs), rel=0.01)
    trials = "trial" if len(whys) == 1 else "trials"
    assert f"Constraints: profit/trade_count &gt;= 20 broken by {len(whys)} {trials}." in page


def test_what_has_one_value_alone_has_no_slice_and_one_trial_has_no_chart_over_trials(tmp_path):
    same = [Param("x", "choice(0.5)", choices={"0.5": 0.5}), Param("kind", "choice(round)", choices={"round": "round"})]
    page = page_of(sweep_folder(tmp_path / "same"), space=same)
    assert "<h2>Slices</h2>" not in page and "<h2>History</h2>" in page
    page = page_of(sweep_folder(tmp_path / "one"), n_trials=1)
    for heading in ("Slices", "History", "Loss and profit"):
        assert f"<h2>{heading}</h2>" not in page


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("width", [400, 1280])
def test_a_browser_shows_the_sweep_at_this_width_and_cuts_no_column_without_a_hint(tmp_path, width):
    folder = sweep_folder(tmp_path)
    page_of(folder, n_trials=12)
    assert laid_out(folder / "sweep.html", tmp_path, width)["tables"] == 2
