"""The report: built only from the folder, clear about missing numbers, safe from text from outside."""

import html
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hftraining.core.files import write_json_atomically
from hftraining.core.metrics import PROFIT
from hftraining.core.values import without_nan
from hftraining.reports.format import cell as in_a_cell
from hftraining.reports.format import number, prose, split_brackets, typeset
from hftraining.reports.report import write_report
from hftraining.reports.tables import TRADES_SHOWN
from hftraining.runs.lock import LOCK_FILE
from hftraining.runs.quantities import Estimate
from hftraining.runs.record import RunRecord
from hftraining.runs.result import CandidateResult, Recommendation, RunResult, write_result
from tests.browser import drawn, found_in, needs_browser

HOSTILE = "<script>alert(1)</script>"
CONFIG = {"seed": 7, "profit_tracker": {"initial_capital": 1000.0}}


def profit(total_return: float, **others: float | None) -> dict:
    return {metric.name: 0.5 for metric in PROFIT} | {"total_return": total_return, "trade_count": 3} | others


def period(ours: float, held: float, **others: float | None) -> dict:
    held_profit = profit(held, win_rate=None, trade_count=0)
    return {
        "profit": profit(ours, **others),
        "baselines": {"buy_and_hold": held_profit},
        "days": 3,
        "first": "2020-01-01",
        "last": "2020-01-03",
    }


def some_result() -> dict:
    losses = {"model": 0.24, "nothing_changes": 0.25, "unconditional": 0.23}
    return {
        "signature": "0123abcd",
        "steps": 200,
        "best_step": 100,
        "eval": {"loss": 0.24},
        "loss": {"train": losses, "valid": losses},
        "valid": period(0.0421, 0.11),
        "test": period(-0.013, 0.02),
        "profit_loss_correlation": {"rank_correlation": -0.42, "probes": 2, "interval": [-0.8, 0.1]},
        "warnings": [f"odd symbol {HOSTILE}"],
        "skipped_steps": 2,
        "seconds": 75.0,
    }


def some_equity() -> pd.DataFrame:
    days = pd.to_datetime(["2020-01-01", "2020-01-02", "2020-01-03"])
    valid = pd.DataFrame({"window": "valid", "date": days, "equity": [990.0, 1100.0, 880.0], "buy_and_hold": 1000.0})
    test = valid.assign(window="test", date=days + pd.Timedelta(days=30))
    return pd.concat([valid, test], ignore_index=True)


def some_trades(number: int) -> pd.DataFrame:
    frame = pd.DataFrame({"symbol": [f"S{i}" for i in range(number - 1)] + [HOSTILE]})
    return frame.assign(
        window="valid",
        side="long",
        shares=1.5,
        entry_date=pd.Timestamp("2020-01-01"),
        entry_price=10.0,
        exit_date=pd.NaT,
        exit_price=np.nan,
        costs=0.01,
        pnl=-0.004,
        exit_reason="stop_loss",
    )


def a_run(outputs: Path, result: dict | None = None, trades: int = 3, config_diff: dict | None = None) -> Path:
    manifest = {
        "signature": "0123abcd",
        "argv": ["train.py", f"stocks.symbols=[{HOSTILE}]"],
        "data": {"source": HOSTILE, "symbols": [HOSTILE] * 20, "fingerprint": "ab"},
        "code": {"commit": "c" * 40, "dirty": True},
    }
    diff = {"stocks.symbols": [HOSTILE]} if config_diff is None else config_diff
    with RunRecord.create(outputs, "single", "small", CONFIG, diff, manifest) as run:
        for step in range(10, 210, 10):
            values = {"train/loss": 1 / step}
            if step % 100 == 0:
                values |= {"eval/loss": 0.25, "profit/total_return": 0.1, "profit/sharpe_ratio": float("nan")}
            run.log(step, values)
        if result is not None:
            run.write_equity(some_equity())
            run.write_trades(some_trades(trades))
            write_json_atomically(run.folder / "result.json", without_nan(result))
    return run.folder


def evidence_of(name: str) -> dict:
    """The evidence of a period in the shape of result.json."""
    lead = {"value": 0.25, "low": -0.5, "high": 1.0}
    return {
        "null": {
            "p": 0.31,
            "band": [-1.25, 0.0, 1.5],
            "draws": 500,
            "selection_p": 0.42,
            "selection_band": [-2.0, 0.1, 2.25],
        },
        "interval": [-0.75, 1.75],
        "difference": {"value": -0.1, "low": -1.0, "high": 0.8},
        "baselines": {
            "lightgbm": profit(0.2) | {"difference": {"value": float("nan"), "low": None, "high": None}},
            "buy_and_hold": profit(0.11),
            "trend": profit(0.12) | {"difference": lead},
            f"odd_{HOSTILE}": profit(0.3),
        },
        "calibration": [
            {"horizon": horizon, "level": level, "share": level + 0.02, "count": 900}
            for level in (0.9, 0.1, 0.5)
            for horizon in (5, 1)
        ],
        "scores": {
            "ic": {"value": 0.0213, "t": 1.4, "low": -0.01, "high": 0.05, "days": 480},
            "mcc": {"value": None, "t": None, "low": None, "high": None, "days": 480},
        },
    }


VERDICT = "beats chance but not buy and hold (p = 0.01; Sharpe difference -0.1 [-1.0, 0.8])"


def a_result_with_evidence() -> dict:
    result = some_result()
    for name in ("valid", "test"):
        result[name] = result[name] | evidence_of(name)
    return result | {
        "verdict": VERDICT,
        "deflated_sharpe": 0.9004,
        "n_trials": 100,
        "test_openings": 3,
        "leak_proof": {"days": 2, "ok": True, "seconds": 0.4},
    }


def a_run_with_evidence(outputs: Path) -> Path:
    folder = a_run(outputs, a_result_with_evidence())
    equity = some_equity()
    band = equity[["window", "date"]].assign(q05=800.0, q25=900.0, q50=[1000, 990, np.nan] * 2, q75=1100.0, q95=1200.0)
    with RunRecord.reopen(folder, 200) as run:
        run.write_null_band(band)
    return folder


def html_of(folder: Path) -> str:
    return write_report(folder).read_text()


def headline_of(folder: Path) -> str:
    return text_in(re.search(r'<h1 id="headline">(.*?)</h1>', html_of(folder), re.S).group(1))


def verdict_of(page: str) -> str:
    return text_in(re.search(r'<p class="verdict" id="verdict">(.*?)</p>', page, re.S).group(1))


def text_in(markup: str) -> str:
    return " ".join(html.unescape(re.sub("<[^>]+>", "", markup)).split())


def cell(page: str, metric: str) -> str:
    return re.search(rf'data-metric="{re.escape(metric)}">(.*?)</td>', page).group(1)


def figures_of(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.S).group(1))


def test_the_report_shows_the_metrics_beside_those_of_buy_and_hold(tmp_path):
    page = html_of(a_run(tmp_path, some_result()))
    assert cell(page, "valid.profit.total_return") == "+4.2%"
    assert cell(page, "valid.baselines.buy_and_hold.total_return") == "+11.0%"
    assert cell(page, "test.profit.total_return") == "&minus;1.3%"
    assert cell(page, "test.profit.trade_count") == "3"
    assert cell(page, "test.baselines.buy_and_hold.win_rate") == "&ndash;"
    assert cell(page, "loss.valid.nothing_changes") == "0.2500"
    assert "2 training steps were skipped" in page
    assert "cccccccccccc, with uncommitted changes" in page


@pytest.mark.parametrize(
    ("valid", "test", "headline"),
    [
        (0.2, -0.463, "It lost 46.3 %, where holding earned 10.0 % (3 test days, 2020-01-01 to 2020-01-03)"),
        (0.2, None, "It earned 20.0 %, where holding earned 10.0 % (3 validation days, 2020-01-01 to 2020-01-03)"),
        (0.2, 0.0, "It broke even, where holding earned 10.0 % (3 test days, 2020-01-01 to 2020-01-03)"),
    ],
)
def test_the_headline_is_the_money_of_the_test_days_or_of_the_validation_days_if_these_stay_sealed(
    tmp_path, valid, test, headline
):
    result = some_result() | {"valid": period(valid, 0.1), "test": None if test is None else period(test, 0.1)}
    assert headline_of(a_run(tmp_path, result)) == headline


def test_the_money_of_the_validation_days_is_told_too_where_the_test_days_give_the_headline(tmp_path):
    page = html_of(a_run(tmp_path, some_result()))
    said = "On the validation days, which chose what was kept, it earned 4.2&nbsp;%, where holding earned 11.0&nbsp;%."
    assert said in page


def test_a_model_that_never_traded_does_not_beat_a_falling_market(tmp_path):
    still = period(0.0, -0.1, exposure=0.0, trade_count=0, sharpe_ratio=None)
    folder = a_run(tmp_path, some_result() | {"valid": still, "test": still})
    assert headline_of(folder).startswith("It took no position, where holding lost 10.0 %")


def test_the_verdict_stands_under_the_money_and_a_report_without_one_says_that_luck_was_not_tested(tmp_path):
    verdict = "indistinguishable from chance (p = 0.31)"
    assert "tested against luck" in html_of(a_run(tmp_path, some_result()))
    page = html_of(a_run(tmp_path, some_result() | {"verdict": verdict}))
    assert verdict_of(page) == verdict
    assert page.index('id="headline"') < page.index('id="verdict"') < page.index('class="lede"')
    assert "tested against luck" not in page


SKILL = {"alpha": {"value": 0.3, "low": 0.1, "high": 0.5}, "p": 0.01, "n_trials": 40, "deflated_sharpe": 0.97}
NONE = {"alpha": {"value": 0.1, "low": -0.2, "high": 0.4}, "p": 0.4, "n_trials": 37}
BEHIND = {"alpha": {"value": -0.3, "low": -0.5, "high": -0.1}, "p": 0.99, "n_trials": 2}


@pytest.mark.parametrize(
    ("verdict", "numbers", "meaning"),
    [
        ("indistinguishable from chance", {"null": {"p": 0.31}}, "the same positions often did as well"),
        ("indistinguishable from chance", {"null": {"p": 0.31}, "benchmark": NONE}, "positions often did as well"),
        ("indistinguishable from chance", {"null": {"p": 0.01}, "benchmark": NONE}, "Of 37 trials the best one often"),
        (
            "indistinguishable from chance",
            {"null": {"p": 0.01}, "benchmark": NONE | {"n_trials": 1}},
            "beyond its benchmark lies within the margin of error",
        ),
        ("indistinguishable from chance", {"null": {"p": 0.01}}, "Of 100 trials the best one often"),
        ("indistinguishable from chance", {}, "Luck alone could explain this result"),
        ("loses", {"benchmark": BEHIND}, "It earned less than its benchmark, by more than the margin"),
        ("loses", {"benchmark": NONE, "interval": [-2.0, -0.1]}, "It lost money, by more than the margin of error"),
        ("loses", {"benchmark": BEHIND, "interval": [-2.0, -0.1]}, "It lost money, and earned less than its bench"),
        ("loses", {}, "It earned less than its benchmark, or lost money"),
        ("beats chance but not buy and hold", {"benchmark": SKILL}, "cannot be told from simply holding the stocks"),
        ("beats buy and hold", {"benchmark": SKILL}, "the best of all trials would without skill"),
        ("beats the base model", {"benchmark": SKILL}, "earned more than the base model did"),
        ("beats buy and hold", {}, "what it earned beyond holding was not tested"),
    ],
)
def test_a_verdict_is_explained_in_one_plain_sentence_by_the_numbers_of_its_period(tmp_path, verdict, numbers, meaning):
    result = some_result() | {"verdict": f"{verdict} (figures)", "n_trials": 100}
    result["test"] = result["test"] | numbers
    (sentence, *_) = re.findall(r'<p class="lede">(.*?)</p>', html_of(a_run(tmp_path, result)))
    assert meaning in sentence and sentence.endswith(".")


def test_each_period_has_its_own_verdict(tmp_path):
    result = a_result_with_evidence()
    result["valid"]["verdict"], result["test"]["verdict"] = (
        f"beats {HOSTILE}",
        "indistinguishable from chance (p = 0.8)",
    )
    page = html_of(a_run(tmp_path, result))
    assert '<p class="against">beats &lt;script&gt;' in page
    assert '<p class="against">indistinguishable from chance (p = 0.8)</p></article>' in page


def test_an_unknown_verdict_has_no_explanation(tmp_path):
    page = html_of(a_run(tmp_path, some_result() | {"verdict": "no verdict: too few days"}))
    assert verdict_of(page) == "no verdict: too few days"
    assert re.findall(r'<p class="lede">(.*?)</p>', page)[0].startswith("On the validation days, which chose")


ALARM = (
    "the information coefficient is 0.200 (95 % interval 0.150 to 0.250), above 0.060: a leak until proven otherwise"
)


def test_alarms_stand_on_top_of_the_page_and_say_of_which_days_they_are(tmp_path):
    result = some_result() | {"verdict": VERDICT}
    result["test"] = result["test"] | {"alarms": [ALARM, HOSTILE]}
    page = html_of(a_run(tmp_path, result))
    box = re.search(r'<aside class="note alarm".*?</aside>', page, re.S)
    assert text_in(box.group()).startswith(f"On the test days {ALARM}") and HOSTILE not in page
    assert page.index('id="verdict"') < box.start() < page.index('class="lede"') < page.index('class="windows"')
    assert 'class="note alarm"' not in html_of(a_run(tmp_path / "calm", some_result()))


def test_the_evidence_beside_the_benchmark_has_a_row_for_each_known_number(tmp_path):
    against = SKILL | {"beta": 0.81, "information_ratio": 1.25, "residual_volatility": 0.1}
    result = a_result_with_evidence()
    result["valid"]["benchmark"], result["test"]["benchmark"] = against, {"beta": 0.5}
    page = html_of(a_run(tmp_path, result))
    texts = {
        "alpha": "+30.0% [+10.0%, +50.0%]",
        "p": "0.010, best of 40",
        "beta": "0.81",
        "information_ratio": "1.25",
        "deflated_sharpe": "0.970, best of 40",
    }
    for name, text in texts.items():
        assert text_in(cell(page, f"valid.benchmark.{name}")) == text
    assert cell(page, "test.benchmark.beta") == "0.50" and cell(page, "test.benchmark.p") == "&ndash;"
    meaning = "the probability that the true Sharpe ratio of the returns beyond the benchmark exceeds what the best of"
    assert f"{meaning} 40 trials without skill would show" in page
    assert 'data-metric="deflated_sharpe"' not in page  # that of the net returns would contradict it
    result["valid"]["benchmark"] = {"beta": 0.81}
    page = html_of(a_run(tmp_path / "few", result))
    assert "Information ratio" not in page and "Alpha a year" not in page and "Beta to buy and hold" in page


def test_the_evidence_has_its_own_table(tmp_path):
    page = html_of(a_run_with_evidence(tmp_path))
    texts = {
        "null.p": "0.310",
        "interval": "0.50 [&minus;0.75, 1.75]",
        "null.band": "&minus;1.25 to 1.50",
        "difference": "&minus;0.10 [&minus;1.00, 0.80]",
        "null.selection_p": "0.420",
        "null.selection_band": "&minus;2.00 to 2.25",
    }
    for period_name in ("valid", "test"):
        for name, text in texts.items():
            assert re.sub("<[^>]+>", "", cell(page, f"{period_name}.{name}")) == text
    assert cell(page, "deflated_sharpe") == "0.900"
    assert "Deflated Sharpe ratio of the net returns, 100 trials" in page
    assert "the true Sharpe ratio exceeds what the best of 100 trials without skill would show" in page
    assert "moved in time at random, 500 times" in page


def test_every_baseline_has_a_readable_name_and_its_sharpe_ratio_less_buy_and_holds(tmp_path):
    page = html_of(a_run_with_evidence(tmp_path))
    assert "LightGBM, same features" in page and "Buy and hold, equal weights" in page
    lead = '+0.25 <span class="between">[&minus;0.50, 1.00]</span>'
    assert cell(page, "valid.baselines.trend.difference") == lead
    assert cell(page, "valid.baselines.buy_and_hold.difference") == "&ndash;"  # from itself
    assert cell(page, "valid.profit.difference").startswith("&minus;0.10")
    assert cell(page, "valid.baselines.lightgbm.difference") == "&ndash;"
    assert cell(page, "test.baselines.lightgbm.sharpe_ratio") == "0.50"
    assert HOSTILE not in page


def test_scores_have_intervals_and_an_unknown_score_is_a_dash(tmp_path):
    page = html_of(a_run_with_evidence(tmp_path))
    assert cell(page, "valid.scores.ic") == "0.021" and "[&minus;0.010, 0.050]" in page
    assert cell(page, "test.scores.mcc") == "&ndash;"
    assert "Right direction" not in page  # was not measured


def test_the_fan_of_luck_lies_under_the_curves_of_both_periods(tmp_path):
    figures = figures_of(html_of(a_run_with_evidence(tmp_path)))
    traces = figures["equity-chart"]["data"]
    assert [trace["name"] for trace in traces[-4:]] == ["buy and hold", "model"] * 2  # drawn last, so on top
    filled = [(t["name"], t["x"][0], t["y"]) for t in traces if t.get("fill")]
    assert ("luck, 5-95%", "2020-01-01", [1200.0] * 3) in filled and (
        "luck, 25-75%",
        "2020-01-31",
        [1100.0] * 3,
    ) in filled
    median = next(trace for trace in traces if trace["name"] == "luck, median")
    assert median["line"]["dash"] == "dash" and median["y"] == [1000.0, 990.0, None]
    shown = [trace["name"] for trace in traces if trace.get("showlegend", True)]
    assert sorted(shown) == ["buy and hold", "luck, 25-75%", "luck, 5-95%", "luck, median", "model"]
    assert all(not trace["name"].startswith("luck") for trace in figures["drawdown-chart"]["data"])


def test_calibration_is_drawn_by_horizon_in_the_order_of_levels(tmp_path):
    chart = figures_of(html_of(a_run_with_evidence(tmp_path)))["calibration-chart"]
    names = [trace["name"] for trace in chart["data"]]
    assert names == ["1 day, validation", "5 days, validation", "1 day, test", "5 days, test"]
    assert chart["data"][0]["x"] == [0.1, 0.5, 0.9] and chart["data"][0]["y"] == pytest.approx([0.12, 0.52, 0.92])
    (diagonal,) = chart["layout"]["shapes"]
    assert [diagonal[end] for end in ("x0", "y0", "x1", "y1")] == [0, 0, 1, 1]


def test_the_provenance_shows_openings_trials_and_the_leak_proof(tmp_path):
    page = html_of(a_run_with_evidence(tmp_path))
    assert "<dt>Test window</dt><dd>opened 3 times so far</dd>" in page
    assert "<dt>Trials</dt><dd>100 on these validation days, this one included</dd>" in page
    assert "<dt>Leak proof</dt><dd>nothing leaked, tried on 2 random days</dd>" in page
    assert "has been opened 3 times: this is no longer a first look" in page
    failed = a_result_with_evidence() | {"leak_proof": {"days": 2, "ok": False}, "test_openings": 1}
    page = html_of(a_run(tmp_path, failed))
    assert "The leak proof failed" in page and "opened 1 time so far" in page and "first look" not in page


def test_a_report_leaves_out_sections_without_numbers(tmp_path):
    page = html_of(a_run(tmp_path, some_result()))
    for heading in ("Evidence", "Baselines", "Forecast scores", "Calibration"):
        assert f"<h2>{heading}</h2>" not in page
    for term in ("Trials", "Test window", "Leak proof"):
        assert f"<dt>{term}</dt>" not in page
    assert "fan" not in page[page.index("<body>") :]


def test_unknown_evidence_is_shown_as_dashes(tmp_path):
    nothing = {
        "null": {"p": None, "band": [None, None, None], "draws": 0},
        "interval": [None, None],
        "difference": {"value": None, "low": None, "high": None},
        "calibration": [{"horizon": 1, "level": 0.1, "share": None, "count": 0}],
        "scores": {},
    }
    result = some_result()
    result["valid"] |= nothing
    page = html_of(a_run(tmp_path, result | {"deflated_sharpe": None, "n_trials": 4, "verdict": VERDICT}))
    assert cell(page, "valid.interval") == "0.50" and 'data-metric="deflated_sharpe"' not in page
    assert 'data-metric="valid.null.p"' not in page
    assert figures_of(page)["calibration-chart"]["data"][0]["y"] == [None]


def test_the_report_says_whether_the_forecast_beats_no_change_and_a_constant(tmp_path):
    page = html_of(a_run(tmp_path, some_result()))
    assert "beats &ldquo;nothing changes&rdquo; on validation: a loss of 0.2400 against 0.2500" in page
    assert "one constant forecast, at 0.2300, does as well or better" in page
    worse = some_result()
    worse["loss"]["valid"] = {"model": 0.26, "nothing_changes": 0.25}
    assert "does not beat &ldquo;nothing changes&rdquo;" in html_of(a_run(tmp_path, worse))


def a_recommendation() -> Recommendation:
    candidates = {
        "base": CandidateResult(loss=0.3, profit={"total_return": 0.1, "sharpe_ratio": float("nan")}),
        "full": CandidateResult(
            loss=0.31,
            loss_difference=Estimate(0.01, -0.02, 0.03),
            p=0.25,
            money="It lost 4.0 %, where holding earned 9.6 %.",
            verdict="loses (figures)",
        ),
        f"odd_{HOSTILE}": CandidateResult(difference=Estimate(-0.5, None, None)),
    }
    return Recommendation("base", "keep the base model", n_trials=3, other_symbols=4, candidates=candidates)


def test_the_recommendation_of_a_fine_tune_has_a_row_for_each_candidate(tmp_path):
    folder = a_run(tmp_path, some_result())
    write_result(folder, RunResult(recommendation=a_recommendation()))
    page = html_of(folder)
    assert (
        cell(page, "decision.base.total_return") == "+10.0%" and cell(page, "decision.base.sharpe_ratio") == "&ndash;"
    )
    apart = '+0.0100 <span class="between">[&minus;0.0200, 0.0300]</span>'
    assert cell(page, "decision.full.loss_difference") == apart and cell(page, "decision.full.p") == "0.250"
    assert cell(page, "decision.odd_&lt;script&gt;alert(1)&lt;/script&gt;.difference") == "&minus;0.50"
    assert HOSTILE not in page and page.count('class="chosen"') == 1
    assert '<p class="lede">Keep the base model.</p>' in page and "3 trials on these data and days" in page
    assert "base&rsquo;s 4 other stocks" in page
    (said,) = re.findall(r"<dt>Fine-tuning all weights</dt><dd>(.*?)</dd>", page)
    assert text_in(said) == "It lost 4.0 %, where holding earned 9.6 %. Loses (figures)."


def test_an_empty_result_has_a_report(tmp_path):
    folder = a_run(tmp_path, some_result())
    write_result(folder, RunResult())
    assert headline_of(folder) == "Finished, without a profit to show."


def test_text_from_outside_is_escaped(tmp_path):
    page = html_of(a_run(tmp_path, some_result()))
    assert HOSTILE not in page
    assert page.count("&lt;script&gt;alert(1)") >= 5  # warning, trade, config diff, command, data
    verdict = some_result() | {"verdict": "</title></script><script>alert(2)</script>"}
    assert "<script>alert(2)" not in html_of(a_run(tmp_path, verdict))


def test_an_interrupted_run_has_a_report_without_made_up_numbers(tmp_path):
    folder = a_run(tmp_path, result=None)
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 210, "train/lo')
    assert headline_of(folder) == "Not finished: the run stands at step 200, not yet evaluated."
    page = html_of(folder)
    assert "The last probe, at step 200, returned +10.0%" in page
    assert "data-metric" not in page and set(figures_of(page)) == {"probes-chart"}


def test_a_run_without_any_step_has_a_report(tmp_path):
    with RunRecord.create(tmp_path, "single", "small", {}, {}, {}) as run:
        pass
    assert headline_of(run.folder) == "Not finished: the run stands before its first step, not yet evaluated."
    assert figures_of(html_of(run.folder)) == {}


def test_a_folder_that_is_not_a_run_gets_no_report(tmp_path):
    with pytest.raises(ValueError, match=r"is not a run: it has no run\.json"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_drawdown_counts_from_the_initial_capital(tmp_path):
    traces = figures_of(html_of(a_run(tmp_path, some_result())))["drawdown-chart"]["data"]
    (valid, _) = (trace["y"] for trace in traces if trace["name"] == "model")
    # By hand: 990 under 1000; 1100 is a new top; 880 is a fifth below it.
    assert valid == pytest.approx([-0.01, 0.0, -0.2])


def test_curves_have_every_day_and_keep_their_gaps(tmp_path):
    figures = figures_of(html_of(a_run(tmp_path, some_result())))
    equity = {(trace["name"], trace["x"][0]): trace["y"] for trace in figures["equity-chart"]["data"]}
    assert equity["model", "2020-01-01"] == [990.0, 1100.0, 880.0]
    assert equity["model", "2020-01-31"] == [990.0, 1100.0, 880.0]
    sharpe = next(trace for trace in figures["probes-chart"]["data"] if trace["name"] == "validation Sharpe")
    assert sharpe["x"] == [100, 200] and sharpe["y"] == [None, None]


def test_of_many_trades_the_first_and_last_are_shown_and_all_are_counted(tmp_path):
    page = html_of(a_run(tmp_path, some_result(), trades=1000))
    shown = re.findall(r'<tr><td class="left">(S\d+|&lt;script)', page)
    assert len(shown) == 2 * TRADES_SHOWN and shown[0] == "S0" and shown[TRADES_SHOWN] == "S800"
    assert "600 trades in between" in page
    assert f"The first and last {TRADES_SHOWN} of 1,000 trades" in page
    assert re.search(r"Stop loss</th><td>1,000</td>", page)
    assert page.count('<td class="left">&ndash;</td><td>&ndash;</td>') == 2 * TRADES_SHOWN  # none of them has ended
    assert "<td>&minus;0.00</td>" not in page  # a cost of less than a cent is not minus nothing


def test_the_report_says_that_there_were_no_trades_and_no_changed_fields(tmp_path):
    folder = a_run(tmp_path, some_result(), config_diff={})
    pd.read_parquet(folder / "trades.parquet").head(0).to_parquet(folder / "trades.parquet")
    page = html_of(folder)
    assert '<h2>Trades</h2><p class="quiet">None.</p>' in page
    assert '<h2>What differs from the defaults</h2><p class="quiet">Nothing.</p>' in page


def test_numbers_read_as_people_write_them():
    changes = [in_a_cell(number(value, "change")) for value in (0.0421, -0.13, -0.0004)]
    assert changes == ["+4.2%", "&minus;13.0%", "+0.0%"]
    assert [number(1234.5, "ratio"), number(-0.001, "ratio"), number(12_345.0, "count")] == [
        "1,234.50",
        "0.00",
        "12,345",
    ]
    assert [in_a_cell(number(6.31, "times")), number(0.25, "ratio", signed=True)] == ["6.3&times;", "+0.25"]
    unknown = [
        number(value, unit) for value, unit in ((None, "change"), (float("nan"), "ratio"), (float("inf"), "count"))
    ]
    assert unknown == ["-"] * 3 and [in_a_cell(text) for text in unknown] == ["&ndash;"] * 3


def test_typeset_text_has_the_signs_of_a_printed_page_and_keeps_its_hyphens():
    text = 'from -1.5 to -, on 2020-01-01: "well-known" <b> of S-2'
    printed = "from &minus;1.5 to &ndash;, on 2020-01-01: &ldquo;well-known&rdquo; &lt;b&gt; of S-2"
    assert typeset(text) == printed


def test_a_date_in_a_sentence_is_kept_on_one_line_and_what_comes_from_outside_stays_text():
    assert prose("to 2020-01-01 <b>") == 'to <span class="whole">2020-01-01</span> &lt;b&gt;'
    assert split_brackets("It lost 1 % (3 days, to 2020-01-01).") == ("It lost 1 %", "(3 days, to 2020-01-01)")
    assert split_brackets("No verdict.") == ("No verdict.", "")


def test_all_runs_share_one_copy_of_the_chart_script(tmp_path):
    folders = [a_run(tmp_path / "outputs") for _ in range(3)]
    for folder in folders * 2:
        write_report(folder)
    inodes = {(folder / "plotly.min.js").stat().st_ino for folder in folders}
    assert inodes == {(tmp_path / "outputs" / ".plotly.min.js").stat().st_ino}
    assert [path.name for path in folders[0].glob(".*")] == [LOCK_FILE]


@pytest.mark.parametrize("by", ["content", "link"])
def test_a_chart_script_that_somebody_has_changed_is_replaced_before_it_reaches_a_report(tmp_path, by):
    write_report(a_run(tmp_path / "outputs"))
    shared = tmp_path / "outputs" / ".plotly.min.js"
    good, evil = shared.read_bytes(), b"alert(1)//".ljust(shared.stat().st_size)
    shared.unlink()
    (tmp_path / "evil.js").write_bytes(evil)
    shared.write_bytes(evil) if by == "content" else shared.symlink_to(tmp_path / "evil.js")
    own = a_run(tmp_path / "outputs")
    write_report(own)
    assert (own / "plotly.min.js").read_bytes() == good and not shared.is_symlink()
    assert (tmp_path / "evil.js").read_bytes() == evil


def test_a_run_that_was_moved_away_gets_its_own_copy_of_the_chart_script(tmp_path):
    moved = tmp_path / "mail" / "attachment"
    shutil.copytree(a_run(tmp_path / "outputs"), moved)
    write_report(moved)
    assert (moved / "plotly.min.js").stat().st_nlink == 1
    assert not list(tmp_path.glob(".plotly*")) and not list((tmp_path / "mail").glob(".plotly*"))


def test_without_hard_links_the_chart_script_is_copied(tmp_path, monkeypatch):
    def no_links(source: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_links)
    folder = a_run(tmp_path / "outputs")
    write_report(folder)
    shared = tmp_path / "outputs" / ".plotly.min.js"
    assert (folder / "plotly.min.js").read_bytes() == shared.read_bytes()
    assert (folder / "plotly.min.js").stat().st_nlink == 1


def test_writing_the_report_again_gives_the_same_bytes(tmp_path):
    folder = a_run(tmp_path, some_result())
    assert write_report(folder).read_bytes() == write_report(folder).read_bytes()


# A browser window is at least 500 pixels wide; a frame can be as narrow as a phone.
FRAME = """<!doctype html><body style="margin:0"><iframe id="frame" src="report.html" width="{width}" height="4000"
style="border:0"></iframe><script>frame.onload = () => setTimeout(() => {{
  const page = frame.contentDocument, root = page.documentElement;
  document.body.dataset.found = JSON.stringify({{
    width: root.clientWidth, content: root.scrollWidth, headline: page.getElementById("headline").innerText,
    verdict: page.getElementById("verdict").innerText,
    curves: [...page.querySelectorAll(".chart")].map((c) => c.querySelectorAll(".scatterlayer .js-line").length),
    fans: [...page.querySelectorAll(".chart")].map((c) => c.querySelectorAll(".scatterlayer .js-fill").length),
    chartWidths: [...page.querySelectorAll(".chart .main-svg")].map((svg) => svg.getBoundingClientRect().width),
    strokes: [...page.querySelectorAll(".scatterlayer .js-line")].map((line) => line.style.stroke),
    scripts: page.querySelectorAll("main script").length,
  }});
}}, 1000)</script>"""


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize(("scheme", "stroke"), [(1, "rgb(29, 91, 155)"), (0, "rgb(127, 181, 240)")])
def test_a_browser_shows_the_money_the_verdict_and_the_curves_at_this_width_without_an_error(
    tmp_path, width, scheme, stroke
):
    folder = a_run_with_evidence(tmp_path / "outputs")
    write_report(folder)
    (folder / "frame.html").write_text(FRAME.format(width=width))
    found = found_in(drawn(folder / "frame.html", tmp_path, width, scheme))
    assert " ".join(found["headline"].split()).startswith("It lost 1.3 %, where holding earned 11.0 %")
    assert found["verdict"].replace("\N{MINUS SIGN}", "-").lower().split() == VERDICT.lower().split()
    assert found["content"] <= found["width"] <= width  # nothing to scroll sideways
    # In each of two periods: model, buy and hold, the median of luck and four edges of its fan. The Sharpe ratio of
    # this run was never a number, so of the probes only the losses are drawn.
    assert found["curves"] == [14, 4, 2, 4]
    assert found["fans"] == [4, 2, 0, 0]
    assert max(found["chartWidths"]) <= width
    assert stroke in found["strokes"]
    assert found["scripts"] == 0
