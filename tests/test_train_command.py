"""`python train.py` as a user runs it: its endings, its folder, and how it is resumed after a kill."""

import json
import random
import re
import signal

import pytest
import yaml
from safetensors.numpy import load_file

from tests.commands import ROOT, TRAIN, ended, python, run_folder, start_train, train, train_here, wait_for
from tests.runs_of import FAST
from tests.slowly import mostly_slow

TINY = (
    "model=tiny",
    "stocks=sample5",
    "stocks.symbols=[AAPL,MSFT]",
    "stocks.start=2009-01-02",
    "training.max_steps=60",
    "training.window=48",
    "training.symbols_per_window=2",
    "training.threads=1",
    "training.checkpoint_every=14",
    "training.log_every=3",
    "profit_tracker.every=20",
    *FAST,
)


def weights(folder):
    return {name: array.tobytes() for name, array in load_file(folder / "model" / "model.safetensors").items()}


def steps_without_time(folder):
    return re.sub(r', "(cpu_)?seconds": [0-9.e-]+', "", (folder / "metrics.jsonl").read_text())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    base = tmp_path_factory.mktemp("undisturbed")
    code, out, err = train_here(base, *TINY)
    assert code == 0, err
    return run_folder(out, base)


def test_a_run_ends_with_the_name_of_its_folder(undisturbed):
    assert undisturbed.parts[-4:-1] == ("outputs", "base", "tiny-sample5-mixed")
    assert (undisturbed / "report.html").stat().st_size > 5_000


@pytest.mark.slow
def test_the_same_command_twice_gives_the_same_bytes_and_two_started_at_once_get_two_folders(undisturbed, tmp_path):
    processes = [start_train(tmp_path, *TINY) for _ in range(2)]
    outputs = [ended(process)[1] for process in processes]
    folders = {run_folder(out, tmp_path) for out in outputs}
    assert len(folders) == 2
    for folder in folders:
        assert steps_without_time(folder) == steps_without_time(undisturbed)
        assert weights(folder) == weights(undisturbed)


def kill_and_resume(base, undisturbed, *kills):
    """Send a run a signal as soon as it has logged a step, resume it each time, and compare where it ends.

    kills: (step, signal) in turn.
    """
    process = start_train(base, *TINY)
    for step, number in kills:
        folder = wait_for_step(base, process, step)
        process.send_signal(number)
        code, _, err = ended(process)
        assert code == (3 if number == signal.SIGTERM else -number), err
        process = start_train(base, f"resume={folder}")
    code, out, err = ended(process)
    assert code == 0, err
    assert run_folder(out, base) == folder
    assert weights(folder) == weights(undisturbed)
    assert steps_without_time(folder) == steps_without_time(undisturbed)
    assert json.loads((folder / "result.json").read_text()) == json.loads((undisturbed / "result.json").read_text())
    return folder


def wait_for_step(base, process, step):
    def reached():
        for path in base.glob("outputs/base/*/*/metrics.jsonl"):
            found = re.findall(r'"step": (\d+)', path.read_text())
            if found and int(found[-1]) >= step:
                return path.parent
        return None

    return wait_for(reached, process, every=0.01)


@pytest.mark.slow
@pytest.mark.long
def test_a_run_killed_before_its_first_checkpoint_and_stopped_by_sigterm_ends_like_the_undisturbed_one(
    undisturbed, tmp_path
):
    folder = kill_and_resume(tmp_path, undisturbed, (3, signal.SIGKILL), (30, signal.SIGTERM))
    code, _, err = train_here(tmp_path, f"resume={folder}")
    assert code == 2 and "is finished: there is nothing to resume" in err


@pytest.mark.slow
@pytest.mark.long
def test_five_sigkills_at_random_steps_end_with_the_weights_of_the_undisturbed_run(undisturbed, tmp_path):
    steps = sorted(random.SystemRandom().sample(range(3, 55), 5))
    print(f"killed after steps {steps}")
    kill_and_resume(tmp_path, undisturbed, *[(step, signal.SIGKILL) for step in steps])


@pytest.mark.parametrize(
    ("overrides", "message"),
    mostly_slow(
        [
            ("model=smal", "model=smal: there is no such option; did you mean small?"),
            (
                "training.learnin_rate=3",
                "training.learnin_rate: there is no such field; did you mean training.learning_rate?",
            ),
            ("learning_rate=3", "learning_rate: there is no such field; did you mean training.learning_rate?"),
            (
                "training.learning_rate=abc",
                "training.learning_rate: Value 'abc' of type 'str' could not be converted to Float",
            ),
            ("+training.foo=1", "training.foo: there is no such field"),
            ("training", "Error parsing override 'training' missing EQUAL"),
            ("model=tiny,small", "several values need -m"),
            ("profit_tracker.lag=0", "profit_tracker.lag=0 must be 1 or 2"),
            ("stocks=folder", "stocks.path is missing"),
            ("stocks=folder stocks.path=empty", "stocks.path=empty"),
            ("resume=nowhere", "nowhere/config.yaml does not exist"),
            ("resume=nowhere seed=3", "resume=nowhere keeps the run's own config: leave out seed=3"),
            ("init_from=nowhere stocks.symbols=[AAPL]", "init_from=nowhere is not a run: give its folder"),
            ("training=finetune", "needs a base model: init_from=outputs/base/"),
            ("stocks=sample5 output_dir=/proc/nowhere", "output_dir: /proc/nowhere/base"),
            ("stocks=sample5 name=../elsewhere", "is not a plain folder name"),
        ],
        quick=range(1, 99, 4),
    ),
)
def test_bad_input_ends_in_one_line_with_exit_code_2_and_nothing_is_written(tmp_path, overrides, message):
    refused_in_one_line(train_here, tmp_path, overrides, message)


@pytest.mark.parametrize(
    ("overrides", "message"),
    mostly_slow(
        [
            ("model=smal", "did you mean small?"),  # Hydra refuses it
            ("training.warmup=3", "did you mean training.warmup_steps?"),  # and so does its strict tree
            ("profit_tracker.lag=0", "profit_tracker.lag=0 must be 1 or 2"),  # our check of the values
            ("init_from=nowhere stocks.symbols=[AAPL]", "init_from=nowhere is not a run"),  # what lies on the disk
        ],
        quick=(0,),
    ),
)
def test_bad_input_ends_the_process_with_exit_code_2_and_one_line(tmp_path, overrides, message):
    refused_in_one_line(train, tmp_path, overrides, message)


def refused_in_one_line(train, folder, overrides, message):
    (folder / "empty").mkdir()
    code, out, err = train(folder, *overrides.split())
    said = [line for line in out.splitlines() if not line.endswith(" ...")]  # a phase that takes long is named
    assert (code, said) == (2, []), err
    assert message in err and err.startswith("error: ") and err.count("\n") == 1
    assert [path.name for path in folder.iterdir()] == ["empty"]


def test_without_a_network_yahoo_is_reported_unreachable_and_no_other_data_are_used(tmp_path):
    closed = {name: "http://127.0.0.1:9" for name in ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy")}
    code, out, err = train_here(tmp_path, "model=large", "stocks=tech10", "training.max_steps=2", **closed)
    assert (code, out) == (2, ""), err
    assert "could not be reached" in err and "stocks=sample works offline" in err and err.count("\n") == 1
    assert not list(tmp_path.rglob("run.json"))


HELP, TAB = ("--help",), ("-sc", "query=bash")


def completing(line: str) -> dict[str, str]:
    text = f"python train.py {line}"
    return {"COMP_LINE": text, "COMP_POINT": str(len(text))}


def test_help_and_tab_completion_import_nothing_heavy(tmp_path):
    for arguments in (HELP, TAB):
        code, out, err = python("-X", "importtime", TRAIN, *arguments, cwd=tmp_path, **completing("model="))
        imported = set(re.findall(r"\|\s+(\w+)$", err, re.MULTILINE))
        assert code == 0 and "omegaconf" in imported and ("hydra" in imported) == (arguments == TAB)
        assert not imported & {"torch", "pandas", "numba", "numpy", "optuna", "yfinance", "plotly"}
    assert "model=large" in out and "model=small" in out


@pytest.mark.parametrize(
    "wrong", mostly_slow(["profit_tracker.lag=0", "training.nonsense=1", "model=nonsense"], quick=(0,))
)
def test_a_config_that_is_refused_is_refused_before_anything_heavy_is_imported(tmp_path, wrong):
    code, _, err = python("-X", "importtime", TRAIN, wrong, cwd=tmp_path)
    imported = set(re.findall(r"\|\s+(\w+)$", err, re.MULTILINE))
    assert code == 2 and "hydra" in imported
    assert not imported & {"torch", "pandas", "numba", "arch", "scipy", "optuna", "yfinance", "plotly"}


def fields_of_help(out: str) -> dict:
    text = out[out.index("Fields (field=value):") :].partition("\n\n")[0]
    return yaml.safe_load("\n".join(text.splitlines()[1:]))  # what a field means is a comment of YAML, too


def test_help_shows_every_option_and_every_field_with_the_value_that_would_be_used(tmp_path):
    code, out, _ = train(tmp_path, "--help")
    assert code == 0 and out.startswith("hftraining: ")
    assert yaml.safe_load(train(tmp_path, "--cfg", "job")[1]) == fields_of_help(out)
    for option in ROOT.glob("conf/*/*.yaml"):
        assert re.search(rf"^{option.parent.name}: .*\b{option.stem}\b", out, re.MULTILINE), option
    assert re.search(r"^  commission: 0.001 +# of the traded value, each side$", out, re.MULTILINE)
    assert re.search(r"^seed: 1 +# of all", out, re.MULTILINE) and re.search(
        r"^resume: null +# a run", out, re.MULTILINE
    )


@pytest.mark.slow
def test_help_with_overrides_shows_the_resulting_fields_and_hydras_own_options_still_work(tmp_path):
    _, out, _ = train(tmp_path, "-m", "--help", "model=tiny", "search=profit")
    fields = fields_of_help(out)
    assert fields["model"]["hidden_size"] == 32 and fields["search"]["n_trials"] == 24
    assert train(tmp_path, "-h", "model=smal")[0] == 2
    assert "--shell-completion" in train(tmp_path, "--hydra-help")[1]
    assert "hidden_size: 32" in train(tmp_path, "--config-dir", str(tmp_path), "--help", "model=tiny")[1]


@pytest.mark.slow
def test_a_multirun_makes_a_folder_for_each_run(tmp_path):
    code, out, err = train_here(tmp_path, "-m", "seed=1,2", *TINY, "training.max_steps=3")
    assert code == 0, err
    folders = re.findall(r"^run: (.+)$", out, re.MULTILINE)
    assert len(set(folders)) == 2
    assert len({json.loads((tmp_path / folder / "run.json").read_text())["signature"] for folder in folders}) == 2
