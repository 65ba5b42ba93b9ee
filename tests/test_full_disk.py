"""A full, read-only or vanished disk: one line, exit code 2, and the run goes on once that is mended."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hftraining.runs.record import RunRecord
from tests.commands import run_folder, train_here
from tests.runs_of import QUICK

pytestmark = pytest.mark.slow  # attacks: many, and none of them is likely to come back by itself

ENOUGH = 30_000  # kB


class Disk:
    """A small disk in memory, mounted at a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(self.folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a disk in memory cannot be mounted here: {done.stderr.strip()}")

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path) -> Iterator[Disk]:
    made = Disk(tmp_path / "disk")
    yield made
    if os.path.ismount(made.folder):
        made.unmount()


@pytest.fixture
def quick(folder) -> list[str]:
    return [*QUICK, f"stocks.path={folder}", "training.max_steps=2", "training.warmup_steps=1"]


def is_one_line(answer: tuple[int, str, str]) -> str:
    code, _, err = answer
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1, (code, err)
    return err


def run_on(disk: Disk, tmp_path: Path, quick: list[str], size: int, *more: str) -> tuple[int, str]:
    """Run on a disk of this many kB, then give it space and resume: the first exit code, and what was said."""
    disk.mount(f"size={size}k")
    code, out, err = train_here(tmp_path, *quick, f"output_dir={disk.folder}/outputs", *more)
    runs = list(disk.folder.glob("outputs/base/*/*"))
    disk.mount(f"remount,size={ENOUGH}k")
    if code:
        assert "no space left on the disk of" in is_one_line((code, out, err))
        assert len(runs) <= 1
        for run in runs:  # what is there is whole, and named
            assert err.endswith(f"once that is mended, python train.py resume={run} goes on\n")
            again, out, err_again = train_here(tmp_path, f"resume={run}")
            assert again == 0, (size, err_again, sorted(path.name for path in run.iterdir()))
            assert run_folder(out, tmp_path) == run
    disk.unmount()
    return code, err


def test_a_disk_that_is_full_in_the_middle_of_a_run_ends_in_one_line_and_the_run_is_resumed(tmp_path, disk, quick):
    code, err = run_on(disk, tmp_path, quick, 160)
    assert code == 2 and "resume=" in err


@pytest.mark.slow
@pytest.mark.parametrize("with_ledger", [False, True], ids=["ledger elsewhere", "ledger there"])
@pytest.mark.long
def test_a_disk_of_any_size_ends_in_one_line_and_what_is_there_is_resumed(tmp_path, disk, quick, with_ledger):
    own = [f"evidence.ledger={disk.folder}/ledger.sqlite"] if with_ledger else []
    sizes = [4, *range(16, 400, 24), 1_000, 3_000, 5_200, ENOUGH]
    codes = {size: run_on(disk, tmp_path, quick, size, *own)[0] for size in sizes}
    assert codes[4] == 2 and codes[ENOUGH] == 0
    assert list(codes.values()) == sorted(codes.values(), reverse=True), codes


def test_a_folder_that_can_only_be_read_is_named(tmp_path, disk, quick):
    disk.mount("ro")
    err = is_one_line(train_here(tmp_path, *quick, f"output_dir={disk.folder}"))
    assert str(disk.folder) in err and ("only be read" in err or "Read-only" in err)


def test_a_disk_that_becomes_read_only_on_the_way_is_named_and_the_run_is_resumed(tmp_path, disk, quick, monkeypatch):
    disk.mount(f"size={ENOUGH}k")
    written = RunRecord.write_equity

    def then_read_only(self, frame):
        disk.mount("remount,ro")
        written(self, frame)

    # Open files would keep the disk from it, as a real one that fails does not ask.
    monkeypatch.setattr(RunRecord, "write_equity", lambda self, frame: (self.close(), then_read_only(self, frame)))
    err = is_one_line(train_here(tmp_path, *quick, f"output_dir={disk.folder}/outputs"))
    assert "equity.parquet lies on a disk that can only be read" in err
    monkeypatch.undo()
    disk.mount("remount,rw")
    (run,) = disk.folder.glob("outputs/base/*/*")
    assert f"resume={run} goes on" in err and train_here(tmp_path, f"resume={run}")[0] == 0


def test_outputs_that_are_a_file_a_dead_link_or_a_circle_of_links_are_named(tmp_path, quick):
    outputs = tmp_path / "outputs"
    outputs.write_text("")
    assert "outputs" in is_one_line(train_here(tmp_path, *quick))
    outputs.unlink()
    outputs.symlink_to("outputs")
    assert "outputs" in is_one_line(train_here(tmp_path, *quick))
    outputs.unlink()
    outputs.symlink_to("nowhere")
    assert "outputs" in is_one_line(train_here(tmp_path, *quick))


@pytest.mark.parametrize("what", ["run", "outputs"])
def test_a_folder_that_is_deleted_on_the_way_is_named(tmp_path, quick, monkeypatch, what):
    logged = RunRecord.log

    def then_deleted(self, step, values):
        logged(self, step, values)
        shutil.rmtree(self.folder if what == "run" else tmp_path / "outputs")

    monkeypatch.setattr(RunRecord, "log", then_deleted)
    err = is_one_line(train_here(tmp_path, *quick, "training.log_every=2"))
    assert "was deleted while it was written: begin again" in err and "resume=" not in err


def test_a_path_that_is_too_long_is_named(tmp_path, quick):
    long = "/".join(["y" * 200] * 30)
    assert "too long" in is_one_line(train_here(tmp_path, *quick, f"output_dir={long}"))
