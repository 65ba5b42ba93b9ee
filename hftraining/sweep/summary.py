"""What sweep.json holds: how the trials of a sweep ended, and how the one that was chosen did."""

from dataclasses import dataclass, field
from typing import Any

from hftraining.runs.result import Metrics, Number


@dataclass
class Tally:
    """How the trials ended. trials: how many by state. steps: trained, and what they were without pruning."""

    name: str
    objectives: dict[str, str]
    trials: dict[str, int]
    steps: dict[str, int]
    front: list[int]  # numbers of the trials that no other one beats in every objective

    @property
    def saved(self) -> float:
        """The fraction of the steps that pruning and patience saved."""
        return 1.0 - self.steps["trained"] / self.steps["unpruned"] if self.steps["unpruned"] else 0.0


@dataclass
class Choice:
    """The trial that was chosen. by: knee, or the metric. values: of the objectives."""

    by: str
    trial: int
    params: dict[str, Any]
    values: list[float]


@dataclass
class Overfitting:
    """The probability of backtest overfitting, or why there is none: see evidence/deflation.py."""

    value: Number
    trials: int
    blocks: int
    reason: str


@dataclass
class OpenedDays:
    """What the chosen configuration did on the test days. interval: of its Sharpe ratio."""

    profit: Metrics = field(default_factory=dict)
    interval: list[Number] = field(default_factory=lambda: [None, None])


@dataclass
class Summary(Tally):
    """How the chosen trial did. runs: its folders, one a seed, the first with test days. seeds: metrics of each run."""

    chosen: Choice
    pbo: Overfitting
    runs: list[str]
    seeds: dict[str, list[float]]
    n_trials: int | None
    deflated_sharpe: Number
    test_openings: int | None
    test: OpenedDays
    verdict: str | None
