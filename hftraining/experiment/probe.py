"""The validation probe: one pass over the validation days, scored by loss and by profit."""

import math

from scipy import stats

from hftraining.core.metrics import IC_TAG, LOSS_TAG, PROFIT, PROFIT_LOSS_TAG
from hftraining.core.progress import phase
from hftraining.experiment.periods import Period
from hftraining.model.base import Forecaster
from hftraining.model.config import HEADLESS, IC_SYMBOLS, ObjectiveConfig
from hftraining.profit_tracker import ProfitReport, ProfitTracker


class ValidationProbe:
    """Called by the trainer every `profit_tracker.every` steps.

    eval/loss is the forecast loss, so that its correlation with the Sharpe ratio is not one by construction. Without a
    forecast loss in the objective it is the profit loss, and the correlation says nothing.
    """

    def __init__(
        self,
        forecaster: Forecaster,
        tracker: ProfitTracker,
        objective: ObjectiveConfig,
        valid: Period,
        history: list[dict[str, float]],
    ):
        """history: the steps logged so far, so that the correlation of a resumed run covers all its probes."""
        self.forecaster, self.tracker, self.objective, self.valid = forecaster, tracker, objective, valid
        self.losses, self.sharpes = probes_of(history)
        self.report: ProfitReport | None = None  # of the last probe

    def __call__(self, step: int) -> dict[str, float]:
        """The tags of a probe: eval/..., profit/..., and the rank correlation of the two over the run so far."""
        with phase(f"a probe on the validation days of {len(self.valid.bars.symbols_S):,} stocks"):
            forecast = self.valid.forecast(self.forecaster)
            self.report = self.tracker.evaluate(self.valid.bars, forecast)
        values = {metric.tag: float(self.report.metrics[metric.name]) for metric in PROFIT if metric.probed}
        if self.objective.profit_weight and self.forecaster.kind not in HEADLESS:
            values[PROFIT_LOSS_TAG] = self.valid.profit_loss(forecast, self.tracker)
        loss = self.valid.forecast_loss(forecast) if self.objective.forecast_weight else values[PROFIT_LOSS_TAG]
        values[LOSS_TAG] = loss
        if self.objective.forecast_weight and len(self.valid.bars.symbols_S) >= IC_SYMBOLS:
            values[IC_TAG] = self.valid.rank_ic(forecast)
        self.losses.append(loss)
        self.sharpes.append(values["profit/sharpe_ratio"])
        values["profit/loss_correlation"], _ = loss_profit_correlation(self.losses, self.sharpes)
        return values


def probes_of(history: list[dict[str, float]]) -> tuple[list[float], list[float]]:
    """The losses and Sharpe ratios of the logged steps that were probed."""
    probes = [line for line in history if LOSS_TAG in line]
    return [line[LOSS_TAG] for line in probes], [line.get("profit/sharpe_ratio", math.nan) for line in probes]


def loss_profit_correlation(losses: list[float], sharpes: list[float]) -> tuple[float, tuple[float, float]]:
    """Spearman's rank correlation between loss and Sharpe ratio over probes, and its 95 % interval.

    Negative where a lower loss goes with a higher Sharpe ratio. Probes without a Sharpe ratio are left out; NaN with
    fewer than three, or without variance. The interval is Fisher's z with the standard error of Fieller, Hartley and
    Pearson (1957), NaN with fewer than five. Probes of one run are not independent, so it is rather too narrow.
    """
    pairs = [(a, b) for a, b in zip(losses, sharpes, strict=True) if math.isfinite(a) and math.isfinite(b)]
    nothing = (math.nan, math.nan)
    if len(pairs) < 3 or any(len(set(values)) < 2 for values in zip(*pairs, strict=True)):
        return math.nan, nothing
    correlation = float(stats.spearmanr(*zip(*pairs, strict=True)).statistic)
    if len(pairs) < 5:
        return correlation, nothing
    z, reach = math.atanh(max(-0.999999, min(0.999999, correlation))), 1.96 * math.sqrt(1.06 / (len(pairs) - 3))
    return correlation, (math.tanh(z - reach), math.tanh(z + reach))
