"""Several runs, one after the other or side by side, so that the end of one does not disturb the others."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType
from typing import Any

from hftraining.core.errors import LeakError, UserError
from hftraining.experiment.config import ExperimentConfig
from hftraining.experiment.finetune import run

DONE, REFUSED, INTERRUPTED, FAILED, KILLED = "done", "refused", "interrupted", "failed", "killed"
EXIT_CODES = {DONE: 0, FAILED: 1, REFUSED: 2, INTERRUPTED: 3, KILLED: 3}
WORST_FIRST = (FAILED, REFUSED, INTERRUPTED, KILLED, DONE)


@dataclass(frozen=True)
class Outcome:
    """How the run of a stock ended. folder: of the run, where there is one. text: why, or what came of it."""

    symbol: str
    status: str  # done, refused, interrupted, failed, killed
    folder: str | None = None
    text: str = ""

    def summary(self) -> dict[str, Any]:
        """What a program that called us wants to know of this stock."""
        said: dict[str, Any] = {"status": self.status, "folder": self.folder, "text": self.text}
        if self.status == DONE and self.folder:
            result = json.loads((Path(self.folder) / "result.json").read_text())
            data = json.loads((Path(self.folder) / "run.json").read_text())["data"]
            said |= {"verdict": result["verdict"], "data": f"{data['source']}, fingerprint {data['fingerprint']}"}
            if "decision" in result:
                said["choice"] = result["decision"]["choice"]
        return said


def exit_code(outcomes: list[Outcome]) -> int:
    """0 when all are done, else that of the worst: 1 our fault, 2 the user's input, 3 cut off and to be resumed."""
    statuses = {outcome.status for outcome in outcomes}
    return EXIT_CODES[next((status for status in WORST_FIRST if status in statuses), DONE)]


def attempt(symbol: str, config: ExperimentConfig, argv: list[str] | None = None) -> Outcome:
    """Run a config in this process, or take it as it is when it is one to go on with that is finished."""
    from hftraining.core.errors import Diverged, Interrupted

    if config.resume and (Path(config.resume) / "result.json").is_file():
        return Outcome(symbol, DONE, config.resume, f"finished already: {_came_of(config.resume)}")
    try:
        folder = str(run(config, argv)["folder"])
    except UserError as error:
        return Outcome(symbol, REFUSED, text=str(error))
    except (Interrupted, KeyboardInterrupt) as interruption:
        return Outcome(symbol, INTERRUPTED, text=str(interruption) or "interrupted")
    except (Diverged, LeakError) as failure:
        return Outcome(symbol, FAILED, text=str(failure))
    return Outcome(symbol, DONE, folder, _came_of(folder))


def in_turn(configs: Mapping[str, ExperimentConfig], argv: list[str] | None = None) -> list[Outcome]:
    """One run after the other, in this process; an interruption ends them all."""
    outcomes = []
    for symbol, config in configs.items():
        outcomes.append(attempt(symbol, config, argv))
        if outcomes[-1].status == INTERRUPTED:
            break
    return outcomes


def in_processes(
    configs: Mapping[str, ExperimentConfig],
    jobs: int,
    argv: list[str] | None = None,
) -> list[Outcome]:
    """Up to `jobs` runs at a time, each in a process of its own with its share of the machine's threads.

    What a run prints goes into its train.log. A process that is killed is reported and ends nothing else. SIGTERM and
    SIGINT are handed on: the runs save and end, and no other one is started.
    """
    spawn = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // jobs)
    waiting, outcomes = dict(configs), {}
    running: dict[str, tuple[Any, Connection]] = {}
    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.append(number)
        for process, _ in running.values():
            process.terminate()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        while running or (waiting and not stopped):
            while waiting and len(running) < jobs and not stopped:
                symbol = next(iter(waiting))
                ours, theirs = spawn.Pipe(duplex=False)
                arguments = (symbol, waiting.pop(symbol), argv, threads, theirs, os.getpid())
                process = spawn.Process(target=_in_a_process, args=arguments, name=symbol)
                process.start()
                theirs.close()
                running[symbol] = (process, ours)
                _say(f"{symbol}: process {process.pid}, {threads} thread{'s' if threads > 1 else ''}")
            wait([process.sentinel for process, _ in running.values()])
            for symbol, (process, answer) in list(running.items()):
                if not process.is_alive():
                    del running[symbol]
                    outcomes[symbol] = _outcome(symbol, process, answer)
                    _say(f"{symbol}: {outcomes[symbol].status}: {outcomes[symbol].text}")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for symbol in waiting:
        outcomes[symbol] = Outcome(symbol, INTERRUPTED, text="not begun")
    return [outcomes[symbol] for symbol in configs]


def _say(line: str) -> None:
    print(line, flush=True)  # whoever reads a pipe wants to know before all is over


def _in_a_process(
    symbol: str, config: ExperimentConfig, argv: list[str] | None, threads: int, answer: Connection, parent: int
) -> None:
    import torch

    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(threads)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        outcome = attempt(symbol, config, argv)
    answer.send(outcome)
    answer.close()


def _end_with(parent: int) -> None:
    """Save and end when the process that started this one is gone: nobody would be left to say what came of it."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


def _outcome(symbol: str, process: Any, answer: Connection) -> Outcome:
    process.join()
    with contextlib.suppress(EOFError):  # it ended without a word: killed, or by an error whose trace it printed
        if answer.poll():
            outcome: Outcome = answer.recv()
            return outcome
    code = process.exitcode
    if code < 0:
        return Outcome(symbol, KILLED, text=f"killed by signal {-code}; --resume goes on with it")
    return Outcome(symbol, FAILED, text=f"ended with exit code {code}")


def _came_of(folder: str) -> str:
    result = json.loads((Path(folder) / "result.json").read_text())
    return str(result["decision"]["sentence"] if "decision" in result else result["verdict"])


def report(outcomes: list[Outcome]) -> None:
    """Print what came of each stock, and on which data; problems go to stderr."""
    for outcome in outcomes:
        if outcome.status == DONE:
            print(f"{outcome.symbol}: {outcome.text}")
            print(f"  data: {outcome.summary()['data']}")
            print(f"  run: {outcome.folder}", flush=True)
        else:
            word = "error" if outcome.status in (REFUSED, FAILED) else outcome.status
            print(f"{word}: {outcome.symbol}: {outcome.text}", file=sys.stderr)
