"""Several runs, one after the other or in their own processes: the failure of one does not disturb the others."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from hftraining.core.endings import ending_of
from hftraining.core.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_OURS, EXIT_USER, Ending, Interrupted
from hftraining.core.orphan import ending_with_parent
from hftraining.experiment.config import ExperimentConfig
from hftraining.experiment.finetune import run
from hftraining.experiment.finished import finished_result
from hftraining.runs.record import read_manifest
from hftraining.runs.result import RunResult, read_result

DONE, REFUSED, INTERRUPTED, KILLED = "done", "refused", Interrupted.status, "killed"


@dataclass(frozen=True)
class Outcome:
    """How the run of a stock ended. folder: of the run, if it has one. text: its result, or why it has none."""

    symbol: str
    status: str  # done, refused, interrupted, failed, killed
    folder: str | None = None
    text: str = ""
    exit_code: int = EXIT_DONE

    @classmethod
    def of(cls, symbol: str, end: Ending) -> Outcome:
        """The outcome of a run that ended in this way."""
        status = REFUSED if end.exit_code == EXIT_USER else end.status
        return cls(symbol, status, text=str(end), exit_code=end.exit_code)

    def summary(self) -> dict[str, Any]:
        """The outcome as --json prints it."""
        said: dict[str, Any] = {"status": self.status, "folder": self.folder, "text": self.text}
        result = read_result(Path(self.folder)) if self.status == DONE and self.folder else None
        if result:
            data = read_manifest(Path(str(self.folder)))["data"]
            said |= {"verdict": result.verdict, "data": f"{data['source']}, fingerprint {data['fingerprint']}"}
            if result.recommendation:
                said["choice"] = result.recommendation.choice
        return said


def exit_code(outcomes: list[Outcome]) -> int:
    """0 if all are done, else that of the worst: 1 our fault, 2 the user's input, 3 interrupted, to be resumed."""
    return min((outcome.exit_code for outcome in outcomes if outcome.exit_code), default=EXIT_DONE)


def attempt(symbol: str, config: ExperimentConfig, argv: list[str] | None = None) -> Outcome:
    """Run a config in this process. A run to resume that is already finished stays as it is."""
    try:
        if config.resume and (known := finished_result(Path(config.resume), config.evidence)):
            return Outcome(symbol, DONE, config.resume, f"finished already: {_came_of(known)}")
        finished = run(config, argv)
    except KeyboardInterrupt:
        return Outcome.of(symbol, Interrupted("interrupted"))
    except Exception as error:  # one stock ends as one line, and the others go on
        return Outcome.of(symbol, ending_of(error))
    return Outcome(symbol, DONE, str(finished.folder), _came_of(finished.result))


def run_all(configs: Mapping[str, ExperimentConfig], jobs: int, argv: list[str] | None = None) -> list[Outcome]:
    """One run after the other in this process, or up to `jobs` at a time. An interruption ends them all."""
    if jobs > 1:
        return in_processes(configs, jobs, argv)
    outcomes = []
    for symbol, config in configs.items():
        outcomes.append(attempt(symbol, config, argv))
        if outcomes[-1].status == INTERRUPTED:
            break
    return outcomes


def in_processes(configs: Mapping[str, ExperimentConfig], jobs: int, argv: list[str] | None = None) -> list[Outcome]:
    """Up to `jobs` runs at a time, each in its own process with its share of the machine's threads.

    The output of a run goes into its train.log. A killed process is reported and ends no other one. SIGTERM and SIGINT
    are passed on: the runs save and end, and no further one starts.
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
                arguments = (symbol, waiting.pop(symbol), argv, threads, theirs)
                process = spawn.Process(target=_in_a_process, args=arguments, name=symbol)
                process.start()
                theirs.close()
                running[symbol] = (process, ours)
                print(f"{symbol}: process {process.pid}, {threads} thread{'s' if threads > 1 else ''}", flush=True)
            wait([process.sentinel for process, _ in running.values()])
            for symbol, (process, answer) in list(running.items()):
                if not process.is_alive():
                    del running[symbol]
                    outcomes[symbol] = _outcome(symbol, process, answer)
                    print(f"{symbol}: {outcomes[symbol].status}: {outcomes[symbol].text}", flush=True)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for symbol in waiting:
        outcomes[symbol] = Outcome.of(symbol, Interrupted("not begun"))
    return [outcomes[symbol] for symbol in configs]


def _in_a_process(
    symbol: str, config: ExperimentConfig, argv: list[str] | None, threads: int, answer: Connection
) -> None:
    torch.set_num_threads(threads)
    with ending_with_parent(), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        outcome = attempt(symbol, config, argv)
    answer.send(outcome)
    answer.close()


def _outcome(symbol: str, process: Any, answer: Connection) -> Outcome:
    process.join()
    with contextlib.suppress(EOFError):  # no answer: killed, or an error whose traceback it printed
        if answer.poll():
            outcome: Outcome = answer.recv()
            return outcome
    if (code := process.exitcode) < 0:
        return Outcome(symbol, KILLED, None, f"killed by signal {-code}; --resume resumes it", EXIT_INTERRUPTED)
    return Outcome(symbol, Ending.status, None, f"ended with exit code {code}", EXIT_OURS)


def _came_of(result: RunResult) -> str:
    return result.recommendation.sentence if result.recommendation else str(result.verdict)


def report(outcomes: list[Outcome]) -> None:
    """Print the outcome of each stock, its data and its run folder; problems go to stderr."""
    for outcome in outcomes:
        if outcome.status == DONE:
            print(f"{outcome.symbol}: {outcome.text}")
            print(f"  data: {outcome.summary()['data']}")
            print(f"  run: {outcome.folder}", flush=True)
        else:
            word = outcome.status if outcome.exit_code == EXIT_INTERRUPTED else Ending.word
            print(f"{word}: {outcome.symbol}: {outcome.text}", file=sys.stderr)
