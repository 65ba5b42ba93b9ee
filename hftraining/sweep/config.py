"""The `search` group: what a sweep searches, how, and for how long."""

import re
from dataclasses import dataclass, field
from typing import Any

from hftraining.core.metrics import ALL_TAGS, PROBED_TAGS
from hftraining.experiment.config import ExperimentConfig

SAMPLERS = ("tpe", "gp", "nsga2", "random", "qmc", "grid")
PRUNERS = ("median", "hyperband", "wilcoxon", "none")
DIRECTIONS = ("minimize", "maximize")
_BOUND = re.compile(r"\s*(<=|>=)\s*([-+0-9.eE]+)\s*\Z")


@dataclass
class SearchConfig:
    """A sweep. Dictionaries are empty by default, since a yaml could only add to them: see conf/search/profit.yaml."""

    name: str = "profit-${stocks.name}"  # names the study and its folder, outputs/sweeps/<name>
    n_trials: int = 24  # the size of the study, pruned and failed trials included
    objectives: dict[str, str] = field(default_factory=dict)  # metric -> minimize or maximize
    constraints: dict[str, str] = field(default_factory=dict)  # metric -> ">= bound" or "<= bound"
    params: dict[str, Any] = field(default_factory=dict)  # field or group -> Hydra's sweep syntax
    when: dict[str, str] = field(default_factory=dict)  # param -> condition on another one, "model.num_layers>=2"
    first: list[dict[str, Any]] = field(default_factory=list)  # points to try before the sampler chooses
    sampler: str = "tpe"  # tpe, gp, nsga2, random, qmc, grid
    pruner: str = "median"  # median, hyperband, wilcoxon (over folds and seeds), none
    prune_on: list[str] = field(default_factory=list)  # objectives; a trial is pruned if all agree. Empty: all
    patience: int = 4  # trials that finish before any is pruned (median), points that must agree (wilcoxon)
    seed: int = 1  # of the sampler
    seeds: list[int] = field(default_factory=lambda: [1])  # a trial is trained with each of these
    folds: int = 1  # walk-forward folds that the validation days are cut into
    workers: int = 1  # processes; more than one needs a parallel launcher, e.g. hydra/launcher=joblib
    storage: str = ""  # an SQLAlchemy URL, e.g. sqlite:///study.db; empty: a journal file in the sweep's folder
    max_failures: int = 0  # the sweep stops after more failed trials than this; 0: a quarter of n_trials, at least 3
    choose: str = "knee"  # knee (of the Pareto front), or the metric whose best trial is chosen
    final_seeds: int = 1  # to train the chosen configuration with; the first one opens the test days

    def __post_init__(self) -> None:
        """Refuse a search that cannot run."""
        if not re.fullmatch(r"\w[\w.-]{0,99}", self.name):
            raise ValueError(f"search.name={self.name} is not a plain folder name")
        if not self.objectives:
            raise ValueError("search.objectives is empty: choose a search, e.g. search=profit")
        for where, metrics in (("objectives", self.objectives), ("constraints", self.constraints)):
            for metric in metrics:
                if metric not in ALL_TAGS:
                    raise ValueError(f"search.{where}: {metric} is not one of {', '.join(ALL_TAGS)}")
        for metric, bound in self.constraints.items():
            if not _BOUND.match(bound):
                raise ValueError(f'search.constraints: {metric}="{bound}" is not like ">= 20" or "<= 0.5"')
        for name, value, known in (
            ("sampler", self.sampler, SAMPLERS),
            ("pruner", self.pruner, PRUNERS),
            ("choose", self.choose, ("knee", *self.objectives)),
            *((f"objectives: {metric}", direction, DIRECTIONS) for metric, direction in self.objectives.items()),
        ):
            if value not in known:
                raise ValueError(f"search.{name}={value} is not one of {', '.join(known)}")
        probed = tuple(metric for metric in self.objectives if metric in PROBED_TAGS)
        for metric in self.prune_on:
            if metric not in probed:
                raise ValueError(f"search.prune_on={self.prune_on}: {metric} is not one of {', '.join(probed)}")
        if self.pruner != "none" and not probed:
            raise ValueError(
                f"search.pruner={self.pruner}: no objective is probed during training ({', '.join(PROBED_TAGS)} are): "
                "use search.pruner=none"
            )
        for name in ("n_trials", "folds", "workers", "final_seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"search.{name}={getattr(self, name)} must be at least 1")
        for name in ("patience", "seed", "max_failures"):
            if getattr(self, name) < 0:
                raise ValueError(f"search.{name}={getattr(self, name)} must not be negative")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"search.seeds={self.seeds} must be different numbers of at least 0")
        if self.pruner == "wilcoxon" and self.folds * len(self.seeds) < 3:
            raise ValueError(
                f"search.pruner=wilcoxon compares folds and seeds, and {self.folds} x {len(self.seeds)} are too few to "
                "tell trials apart: use search.folds=4 or another pruner"
            )

    @property
    def pruning_metrics(self) -> list[str]:
        """The objectives that together decide whether a trial is pruned."""
        return self.prune_on or [metric for metric in self.objectives if metric in PROBED_TAGS]

    @property
    def failures_allowed(self) -> int:
        """How many trials may fail."""
        return self.max_failures or max(3, self.n_trials // 4)


@dataclass
class Command(ExperimentConfig):
    """The fields of a command line: a run, and how a sweep varies it. A run itself has no search."""

    search: SearchConfig | None = None  # how a sweep varies the run: search=profit


def violation(bound: str, value: float) -> float:
    """How far a value lies beyond a bound such as ">= 20", in its own unit; at most 0 where it holds, NaN for NaN."""
    match = _BOUND.match(bound)
    assert match, bound
    distance = float(match[2]) - value
    return distance if match[1] == ">=" else -distance
