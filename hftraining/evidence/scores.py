"""How well forecasts agree with outcomes. Errors are clustered by day, since symbols of one day are not independent.

A score is the mean of one number a day, with the error of a mean of days that hang together (`_score`), or one
correlation over all pairs, with the error of a product of slow forecasts and overlapping labels (`_pooled`).

Legend: T sessions, S symbols, Q quantiles; X sessions and what the last label reaches beyond them.
"""

# mypy: allow-untyped-defs
# numba infers the types of compiled functions from the calls.

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.fft import dct
from scipy.special import stdtrit
from scipy.stats import rankdata

from hftraining.evidence.bootstrap import COVERAGE

# With fewer symbols a day's correlation can only be -1, 1 or unknown.
MIN_SYMBOLS = 3
# Relative to the size of the values: equal forecasts differ by rounding alone.
_NO_SPREAD = 1e-12
# Of what is as slow as the forecasts: periods from twice the window down to the window.
_SLOW_COSINES = 2
# Sums over symbols in any order, several at once.
_SUMS = {"reassoc", "contract"}


@dataclass(frozen=True)
class Score:
    """A score over days.

    value. t: distance from the score of no skill (0; 0.5 for accuracy), in standard errors. low, high: 95 %
    interval. days: that counted. NaN where there are no days; t, low and high are NaN with fewer than two.
    """

    value: float
    t: float
    low: float
    high: float
    days: int


def daily_scores(forecast_TS: np.ndarray, label_TS: np.ndarray, overlap: int = 1) -> dict[str, Score]:
    """Scores `ic`, `rank_ic`, `accuracy` and `mcc` of forecasts against labels; NaN in either leaves a pair out.

    overlap: sessions that a label spans (its horizon), so that labels of days closer than that share returns.

    ic, rank_ic: Pearson and Spearman correlation. Where the median day has at least MIN_SYMBOLS symbols, each
    day's over its symbols, then the mean over days (Fama and MacBeth 1973; Grinold 1989); days with fewer
    symbols, or on which all forecasts or all labels are equal, have none. Five symbols give a noisy but unbiased
    number a day. With one or two symbols a day has no cross-section: then the correlation over all pairs.
    accuracy: share of the day's symbols whose side is right, the mean over days. A forecast or label of exactly 0
    has no side. mcc: Matthews correlation of the sides over all pairs (Matthews 1975), since on most days of a
    small universe all sides are the same. A slow forecast that leans to one side in a market that leans, too, is right
    more often than a coin or less: the error of accuracy counts that by the lean's own, slow variance.
    Errors: `_score` for a mean over days, `_pooled` for a correlation over all pairs.
    """
    forecast_TS, label_TS = np.asarray(forecast_TS, np.float64), np.asarray(label_TS, np.float64)
    if forecast_TS.shape != label_TS.shape or overlap < 1:
        raise ValueError(f"forecast {forecast_TS.shape}, label {label_TS.shape}, overlap={overlap}: do not fit")
    known_TS = np.isfinite(forecast_TS) & np.isfinite(label_TS)
    counts_T = known_TS.sum(axis=1)
    is_cross_section = bool((counts_T > 0).any()) and float(np.median(counts_T[counts_T > 0])) >= MIN_SYMBOLS
    forecast_TS, label_TS = np.where(known_TS, forecast_TS, math.nan), np.where(known_TS, label_TS, math.nan)
    axis = 1 if is_cross_section else None
    scores: dict[str, Score] = {}
    for name, x_TS, y_TS in (
        ("ic", forecast_TS, label_TS),
        ("rank_ic", _ranks(forecast_TS, axis), _ranks(label_TS, axis)),
    ):
        if is_cross_section:
            scores[name] = _score(_daily_correlations(x_TS, y_TS), overlap)
        else:
            scores[name] = _pooled(x_TS, y_TS, overlap)

    side_TS, came_TS = np.sign(forecast_TS), np.sign(label_TS)
    sided_TS = known_TS & (side_TS != 0.0) & (came_TS != 0.0)
    side_TS, came_TS = np.where(sided_TS, side_TS, math.nan), np.where(sided_TS, came_TS, math.nan)
    # Half the mean of the labels' sides times the day's lean is what a lean alone adds to the share that is right.
    drift = float(came_TS[sided_TS].mean()) if sided_TS.any() else 0.0
    lean_T = 2.0 * _daily_shares(side_TS > 0.0, sided_TS) - 1.0
    right_T = _daily_shares(side_TS == came_TS, sided_TS)
    scores["accuracy"] = _score(right_T, overlap, no_skill=0.5, slow_T=drift / 2.0 * lean_T)
    scores["mcc"] = _pooled(side_TS, came_TS, overlap, are_sides=True)
    return scores


def daily_rank_ic(forecast_TS: np.ndarray, label_TS: np.ndarray) -> np.ndarray:
    """ic_T: Spearman's correlation over the symbols of each day; NaN in either leaves a pair out.

    NaN on days with fewer than MIN_SYMBOLS symbols, or on which all forecasts or all labels are equal.
    """
    known_TS = np.isfinite(forecast_TS) & np.isfinite(label_TS)
    return _daily_correlations(*(_ranks(np.where(known_TS, part, math.nan), 1) for part in (forecast_TS, label_TS)))


def quantile_calibration(
    quantiles_TSQ: np.ndarray, label_TS: np.ndarray, levels: Sequence[float]
) -> list[dict[str, float]]:
    """For each level: `level`, `share` of labels at or below the forecast quantile, and `days` that counted.

    The share is the mean over days of the day's share; calibrated quantiles have share = level. NaN leaves a pair
    out; without days the share is NaN. Raises ValueError if levels and last axis differ in number.
    """
    if quantiles_TSQ.shape != (*label_TS.shape, len(levels)):
        raise ValueError(
            f"quantiles: shape {quantiles_TSQ.shape}, but labels have {label_TS.shape} and levels {len(levels)}"
        )
    found: list[dict[str, float]] = []
    for q, level in enumerate(levels):
        known_TS = np.isfinite(quantiles_TSQ[:, :, q]) & np.isfinite(label_TS)
        share_T = _daily_shares(label_TS <= quantiles_TSQ[:, :, q], known_TS)
        known_T = share_T[np.isfinite(share_T)]
        share = float(known_T.mean()) if len(known_T) else math.nan
        found.append({"level": float(level), "share": share, "days": len(known_T)})
    return found


def paired_difference(ours_T: np.ndarray, theirs_T: np.ndarray, overlap: int = 1) -> Score:
    """Mean daily difference, ours minus theirs, over the days that both have, with its 95 % interval; t against 0.

    overlap: sessions that a day's number spans. Error as in `_score`. Equal series differ by 0 without an interval
    (NaN ends).
    """
    return _score(np.asarray(ours_T, np.float64) - np.asarray(theirs_T, np.float64), overlap)


def _score(daily_T: np.ndarray, overlap: int, no_skill: float = 0.0, slow_T: np.ndarray | None = None) -> Score:
    """Mean of one number a day, with its error. Days without a number are left out, also of the lags.

    The variance of the mean is the mean square of the series' first B cosine transforms over the days (equal-weighted
    cosines), which leaves a t distribution with B degrees of freedom: B = 0.41 days^(2/3) (Lazarus, Lewis, Stock and
    Watson 2018), but at most days / (2 overlap), up to where the spectrum of overlapping labels is flat. slow_T: a part
    of the numbers as slow as the forecasts, whose variance is that of its first cosines alone. t, low and high are NaN
    where B is 0: with fewer than two days, or with fewer than two labels that do not overlap.
    """
    known_T = np.isfinite(daily_T)
    days = int(known_T.sum())
    if days == 0:
        return Score(math.nan, math.nan, math.nan, math.nan, 0)
    value = float(daily_T[known_T].mean())
    freedom = min(max(1, int(0.41 * days ** (2 / 3))), days // (2 * overlap))
    slow_T = np.zeros(days) if slow_T is None else slow_T[known_T]
    variance = _variance_of_mean(daily_T[known_T] - slow_T, freedom)
    error = math.sqrt(variance + _variance_of_mean(slow_T, min(freedom, _SLOW_COSINES)))
    if not error > _NO_SPREAD:
        return Score(value, math.nan, math.nan, math.nan, days)
    reach = float(stdtrit(freedom, (1.0 + COVERAGE) / 2.0)) * error
    return Score(value, (value - no_skill) / error, value - reach, value + reach, days)


def _variance_of_mean(series_T: np.ndarray, cosines: int) -> float:
    """By the first cosine transforms over the days; NaN without any."""
    transformed = dct(series_T - series_T.mean(), type=2, norm="ortho")[1 : cosines + 1]
    return float((transformed**2).mean()) / len(series_T) if cosines else math.nan


def _pooled(x_TS: np.ndarray, y_TS: np.ndarray, overlap: int, are_sides: bool = False) -> Score:
    """Correlation over all pairs that are known in both; t, low and high hold for slow x and overlapping y.

    Forecasts about their mean over the window know the returns that made them, which biases the correlation of, say,
    a momentum with what follows it (Stambaugh 1999). So t and the interval are those of the estimate whose instrument
    is causal (`_instrument`); they need not lie about the value. Its variance is that of unpredictable returns of
    changing size, seen through overlapping sums (Hodrick 1992, turned round: `_spread_of_product`), and the critical
    value that of a score test, with degrees of freedom after Satterthwaite (1946). low and high are at most 1 in size,
    -1 and 1 where nothing is known, and wide where the true correlation is far from 0. NaN as in `_score`; days is 0
    where all x or all y are equal.
    """
    known_TS = np.isfinite(x_TS) & np.isfinite(y_TS)
    x_TS, y_TS = _standardised(x_TS, None), _standardised(y_TS, None)
    days = int(known_TS.any(axis=1).sum())
    if not np.isfinite(x_TS).any() or not np.isfinite(y_TS).any():
        return Score(math.nan, math.nan, math.nan, math.nan, 0)
    x_TS, y_TS = np.where(known_TS, x_TS, 0.0), np.where(known_TS, y_TS, 0.0)
    value = float((x_TS * y_TS).sum() / known_TS.sum())
    w_TS = _instrument(x_TS, known_TS)
    slope = float((w_TS * x_TS).sum())
    if days < 2 * overlap or not abs(slope) > _NO_SPREAD * known_TS.sum():
        return Score(value, math.nan, math.nan, math.nan, days)

    spread, critical = _spread_of_product(w_TS, y_TS, known_TS, overlap, are_sides)
    estimate, error = float((w_TS * y_TS).sum()) / slope, spread / abs(slope)
    if not error > _NO_SPREAD:
        return Score(value, math.nan, math.nan, math.nan, days)
    low, high = estimate - critical * error, estimate + critical * error
    if low > 1.0 or high < -1.0:
        low, high = -1.0, 1.0  # no correlation fits: the instrument says nothing about so slow a forecast
    return Score(value, estimate / error, max(-1.0, low), min(1.0, high), days)


def _instrument(x_TS: np.ndarray, known_TS: np.ndarray) -> np.ndarray:
    """x without its level, made of past x only and yet of sum 0; 0 where a pair is unknown.

    First less the mean of all x up to the day (So and Shin 1999). Then less what makes w @ y equal to the sum of
    these times (y less the mean of all y from that day on): forward deviations (Arellano and Bover 1995), turned round.
    """
    count_T = known_TS.sum(axis=1)
    mean_T = np.cumsum(x_TS.sum(axis=1)) / np.maximum(1, np.cumsum(count_T))
    centred_TS = np.where(known_TS, x_TS - mean_T[:, None], 0.0)
    to_come_T = np.maximum(1, np.cumsum(count_T[::-1])[::-1])
    offset_T = np.cumsum(centred_TS.sum(axis=1) / to_come_T)
    return np.where(known_TS, centred_TS - offset_T[:, None], 0.0)


def _spread_of_product(
    w_TS: np.ndarray, y_TS: np.ndarray, known_TS: np.ndarray, overlap: int, are_sides: bool
) -> tuple[float, float]:
    """Standard error of the sum of w * y, and the critical value of the sum over it, two-sided.

    The sum is one over sessions of a session's return times X, the sum of the w whose label holds that session. So its
    variance is the sum of (X @ return)^2, and the size of a session's return is that of the labels that hold it,
    measured along X, since returns of one day are not independent. With overlap 1: clustered by day.
    Sides of overlapping sums are correlated less than the sums, by 2/pi arcsin (Sheppard 1899).
    Critical value: with few labels that do not overlap, a large sum has a large variance, too. With c that of
    Student's t and l the share of the variance that the sum itself makes up it is c / sqrt(1 - l + l c^2). Freedom and
    share are those of normal y; values whose squares do not vary (sides) have a certain variance.
    """
    total_XS = np.cumsum(np.pad(w_TS, ((overlap, overlap - 1), (0, 0))), axis=0)
    shared_K = 1.0 - np.arange(overlap) / overlap  # correlation of the labels of two days K apart
    fit_TS = _through(w_TS, shared_K)
    sum_XS, pair_TS = total_XS[overlap:] - total_XS[:-overlap], known_TS.astype(np.float64)
    size, size_of_fit, weight_T = _sizes(sum_XS, y_TS, fit_TS * pair_TS, pair_TS, overlap)
    sum_of_fit = float((w_TS * fit_TS).sum())
    days = int(known_TS.any(axis=1).sum())
    twice_K = np.where(np.arange(overlap), 2.0, 1.0)
    # y is less its mean, which has taken its share of the spread.
    variance = size / (1.0 - float((twice_K * shared_K * (days - np.arange(overlap))).sum()) / days**2)
    if are_sides:
        variance *= float((w_TS * _through(w_TS, 2.0 / math.pi * np.arcsin(shared_K))).sum()) / sum_of_fit

    length_T = np.sqrt((w_TS**2).sum(axis=1))
    along_T = (w_TS * y_TS).sum(axis=1)[length_T > 0.0] / length_T[length_T > 0.0]
    mean_square = float((along_T**2).mean())
    if not mean_square > 0.0:
        return 0.0, math.nan
    varies = min(1.0, max(1e-6, (float((along_T**4).mean()) / mean_square**2 - 1.0) / 2.0))
    share = size_of_fit / sum_of_fit**2 * varies
    weight_T1 = weight_T[:, None]
    uncertain = float((weight_T1 * _through(weight_T1, shared_K**2)).sum()) / float(weight_T.sum()) ** 2 * varies
    c = float(stdtrit(max(1.0, 1.0 / uncertain), (1.0 + COVERAGE) / 2.0))
    return math.sqrt(variance), c / math.sqrt(1.0 - share + share * c**2)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_SUMS)
def _through(values_TS, shared_K):
    """Values times the matrix of correlations between days."""
    n_days, n_symbols = values_TS.shape
    out_TS = np.zeros((n_days, n_symbols))
    for t in range(n_days):
        for other in range(max(0, t - shared_K.size + 1), min(n_days, t + shared_K.size)):
            for s in range(n_symbols):
                out_TS[t, s] += shared_K[abs(t - other)] * values_TS[other, s]
    return out_TS


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_SUMS)
def _sizes(sum_XS, y_TS, fit_TS, pair_TS, overlap):
    """Sums over sessions of the square of y along X, the same of fit, and how much each day's label counts in them.

    A session's square is the mean over the labels that hold it, each by how much of X can be seen there: all of it
    but for unknown pairs. pair_TS: 1 where a pair is known, else 0, as are y and fit.
    """
    n_days, n_symbols = y_TS.shape
    size, size_of_fit, weight_T = 0.0, 0.0, np.zeros(n_days)
    seen_K = np.zeros(overlap)
    for x in range(len(sum_XS)):
        length, square, square_of_fit = 0.0, 0.0, 0.0
        for s in range(n_symbols):
            length += sum_XS[x, s] ** 2
        first, last = max(0, x - overlap + 1), min(n_days - 1, x)
        for t in range(first, last + 1):
            seen, along, along_fit = 0.0, 0.0, 0.0
            for s in range(n_symbols):
                seen += sum_XS[x, s] ** 2 * pair_TS[t, s]
                along += sum_XS[x, s] * y_TS[t, s]
                along_fit += sum_XS[x, s] * fit_TS[t, s]
            seen_K[t - first] = seen
            square += along**2
            square_of_fit += along_fit**2
        all_seen = seen_K[: last + 1 - first].sum()
        if all_seen > 0.0:
            weight = length / all_seen / overlap
            size += weight * square
            size_of_fit += weight * square_of_fit
            for t in range(first, last + 1):
                weight_T[t] += weight * seen_K[t - first]
    return size, size_of_fit, weight_T


def _daily_shares(true_TS: np.ndarray, known_TS: np.ndarray) -> np.ndarray:
    count_T = known_TS.sum(axis=1)
    right_T = (true_TS & known_TS).sum(axis=1)
    return np.divide(right_T, count_T, out=np.full(len(count_T), math.nan), where=count_T > 0)


def _daily_correlations(x_TS: np.ndarray, y_TS: np.ndarray) -> np.ndarray:
    """Pearson correlation of each day over its symbols, NaN with fewer than MIN_SYMBOLS or without variance."""
    count_T = np.isfinite(x_TS).sum(axis=1)
    product_TS = _standardised(x_TS, 1) * _standardised(y_TS, 1)
    has_one_T = (count_T >= MIN_SYMBOLS) & np.isfinite(product_TS).any(axis=1)
    sum_T = np.where(np.isfinite(product_TS), product_TS, 0.0).sum(axis=1)
    return np.divide(sum_T, count_T, out=np.full(len(count_T), math.nan), where=has_one_T)


def _standardised(values_TS: np.ndarray, axis: int | None) -> np.ndarray:
    """Mean 0 and variance 1 within a day (axis 1) or over all pairs (None), NaN where all are equal; NaN stays."""
    known_TS = np.isfinite(values_TS)
    count = np.maximum(1, known_TS.sum(axis=axis, keepdims=True))
    filled_TS = np.where(known_TS, values_TS, 0.0)
    centred_TS = np.where(known_TS, filled_TS - filled_TS.sum(axis=axis, keepdims=True) / count, 0.0)
    spread = np.sqrt((centred_TS**2).sum(axis=axis, keepdims=True) / count)
    largest = np.abs(filled_TS).max(axis=axis, keepdims=True, initial=0.0)
    varies_TS = known_TS & (spread > _NO_SPREAD * largest)
    return np.divide(centred_TS, spread, out=np.full(values_TS.shape, math.nan), where=varies_TS)


def _ranks(values_TS: np.ndarray, axis: int | None) -> np.ndarray:
    """Ranks within a day (axis 1) or over all pairs (None), ties share their mean; NaN stays."""
    known_TS = np.isfinite(values_TS)
    # Beyond all others, the unknown change no rank of the known; nan_policy="omit" would loop over the days.
    ranked = rankdata(np.where(known_TS, values_TS, math.inf), axis=axis) if values_TS.size else values_TS
    return np.where(known_TS, np.asarray(ranked, np.float64).reshape(values_TS.shape), math.nan)
