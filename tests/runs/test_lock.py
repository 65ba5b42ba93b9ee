"""The lock of a run folder, between real processes."""

import os
import signal
import subprocess
import sys

import pytest

from hftraining.runs.lock import LOCK_FILE, FolderInUse, FolderLock, is_in_use

HOLD = """
import sys, time
from pathlib import Path
from hftraining.runs.lock import FolderLock
held = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of tmp_path."""
    root = os.fspath(__import__("pathlib").Path(__file__).resolve().parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": root},
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_refused_with_the_name_of_the_first_and_let_in_once_that_is_killed(holder, tmp_path):
    assert is_in_use(tmp_path)
    with pytest.raises(FolderInUse, match=f"{tmp_path} is in use by process {holder.pid}: wait until it ends"):
        FolderLock(tmp_path)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert not is_in_use(tmp_path)
    FolderLock(tmp_path).release()


def test_a_lock_moves_with_its_folder(tmp_path):
    (tmp_path / "begun").mkdir()
    lock = FolderLock(tmp_path / "begun")
    (tmp_path / "begun").rename(tmp_path / "run")
    assert is_in_use(tmp_path / "run")
    lock.release()
    lock.release()
    assert not is_in_use(tmp_path / "run")


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("keep")
    (tmp_path / LOCK_FILE).symlink_to(tmp_path / "precious")
    with pytest.raises(OSError):
        FolderLock(tmp_path)
    assert (tmp_path / "precious").read_text() == "keep"
