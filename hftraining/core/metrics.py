"""The table of metrics: name in files and in words, unit, better direction, and whether training probes it."""

from dataclasses import dataclass
from enum import StrEnum


class Unit(StrEnum):
    """What kind of number a metric is, which decides how it is written."""

    CHANGE = "change"  # a signed fraction, read in percent: +4.2%
    SHARE = "share"  # a part of something, read in percent: 42.0%
    RATIO = "ratio"  # 0.84
    TIMES = "times"  # a year: 6.3x
    COUNT = "count"  # 1,234
    LOSS = "loss"  # 0.3068
    SCORE = "score"  # 0.021: correlations and probabilities


@dataclass(frozen=True)
class Metric:
    """One metric. name: its key in result.json. higher_is_better: None where neither direction is better.

    probed: training computes it on the validation days every profit_tracker.every steps.
    """

    name: str
    words: str
    unit: Unit
    higher_is_better: bool | None = None
    probed: bool = False

    @property
    def tag(self) -> str:
        """Its name in TensorBoard, in metrics.jsonl and in a search: profit/sharpe_ratio."""
        return f"profit/{self.name}"


PROFIT = (
    Metric("total_return", "total return", Unit.CHANGE, True, probed=True),
    Metric("cagr", "return a year", Unit.CHANGE, True),
    Metric("volatility", "volatility a year", Unit.SHARE, False),
    Metric("sharpe_ratio", "Sharpe ratio", Unit.RATIO, True, probed=True),
    Metric("sortino_ratio", "Sortino ratio", Unit.RATIO, True),
    Metric("calmar_ratio", "Calmar ratio", Unit.RATIO, True),
    Metric("max_drawdown", "maximum drawdown", Unit.CHANGE, True, probed=True),
    Metric("win_rate", "win rate", Unit.SHARE, True, probed=True),
    Metric("trade_count", "closed trades", Unit.COUNT, probed=True),
    Metric("exposure", "mean exposure", Unit.SHARE),
    Metric("turnover", "turnover a year", Unit.TIMES, False),
    Metric("costs", "costs, of the initial capital", Unit.SHARE, False),
)
BY_NAME = {metric.name: metric for metric in PROFIT}
# Of the validation days: the loss of the forecasts, or without them of the position head, whose own follows; and the
# daily rank correlation of forecasts and outcomes, over the stocks of a day, the mean of days and horizons.
LOSS_TAG, PROFIT_LOSS_TAG, IC_TAG = "eval/loss", "eval/profit_loss", "eval/ic"
PROBED_TAGS = (LOSS_TAG, *(metric.tag for metric in PROFIT if metric.probed))
ALL_TAGS = (LOSS_TAG, *(metric.tag for metric in PROFIT))
_EVAL = {LOSS_TAG: False, PROFIT_LOSS_TAG: False, IC_TAG: True}  # whether a higher value is better
# What can choose the best step: everything probed that has a better direction.
BEST_TAGS = (*_EVAL, *(m.tag for m in PROFIT if m.probed and m.higher_is_better is not None))


def higher_is_better(tag: str) -> bool:
    """Whether a higher value is better. Raises KeyError for an unknown tag, or where neither direction is better."""
    if tag in _EVAL:
        return _EVAL[tag]
    found = BY_NAME[tag.removeprefix("profit/")].higher_is_better
    if found is None:
        raise KeyError(f"{tag}: neither direction is better")
    return found
