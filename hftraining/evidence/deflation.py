"""What is left of the best of many trials: the Deflated Sharpe Ratio and the probability of backtest overfitting.

Sharpe ratios here are daily, not annualised, unless said otherwise.

Legend: T sessions, N trials, B blocks, C ways to halve the blocks.
"""

import itertools
import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from hftraining.trading.metrics import NO_SPREAD

_NORMAL = NormalDist()


@dataclass(frozen=True)
class PBO:
    """How often the best trial of one half of the days is below the median on the other half.

    value: share of the halvings with a logit of at most 0; NaN where it cannot be computed, as `reason` then says.
    logits_C: of the relative rank, out of sample, of each halving's best trial.
    """

    value: float
    logits_C: np.ndarray
    reason: str = ""


def expected_maximum_sharpe(n_trials: int, variance: float) -> float:
    """The expected Sharpe ratio of the best of n_trials without skill, in the unit of the root of `variance`.

    variance: of the trials' Sharpe ratios. One trial gives 0. Raises ValueError with n_trials < 1 or a negative
    variance. NaN variance gives NaN. Source: Bailey and Lopez de Prado (2014), The Deflated Sharpe Ratio, eq. 1.
    """
    if n_trials < 1 or variance < 0.0:
        raise ValueError(f"n_trials={n_trials} must be at least 1 and variance={variance} not negative")
    if n_trials == 1:
        return 0.0
    first = _NORMAL.inv_cdf(1.0 - 1.0 / n_trials)
    second = _NORMAL.inv_cdf(1.0 - 1.0 / (n_trials * math.e))
    return math.sqrt(variance) * ((1.0 - np.euler_gamma) * first + np.euler_gamma * second)


def probabilistic_sharpe(sharpe: float, benchmark: float, n_returns: int, skew: float, kurtosis: float) -> float:
    """The probability that the true daily Sharpe ratio exceeds the benchmark.

    sharpe, benchmark: daily. kurtosis: 3 for a normal. NaN with fewer than two returns, for NaN moments, and
    where the moments leave no variance. Source: Bailey and Lopez de Prado (2012), The Sharpe Ratio Efficient
    Frontier; (2014), The Deflated Sharpe Ratio, eq. 2.
    """
    spread = 1.0 - skew * sharpe + (kurtosis - 1.0) / 4.0 * sharpe**2
    if n_returns < 2 or not spread > 0.0 or not math.isfinite(benchmark):
        return math.nan
    return _NORMAL.cdf((sharpe - benchmark) * math.sqrt(n_returns - 1) / math.sqrt(spread))


def deflated_sharpe(returns_T: np.ndarray, n_trials: int, trial_variance: float) -> float:
    """The probability that the true Sharpe ratio exceeds what the best of n_trials without skill would show.

    returns_T: daily net returns of the chosen trial. trial_variance: of the trials' daily Sharpe ratios (of
    annual ones it is 252 times as large). With one trial the benchmark is 0 and the variance is not read.
    NaN with fewer than two returns, without variance, or for NaN. Source: Bailey and Lopez de Prado (2014).
    """
    returns_T = np.asarray(returns_T, np.float64)
    n = len(returns_T)
    spread = float(returns_T.std(ddof=1)) if n > 1 else math.nan
    if not spread > NO_SPREAD:
        return math.nan
    z_T = (returns_T - returns_T.mean()) / returns_T.std()
    benchmark = expected_maximum_sharpe(n_trials, trial_variance)
    skew, kurtosis = float((z_T**3).mean()), float((z_T**4).mean())
    return probabilistic_sharpe(float(returns_T.mean()) / spread, benchmark, n, skew, kurtosis)


def probability_of_backtest_overfitting(returns_TN: np.ndarray, blocks: int = 16) -> PBO:
    """PBO by combinatorially symmetric cross-validation, with the Sharpe ratio as the measure.

    returns_TN: daily net returns of every trial over the same days, finite. blocks: even; the days are cut into
    that many blocks of equal length (the first ones a day longer if need be), and each choice of half of them is in
    sample once. For the best trial in sample, omega = rank out of sample / (N + 1), ties share their mean
    rank, and logit = log(omega / (1 - omega)). A trial without variance has a Sharpe ratio of 0.
    NaN with fewer than two trials or than two days a block. Raises ValueError for blocks that are odd or below 2
    and for NaN. Source: Bailey, Borwein, Lopez de Prado and Zhu (2015), The Probability of Backtest Overfitting.
    """
    returns_TN = np.asarray(returns_TN, np.float64)
    if blocks < 2 or blocks % 2:
        raise ValueError(f"blocks={blocks} must be an even number of at least 2")
    if not np.isfinite(returns_TN).all():
        raise ValueError("returns of trials must be finite: leave out trials that have no returns")
    n_days, n_trials = returns_TN.shape
    if n_trials < 2 or n_days < 2 * blocks:
        reason = f"{n_trials} trials over {n_days} days, but it needs 2 trials and {2 * blocks} days"
        return PBO(math.nan, np.empty(0), reason)

    # A Sharpe ratio needs sums of blocks alone. Differences from the mean keep the squares exact.
    centre_N = returns_TN.mean(axis=0)
    pieces = np.array_split(returns_TN - centre_N, blocks)
    days_B = np.array([float(len(piece)) for piece in pieces])
    sum_BN = np.array([piece.sum(axis=0) for piece in pieces])
    square_BN = np.array([(piece**2).sum(axis=0) for piece in pieces])
    chosen_CB = np.zeros((math.comb(blocks, blocks // 2), blocks))
    for row, chosen in enumerate(itertools.combinations(range(blocks), blocks // 2)):
        chosen_CB[row, chosen] = 1.0

    inside_CN = _sharpe_of_blocks(chosen_CB, days_B, sum_BN, square_BN, centre_N)
    best_C1 = inside_CN.argmax(axis=1)[:, None]
    outside_CN = _sharpe_of_blocks(1.0 - chosen_CB, days_B, sum_BN, square_BN, centre_N)
    theirs_C1 = np.take_along_axis(outside_CN, best_C1, axis=1)
    below_C, equal_C = (outside_CN < theirs_C1).sum(axis=1), (outside_CN == theirs_C1).sum(axis=1)
    omega_C = (below_C + (equal_C + 1.0) / 2.0) / (n_trials + 1.0)
    logits_C = np.log(omega_C / (1.0 - omega_C))
    return PBO(float((logits_C <= 0.0).mean()), logits_C)


def _sharpe_of_blocks(
    chosen_CB: np.ndarray, days_B: np.ndarray, sum_BN: np.ndarray, square_BN: np.ndarray, centre_N: np.ndarray
) -> np.ndarray:
    days_C1 = (chosen_CB @ days_B)[:, None]
    mean_CN = (chosen_CB @ sum_BN) / days_C1
    variance_CN = np.maximum(chosen_CB @ square_BN - days_C1 * mean_CN**2, 0.0) / (days_C1 - 1.0)
    spread_CN = np.sqrt(variance_CN)
    return np.divide(mean_CN + centre_N, spread_CN, out=np.zeros_like(mean_CN), where=spread_CN > NO_SPREAD)
