"""The processes of one training: helpers join the trainer of a run for as long as it trains."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from hftraining.experiment.ground import Ground
from hftraining.experiment.on_ray import ray_crew
from hftraining.experiment.trainers import job_of
from hftraining.training.config import TrainingConfig
from hftraining.training.group import RANKS, local_crew
from hftraining.training.parallel import CrewBroken, ProcessCrew
from hftraining.training.trainer import Trainer


@contextmanager
def helped(ground: Ground, trainer: Trainer | None, started: dict[str, Tensor]) -> Iterator[None]:
    """Within, training.processes processes share the steps of the trainer; with one, or nothing to train, nothing is
    started. started: see job_of. Raises the Ending of whatever went wrong with a process.
    """
    processes = ground.config.training.processes
    if processes == 1 or trainer is None or not trainer.ahead:
        yield
        return
    try:
        with _crew(ground.config.training) as crew:
            crew.send(*job_of(ground, trainer, started))
            trainer.crew = crew
            try:
                yield
            finally:
                trainer.crew = None
                if crew.is_idle:
                    crew.leave()
    except CrewBroken as broken:
        raise broken.end from None


@contextmanager
def _crew(training: TrainingConfig) -> Iterator[ProcessCrew]:
    if RANKS and RANKS[0].size == training.processes:
        yield RANKS[0].call()
        return
    ray = training.engine == "ray"
    with ray_crew(training.processes, training.device) if ray else local_crew(training.processes) as crew:
        yield crew
