"""The CPU time of a trial in our sweep and in Optuna alone: python experiments/benchmarks/sweep_overhead.py.

Both run the same number of empty trials over the same space, on a journal file with the same sampler. Ours also claims
each trial, composes its config and stores its result. Both sides leave out probes, pruning (Optuna refuses it for
several objectives), run folders and the ledger. Medians of five rounds, in turn.
"""

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from pathlib import Path

import optuna
import yaml

from hftraining.experiment.compose import Composer
from hftraining.experiment.config import CONF
from hftraining.sweep.config import SearchConfig
from hftraining.sweep.serve import serve
from hftraining.sweep.space import Param, parse_space, parsed
from hftraining.sweep.study import Study, make_sampler

METRICS = {"eval/loss": 0.3, "profit/sharpe_ratio": 0.1, "profit/max_drawdown": -0.1, "profit/trade_count": 100.0}


def optuna_alone(search: SearchConfig, space: list[Param], folder: Path, trials: int) -> float:
    """CPU seconds of ask, suggest and tell."""
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "alone.journal"))
    storage = optuna.storages.JournalStorage(backend)
    study = optuna.create_study(storage=storage, directions=["minimize", "maximize"], sampler=make_sampler(search, 0))
    begin = time.process_time()
    for _ in range(trials):
        trial = study.ask()
        chosen = {}
        for param in space:
            if not param.exists(chosen):
                continue
            if param.choices is not None:
                value = trial.suggest_categorical(param.name, list(param.choices))
            elif param.whole:
                step = 1 if param.log else int(param.step or 1)
                value = trial.suggest_int(param.name, int(param.low), int(param.high), log=param.log, step=step)
            else:
                value = trial.suggest_float(param.name, param.low, param.high, log=param.log, step=param.step)
            chosen[param.name] = param.value(value)
        study.tell(trial, [0.3, 0.1])
    return time.process_time() - begin


def ours(search: SearchConfig, space: list[Param], folder: Path) -> float:
    """CPU seconds of the same trials by a worker of ours, each with its composed and checked config."""
    composer, study = Composer(), Study(search, folder)
    composer.config({})  # once a sweep

    def run(number, point, watch, facts):  # type: ignore[no-untyped-def]
        composer.config(point)
        return METRICS

    begin = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):  # a line a trial, as in a sweep
        serve(study, space, {}, run)
    return time.process_time() - begin


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    values = yaml.safe_load((CONF / "search" / "profit.yaml").read_text())["search"]
    search = SearchConfig(**values | {"name": "overhead", "n_trials": arguments.trials, "pruner": "none"})
    searched = {name: text for name, text in search.params.items() if parsed(name, str(text)).is_sweep_override()}
    space = parse_space(searched, search.when)
    alone, with_us = [], []
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as folder:
            alone.append(optuna_alone(search, space, Path(folder), arguments.trials) / arguments.trials)
            with_us.append(ours(search, space, Path(folder)) / arguments.trials)
    theirs, mine = statistics.median(alone), statistics.median(with_us)
    print(f"CPU a trial, medians of {arguments.rounds} rounds of {arguments.trials} trials:")
    print(f"Optuna alone {1e3 * theirs:.1f} ms, ours {1e3 * mine:.1f} ms: {1e3 * (mine - theirs):.1f} ms more")


if __name__ == "__main__":
    main()
