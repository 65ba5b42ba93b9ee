"""The result of a finished run: result.json is written from these classes, and read back into them.

An unknown number is NaN during a run, null in the file, and None once it is read back.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hftraining.core.errors import UserError
from hftraining.core.files import write_json_atomically
from hftraining.core.untrusted import MB, is_there, read_json_object, shown
from hftraining.core.values import flatten, plain, without_nan
from hftraining.runs.manifest import damaged
from hftraining.runs.member_results import EnsembleResult
from hftraining.runs.quantities import Band, Count, Ends, Estimate, Metrics, Number, Score, Text, Word

RESULT_FILE = "result.json"
RESULT_MOST = 16 * MB
BESIDE = ("difference", "lead")  # of a baseline in result.json, beside its metrics
# The traded periods: key -> words. A run has the first two; what is judged outside a training has the last.
PERIODS = {"valid": "validation", "test": "test", "backtest": "backtest"}


@dataclass(frozen=True)
class Null:
    """The null band: see evidence/nulls.py. band, selection_band: 5, 50 and 95 % of the draws' Sharpe ratios."""

    p: Number = None
    band: Band = field(default_factory=list)
    draws: Count = 0
    selection_p: Number = None
    selection_band: Band = field(default_factory=list)
    reason: Text = ""


@dataclass(frozen=True)
class Calibration:
    """The share of outcomes at or below the quantile forecasts of one level and horizon."""

    horizon: Count
    level: float
    share: Number = None
    days: Count = 0


@dataclass(frozen=True)
class Baseline:
    """What a baseline earned. difference: its Sharpe ratio less buy and hold's; None for buy and hold of any size.

    lead: the model's Sharpe ratio less this one's; None where an older version wrote the result.
    """

    metrics: Metrics
    difference: Estimate | None = None
    lead: Estimate | None = None


@dataclass(frozen=True)
class AtCosts:
    """What the run's own positions earn where a side costs so many basis points of the traded value.

    At 0 borrowing is free, too: the gross profit. lag: sessions from decision to fill; None where an older version
    wrote the result.
    """

    basis_points: Number = None
    total_return: Number = None
    sharpe_ratio: Number = None
    lag: Count | None = None


@dataclass(frozen=True)
class Against:
    """The daily returns beside those of buy and hold: a regression, and what is left of it after the search.

    beta: of the strategy to the benchmark. alpha: a year, a fraction. information_ratio: a year.
    residual_volatility: a year, a fraction. p: one-sided, of no alpha, as the best of n_trials. deflated_sharpe: of the
    returns in excess of the benchmark.
    """

    beta: Number = None
    alpha: Estimate = field(default_factory=Estimate)
    information_ratio: Number = None
    p: Number = None
    n_trials: Count | None = None
    deflated_sharpe: Number = None
    residual_volatility: Number = None


@dataclass
class PeriodResult:
    """The validation, test or backtest period. interval: low and high end of the annual Sharpe ratio.

    money: what was earned and what holding earned, one sentence: see evidence/money.py. alarms: one sentence for each
    number that is too good to be true: see evidence/alarms.py. Both are empty where an older version wrote the result.
    """

    days: Count = 0
    first: Text = ""
    last: Text = ""
    profit: Metrics = field(default_factory=dict)
    baselines: dict[Word, Baseline] = field(default_factory=dict)
    null: Null | None = None
    interval: Ends = field(default_factory=list)
    difference: Estimate | None = None  # the Sharpe ratio less buy and hold's
    scores: dict[Word, Score] = field(default_factory=dict)
    calibration: list[Calibration] = field(default_factory=list)
    benchmark: Against | None = None
    alarms: list[Text] = field(default_factory=list)
    money: Text = ""
    verdict: Text | None = None
    at_costs: list[AtCosts] = field(default_factory=list)  # empty where an older version wrote the result

    @property
    def held(self) -> Metrics:
        """The metrics of buy and hold; empty where they are unknown."""
        return self.baselines["buy_and_hold"].metrics if "buy_and_hold" in self.baselines else {}


@dataclass(frozen=True)
class Losses:
    """The forecast loss in a period, beside the losses of two forecasts that know nothing of the day."""

    model: Number = None
    nothing_changes: Number = None
    unconditional: Number = None
    stocks: Count | None = None  # on how many, evenly chosen, where there are too many to take all


@dataclass(frozen=True)
class Correlation:
    """The rank correlation of loss and profit over a run's probes, and its interval."""

    rank_correlation: Number = None
    interval: Ends = field(default_factory=list)
    probes: Count = 0


@dataclass(frozen=True)
class LeakProof:
    """Whether the leak proof passed, and after how many random days it replaced the future."""

    ok: bool | None = None
    days: Count | None = None


@dataclass(frozen=True)
class BaseFacts:
    """The base run that a fine-tune started from. weights: sha256 of its model."""

    folder: Text
    signature: Text
    weights: Text


@dataclass
class CandidateResult:
    """One row of the table of candidates of a fine-tune. moved: how many weights could move.

    money: as of a PeriodResult.
    """

    steps: Count = 0
    best_step: Count | None = None
    moved: Count = 0
    loss: Number = None
    loss_difference: Estimate | None = None  # the loss less the base's
    forgetting: Estimate | None = None  # how much the loss rose on the base's other stocks
    profit: Metrics = field(default_factory=dict)
    interval: Ends = field(default_factory=list)
    p: Number = None
    deflated_sharpe: Number = None
    difference: Estimate | None = None  # the Sharpe ratio less the base's
    money: Text = ""
    verdict: Text | None = None


@dataclass
class Recommendation:
    """What a fine-tune recommends, and why."""

    choice: Text
    sentence: Text
    n_trials: Count = 0
    other_symbols: Count = 0
    candidates: dict[Word, CandidateResult] = field(default_factory=dict)


@dataclass
class FoldResult:
    """One fold of a walk-forward: its days, those that it was trained on before them, and what its forecasts came to.

    The inner days, the last before the fold, chose the step. inner_loss: eval/loss there. loss to total_return are
    of the fold's own days, which no part of its training has seen; the last two of the one account that trades all.
    """

    period: Word = ""  # valid or test: whose days these are
    days: Count = 0
    first: Text = ""
    last: Text = ""
    train_first: Text = ""
    train_last: Text = ""
    inner_first: Text = ""
    inner_last: Text = ""
    steps: Count = 0
    best_step: Count | None = None
    skipped_steps: Count = 0
    inner_loss: Number = None
    loss: Number = None  # of the forecasts
    rank_ic: Score | None = None
    sharpe_ratio: Number = None
    total_return: Number = None
    forecast_sha256: Word = ""  # of the file of its forecasts


@dataclass
class RunResult:
    """Everything that result.json holds. periods: valid, and test unless it stayed sealed; or backtest alone.

    in_sample: of a backtest on days that its model was trained on, one sentence that says so.
    """

    signature: Text | None = None
    relative: Word | None = None  # what the forecasts are relative to: see core/relative.py
    steps: Count | None = None
    best_step: Count | None = None
    skipped_steps: Count = 0
    parameters: Count | None = None  # how many numbers the model has learned; None where an older version wrote it
    eval_loss: Number = None
    loss: dict[Word, Losses] = field(default_factory=dict)  # by train, valid, test
    periods: dict[Word, PeriodResult] = field(default_factory=dict)
    n_trials: Count | None = None
    deflated_sharpe: Number = None
    test_openings: Count | None = None
    verdict: Text | None = None
    profit_loss_correlation: Correlation = field(default_factory=Correlation)
    leak_proof: LeakProof = field(default_factory=LeakProof)
    in_sample: Text | None = None
    warnings: list[Text] = field(default_factory=list)
    recommendation: Recommendation | None = None  # of a fine-tune; "decision" in the file
    base: BaseFacts | None = None
    folds: list[FoldResult] | None = None  # of a walk-forward
    ensemble: EnsembleResult | None = None  # of a model with several members

    def as_json(self) -> dict[str, Any]:
        """The object of result.json, with the periods and each baseline's metrics one level up, and eval.loss."""
        values: dict[str, Any] = asdict(self)
        periods = values.pop("periods")
        for period in periods.values():
            for name, baseline in period["baselines"].items():
                known = {key: baseline[key] for key in BESIDE if baseline[key]}
                period["baselines"][name] = baseline["metrics"] | known
        values |= {"eval": {"loss": values.pop("eval_loss")}, "decision": values.pop("recommendation"), **periods}
        return without_nan(plain({name: value for name, value in values.items() if value is not None}))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "RunResult":
        """Read as_json's object; fields that an older version lacks keep their defaults.

        Raises pydantic.ValidationError.
        """
        known = {name: value for name, value in values.items() if name in cls.__dataclass_fields__}
        periods = {name: dict(values[name]) for name in PERIODS if isinstance(values.get(name), dict)}
        for period in periods.values():
            period["baselines"] = {
                name: {
                    "metrics": {key: value for key, value in metrics.items() if key not in BESIDE},
                    **{key: metrics.get(key) for key in BESIDE},
                }
                for name, metrics in (period.get("baselines") or {}).items()
            }
        known |= {"periods": periods, "recommendation": values.get("decision")}
        known["eval_loss"] = (values.get("eval") or {}).get("loss")
        return _ADAPTER.validate_python(known)

    def number(self, path: str) -> Number:
        """A number by its dotted path in result.json, such as valid.profit.sharpe_ratio; None without one."""
        value = flatten(self.as_json()).get(path)
        return float(value) if isinstance(value, (int, float)) else None

    @property
    def valid(self) -> PeriodResult:
        """The validation period."""
        return self.periods["valid"]

    @property
    def test(self) -> PeriodResult | None:
        """The test period; None while it is sealed."""
        return self.periods.get("test")


@dataclass(frozen=True)
class FinishedRun:
    """A run folder and its result."""

    folder: Path
    result: RunResult


_ADAPTER = TypeAdapter(RunResult)


def write_result(folder: Path, result: RunResult) -> None:
    """Write result.json into a run folder."""
    write_json_atomically(folder / RESULT_FILE, result.as_json())


def read_result(folder: Path) -> RunResult | None:
    """Read result.json from a run folder; None without one. Raises UserError for a damaged one."""
    path = folder / RESULT_FILE
    if not is_there(path):
        return None
    values = read_json_object(path, RESULT_MOST)
    try:
        return RunResult.from_json(values)
    except ValidationError as error:
        raise UserError(damaged(path, error)) from None
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{path} is damaged ({shown(error, 120)})") from None
