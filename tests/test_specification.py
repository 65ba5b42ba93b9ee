"""The commands and names of the specification, as written there: base_model_trainer.py and train_with_profit.py."""

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest

from hftraining import base_model_trainer, train_with_profit
from hftraining.base_model_trainer import BaseModelTrainer
from hftraining.core.command import run_command
from hftraining.core.errors import ConfigError
from hftraining.model.base import Forecaster
from tests import commands
from tests.commands import ROOT, ended, wait_for
from tests.runs_of import FAST, QUICK, begun, own_ledger

SMALL = tuple(
    text for text in QUICK if not text.startswith(("model=", "stocks=", "training.batch", "training.symbols"))
)
FEW = ("training.batch_size=2", "training.warmup_steps=2", "training.learning_rate=0.003")


@pytest.fixture
def project(tmp_path) -> Path:
    """A checkout of the project, so that outputs go where a user's go."""
    for name in ("hftraining", "conf", "hydra_plugins"):
        shutil.copytree(ROOT / name, tmp_path / "project" / name)  # with what numba has compiled
    return tmp_path / "project"


def start(*words, cwd):
    return commands.start(*words, cwd=cwd, PYTHONPATH=None)  # the code of the folder, wherever that lies


def python(*words, cwd):
    return ended(start(*words, cwd=cwd))


def folders(out: str, cwd: Path) -> list[Path]:
    return [(cwd / text).resolve() for text in re.findall(r"^  run: (.+)$", out, re.M)]


# --- as the specification writes them ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_one_stock_from_inside_hftraining(project):
    inside = project / "hftraining"
    few = ("--steps", "20", "--data", "sample5", "--model", "tiny", "--threads", "1")
    code, out, err = python("train_with_profit.py", "--stock", "AAPL", *few, cwd=inside)
    assert code == 0, err
    (run,) = folders(out, inside)
    assert run.parent == project / "outputs" / "single" / "AAPL"
    assert "data: packaged sample of five, fingerprint " in out and "packaged sample of five: 1 symbols" in out
    result = json.loads((run / "result.json").read_text())
    assert result["steps"] == 20 and "verdict" in result
    assert not (inside / "outputs").exists(), "outputs of the whole project in one place"


@pytest.mark.slow
@pytest.mark.long
def test_several_stocks_with_a_base_model_from_inside_hftraining(project):
    inside = project / "hftraining"
    few = "--data sample5 --model tiny --threads 1 --base-steps 20 --steps 10 --jobs 2".split()
    code, out, err = python(
        "train_with_profit.py", "--stocks", "AAPL", "GOOG", "MSFT", "IBM", "--base-model", *few, cwd=inside
    )
    assert code == 0, err
    base, *tuned = folders(out, inside)
    assert base.parent == project / "outputs" / "base" / "tiny-sample5-mixed"
    assert [run.parent for run in tuned] == [
        project / "outputs" / "finetuned" / symbol for symbol in ("AAPL", "GOOG", "MSFT", "IBM")
    ]
    assert out.count("data: packaged sample of five, fingerprint ") == 5
    assert len(own_ledger().entries(kind="finetuned")) == 4 * 5


@pytest.mark.slow
@pytest.mark.long
def test_the_base_model_trainer_from_inside_hftraining_and_its_run_as_a_base_for_train_py(project):
    inside = project / "hftraining"
    shutil.copy(ROOT / "train.py", project)
    few = "--data sample5 --model tiny --threads 1 --stocks IBM --methods head".split()
    sizes = "--base-steps 20 --finetune-epochs 2 --batch-size 8".split()
    stocks = ("--base-stocks", "AAPL", "MSFT", "IBM")
    code, out, err = python("base_model_trainer.py", *stocks, *sizes, *few, cwd=inside)
    assert code == 0, err
    base, tuned = folders(out, inside)
    assert json.loads((base / "run.json").read_text())["data"]["symbols"] == ["AAPL", "MSFT", "IBM"]
    # Five years are 1260 sessions; an epoch in steps of 8 windows of 128 bars takes 2 steps.
    assert json.loads((tuned / "result.json").read_text())["decision"]["candidates"]["head"]["steps"] == 3
    inherited = ("training.methods=[lora]", "training.max_steps=5")
    code, out, err = python("train.py", f"init_from={base}", "stocks.symbols=[AAPL]", *inherited, cwd=project)
    assert code == 0, err
    assert re.search(r"^run: outputs/finetuned/AAPL/\S+$", out.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.long
def test_the_functions_return_a_model_and_its_run_folder(tmp_path):
    few = ["model=tiny", "training.threads=1"]
    model, path = train_with_profit.train_single_stock_with_profit(
        "AAPL", steps=10, data="sample5", output_dir=tmp_path, settings=few
    )
    assert isinstance(model, Forecaster) and path.parent == tmp_path / "single" / "AAPL"
    trainer = BaseModelTrainer(
        base_stocks=["AAPL", "MSFT"], data="sample5", output_dir=tmp_path, settings=few, finetune_settings=few[1:]
    )
    model, checkpoint = trainer.train_base_model(max_steps=10, batch_size=8)
    assert model.symbols == ("AAPL", "MSFT") and checkpoint.parts[-3] == "base"
    for where in (checkpoint, str(checkpoint), checkpoint / "model"):
        specialist, path = trainer.finetune_for_stock(stock_symbol="AAPL", base_checkpoint_path=where, num_epochs=1)
        assert specialist.horizons == model.horizons and path.parent == tmp_path / "finetuned" / "AAPL"


@pytest.mark.slow
@pytest.mark.long
def test_the_module_form_gives_the_same_help_as_the_script():
    for name in ("train_with_profit", "base_model_trainer"):
        script = python(f"{name}.py", "--help", cwd=ROOT / "hftraining")
        module = python("-m", f"hftraining.{name}", "--help", cwd=ROOT)
        assert script[0] == module[0] == 0 and script[1] == module[1]


# --- every option takes effect ----------------------------------------------------------------------------------------


class Bench:
    """Runs a command in this process on random walks, and reads its results."""

    def __init__(self, bars: Path, output: Path, capsys):
        self.bars, self.output, self.capsys = bars, output, capsys

    def __call__(self, *words: str, module=train_with_profit) -> dict:
        set_, tuned_set = [f"stocks.path={self.bars}", *SMALL, *FAST], [*FEW, *FAST]
        words = [*words]
        for name, values in (("--set", set_), ("--finetune-set", tuned_set)):
            if name in words:
                values += words[words.index(name) + 1 :]
                del words[words.index(name) :]
            if name == "--set" or "--base-model" in words or module is base_model_trainer:
                words += [name, *values]
        fixed = [] if "--data" in words else ["--data", "folder"]
        fixed += [] if "--model" in words else ["--model", "tiny"]
        fixed += [] if "--output-dir" in words else ["--output-dir", str(self.output)]
        self.capsys.readouterr()
        code = module.main([*words, *fixed, "--json"])
        assert code == 0, self.capsys.readouterr().err
        return json.loads(self.capsys.readouterr().out.splitlines()[-1])


@pytest.fixture
def bench(folder, tmp_path, capsys):
    return Bench(folder, tmp_path / "out", capsys)


def of(run: dict, name: str) -> dict:
    return json.loads((Path(run["folder"]) / name).read_text())


def field(run: dict, text: str) -> bool:
    return text in (Path(run["folder"]) / "config.yaml").read_text()


@pytest.mark.slow
@pytest.mark.long
def test_each_option_for_a_single_stock_has_its_effect(bench, tmp_path):
    plain = bench("--stock", "S0")["stocks"]["S0"]
    assert of(plain, "result.json")["steps"] == 6
    changed = {
        "--steps 4": lambda run: of(run, "result.json")["steps"] == 4,
        "--batch-size 5": lambda run: field(run, "batch_size: 5"),
        "--seed 9": lambda run: of(run, "run.json")["seed"] == 9,
        "--threads 2": lambda run: of(run, "run.json")["threads"] == 2,
        "--model small": lambda run: field(run, "num_layers: 3"),
        f"--output-dir {tmp_path / 'there'}": lambda run: Path(run["folder"]).is_relative_to(tmp_path / "there"),
        "--set training.learning_rate=0.5": lambda run: field(run, "learning_rate: 0.5"),
    }
    for words, is_so in changed.items():
        run = bench("--stock", "S0", *words.split())["stocks"]["S0"]
        assert is_so(run) and not is_so(plain), words
        assert (of(run, "run.json")["signature"] != of(plain, "run.json")["signature"]) or "output" in words
    assert list(bench("--stocks", "S1", "S2")["stocks"]) == ["S1", "S2"]
    again = bench("--stock", "S0", "--resume")["stocks"]["S0"]
    assert again["folder"] == plain["folder"] and again["text"].startswith("finished already")


@pytest.mark.slow
@pytest.mark.long
def test_each_option_for_base_and_fine_tunes_has_its_effect(bench):
    plain = bench("--stocks", "S0", "--base-model", "--steps", "4")
    base, tuned = plain["base"], plain["stocks"]["S0"]
    assert of(base, "run.json")["data"]["symbols"] == ["S0", "S1", "S2"]
    assert of(tuned, "run.json")["base"]["folder"] == base["folder"]
    steps = {row["steps"] for row in of(tuned, "result.json")["decision"]["candidates"].values()}
    assert steps == {0, 4}
    other = bench("--stocks", "S0", "--base-model", "--base-stocks", "S0", "S2", "--base-steps", "5", "--steps", "3")
    assert of(other["base"], "run.json")["data"]["symbols"] == ["S0", "S2"]
    assert of(other["base"], "result.json")["steps"] == 5
    from_it = ("--stock", "S0", "--base-model", base["folder"])
    assert bench(*from_it, "--steps", "3")["base"] is None
    changed = {
        "--steps 3": lambda run: field(run, "max_steps: 3"),
        "--finetune-epochs 1": lambda run: field(run, "max_steps: 7"),  # 344 training bars less 20, by 2 x 24
        "--steps 4 --methods lora head": lambda run: len(list((Path(run["folder"]) / "candidates").iterdir())) == 2,
        "--steps 4 --batch-size 5": lambda run: field(run, "batch_size: 5"),
        "--steps 4 --seed 8": lambda run: of(run, "run.json")["seed"] == 8,
        "--steps 4 --threads 2": lambda run: of(run, "run.json")["threads"] == 2,
        "--steps 4 --finetune-set training.shrinkage=7": lambda run: field(run, "shrinkage: 7.0"),
    }
    for words, is_so in changed.items():
        run = bench(*from_it, *words.split())["stocks"]["S0"]
        assert is_so(run) and not is_so(tuned), words
    again = bench("--stocks", "S0", "S1", "--base-model", "--steps", "4", "--resume")
    assert again["base"]["folder"] == base["folder"] and again["stocks"]["S0"]["folder"] == tuned["folder"]
    assert again["stocks"]["S1"]["status"] == "done"
    chosen = bench("--base", base["folder"], "--stocks", "S2", "--finetune-epochs", "1", module=base_model_trainer)
    assert list(chosen["stocks"]) == ["S2"] and chosen["base"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "one of the arguments --stock --stocks is required"),
        ("--stock AAPL --stocks MSFT", "not allowed with argument"),
        ("--stock AAPL --steps 0", "0 is not a positive number"),
        ("--stock AAPL --steps x", "argument --steps: invalid"),
        ("--stock AAPL --data smaple", "stocks=smaple: there is no such option; did you mean sample?"),
        ("--stock AAPL --data sample5 --model huge", "model=huge: there is no such option"),
        ("--stock AAPL --data sample5 --set training.learnin_rate=1", "did you mean training.learning_rate?"),
        ("--stock AAPL --data sample5 --set training.learning_rate=abc", "could not be converted to Float"),
        ("--stock AAPL --base-steps 4", "--base-steps needs --base-model"),
        ("--stock AAPL --methods lora", "--methods needs --base-model"),
        ("--stock AAPL --base-model --steps 3 --finetune-epochs 3", "give one of them"),
        ("--stock AAPL --base-model nowhere --data sample5", "init_from=nowhere is not a run"),
        ("--stock AAPL --base-model nowhere --base-steps 4", "--base-model names one: nowhere"),
        ("--stock APPL --data sample5", "APPL is not in the data; did you mean AAPL?"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2_and_nothing_is_written(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    try:
        code = run_command(train_with_profit.main, words.split())
    except SystemExit as stopped:
        code = stopped.code
    error = capsys.readouterr().err
    assert code == 2 and message in error and error.startswith("error: ") and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_from_inside_hftraining_outputs_are_the_projects_own(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT / "hftraining")
    assert BaseModelTrainer().output_dir.resolve() == ROOT / "outputs"
    monkeypatch.chdir(tmp_path)
    assert BaseModelTrainer().output_dir == Path("outputs")
    assert BaseModelTrainer(output_dir="mine").output_dir == Path("mine")


def test_a_base_with_other_features_or_dates_is_refused_by_the_class_too(tmp_path):
    with pytest.raises(ConfigError, match="is not a run"):
        BaseModelTrainer(["AAPL"], data="sample5").finetune_for_stock("AAPL", tmp_path)


# --- several at once, and what a kill leaves --------------------------------------------------------------------------


def several(folder, output, *words):
    steps = "1500"
    return [
        "-m", "hftraining.train_with_profit", "--stocks", "S0", "S1", "--base-model", "--steps", steps, "--jobs", "2",
        "--data", "folder", "--model", "tiny", "--output-dir", str(output), "--methods", "head", "full", *words,
        "--finetune-set", *FEW, *FAST, "training.checkpoint_every=20",
        "--set", f"stocks.path={folder}", *SMALL, *FAST,
    ]  # fmt: skip


def killed_while_tuning(folder, tmp_path):
    """Two stocks fine-tune at once, and the process of one is killed; repeated if it ended before the signal."""
    for attempt in range(3):
        output = tmp_path / f"out{attempt}"
        process = start(*several(folder, output), cwd=ROOT)
        pids = {}
        for line in process.stdout:
            if match := re.match(r"(S\d): process (\d+)", line):
                pids[match[1]] = int(match[2])
            if len(pids) == 2:
                break
        wait_for(lambda: list((output / "finetuned" / "S0").glob("*/candidates/*/checkpoints/step_*")), process)  # noqa: B023
        try:
            os.kill(pids["S0"], signal.SIGKILL)
        except ProcessLookupError:
            process.communicate(timeout=300)
            continue
        return output, process
    raise AssertionError("the process ended before the signal three times")


@pytest.mark.slow
@pytest.mark.long
def test_a_killed_fine_tune_disturbs_no_other_and_resume_finishes_the_rest(folder, tmp_path):
    output, process = killed_while_tuning(folder, tmp_path)
    checkpoints = output / "finetuned" / "S0"
    out, err = process.communicate(timeout=300)
    assert process.returncode == 3
    assert "killed: S0: killed by signal 9; --resume resumes it" in err
    (half,), (whole,) = checkpoints.iterdir(), (output / "finetuned" / "S1").iterdir()
    assert not (half / "result.json").exists() and (whole / "result.json").exists()
    written = (whole / "result.json").stat().st_mtime_ns

    code, out, err = python(*several(folder, output, "--resume", "--json"), cwd=ROOT)
    assert code == 0, err
    said = json.loads(out.splitlines()[-1])
    assert said["base"]["text"].startswith("finished already")
    assert said["stocks"]["S0"]["folder"] == str(half)
    assert said["stocks"]["S1"] | {"text": ""} == said["stocks"]["S1"] | {"text": "", "folder": str(whole)}
    assert (whole / "result.json").stat().st_mtime_ns == written
    assert [path.name for path in (output / "base").glob("*/*")] == [Path(said["base"]["folder"]).name]


@pytest.mark.slow
def test_sigterm_saves_all_runs_and_ends_with_3(folder, tmp_path):
    output = tmp_path / "out"
    process = start(*several(folder, output), cwd=ROOT)
    tuned = output / "finetuned"
    wait_for(lambda: len({p.parts[-6] for p in tuned.glob("*/*/candidates/*/checkpoints/step_*")}) == 2, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 3, err
    assert "interrupted: S0: interrupted after step" in err and "interrupted: S1: interrupted after step" in err
    entries = own_ledger().entries(kind="finetuned")
    assert {entry.status for entry in entries} <= {"interrupted", "done"}


@pytest.mark.slow
def test_runs_whose_parent_is_killed_save_and_end(folder, tmp_path):
    output = tmp_path / "out"
    process = start(*several(folder, output), cwd=ROOT)
    pids = []
    for line in process.stdout:
        if match := re.match(r"S\d: process (\d+)", line):
            pids.append(int(match[1]))
        if len(pids) == 2:
            break
    tuned = output / "finetuned"
    wait_for(lambda: len({p.parts[-6] for p in tuned.glob("*/*/candidates/*/checkpoints/step_*")}) == 2, process)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    statuses = {entry.status for entry in own_ledger().entries(kind="finetuned")}
    assert statuses <= {"interrupted", "done"}


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["fp32", "auto"])
def test_resume_finds_the_run_that_a_precision_of_auto_has_begun(tmp_path, asked):
    outputs = (f"output_dir={tmp_path}", f"stocks.snapshots={tmp_path}/snapshots", "objective.relative=none")
    folder = begun(tmp_path, "stocks=sample", *outputs)
    settings = [f"training.precision={asked}"]
    trainer = BaseModelTrainer(data="sample", output_dir=tmp_path, settings=settings, resume=True)
    config = trainer.base_config()
    assert (config.resume, config.training.precision) == (str(folder), "fp32")
    assert trainer.base_config(max_steps=7).resume is None
