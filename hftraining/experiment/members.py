"""The members of an ensemble beside it: what each earns and errs by itself, and what the ensemble is without it.

Legend: T sessions, S symbols, M members, N forecasts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hftraining.core.forecast import Forecast, weighted_mean
from hftraining.evidence.bootstrap import sharpe_difference, sharpe_interval
from hftraining.evidence.config import EvidenceConfig
from hftraining.evidence.selection import judge_excess
from hftraining.experiment.judging import Judgement, estimate_of, scored
from hftraining.experiment.periods import Period
from hftraining.experiment.selecting import days_of, track_of
from hftraining.model.ensemble import Predictor
from hftraining.profit_tracker import ProfitTracker
from hftraining.runs.member_results import Correlations, EnsembleResult, MemberPeriod, MemberResult
from hftraining.runs.quantities import Estimate, Number
from hftraining.trading.metrics import daily_returns

EQUAL = "equal"  # weights of the members


@dataclass(frozen=True)
class Member:
    """One of those that an ensemble was made of: a forecaster, or an ensemble itself. folder: of its run."""

    name: str
    predictor: Predictor
    weight: float
    folder: str = ""


def facts_of(members: Sequence[Member], weighting: str, in_sample: bool = False) -> EnsembleResult:
    """The members by name, without a period yet."""
    rows = [MemberResult(one.name, one.weight, one.predictor.kind, one.folder, one.predictor.size) for one in members]
    return EnsembleResult(weighting, in_sample, rows)


def add_period(
    facts: EnsembleResult,
    name: str,
    period: Period,
    forecasts: Sequence[Forecast],
    judged: Judgement,
    tracker: ProfitTracker,
    evidence: EvidenceConfig,
    seed: int,
) -> None:
    """Fill in what each member comes to in a period, and how alike they are.

    forecasts: of the members, in their order. judged: the ensemble's account, which the same tracker has traded. The
    marginal Sharpe ratio of a member draws the same days for both accounts; the other members keep their weights among
    themselves.
    """
    scoring = _Scoring(period, tracker, judged, evidence, seed)
    weights = [float(member.weight or 0.0) for member in facts.members]
    for place, (member, forecast) in enumerate(zip(facts.members, forecasts, strict=True)):
        member.periods[name] = scoring.alone(forecast)
        member.periods[name].marginal = scoring.marginal(place, forecasts, weights)
    facts.correlations[name] = correlations_of(period, forecasts, tracker.portfolio.horizon)


@dataclass(frozen=True)
class _Scoring:
    """What forecasts of a period are measured by."""

    period: Period
    tracker: ProfitTracker
    judged: Judgement
    evidence: EvidenceConfig
    seed: int

    def alone(self, forecast: Forecast) -> MemberPeriod:
        """A member by itself."""
        draws, period = self.evidence.bootstrap_draws, self.period
        report = self.tracker.evaluate(period.bars, forecast)
        returns_T = daily_returns(report.simulation.equity_T)
        interval = sharpe_interval(returns_T, draws, self.seed)
        track = replace(track_of(days_of(self.judged)), returns_T=returns_T)
        return MemberPeriod(
            profit=dict(report.metrics),
            interval=[interval.low, interval.high],
            loss=period.forecast_loss(forecast),
            ic=scored(period, forecast, self.tracker.portfolio.horizon)[0].get("ic"),
            alpha=estimate_of(judge_excess(track, [], 1, draws, self.seed).alpha),
        )

    def marginal(self, place: int, forecasts: Sequence[Forecast], weights: Sequence[float]) -> Estimate | None:
        """The ensemble's Sharpe ratio less that of the ensemble without one member; None without another."""
        kept = [other for other in range(len(weights)) if other != place and weights[other] > 0.0]
        total = math.fsum(weights[other] for other in kept)
        if not kept:
            return None
        without = weighted_mean([forecasts[other] for other in kept], [weights[other] / total for other in kept])
        returns_T = daily_returns(self.tracker.evaluate(self.period.bars, without).simulation.equity_T)
        draws = self.evidence.bootstrap_draws
        return estimate_of(sharpe_difference(self.judged.returns_T, returns_T, draws, self.seed))


def correlations_of(period: Period, forecasts: Sequence[Forecast], horizon: int) -> Correlations:
    """How alike the errors of the medians are, and the medians, at a horizon (0: the longest). NaN without a spread."""
    first = forecasts[0]
    h, middle = first.horizons.index(horizon or max(first.horizons)), first.levels.index(0.5)
    outcome_TS = (period.scored_labels_TSH * period.span_TSH)[:, :, h]
    median_MTS = np.stack([forecast.quantiles_TSHQ[:, :, h, middle] for forecast in forecasts])
    known_TS = np.isfinite(median_MTS).all(axis=0) & np.isfinite(outcome_TS)
    median_MN = median_MTS[:, known_TS]
    return Correlations(_correlated(median_MN - outcome_TS[known_TS]), _correlated(median_MN))


def _correlated(values_MN: np.ndarray) -> list[list[Number]]:
    """Pearson's correlation of each pair of rows."""
    if values_MN.shape[1] < 2:
        return [[math.nan] * len(values_MN) for _ in values_MN]
    with np.errstate(invalid="ignore", divide="ignore"):
        found: list[list[Number]] = np.atleast_2d(np.corrcoef(values_MN)).tolist()
    return found
