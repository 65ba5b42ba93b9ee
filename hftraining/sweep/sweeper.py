"""The sweep: from the command line to a study, its workers, and the chosen configuration."""

import dataclasses
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf, read_write

from hftraining.core.endings import foreseen
from hftraining.core.errors import ConfigError, Ending, Interrupted, SweepFailed
from hftraining.core.secret import STORAGE_FROM_VARIABLE, STORAGE_VARIABLE, masked, put_storage
from hftraining.core.values import flatten
from hftraining.experiment.compose import Composer, as_override, options_of, override
from hftraining.experiment.config import ExperimentConfig
from hftraining.experiment.inherit import signature_of
from hftraining.experiment.splits import splits_of
from hftraining.market.prices import load_bars
from hftraining.runs.identity import cannot_change_a_number
from hftraining.sweep.conclusion import conclude
from hftraining.sweep.config import SearchConfig
from hftraining.sweep.serve import FAILING, INTERRUPTED
from hftraining.sweep.settings import sweep_folder, without_search
from hftraining.sweep.space import Param, Value, parse_space, parsed, points_of_grid
from hftraining.sweep.study import Study
from hftraining.sweep.summary import Summary
from hftraining.sweep.trials import fixed_values, folds_of


def run_sweep(
    composed: DictConfig, search: SearchConfig, arguments: list[str], n_trials: int | None, launcher: Launcher
) -> Summary:
    """Search until the study has n_trials, then train the chosen configuration; returns the content of sweep.json.

    composed: without overrides that have several values. search: its checked search. n_trials: replaces the size
    there. Raises ConfigError before anything runs, SweepFailed, Interrupted, and as run_experiment for the chosen
    configuration.
    """
    if n_trials is not None:
        try:
            search = dataclasses.replace(search, n_trials=n_trials)
        except ValueError as error:
            raise ConfigError(f"hydra.sweeper.n_trials={n_trials}: {error}") from error
    _move_storage(composed, search)
    params, pinned = _searched_and_pinned(search, arguments)
    if search.workers > 1 and "BasicLauncher" in type(launcher).__name__:
        raise ConfigError(
            f"search.workers={search.workers} needs a parallel launcher: add hydra/launcher=joblib "
            "(pip install hydra-joblib-launcher)"
        )
    when = {name: text for name, text in search.when.items() if name in params}
    space = parse_space(params, when)
    composer = _composer(search, pinned, str(composed.hydra.job.config_name))
    base = composer.config({})
    if base.walk_forward.every or any(name.partition(".")[0] == "walk_forward" for name in params):
        raise ConfigError(
            "walk_forward trains folds of its own, which a sweep cannot prune: search without it (search.folds scores "
            "a trial on several), and walk forward with what it finds: +best=.../knee.yaml walk_forward=yearly"
        )
    if base.training.seeds > 1 or "training.seeds" in params:
        raise ConfigError(
            "training.seeds trains several models a run, and a search compares single ones: leave it out (search.seeds "
            "trains each trial with several seeds), and join the best: python -m hfinference ensemble RUN RUN"
        )
    _check_space(space, composer)
    fixed = fixed_values(base, space)
    first = _first_points(search, space, fixed)
    if search.sampler == "grid":
        search = dataclasses.replace(search, n_trials=len(first))
        print(f"search.sampler=grid: the grid has {len(first)} points, and each is a trial", flush=True)
    fingerprint = _checked_data(base, search.folds)
    folder = sweep_folder(composed)
    study = Study(search, folder)
    study.agree(_definition(search, params, when, base, fingerprint), first)

    of_the_search = [text for text in arguments if text.lstrip("+").startswith(("search=", "search."))]
    job = [*of_the_search, *composer.pinned, f"search.n_trials={search.n_trials}"]
    if STORAGE_VARIABLE in str(OmegaConf.to_container(composed.search, resolve=False)):
        job.append(STORAGE_FROM_VARIABLE)
    _launch(study, launcher, job, search, folder)
    with study.concluding():
        summary = conclude(study, space, composer, folder)
    print(f"sweep: {folder} ({folder / 'sweep.html'})\nrun: {summary.runs[0]}", flush=True)
    return summary


def _move_storage(composed: DictConfig, search: SearchConfig) -> None:
    """Leave the name of an environment variable in place of a literal URL: launchers print and pickle configs."""
    if search.storage and not OmegaConf.is_interpolation(composed.search, "storage"):
        put_storage(search.storage)
        with read_write(composed):
            composed.search.storage = STORAGE_FROM_VARIABLE.partition("=")[2]


def _searched_and_pinned(search: SearchConfig, arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """The searched parameters, as text in Hydra's sweep syntax, and the overrides that all trials share.

    The command line replaces entries of search.params. Raises ConfigError.
    """
    given = without_search(arguments)
    # The last override of a field counts, as in Hydra.
    last = {
        found.get_key_element(): (text, found.is_sweep_override())
        for text, found in zip(given, OverridesParser.create().parse_overrides(given), strict=True)
    }
    pinned = [text for text, several in last.values() if not several]
    pinned_names = {name.lstrip("+~") for name, (_, several) in last.items() if not several}
    of_the_search = {name: text if isinstance(text, str) else as_override(text) for name, text in search.params.items()}
    ranges = {name: text.split("=", 1)[1] for name, (text, several) in last.items() if several}
    free = {name: text for name, text in (of_the_search | ranges).items() if name not in pinned_names}
    params = {name: text for name, text in free.items() if parsed(name, text).is_sweep_override()}
    if not params:
        raise ConfigError("search.params: every parameter has a fixed value, so there is nothing to search")
    # A single value in search.params holds for every trial, like one on the command line.
    return params, [*pinned, *(f"{name}={text}" for name, text in free.items() if name not in params)]


def _composer(search: SearchConfig, pinned: list[str], config_name: str) -> Composer:
    """The composer of all trials, with a share of the processors for each of several workers."""
    if search.workers > 1 and Composer(pinned, config_name).config({}).training.threads == 0:
        # Otherwise every worker would use all processors.
        pinned = [*pinned, override("training.threads", max(1, (os.cpu_count() or 1) // search.workers))]
    return Composer(pinned, config_name)


def _checked_data(base: ExperimentConfig, folds: int) -> str:
    """The fingerprint of the bars. Raises MarketDataError if a fold has too few of them."""
    bars = load_bars(base.stocks)
    for stocks in folds_of(base, folds):
        splits_of(dataclasses.replace(base, stocks=stocks), bars)
    return bars.fingerprint()


def _launch(study: Study, launcher: Launcher, job: list[str], search: SearchConfig, folder: Path) -> None:
    """Start workers until the study has n_trials."""
    started = 0
    while (finished := study.finished()) < search.n_trials:
        print(f"sweep {search.name}: {finished} of {search.n_trials} trials are finished; {folder}", flush=True)
        attempts = study.attempts()
        wanted = min(search.workers, search.n_trials - finished)
        try:
            endings = [job.return_value for job in launcher.launch([job] * wanted, initial_job_idx=started)]
        except KeyboardInterrupt as error:
            raise Interrupted(_where_it_stands(study)) from error
        except Exception as error:
            # New workers would meet the same disk, or the same override that Hydra refuses.
            if foreseen(error) or isinstance(error, HydraException):
                raise
            reason = masked(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", users=True)
            if study.attempts() == attempts:  # no worker began a trial, and a new one would not either
                raise SweepFailed(f"the workers of {search.name} cannot run: {reason}") from error
            print(f"a worker died ({reason}); finished trials are kept, new workers start", file=sys.stderr, flush=True)
            endings = []
        started += wanted
        if study.finished() == finished and study.attempts() == attempts:
            time.sleep(1.0)  # all that is left belongs to workers on other machines
        for ending in endings:
            if isinstance(ending, Ending):
                raise ending
        if INTERRUPTED in endings:
            raise Interrupted(_where_it_stands(study))
        failed = study.failures()
        if FAILING in endings or len(failed) > search.failures_allowed:
            last = failed[-1]
            raise SweepFailed(
                f"{len(failed)} trials failed, more than the {search.failures_allowed} allowed (search.max_failures); "
                f"the last one, trial {last.number}: {last.user_attrs.get('facts', {}).get('reason')}"
            )


def _where_it_stands(study: Study) -> str:
    n = study.search.n_trials
    return f"{study.finished()} of {n} trials are finished and kept: the same command resumes the study"


def _definition(
    search: SearchConfig, params: Mapping[str, str], when: Mapping[str, str], base: ExperimentConfig, fingerprint: str
) -> dict[str, Any]:
    """The definition of a study, without which trials are not comparable. Its size, sampler and pruner may change."""
    delta, _ = signature_of(base)
    delta.pop("training.threads", None)  # depends on the number of workers
    return {
        "objectives": search.objectives,
        "order": list(search.objectives),
        "constraints": search.constraints,
        "params": dict(params),
        "when": dict(when),
        "seeds": search.seeds,
        "folds": search.folds,
        "data": fingerprint,
        "fixed": {name: value for name, value in delta.items() if not cannot_change_a_number(name)},
    }


def _check_space(space: Sequence[Param], composer: Composer) -> None:
    """Raise ConfigError for a group option or an end of a range that the config refuses."""
    for param in space:
        if param.name.split(".")[0] in ("stocks", "seed", "evidence", "output_dir", "name", "resume"):
            raise ConfigError(
                f"search.params: {param.name} cannot be searched: trials with other days, symbols or seeds are not "
                "comparable (search.seeds and search.folds average over seeds and days)"
            )
        for value in param.ends():
            if composer.is_group(param.name):
                if value not in (options := options_of(param.name)):
                    raise ConfigError(f"search.params: {param.name}={value} is not one of {', '.join(options)}")
                continue
            if (error := _refusal(composer, {param.name: value})) and "no such field" in error:
                raise ConfigError(f"search.params: {error}")
    groups = [param for param in space if composer.is_group(param.name)]
    points = [{}, *({group.name: option} for group in groups for option in group.ends())]
    for param in space:
        for point in points if param not in groups else ():
            if param.condition is None or param.condition.other not in point or param.exists(point):
                _check_pair(param, point, composer)


def _check_pair(param: Param, point: dict[str, Value], composer: Composer) -> None:
    """Raise ConfigError where a parameter has no value that fits an option of a group, as a model without dropout.

    Of values that fit nothing by themselves one is enough. Whether others fit together only a trial can tell, such as
    a width and its heads.
    """
    refusals = [_refusal(composer, {**point, param.name: value}) for value in param.ends()]
    own = [text for text in refusals if text.startswith(param.name)]
    if not own or (point and not all(refusals)):
        return
    where = "".join(f" with {name}={option}" for name, option in point.items())
    condition = "".join(f", or '+search.when={{{param.name}: {name}!={option}}}'" for name, option in point.items())
    fixed = override(param.name, flatten(dataclasses.asdict(composer.config(point)))[param.name])
    why = own[0].removesuffix(": leave it out")
    raise ConfigError(f"search.params{where}: {why}: {fixed} searches it no more{condition}")


def _refusal(composer: Composer, point: dict[str, Value]) -> str:
    """Why the config refuses a point; empty where it does not."""
    try:
        composer.config(point)
    except ConfigError as error:
        return str(error)
    return ""


def _first_points(search: SearchConfig, space: Sequence[Param], fixed: dict[str, Value]) -> list[dict[str, Value]]:
    """The points that the study tries first, as Optuna would suggest them."""
    if search.sampler == "grid":
        return points_of_grid(list(space), fixed)
    known = {param.name: param for param in space}
    points = []
    for point in search.first:
        unknown = [name for name in point if name not in known]
        if unknown:
            raise ConfigError(f"search.first: {', '.join(unknown)} is not searched ({', '.join(known)} are)")
        points.append({name: known[name].suggestion(value) for name, value in point.items()})
    return points
