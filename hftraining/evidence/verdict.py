"""The verdict: one sentence by fixed rules, so that the author of a report does not judge the run.

Three questions, in this order. Does it lose: against the benchmark or outright, by more than the margin of error? Is it
skill: did the book do better than the same book at other times (the null band), did it earn an alpha that the best of
all trials without skill would not have (evidence/selection.py), and did it earn anything at all? Does it beat the
benchmark: is its Sharpe ratio higher by more than the margin of error, also as the best of all trials?
"""

import math

from hftraining.evidence.bootstrap import Interval
from hftraining.evidence.selection import Excess

# The customary one-sided level of alpha: of a hundred books without skill, five may pass as better than chance.
CHANCE_P = 0.05
# Of the null band, which alpha does not need to hold that level: it only tells skill in timing from a book that is good
# wherever it is moved, such as one stock held throughout. At 0.05 it cost books of slow skill half of their power, at
# 0.15 it costs a hundredth of all; experiments/2026-11-26_Evidence has the measurement.
TIMING_P = 0.15
# A lead counts when the whole 95 % interval lies above zero, so 2.5 % of equals may pass as better; one of many trials
# has to be that rare as the best of them.
LEAD_P = 0.025


def verdict(
    p: float,
    excess: Excess,
    difference: Interval,
    interval: Interval,
    total_return: float,
    *,
    reason: str = "",
    rival: str = "buy and hold",
) -> str:
    """What may be said of a book, in fixed words.

    p: of the null band; NaN gives no verdict. reason: why p says little or nothing, as the null band gives it. excess:
    over the benchmark, as the best of its n_trials. difference: Sharpe ratio minus that of the rival; interval: the
    Sharpe ratio itself; both with 95 % ends, and with NaN ends they decide nothing. total_return: a fraction; a book
    that earned nothing is never called better than anything. Raises ValueError for a p outside [0, 1].
    """
    if math.isfinite(p) and not 0.0 <= p <= 1.0:
        raise ValueError(f"p={p} must lie in [0, 1]")
    if math.isnan(p):
        return f"no verdict: {reason or 'nothing was traded, or the window is too short'}"
    lead = f"Sharpe difference {_interval(difference)}"
    if difference.high < 0.0:
        return f"loses ({lead} to {rival})"
    if interval.high < 0.0:
        return f"loses (Sharpe ratio {_interval(interval)})"
    said, is_skilled = [f"p = {_probability(p, TIMING_P)}", _alpha(excess)], p <= TIMING_P and excess.p <= CHANCE_P
    if not (is_skilled and total_return > 0.0):
        lost = ["it earned nothing"] if is_skilled else []
        return f"indistinguishable from chance ({'; '.join([*said, *lost, *([reason] if reason else [])])})"
    beats = difference.low > 0.0 and (excess.n_trials == 1 or excess.lead_p <= LEAD_P)
    if difference.low > 0.0 and not beats:
        lead += f", p = {_probability(excess.lead_p, LEAD_P)} as the best of {excess.n_trials} trials"
    return f"beats {rival if beats else f'chance but not {rival}'} ({'; '.join([*said, lead])})"


def _alpha(excess: Excess) -> str:
    """The alpha a year and its p, as the best of all trials."""
    if math.isnan(excess.p):
        return "alpha unknown"
    ends = excess.alpha.value, excess.alpha.low, excess.alpha.high
    value, low, high = (f"{100.0 * end:.1f}" for end in ends)
    among = f" as the best of {excess.n_trials} trials" if excess.n_trials > 1 else ""
    return f"alpha {value} % a year [{low}, {high}], p = {_probability(excess.p, CHANCE_P)}{among}"


def _probability(value: float, threshold: float) -> str:
    """Two decimals, or three where two would hide on which side of the threshold it lies, or that it is not 0 or 1."""
    if math.isnan(value):
        return "unknown"
    short = f"{value:.2f}"
    hides = short in (f"{threshold:.2f}", "0.00", "1.00") and value not in (0.0, 1.0, threshold)
    return f"{value:.3f}" if hides else short


def _interval(found: Interval) -> str:
    values = (found.value, found.low, found.high)
    if any(math.isnan(value) for value in values):
        return "unknown"
    # A low end of 0.04 must not read 0.0 where it decides.
    digits = 2 if any(abs(value) < 0.05 for value in values) else 1
    value, low, high = (f"{value:.{digits}f}" for value in values)
    return f"{value} [{low}, {high}]"
