"""Whether two groups of runs with several seeds each can be told apart, and how many seeds that would take."""

import math
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from scipy import stats

from hftraining.evidence.bootstrap import COVERAGE, Interval

POWER, LEVEL = 0.80, 0.05
MOST_SEEDS = 100_000  # beyond this nobody will run them


def mean_difference(a: Sequence[float], b: Sequence[float]) -> Interval:
    """Mean of a minus mean of b, with its 95 % interval over seeds; in the unit of the values.

    The ends are NaN with fewer than two values on a side, or without any spread; the value is NaN where a side is
    empty or holds a NaN. Source: Welch (1947), degrees of freedom after Satterthwaite (1946).
    """
    one, other = np.asarray(a, float), np.asarray(b, float)
    if not len(one) or not len(other):
        return Interval(math.nan, math.nan, math.nan)
    value = float(one.mean() - other.mean())
    if min(len(one), len(other)) < 2:
        return Interval(value, math.nan, math.nan)
    parts = np.array([one.var(ddof=1) / len(one), other.var(ddof=1) / len(other)])
    if not parts.sum() > 0.0:
        return Interval(value, math.nan, math.nan)
    freedom = parts.sum() ** 2 / (parts**2 / [len(one) - 1, len(other) - 1]).sum()
    reach = float(stats.t.ppf((1.0 + COVERAGE) / 2.0, freedom) * math.sqrt(parts.sum()))
    return Interval(value, value - reach, value + reach)


def seeds_needed(a: Sequence[float], b: Sequence[float]) -> int | None:
    """Seeds in each group for a two-sided two-sample t test to find the difference of their means.

    80 % power at the 5 % level, if the true difference and spread are those of the samples. None where that is
    unknown (fewer than two values on a side, a NaN, no spread) or where more than MOST_SEEDS would be needed.
    Source: Cohen (1988), Statistical Power Analysis, chapter 2: effect d = difference of the means over the root of
    the mean of both variances; power from the noncentral t distribution with 2 n - 2 degrees of freedom and
    noncentrality d * sqrt(n / 2).
    """
    one, other = np.asarray(a, float), np.asarray(b, float)
    if min(len(one), len(other)) < 2:
        return None
    spread = math.sqrt((one.var(ddof=1) + other.var(ddof=1)) / 2.0)
    if not spread > 0.0 or not math.isfinite(spread):
        return None
    effect = abs(float(one.mean() - other.mean())) / spread
    if not effect > 0.0 or power_of_t_test(effect, MOST_SEEDS) < POWER:
        return None
    numbers = range(2, MOST_SEEDS + 1)  # power rises with the number of seeds
    return numbers[bisect_left(numbers, POWER, key=lambda n: power_of_t_test(effect, n))]


def power_of_t_test(effect: float, n: int) -> float:
    """Probability that a two-sided two-sample t test with n values a group finds an effect (Cohen's d, positive)."""
    freedom, centre = 2 * n - 2, effect * math.sqrt(n / 2.0)
    if freedom < 1:
        return 0.0
    if centre > 30.0:  # where the noncentral t underflows the answer is 1
        return 1.0
    critical = stats.t.ppf(1.0 - LEVEL / 2.0, freedom)
    return float(stats.nct.sf(critical, freedom, centre) + stats.nct.cdf(-critical, freedom, centre))
