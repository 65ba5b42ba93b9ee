"""Replay: the same bits from the folder alone, and a message that names each kind of tampering."""

import json
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from hftraining.__main__ import main
from hftraining.core.errors import UserError
from hftraining.experiment.replay import ReplayError, replay
from hftraining.market.snapshots import save_snapshot
from hftraining.runs.bitwise import compare_bits
from hftraining.runs.ledger import Ledger
from tests.commands import ROOT, ended, python, run_folder, start_train, train, wait_for
from tests.runs_of import QUICK, edit_run_json, own_copy, own_outputs, run, snapshot_run


@pytest.fixture
def made(reference, tmp_path) -> Path:
    """A finished run whose folder a test may tamper with."""
    return own_outputs(Path(reference["folder"]), tmp_path / "made")


@pytest.fixture
def with_own_bars(folder, tmp_path) -> Path:
    """A finished run, alone in its outputs, whose bars a test may tamper with."""
    return Path(run(own_copy(folder, tmp_path / "bars"), tmp_path / "outputs")["folder"])


def test_a_replay_is_equal_to_the_bit_in_a_new_folder_beside_the_run(made):
    said = []
    again = replay(made, say=said.append)
    assert again.bits.equal and again.causes == [] and said == []
    assert again.folder != made and again.folder.parent == made.parent
    assert (again.bits.tensors, again.bits.steps, again.bits.first_step) == (27, 4, None)


@pytest.mark.slow
def test_a_replay_is_no_new_trial_and_no_new_look_at_the_test_days(with_own_bars):
    again = replay(with_own_bars)
    first, second = (json.loads((path / "result.json").read_text()) for path in (with_own_bars, again.folder))
    assert (second["n_trials"], second["test_openings"]) == (first["n_trials"], first["test_openings"]) == (1, 1)
    assert second["verdict"] == first["verdict"] and second["signature"] == first["signature"]
    entries = Ledger(with_own_bars.parents[2] / "ledger.sqlite").entries()
    assert [entry.status for entry in entries] == ["done", "done"]


@pytest.mark.slow
def test_a_changed_bar_is_named_before_anything_is_trained(with_own_bars, tmp_path):
    path = tmp_path / "bars" / "S1.csv"
    frame = pd.read_csv(path)
    day = frame["date"].iloc[123]
    frame.loc[123, "close"] = np.nextafter(frame.loc[123, "close"], 0)
    frame.to_csv(path, index=False)
    with pytest.raises(
        ReplayError, match=rf"data: the bars are not those .*: S1: {day} changed; put the old data back"
    ):
        replay(with_own_bars)
    assert len(list(with_own_bars.parent.iterdir())) == 1


@pytest.mark.slow
def test_added_days_are_distinguished_from_changed_ones(with_own_bars, tmp_path):
    for path in (tmp_path / "bars").glob("*.csv"):
        pd.read_csv(path).iloc[:-2].to_csv(path, index=False)
    with pytest.raises(ReplayError, match=r"S0: [0-9-]+, [0-9-]+ only in the run; S1: "):
        replay(with_own_bars)


@pytest.mark.slow
def test_missing_bars_are_named(with_own_bars, tmp_path):
    shutil.rmtree(tmp_path / "bars")
    with pytest.raises(ReplayError, match=r"the bars of .* cannot be loaded: stocks.path=.* does not exist"):
        replay(with_own_bars)


@pytest.mark.slow
def test_another_thread_count_is_named(made):
    edit_run_json(made, lambda manifest: manifest.update(threads=2))
    said = []
    again = replay(made, say=said.append)
    assert said == ["threads: run.json says 2, but its config sets 1"]
    assert [cause.kind for cause in again.causes] == ["threads"]


@pytest.mark.slow
def test_the_recorded_threads_are_used_where_the_config_leaves_the_default_and_others_are_named(folder, tmp_path):
    import torch

    torch.set_num_threads(1)
    try:
        path = Path(run(folder, tmp_path, "training.threads=0")["folder"])
        torch.set_num_threads(2)
        assert replay(path).bits.equal and torch.get_num_threads() == 1
        edit_run_json(path, lambda manifest: manifest.update(threads=2))
        again = replay(path)
        assert torch.get_num_threads() == 2
        assert [(cause.kind, cause.text) for cause in again.causes] == [("threads", "numerics.threads 1 then, 2 now")]
        assert again.bits.equal or again.likely[0].startswith("threads: ")
    finally:
        torch.set_num_threads(1)


@pytest.mark.slow
def test_a_faked_library_version_is_named(made):
    edit_run_json(made, lambda manifest: manifest["versions"].update(numpy="1.26.4"))
    said = []
    again = replay(made, say=said.append)
    assert said == [f"library: numpy 1.26.4 then, {np.__version__} now"]
    assert again.bits.equal  # the version was only said to be another one


@pytest.mark.slow
def test_other_code_is_named(made):
    edit_run_json(made, lambda manifest: manifest["code"].update(digest="0" * 16, commit="a" * 40))
    said = []
    replay(made, say=said.append)
    assert said[0].startswith(f"code: sources {'0' * 16} (commit aaaaaaaaaaaa")
    assert said[0].endswith("--from-commit runs the recorded one")


@pytest.mark.slow
def test_weights_changed_after_the_run_are_named_beside_what_is_still_equal(made):
    path = made / "model" / "model.safetensors"
    tensors = {name: array.copy() for name, array in load_file(path).items()}
    name = next(iter(tensors))
    tensors[name].flat[0] = np.nextafter(tensors[name].flat[0], np.float32(9), dtype=np.float32)
    save_file(tensors, path)
    again = replay(made)
    assert again.bits.weights.startswith("1 of 27 tensors differ, by up to ") and name in again.bits.weights
    assert not again.bits.metrics and not again.bits.equity
    assert again.likely == [
        "the weights differ, every logged step is equal: was model.safetensors changed after the run?"
    ]


@pytest.mark.slow
def test_the_first_step_that_differs_is_named(made):
    lines = (made / "metrics.jsonl").read_text().splitlines()
    row = json.loads(lines[1])
    row["train/loss"] += 1e-9
    row["seconds"] = 12345.0
    (made / "metrics.jsonl").write_text("\n".join([lines[0], json.dumps(row), *lines[2:]]) + "\n")
    again = replay(made)
    assert again.bits.first_step == row["step"]
    assert again.bits.metrics.startswith(f"first differs at step {row['step']}: train/loss {row['train/loss']} became ")
    assert "nothing recorded explains it" in again.likely[0]


def test_a_day_of_the_account_that_differs_is_named(made, tmp_path):
    other = own_copy(made, tmp_path / "other")
    frame = pd.read_parquet(made / "equity.parquet")
    frame.loc[30, "equity"] = np.nextafter(frame.loc[30, "equity"], 0)
    frame.to_parquet(other / "equity.parquet")
    bits = compare_bits(made, other)
    day = str(frame.loc[30, "date"])[:10]
    assert bits.equity == f"equity differs on 1 of {len(frame)} days, valid days from {day} on" and bits.trained_alike


def test_a_truncated_weights_file_is_named(made, tmp_path):
    other = own_copy(made, tmp_path / "other")
    weights = other / "model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        compare_bits(made, other)


def test_a_run_that_is_not_finished_is_refused(made):
    (made / "result.json").unlink()
    with pytest.raises(ReplayError, match="is not finished"):
        replay(made)


@pytest.mark.slow
def test_the_snapshot_of_the_run_is_used_though_a_newer_one_exists_and_the_outputs_moved(tmp_path):
    path = snapshot_run(tmp_path)
    snapshots = tmp_path / "outputs" / "snapshots"
    (stored,) = snapshots.glob("*.parquet")
    newer = pd.read_parquet(stored)
    newer["close"] *= 1.0001
    request = {"symbols": ["S0", "S1"], "start": None, "end": None}
    time.sleep(1.1)  # snapshots are dated to the second
    save_snapshot(snapshots, newer, request)
    (tmp_path / "outputs").rename(tmp_path / "archive")
    moved = tmp_path / "archive" / path.relative_to(tmp_path / "outputs")
    again = replay(moved)
    assert again.bits.equal
    known = [json.loads((p / "run.json").read_text()) for p in (moved, again.folder)]
    assert known[0]["data"] == known[1]["data"] and known[0]["data"]["snapshot"] == stored.stem
    assert known[0]["signature"] == known[1]["signature"]


@pytest.mark.slow
def test_a_missing_snapshot_is_named(tmp_path):
    path = snapshot_run(tmp_path)
    (stored,) = (tmp_path / "outputs" / "snapshots").glob("*.parquet")
    stored.unlink()
    with pytest.raises(ReplayError, match=rf"snapshot missing: {stored.stem} is not in .*snapshots"):
        replay(path)


@pytest.mark.slow
def test_the_command_ends_with_0_when_equal_1_when_not_2_when_it_cannot_run(made, capsys):
    assert main(["replay", str(made), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["equal"] is True and found["first_step"] is None and Path(found["replay"]).is_dir()
    text = (made / "metrics.jsonl").read_text()
    (made / "metrics.jsonl").write_text(re.sub(r'"train/loss": [0-9.]+', '"train/loss": 0.5', text, count=1))
    assert main(["replay", str(made), "--json"]) == 1
    out = capsys.readouterr().out
    assert json.loads(out.splitlines()[-1])["first_step"] == 2 and "likely cause: " in out
    assert main(["replay", str(made.parent)]) == 2
    assert "is not a run" in capsys.readouterr().err


CONFIGS = {
    "mixed": (),
    "forecast": ("objective=forecast",),
    "profit, head": ("objective=profit", "portfolio=head"),
    "top, lag 2, whole shares": (
        "portfolio=top",
        "profit_tracker.lag=2",
        "profit_tracker.whole_shares=true",
    ),
    "sign, frictionless, one horizon": (
        "profit_tracker=frictionless",
        "portfolio=sign",
        "portfolio.horizon=1",
    ),
    "bf16": ("training.precision=bf16",),
    "two threads": ("training.threads=2", "model.hidden_size=64", "training.window=64"),
    "across symbols, without dropout": ("model.cross_asset=true", "model.dropout=0"),
    "relative labels, best by Sharpe": (
        "objective.relative=mean",
        "portfolio.kind=tilt",
        "training.best_metric=profit/sharpe_ratio",
    ),
    "squared error, averaged weights": ("objective.loss=mse", "training.ema=0.9"),
    "other comparators": ("evidence.baselines=[trend,ridge]", "evidence.null_draws=50"),
    "another seed, close labels": ("seed=11", "objective.label=close", "training.checkpoint_every=1"),
    "fewer symbols and days": ("stocks.exclude=[S2]", "stocks.start=2015-03-02", "stocks.bad_rows=drop"),
}


LONG = ("top, lag 2, whole shares", "sign, frictionless, one horizon", "other comparators", "fewer symbols and days")


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [pytest.param(v, id=k, marks=[pytest.mark.long] if k in LONG else []) for k, v in CONFIGS.items()],
)
def test_replay_is_bit_exact_whatever_the_config(folder, tmp_path, overrides):
    path = Path(run(folder, tmp_path, *overrides)["folder"])
    again = replay(path)
    assert again.bits.equal, again.bits.lines()


@pytest.mark.slow
@pytest.mark.long
def test_replay_of_a_run_that_was_interrupted_and_resumed_is_bit_exact(folder, tmp_path):
    values = (
        *QUICK,
        f"stocks.path={folder}",
        f"output_dir={tmp_path}",
        "training.max_steps=200",
        "training.log_every=1",
    )
    process = start_train(tmp_path, *values)

    def on_its_way():
        return [path.parent for path in tmp_path.glob("base/*/*/metrics.jsonl") if path.read_text().count("\n") > 20]

    (path,) = wait_for(on_its_way, process, every=0.01)
    process.send_signal(signal.SIGTERM)
    assert ended(process, timeout=60)[0] == 3
    assert train(tmp_path, f"resume={path}")[0] == 0
    assert "resumed from step" in (path / "train.log").read_text()
    again = replay(path)
    assert again.bits.equal and again.bits.steps == 200, again.bits.lines()


def in_tree(tree: Path, *words, cwd: Path) -> tuple[int, str, str]:
    return python(*words, cwd=cwd, PYTHONPATH=str(tree), OMP_NUM_THREADS="1")


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A separate checkout of the project whose code a test may change."""
    tree = (tmp_path_factory.mktemp("tree") / "project").resolve()
    for name in ("hftraining", "conf", "hydra_plugins"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("train.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tree / name)
    git(tree, "init", "-q")
    git(tree, "add", ".")
    git(tree, "commit", "-qm", "first")
    return tree


def git(tree: Path, *arguments: str) -> None:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.com")
    subprocess.run(["git", "-C", str(tree), *who, *arguments], check=True, capture_output=True)


@pytest.mark.slow
@pytest.mark.long
def test_changed_code_is_named_with_the_first_step_and_from_commit_gives_the_old_bits(tree, folder, tmp_path):
    optimizer = tree / "hftraining" / "training" / "optimizer.py"
    # What was not committed is part of the run: one more decimal of a constant.
    optimizer.write_text(optimizer.read_text().replace("BETAS = (0.9, 0.95)", "BETAS = (0.9, 0.951)"))
    values = (*QUICK, f"stocks.path={folder}", "training.log_every=1", "training.warmup_steps=0")
    code, out, err = in_tree(tree, tree / "train.py", *values, cwd=tmp_path)
    assert code == 0, err
    path = run_folder(out, tmp_path)
    manifest = json.loads((path / "run.json").read_text())
    assert manifest["code"]["dirty"] is True and manifest["code"]["patch"] == "code.patch"
    assert b"0.951" in (path / "code.patch").read_bytes()

    optimizer.write_text(optimizer.read_text().replace("BETAS = (0.9, 0.951)", "BETAS = (0.8, 0.9)"))
    code, out, err = in_tree(tree, "-m", "hftraining", "replay", path, "--json", cwd=tmp_path)
    assert code == 1, err
    found = json.loads(out.splitlines()[-1])
    # The size of Adam's first step does not depend on betas; that of the second shows in the loss of the third.
    assert found["first_step"] == 3 and found["likely"][0].startswith("code: sources ")
    assert out.splitlines()[0].startswith("code: sources ")

    from_commit = ("-m", "hftraining", "replay", path, "--from-commit", "--json")
    code, out, err = in_tree(tree, *from_commit, cwd=tmp_path)
    assert code == 2 and "nothing was run" in err and "  hftraining/training/optimizer.py  +1 -1" in out
    code, out, err = in_tree(tree, *from_commit, "--trust", cwd=tmp_path)
    assert code == 0, out + err
    found = json.loads(out.splitlines()[-1])
    assert found["equal"] is True and Path(found["replay"]).is_dir()
    listed = subprocess.run(["git", "-C", str(tree), "worktree", "list"], capture_output=True, text=True).stdout
    assert listed.count("\n") == 1  # the temporary one is gone


@pytest.mark.slow
@pytest.mark.long
def test_a_missing_commit_or_patch_is_one_line(tree, folder, tmp_path):
    git(tree, "checkout", "--", ".")
    values = (*QUICK, f"stocks.path={folder}")
    path = run_folder(in_tree(tree, tree / "train.py", *values, cwd=tmp_path)[1], tmp_path)

    def refused(change) -> str:
        edit_run_json(path, lambda manifest: manifest["code"].update(change))
        code, _, err = in_tree(tree, "-m", "hftraining", "replay", path, "--from-commit", cwd=tmp_path)
        assert code == 2 and err.count("\n") == 1, err
        return err

    assert "uncommitted changes that are not in the folder (left out: too large)" in refused(
        {"dirty": True, "patch": "left out: too large"}
    )
    assert "are not the code that run.json names" in refused({"dirty": False, "digest": "1" * 16})
    assert f"commit {'a' * 12} is not in" in refused({"commit": "a" * 40})
    assert "names no commit" in refused({"commit": None})
