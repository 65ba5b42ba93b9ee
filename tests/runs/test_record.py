"""The run folder: complete before the first step, readable after a kill at any moment, resumed exactly."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hftraining.core.files import write_json_atomically
from hftraining.runs.board import LAYOUT
from hftraining.runs.record import (
    EQUITY_COLUMNS,
    NULL_BAND_COLUMNS,
    TRADE_COLUMNS,
    RunRecord,
    replacing,
    write_text_atomically,
)
from hftraining.runs.result import PeriodResult, RunResult

CONFIG = {"seed": 7, "training": {"learning_rate": 1e-5}, "stocks": {"symbols": ["AAPL", "BRK.B"], "path": None}}
DIFF = {"seed": 7, "training.learning_rate": 1e-5}
MANIFEST = {"signature": "0123abcd", "seed": 7, "threads": 2}


def new_run(outputs: Path, name: str = "small") -> RunRecord:
    return RunRecord.create(outputs, "single", name, CONFIG, DIFF, MANIFEST)


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)] if tag in events.Tags()["scalars"] else []


def in_another_process(code: str, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


def test_config_diff_and_manifest_are_there_before_the_first_step(tmp_path):
    with new_run(tmp_path) as run:
        assert run.folder.parent == tmp_path / "single" / "small"
        assert yaml.safe_load((run.folder / "config.yaml").read_text()) == CONFIG
        assert yaml.safe_load((run.folder / "config_diff.yaml").read_text()) == DIFF
        assert json.loads((run.folder / "run.json").read_text()) == {"kind": "single", "name": "small"} | MANIFEST


@pytest.mark.slow
def test_runs_started_in_the_same_second_get_folders_of_their_own(tmp_path):
    code = """
import sys
from pathlib import Path
from hftraining.runs.record import RunRecord
for _ in range(40):
    with RunRecord.create(Path(sys.argv[1]), "single", "small", {}, {}, {}) as run:
        print(run.folder)
"""
    processes = [in_another_process(code, str(tmp_path)) for _ in range(4)]
    folders = [line for process in processes for line in process.communicate(timeout=60)[0].split()]
    assert len(folders) == len(set(folders)) == 160
    assert any(folder.endswith("_2") for folder in folders)
    assert all((Path(folder) / "run.json").is_file() for folder in folders)


@pytest.mark.parametrize(
    "name", ["", "..", "../up", "a/b", "a\\b", ".hidden", "/etc", "a\n", "a\0b", "a..b", "x" * 200]
)
def test_a_name_that_is_no_plain_folder_name_is_refused_and_nothing_is_written(tmp_path, name):
    with pytest.raises(ValueError, match="is not a plain folder name"):
        new_run(tmp_path / "outputs", name)
    with pytest.raises(ValueError, match="is not a plain folder name"):
        RunRecord.create(tmp_path / "outputs", name, "small", {}, {}, {})
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("name", ["AAPL", "BRK.B", "^GSPC", "small-sample_01ab", "EURUSD=X"])
def test_a_symbol_is_a_valid_name_of_a_run(tmp_path, name):
    with new_run(tmp_path, name) as run:
        assert run.folder.is_dir()


def test_a_logged_step_is_one_line_with_sorted_keys_and_the_time_last(tmp_path):
    with new_run(tmp_path) as run:
        run.log(100, {"train/loss": 0.1, "eval/loss": np.float32(0.25), "profit/win_rate": float("nan")})
        run.log(110, {"train/loss": 1 / 3, "profit/trade_count": 12})
        lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    assert list(json.loads(lines[0])) == [
        "step",
        "eval/loss",
        "profit/win_rate",
        "train/loss",
        "seconds",
        "cpu_seconds",
    ]
    assert json.loads(lines[0])["profit/win_rate"] is None
    assert json.loads(lines[1])["train/loss"] == 1 / 3
    history = run.history()
    assert [row["step"] for row in history] == [100, 110]
    assert np.isnan(history[0]["profit/win_rate"])


def test_the_same_values_give_the_same_bytes_apart_from_the_time(tmp_path):
    def logged() -> list[str]:
        with new_run(tmp_path) as run:
            for step in range(0, 50, 10):
                run.log(step, {"train/loss": np.sin(step), "eval/loss": step / 7})
        return [line.rpartition(', "seconds"')[0] for line in (run.folder / "metrics.jsonl").read_text().splitlines()]

    assert logged() == logged() != [""] * 5


def test_tensorboard_holds_the_logged_values_under_the_same_tags(tmp_path):
    with new_run(tmp_path) as run:
        for step in (100, 200):
            run.log(step, {"train/loss": step / 3, "profit/sharpe_ratio": -step / 7})
        # Before close: a killed run must have its last step in TensorBoard too.
        assert dict(scalars(run.folder, "train/loss")) == pytest.approx({100: 100 / 3, 200: 200 / 3}, rel=1e-6)
    assert dict(scalars(run.folder, "profit/sharpe_ratio")) == pytest.approx({100: -100 / 7, 200: -200 / 7}, rel=1e-6)


def test_hparams_are_in_the_event_file_of_the_run_with_its_result(tmp_path):
    with new_run(tmp_path) as run:
        run.log(10, {"train/loss": 1.0})
        run.write_result(
            RunResult.from_json(
                {"eval": {"loss": 0.25}, "test": {"profit": {"sharpe_ratio": 0.5, "total_return": None}}}
            )
        )
    events = EventAccumulator(str(run.folder))
    events.Reload()
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"training.learning_rate" in content and b"BRK.B" in content
    assert scalars(run.folder, "result/eval_loss") == [(10, 0.25)]
    assert scalars(run.folder, "result/test_sharpe_ratio") == [(10, 0.5)]
    assert scalars(run.folder, "result/test_total_return") == []
    assert [path for path in run.folder.iterdir() if path.is_dir()] == []


def test_resuming_drops_the_steps_logged_after_the_checkpoint_and_continues(tmp_path):
    with new_run(tmp_path) as run:
        for step in range(10, 60, 10):
            run.log(step, {"train/loss": float(step)})
    config = (run.folder / "config.yaml").read_bytes()
    with RunRecord.reopen(run.folder, 30) as again:
        again.log(40, {"train/loss": 400.0})
    assert [(row["step"], row["train/loss"]) for row in again.history()] == [(10, 10), (20, 20), (30, 30), (40, 400)]
    assert scalars(run.folder, "train/loss") == [(10, 10.0), (20, 20.0), (30, 30.0), (40, 400.0)]
    assert (run.folder / "config.yaml").read_bytes() == config
    for clock in ("seconds", "cpu_seconds"):
        times = [row[clock] for row in again.history()]
        assert times == sorted(times)


def test_a_last_line_cut_short_is_dropped_and_a_broken_line_before_it_is_named(tmp_path):
    with new_run(tmp_path) as run:
        run.log(10, {"train/loss": 1.0})
        run.log(20, {"train/loss": 2.0})
    metrics = run.folder / "metrics.jsonl"
    whole = metrics.read_bytes()
    for cut in range(len(whole) - 1, whole.index(b"\n") + 1, -7):
        metrics.write_bytes(whole[:cut])
        with RunRecord.reopen(run.folder, 20) as again:
            assert [row["step"] for row in again.history()] in ([10], [10, 20])
        assert metrics.read_bytes().endswith(b"}\n")
    metrics.write_bytes(b'{"step": 1, "tr\n' + whole)
    with pytest.raises(ValueError, match="line 1 is not a logged step"):
        RunRecord.reopen(run.folder, 20)


def test_a_folder_that_is_not_a_run_is_refused_and_left_alone(tmp_path):
    with pytest.raises(ValueError, match=r"is not a run: it has no config\.yaml and no run\.json"):
        RunRecord.reopen(tmp_path, 10)
    with pytest.raises(ValueError, match="is not a run"):
        RunRecord.reopen(tmp_path / "nowhere", 10)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_run_killed_while_it_writes_leaves_a_readable_folder(tmp_path):
    code = """
import sys
from pathlib import Path
from hftraining.runs.record import RunRecord, write_json_atomically
run = RunRecord.create(Path(sys.argv[1]), "single", "small", {"a": 1}, {}, {})
print(run.folder, flush=True)
for step in range(10**9):
    run.log(step, {f"train/value_{i}": step + i / 3 for i in range(40)})
    write_json_atomically(run.folder / "result.json", {"step": step, "padding": list(range(3000))})
"""
    process = in_another_process(code, str(tmp_path))
    folder = Path(process.stdout.readline().strip())
    deadline = time.monotonic() + 60
    while not (folder / "metrics.jsonl").exists() or (folder / "metrics.jsonl").stat().st_size < 40_000:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
    process.stdout.close()
    assert len(json.loads((folder / "result.json").read_text())["padding"]) == 3000
    with RunRecord.reopen(folder, 10) as run:
        run.log(11, {"train/value_0": 0.0})
    assert [row["step"] for row in run.history()] == list(range(12))
    assert [step for step, _ in scalars(folder, "train/value_0")] == list(range(12))


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "result.json"
    write_json_atomically(path, {"a": 1})
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("disk full")
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]
    write_text_atomically(path, "\u00e4")
    assert path.read_bytes() == "\u00e4".encode()


def test_a_result_with_any_numbers_is_strict_json(tmp_path):
    with new_run(tmp_path) as run:
        period = PeriodResult(
            days=np.int64(2), interval=[0.5, float("-inf")], profit={"sharpe_ratio": np.float64("nan")}
        )
        run.write_result(RunResult(eval_loss=np.float64("nan"), periods={"valid": period}, warnings=("one",)))
    written = json.loads((run.folder / "result.json").read_text(), parse_constant=pytest.fail)
    assert written["eval"] == {"loss": None} and written["warnings"] == ["one"]
    valid = written["valid"]
    assert (valid["days"], valid["interval"], valid["profit"]) == (2, [0.5, None], {"sharpe_ratio": None})


def test_equity_trades_and_the_null_band_come_back_as_they_were_written(tmp_path):
    day = pd.Timestamp("2020-01-02")
    equity = pd.DataFrame([["valid", day, 10_000.0, 10_010.0]], columns=list(EQUITY_COLUMNS))
    none = pd.DataFrame(columns=list(TRADE_COLUMNS))
    band = pd.DataFrame([["test", day, 9.0, 9.5, 10.0, 10.5, 11.0]], columns=list(NULL_BAND_COLUMNS))
    with new_run(tmp_path) as run:
        run.write_equity(equity)
        run.write_trades(none)
        run.write_null_band(band)
    pd.testing.assert_frame_equal(pd.read_parquet(run.folder / "equity.parquet"), equity)
    pd.testing.assert_frame_equal(pd.read_parquet(run.folder / "null_band.parquet"), band)
    assert list(pd.read_parquet(run.folder / "trades.parquet").columns) == list(TRADE_COLUMNS)


def test_the_log_goes_into_the_folder_until_the_run_is_closed(tmp_path):
    logger = logging.getLogger("hftraining.somewhere")
    with new_run(tmp_path) as run:
        logger.warning("inside")
    logger.warning("outside")
    text = (run.folder / "train.log").read_text()
    assert "WARNING inside" in text and "outside" not in text


DOCUMENTED_TAGS = tuple(
    "train/loss eval/loss profit/total_return profit/sharpe_ratio profit/win_rate profit/max_drawdown "
    "profit/trade_count profit/loss_correlation".split()
)


@pytest.mark.slow
def test_tensorboard_started_on_the_run_folder_lists_every_documented_tag_and_the_layout(tmp_path):
    with new_run(tmp_path) as run:
        for step in (100, 200):
            run.log(step, dict.fromkeys(DOCUMENTED_TAGS, 0.5))
        run.write_result(
            RunResult.from_json(
                {"eval": {"loss": 0.25}, "valid": {"profit": {"sharpe_ratio": 0.5}, "null": {"p": 0.31}}}
            )
        )
    with RunRecord.reopen(run.folder, 200) as again:  # a second event file, with the layout once more
        again.log(300, dict.fromkeys(DOCUMENTED_TAGS, 0.25))
    command = ["-m", "tensorboard.main", "--logdir", str(run.folder), "--host", "127.0.0.1", "--port", "0"]
    server = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        found = (re.search(r"http://127\.0\.0\.1:\d+", line) for line in server.stderr)
        address = next(match.group() for match in found if match)

        def ask(what: str, body: dict | None = None):
            data = None if body is None else json.dumps(body).encode()
            request = urllib.request.Request(f"{address}/data/{what}", data, {"Content-Type": "application/json"})
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
                return json.load(answer)

        deadline = time.monotonic() + 30
        while not (tags := ask("plugin/scalars/tags")):  # it answers before it has read the folder
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert set(DOCUMENTED_TAGS) <= set(tags["."])
        layout = ask("plugin/custom_scalars/layout")["category"]
        assert [page["title"] for page in layout] == list(LAYOUT)
        drawn = set()
        for pattern in {tag for page in layout for chart in page["chart"] for tag in chart["multiline"]["tag"]}:
            answer = ask("plugin/custom_scalars/scalars?" + urllib.parse.urlencode({"tag": pattern, "run": "."}))
            assert answer["regex_valid"]
            drawn |= {tag for tag, events in answer["tag_to_events"].items() if len(events) == 3}
        assert drawn == set(DOCUMENTED_TAGS)
        hparams = ask("plugin/hparams/experiment", {"experimentName": ""})
        assert "training.learning_rate" in {info["name"] for info in hparams["hparamInfos"]}
        assert "result/valid_p" in {info["name"]["tag"] for info in hparams["metricInfos"]}
    finally:
        server.terminate()
        server.communicate(timeout=30)


@pytest.mark.slow
def test_recording_a_run_does_not_import_torch(tmp_path):
    code = """
import sys
from pathlib import Path
from hftraining.runs.record import RunRecord
import hftraining.runs.identity, hftraining.reports.report
with RunRecord.create(Path(sys.argv[1]), "single", "small", {}, {}, {}) as run:
    run.log(1, {"train/loss": 1.0})
print(sorted({"torch", "plotly", "tensorflow"} & set(sys.modules)))
"""
    assert in_another_process(code, str(tmp_path)).communicate(timeout=60)[0].strip() == "[]"
