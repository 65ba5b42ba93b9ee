"""What a book earned beyond its benchmark, and whether the best of so many trials would earn as much without skill.

Alpha is the mean of a book's daily returns that its benchmark does not explain, by least squares. A trial is judged as
the best of all N trials: its t value is compared with the greatest t value of all trials in draws in which none of
them has an alpha (White 2000, A reality check for data snooping; studentised as by Hansen 2005; single step of Romano
and Wolf 2005). The draws resample days in blocks, the same days for all trials, so that trials that are alike count
for little more than one. Trials whose returns are unknown, such as killed ones, count as if they were like the others.

Legend: T daily returns of the judged trial, K trials with known returns, D draws.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from hftraining.evidence.bootstrap import COVERAGE, MIN_RETURNS, Interval, block_length, resampled_days
from hftraining.evidence.deflation import deflated_sharpe
from hftraining.trading.metrics import NO_SPREAD
from hftraining.trading.simulator import SESSIONS_PER_YEAR

_CHUNK_VALUES = 4_000_000  # counts of days at a time, to keep long histories within some 50 MB


@dataclass(frozen=True)
class Track:
    """Daily net returns of a trial and of its benchmark over the same days. benchmark_T: None where it is unknown."""

    days_T: np.ndarray  # datetime64[D], rising
    returns_T: np.ndarray
    benchmark_T: np.ndarray | None


@dataclass(frozen=True)
class Excess:
    """What a book earned beyond its benchmark.

    beta: of its daily returns on the benchmark's. alpha: a year (252 days), a fraction, with its 95 % interval.
    information_ratio: alpha over residual_volatility, both a year. p: the chance that the best of n_trials without
    alpha does as well. lead_p: the same for the lead of the Sharpe ratio over the benchmark's. deflated_sharpe: the
    probability that the true Sharpe ratio of the returns beyond the benchmark (less beta times its returns) exceeds
    what the best of n_trials without skill would show, their variance being that of the known trials (Bailey and
    Lopez de Prado 2014); NaN with several trials of which only one is known. NaN where unknown.
    """

    beta: float
    alpha: Interval
    information_ratio: float
    residual_volatility: float
    p: float
    lead_p: float
    deflated_sharpe: float
    n_trials: int


def judge_excess(own: Track, others: Sequence[Track], n_trials: int, draws: int, seed: int) -> Excess:
    """Judge a trial as the best of n_trials.

    own: with a benchmark. others: the known returns of the other trials; only days that they share with `own` count,
    and one without a benchmark gets that of `own`. n_trials: at least 1 + len(others) where all are known. Everything
    is NaN with fewer than MIN_RETURNS days or where the book has no variance of its own. Raises ValueError for
    n_trials < 1.
    """
    if n_trials < 1:
        raise ValueError(f"n_trials={n_trials} must be at least 1")
    assert own.benchmark_T is not None
    returns_T, benchmark_T = np.asarray(own.returns_T, np.float64), np.asarray(own.benchmark_T, np.float64)
    nothing = Interval(math.nan, math.nan, math.nan)
    if len(returns_T) < MIN_RETURNS or not np.isfinite(returns_T).all() or not returns_T.std() > NO_SPREAD:
        return Excess(math.nan, nothing, math.nan, math.nan, math.nan, math.nan, math.nan, n_trials)
    beta = beta_of(returns_T, benchmark_T)
    residual_T = returns_T - beta * benchmark_T
    alpha, spread = float(residual_T.mean()), float(residual_T.std(ddof=1))
    length = block_length(alpha_influence(returns_T, benchmark_T))
    tracks = [own, *(track for other in others if (track := _shared(other, own)) is not None)]
    alpha_DK, lead_DK = (
        resampled_means(np.stack([_influence(track, own, kind) for track in tracks], axis=1), length, draws, seed)
        for kind in (alpha_influence, lead_influence)
    )
    low, high = np.quantile(alpha_DK[:, 0], [(1.0 - COVERAGE) / 2.0, (1.0 + COVERAGE) / 2.0])
    year = SESSIONS_PER_YEAR
    is_benchmark = not spread > NO_SPREAD
    return Excess(
        beta,
        Interval(alpha * year, float(alpha - high) * year, float(alpha - low) * year),
        math.nan if is_benchmark else alpha / spread * math.sqrt(year),
        spread * math.sqrt(year),
        _as_best_of(alpha, alpha_DK, n_trials),
        _as_best_of(_lead(returns_T, benchmark_T), lead_DK, n_trials),
        deflated_sharpe(residual_T, n_trials, _variance_of_sharpes(tracks)),
        n_trials,
    )


def beta_of(returns_T: np.ndarray, benchmark_T: np.ndarray) -> float:
    """Slope of the least squares line of a book's returns on its benchmark's; 0 for a benchmark without variance."""
    centred_T = benchmark_T - benchmark_T.mean()
    squares = float(centred_T @ centred_T)
    return float(centred_T @ returns_T) / squares if squares > NO_SPREAD**2 * len(centred_T) else 0.0


def alpha_influence(returns_T: np.ndarray, benchmark_T: np.ndarray) -> np.ndarray:
    """What each day adds to the estimate of alpha, to first order: its mean is 0 (intercept of least squares)."""
    centred_T = benchmark_T - benchmark_T.mean()
    residual_T = returns_T - returns_T.mean() - beta_of(returns_T, benchmark_T) * centred_T
    variance = float(centred_T @ centred_T) / len(centred_T)
    lever = float(benchmark_T.mean()) / variance if variance > NO_SPREAD**2 else 0.0
    return residual_T * (1.0 - lever * centred_T)


def lead_influence(returns_T: np.ndarray, benchmark_T: np.ndarray) -> np.ndarray:
    """What each day adds to the lead of the daily Sharpe ratio over the benchmark's, to first order; mean 0."""
    total_T = np.zeros(len(returns_T))
    for sign, series_T in ((1.0, returns_T), (-1.0, benchmark_T)):
        spread = float(series_T.std(ddof=1))
        if spread > NO_SPREAD:
            z_T = (series_T - series_T.mean()) / spread
            total_T += sign * (z_T - float(series_T.mean()) / spread / 2.0 * (z_T**2 - 1.0))
    return total_T - total_T.mean()


def resampled_means(influence_TK: np.ndarray, length: float, draws: int, seed: int) -> np.ndarray:
    """Means_DK of each column over resampled days, the same days for all columns; blocks of a mean length.

    Stationary bootstrap (Politis and Romano 1994). A mean is a sum of how often each day was drawn, so all draws of
    all columns are one matrix product.
    """
    n, n_columns = influence_TK.shape
    rng = np.random.default_rng(seed)
    mean_DK = np.empty((draws, n_columns))
    at_once = max(1, _CHUNK_VALUES // n)
    for first in range(0, draws, at_once):
        count = min(at_once, draws - first)
        start_DT, uniform_DT = rng.integers(0, n, (count, n), np.int32), rng.random((count, n))
        mean_DK[first : first + count] = _counts(start_DT, uniform_DT, 1.0 / length) @ influence_TK / n
    return mean_DK


@njit(cache=True, nogil=True, error_model="numpy")
def _counts(start_DT, uniform_DT, restart):  # type: ignore[no-untyped-def]
    """How often each draw takes each day, counts_DT."""
    n_draws, n = start_DT.shape
    count_DT, day_T = np.zeros((n_draws, n)), np.empty(n, np.int64)
    for d in range(n_draws):
        resampled_days(start_DT[d], uniform_DT[d], restart, day_T)
        for t in range(n):
            count_DT[d, day_T[t]] += 1.0
    return count_DT


def _as_best_of(value: float, mean_DK: np.ndarray, n_trials: int) -> float:
    """One-sided p of the first column's value, as the greatest t value of n_trials."""
    error_K = mean_DK.std(axis=0)
    if not error_K[0] > NO_SPREAD:
        return 1.0  # the benchmark itself, or a multiple of it
    varies_K = error_K > NO_SPREAD
    greatest_D = (mean_DK[:, varies_K] / error_K[varies_K]).max(axis=1)
    as_good = int((greatest_D >= value / error_K[0]).sum())
    p = (1 + as_good) / (1 + len(greatest_D))
    # N trials of which K are known, as if the unknown were as alike as the known (Sidak 1967).
    return 1.0 - (1.0 - p) ** (max(n_trials, int(varies_K.sum())) / int(varies_K.sum()))


def _variance_of_sharpes(tracks: Sequence[Track]) -> float:
    """Variance of the daily Sharpe ratios of the returns beyond the benchmark; NaN for fewer than two."""
    sharpes = []
    for track in tracks:
        assert track.benchmark_T is not None
        excess_T = track.returns_T - beta_of(track.returns_T, track.benchmark_T) * track.benchmark_T
        if excess_T.std() > NO_SPREAD:
            sharpes.append(float(excess_T.mean() / excess_T.std(ddof=1)))
    return float(np.var(sharpes, ddof=1)) if len(sharpes) > 1 else math.nan


def _lead(returns_T: np.ndarray, benchmark_T: np.ndarray) -> float:
    """Daily Sharpe ratio less the benchmark's, which is 0 without variance."""
    ours, theirs = (
        float(series_T.mean() / series_T.std(ddof=1)) if series_T.std() > NO_SPREAD else 0.0
        for series_T in (returns_T, benchmark_T)
    )
    return ours - theirs


def _shared(other: Track, own: Track) -> Track | None:
    """The days of another trial that it shares with `own`, with a benchmark; None where they are too few."""
    at_T = np.isin(other.days_T, own.days_T)
    if at_T.sum() < MIN_RETURNS or not np.isfinite(other.returns_T[at_T]).all():
        return None
    days_T, benchmark_T = other.days_T[at_T], other.benchmark_T
    if benchmark_T is None:
        assert own.benchmark_T is not None
        return Track(days_T, other.returns_T[at_T], own.benchmark_T[np.searchsorted(own.days_T, days_T)])
    return Track(days_T, other.returns_T[at_T], benchmark_T[at_T])


def _influence(track: Track, own: Track, kind: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """The influence of each of own's days on a trial's estimate: 0 on days that it lacks, the others count for more."""
    assert track.benchmark_T is not None
    influence_T = kind(np.asarray(track.returns_T, np.float64), np.asarray(track.benchmark_T, np.float64))
    if len(influence_T) == len(own.days_T):
        return influence_T
    whole_T = np.zeros(len(own.days_T))
    whole_T[np.searchsorted(own.days_T, track.days_T)] = influence_T * len(own.days_T) / len(influence_T)
    return whole_T
