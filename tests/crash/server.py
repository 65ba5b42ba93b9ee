"""Commands in forks of one warm process, counted and killed at chosen points of their writing."""

import json
import mmap
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
NAMED, NAME = 8192, 192  # as in crash_points.c
OFF, COUNT, KILL, TEAR, FULL = range(5)
_HEAD = struct.Struct("lll4096s")


@dataclass(frozen=True)
class Ended:
    """How a command ended. code: negative for a signal. points: what it asked of the file system, in order."""

    code: int
    out: str
    err: str
    points: list[str]
    cpu: float


class Server:
    """Use it as a context manager. Its forks see only what they find in the folder of each command."""

    def __init__(self, place: Path) -> None:
        self.place = place
        library, self._state_path = place / "crash_points.so", place / "state"
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            pytest.skip("no C compiler, which the injector of crash points needs (apt-get install gcc)")
        source = str(HERE / "crash_points.c")
        subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", str(library), source, "-ldl"], check=True)
        size = _HEAD.size + NAMED * NAME
        self._state_path.write_bytes(bytes(size))
        with open(self._state_path, "r+b") as file:
            self._state = mmap.mmap(file.fileno(), size)
        environment = os.environ | {"LD_PRELOAD": str(library), "CRASH_STATE": str(self._state_path)}
        environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])}
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "forks.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self._process.stdout is not None and self._process.stdout.readline() == "ready\n"

    def __enter__(self) -> "Server":
        return self

    def warm(self, *words: str) -> None:
        """Make the forks quicker by a run of these overrides beforehand, which must send its files somewhere else."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"command": "warm", "words": [str(word) for word in words]}) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "warm\n"

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)

    def run(
        self,
        cwd: Path,
        *words: str,
        command: str = "train",
        mode: int = COUNT,
        point: int = 0,
        kill_after: float | None = None,
        cpu_seconds: int | None = None,
        **environment: str,
    ) -> Ended:
        """Run `train.py WORDS` or, with command="hftraining", `python -m hftraining WORDS` in a folder.

        mode, point: see crash_points.c; only what lies below cwd counts. kill_after: seconds until a SIGKILL.
        """
        self._state[: _HEAD.size] = _HEAD.pack(mode, point, 0, str(cwd).encode())
        out, err = self.place / "out", self.place / "err"
        task = {"cwd": str(cwd), "words": [str(word) for word in words], "command": command, "env": environment}
        task |= {"out": str(out), "err": str(err), "cpu_seconds": cpu_seconds}
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        pid = json.loads(self._process.stdout.readline())["pid"]
        timer = threading.Timer(kill_after or 0, os.kill, (pid, signal.SIGKILL))
        if kill_after is not None:
            timer.start()
        ended = json.loads(self._process.stdout.readline())
        timer.cancel()
        _, _, count, _ = _HEAD.unpack(self._state[: _HEAD.size])
        names = [self._state[at : at + NAME] for at in range(_HEAD.size, _HEAD.size + min(count, NAMED) * NAME, NAME)]
        points = [name.split(b"\0")[0].decode("utf-8", "replace") for name in names]
        self._state[: _HEAD.size] = bytes(_HEAD.size)
        texts = [path.read_text(encoding="utf-8", errors="replace") for path in (out, err)]
        return Ended(ended["code"], *texts, points, ended["cpu"])
