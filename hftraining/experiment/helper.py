"""A helper: a process that computes its part of every batch for the lead of a run, and leaves all else to the lead."""

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hftraining.core.endings import one_line_endings
from hftraining.core.errors import EXIT_INTERRUPTED, Diverged
from hftraining.experiment.trainers import trainer_of
from hftraining.training.group import BYE, Ranks, is_launched, join, leading, store_in
from hftraining.training.parallel import CrewBroken, ProcessCrew

POLL_SECONDS, LAST_SECONDS = 0.5, 2.0


def main(facts: dict[str, Any]) -> None:
    """The helper that a lead on this machine starts, see training/group.py. It ends with the lead, in any case."""
    place, rank, parent = Path(facts["place"]), int(facts["rank"]), int(facts["parent"])
    threading.Thread(target=_end_with, args=(parent, place), daemon=True).start()
    try:
        with one_line_endings():
            ignore_signals()
            (place / f"ready{rank}").touch()
            join(store_in(place, int(facts["size"])), rank, int(facts["size"]), rank)
            serve()
    except BaseException:
        _wait_for_the_end_of(parent)
        raise
    finally:
        _tidy(parent, place)


def as_a_rank(command: Callable[[], None]) -> None:
    """A process that torchrun may have started beside others: rank 0 does what the command line says, they help it."""
    if not is_launched():
        command()
    elif os.environ["RANK"] == "0":
        with leading():
            command()
    else:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)  # so that torchrun ends it while it waits, which Python cannot see
        if Ranks().answer():
            ignore_signals()  # torchrun tells all ranks at once, and the lead saves first
            serve()


def ignore_signals() -> None:
    """The lead decides what a signal to all of them means, and saves first."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def serve() -> None:
    """Take part in every training of the lead until it says goodbye or is gone."""
    crew = ProcessCrew()
    try:
        while True:
            header, tensors = crew.receive()
            if header == BYE:
                return
            trainer = trainer_of(header, tensors)
            del tensors
            trainer.crew = crew
            try:
                trainer.follow()
            except Diverged:
                continue  # so has the lead
    except CrewBroken as broken:  # the lead has ended, or says what is wrong
        print(f"the lead is gone: {broken}", file=sys.stderr)
        raise SystemExit(EXIT_INTERRUPTED) from None


def _end_with(parent: int, place: Path) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    _tidy(parent, place)
    os._exit(EXIT_INTERRUPTED)


def _wait_for_the_end_of(parent: int) -> None:
    """For a moment: the connections of a process that is killed end before it does."""
    until = time.monotonic() + LAST_SECONDS
    while os.getppid() == parent and time.monotonic() < until:
        time.sleep(POLL_SECONDS / 50)


def _tidy(parent: int, place: Path) -> None:
    """Remove what a lead that was killed could not."""
    if os.getppid() != parent:
        shutil.rmtree(place, ignore_errors=True)
