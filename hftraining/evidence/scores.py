"""How well forecasts agree with outcomes. Errors are clustered by day, since symbols of one day are not independent.

Every score is the mean of one number a day, and its error comes from the spread of these numbers.

Legend: T sessions, S symbols, Q quantiles, P pairs of a forecast and a label.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata
from scipy.stats import t as student

from hftraining.evidence.bootstrap import COVERAGE, newey_west_error

# With fewer symbols a day's correlation can only be -1, 1 or unknown.
MIN_SYMBOLS = 3
# Bartlett weights shrink what overlapping labels share: by a third with lags to the overlap, by a ninth with thrice.
_LAGS_PER_OVERLAP = 3
# Relative to the size of the values: equal forecasts differ by rounding alone.
_NO_SPREAD = 1e-12


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

    overlap: sessions that a label spans (its horizon); above 1 the errors are Newey and West's.

    ic, rank_ic: Pearson and Spearman correlation. Where the median day has at least MIN_SYMBOLS symbols, each
    day's over its symbols, then the mean over days (Fama and MacBeth 1973; Grinold 1989); days with fewer
    symbols, or on which all forecasts or all labels are equal, have none. Five symbols give a noisy but unbiased
    number a day. With one or two symbols a day has no cross-section: then the correlation over all pairs.
    accuracy: share of the day's symbols whose side is right, the mean over days. A forecast or label of exactly 0
    has no side. mcc: Matthews correlation of the sides over all pairs (Matthews 1975), since on most days of a
    small universe all sides are the same.
    For a correlation over all pairs, the number of a day is the value plus what the day adds to it to first order
    (its influence function), so that the error is clustered by day (Liang and Zeger 1986).
    """
    forecast_TS, label_TS = np.asarray(forecast_TS, np.float64), np.asarray(label_TS, np.float64)
    if forecast_TS.shape != label_TS.shape or overlap < 1:
        raise ValueError(f"forecast {forecast_TS.shape}, label {label_TS.shape}, overlap={overlap}: do not fit")
    known_TS = np.isfinite(forecast_TS) & np.isfinite(label_TS)
    counts_T = known_TS.sum(axis=1)
    is_cross_section = bool((counts_T > 0).any()) and float(np.median(counts_T[counts_T > 0])) >= MIN_SYMBOLS
    correlate = _daily_correlations if is_cross_section else _pooled_correlation
    forecast_TS, label_TS = np.where(known_TS, forecast_TS, math.nan), np.where(known_TS, label_TS, math.nan)

    side_TS, came_TS = np.sign(forecast_TS), np.sign(label_TS)
    sided_TS = known_TS & (side_TS != 0.0) & (came_TS != 0.0)
    side_TS, came_TS = np.where(sided_TS, side_TS, math.nan), np.where(sided_TS, came_TS, math.nan)
    axis = 1 if is_cross_section else None
    return {
        "ic": _score(correlate(forecast_TS, label_TS), overlap),
        "rank_ic": _score(correlate(_ranks(forecast_TS, axis), _ranks(label_TS, axis)), overlap),
        "accuracy": _score(_daily_shares(side_TS == came_TS, sided_TS), overlap, no_skill=0.5),
        "mcc": _score(_pooled_correlation(side_TS, came_TS), overlap),
    }


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

    overlap: sessions that a day's number spans; above 1 the error is Newey and West's. Equal series differ by 0
    without an interval (NaN ends).
    """
    return _score(np.asarray(ours_T, np.float64) - np.asarray(theirs_T, np.float64), overlap)


def _score(daily_T: np.ndarray, overlap: int, no_skill: float = 0.0) -> Score:
    """Mean of one number a day, with its error. Days without a number are left out, also of the lags."""
    known_T = daily_T[np.isfinite(daily_T)]
    days = len(known_T)
    if days == 0:
        return Score(math.nan, math.nan, math.nan, math.nan, 0)
    value = float(known_T.mean())
    lags = min(_LAGS_PER_OVERLAP * (overlap - 1), days // 3)
    # Overlapping labels leave fewer independent days, and the error itself is then less certain.
    freedom = days / (1 + lags) - 1
    error = newey_west_error(known_T, lags) * math.sqrt(days / (days - 1)) if days > 1 else math.nan
    if not error > _NO_SPREAD or freedom <= 0:
        return Score(value, math.nan, math.nan, math.nan, days)
    reach = float(student.ppf((1.0 + COVERAGE) / 2.0, freedom)) * error
    return Score(value, (value - no_skill) / error, value - reach, value + reach, days)


def _daily_shares(true_TS: np.ndarray, known_TS: np.ndarray) -> np.ndarray:
    count_T = known_TS.sum(axis=1)
    right_T = (true_TS & known_TS).sum(axis=1)
    return np.divide(right_T, count_T, out=np.full(len(count_T), math.nan), where=count_T > 0)


def _daily_correlations(x_TS: np.ndarray, y_TS: np.ndarray) -> np.ndarray:
    """Pearson correlation of each day over its symbols, NaN with fewer than MIN_SYMBOLS or without variance."""
    daily_T = np.full(len(x_TS), math.nan)
    for t in range(len(x_TS)):
        known_S = np.isfinite(x_TS[t])
        if known_S.sum() >= MIN_SYMBOLS:
            x_S, y_S = _standardised(x_TS[t, known_S]), _standardised(y_TS[t, known_S])
            daily_T[t] = (x_S * y_S).mean()
    return daily_T


def _pooled_correlation(x_TS: np.ndarray, y_TS: np.ndarray) -> np.ndarray:
    """One number a day whose mean is the correlation over all pairs and whose spread gives its error by day."""
    known_TS = np.isfinite(x_TS)
    x_P, y_P = _standardised(x_TS[known_TS]), _standardised(y_TS[known_TS])
    value = float((x_P * y_P).mean()) if len(x_P) else math.nan
    influence_TS = np.zeros(x_TS.shape)
    influence_TS[known_TS] = x_P * y_P - value / 2.0 * (x_P**2 + y_P**2)
    counted_T = known_TS.any(axis=1)
    days_per_pair = counted_T.sum() / max(1, len(x_P))
    return np.where(counted_T, value + influence_TS.sum(axis=1) * days_per_pair, math.nan)


def _standardised(values: np.ndarray) -> np.ndarray:
    """Mean 0 and variance 1, NaN where all are equal."""
    if not len(values):
        return values
    centred = values - values.mean()
    spread = math.sqrt(float((centred**2).mean()))
    return centred / spread if spread > _NO_SPREAD * np.abs(values).max() else np.full(len(values), math.nan)


def _ranks(values_TS: np.ndarray, axis: int | None) -> np.ndarray:
    """Ranks within a day (axis 1) or over all pairs (None), ties share their mean; NaN stays."""
    ranked = rankdata(values_TS, axis=axis, nan_policy="omit")
    return np.asarray(ranked, np.float64).reshape(values_TS.shape)
