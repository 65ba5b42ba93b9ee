"""Whatever is typed, and whatever lies in conf/: python train.py ends in one line and with the right exit code."""

import contextlib
import os
import re
import signal
import subprocess
import sys

import pytest

from hftraining.experiment import prepare
from hftraining.experiment import run as experiment_run
from hftraining.market.prices import load_bars
from tests.commands import ROOT, TRAIN, run_folder, train_here
from tests.mutations import BOMB, mutate_a_file, mutated_overrides
from tests.runs_of import QUICK, own_ledger

pytestmark = pytest.mark.slow  # attacks: many, and none of them is likely to come back by itself

# What these change outlives the command, in the process of the tests.
LASTING = re.compile(r"logging|hydra\.verbose|env_set|env_copy|chdir|hydra/(help|output)")


@pytest.fixture
def quick(folder) -> list[str]:
    return [*QUICK, f"stocks.path={folder}", "training.max_steps=2", "training.warmup_steps=1"]


@pytest.fixture
def conf(tmp_path, monkeypatch):
    """A copy of conf/ that this process uses."""
    copied = tmp_path / "conf"
    subprocess.run(["cp", "-r", str(ROOT / "conf"), str(copied)], check=True)
    for module in ("config", "compose", "usage"):
        monkeypatch.setattr(f"hftraining.experiment.{module}.CONF", copied)
    return copied


def is_refused_in_one_line(answer: tuple[int, str, str]) -> str:
    code, _, err = answer
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1 and len(err) < 1_400, (code, err)
    assert err.strip().isprintable()
    return err


@pytest.mark.parametrize("first", range(0, 40, 8))
def test_random_command_lines_end_well(tmp_path, quick, first):
    for seed in range(first, first + 8):
        words = [word for word in mutated_overrides(seed) if not LASTING.search(word)]
        code, out, err = train_here(tmp_path, *quick, *words)
        assert code in (0, 2, 3, None) and err.count("\n") <= 12 and "Traceback" not in err + out, (seed, code, err)
        assert not code or err, seed


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("training=2147483648", "Config group override must be a string or a list"),
        ("model=[nan]", ""),
        ("hydra/launcher=0.0", ""),
        ("hydra/sweeper=inf", ""),
        ("hydra/job_logging=[[1]]", ""),
        ("seed=99999999999999999999999", "seed="),
        ("model.hidden_size=1000000000", "choose a smaller model"),
        ("model.num_layers=1000000", "model.num_layers=1000000 must be at most 1,000"),
        ("training.threads=1000000", "training.threads=1000000 must be at most 512"),
        ("training.batch_size=65536 training.window=100000", "bytes a step"),
        ("evidence.null_draws=1000000000", "must be at most 100,000"),
        ("objective.horizons=[1,1000000]", "more than any data have"),
        ("objective.forecast_weight=nan", "objective.forecast_weight=nan"),
        ("profit_tracker.initial_capital=1e308", "profit_tracker.initial_capital=1e+308"),
        ("stocks.symbols=[[AAPL]]", "stocks.symbols: ['AAPL'] in the list is no str"),
        ("search.n_trials=3", "needs a search"),
        ("--foo", "unrecognized arguments: --foo"),
        ("--cfg x", "invalid choice: 'x'"),
        ("--config-dir nowhere", "nowhere"),
        ("--config-name nowhere", "nowhere"),
        ("--experimental-rerun x", "--experimental-rerun is not offered"),
        ("hydra.run.dir=/proc/x", "/proc/x"),
        ("hydra.callbacks.x._target_=nowhere.at.all", ""),
        ("name=${oc.env:NO_SUCH_VARIABLE}", "name takes its value from the environment"),
        ("name=${name}", ""),
        ("name=\udcff", "no UTF-8 text"),
        ("name=" + "[" * 200, "brackets lie more than 30 deep"),
        ("stocks.symbols=[" + ",".join(f"S{n}" for n in range(10_000)) + "]", "10,000 values in one argument"),
        ("model=" + "x" * 100_000, "more characters"),
        ("model=" + "\x1b[31m", ""),
        ("+best=nowhere/best/k.yaml", "no such file best/*.yaml"),
        ("resume=nowhere", "nowhere"),
        ("init_from=nowhere", "nowhere"),
    ],
    ids=lambda text: str(text)[:40],
)
def test_what_cannot_be_run_is_refused_in_one_line(tmp_path, words, says):
    assert says in is_refused_in_one_line(train_here(tmp_path, *words.split()))
    assert not list(tmp_path.rglob("run.json"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: tiny\nhidden_size: [", r"tiny.yaml, line \d, column \d+: "),
        ("name: tiny\nname: small\n", "tiny.yaml, line 2, column 1: found duplicate key name"),
        (b"name: tiny\n# \xff\n", "tiny.yaml, line 2, column 3: the byte 0xff is no UTF-8 text"),
        (BOMB, r"tiny.yaml, line \d+, column \d+: more than 5,000 values"),
        ("a: &a [*a]\n", r"tiny.yaml, line 1, column 8: \*a stands within what it stands for"),
        (
            "name: !!python/object/apply:os.getcwd []\n",
            "tiny.yaml, line 1, column 7: could not determine a constructor",
        ),
        ("- " * 2_000, "tiny.yaml, line 1, column 81: lists and mappings lie more than 40 deep"),
        ("name: tiny\x07\n", "tiny.yaml: control characters are not allowed at character 10"),
        ("x" * 1_000_001, "tiny.yaml has 1,000,001 bytes"),
        ("3\n", "tiny.yaml"),
        ("hiden_size: 3\n", "hiden_size"),
        ("# @package\nname: x\n", ""),
        ("defaults: [nosuch]\n", "nosuch"),
    ],
    ids=range(13),
)
def test_a_damaged_file_of_conf_is_named_with_line_and_column(tmp_path, conf, text, says):
    (conf / "model" / "tiny.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    for words in (["model=tiny"], ["--help", "model=tiny"], ["model=tiny", "--cfg", "job"]):
        if text.startswith("# @package") if isinstance(text, str) else False:
            assert train_here(tmp_path, *words)[2].count("\n") <= 1
            continue
        assert re.search(says, is_refused_in_one_line(train_here(tmp_path, *words)))


def test_randomly_damaged_files_of_conf_end_well(tmp_path, quick, conf):
    for seed in range(4):
        subprocess.run(["cp", "-r", f"{ROOT}/conf/.", str(conf)], check=True)
        done = mutate_a_file(conf, seed)
        code, out, err = train_here(tmp_path, *quick)
        assert code in (0, 2, None) and err.count("\n") <= 12 and "Traceback" not in err + out, (done, code, err)


def test_the_options_of_hydra_still_work(tmp_path):
    for words, shown in (
        (["model=tiny", "--cfg", "job"], "hidden_size: 32"),
        (["--info", "searchpath"], "conf"),
        (["--hydra-help"], "--shell-completion"),
        (["--version"], "Hydra 1."),
        (["--cfg", "job", "--package", "model", "model=tiny"], "num_layers: 2"),
    ):
        code, out, err = train_here(tmp_path, *words)
        assert (code or 0, err) == (0, "") and shown in out
    assert is_refused_in_one_line((2, *train_here(tmp_path, "--cfg", "x")[1:]))


# --- signals and pipes ------------------------------------------------------------------------------------------------


@pytest.fixture
def no_harm():
    """A SIGTERM that comes when nobody handles it fails the test instead of ending the tests."""

    def unhandled(number, frame):
        raise AssertionError("nobody handled the signal")

    before = signal.signal(signal.SIGTERM, unhandled)
    yield
    signal.signal(signal.SIGTERM, before)


def test_sigterm_while_the_bars_are_read_ends_with_its_line_and_nothing_is_left(tmp_path, quick, monkeypatch, no_harm):
    def signalled(stocks):
        os.kill(os.getpid(), signal.SIGTERM)
        return load_bars(stocks)

    monkeypatch.setattr(prepare, "load_bars", signalled)
    assert train_here(tmp_path, *quick) == (3, "", "interrupted: stopped by SIGTERM\n")
    assert not list(tmp_path.rglob("run.json"))


@pytest.mark.parametrize("station", ["fit", "conclude"])
def test_sigterm_before_and_after_the_step_loop_marks_the_row_and_the_run_is_resumed(
    tmp_path, quick, monkeypatch, no_harm, station
):
    real = getattr(experiment_run, station)

    def signalled(*arguments, **settings):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(experiment_run, station, signalled)
        code, _, err = train_here(tmp_path, *quick)
    (folder,) = (tmp_path / "outputs/base/tiny-folder-mixed").iterdir()
    relative = folder.relative_to(tmp_path)
    assert (code, err) == (3, f"interrupted: stopped by SIGTERM; python train.py resume={relative} goes on\n")
    assert [entry.status for entry in own_ledger().entries(False)] == ["interrupted"]
    code, out, err = train_here(tmp_path, f"resume={relative}")
    assert (code, err) == (0, "") and run_folder(out, tmp_path) == folder
    assert [entry.status for entry in own_ledger().entries(False)] == ["done"]


@pytest.mark.slow
def test_a_closed_pipe_ends_a_run_in_one_line_and_a_listing_in_none(tmp_path, quick, state):
    words = [sys.executable, str(TRAIN), *quick]
    script = 'set -o pipefail; "$@" 2>err | head -1; echo ${PIPESTATUS[0]}'
    there = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 100}
    done = subprocess.run(["bash", "-c", script, "-", *words], **there)
    err = (tmp_path / "err").read_text()
    assert done.stdout.splitlines()[-1] in ("0", "3") and err.count("\n") <= 1 and "Traceback" not in err
    assert "3" not in done.stdout.splitlines()[1:] or "resume=" in err
    help_ = [sys.executable, str(TRAIN), "--help"]
    done = subprocess.run(["bash", "-c", script.replace("head -1", "true"), "-", *help_], **there)
    assert done.stdout == "3\n" and (tmp_path / "err").read_text() == ""


def test_a_run_whose_reader_has_gone_is_interrupted_and_resumed(tmp_path, quick, monkeypatch):
    reads, writes = os.pipe()
    os.close(reads)
    gone = os.fdopen(writes, "w")
    monkeypatch.setattr("hftraining.reports.console.Terminal.file", property(lambda self: gone))
    code, _, err = train_here(tmp_path, *quick)
    with contextlib.suppress(BrokenPipeError):
        gone.close()
    assert code == 3 and re.fullmatch(r"interrupted: nobody reads the output any more; .* resume=\S+ goes on\n", err)
    assert [entry.status for entry in own_ledger().entries(False)] == ["interrupted"]
