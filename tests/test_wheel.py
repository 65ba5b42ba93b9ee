"""The wheel: it holds every file that the product needs, and its installation can train."""

import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.commands import ROOT, python

PRODUCT = ("hftraining", "hfinference", "hydra_plugins")


def test_every_folder_of_the_product_is_a_package_of_the_wheel():
    folders = {path.parent.relative_to(ROOT) for name in PRODUCT for path in (ROOT / name).rglob("*.py")}
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert sorted(named) == sorted([*(".".join(folder.parts) for folder in folders), "hftraining.conf"])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """The wheel of all files that git tracks or would add, built from a copy because a build leaves folders behind."""
    copy = tmp_path_factory.mktemp("project")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    for name in listed.stdout.splitlines():
        if name.startswith((*(f"{part}/" for part in PRODUCT), "conf/", "pyproject", "README")):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    build = "from setuptools.build_meta import build_wheel; print(build_wheel('dist'))"
    code, out, err = python("-c", build, cwd=copy)
    assert code == 0, err
    return zipfile.ZipFile(copy / "dist" / out.splitlines()[-1])


@pytest.mark.slow
def test_the_wheel_has_every_module_config_and_data_file(wheel):
    files = set(wheel.namelist())
    source = {path.relative_to(ROOT) for name in PRODUCT for path in (ROOT / name).rglob("*") if path.is_file()}
    wanted = {path.as_posix() for path in source if "__pycache__" not in path.parts and path.suffix != ".md"}
    configs = {f"hftraining/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert wanted | configs <= files
    assert "hftraining/conf/config.yaml" in files and "hydra_plugins/hftraining_sweeper.py" in files
    assert {name.split("/")[0] for name in files if ".dist-info/" not in name} == set(PRODUCT)


@pytest.mark.slow
@pytest.mark.long
def test_a_stock_is_trained_from_an_unpacked_wheel_in_a_fresh_folder(wheel, tmp_path):
    wheel.extractall(tmp_path / "site")
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    words = "--stock AAPL --data sample --model tiny --steps 20 --threads 1".split()
    code, _, err = python("-m", "hftraining.train_with_profit", *words, cwd=fresh, PYTHONPATH=str(tmp_path / "site"))
    assert code == 0, err
    assert len(list((fresh / "outputs" / "single" / "AAPL").glob("*/result.json"))) == 1
    where = "import hftraining.experiment.config as config; print(config.CONF)"
    conf = python("-c", where, cwd=fresh, PYTHONPATH=str(tmp_path / "site"))[1].strip()
    assert Path(conf) == tmp_path / "site" / "hftraining" / "conf"
