"""The verdict on a judged period: its book beside the benchmark, as the best of all that ever looked at these days."""

from dataclasses import replace

import numpy as np

from hftraining.evidence.bootstrap import Interval
from hftraining.evidence.config import EvidenceConfig
from hftraining.evidence.selection import Excess, Track, judge_excess
from hftraining.evidence.verdict import verdict
from hftraining.experiment.judging import Judgement, estimate_of
from hftraining.runs.result import Against
from hftraining.runs.trials import Days, Trials
from hftraining.trading.metrics import daily_returns


def decide(judged: Judgement, trials: Trials, evidence: EvidenceConfig, seed: int) -> Against:
    """Fill in `benchmark` and `verdict` of a judged period; returns the former.

    trials: all that looked at these days and stocks, this run's own among them.
    """
    result, excess = judged.result, excess_of(judged, trials, evidence, seed)
    result.benchmark = against_of(excess)
    result.verdict = verdict_on(judged, excess, judged.difference)
    return result.benchmark


def verdict_on(judged: Judgement, excess: Excess, difference: Interval, rival: str = "buy and hold") -> str:
    """The verdict by the rules of evidence/verdict.py."""
    null, earned = judged.result.null, judged.report.metrics["total_return"]
    assert null is not None and null.p is not None
    return verdict(null.p, excess, difference, judged.interval, earned, reason=null.reason, rival=rival)


def excess_of(
    judged: Judgement, trials: Trials, evidence: EvidenceConfig, seed: int, benchmark_T: np.ndarray | None = None
) -> Excess:
    """What a book earned beyond the benchmark, as the best of all trials. benchmark_T: in place of buy and hold."""
    days = days_of(judged)
    own, others = track_of(days), [track_of(outcome.days) for outcome in trials.known]
    itself = next((k for k, other in enumerate(others) if np.array_equal(other.returns_T, own.returns_T)), None)
    if itself is not None:
        del others[itself]
    if benchmark_T is not None:
        own, *others = [replace(own, benchmark_T=benchmark_T), *(replace(other, benchmark_T=None) for other in others)]
    return judge_excess(own, others, max(1 + len(others), trials.count), evidence.bootstrap_draws, seed)


def days_of(judged: Judgement) -> Days:
    """The daily returns of a judged account and of buy and hold."""
    dates = [str(day.date()) for day in judged.equity["date"][1:]]
    benchmark_T = daily_returns(judged.equity["buy_and_hold"].to_numpy())
    return Days(dates, judged.returns_T.tolist(), benchmark_T.tolist())


def track_of(days: Days) -> Track:
    """The same as arrays."""
    benchmark_T = None if days.benchmark is None else np.asarray(days.benchmark, np.float64)
    return Track(np.asarray(days.dates, "datetime64[D]"), np.asarray(days.returns, np.float64), benchmark_T)


def against_of(excess: Excess) -> Against:
    """As result.json holds it."""
    return Against(
        excess.beta,
        estimate_of(excess.alpha),
        excess.information_ratio,
        excess.p,
        excess.n_trials,
        excess.deflated_sharpe,
        excess.residual_volatility,
    )
