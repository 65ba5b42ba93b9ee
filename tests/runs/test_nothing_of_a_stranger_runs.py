"""Nothing that lies in a folder from elsewhere is run: each attack would leave a marker, and none does.

What is trusted: our own code and what is installed beside it, the user's command line with Hydra's own options, their
environment (PYTHONPATH), and, for `python -m hftraining`, the folder that they stand in, which Python puts first.
"""

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from hydra.utils import instantiate

from tests.commands import train, train_here
from tests.runs.test_strange_folders import edit, edit_yaml, seal, templates  # noqa: F401
from tests.strangers import call

pytestmark = pytest.mark.slow  # attacks: many, and none of them is likely to come back by itself

EVERY = ("resume", "replay", "init_from", "compare", "report", "leaks", "load_model")


class Touch:
    """What a pickle may hold: an order to make a file."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple:
        return Path.touch, (self.marker,)


def callbacks(marker: Path) -> dict:
    """Hydra's callbacks that would make a folder, in each of the forms that Hydra knows."""
    order = {"_target_": "os.mkdir", "_args_": [str(marker)], "path": str(marker)}
    return {"callbacks": {"a": order, "b": {"_target_": "pathlib.Path.mkdir", "self": str(marker)}}}


def python_tag(run: Path, marker: Path) -> None:
    for name in ("config.yaml", "config_diff.yaml"):
        with open(run / name, "a") as file:
            file.write(f"\nevil: !!python/object/apply:os.mkdir ['{marker}']\n")


def tagged_path(run: Path, marker: Path) -> None:
    with open(run / "config.yaml", "a") as file:
        file.write(f"\nevil: !!python/object/new:pathlib.Path ['{marker}']\n")


def resolver(run: Path, marker: Path) -> None:
    edit_yaml(run / "config.yaml", "name", f"${{oc.create:{{_target_:os.mkdir,path:'{marker}'}}}}")


def hydra_in_the_config(run: Path, marker: Path) -> None:
    edit_yaml(run / "config.yaml", "hydra", callbacks(marker) | {"run": {"dir": str(marker)}})


def target_in_a_group(run: Path, marker: Path) -> None:
    for group in ("model", "stocks", "training"):
        edit_yaml(run / "config.yaml", f"{group}._target_", "os.mkdir")
        edit_yaml(run / "config.yaml", f"{group}.path", str(marker))


def target_in_the_model(run: Path, marker: Path) -> None:
    path = run / "model/config.json"
    for shape in ({"_target_": "os.mkdir", "path": str(marker)}, {"kind": f"os.mkdir('{marker}')"}):
        edit(path, model=json.loads(path.read_text())["model"] | shape)


def pickled_weights(run: Path, marker: Path) -> None:
    torch.save({"a": Touch(marker)}, run / "model/model.safetensors")
    seal(run / "model", "model.safetensors")


def pickled_bytes(run: Path, marker: Path) -> None:
    (run / "model/model.safetensors").write_bytes(pickle.dumps(Touch(marker)))
    seal(run / "model", "model.safetensors")


def pickled_checkpoint(run: Path, marker: Path) -> None:
    for folder in (run / "checkpoints").iterdir():
        torch.save({"a": Touch(marker)}, folder / "optimizer.safetensors")
        seal(folder, "optimizer.safetensors")


def pickled_bars(run: Path, marker: Path) -> None:
    (run / "bars.npz").unlink()  # which other runs share
    array = np.array([Touch(marker)], dtype=object)
    np.savez(run / "bars.npz", allow_pickle=True, symbols_S=array, sessions_T=array, digest_TS=array)


def pickled_in_the_archive(run: Path, marker: Path) -> None:
    (run / "bars.npz").unlink()
    with zipfile.ZipFile(run / "bars.npz", "w") as archive:
        for name in ("symbols_S.npy", "sessions_T", "digest_TS.npy"):
            archive.writestr(name, pickle.dumps(Touch(marker)))


def pickled_type(run: Path, marker: Path) -> None:
    frame = pd.read_parquet(run / "equity.parquet")
    table = pa.Table.from_pandas(frame, preserve_index=False)
    order = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": pickle.dumps(Touch(marker))}
    column = table.schema.get_field_index("equity")
    field = table.schema.field(column).with_metadata(order)
    pq.write_table(table.cast(table.schema.set(column, field)), run / "equity.parquet")


def template_in_the_text(run: Path, marker: Path) -> None:
    order = f"{{{{ cycler.__init__.__globals__.os.mkdir('{marker}') }}}}{{% include '/etc/passwd' %}}"
    edit(run / "run.json", name=order, started=order, platform=order)
    edit(run / "result.json", verdict=order, warnings=[order])


def options_for_git(run: Path, marker: Path) -> None:
    code = {"commit": f"--output={marker}", "dirty": False, "digest": "0", "patch": None}
    edit(run / "run.json", code=code)


def link_to_write_through(run: Path, marker: Path) -> None:
    for name in ("report.html", "train.log", "metrics.jsonl"):
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(marker)


def checkpoints_elsewhere(run: Path, marker: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").symlink_to(marker.parent, target_is_directory=True)


ATTACKS: dict[Callable[[Path, Path], None], tuple[str, ...]] = {
    python_tag: EVERY,
    tagged_path: EVERY,
    resolver: EVERY,
    hydra_in_the_config: EVERY,
    target_in_a_group: EVERY,
    target_in_the_model: ("load_model", "init_from", "leaks"),
    pickled_weights: ("load_model", "init_from", "leaks", "replay"),
    pickled_bytes: ("load_model", "init_from", "leaks", "replay"),
    pickled_checkpoint: ("resume",),
    pickled_bars: ("compare", "replay"),
    pickled_in_the_archive: ("compare", "replay"),
    pickled_type: ("report", "compare", "replay"),
    template_in_the_text: ("report", "compare"),
    options_for_git: ("report", "replay"),
    link_to_write_through: ("report", "resume"),
    checkpoints_elsewhere: ("resume", "init_from"),
}


def test_the_orders_of_these_attacks_are_carried_out_where_they_are_obeyed(tmp_path):
    pickle.loads(pickle.dumps(Touch(tmp_path / "a")))
    torch.save({"a": Touch(tmp_path / "b")}, tmp_path / "weights")
    torch.load(tmp_path / "weights", weights_only=False)
    yaml.unsafe_load(f"evil: !!python/object/apply:os.mkdir ['{tmp_path}/c']\n")
    instantiate({"_target_": "os.mkdir", "path": str(tmp_path / "d")})
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "c", "d", "weights"}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_what_a_run_folder_holds_is_never_run(templates, tmp_path, attack):  # noqa: F811
    marker = tmp_path / "marker"
    for command in ATTACKS[attack]:
        source = templates["begun" if command == "resume" else "base"]
        run = tmp_path / command / "outputs" / source.parts[-3] / source.parts[-2] / source.name
        shutil.copytree(source, run, ignore=shutil.ignore_patterns("plotly.min.js", "events.*"))
        attack(run, marker)
        code, _, err = call(command, run, templates["base"], tmp_path / command)
        assert code in (0, 1, 2) and "Traceback" not in err, (command, err)
        assert not marker.exists(), command


def attacked_best(folder: Path, text: str) -> str:
    (folder / "best").mkdir(parents=True)
    (folder / "best" / "knee.yaml").write_text(text)
    return f"+best={folder}/best/knee.yaml"


@pytest.mark.parametrize(
    "make",
    [
        lambda marker: "# @package _global_\n" + yaml.safe_dump({"hydra": callbacks(marker)}),
        lambda marker: "# @package hydra\n" + yaml.safe_dump(callbacks(marker)),
        lambda marker: "# @package _global_\n" + yaml.safe_dump({"hydra": {"run": {"dir": str(marker)}}}),
        lambda marker: "# @package _global_\ndefaults:\n- override /hydra/callbacks: evil\nseed: 1\n",
        lambda marker: yaml.safe_dump({"hydra": {"searchpath": [f"file://{marker.parent}"]}}),
        lambda marker: f"seed: !!python/object/apply:os.mkdir ['{marker}']\n",
        lambda marker: f"name: ${{oc.create:{{_target_:os.mkdir,path:'{marker}'}}}}\n",
        lambda marker: f"output_dir: {marker}\n",
        lambda marker: f"evidence: {{ledger: {marker}}}\n",
    ],
)
def test_a_best_file_sets_fields_and_starts_nothing(tmp_path, make):
    marker = tmp_path / "marker"
    best = attacked_best(tmp_path / "sweep", make(marker))
    evil = tmp_path / "sweep" / "hydra" / "callbacks"
    evil.mkdir(parents=True)
    (evil / "evil.yaml").write_text(yaml.safe_dump(callbacks(marker)["callbacks"]))
    code, _, err = train_here(tmp_path, best, "training.max_steps=1")
    assert code == 2 and err.count("\n") == 1 and "knee.yaml" in err, err
    assert not marker.exists() and not list(tmp_path.rglob("run.json"))


def test_hydra_sees_no_other_file_of_the_folder_of_a_best_file(tmp_path):
    marker = tmp_path / "marker"
    best = attacked_best(tmp_path / "sweep", "# @package _global_\nseed: 1\n")
    for group in ("model", "hydra/launcher", "hydra/job_logging", "hydra/output"):
        for option in ("tiny", "small", "default", "basic"):
            path = tmp_path / "sweep" / group / f"{option}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("# @package _global_\n" + yaml.safe_dump({"hydra": callbacks(marker), "seed": "evil"}))
    code, _, err = train_here(tmp_path, best, "model=tiny", "stocks=folder", f"stocks.path={tmp_path}/none")
    assert code == 2 and "none" in err and "evil" not in err, err
    assert not marker.exists()


def test_modules_plugins_and_entry_points_beside_a_run_are_not_imported(templates, tmp_path):  # noqa: F811
    """The user stands in the stranger's folder, which has modules named as ours and as those that we import."""
    marker, run = tmp_path / "marker", tmp_path / "run"
    shutil.copytree(templates["begun"], run)
    code = f"import os\nos.makedirs({str(marker)!r}, exist_ok=True)\nraise SystemExit('evil')\n"
    for name in (
        "torch",
        "yaml",
        "hydra",
        "hftraining",
        "hfinference",
        "sitecustomize",
        "usercustomize",
        "numpy",
        "hubconf",
    ):
        (run / f"{name}.py").write_text(code)
    for name in ("hydra_plugins/evil", "hydra_plugins/evil_plugin/__init__", "conf/evil"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / f"{name}.py").write_text(code)
    (run / "evil.pth").write_text(f"import os; os.makedirs({str(marker)!r})\n")
    facts = run / "evil-1.0.dist-info"
    facts.mkdir()
    (facts / "entry_points.txt").write_text(
        "[pandas_plotting_backends]\nmatplotlib = torch\n[optuna.storages]\na = torch\n"
    )
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    (run / "config.yaml").write_text("a: *b\n")  # so that the process ends soon, with Hydra and the readers loaded
    code_, _, err = train(run, f"resume={run}", PYTHONPATH=None)
    assert code_ == 2 and "config.yaml" in err and "aliases" in err, err
    assert not marker.exists()
