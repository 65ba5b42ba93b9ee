"""`python -m hftraining`: its listings, its refusals in one line, and its last line with --json."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from hftraining.__main__ import main
from hftraining.runs.ledger import Ledger
from hftraining.runs.record import RunRecord
from hftraining.runs.result import RunResult
from hftraining.runs.trials import Days
from tests.commands import last_object
from tests.runs_of import own_ledger

PERIODS = {"valid": ("2011-01-05", "2012-12-31"), "test": ("2013-01-04", "2015-12-31")}


@pytest.fixture
def outputs(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    ledger = own_ledger()

    def begin(signature: str, kind: str = "base", fingerprint: str = "f00dcafe", **others) -> int:
        return ledger.begin(
            kind=kind,
            name="[red]small",
            folder=tmp_path / "outputs" / kind / "small" / signature,
            signature=signature,
            fingerprint=fingerprint,
            started="2026-01-02T10:00:00+00:00",
            code="c0de",
            **({"symbols": ["AAPL", "MSFT", "IBM", "GE", "XOM"], "windows": PERIODS} | others),
        )

    first = begin("aaaa0001")
    ledger.finish(first, status="done", valid=Days(["d1", "d2"], [0.01, 0.03]), sharpe=1.234)
    ledger.open_test(first)
    ledger.finish(begin("aaaa0002", "sweeps"), status="pruned")
    begin("aaaa0001")
    begin("bbbb0003", fingerprint="beef0000", symbols=["QQ", "RR"])
    (tmp_path / "outputs/base/small/aaaa0001").mkdir(parents=True)
    return tmp_path / "outputs"


def answer(capsys, *arguments: str) -> tuple[int, str, str]:
    try:
        code = main(arguments)
    except SystemExit as stopped:
        code = stopped.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.slow
def test_the_ledger_lists_every_run_and_what_makes_up_n(outputs, capsys):
    code, text, _ = answer(capsys, "ledger")
    assert code == 0
    lines = [line for line in text.splitlines() if line.startswith("2026-01-02")]
    assert len(lines) == 4
    assert all(
        word in lines[0] for word in ("base", "[red]small", "aaaa0001", "done", "1.23", "outputs/base/small/aaaa0001")
    )
    assert "pruned" in lines[1] and "gone: aaaa0002" in lines[1]
    assert "running or killed" in lines[2]
    assert "N = 2 on AAPL, MSFT, IBM and 2 more, validation 2011-01-05 to 2012-12-31 (data f00dcafe)" in text
    assert "aaaa0001  [red]small: done, running or killed  run 2 times, counted once" in text
    assert "test window 2013-01-04 to 2015-12-31: opened 1 time" in text and "still sealed" in text


@pytest.mark.slow
def test_a_filter_lists_fewer_runs_and_does_not_change_n(outputs, capsys):
    _, text, _ = answer(capsys, "ledger", "--kind", "sweeps")
    assert len(re.findall("^2026", text, re.M)) == 1 and "N = 2 on" in text
    _, text, _ = answer(capsys, "ledger", "--last", "1", "--data", "f00d")
    assert len(re.findall("^2026", text, re.M)) == 1 and "The last 1 of 3 runs." in text
    assert "N = 2 on" in text and "beef" not in text


@pytest.mark.slow
def test_the_ledger_as_json_is_one_object_in_the_last_line(outputs, capsys):
    _, text, _ = answer(capsys, "ledger", "--json", "--data", "f00dcafe")
    found = last_object(text)
    assert [run["status"] for run in found["runs"]] == ["done", "pruned", "running"]
    assert [run["folder_exists"] for run in found["runs"]] == [True, False, True]
    assert found["runs"][0]["sharpe"] == 1.234
    (window,) = found["windows"]
    assert window["n_trials"] == 2 and window["variance_1d"] is None
    assert window["signatures"] == {"aaaa0001": [1, 3], "aaaa0002": [2]}
    assert window["test_openings"] == {"2013-01-04 to 2015-12-31": 1}
    keys = {"fingerprint", "valid", "n_trials", "variance_1d", "signatures", "outcomes", "test_openings"}
    assert keys <= window.keys() and (window["fingerprint"], window["crossed"]) == ("f00dcafe", 0)


@pytest.mark.slow
def test_only_runs_of_a_folder_are_listed_and_n_counts_those_of_other_folders(outputs, capsys):
    elsewhere = {"folder": outputs.parent / "elsewhere" / "base" / "small" / "run", "kind": "base", "name": "other"}
    begun = {"signature": "cccc0004", "fingerprint": "cafe0000", "symbols": ["ibm"], "windows": PERIODS}
    own_ledger().begin(**elsewhere, **begun)
    code, text, _ = answer(capsys, "ledger", "--outputs", str(outputs))
    assert code == 0 and len(re.findall("^2026-01-02", text, re.M)) == 4 and "N = 3 on AAPL" in text
    assert "cccc0004  other: running or killed" in text  # a run that N counts is named, wherever it lies
    _, text, _ = answer(capsys, "ledger", "--outputs", "elsewhere")
    assert "N = 3 on ibm" in text and "opened 1 time" in text and "beef0000" not in text


@pytest.mark.slow
def test_the_trials_of_validation_days_that_differ_a_little_are_listed_once(outputs, capsys):
    begun = {"kind": "base", "name": "shifted", "signature": "cccc0004", "fingerprint": "cafe0000", "code": "c0de"}
    shifted = {"valid": ("2011-01-06", "2012-12-28"), "test": ("2013-01-07", "2015-12-31")}
    own_ledger().begin(**begun, folder=outputs / "base", symbols=["IBM"], windows=shifted)
    _, text, _ = answer(capsys, "ledger")
    first, other, last = text.split("N = ")[1:]
    assert first.startswith("3 on AAPL") and "cccc0004  shifted" in first
    assert other.startswith("1 on QQ") and last.startswith("3 on IBM, validation 2011-01-06 to 2012-12-28")
    assert "the same trials as above" in last and "cccc0004" not in last
    assert "test window 2013-01-07 to 2015-12-31: opened 1 time" in last


def test_a_ledger_is_shown_by_its_path_and_one_of_an_earlier_version_is_pointed_at(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, _, error = answer(capsys, "ledger")
    assert code == 2 and "ledger.sqlite does not exist: the first run writes it; --ledger names another" in error
    old = Ledger(tmp_path / "outputs" / "ledger.sqlite")
    begun = {"kind": "base", "name": "old", "signature": "dddd0005", "fingerprint": "cafe0000"}
    old.begin(**begun, folder=tmp_path, symbols=["A"], windows=PERIODS)
    code, _, error = answer(capsys, "ledger")
    assert code == 2 and "takes over outputs/ledger.sqlite of an earlier version" in error and error.count("\n") == 1
    code, text, _ = answer(capsys, "ledger", "--ledger", "outputs/ledger.sqlite")
    assert code == 0 and "N = 1 on A, validation" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ledgr"], "error: ledgr: there is no such command; did you mean ledger?"),
        (["frobnicate"], "error: frobnicate: there is no such command (there are"),
        ([], "error: the following arguments are required: COMMAND"),
        (["ledger", "--outputs", "nowhere"], "error: --outputs nowhere: no run in "),
        (["ledger", "--data", "1234"], "error: --data 1234: no run in"),
        (["ledger", "--kind", "sweep"], "error: --kind sweep: no such run; did you mean sweeps?"),
        (["ledger", "--last", "0"], "error: argument --last: 0 is not a positive number"),
        (["report", "nowhere"], "error: nowhere is not a run: it has no run.json"),
        (["leaks", "nowhere"], "error: nowhere is not a run: it has no run.json"),
        (["leaks"], "error: leaks wants either a RUN or --gallery"),
        (["leaks", "nowhere", "--gallery"], "error: leaks wants either a RUN or --gallery"),
        (["leaks", "nowhere", "--days", "x"], "error: argument --days: invalid"),
    ],
)
def test_a_mistake_of_the_user_is_one_line_and_exit_code_2(outputs, capsys, arguments, message):
    code, text, error = answer(capsys, *arguments)
    assert (code, text) == (2, "")
    assert error.startswith(message) and error.count("\n") == 1
    assert not Path("nowhere").exists()


@pytest.mark.slow
def test_a_damaged_ledger_is_one_line_and_exit_code_2(outputs, state, capsys):
    (state / "ledger.sqlite").write_bytes(b"not a database at all " * 100)
    code, _, error = answer(capsys, "ledger")
    assert code == 2 and "ledger.sqlite is damaged" in error and error.count("\n") == 1


@pytest.mark.parametrize("file", ["run.json", "result.json", "config.yaml", "equity.parquet", "metrics.jsonl"])
def test_a_damaged_file_of_a_run_is_named_in_one_line(tmp_path, capsys, file):
    record = RunRecord.create(tmp_path, "base", "small", {"seed": 1}, {}, {"signature": "aaaa0001"})
    with record:
        record.log(1, {"train/loss": 1.0})
        record.write_result(RunResult(signature="aaaa0001"))
    (record.folder / file).write_bytes(b"[{\x00\n[{\x00\n")
    code, out, err = answer(capsys, "report", str(record.folder))
    assert (code, out, err.count("\n")) == (2, "", 1) and file in err


@pytest.mark.slow
def test_a_fault_of_ours_is_one_line_exit_code_1_and_a_traceback_in_a_file(outputs, state, monkeypatch, capsys):
    def faulty(self, with_days):
        raise ValueError("nobody foresaw this")

    monkeypatch.setattr(Ledger, "entries", faulty)
    code, out, err = answer(capsys, "ledger")
    assert (code, out, err.count("\n")) == (1, "", 1) and "our fault: ValueError: nobody foresaw this (at " in err
    (log,) = (state / "faults").iterdir()
    assert str(log) in err and "in faulty" in log.read_text() and "Traceback" in log.read_text()


@pytest.mark.slow
def test_the_report_is_built_again_from_the_folder(outputs, capsys):
    with RunRecord.create(outputs, "base", "small", {}, {}, {"signature": "0123abcd"}) as run:
        pass
    code, text, _ = answer(capsys, "report", str(run.folder), "--json")
    assert code == 0 and last_object(text) == {"report": str(run.folder / "report.html")}
    assert "0123abcd" in (run.folder / "report.html").read_text()


@pytest.mark.slow
def test_the_module_runs_as_a_command_without_heavy_imports(outputs):
    code = (
        "import sys, runpy\n"
        "sys.argv = ['hftraining', 'ledger', '--json']\n"
        "try: runpy.run_module('hftraining', run_name='__main__')\n"
        "except SystemExit as stopped: assert stopped.code == 0, stopped.code\n"
        "print(sorted({'torch', 'pandas', 'numpy', 'hydra', 'omegaconf'} & set(sys.modules)))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert process.stdout.splitlines()[-1] == "[]", process.stdout + process.stderr


def test_the_leak_proof_names_an_unreadable_config_in_one_line(tmp_path, capsys):
    with RunRecord.create(tmp_path, "base", "small", {}, {}, {"signature": "aaaa0001"}) as record:
        pass
    (record.folder / "config.yaml").write_text("[{")
    code, out, err = answer(capsys, "leaks", str(record.folder))
    assert (code, out, err.count("\n")) == (2, "", 1) and "config.yaml is damaged" in err
