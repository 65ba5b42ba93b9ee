"""The study: one Optuna storage that any number of workers share and that outlives each of them.

The study gives out n_trials numbers, each to one worker at a time. A worker holds a lock file while it lives, and the
kernel releases it when the worker dies, so that the next worker gets its trial at once, under the same number.
"""

import hashlib
import json
import math
import os
import socket
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from hftraining.core.errors import ConfigError
from hftraining.core.files import is_locked, locked
from hftraining.core.secret import masked, masked_argument, remember
from hftraining.core.values import flatten
from hftraining.runs.identity import new_id
from hftraining.sweep.config import SearchConfig, violation
from hftraining.sweep.space import Param, Value
from hftraining.sweep.storage import JOURNAL, open_storage, storage_error
from hftraining.sweep.strange import refuse_foreign_folder, refuse_links_in, refuse_strange_study

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
MOST_ATTEMPTS = 2  # a trial is repeated once if its worker died
HEARTBEAT_SECONDS, DEAD_AFTER_SECONDS = 60.0, 300.0  # of a worker on another machine
NAMELESS_SECONDS = 5.0  # for a worker on another machine to put its name on a trial
INFEASIBLE = 1e6  # the violation of a constraint without a number

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=ExperimentalWarning)  # journal storage, multivariate TPE, QMC, Wilcoxon


class Study:
    """A study in its storage. Every worker has its own instance; so does the sweep."""

    def __init__(self, search: SearchConfig, folder: Path) -> None:
        """Open or create the study. folder: outputs/sweeps/<name>.

        Raises ConfigError for a storage that cannot be used and for a study with other objectives.
        """
        self.search, self.folder = search, folder
        url = search.storage
        remember(url)
        self.is_file = not url or url.startswith("sqlite")
        # Without its secrets, since the study stores this hash, and the hash of a weak password is no secret.
        identity = f"{masked_argument(url) or folder.resolve() / 'study.journal'}#{search.name}"
        home = f"hftraining-{os.getuid()}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
        self.locks = Path(tempfile.gettempdir()) / home
        self.locks.mkdir(mode=0o700, exist_ok=True)
        refuse_foreign_folder(self.locks)
        if folder.is_dir():
            refuse_links_in(folder)
        self.host = f"{socket.gethostname()}:{self.locks}"
        self._name, self._asked = "", 0
        try:
            with self._alone():  # so that one first start alone makes the tables of an empty database
                self.storage = open_storage(url, folder)
                self.study = optuna.create_study(
                    study_name=search.name,
                    storage=self.storage,
                    directions=[_direction(value) for value in search.objectives.values()],
                    load_if_exists=True,
                )
        except Exception as error:
            if end := storage_error(error, url, folder):
                raise end from error
            raise
        refuse_strange_study(self.study, str(folder / JOURNAL) if not url else "search.storage")
        self._views = [_one_objective(self.study, search, metric) for metric in search.pruning_metrics]

    def agree(self, definition: Mapping[str, Any], first: Sequence[Mapping[str, Value]]) -> None:
        """Store the definition of a new study and the points to try first; of a known study, check the definition.

        Raises ConfigError with the difference.
        """
        with self._alone():
            known = self.study.user_attrs.get("definition")
            if known is None:
                for point in first:
                    self.study.enqueue_trial(dict(point), skip_if_exists=True)  # there already after a kill in between
                self.study.set_metric_names(list(self.search.objectives))  # for Optuna's own tools
                self.study.set_user_attr("id", new_id())
                self.study.set_user_attr("definition", json.loads(json.dumps(definition)))
                return
        ours, theirs = flatten(json.loads(json.dumps(definition))), flatten(known)
        differences = [
            f"{name}: {ours.get(name, 'absent')} where the study has {theirs.get(name, 'absent')}"
            for name in sorted(ours.keys() | theirs.keys())
            if ours.get(name) != theirs.get(name)
        ]
        if differences:
            raise ConfigError(
                f"the study {self.search.name} in {self.folder} began with another definition "
                f"({'; '.join(differences)}): give the same, or another search.name"
            )

    @property
    def definition(self) -> dict[str, Any]:
        """The definition that the study began with."""
        return self.study.user_attrs["definition"]

    @property
    def id(self) -> str:
        """A name for this study among all; that of a study of an earlier version is its name in the storage."""
        return str(self.study.user_attrs.get("id", self.search.name))

    def trials(self) -> list[FrozenTrial]:
        """The trials so far, without those that wait."""
        return self.study.get_trials(deepcopy=False, states=(*FINISHED, TrialState.RUNNING))

    def finished(self) -> int:
        """How many trials have ended, in whatever way."""
        return len(self.study.get_trials(deepcopy=False, states=FINISHED))

    def attempts(self) -> int:
        """How often a worker began a trial so far."""
        owners = [trial.user_attrs.get("owner", {}) for trial in self.study.get_trials(deepcopy=False)]
        return sum(owner.get("attempt", 0) for owner in owners)

    def failures(self) -> list[FrozenTrial]:
        """The trials that an exception ended, or whose workers died."""
        return self.study.get_trials(deepcopy=False, states=(TrialState.FAIL,))

    # A worker's side.

    @contextmanager
    def working(self) -> Iterator[None]:
        """Be a worker: trials claimed meanwhile belong to this process while it lives."""
        self._name = f"{os.getpid()}-{time.time_ns()}"
        path = self.locks / f"{self._name}.alive"
        with locked(path):
            try:
                yield
            finally:
                path.unlink(missing_ok=True)

    def claim(self, n_trials: int) -> Trial | None:
        """The next trial, now owned by this worker; None if all n_trials numbers are taken.

        The trial of a dead worker is repeated under its number.
        """
        while True:
            with self._alone():
                nameless = self._take_back()
                states = [trial.state for trial in self.study.get_trials(deepcopy=False)]
                waiting = states.count(TrialState.WAITING)
                if len(states) - waiting < n_trials and (waiting or len(states) < n_trials):
                    self._asked = len(states) - waiting
                    self.study.sampler = make_sampler(self.search, self._asked)
                    trial = self.study.ask()
                    before = trial.user_attrs.get("owner", {})
                    owner = {"host": self.host, "worker": self._name, "attempt": before.get("attempt", 0) + 1}
                    trial.set_user_attr("owner", owner)
                    trial.set_user_attr("reports", {})  # without those of a worker that died
                    if trial.number < n_trials:
                        return trial
                    # A worker on another machine was quicker.
                    self.fail(trial, "one more than n_trials", "")
                elif not nameless:
                    return None
            time.sleep(0.5)

    @contextmanager
    def alive(self, trial: Trial) -> Iterator[None]:
        """Send workers on other machines a heartbeat of the trial's worker."""
        stop = threading.Event()

        def beat() -> None:
            while not stop.wait(HEARTBEAT_SECONDS):
                self.storage.set_trial_user_attr(trial._trial_id, "alive", time.time())

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def suggest(self, trial: Trial, space: Sequence[Param], fixed: Mapping[str, Value]) -> dict[str, Value]:
        """The trial's point: a config value for each parameter whose condition holds.

        fixed: the values of fields that conditions name but that are not searched.
        """
        chosen: dict[str, Value] = {}
        for param in space:
            if not param.exists({**fixed, **chosen}):
                continue
            # A worker that died between two parameters leaves the first: its repetition must not draw the second
            # from where the random numbers of the first begin.
            self.study.sampler = make_sampler(self.search, self._asked, param.name)
            if param.choices is not None:
                value = trial.suggest_categorical(param.name, list(param.choices))
            elif param.whole:
                step = 1 if param.log else int(param.step or 1)
                value = trial.suggest_int(param.name, int(param.low), int(param.high), log=param.log, step=step)
            else:
                value = trial.suggest_float(param.name, param.low, param.high, log=param.log, step=param.step)
            chosen[param.name] = param.value(value)
        return chosen

    def report(self, trial: Trial, step: int, values: Mapping[str, float]) -> None:
        """Store the objectives to prune on at a step of the trial."""
        reports = trial.user_attrs.get("reports", {})
        for metric, value in values.items():
            reports.setdefault(metric, {})[str(step)] = value
        trial.set_user_attr("reports", reports)
        # Optuna's dashboard draws one of them. Trial.report refuses a study of several objectives.
        self.storage.set_trial_intermediate_value(trial._trial_id, step, values[self.search.pruning_metrics[0]])

    def should_prune(self, trial: Trial) -> bool:
        """Whether the pruner would end the trial by every objective that it prunes on."""
        return all(pruner.prune(view, view._storage.get_trial(trial._trial_id)) for view, pruner in self._views)

    def complete(self, trial: Trial, metrics: Mapping[str, float], facts: Mapping[str, Any]) -> None:
        """End the trial with its objectives; if one is not finite, prune it, since the sampler cannot learn from it."""
        values = [metrics[name] for name in self.search.objectives]
        wrong = [name for name, value in zip(self.search.objectives, values, strict=True) if not math.isfinite(value)]
        if wrong:
            self.prune(trial, f"{' and '.join(wrong)} {'is' if len(wrong) == 1 else 'are'} not finite", facts)
            return
        numbers = {name: value for name, value in metrics.items() if math.isfinite(value)}  # JSON has no NaN
        trial.set_user_attr("facts", {**facts, "metrics": numbers})
        for name, bound in self.search.constraints.items():
            beyond = violation(bound, metrics[name])
            trial.set_constraint(name, beyond if math.isfinite(beyond) else INFEASIBLE)
        self.study.tell(trial, values)

    def prune(self, trial: Trial, reason: str, facts: Mapping[str, Any]) -> None:
        """End the trial without objectives, as intended."""
        trial.set_user_attr("facts", {**facts, "reason": reason})
        if len(self.search.objectives) > 1 and "pruned" not in trial.constraints:
            # TPE cannot rank a pruned trial by several objectives, so it counts as infeasible.
            trial.set_constraint("pruned", 1.0)
        self.study.tell(trial, state=TrialState.PRUNED)

    def fail(self, trial: Trial, reason: str, traceback: str, facts: Mapping[str, Any] | None = None) -> None:
        """End the trial after an exception."""
        told = {"reason": masked(reason, users=True), "traceback": masked(traceback, users=True)}
        trial.set_user_attr("facts", {**(facts or {}), **told})
        self.study.tell(trial, state=TrialState.FAIL)

    def give_back(self, trial: Trial) -> None:
        """Let the trial wait for another worker, as if it had not begun: this one was told to stop."""
        self.storage.set_trial_user_attr(trial._trial_id, "owner", {})
        self.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    def _take_back(self) -> int:
        """Requeue the trials of dead workers, and fail those whose workers died twice. Under the lock.

        Returns how many trials are so young that their worker may still put its name on them.
        """
        nameless = 0
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            owner = trial.user_attrs.get("owner") or {}
            is_young = not owner and not self.is_file and time.time() - _began(trial) < NAMELESS_SECONDS
            nameless += is_young
            if is_young or (owner and self._is_alive(owner, trial)):
                continue
            if owner.get("attempt", 0) >= MOST_ATTEMPTS:
                facts = {"reason": f"its worker died {MOST_ATTEMPTS} times"}
                self.storage.set_trial_user_attr(trial._trial_id, "facts", facts)
                self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
            else:
                self.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
        return nameless

    def _is_alive(self, owner: Mapping[str, Any], trial: FrozenTrial) -> bool:
        if owner["host"] != self.host:
            silent = time.time() - trial.user_attrs.get("alive", _began(trial))
            return -DEAD_AFTER_SECONDS < silent < DEAD_AFTER_SECONDS  # a heartbeat from far ahead is nobody's
        if owner["worker"] == self._name:
            return False  # this worker asks for its next trial, so it has left that one
        return is_locked(self.locks / f"{owner['worker']}.alive")

    @contextmanager
    def concluding(self) -> Iterator[None]:
        """Be the one process of this machine that trains and tests the choice; others wait, and then find it done."""
        said = f"sweep {self.search.name}: another process is concluding it; waiting for it"
        with locked(self.locks / "conclude.lock", said):
            yield

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process of this machine at a time."""
        with locked(self.locks / "claim.lock"):
            yield


def make_sampler(search: SearchConfig, asked: int, param: str = "") -> optuna.samplers.BaseSampler:
    """The sampler for the next trial. A new one each time, so that a study resumed after a kill tries the same points.

    asked: trials given out so far; two workers with one random stream would begin with the same points. param: of a
    parameter that the sampler draws by itself.
    """
    seed = seed_of(search.seed, f"{asked}/{param}" if param else asked)
    if search.sampler == "tpe":
        return optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)
    if search.sampler == "gp":
        return optuna.samplers.GPSampler(seed=seed)
    if search.sampler == "nsga2":
        return optuna.samplers.NSGAIISampler(population_size=max(4, min(50, search.n_trials // 4)), seed=seed)
    if search.sampler == "qmc":  # one sequence, whose position is in the storage
        return optuna.samplers.QMCSampler(scramble=True, seed=search.seed, warn_independent_sampling=False)
    return optuna.samplers.RandomSampler(seed=seed)  # every point of a grid waits already


def seed_of(seed: int, what: int | str) -> int:
    """A 31-bit seed from a number and what it is for."""
    digest = hashlib.sha256(f"{seed}/{what}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _direction(word: str) -> StudyDirection:
    return StudyDirection[word.upper()]


def _one_objective(
    study: optuna.Study, search: SearchConfig, metric: str
) -> tuple[optuna.Study, optuna.pruners.BasePruner]:
    """The study with one objective, as pruners need it, and the pruner."""
    index = list(search.objectives).index(metric)
    direction = _direction(search.objectives[metric])
    storage: Any = _OneObjective(study._storage, index, metric, direction)
    pruners = {
        "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=search.patience),
        "hyperband": lambda: optuna.pruners.HyperbandPruner(),
        "wilcoxon": lambda: optuna.pruners.WilcoxonPruner(n_startup_steps=search.patience),
        "none": lambda: optuna.pruners.NopPruner(),
    }
    pruner = pruners[search.pruner]()
    return optuna.Study(study_name=study.study_name, storage=storage, pruner=pruner), pruner


class _OneObjective:
    """A storage whose trials have one objective alone, since pruners refuse several."""

    def __init__(self, storage: BaseStorage, index: int, metric: str, direction: StudyDirection) -> None:
        self._storage, self._index, self._metric, self._direction = storage, index, metric, direction

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return [self._direction]

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self._narrow(self._storage.get_trial(trial_id))

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        return [self._narrow(trial) for trial in self._storage.get_all_trials(study_id, False, states)]

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        complete = self.get_all_trials(study_id, states=(TrialState.COMPLETE,))
        if not complete:
            raise ValueError("no trial is complete yet")
        sign = 1.0 if self._direction == StudyDirection.MINIMIZE else -1.0
        return min(complete, key=lambda trial: sign * trial.values[0])

    def _narrow(self, trial: FrozenTrial) -> FrozenTrial:
        narrow = copy(trial)
        narrow._values = [trial.values[self._index]] if trial.state == TrialState.COMPLETE else None
        reports = trial.user_attrs.get("reports", {}).get(self._metric, {})
        narrow.intermediate_values = {int(step): value for step, value in reports.items()}
        return narrow


def _began(trial: FrozenTrial) -> float:
    return trial.datetime_start.timestamp() if trial.datetime_start else -math.inf
