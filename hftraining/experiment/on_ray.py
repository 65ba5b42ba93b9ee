"""Helpers that Ray Train starts: `training.engine=ray`, on the cluster of RAY_ADDRESS or on this machine.

Ray places and watches the processes; what they do, and what they say to the lead, is what helpers of this machine do.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import torch.distributed as dist

from hftraining.core.errors import Ending, Interrupted, in_a_line
from hftraining.core.launch import ray_cluster
from hftraining.experiment.helper import serve
from hftraining.training.group import LAST_WORDS_SECONDS, START_SECONDS, join, saying_goodbye
from hftraining.training.parallel import LEAD, TIMEOUT, CrewBroken, ProcessCrew

_LOCAL = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}


@contextmanager
def ray_crew(size: int, device: str) -> Iterator[ProcessCrew]:
    """This process as the lead, and size - 1 helpers of Ray, which live as long as the context.

    device: cpu, or cuda: then each helper has a device of its own. Raises CrewBroken where a helper does not start.
    """
    ray = _ray()
    with _cluster(ray, size), TemporaryDirectory(prefix="hftraining-ray-") as place:
        host = ray.util.get_node_ip_address()
        with socket.create_server((host, 0)) as listener:  # on this address alone: a store listens on all by default
            port = listener.getsockname()[1]
            store = _store(host, port, size, is_master=True, master_listen_fd=os.dup(listener.fileno()))
            helpers = RayHelpers({"host": host, "port": port, "size": size}, place, device)
            helpers.wait_until_ready(store)
            join(store, LEAD, size, LEAD)
            with saying_goodbye(ProcessCrew(helpers.why)) as crew:
                yield crew
            helpers.thread.join(START_SECONDS)


class RayHelpers:
    """A training of Ray, whose workers are the helpers, in a thread of the lead."""

    def __init__(self, facts: dict[str, Any], place: str, device: str):
        self.size, self.place, self.device, self.error = facts["size"], place, device, ""
        self.thread = threading.Thread(target=self._run, args=(facts,), daemon=True)
        self.thread.start()

    def wait_until_ready(self, store: Any) -> None:
        """Until all are there. Raises CrewBroken where one ends instead, or where the cluster has no room."""
        deadline = time.monotonic() + START_SECONDS
        while not store.check([f"ready{rank}" for rank in range(1, self.size)]):
            if not self.thread.is_alive():
                raise CrewBroken(Interrupted(f"Ray could not start the processes: {self.error}"))
            if time.monotonic() > deadline:
                raise CrewBroken(
                    Interrupted(
                        f"Ray did not start {self.size - 1} processes within {START_SECONDS:.0f} seconds: has its "
                        "cluster so many free CPUs or GPUs?"
                    )
                )
            time.sleep(0.05)

    def why(self) -> Ending | None:
        """How the training of Ray has ended, waiting a little for it; None while it goes on."""
        self.thread.join(LAST_WORDS_SECONDS)
        return Interrupted(f"a process of Ray ended: {self.error}") if self.error else None

    def _run(self, facts: dict[str, Any]) -> None:
        from ray.train import RunConfig, ScalingConfig
        from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

        try:
            DataParallelTrainer(
                _work,
                train_loop_config=facts,
                scaling_config=ScalingConfig(num_workers=self.size - 1, use_gpu=self.device == "cuda"),
                run_config=RunConfig(name="hftraining", storage_path=self.place),
            ).fit()
        except Exception as error:  # the thread of the lead that asks says it
            self.error = in_a_line(str(error).partition("Worker info")[0].strip() or type(error).__name__, 200)


def _work(facts: dict[str, Any]) -> None:
    """A worker of Ray Train: joins the lead and helps it until it says goodbye."""
    from ray.train import get_context

    rank = get_context().get_world_rank() + 1
    store = _store(facts["host"], facts["port"], facts["size"])
    store.set(f"ready{rank}", b"")
    join(store, rank, facts["size"], 0)  # of the devices Ray shows a worker its own alone
    serve()


def _store(host: str, port: int, size: int, **more: Any) -> Any:
    return dist.TCPStore(host, port, size, timeout=TIMEOUT, wait_for_workers=False, **more)  # type: ignore[attr-defined]


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is called up
    os.environ["RAY_TRAIN_V2_ENABLED"] = "1"
    import ray

    return ray


@contextmanager
def _cluster(ray: Any, size: int) -> Iterator[None]:
    """The cluster that this process is in, that of RAY_ADDRESS, or one on this machine for as long as it is needed."""
    if ray.is_initialized():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    # Ray takes a cluster that `ray start` began on this machine unless it is told `local`.
    own = {} if ray_cluster() else {"address": "local", "num_cpus": max(size, os.cpu_count() or 1)}
    try:
        ray.init(runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}}, **own, **_LOCAL)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:  # no such cluster, or no token for it
        raise CrewBroken(Interrupted(f"Ray: {in_a_line(str(error), 200)}")) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray's own handler would end this process before it saves
    try:
        yield
    finally:
        ray.shutdown()
