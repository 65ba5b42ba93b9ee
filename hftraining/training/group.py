"""How the processes of a training find each other: helpers on this machine, and the ranks that torchrun has started."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from hftraining.core.errors import EXIT_USER, ConfigError, Ending, Fault, Interrupted, UserError, in_a_line
from hftraining.core.launch import started
from hftraining.training.parallel import LEAD, TIMEOUT, CrewBroken, ProcessCrew

BYE: dict[str, Any] = {"goodbye": True}  # the header after the last training
_KEY, _JOIN, _END = "hftraining", "join", "end"  # in the store of torchrun's ranks, and what the lead can say
START_SECONDS = 300.0  # in which a helper has to be there; it loads torch
LAST_WORDS_SECONDS = 5.0  # for a helper whose connection broke to end
_HELP = """
import json, sys
facts = json.loads(sys.argv[1])
sys.path[:] = facts["path"]
from hftraining.experiment.helper import main
main(facts)
"""


def store_in(place: Path, size: int) -> Any:
    """A file by which so many processes find each other."""
    return dist.FileStore(str(place / "store"), size)  # type: ignore[attr-defined]


def join(store: Any, rank: int, size: int, local_rank: int) -> None:
    """Become a rank of torch's default group. local_rank: the number of the CUDA device, where there are any."""
    if dist.is_initialized():
        raise ConfigError(
            "training.processes: this process is in a group of torch.distributed already: leave it first, or train in "
            "one process"
        )
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)


@contextmanager
def local_crew(size: int) -> Iterator[ProcessCrew]:
    """This process as the lead, and size - 1 helpers on this machine, which live as long as the context.

    They find each other by a file that only this user can read, and talk over the loopback interface alone. Raises
    CrewBroken where a helper does not start.
    """
    with TemporaryDirectory(prefix="hftraining-helpers-") as place, _on_loopback() as environment:
        helpers = Helpers(size, Path(place), environment)
        try:
            helpers.wait_until_ready()
            join(store_in(Path(place), size), LEAD, size, LEAD)
            with saying_goodbye(ProcessCrew(helpers.why)) as crew:
                yield crew
            helpers.wait(LAST_WORDS_SECONDS)
        finally:
            helpers.end()


@contextmanager
def saying_goodbye(crew: ProcessCrew) -> Iterator[ProcessCrew]:
    """The others may end after the context, even if it is left by an exception, and this process leaves the group."""
    try:
        yield crew
    finally:
        try:
            if crew.is_idle:
                crew.send(BYE, {})
        finally:
            dist.destroy_process_group()


class Helpers:
    """Processes on this machine that a lead has started; their last words are in files of the place."""

    def __init__(self, size: int, place: Path, environment: Mapping[str, str]):
        self.size, self.place = size, place
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        try:
            for rank in range(1, size):
                facts = {"place": str(place), "rank": rank, "size": size, "parent": os.getpid(), "path": sys.path}
                with open(place / f"words{rank}", "wb") as words:
                    self.processes[rank] = subprocess.Popen(
                        [sys.executable, "-c", _HELP, json.dumps(facts)],
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=words,
                        env=dict(environment),
                    )
        except BaseException:
            self.end()
            raise

    def wait_until_ready(self) -> None:
        """Until every helper has loaded what it needs. Raises CrewBroken where one ends instead."""
        deadline = time.monotonic() + START_SECONDS
        while not all((self.place / f"ready{rank}").exists() for rank in self.processes):
            if end := self._ended():
                raise CrewBroken(end)
            if time.monotonic() > deadline:
                raise CrewBroken(Interrupted(f"the helpers did not start within {START_SECONDS:.0f} seconds"))
            time.sleep(0.02)

    def why(self) -> Ending | None:
        """How the first helper to end has ended, waiting a little for it; None while all live."""
        deadline = time.monotonic() + LAST_WORDS_SECONDS
        while not (end := self._ended()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return end

    def wait(self, seconds: float) -> None:
        """Until all have ended, or so many seconds."""
        deadline = time.monotonic() + seconds
        while any(process.poll() is None for process in self.processes.values()) and time.monotonic() < deadline:
            time.sleep(0.02)

    def end(self) -> None:
        """End what still runs."""
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()

    def _ended(self) -> Ending | None:
        for rank, process in self.processes.items():
            if (code := process.poll()) is None:
                continue
            who = f"process {rank} of {self.size}"
            if code < 0:
                return Interrupted(f"{who} was killed by {signal.Signals(-code).name}")
            words = (self.place / f"words{rank}").read_text(errors="replace").strip().splitlines()
            said = in_a_line(words[-1].removeprefix("error: "), 400) if words else f"it ended with exit code {code}"
            return UserError(f"{who}: {said}") if code == EXIT_USER else Fault(f"{who}: {said}")
        return None


def loopback() -> str | None:
    """The name of the loopback interface, which only this machine reaches."""
    return next((found for _, found in socket.if_nameindex() if found.startswith("lo")), None)


@contextmanager
def _on_loopback() -> Iterator[Mapping[str, str]]:
    """The environment of helpers; within, this process, too, lets gloo listen on the loopback interface alone."""
    name = "GLOO_SOCKET_IFNAME"
    before = os.environ.get(name)
    if before is None and (found := loopback()):
        os.environ[name] = found
    try:
        yield dict(os.environ)
    finally:
        if before is None:
            os.environ.pop(name, None)


class Ranks:
    """The processes that torchrun, or whoever sets its variables, has started; see RANKS."""

    def __init__(self) -> None:
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.local_rank = int(os.environ.get("LOCAL_RANK", self.rank))
        self.crew: ProcessCrew | None = None  # once they are one
        if int(os.environ.get("LOCAL_WORLD_SIZE", "0")) == self.size:  # all on this machine
            os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback() or "")
        try:
            self.store: Any = next(rendezvous("env://", timeout=TIMEOUT))[0]
        except dist.DistError as error:
            place = f"MASTER_ADDR={os.environ['MASTER_ADDR']} and MASTER_PORT={os.environ['MASTER_PORT']}"
            said = in_a_line(str(error), 200)
            raise ConfigError(
                f"{in_a_line(place, 200)}: the ranks cannot meet there, choose another: {said}"
            ) from error

    def call(self) -> ProcessCrew:
        """On the lead: the crew of all ranks, which are called together once."""
        if self.crew is None:
            self._join(self._tell(_JOIN))
            self.crew = ProcessCrew()
        return self.crew

    def answer(self) -> bool:
        """On the others: wait for the lead's call and join; False where it ends without one."""
        own = secrets.token_hex(8)
        self.store.set(f"{_KEY}/{self.rank}", own)
        self.store.wait([f"{_KEY}/{own}"], TIMEOUT)
        word = self.store.get(f"{_KEY}/{own}").decode()
        self.store.set(f"{_KEY}/{own}/{word}", b"")
        if is_joining := word.startswith(_JOIN):
            self._join(word)
        return is_joining

    def dismiss(self) -> None:
        """On the lead: let the others end."""
        if self.crew is None:
            self._tell(_END)
        elif self.crew.is_idle:
            self.crew.send(BYE, {})

    def _tell(self, what: str) -> str:
        """Tell all ranks, and wait until they have heard; returns the word, which was never said before.

        After a restart the store may still hold what was said, and who was there, before: so whoever comes has a name
        of its own, and is told by it. Raises CrewBroken where one does not come.
        """
        word, waiting = f"{what} {secrets.token_hex(8)}", set(range(1, self.size))
        deadline = time.monotonic() + START_SECONDS
        while waiting:
            for rank in [rank for rank in waiting if self.store.check([f"{_KEY}/{rank}"])]:
                name = f"{_KEY}/{self.store.get(f'{_KEY}/{rank}').decode()}"
                self.store.set(name, word)
                waiting -= {rank} if self.store.check([f"{name}/{word}"]) else set()
            if time.monotonic() > deadline:
                raise CrewBroken(Interrupted(f"rank {min(waiting)} of torchrun did not come"))
            time.sleep(0.02)
        return word

    def _join(self, word: str) -> None:
        store = dist.PrefixStore(word, self.store)  # type: ignore[attr-defined]
        join(store, self.rank, self.size, self.local_rank)


RANKS: list[Ranks] = []  # of this process: one where torchrun has started it, once `leading` or a helper has begun


def is_launched() -> bool:
    """Whether torchrun has started this process beside others."""
    return started() > 1


def launch_id() -> str | None:
    """The name of this torchrun, which is the same after a restart; None where it has none of its own."""
    found = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return None if found == "none" else in_a_line(found, 100)


def is_restarted() -> bool:
    """Whether torchrun has started these processes anew, since one of them was lost (--max-restarts)."""
    return is_launched() and int(os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0) > 0


@contextmanager
def leading() -> Iterator[None]:
    """Rank 0 of torchrun runs the command within; its trainings call the other ranks. They end with it."""
    RANKS.append(Ranks())
    try:
        yield
        with suppress(CrewBroken):  # of a rank that has gone before, which is nobody's loss now
            RANKS[0].dismiss()
    finally:  # whoever waits for a lead that has failed is ended by torchrun
        RANKS.clear()
        if dist.is_initialized():
            dist.destroy_process_group()
