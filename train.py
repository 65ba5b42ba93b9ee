"""Compose the config, check it, run it: `python train.py model=large stocks=tech10`."""

import difflib
import os
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

# Threads of torch that wait by spinning starve each other as soon as anything else runs: ten times slower, measured.
# Spinning for some microseconds costs little on an idle machine and lets go on a busy one.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
# Hydra would print its own traceback and exit with 1; main() below prints one line and exits with 2.
os.environ["HYDRA_FULL_ERROR"] = "1"

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hftraining.core.errors import EXIT_INTERRUPTED, EXIT_USER, ConfigError, Ending, Interrupted
from hftraining.experiment import finetune as conductor
from hftraining.experiment import inherit
from hftraining.experiment.config import ExperimentConfig, explain, load_config, typed_config, unknown_key
from hftraining.sweep.config import Command
from hftraining.sweep.settings import unknown_search_key


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def run(composed: DictConfig) -> float | str:
    """One run: what Hydra composed, checked and trained. Returns the validation loss, for a sweeper.

    A job of our own sweeper is a worker instead, which runs trials and returns why it ended.
    """
    multirun = HydraConfig.get().mode == RunMode.MULTIRUN
    if composed.search is not None:
        if not multirun:
            _stop(ConfigError(f"search={composed.search.name} is a sweep: python train.py -m search=..."), EXIT_USER)
        from hftraining.sweep.worker import work

        return work(composed)
    try:
        OmegaConf.resolve(composed)
        overrides = list(HydraConfig.get().overrides.task)
        values: Any = OmegaConf.to_container(composed)
        del values["search"]
        if composed.resume:
            config = _config_to_resume(composed.resume, overrides)
        elif composed.init_from:
            config = inherit.inherit(values, overrides)
        else:
            config = typed_config(values)
        result = conductor.run(config, sys.argv)
    except Exception as error:
        # Hydra prints the overrides of a job that raises, so what the user can mend ends here.
        _stop_if_expected(error)
        raise
    if multirun:
        from hftraining.sweep.multirun import note_run

        note_run(HydraConfig.get().sweep.dir, result["folder"])
    print(f"run: {result['folder']}", flush=True)
    return result["eval"]["loss"]


def _stop_if_expected(error: Exception) -> None:
    """End the process with one line and its exit code, unless nobody foresaw this error."""
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        _stop(ConfigError(one_line(error)), EXIT_USER)
    if isinstance(error, Ending):
        _stop(error, error.exit_code)


def _stop(reason: BaseException, code: int) -> NoReturn:
    print(f"{'interrupted' if code == EXIT_INTERRUPTED else 'error'}: {reason}", file=sys.stderr)
    sys.exit(code)


def _config_to_resume(folder: str, overrides: list[str]) -> ExperimentConfig:
    others = [text for text in overrides if not text.lstrip("+").startswith("resume=")]
    if others:
        raise ConfigError(f"resume={folder} goes on under the run's own config: leave out {' '.join(others)}")
    config = load_config(Path(folder) / "config.yaml")
    config.resume = folder
    return config


def one_line(error: BaseException) -> str:
    """What is wrong with the command line, in one line."""
    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, option = error.missing_cfg_file.rpartition("/")
        close = difflib.get_close_matches(option, error.options, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        return f"{group}={option}: there is no such option{hint} (there are {', '.join(sorted(error.options))})"
    if match := re.search(r"Could not override '([^']+)'", text):
        if isinstance(error.__cause__, OmegaConfBaseException) and "not in" not in str(error.__cause__):
            return explain(error.__cause__)
        return unknown_search_key(match[1]) if match[1].startswith("search.") else unknown_key(match[1])
    if isinstance(error, HydraException) and isinstance(error.__cause__, OmegaConfBaseException):
        return explain(error.__cause__)
    if match := re.search(r"Ambiguous value for argument '(.+)'", text):
        return f"{match.group(1)}: several values need -m (a multirun), or brackets if they are one list"
    if isinstance(error, HydraException):  # Hydra's second line says what to do
        return " ".join(line.strip() for line in text.splitlines()[:2])
    return explain(error)


def main() -> None:
    """Run, and turn every ending into its exit code: 0 done, 2 the user's input, 3 interrupted and saved, 1 ours."""
    ConfigStore.instance().store(name="schema", node=Command)
    try:
        sys.argv[1:] = _options_first(_with_the_folder_of_best(sys.argv[1:]))
        run()
    except Exception as error:
        _stop_if_expected(error)
        raise
    except KeyboardInterrupt:
        _stop(Interrupted("stopped before anything had to be saved"), EXIT_INTERRUPTED)


def _with_the_folder_of_best(arguments: list[str]) -> list[str]:
    """+best=PATH as Hydra wants it: the option of a config group, and the folder that the group lies in."""
    for number, text in enumerate(arguments):
        if text.startswith("+best=") and "/" in text:
            path = Path(text.removeprefix("+best="))
            if not path.is_file() or path.suffix != ".yaml" or path.parent.name != "best":
                raise ConfigError(f"{text}: there is no such file best/*.yaml of a sweep")
            folder = str(path.parent.parent.resolve())
            return ["--config-dir", folder, *arguments[:number], f"+best={path.stem}", *arguments[number + 1 :]]
    return arguments


def _options_first(arguments: list[str]) -> list[str]:
    """-m before all overrides: argparse, as Hydra calls it, takes none that stand on both sides of an option."""
    flags = [text for text in arguments if text in ("-m", "--multirun")]
    return [*flags, *(text for text in arguments if text not in flags)]


if __name__ == "__main__":
    main()
