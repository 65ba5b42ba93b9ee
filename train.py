"""Compose the config, check it, run it: `python train.py model=large stocks=tech10`."""

import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

# Spinning threads of torch starve each other as soon as anything else runs: ten times slower, measured. Spinning for a
# few microseconds costs little on an idle machine and yields on a busy one.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
# Hydra would print its own traceback and exit with 1; one_line_endings prints one line and exits with 2.
os.environ["HYDRA_FULL_ERROR"] = "1"

from hftraining.core.endings import check_memory_limit, one_line_endings, stopped_by_signals
from hftraining.core.errors import ConfigError, Ending, in_a_line
from hftraining.core.launch import started
from hftraining.core.orphan import ending_with_parent
from hftraining.core.secret import masked_output, without_secrets
from hftraining.experiment.config import CONF, ExperimentConfig, load_config, typed_config, unknown_key
from hftraining.sweep.config import Command

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Below, functions import what they need: help needs no Hydra, and nothing before a valid config needs torch.


def main() -> None:
    """Run, and turn every ending into its exit code: 0 done, 2 the user's input, 3 interrupted and saved, 1 ours."""
    with masked_output(), stopped_by_signals(), one_line_endings():
        if started() > 1:  # by torchrun
            return _rank()
        _command(sys.argv[1:])


def _rank() -> None:
    """Rank 0 of torchrun runs the command, the others help it."""
    check_memory_limit()
    from hftraining.experiment.helper import as_a_rank

    as_a_rank(lambda: _command(sys.argv[1:]))


def _command(arguments: list[str]) -> None:
    flags = {"--help", "-h", "--multirun", "-m"}
    if {"--help", "-h"} & set(arguments) and all(text in flags or not text.startswith("-") for text in arguments):
        return _help([text for text in arguments if text not in flags])

    if "-sc" in arguments or "--shell-completion" in arguments:
        gc.disable()  # saves a sixth of the time of completion, which has nothing to free

    import hydra

    from hftraining.experiment.compose import CONFIG, command_line, register

    register(Command)
    with one_line_endings(_explain):
        sys.argv[1:] = command_line(_with_the_folder_of_best(without_secrets(arguments)))
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=CONFIG)(job)()


def job(composed: "DictConfig") -> "float | str | Ending | None":
    """Hydra calls this once, or for each run of a multirun. Returns the validation loss, for a sweeper.

    A job of our own sweeper is a worker, which runs trials and returns why it ended.
    """
    with ending_with_parent(), masked_output():  # a launcher may have started this process
        return _job(composed)


def _job(composed: "DictConfig") -> "float | str | Ending | None":
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra = HydraConfig.get()
    if composed.search is not None and hydra.mode == RunMode.MULTIRUN:
        from hftraining.experiment.ranks import sweep_refused
        from hftraining.sweep.worker import work

        return sweep_refused() or work(composed)  # the sweep that started this worker deals with how it ends

    from hftraining.experiment.compose import explain_overrides

    # Here and not in main() alone: Hydra prints the overrides of a job that raises, and what fails from here on is not
    # the composing.
    with one_line_endings(explain_overrides):
        check_memory_limit()
        if composed.search is not None:
            name = in_a_line(str(composed.search.name), 100)
            raise ConfigError(f"search={name} is a sweep: python train.py -m search=...")
        config = _config(composed, list(hydra.overrides.task))
        from hftraining.experiment.finetune import run
        from hftraining.experiment.ranks import with_ranks

        finished = run(with_ranks(config), sys.argv)
        if hydra.mode == RunMode.MULTIRUN:
            from hftraining.sweep.multirun import note_run

            note_run(hydra.sweep.dir, str(finished.folder))
        print(f"run: {finished.folder}", flush=True)
        return finished.result.eval_loss


def _config(composed: "DictConfig", overrides: list[str]) -> ExperimentConfig:
    """The checked config: of a run to resume, from its folder; of a fine-tune, on top of its base's."""
    from hftraining.experiment.compose import values_of

    values = values_of(composed)
    if folder := values["resume"]:
        others = [text for text in overrides if not text.lstrip("+").startswith("resume=")]
        if others:
            raise ConfigError(f"resume={folder} keeps the run's own config: leave out {' '.join(others)}")
        config = load_config(Path(folder) / "config.yaml")
        config.resume = folder
        return config
    if values["init_from"]:
        from hftraining.experiment.inherit import inherit

        return inherit(values, overrides)
    return typed_config(values)


def _explain(error: Exception) -> ConfigError:
    """The line for what goes wrong while Hydra composes the command line, or starts the runs of a multirun."""
    from hftraining.experiment.compose import explain_composing
    from hftraining.sweep.settings import unknown_search_key

    def unknown(key: str) -> str:
        return unknown_search_key(key) if key.startswith("search.") else unknown_key(key)

    return explain_composing(error, unknown)


def _help(overrides: list[str]) -> None:
    """Print our help. Hydra's own, which takes three times as long, answers command lines with options of Hydra."""
    from hftraining.experiment.usage import usage

    if not overrides:
        print(usage(Command))
        return
    from hftraining.experiment.compose import command_line, composed, register

    register(Command)
    with one_line_endings(_explain):
        print(usage(Command, composed(command_line(overrides), search=True)))


def _with_the_folder_of_best(arguments: list[str]) -> list[str]:
    """+best=PATH as overrides before all others: its values, which are data. Hydra never sees its folder."""
    for number, text in enumerate(arguments):
        if text.startswith("+best=") and "/" in text:
            from hftraining.experiment.best import overrides_of

            return [*overrides_of(text), *arguments[:number], *arguments[number + 1 :]]
    return arguments


if __name__ == "__main__":
    main()
