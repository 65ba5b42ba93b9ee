"""result.json: what is written comes back, and files of earlier versions still load."""

import json
import math

from hftraining.runs.quantities import Estimate
from hftraining.runs.result import Against, AtCosts, Baseline, PeriodResult, RunResult, read_result, write_result


def test_the_benchmark_the_alarms_and_the_money_come_back_as_they_were_written(tmp_path):
    against = Against(0.8, Estimate(0.021, -0.04, 0.083), 0.31, 0.62, 12, 0.2, 0.11)
    baselines = {
        "buy_and_hold": Baseline({"total_return": 0.961}),
        "trend": Baseline({"total_return": 0.1}, Estimate(0.1, -1.0, 1.2), Estimate(-0.2, -1.5, 0.9)),
    }
    costs = [AtCosts(0.0, 0.2, 1.1), AtCosts(5.0)]
    period = PeriodResult(
        at_costs=costs, days=3, baselines=baselines, benchmark=against, alarms=["a leak"], money="It lost 46.3 %."
    )
    result = RunResult(periods={"valid": period, "test": PeriodResult()})
    write_result(tmp_path, result)
    assert read_result(tmp_path) == result
    written = json.loads((tmp_path / "result.json").read_text())["valid"]
    assert written["benchmark"]["alpha"] == {"value": 0.021, "low": -0.04, "high": 0.083}
    assert (written["alarms"], written["money"]) == (["a leak"], "It lost 46.3 %.")


def test_unknown_numbers_of_the_benchmark_are_null_in_the_file_and_none_when_read(tmp_path):
    unknown = Against(math.nan, Estimate(math.nan, math.nan, math.nan), math.nan)
    write_result(tmp_path, RunResult(periods={"valid": PeriodResult(benchmark=unknown)}))
    assert read_result(tmp_path).valid.benchmark == Against()
    assert RunResult().number("valid.benchmark.beta") is None


def test_a_result_of_an_earlier_version_has_no_benchmark_no_alarms_and_no_sentence(tmp_path):
    old = {"valid": {"days": 2, "profit": {"sharpe_ratio": 0.5}, "verdict": "beats chance but not buy and hold"}}
    (tmp_path / "result.json").write_text(json.dumps(old))
    valid = read_result(tmp_path).valid
    assert (valid.benchmark, valid.alarms, valid.money, valid.at_costs) == (None, [], "", [])
    assert valid.verdict == "beats chance but not buy and hold"
