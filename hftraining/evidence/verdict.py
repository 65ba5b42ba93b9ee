"""The verdict: one sentence by fixed rules, so that the author of a report does not judge the run."""

import math

from hftraining.evidence.bootstrap import Interval

# The customary one-sided level: of a hundred books without skill, five may pass as better than chance.
CHANCE_P = 0.05
# The same level after the search: the probability that the true Sharpe ratio exceeds the luck of all trials.
DEFLATED_LEAST = 0.95
# A difference counts when the whole 95 % interval lies above it, so 2.5 % of equals may pass as better.
DIFFERENCE_LEAST = 0.0


def verdict(
    p: float,
    difference: Interval,
    *,
    deflated_sharpe: float = math.nan,
    n_trials: int = 1,
    reason: str = "",
    rival: str = "buy and hold",
) -> str:
    """What may be said of a strategy, in fixed words.

    p: of the null band. difference: Sharpe ratio minus that of the rival, with its 95 % interval.
    deflated_sharpe: read when n_trials > 1; then a value below DEFLATED_LEAST, or an unknown one, is chance.
    reason: why p says little or nothing, as the null band gives it. NaN p: no verdict. A difference with NaN ends
    beats nothing. Raises ValueError for a p outside [0, 1] and for n_trials < 1.
    """
    if n_trials < 1 or (math.isfinite(p) and not 0.0 <= p <= 1.0):
        raise ValueError(f"p={p} must lie in [0, 1] and n_trials={n_trials} be at least 1")
    if math.isnan(p):
        return f"no verdict: {reason or 'nothing was traded, or the window is too short'}"
    said = [f"p = {_probability(p, CHANCE_P)}"]
    deflated = []
    if n_trials > 1:
        value = "unknown" if math.isnan(deflated_sharpe) else _probability(deflated_sharpe, DEFLATED_LEAST)
        deflated = [f"deflated Sharpe {value} over {n_trials} trials"]
    if p > CHANCE_P or (deflated and not deflated_sharpe >= DEFLATED_LEAST):
        return f"indistinguishable from chance ({'; '.join([*said, *deflated, *([reason] if reason else [])])})"
    said = [*said, f"Sharpe difference {_interval(difference)}", *deflated]
    beats = difference.low > DIFFERENCE_LEAST
    return f"beats {rival if beats else f'chance but not {rival}'} ({'; '.join(said)})"


def _probability(value: float, threshold: float) -> str:
    """Two decimals, or three where two would hide on which side of the threshold it lies, or that it is not 0 or 1."""
    short = f"{value:.2f}"
    hides = short in (f"{threshold:.2f}", "0.00", "1.00") and value not in (0.0, 1.0, threshold)
    return f"{value:.3f}" if hides else short


def _interval(difference: Interval) -> str:
    values = (difference.value, difference.low, difference.high)
    if any(math.isnan(value) for value in values):
        return "unknown"
    # A low end of 0.04 must not read 0.0 where it decides.
    digits = 2 if any(abs(value) < 0.05 for value in values) else 1
    value, low, high = (f"{value:.{digits}f}" for value in values)
    return f"{value} [{low}, {high}]"
