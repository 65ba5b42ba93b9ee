"""The decision table of a fine-tune: the base as it is beside everything that was tried, and which of them to keep.

Legend: T sessions, S symbols, H horizons, Q quantiles.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from statistics import variance
from typing import Any

import numpy as np

from hftraining.core.forecast import Forecast
from hftraining.evidence.bootstrap import sharpe_difference
from hftraining.evidence.config import EvidenceConfig
from hftraining.evidence.deflation import deflated_sharpe
from hftraining.evidence.scores import Score, paired_difference
from hftraining.evidence.verdict import verdict
from hftraining.experiment.judging import Judgement
from hftraining.experiment.periods import Period
from hftraining.model.forecaster import Forecaster
from hftraining.runs.ledger import Trials, daily_sharpe

BASE, RIDGE, NOTHING = "base", "ridge", "nothing_changes"
WORDS = {
    BASE: "the base model as it is",
    "full": "fine-tuning all weights",
    "head": "fine-tuning the head",
    "lora": "fine-tuning a low-rank change",
    "scratch": "training from scratch",
    RIDGE: "ridge regression",
    NOTHING: '"nothing changes"',
}
RIVAL = "the base model"  # whom a candidate has to beat


@dataclass
class Candidate:
    """One row of the table before it is compared.

    forecaster is None for what can only be looked at beside the models. judged is None where nothing is traded.
    """

    name: str
    forecast: Forecast  # of the validation days
    judged: Judgement | None = None
    forecaster: Forecaster | None = None
    steps: int = 0
    best_step: int | None = None
    skipped_steps: int = 0
    moved: int = 0  # how many weights could move


def decide(
    candidates: Iterable[Candidate],
    valid: Period,
    others: Period | None,
    trials: Trials,
    evidence: EvidenceConfig,
    seed: int,
    has_forecast_loss: bool,
) -> dict[str, Any]:
    """The table, the choice and the sentence that says why, as result.json holds them under "decision".

    valid: the validation days of the stocks that are fine-tuned. others: those of the base's other stocks, on which
    forgetting is the change of the forecast loss; None where there are none. trials: all on these data and days, from
    the ledger, which deflate every Sharpe ratio. has_forecast_loss: false for an objective without one; then losses are
    unknown.

    A candidate that is a model takes the place of the base when it beats chance and the base by the verdict's rules,
    and of several the one whose Sharpe ratio leads the base's the most. Where none does, the base is kept.
    """
    rows = {candidate.name: candidate for candidate in candidates}
    base = rows[BASE]
    assert base.judged is not None and base.forecaster is not None
    overlap = max(base.forecast.horizons)
    sharpes = {*trials.sharpes_1d, daily_sharpe(base.judged.returns_T.tolist())}
    known = [sharpe for sharpe in sharpes if math.isfinite(sharpe)]
    spread = variance(known) if len(known) > 1 else math.nan
    base_loss_T = valid.daily_loss(base.forecast.quantiles_TSHQ, base.forecast.levels)
    base_elsewhere_T = _daily_loss(others, base.forecaster) if others else None

    table: dict[str, dict[str, Any]] = {}
    better: dict[str, float] = {}
    for name, row in rows.items():
        said: dict[str, Any] = {"steps": row.steps, "best_step": row.best_step, "moved": row.moved}
        if has_forecast_loss:
            loss_T = valid.daily_loss(row.forecast.quantiles_TSHQ, row.forecast.levels)
            said["loss"] = valid.forecast_loss(row.forecast)
            said["loss_difference"] = None if row is base else _ends(paired_difference(loss_T, base_loss_T, overlap))
            if others is not None and base_elsewhere_T is not None and row.forecaster is not None and row is not base:
                elsewhere_T = _daily_loss(others, row.forecaster)
                said["forgetting"] = _ends(paired_difference(elsewhere_T, base_elsewhere_T, overlap))
        if row.judged is not None:
            result, returns_T = row.judged.result, row.judged.returns_T
            apart = sharpe_difference(returns_T, base.judged.returns_T, evidence.bootstrap_draws, seed)
            deflated = deflated_sharpe(returns_T, trials.count, spread)
            null = result["null"]
            said |= {
                "profit": result["profit"],
                "interval": result["interval"],
                "p": null["p"],
                "deflated_sharpe": deflated,
                "difference": None if row is base else asdict(apart),
                "verdict": verdict(
                    null["p"],
                    row.judged.difference if row is base else apart,
                    deflated_sharpe=deflated,
                    n_trials=trials.count,
                    reason=null["reason"],
                    rival="buy and hold" if row is base else RIVAL,
                ),
            }
            if row is not base and said["verdict"].startswith(f"beats {RIVAL}"):
                better[name] = apart.value
        table[name] = said
    models = {name: lead for name, lead in better.items() if rows[name].forecaster is not None}
    choice = max(models, key=models.__getitem__) if models else BASE
    return {
        "choice": choice,
        "sentence": _sentence(choice, table, better),
        "n_trials": trials.count,
        "other_symbols": len(others.bars.symbols_S) if others else 0,
        "candidates": table,
    }


def nothing_changes(like: Forecast) -> Forecast:
    """The forecast that every return is 0, where another forecast has one."""
    zeros_TSHQ = np.where(np.isfinite(like.quantiles_TSHQ), 0.0, math.nan)
    return Forecast(zeros_TSHQ, np.full(like.head_TS.shape, math.nan), like.horizons, like.levels)


def _daily_loss(period: Period, forecaster: Forecaster) -> np.ndarray:
    forecast = period.forecast(forecaster)
    return period.daily_loss(forecast.quantiles_TSHQ, forecast.levels)


def _ends(score: Score) -> dict[str, float]:
    return {"value": score.value, "low": score.low, "high": score.high}


def _sentence(choice: str, table: Mapping[str, Mapping[str, Any]], better: Mapping[str, float]) -> str:
    tried = [name for name, row in table.items() if row["steps"]]
    if choice == BASE:
        text = f"keep the base model: {tried[0]} does not beat both luck and it"
        if tried[1:]:
            text = f"keep the base model: none of {_listed(tried)} beats both luck and it"
        lower = [name for name in tried if _is_below_zero(table[name].get("loss_difference"))]
        text += f"; {_listed(lower)} lowered the forecast loss" if lower else ""
    else:
        text = f"use {choice} ({WORDS[choice]}): it {table[choice]['verdict']}"
    if RIDGE in better:
        text += "; ridge regression beats the base model: none of the models may be worth its cost"
    return text


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _is_below_zero(difference: Mapping[str, float] | None) -> bool:
    return difference is not None and difference["high"] < 0.0
