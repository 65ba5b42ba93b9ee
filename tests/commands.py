"""Our commands in their own processes, as a user starts them."""

import contextlib
import io
import json
import os
import re
import runpy
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

ROOT = Path(__file__).resolve().parents[1]
TRAIN = ROOT / "train.py"


def start(*words, cwd: Path, **environment: str | None) -> subprocess.Popen[str]:
    """`python WORDS` in a folder; a variable whose value is None is not set."""
    variables = {name: value for name, value in (os.environ | environment).items() if value is not None}
    command = [sys.executable, *map(str, words)]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables)


def ended(process: subprocess.Popen[str], timeout: float = 600) -> tuple[int, str, str]:
    """Exit code, standard output and standard error, once the process has ended."""
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def python(*words, cwd: Path, **environment: str | None) -> tuple[int, str, str]:
    return ended(start(*words, cwd=cwd, **environment))


def start_train(cwd: Path, *overrides: str, **environment: str | None) -> subprocess.Popen[str]:
    """`python train.py OVERRIDES` in a folder."""
    return start(TRAIN, *overrides, cwd=cwd, **environment)


def train(cwd: Path, *overrides: str, **environment: str | None) -> tuple[int, str, str]:
    return ended(start_train(cwd, *overrides, **environment))


def run_folder(out: str, cwd: Path) -> Path:
    """The folder that the last line of train.py names."""
    return cwd / re.fullmatch(r"run: (.+)", out.splitlines()[-1])[1]


def wait_for(condition: Callable, process: subprocess.Popen[str], seconds: float = 120, every: float = 0.05):
    """Wait until a condition is true while the process lives; returns its value."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(every)
    return found


def last_object(out: str) -> dict:
    """The object that a command with --json prints last."""
    return json.loads(out.splitlines()[-1])


def train_here(cwd: Path, *overrides: str, **environment: str) -> tuple[int, str, str]:
    """As train, but in this process, which saves the three seconds of imports in a new one."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", [str(TRAIN), *overrides])
        for name, value in environment.items():
            patch.setenv(name, value)
        GlobalHydra.instance().clear()
        try:
            runpy.run_path(str(TRAIN), run_name="__main__")  # so called, Hydra looks for conf/ beside the file
            code = 0
        except SystemExit as stopped:
            code = stopped.code
        finally:
            GlobalHydra.instance().clear()
    return code, out.getvalue(), err.getvalue()
