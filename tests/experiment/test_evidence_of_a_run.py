"""The evidence of a whole run: ledger, sealed test days, leak proof, the same numbers everywhere."""

import html
import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hftraining import profit_tracker
from hftraining.__main__ import main
from hftraining.core.errors import Interrupted, LeakError
from hftraining.portfolio.weights import target_weights
from hftraining.runs.ledger import Ledger
from hftraining.runs.record import RunRecord
from tests import looks_ahead
from tests.runs_of import run


def entries(output):
    return Ledger(output / "ledger.sqlite").entries()


def test_a_run_is_a_row_with_its_daily_validation_returns(folder, tmp_path):
    result = run(folder, tmp_path)
    (entry,) = entries(tmp_path)
    equity = pd.read_parquet(Path(result["folder"]) / "equity.parquet")
    valid = equity[equity["window"] == "valid"]["equity"]
    assert entry.status == "done" and entry.signature == result["signature"]
    assert list(entry.valid.returns) == pytest.approx(valid.pct_change().iloc[1:].tolist(), abs=1e-12)
    assert entry.windows["valid"] and entry.windows["test"]


@pytest.mark.slow
def test_every_seed_is_a_trial_a_repetition_is_none_and_a_deleted_folder_still_counts(folder, tmp_path):
    counts = []
    for seed in (1, 2, 2, 3):
        result = run(folder, tmp_path, f"seed={seed}")
        counts.append((result["n_trials"], result["test_openings"]))
        shutil.rmtree(result["folder"])
    assert counts == [(1, 1), (2, 2), (2, 2), (3, 3)]


@pytest.mark.slow
def test_the_same_config_under_code_that_trades_otherwise_is_another_trial(folder, tmp_path, monkeypatch):
    counts = [run(folder, tmp_path, "seed=1")["n_trials"]]
    monkeypatch.setattr(profit_tracker, "target_weights", lambda *given: 0.5 * target_weights(*given))
    counts += [run(folder, tmp_path, "seed=1")["n_trials"] for _ in range(2)]
    assert counts == [1, 2, 2]


@pytest.mark.slow
def test_a_run_that_failed_or_was_interrupted_counts_and_has_not_opened_the_test_days(folder, tmp_path, monkeypatch):
    for seed, ending in ((5, RuntimeError("broken")), (6, Interrupted("stopped"))):

        def fail(self, step, values, ending=ending):
            raise ending

        monkeypatch.setattr(RunRecord, "log", fail)
        with pytest.raises(type(ending)):
            run(folder, tmp_path, f"seed={seed}")
        monkeypatch.undo()
    assert [entry.status for entry in entries(tmp_path)] == ["failed", "interrupted"]
    result = run(folder, tmp_path, "seed=7")
    assert (result["n_trials"], result["test_openings"]) == (3, 1)


def test_a_leak_in_a_feature_stops_the_run_before_anything_is_written(folder, tmp_path, monkeypatch):
    looks_ahead.plant(monkeypatch)
    with pytest.raises(LeakError, match=r"nothing was trained: .*features up to .* change with bars after that day"):
        run(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_leaks_command_passes_a_trained_run_and_ends_with_1_when_its_features_look_ahead(
    reference, capsys, monkeypatch
):
    path = reference["folder"]
    assert main(["leaks", path, "--days", "12", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"ok": True, "days": 12, "lines": []}
    looks_ahead.plant(monkeypatch)
    assert main(["leaks", path, "--days", "2"]) == 1
    assert re.search(r"features up to .* change with bars after that day", capsys.readouterr().out)


def test_the_numbers_of_a_run_are_the_same_in_result_report_console_and_tensorboard(folder, tmp_path, capsys):
    result = run(folder, tmp_path)
    path, console = Path(result["folder"]), capsys.readouterr().out
    written = json.loads((path / "result.json").read_text())
    page = (path / "report.html").read_text()
    row = f"{next(line for line in console.splitlines() if line.startswith('Sharpe ratio'))} "
    for window in ("valid", "test"):
        sharpe = written[window]["profit"]["sharpe_ratio"]
        assert f" {sharpe:.2f} " in row and written[window]["money"][:-1] in console
        cell = re.search(rf'data-metric="{window}.profit.sharpe_ratio"[^>]*>([^<]+)<', page)[1]
        assert html.unescape(cell).replace("\N{MINUS SIGN}", "-") == f"{sharpe:.2f}"
    assert written["verdict"] in console and written["verdict"].split(" (")[0].lower() in page.lower()
    board = EventAccumulator(str(path)).Reload()
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    probes = {line["step"]: line for line in lines if "profit/sharpe_ratio" in line}
    for tag in ("eval/loss", "profit/sharpe_ratio", "profit/total_return", "profit/max_drawdown", "profit/trade_count"):
        events = {event.step: event.value for event in board.Scalars(tag)}
        assert events == pytest.approx({step: line[tag] for step, line in probes.items()}, rel=1e-6)
    kept = probes[written["best_step"]]
    assert kept["profit/sharpe_ratio"] == written["valid"]["profit"]["sharpe_ratio"]


def test_the_evidence_stands_in_the_result_as_documented(reference):
    result = json.loads((Path(reference["folder"]) / "result.json").read_text())
    for window in ("valid", "test"):
        part = result[window]
        assert 0 < part["null"]["p"] <= 1 and len(part["null"]["band"]) == 3
        low, high = part["interval"]
        assert low < part["profit"]["sharpe_ratio"] < high
        assert set(part["baselines"]) == {
            *("buy_and_hold", "risk_matched"),
            *("momentum", "momentum_top", "trend", "reversal", "ridge"),
        }
        assert set(part["scores"]) == {"ic", "rank_ic", "accuracy", "mcc"}
        assert all(0 <= row["share"] <= 1 for row in part["calibration"])
    assert {"verdict", "deflated_sharpe", "n_trials", "test_openings", "leak_proof"} <= set(result)


@pytest.mark.slow
def test_a_second_trial_beside_one_without_a_sharpe_is_judged_as_chance(folder, tmp_path, monkeypatch):
    def fail(self, step, values):
        raise RuntimeError("broken")

    monkeypatch.setattr(RunRecord, "log", fail)
    with pytest.raises(RuntimeError, match="broken"):
        run(folder, tmp_path, "seed=5")
    monkeypatch.undo()
    result = run(folder, tmp_path, "seed=7")
    assert result["n_trials"] == 2 and result.get("deflated_sharpe") is None
    assert result["valid"]["verdict"].startswith("indistinguishable from chance")


def test_each_period_says_its_money_and_its_alarms(reference):
    result = json.loads((Path(reference["folder"]) / "result.json").read_text())
    for window in ("valid", "test"):
        part = result[window]
        held = part["baselines"]["buy_and_hold"]["total_return"]
        verb = "earned" if held > 0 else "lost"
        assert part["money"].endswith(f"where holding {verb} {abs(100 * held):.1f} %.")
        too_good = [name for name, most in (("ic", 0.06), ("rank_ic", 0.06), ("accuracy", 0.56))
                    if (part["scores"][name]["value"] or 0) > most]  # fmt: skip
        assert len(part["alarms"]) == len(too_good) + (part["profit"]["sharpe_ratio"] > 3)
