"""Alarms: what is too good to be true is a leak until proven otherwise."""

import math
from collections.abc import Callable, Mapping
from typing import TypeGuard

from hftraining.runs.quantities import Estimate, Number, Score

# Source: TRADING.md 6.7.
MOST_IC = 0.06  # also of the rank information coefficient
MOST_ACCURACY = 0.56  # the share of right directions
MOST_SHARPE = 3.0  # a year, after all costs
SUSPICION = "a leak until proven otherwise"
OF_A_RUN = f"{SUSPICION}: python -m hftraining leaks RUN --days 50"


def alarms(scores: Mapping[str, Score], sharpe: Estimate, suspicion: str = OF_A_RUN) -> list[str]:
    """One sentence for each number that is too good to be true: figure, 95 % interval, threshold, and what to do.

    scores: by the names of evidence/scores.py; those without a threshold are not read. sharpe: annual, after all costs.
    suspicion: what is suspected, and how to find out. An unknown value raises no alarm. The value alone decides: a leak
    on few days has a wide interval, too. The sentence says whether the interval's lower end is above the threshold;
    where it is not, or is unknown, luck stands before the suspicion. Empty where nothing is suspicious.
    """
    ic, rank_ic, accuracy = (scores.get(name, Score()) for name in ("ic", "rank_ic", "accuracy"))
    said = (
        _alarm("the information coefficient", ic, MOST_IC, "{:.3f}".format, suspicion),
        _alarm("the rank information coefficient", rank_ic, MOST_IC, "{:.3f}".format, suspicion),
        _alarm("the share of right directions", accuracy, MOST_ACCURACY, _percent, suspicion),
        _alarm("the Sharpe ratio after all costs", sharpe, MOST_SHARPE, "{:.2f}".format, suspicion),
    )
    return [sentence for sentence in said if sentence]


def _alarm(words: str, found: Score | Estimate, most: float, write: Callable[[float], str], suspicion: str) -> str:
    if not _is_known(found.value) or found.value <= most:
        return ""
    within, lower = "interval unknown", f"which may be luck, or {suspicion}"
    if _is_known(found.low) and _is_known(found.high):
        within = f"95 % interval {write(found.low)} to {write(found.high)}"
        lower = f"and so is the lower end of the interval, which luck hardly does: {suspicion}"
        if found.low <= most:
            lower = f"which the lower end of the interval is not: luck on few days, or {suspicion}"
    return f"{words} is {write(found.value)} ({within}), above {write(most)}, {lower}"


def _is_known(value: Number) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _percent(share: float) -> str:
    return f"{100.0 * share:.1f} %"
