"""A worker: it claims a trial of the study, runs it and stores its outcome, until the study is full."""

import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from optuna.trial import Trial

from hftraining.core.errors import Interrupted, Pruned
from hftraining.experiment.compose import Composer
from hftraining.sweep.settings import search_of, sweep_folder, without_search
from hftraining.sweep.space import Param, Value, parse_space
from hftraining.sweep.study import Study
from hftraining.sweep.trials import Trials, Watch, fixed_values

FULL, FAILING, INTERRUPTED = "full", "failing", "interrupted"
Run = Callable[[int, Mapping[str, Value], Watch, dict[str, Any]], dict[str, float]]  # see Trials.run


def work(composed: DictConfig) -> str:
    """A job of a sweep, started by a launcher. Returns why it ended: full, failing or interrupted."""
    hydra = HydraConfig.get()
    search = search_of(composed)
    study = Study(search, sweep_folder(composed))
    pinned = without_search(list(hydra.overrides.task))
    space = parse_space(study.definition["params"], study.definition["when"])
    composer = Composer(pinned, str(hydra.job.config_name))
    trials = Trials(search, composer, Path(composed.output_dir))
    fixed = fixed_values(composer.config({}), space)
    return serve(study, space, fixed, trials.run)


def serve(study: Study, space: Sequence[Param], fixed: Mapping[str, Value], run: Run) -> str:
    """Run trials until none is left ("full"), too many failed ("failing") or a signal came ("interrupted")."""
    search = study.search
    with study.working():
        while (trial := study.claim(search.n_trials)) is not None:
            try:
                with study.alive(trial):
                    _run_one(study, trial, space, fixed, run)
            except (Interrupted, KeyboardInterrupt):
                study.give_back(trial)
                return INTERRUPTED
            if len(study.failures()) > search.failures_allowed:
                return FAILING
    return FULL


def _run_one(study: Study, trial: Trial, space: Sequence[Param], fixed: Mapping[str, Value], run: Run) -> None:
    facts: dict[str, Any] = {}

    def watch(step: int, values: Mapping[str, float]) -> None:
        study.report(trial, step, values)
        if study.should_prune(trial):
            reached = " and ".join(f"{name} of {value:.4f}" for name, value in values.items())
            raise Pruned(f"{reached} at report {step}: {study.search.pruner} pruner")

    try:
        point = study.suggest(trial, space, fixed)
        metrics = run(trial.number, point, watch, facts)
    except Pruned as end:
        study.prune(trial, str(end), facts)
        _say(trial, f"pruned after {facts.get('steps', 0)} steps: {end}")
    except (Interrupted, KeyboardInterrupt):
        raise
    except Exception as error:
        # The error is stored with its trial; other trials may still succeed.
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        study.fail(trial, reason, traceback.format_exc(), facts)
        _say(trial, f"FAILED: {reason}")
    else:
        study.complete(trial, metrics, facts)
        _say(trial, "  ".join(f"{name} {metrics[name]:.4f}" for name in study.search.objectives))


def _say(trial: Trial, text: str) -> None:
    shown = {name: f"{value:.3g}" if isinstance(value, float) else value for name, value in trial.params.items()}
    point = " ".join(f"{name}={value}" for name, value in shown.items())
    print(f"trial {trial.number}: {point}  ->  {text}", flush=True)
