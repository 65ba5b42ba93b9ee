"""Processes that share a training, forked from the test so that they need not load torch again."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist

from hftraining.experiment.helper import serve
from hftraining.training import group
from hftraining.training.parallel import ProcessCrew


@contextlib.contextmanager
def forked_crew(place: Path, size: int, work: Callable[[], object] = serve, why=lambda: None) -> Iterator[ProcessCrew]:
    """The lead of a crew whose helpers are children that do `work` once they have joined; crew.pids are theirs."""
    place.mkdir(parents=True, exist_ok=True)
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # the threads of OpenMP do not survive a fork
    pids = []
    for rank in range(1, size):
        if (pid := os.fork()) == 0:
            code = 1
            try:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(120)
                group.join(dist.FileStore(str(place / "store"), size), rank, size, rank)
                work()
                code = 0
            except SystemExit as stopped:
                code = int(stopped.code or 0)
            finally:
                os._exit(code)
        pids.append(pid)
    try:
        group.join(dist.FileStore(str(place / "store"), size), 0, size, 0)
        crew = ProcessCrew(why)
        crew.pids = pids
        yield crew
        if crew.is_idle and work is serve:
            crew.send(group.BYE, {})
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
        for pid in pids:
            end(pid)
        torch.set_num_threads(before)


def end(pid: int) -> None:
    """Wait a little for a child, then kill it."""
    deadline = time.monotonic() + 5.0
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return
        time.sleep(0.01)
