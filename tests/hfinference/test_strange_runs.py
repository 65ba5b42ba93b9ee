"""Run folders of strangers, given to the commands of a trained run: one line, and nothing run or written."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hfinference.__main__ import main
from tests.runs_of import hashes

WEIGHTS = "model/model.safetensors"


class Bomb:
    """What a pickle would run."""

    def __reduce__(self):
        return os.system, ("touch exploded",)


def edited(path: Path, change: Callable[[dict], object]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def as_model(**values) -> Callable[[Path], None]:
    return lambda run: edited(run / "model/config.json", lambda config: config["model"].update(values))


def as_config(**values) -> Callable[[Path], None]:
    return lambda run: edited(run / "model/config.json", lambda config: config.update(values))


def text(name: str, content: str) -> Callable[[Path], None]:
    return lambda run: (run / name).write_text(content)


def link(name: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        (run / name).rename(run.parent / "elsewhere")
        (run / name).symlink_to(run.parent / "elsewhere")

    return change


def huge(name: str) -> Callable[[Path], None]:
    return lambda run: os.truncate(run / name, 10**12)  # a sparse file: it takes no space


def said_to_be_huge(run: Path) -> None:
    """The header of safetensors that names 10^9 by 10^9 numbers."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4 * 10**18]}}).encode()
    (run / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header)


STRANGE = {
    "a width of 10^9": (as_model(hidden_size=10**9), "weights"),
    "10^9 layers": (as_model(num_layers=10**9), "model.num_layers=1000000000 must be at most"),
    "a horizon of 10^9": (as_config(horizons=[10**9]), "horizons"),
    "a target to be built": (as_model(_target_="os.system"), "model._target_"),
    "an unknown kind": (as_model(kind="pickle"), "config.json"),
    "members elsewhere": (as_config(kind="ensemble", format=1, members=["../../x"], weights=[1.0]), "config.json"),
    "a pickle": (lambda run: (run / WEIGHTS).write_bytes(pickle.dumps(Bomb())), "sha256"),
    "weights that are a link": (link(WEIGHTS), "is a symbolic link"),
    "a config that is a link": (link("config.yaml"), "is a symbolic link"),
    "weights of a terabyte": (huge(WEIGHTS), "the most is"),
    "a config of a terabyte": (huge("model/config.json"), "the most is"),
    "numbers of 10^18": (said_to_be_huge, "sha256"),
    "a tag of Python": (text("config.yaml", "x: !!python/object/apply:os.system ['touch exploded']\n"), "config.yaml"),
    "a reference": (text("config.yaml", "name: ${oc.env:HOME}\n"), "config.yaml"),
    "batches of 10^9": (text("config.yaml", "training: {batch_size: 1000000000}\n"), "training.batch_size=1000000000"),
    "no JSON": (text("run.json", "[" * 10_000), "run.json is damaged"),
    "no model": (lambda run: shutil.rmtree(run / "model"), "has no model yet: python train.py resume="),
    "threads of 10^9": (lambda run: edited(run / "run.json", lambda facts: facts.update(threads=10**9)), "threads"),
}


@pytest.mark.parametrize("command", ["forecast", "backtest"])
@pytest.mark.parametrize("what", STRANGE)
def test_a_strange_folder_ends_in_one_line_before_anything_is_made(base, tmp_path, monkeypatch, capsys, what, command):
    monkeypatch.chdir(tmp_path)
    run = Path(shutil.copytree(base, tmp_path / "outputs" / "run"))
    change, message = STRANGE[what]
    change(run)
    small = {name: run / name for name in ("config.yaml", "run.json") if not (run / name).is_symlink()}
    before = {name: path.read_bytes() for name, path in small.items()}
    assert main([command, str(run)]) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and said.out == "" and "Traceback" not in said.err
    assert {name: path.read_bytes() for name, path in small.items()} == before
    assert not (tmp_path / "exploded").exists() and {path.name for path in tmp_path.iterdir()} <= {"outputs"}
    assert {path.name for path in (tmp_path / "outputs").iterdir()} <= {"run", "elsewhere"}


def test_a_run_that_is_sound_is_only_read(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = hashes(own)
    assert main(["forecast", str(own)]) == 0 and main(["backtest", str(own), "--outputs", str(tmp_path)]) == 0
    assert hashes(own) == before


@pytest.mark.parametrize("command", ["forecast", "backtest"])
def test_what_is_no_run_is_named(tmp_path, capsys, command):
    for place, message in ((tmp_path / "nowhere", "does not exist"), (tmp_path, "config.json")):
        assert main([command, str(place)]) == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1
