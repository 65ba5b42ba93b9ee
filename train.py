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
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hftraining.experiment import (
    ConfigError,
    ExperimentConfig,
    LeakError,
    explain,
    load_config,
    typed_config,
    unknown_key,
)
from hftraining.finetuning import conductor, inherit
from hftraining.market.config import MarketDataError

EXIT_USER, EXIT_INTERRUPTED, EXIT_OURS = 2, 3, 1


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def run(composed: DictConfig) -> float:
    """One run: what Hydra composed, checked and trained. Returns the validation loss, for a sweeper."""
    try:
        OmegaConf.resolve(composed)
        overrides = list(HydraConfig.get().overrides.task)
        if composed.resume:
            config = _config_to_resume(composed.resume, overrides)
        elif composed.init_from:
            values: Any = OmegaConf.to_container(composed)
            config = inherit.inherit(values, overrides)
        else:
            config = typed_config(composed)
    except (ConfigError, OmegaConfBaseException) as error:
        _stop(ConfigError(explain(error)), EXIT_USER)

    from hftraining.forecast.baselines import BaselineError
    from hftraining.runs.ledger import LedgerError
    from hftraining.runs.record import RecordError
    from hftraining.training.trainer import Diverged, Interrupted  # torch, which a wrong config need not wait for

    try:
        result = conductor.run(config, sys.argv)
    except (ConfigError, MarketDataError, BaselineError, RecordError, LedgerError) as error:
        _stop(error, EXIT_USER)
    except Interrupted as interruption:
        _stop(interruption, EXIT_INTERRUPTED)
    except (Diverged, LeakError) as failure:
        _stop(failure, EXIT_OURS)
    print(f"run: {result['folder']}", flush=True)
    return result["eval"]["loss"]


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
        return unknown_key(match.group(1))
    if isinstance(error, HydraException) and isinstance(error.__cause__, OmegaConfBaseException):
        return explain(error.__cause__)
    if match := re.search(r"Ambiguous value for argument '(.+)'", text):
        return f"{match.group(1)}: several values need -m (a multirun), or brackets if they are one list"
    if isinstance(error, HydraException):  # Hydra's second line says what to do
        return " ".join(line.strip() for line in text.splitlines()[:2])
    return explain(error)


def main() -> None:
    """Run, and turn every ending into its exit code: 0 done, 2 the user's input, 3 interrupted and saved, 1 ours."""
    # Hydra prints the overrides of a job that raises, so run() ends by sys.exit where the user can mend it.
    ConfigStore.instance().store(name="schema", node=ExperimentConfig)
    try:
        run()
    except (HydraException, OmegaConfBaseException) as error:
        _stop(ConfigError(one_line(error)), EXIT_USER)


if __name__ == "__main__":
    main()
