"""Compose the config, check it, run it: `python train.py model=large stocks=tech10`."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

# Spinning threads of torch starve each other as soon as anything else runs: ten times slower, measured. Spinning for a
# few microseconds costs little on an idle machine and yields on a busy one.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
# Hydra would print its own traceback and exit with 1; one_line_endings() below prints one line and exits with 2.
os.environ["HYDRA_FULL_ERROR"] = "1"

from hftraining.core.errors import ConfigError, Ending, Interrupted
from hftraining.core.orphan import ending_with_parent
from hftraining.core.secret import masked_output, without_secrets
from hftraining.experiment.config import CONF, ExperimentConfig, load_config, typed_config, unknown_key
from hftraining.sweep.config import Command

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Below, functions import what they need: help needs no Hydra, and nothing before a valid config needs torch.


def main() -> None:
    """Run, and turn every ending into its exit code: 0 done, 2 the user's input, 3 interrupted and saved, 1 ours."""
    with masked_output():
        _main(sys.argv[1:])


def _main(arguments: list[str]) -> None:
    flags = {"--help", "-h", "--multirun", "-m"}
    if {"--help", "-h"} & set(arguments) and all(text in flags or not text.startswith("-") for text in arguments):
        return _help([text for text in arguments if text not in flags])

    if "-sc" in arguments or "--shell-completion" in arguments:
        gc.disable()  # saves a sixth of the time of completion, which has nothing to free

    import hydra

    from hftraining.experiment.compose import CONFIG, register

    register(Command)
    with one_line_endings():
        sys.argv[1:] = _options_first(_with_the_folder_of_best(without_secrets(arguments)))
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=CONFIG)(job)()


def job(composed: "DictConfig") -> float | str | None:
    """Hydra calls this once, or for each run of a multirun. Returns the validation loss, for a sweeper.

    A job of our own sweeper is a worker, which runs trials and returns why it ended.
    """
    with ending_with_parent(), masked_output():  # a launcher may have started this process
        return _job(composed)


def _job(composed: "DictConfig") -> float | str | None:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra = HydraConfig.get()
    if composed.search is not None and hydra.mode == RunMode.MULTIRUN:
        from hftraining.sweep.worker import work

        return work(composed)  # the sweep that started this worker deals with how it ends

    with one_line_endings():  # here, not in main(): Hydra prints the overrides of a job that raises
        if composed.search is not None:
            raise ConfigError(f"search={composed.search.name} is a sweep: python train.py -m search=...")
        config = _config(composed, list(hydra.overrides.task))
        from hftraining.experiment.finetune import run

        finished = run(config, sys.argv)
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


@contextmanager
def one_line_endings() -> Iterator[None]:
    """End the process with one line and an exit code; an unforeseen error is raised."""
    try:
        yield
    except Ending as end:
        _stop(end)
    except KeyboardInterrupt:
        _stop(Interrupted("stopped before anything had to be saved"))
    except Exception as error:
        from hydra.errors import HydraException
        from omegaconf.errors import OmegaConfBaseException

        if not isinstance(error, HydraException | OmegaConfBaseException):
            raise
        from hftraining.experiment.compose import one_line

        _stop(ConfigError(one_line(error, _unknown)))


def _stop(end: Ending) -> NoReturn:
    print(f"{end.word}: {end}", file=sys.stderr)
    sys.exit(end.exit_code)


def _unknown(key: str) -> str:
    from hftraining.sweep.settings import unknown_search_key

    return unknown_search_key(key) if key.startswith("search.") else unknown_key(key)


def _help(overrides: list[str]) -> None:
    """Print our help. Hydra's own, which takes three times as long, answers command lines with options of Hydra."""
    from hftraining.experiment.usage import usage

    with one_line_endings():
        if not overrides:
            print(usage(Command))
            return
        from hftraining.experiment.compose import composed, register

        register(Command)
        print(usage(Command, composed(overrides, search=True)))


def _with_the_folder_of_best(arguments: list[str]) -> list[str]:
    """+best=PATH as Hydra reads it: an option of a config group, and the folder of the group."""
    for number, text in enumerate(arguments):
        if text.startswith("+best=") and "/" in text:
            path = Path(text.removeprefix("+best="))
            if not path.is_file() or path.suffix != ".yaml" or path.parent.name != "best":
                raise ConfigError(f"{text}: there is no such file best/*.yaml of a sweep")
            folder = str(path.parent.parent.resolve())
            return ["--config-dir", folder, *arguments[:number], f"+best={path.stem}", *arguments[number + 1 :]]
    return arguments


def _options_first(arguments: list[str]) -> list[str]:
    """-m before all overrides: Hydra's argparse accepts no overrides on both sides of an option."""
    flags = [text for text in arguments if text in ("-m", "--multirun")]
    return [*flags, *(text for text in arguments if text not in flags)]


if __name__ == "__main__":
    main()
