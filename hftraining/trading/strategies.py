"""Rule-based strategies from closes alone: the baselines that a forecaster has to beat.

Row t of the weights depends on closes <= t alone, so the caller may pass the whole history and trade some of its rows.

Legend: T sessions, S symbols.
"""

from collections.abc import Callable

import numpy as np

from hftraining.trading.caps import cap_weights
from hftraining.trading.config import TradingRules

MONTH, YEAR = 21, 252  # sessions
WINNERS = 0.2  # of the symbols with a momentum
DECAY = 60 / 61  # of the daily variance: a centre of mass of 60 sessions (Moskowitz, Ooi and Pedersen 2012)
TARGET_VOLATILITY = 0.40  # a year, of one position taken alone (the same)
STALE_AFTER = 5  # sessions; a symbol that is halted or on holiday for longer has no price


def momentum_weights(close_TS: np.ndarray, rules: TradingRules) -> np.ndarray:
    """12-1 momentum in the cross-section, decided every 21 sessions and held between. Returns weights_TS, finite.

    The return from t-252 to t-21: long where it lies above the median of the symbols, short where below (long
    only if not rules.allow_short), all positions of one size that together make max_gross. The middle one of an
    odd number is left out. A single symbol has no cross-section and is compared with a return of zero.
    close_TS: in currency, NaN where a symbol has no bar; 0 for a symbol without a price at t, t-21 or t-252.
    Source: Jegadeesh and Titman (1993), with halves for deciles, since a universe may be of five symbols.
    """
    return_TS = _year_but_a_month(_last_price(close_TS))
    side_TS = np.sign(return_TS - _median_or_zero(return_TS))
    return _monthly(_share_out(side_TS, rules))


def momentum_top_weights(close_TS: np.ndarray, rules: TradingRules) -> np.ndarray:
    """The fifth of the symbols with the best 12-1 momentum, long only at equal weights, decided every 21 sessions.

    At least one symbol, together max_gross, of those whose return from t-252 to t-21 lies above the median, or above
    zero where there is only one symbol. The first of equal symbols counts as better. Returns weights_TS, finite.
    close_TS: in currency, NaN where a symbol has no bar.
    Source: Jegadeesh and Titman (1993), the winners alone, with fifths for deciles.
    """
    return_TS = _year_but_a_month(_last_price(close_TS))
    count_T1 = np.ceil(np.isfinite(return_TS).sum(axis=1, keepdims=True) * WINNERS)
    place_TS = np.argsort(np.argsort(-np.nan_to_num(return_TS, nan=-np.inf), axis=1, kind="stable"), axis=1)
    is_winner_TS = (place_TS < count_T1) & (return_TS > _median_or_zero(return_TS))
    return _monthly(_share_out(is_winner_TS.astype(float), rules))


def trend_weights(close_TS: np.ndarray, rules: TradingRules) -> np.ndarray:
    """Volatility-scaled time-series momentum, decided every 21 sessions and held between. weights_TS, finite.

    The sign of the return from t-252 to t, sized so that each position alone would move by 40 % a year, over the
    number of symbols that have such a return. The caps usually bind: stocks of less than 40 % fill max_gross.
    Volatility: of daily returns, exponentially weighted, about zero where the source has it about the mean.
    close_TS: in currency, NaN where a symbol has no bar; 0 for a symbol without a price at t or t-252.
    Source: Moskowitz, Ooi and Pedersen (2012), eqs. 1 and 5.
    """
    price_TS = _last_price(close_TS)
    side_TS = np.full(price_TS.shape, np.nan)
    side_TS[YEAR:] = np.sign(price_TS[YEAR:] / price_TS[:-YEAR] - 1.0)
    n_T1 = np.isfinite(side_TS).sum(axis=1, keepdims=True)
    volatility_TS = np.sqrt(_variance(daily_returns(close_TS)) * YEAR)
    # The floor only avoids a division by zero: a constant price has no sign, and a calm one is capped.
    size_TS = TARGET_VOLATILITY / np.maximum(volatility_TS, 1e-12) / np.maximum(n_T1, 1)
    return _monthly(cap_weights(np.nan_to_num(side_TS) * size_TS, rules))


def reversal_weights(close_TS: np.ndarray, rules: TradingRules) -> np.ndarray:
    """One-day reversal in the cross-section, decided every session. Returns weights_TS, finite.

    In proportion to how far the day's return lies below (long) or above (short) the mean of the symbols that
    trade, together max_gross; long only if not rules.allow_short. A single symbol is compared with zero.
    close_TS: in currency, NaN where a symbol has no bar; 0 for a symbol without a bar, or without one before it.
    Source: Lehmann (1990), with days for weeks.
    """
    return_TS = daily_returns(close_TS)
    n_T1 = np.isfinite(return_TS).sum(axis=1, keepdims=True)
    mean_T1 = np.nan_to_num(return_TS).sum(axis=1, keepdims=True) / np.maximum(n_T1, 1)
    return _share_out(np.where(n_T1 > 1, mean_T1, 0.0) - return_TS, rules)


STRATEGIES: dict[str, Callable[[np.ndarray, TradingRules], np.ndarray]] = {
    "momentum": momentum_weights,
    "momentum_top": momentum_top_weights,
    "trend": trend_weights,
    "reversal": reversal_weights,
}


def _last_price(close_TS: np.ndarray) -> np.ndarray:
    """The last close at or before each session, NaN where it is more than STALE_AFTER sessions old."""
    price_TS = np.array(close_TS, np.float64, order="C")
    for age in range(1, STALE_AFTER + 1):
        # Earlier rounds filled every younger gap.
        price_TS[age:] = np.where(np.isnan(price_TS[age:]), close_TS[:-age], price_TS[age:])
    return price_TS


def _year_but_a_month(price_TS: np.ndarray) -> np.ndarray:
    """The return from t-252 to t-21; NaN without a price at t or at either end."""
    return_TS = np.full(price_TS.shape, np.nan)
    return_TS[YEAR:] = price_TS[YEAR - MONTH : -MONTH] / price_TS[:-YEAR] - 1.0
    return_TS[np.isnan(price_TS)] = np.nan
    return return_TS


def daily_returns(close_TS: np.ndarray) -> np.ndarray:
    """Simple return_TS of each bar since the symbol's last close, of the session before or up to STALE_AFTER older.

    close_TS: in currency, NaN where a symbol has no bar. NaN without a bar, or without one so recent before it.
    """
    return_TS = np.full(close_TS.shape, np.nan)
    return_TS[1:] = close_TS[1:] / _last_price(close_TS)[:-1] - 1.0
    return return_TS


def _variance(return_TS: np.ndarray) -> np.ndarray:
    """Exponentially weighted mean of the squares of a symbol's own returns so far, 0 before the first."""
    n_symbols = return_TS.shape[1]
    variance_TS = np.zeros(return_TS.shape)
    total_S, weight_S = np.zeros(n_symbols), np.zeros(n_symbols)
    for t, return_S in enumerate(return_TS):
        known_S = np.isfinite(return_S)
        total_S[known_S] = DECAY * total_S[known_S] + return_S[known_S] ** 2
        weight_S[known_S] = DECAY * weight_S[known_S] + 1.0
        variance_TS[t] = total_S / np.maximum(weight_S, 1.0)
    return variance_TS


def _median_or_zero(return_TS: np.ndarray) -> np.ndarray:
    """median_T1 of the known returns of each session, 0 where fewer than two are known."""
    n_T1 = np.isfinite(return_TS).sum(axis=1, keepdims=True)
    if not return_TS.size:
        return np.zeros(n_T1.shape)
    sorted_TS = np.sort(return_TS, axis=1)  # NaN last
    low_T1 = np.take_along_axis(sorted_TS, np.maximum(n_T1 - 1, 0) // 2, axis=1)
    high_T1 = np.take_along_axis(sorted_TS, n_T1 // 2 % return_TS.shape[1], axis=1)
    return np.where(n_T1 > 1, (low_T1 + high_T1) / 2.0, 0.0)


def _share_out(score_TS: np.ndarray, rules: TradingRules) -> np.ndarray:
    """Weights in proportion to the scores that together make max_gross, then within the caps; NaN gets 0."""
    share_TS = np.nan_to_num(score_TS)
    if not rules.allow_short:
        share_TS = np.maximum(share_TS, 0.0)
    gross_T1 = np.abs(share_TS).sum(axis=1, keepdims=True)
    scale_T1 = rules.max_gross / np.where(gross_T1 > 0.0, gross_T1, 1.0)
    return cap_weights(share_TS * scale_T1, rules)


def _monthly(weights_TS: np.ndarray) -> np.ndarray:
    """The weights of every 21st session, held until the next."""
    row_T = np.arange(len(weights_TS))
    return weights_TS[row_T - row_T % MONTH]
