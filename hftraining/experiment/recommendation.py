"""The table of candidates of a fine-tune: the base as it is beside all that was tried, and which of them to keep.

Legend: T sessions, S symbols, H horizons, Q quantiles.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import variance

import numpy as np

from hftraining.core.forecast import Forecast
from hftraining.evidence.bootstrap import sharpe_difference
from hftraining.evidence.config import EvidenceConfig
from hftraining.evidence.deflation import deflated_sharpe
from hftraining.evidence.scores import Score, paired_difference
from hftraining.evidence.verdict import verdict
from hftraining.experiment.fit import Fitted
from hftraining.experiment.judging import Judgement, estimate_of
from hftraining.experiment.periods import Period
from hftraining.reports.recommendations import CANDIDATES
from hftraining.runs.ledger import Trials, daily_sharpe
from hftraining.runs.result import CandidateResult, Estimate, Recommendation
from hftraining.training.trainer import Progress

BASE, RIDGE, NOTHING = "base", "ridge", "nothing_changes"
RIVAL = "the base model"  # whom a candidate has to beat


@dataclass(frozen=True)
class Candidate:
    """One row of the table before it is compared.

    judged is None where nothing is traded. fitted is None for what is no model of ours to keep: it can only be looked
    at beside the models.
    """

    name: str
    forecast: Forecast  # of the validation days
    judged: Judgement | None = None
    fitted: Fitted | None = None


@dataclass(frozen=True)
class _Yardstick:
    """What every row is held against: the base, the trials so far and their spread, and the other stocks."""

    base: Candidate
    valid: Period
    others: Period | None
    n_trials: int
    spread: float  # variance of the trials' daily Sharpe ratios
    evidence: EvidenceConfig
    seed: int


def recommend(
    candidates: Iterable[Candidate],
    valid: Period,
    others: Period | None,
    trials: Trials,
    evidence: EvidenceConfig,
    seed: int,
    has_forecast_loss: bool,
) -> Recommendation:
    """The table, the choice and the sentence that says why.

    valid: the validation days of the stocks that are fine-tuned. others: those of the base's other stocks, on which
    forgetting is the change of the forecast loss; None where there are none. trials: all on these data and days, from
    the ledger, which deflate every Sharpe ratio. has_forecast_loss: false for an objective without one; then losses are
    unknown.

    A candidate that is a model takes the place of the base when it beats chance and the base by the verdict's rules,
    and of several the one whose Sharpe ratio leads the base's the most. Where none does, the base is kept.
    """
    rows = {candidate.name: candidate for candidate in candidates}
    base = rows[BASE]
    assert base.judged is not None and base.fitted is not None
    sharpes = {*trials.sharpes_1d, daily_sharpe(base.judged.returns_T.tolist())}
    known = [sharpe for sharpe in sharpes if math.isfinite(sharpe)]
    spread = variance(known) if len(known) > 1 else math.nan
    yardstick = _Yardstick(base, valid, others, trials.count, spread, evidence, seed)
    table: dict[str, CandidateResult] = {}
    better: dict[str, float] = {}
    for name, row in rows.items():
        steps = row.fitted.progress if row.fitted else Progress()
        moved = row.fitted.moved if row.fitted else 0
        table[name] = said = CandidateResult(steps=steps.step, best_step=steps.best_step, moved=moved)
        if has_forecast_loss:
            _compare_losses(row, said, yardstick)
        if row.judged is not None:
            lead = _compare_profits(row.judged, row is base, said, yardstick)
            if row is not base and str(said.verdict).startswith(f"beats {RIVAL}"):
                better[name] = lead
    models = {name: lead for name, lead in better.items() if rows[name].fitted is not None}
    choice = max(models, key=models.__getitem__) if models else BASE
    n_others = len(others.bars.symbols_S) if others else 0
    return Recommendation(choice, _sentence(choice, table, better), trials.count, n_others, table)


def _compare_losses(row: Candidate, said: CandidateResult, yardstick: _Yardstick) -> None:
    """The forecast loss, its difference to the base's, and the same on the base's other stocks."""
    base, valid, others = yardstick.base, yardstick.valid, yardstick.others
    overlap = max(base.forecast.horizons)
    said.loss = valid.forecast_loss(row.forecast)
    if row is base:
        return
    said.loss_difference = _ends(
        paired_difference(valid.daily_loss(row.forecast), valid.daily_loss(base.forecast), overlap)
    )
    if others is not None and row.fitted is not None and base.fitted is not None:
        ours_T, theirs_T = (others.daily_loss(others.forecast(f.forecaster)) for f in (row.fitted, base.fitted))
        said.forgetting = _ends(paired_difference(ours_T, theirs_T, overlap))


def _compare_profits(judged: Judgement, is_base: bool, said: CandidateResult, yardstick: _Yardstick) -> float:
    """Profit, deflated Sharpe ratio and verdict; returns the lead of the Sharpe ratio over the base's."""
    base, n_trials, evidence = yardstick.base, yardstick.n_trials, yardstick.evidence
    assert base.judged is not None and judged.result.null is not None and judged.result.null.p is not None
    apart = sharpe_difference(judged.returns_T, base.judged.returns_T, evidence.bootstrap_draws, yardstick.seed)
    null, deflated = judged.result.null, deflated_sharpe(judged.returns_T, n_trials, yardstick.spread)
    said.profit, said.interval, said.p = judged.result.profit, judged.result.interval, null.p
    said.deflated_sharpe = deflated
    said.difference = None if is_base else estimate_of(apart)
    said.verdict = verdict(
        judged.result.null.p,
        judged.difference if is_base else apart,
        deflated_sharpe=deflated,
        n_trials=n_trials,
        reason=null.reason,
        rival="buy and hold" if is_base else RIVAL,
    )
    return apart.value


def nothing_changes(like: Forecast) -> Forecast:
    """The forecast that every return is 0, where another forecast has one."""
    zeros_TSHQ = np.where(np.isfinite(like.quantiles_TSHQ), 0.0, math.nan)
    return Forecast(zeros_TSHQ, np.full(like.head_TS.shape, math.nan), like.horizons, like.levels)


def _ends(score: Score) -> Estimate:
    return Estimate(score.value, score.low, score.high)


def _sentence(choice: str, table: Mapping[str, CandidateResult], better: Mapping[str, float]) -> str:
    tried = [name for name, row in table.items() if row.steps]
    if choice == BASE:
        text = f"keep the base model: {tried[0]} does not beat both luck and it"
        if tried[1:]:
            text = f"keep the base model: none of {_listed(tried)} beats both luck and it"
        lower = [name for name in tried if _is_below_zero(table[name].loss_difference)]
        text += f"; {_listed(lower)} lowered the forecast loss" if lower else ""
    else:
        text = f"use {choice} ({CANDIDATES[choice]}): it {table[choice].verdict}"
    if RIDGE in better:
        text += "; ridge regression beats the base model: none of the models may be worth its cost"
    return text


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _is_below_zero(difference: Estimate | None) -> bool:
    return difference is not None and difference.high is not None and difference.high < 0.0
