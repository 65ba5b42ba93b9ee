"""Run train.py thousands of times: everything is imported once, and each case is a fork with limits of its own."""

import contextlib
import csv
import io
import os
import resource
import runpy
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
# A fork has no threads but the one that forks, and no case waits for a network.
os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = "1"
os.environ["HTTP_PROXY"] = os.environ["HTTPS_PROXY"] = os.environ["https_proxy"] = "http://127.0.0.1:9"

from hydra.core.global_hydra import GlobalHydra  # noqa: E402 (after the limits above)

from hftraining.experiment import compose, config, usage  # noqa: E402 (after the limits above)
from tests.bars_of import make_bars, write_csv_files  # noqa: E402 (after the limits above)
from tests.runs_of import QUICK  # noqa: E402 (after the limits above)

TRAIN = ROOT / "train.py"
CPU_SECONDS, WALL_SECONDS, LINES = 20, 120, 12
GIGABYTES = 6  # of addresses, above what the fork begins with
GOOD = {0: "done", 2: "the user's input", 3: "interrupted"}


@dataclass(frozen=True)
class Case:
    """How a case ended. code: negative for a signal."""

    name: str
    code: int
    seconds: float
    out: str
    err: str

    @property
    def lines(self) -> int:
        """Lines on standard error."""
        return self.err.count("\n")

    @property
    def problem(self) -> str:
        """What is wrong with this ending; empty if nothing is."""
        if self.code == -signal.SIGXCPU:
            return "longer than allowed"
        if self.code not in GOOD:
            return f"exit code {self.code}"
        if "Traceback" in self.err + self.out:
            return "a traceback"
        if self.lines > LINES:
            return f"{self.lines} lines"
        if self.code and not self.err:
            return "not a word"
        return "too slow" if self.seconds > CPU_SECONDS else ""


class Forks:
    """A place for runs on two small files of bars, and a process in which all modules are loaded."""

    def __init__(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="strangers-"))
        bars = self.place / "bars"
        bars.mkdir()
        write_csv_files(make_bars(n_sessions=300, n_symbols=2, seed=3), bars)
        quick = [text for text in QUICK if not text.startswith(("training.max_steps", "evidence.bootstrap_draws"))]
        few = ("training.max_steps=2", "training.warmup_steps=1", "evidence.bootstrap_draws=100")
        self.base = [*quick, *few, f"stocks.path={bars}", "training.patience=1"]
        self.case("warm", [], in_this_process=True)

    def close(self) -> None:
        """Remove the place."""
        shutil.rmtree(self.place, ignore_errors=True)

    def case(self, name: str, words: Sequence[str], conf: Path | None = None, in_this_process: bool = False) -> Case:
        """`python train.py` with the quick overrides and these words. conf: in place of the project's conf/."""
        folder = self.place / name / "deep" / "er"
        folder.mkdir(parents=True)
        if in_this_process:
            with contextlib.redirect_stdout(io.StringIO()):
                self._train(folder, [*self.base, *words])
            GlobalHydra.instance().clear()
            assert threading.active_count() == 1, threading.enumerate()
            return Case(name, 0, 0.0, "", "")
        sys.stdout.flush()
        child = os.fork()
        if not child:
            self._be_a_child(folder, [*self.base, *words], conf)
        code, seconds = _wait(child)
        out, err = ((folder / name).read_text(errors="replace") for name in ("stdout", "stderr"))
        shutil.rmtree(self.place / name, ignore_errors=True)
        return Case(name, code, seconds, out, err)

    def _be_a_child(self, folder: Path, words: Sequence[str], conf: Path | None) -> None:
        code = 99
        try:
            os.setsid()
            for number, name in ((0, os.devnull), (1, folder / "stdout"), (2, folder / "stderr")):
                os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            most = pages * resource.getpagesize() + GIGABYTES * 2**30
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
            if conf is not None:
                config.CONF = compose.CONF = usage.CONF = conf
            code = self._train(folder, words)
            sys.stdout.flush()
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stderr.flush()
            os._exit(code)

    def _train(self, folder: Path, words: Sequence[str]) -> int:
        os.chdir(folder)
        os.environ["XDG_STATE_HOME"] = str(folder)
        sys.argv = [str(TRAIN), *words]
        try:
            runpy.run_path(str(TRAIN), run_name="__main__")
        except SystemExit as stopped:
            return stopped.code if isinstance(stopped.code, int) else 0 if stopped.code is None else 1
        return 0


def run_all(forks: Forks, cases: Iterable[tuple[str, Callable[[], Case]]], table: Path) -> list[Case]:
    """Run the cases, print what is wrong and a table at the end, and write one line a case to a CSV file."""
    found: list[Case] = []
    started = time.monotonic()
    with open(table, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        rows = csv.writer(file)
        rows.writerow(("case", "words", "code", "seconds", "lines", "problem", "first line"))
        for words, run in cases:
            case = run()
            found.append(case)
            first = (case.err.splitlines() or [""])[0][:300]
            rows.writerow((case.name, words[:300], case.code, f"{case.seconds:.2f}", case.lines, case.problem, first))
            if case.problem:
                print(f"{case.name}: {case.problem}: {words[:200]}\n    {case.err[-600:]!r}", flush=True)
    _print_table(found, time.monotonic() - started)
    forks.close()
    return found


def _print_table(cases: Sequence[Case], seconds: float) -> None:
    codes = Counter(case.code for case in cases)
    print(f"\n{len(cases)} cases in {seconds:.0f} s")
    for code, count in sorted(codes.items()):
        print(f"  exit code {code:4d}  {count:5d}  {GOOD.get(code, 'cut off by RLIMIT_CPU' if code == -24 else '?')}")
    print(f"  most lines on stderr   {max(case.lines for case in cases)}")
    print(f"  longest line on stderr {max(len(line) for case in cases for line in [*case.err.splitlines(), ''])}")
    print(f"  most CPU seconds       {max(case.seconds for case in cases):.1f}")
    print(f"  problems               {sum(bool(case.problem) for case in cases)}")


def _wait(child: int) -> tuple[int, float]:
    deadline = time.monotonic() + WALL_SECONDS
    while True:
        done, status, used = os.wait4(child, os.WNOHANG)
        if done:
            with contextlib.suppress(OSError):
                os.killpg(child, signal.SIGKILL)  # what it may have started
            return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            deadline += 1e9
        time.sleep(0.005)
