"""The contents of sweep.json: how the trials of a sweep ended, and what the chosen one achieved."""

from dataclasses import dataclass, field
from typing import Any

from hftraining.runs.quantities import Metrics, Number
from hftraining.runs.result import Against


@dataclass
class Tally:
    """How the trials ended. trials: their number by state. steps: trained, and the number without pruning."""

    name: str
    objectives: dict[str, str]
    trials: dict[str, int]
    steps: dict[str, int]
    front: list[int]  # numbers of the trials on the Pareto front

    @property
    def saved(self) -> float:
        """The fraction of the steps saved by pruning and patience."""
        return 1.0 - self.steps["trained"] / self.steps["unpruned"] if self.steps["unpruned"] else 0.0


@dataclass
class Choice:
    """The chosen trial. by: knee, or a metric. values: of the objectives."""

    by: str
    trial: int
    params: dict[str, Any]
    values: list[float]


@dataclass
class Overfitting:
    """The probability of backtest overfitting, or the reason why it is unknown: see evidence/deflation.py."""

    value: Number
    trials: int
    blocks: int
    reason: str


@dataclass
class OpenedDays:
    """The chosen configuration on the test days. interval: of its Sharpe ratio."""

    profit: Metrics = field(default_factory=dict)
    interval: list[Number] = field(default_factory=lambda: [None, None])


@dataclass
class Summary(Tally):
    """The chosen configuration's runs. runs: a folder for each seed; the first opened the test days. seeds: metrics.

    money, alarms: sentences about that first run, and its days. benchmark: of the validation days, on which all trials
    competed.
    """

    chosen: Choice
    pbo: Overfitting
    runs: list[str]
    seeds: dict[str, list[float]]
    n_trials: int | None
    deflated_sharpe: Number
    test_openings: int | None
    test: OpenedDays
    money: str
    verdict: str | None
    alarms: list[str]
    benchmark: Against | None
