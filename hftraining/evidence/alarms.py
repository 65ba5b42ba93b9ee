"""Alarms: what is too good to be true is a leak until proven otherwise."""

import math
from collections.abc import Callable, Mapping
from typing import TypeGuard

from hftraining.runs.result import Estimate, Number, Score

# Source: TRADING.md 6.7.
MOST_IC = 0.06  # also of the rank information coefficient
MOST_ACCURACY = 0.56  # the share of right directions
MOST_SHARPE = 3.0  # a year, after all costs
SUSPICION = "a leak until proven otherwise: python -m hftraining leaks RUN --days 50"


def alarms(scores: Mapping[str, Score], sharpe: Estimate) -> list[str]:
    """One sentence for each number that is too good to be true: figure, 95 % interval, threshold, and what to do.

    scores: by the names of evidence/scores.py; those without a threshold are not read. sharpe: annual, after all costs.
    An unknown value raises no alarm. Where the interval reaches below the threshold, or is unknown, the sentence
    adds that so few days may do it by luck. Empty where nothing is suspicious.
    """
    ic, rank_ic, accuracy = (scores.get(name, Score()) for name in ("ic", "rank_ic", "accuracy"))
    said = (
        _alarm("the information coefficient", ic, MOST_IC, "{:.3f}".format),
        _alarm("the rank information coefficient", rank_ic, MOST_IC, "{:.3f}".format),
        _alarm("the share of right directions", accuracy, MOST_ACCURACY, _percent),
        _alarm("the Sharpe ratio after all costs", sharpe, MOST_SHARPE, "{:.2f}".format),
    )
    return [sentence for sentence in said if sentence]


def _alarm(words: str, found: Score | Estimate, most: float, write: Callable[[float], str]) -> str:
    if not _is_known(found.value) or found.value <= most:
        return ""
    within, by_luck = "interval unknown", True
    if _is_known(found.low) and _is_known(found.high):
        within, by_luck = f"95 % interval {write(found.low)} to {write(found.high)}", found.low <= most
    luck = "; so few days may do it by luck" if by_luck else ""
    return f"{words} is {write(found.value)} ({within}), above {write(most)}: {SUSPICION}{luck}"


def _is_known(value: Number) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _percent(share: float) -> str:
    return f"{100.0 * share:.1f} %"
