"""Runs that torchrun starts: their processes are its ranks, and after a restart they go on in their folder."""

import dataclasses
from pathlib import Path

from hftraining.core.errors import ConfigError
from hftraining.experiment.config import ExperimentConfig, load_config, typed_config
from hftraining.experiment.opening import TORCHRUN
from hftraining.model.config import HEADLESS
from hftraining.runs.record import read_manifest
from hftraining.runs.result import RESULT_FILE
from hftraining.training.group import RANKS, is_launched, is_restarted, launch_id


def sweep_refused() -> ConfigError | None:
    """Why torchrun cannot start a sweep, whose workers are processes of their own; None where it has not."""
    if not is_launched():
        return None
    return ConfigError(
        "torchrun starts the processes of one run, not of a sweep: leave torchrun out, and use search.workers"
    )


def with_ranks(config: ExperimentConfig) -> ExperimentConfig:
    """The config of a run that torchrun may have started: its ranks are the processes. Raises ConfigError."""
    if not is_launched():
        return config
    if not RANKS:
        raise ConfigError("torchrun has started this process, which is no rank of its own: leave hydra/launcher out")
    if is_restarted() and not config.resume and (begun := _begun(config)):
        config = load_config(begun / "config.yaml")
        config.resume = str(begun)
    training, size = config.training, RANKS[0].size
    if training.engine != "local":
        raise ConfigError(f"training.engine={training.engine} starts processes, and so does torchrun: use one of them")
    if config.resume and training.processes != size:
        raise ConfigError(
            f"resume={config.resume}: the run has training.processes={training.processes}, but torchrun has started "
            f"{size}: start as many, or leave torchrun out"
        )
    if training.processes not in (1, size):
        raise ConfigError(
            f"training.processes={training.processes}, but torchrun has started {size}: leave training.processes out"
        )
    if config.model.kind in HEADLESS:
        raise ConfigError(f"model.kind={config.model.kind} learns in one process: leave torchrun out")
    values = dataclasses.asdict(config)
    values["training"]["processes"] = size
    return typed_config(values)


def _begun(config: ExperimentConfig) -> Path | None:
    """The folder of the run that this torchrun began before it restarted. Raises ConfigError where nobody can tell."""
    if (ours := launch_id()) is None:
        raise ConfigError(
            "torchrun has restarted a run, but has no name by which to find its folder: give torchrun --rdzv-id=NAME, "
            "or type resume=FOLDER"
        )
    for path in Path(config.output_dir).glob("*/*/[!.]*/run.json"):  # a name with a point is not whole yet
        if read_manifest(path.parent).get(TORCHRUN) == ours and not (path.parent / RESULT_FILE).exists():
            return path.parent
    return None
