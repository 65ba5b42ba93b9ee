"""The table of candidates of a fine-tune, the base as it is among them, and the recommendation.

Legend: T sessions, S symbols, H horizons, Q quantiles.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from hftraining.core.forecast import Forecast
from hftraining.evidence.bootstrap import sharpe_difference
from hftraining.evidence.config import EvidenceConfig
from hftraining.evidence.scores import paired_difference
from hftraining.experiment.fit import Fitted
from hftraining.experiment.judging import Judgement, estimate_of
from hftraining.experiment.periods import Period
from hftraining.experiment.selecting import days_of, excess_of, verdict_on
from hftraining.reports.recommendations import CANDIDATES
from hftraining.runs.result import CandidateResult, Recommendation
from hftraining.runs.trials import Outcome, Trials
from hftraining.training.trainer import Progress

BASE, RIDGE, NOTHING = "base", "ridge", "nothing_changes"
RIVAL = "the base model"  # that a candidate has to beat


@dataclass(frozen=True)
class Candidate:
    """One row of the table before it is compared.

    judged: None where nothing is traded. fitted: None for a row that cannot be recommended, only compared.
    """

    name: str
    forecast: Forecast  # of the validation days
    judged: Judgement | None = None
    fitted: Fitted | None = None


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

    valid: the validation days of the fine-tuned stocks. others: those of the base's other stocks, if it has any;
    forgetting is the change of the forecast loss on them. trials: all on these stocks and days, from the ledger: every
    candidate is judged as the best of them. has_forecast_loss: false for an objective without one, whose losses are
    unknown.

    A model replaces the base if the verdict says that it beats luck and the base; of several such models, the one whose
    Sharpe ratio leads the base's by most. Otherwise the base is kept.
    """
    rows = {candidate.name: candidate for candidate in candidates}
    base = rows[BASE]
    assert base.judged is not None and base.fitted is not None
    # The base is one of those that are chosen among, though on these stocks no trial of its own.
    as_it_is = Outcome(0, BASE, days_of(base.judged))
    among = replace(trials, known=(*trials.known, as_it_is), count=max(trials.count, 2))
    table: dict[str, CandidateResult] = {}
    better: dict[str, float] = {}  # the lead of the Sharpe ratio over the base's
    for name, row in rows.items():
        steps = row.fitted.progress if row.fitted else Progress()
        moved = row.fitted.moved if row.fitted else 0
        table[name] = said = CandidateResult(steps=steps.step, best_step=steps.best_step, moved=moved)
        if has_forecast_loss:
            _compare_losses(row, said, base, valid, others)
        if row.judged is not None:
            rival = None if row is base else base.judged
            _compare_profits(row.judged, rival, said, among, evidence, seed)
        lead = said.difference.value if said.difference else None
        if lead is not None and str(said.verdict).startswith(f"beats {RIVAL}"):
            better[name] = lead
    models = {name: lead for name, lead in better.items() if rows[name].fitted is not None}
    choice = max(models, key=models.__getitem__) if models else BASE
    n_others = len(others.bars.symbols_S) if others else 0
    return Recommendation(choice, _sentence(choice, table, better), trials.count, n_others, table)


def _compare_losses(
    row: Candidate, said: CandidateResult, base: Candidate, valid: Period, others: Period | None
) -> None:
    """Fill in the forecast loss, its difference to the base's, and the same on the base's other stocks."""
    overlap = max(base.forecast.horizons)
    said.loss = valid.forecast_loss(row.forecast)
    if row is base:
        return
    ours_T, theirs_T = valid.daily_loss(row.forecast), valid.daily_loss(base.forecast)
    said.loss_difference = estimate_of(paired_difference(ours_T, theirs_T, overlap))
    if others is not None and row.fitted is not None and base.fitted is not None:
        ours_T, theirs_T = (others.daily_loss(others.forecast(f.forecaster)) for f in (row.fitted, base.fitted))
        said.forgetting = estimate_of(paired_difference(ours_T, theirs_T, overlap))


def _compare_profits(
    judged: Judgement,
    rival: Judgement | None,
    said: CandidateResult,
    trials: Trials,
    evidence: EvidenceConfig,
    seed: int,
) -> None:
    """Fill in profit, deflated Sharpe ratio and verdict. rival: the base; it is itself compared with buy and hold."""
    null, excess = judged.result.null, excess_of(judged, trials, evidence, seed)
    assert null is not None
    said.profit, said.interval, said.p = judged.result.profit, judged.result.interval, null.p
    said.money = judged.result.money
    said.deflated_sharpe, apart, name = excess.deflated_sharpe, judged.difference, "buy and hold"
    if rival:
        apart, name = sharpe_difference(judged.returns_T, rival.returns_T, evidence.bootstrap_draws, seed), RIVAL
        said.difference = estimate_of(apart)
        excess = replace(excess, lead_p=excess_of(judged, trials, evidence, seed, rival.returns_T).lead_p)
    said.verdict = verdict_on(judged, excess, apart, name)


def nothing_changes(like: Forecast) -> Forecast:
    """A forecast of zero returns, wherever the other forecast has a value."""
    zeros_TSHQ = np.where(np.isfinite(like.quantiles_TSHQ), 0.0, math.nan)
    return replace(like, quantiles_TSHQ=zeros_TSHQ, head_TS=np.full(like.head_TS.shape, math.nan))


def _sentence(choice: str, table: Mapping[str, CandidateResult], better: Mapping[str, float]) -> str:
    tried = [name for name, row in table.items() if row.steps]
    if choice == BASE:
        none = f"none of {_listed(tried)} beats" if tried[1:] else f"{tried[0]} does not beat"
        ends = {name: row.loss_difference.high for name, row in table.items() if row.steps and row.loss_difference}
        lower = [name for name, high in ends.items() if high is not None and high < 0.0]
        text = f"keep the base model: {none} both luck and it"
        text += f"; {_listed(lower)} lowered the forecast loss" if lower else ""
    else:
        text = f"use {choice} ({CANDIDATES[choice]}): it {table[choice].verdict}"
    if RIDGE in better:
        text += "; ridge regression beats the base model: none of the models may be worth its cost"
    return text


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
