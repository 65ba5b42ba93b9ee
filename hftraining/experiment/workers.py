"""Tasks side by side in spawned processes that end with their parent; the failure of one stops the others."""

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

import torch

from hftraining.core.endings import ending_of
from hftraining.core.errors import Ending, Interrupted
from hftraining.core.orphan import GRACE_SECONDS, ending_with_parent

Task = tuple[Any, ...]  # the arguments, which are pickled


def side_by_side(
    work: Callable[..., None], tasks: Sequence[Task], workers: int, done: Callable[[int], None] = lambda place: None
) -> None:
    """Call `work` with each task, up to `workers` at a time, each in a process with this one's number of threads.

    done: called with the place of a task once it has ended well. An exception in a process, or of this one, tells the
    others to save and end; that of a process is raised here as the Ending that it means.
    """
    spawn, threads = multiprocessing.get_context("spawn"), torch.get_num_threads()
    waiting, running = list(range(len(tasks))), dict[int, tuple[SpawnProcess, Connection]]()
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                place = waiting.pop(0)
                ours, theirs = spawn.Pipe(duplex=False)
                process = spawn.Process(target=_in_a_process, args=(work, tasks[place], threads, theirs))
                process.start()
                theirs.close()
                running[place] = process, ours
            wait([process.sentinel for process, _ in running.values()])
            for place, (process, answer) in list(running.items()):
                if not process.is_alive():
                    del running[place]
                    if end := _ending(process, answer):
                        raise end
                    done(place)
    finally:
        _stop([process for process, _ in running.values()])


def _in_a_process(work: Callable[..., None], task: Task, threads: int, answer: Connection) -> None:
    torch.set_num_threads(threads)
    end: Ending | None = None
    with ending_with_parent(), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            work(*task)
        except BaseException as error:  # told to the parent, which raises it
            end = ending_of(error)
    answer.send(end)
    answer.close()


def _ending(process: SpawnProcess, answer: Connection) -> Ending | None:
    """How a process that has ended did so; None if its work is done."""
    process.join()
    with contextlib.suppress(EOFError):  # no answer: killed
        if answer.poll():
            end: Ending | None = answer.recv()
            return end
    code = process.exitcode or 0
    return Interrupted(
        f"a worker was killed by signal {-code}" if code < 0 else f"a worker ended with exit code {code}"
    )


def _stop(processes: Sequence[SpawnProcess]) -> None:
    """Let processes save and end; what does not within the grace is killed."""
    for process in processes:
        process.terminate()
    until = time.monotonic() + GRACE_SECONDS
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()
