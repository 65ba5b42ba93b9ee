"""Records of experiments: their content, that they are never overwritten, and that no secret is written."""

import dataclasses
import json
import re
import shlex
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import yaml

from hftraining.__main__ import main
from hftraining.core.errors import UserError
from hftraining.experiment.config import typed_config
from hftraining.experiment.records import write_record
from hftraining.reports.png import Drawn, Panel, line_chart
from hftraining.runs.identity import config_delta, signature
from tests.compose import compose_config
from tests.runs_of import begun, folders, run, sharpe

pytestmark = pytest.mark.slow  # they share one set of runs

DAY = date(2026, 1, 2)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def record(outputs, tmp_path_factory) -> Path:
    experiments = tmp_path_factory.mktemp("experiments")
    places = [outputs / "base" / "tiny-folder-mixed", outputs / "base" / "fast"]
    return write_record("FasterLearning", places, "Does a high learning rate help?", experiments, DAY)


def test_a_record_contains_the_table_the_config_diff_the_result_the_curve_and_the_command(record, outputs):
    assert record.name == "2026-01-02_FasterLearning"
    assert {path.name for path in record.iterdir()} == {"README.md", "config_diff.yaml", "result.json", "curve.png"}
    text = (record / "README.md").read_text()
    assert text.startswith("# Faster learning\n\nDoes a high learning rate help?\n\n")
    values = [sharpe(path) for path in folders(outputs, "fast")]
    assert f"| {np.mean(values):.2f} +- {np.std(values, ddof=1):.2f} |" in text and "| 1, 2, 3 |" in text
    assert "| `training.learning_rate` | `0.0003` | `0.02` |" in text
    assert re.search(r"\d of 3 beat chance, \d of 3 beat buy and hold on the validation days", text)
    assert "fingerprint" in text and "seeds needed" in text
    diffs = yaml.safe_load((record / "config_diff.yaml").read_text())
    assert diffs["B"]["seeds"] == [1, 2, 3] and diffs["B"]["config_diff"]["training.learning_rate"] == 0.02
    result = json.loads((record / "result.json").read_text())
    assert result["verdict"][0] in text and result["groups"][1]["title"] == "fast"
    assert (record / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_of_a_record_reproduces_the_signatures_of_its_runs(record):
    result = json.loads((record / "result.json").read_text())
    defaults = dataclasses.asdict(typed_config({}))
    for group in result["groups"]:
        words = shlex.split(result["commands"][group["label"]])
        assert words[:3] == ["python", "train.py", "-m"] and words[-1] == "seed=1,2,3"
        for seed in (1, 2, 3):
            config = compose_config(*words[3:-1], f"seed={seed}")
            again = signature(config_delta(dataclasses.asdict(config), defaults))
            assert again in {run["signature"] for run in result["runs"] if run["group"] == group["label"]}


def test_the_table_of_records_gets_a_row_and_keeps_what_people_wrote(record, outputs, tmp_path):
    text = (record.parent / "README.md").read_text()
    assert text.count("| 2026-01-02 | [Faster learning](2026-01-02_FasterLearning/README.md) | ") == 1
    readme = tmp_path / "README.md"
    readme.write_text(
        "# Ours\n\n| date | record | what it showed |\n|---|---|---|\n| 1999 | x | y |\n\n## More\n\nKept.\n"
    )
    write_record("SecondOne", [outputs / "base" / "fast"], "", tmp_path, DAY)
    lines = readme.read_text().splitlines()
    assert lines[4] == "| 1999 | x | y |" and lines[5].startswith("| 2026-01-02 | [Second one]") and lines[6] == ""
    assert lines[-2:] == ["", "Kept."]


def test_a_record_of_one_group_compares_its_seeds_with_buy_and_hold(outputs, tmp_path):
    made = write_record("OneGroup", [outputs / "base" / "fast"], "", tmp_path, DAY)
    text = (made / "README.md").read_text()
    assert "3 seeds of one config: a validation Sharpe ratio of" in text and "What differed" not in text


def test_a_record_is_never_overwritten_and_a_failure_leaves_no_files(record, outputs, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="exists: a record is never overwritten"):
        write_record("FasterLearning", [outputs], "", record.parent, DAY)
    with pytest.raises(UserError, match="none of these runs is finished"):
        write_record("Nothing", [begun(tmp_path / "outputs")], "", tmp_path, DAY)
    monkeypatch.setattr("hftraining.experiment.records.curve", lambda comparison: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_record("Broken", [outputs], "", tmp_path, DAY)
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]


@pytest.mark.parametrize("name", ["lower", "../Up", "Two Words", "X"])
def test_an_invalid_name_ends_in_one_line(outputs, tmp_path, capsys, name):
    assert main(["record", name, str(outputs), "--experiments", str(tmp_path / "e")]) == 2
    captured = capsys.readouterr()
    assert "must be a word such as RelativeLabels" in captured.err and captured.err.count("\n") == 1
    assert not (tmp_path / "e").exists()


def test_the_record_command_prints_the_folder(outputs, tmp_path, capsys):
    assert main(["record", "ByCommand", str(outputs), "--experiments", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert Path(found["record"]).name == f"{date.today().isoformat()}_ByCommand"


def pixels(png: bytes) -> np.ndarray:
    from io import BytesIO

    from PIL import Image

    return np.asarray(Image.open(BytesIO(png)).convert("RGB")).astype(int)


def test_a_rising_curve_rises_in_the_picture_and_a_gap_stays_empty():
    values = [*np.linspace(0.0, 1.0, 40), *[np.nan] * 20, *np.linspace(1.0, 2.0, 40)]
    image = pixels(line_chart("t", [Panel("p", [Drawn(values, "#ff0000", "c", 3.0)])]))
    red = (image[..., 0] > 200) & (image[..., 1] < 120) & (image[..., 2] < 120)
    red[:110] = False  # the legend
    heights = [np.flatnonzero(red[:, x]).mean() if red[:, x].any() else np.nan for x in range(red.shape[1])]
    known = [height for height in heights if np.isfinite(height)]
    assert len(known) > 600 and np.diff(known).max() <= 1.5 and known[0] - known[-1] > 200
    drawn = np.flatnonzero(np.isfinite(heights))
    assert np.diff(drawn).max() > 0.18 * (drawn[-1] - drawn[0])  # the twenty missing days


CANARY = "canary-6f1d9c2e77"


def holding(path: Path, secret: str) -> list[str]:
    """The files below a folder that contain the secret, as bytes or unpacked."""
    import pandas as pd

    found = []
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        content = file.read_bytes()
        if file.suffix == ".parquet":
            content += pd.read_parquet(file).to_csv().encode()
        if file.suffix == ".npz":
            with np.load(file) as stored:
                content += b"".join(stored[name].tobytes() for name in stored.files)
        if secret.encode() in content or secret.encode("utf-32-le") in content:
            found.append(str(file.relative_to(path)))
    return found


@pytest.mark.slow
def test_no_command_writes_a_secret_of_the_environment_into_any_file(folder, tmp_path, monkeypatch, capfd):
    for name in ("APCA_API_SECRET_KEY", "ALPACA_SECRET", "AWS_SECRET_ACCESS_KEY", "MY_TOKEN", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://user:{CANARY}@127.0.0.1:9" if "PROXY" in name else CANARY)
    monkeypatch.chdir(tmp_path)
    outputs = Path("outputs")
    first, second = (Path(run(folder, outputs, f"seed={seed}")["folder"]) for seed in (1, 2))
    for arguments in (
        ["report", first],
        ["leaks", first, "--days", "2"],
        ["compare", first, second],
        ["replay", first],
        ["record", "CanaryTest", outputs / "base"],
        ["ledger", "--ledger", outputs / "ledger.sqlite"],
    ):
        assert main([*map(str, arguments), "--json"]) == 0, arguments
    written = {path.name for path in tmp_path.rglob("*")}
    assert {"compare.html", "report.html", "run.json", "train.log", "curve.png", "ledger.sqlite", "bars.npz"} <= written
    assert holding(tmp_path, CANARY) == []
    assert CANARY not in "".join(capfd.readouterr())
    (tmp_path / "leak.txt").write_text(CANARY)  # the search would have found it
    assert holding(tmp_path, CANARY) == ["leak.txt"]
