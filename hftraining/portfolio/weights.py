"""From a forecast and bars to target weights.

Legend: T sessions, S symbols, H horizons, Q quantiles.
"""

import numpy as np

from hftraining.core.bars import Bars
from hftraining.core.errors import UserError
from hftraining.core.forecast import Forecast
from hftraining.portfolio import alone, kinds, optimized
from hftraining.portfolio.config import ABSOLUTE, PortfolioConfig, kind_of
from hftraining.portfolio.score import across_stocks, against_own_past, median_and_uncertainty, ratio_of
from hftraining.portfolio.volatility import inverse_volatility, volatility_scale
from hftraining.trading.caps import cap_weights
from hftraining.trading.config import TradingRules
from hftraining.trading.towards import smoothed, traded_towards


def target_weights(forecast: Forecast, bars: Bars, portfolio: PortfolioConfig, rules: TradingRules) -> np.ndarray:
    """Target weights_TS: signed fractions of equity, finite, within the caps of `cap_weights`.

    In this order: a signal from the forecast, smoothed (portfolio.smoothing); the weights of the kind; caps;
    volatility_target; trading towards them (trade_rate, every). docs/trading.md has the formulas with an example of
    each kind by hand. Row t uses forecasts and bars <= t alone.
    bars: of the forecast's sessions and symbols. A symbol without a bar at a session is not among the stocks of the
    day; edge, sign and head follow the forecast alone.
    Raises ValueError, one line: where forecast and bars have different shapes, and for a horizon that is not forecast;
    UserError, one line: for a kind that needs absolute returns given relative ones, for long_short without short
    positions, and for hrp and mean_variance without skfolio.
    """
    if forecast.head_TS.shape != bars.close_TS.shape:
        raise ValueError(
            f"forecast: shape {forecast.head_TS.shape}, but bars have {bars.close_TS.shape}; "
            "both must be of the same (sessions, symbols)"
        )
    kind = kind_of(portfolio, bars.close_TS.shape[1])
    _check(kind, forecast, rules)
    target_TS = cap_weights(_target(kind, forecast, bars, portfolio, rules), rules)
    if portfolio.volatility_target:
        target_TS = _at_volatility(target_TS, bars, portfolio, rules)
    return traded_towards(target_TS, bars.close_TS, portfolio.trade_rate, portfolio.every, rules)


def _check(kind: str, forecast: Forecast, rules: TradingRules) -> None:
    if kind in ABSOLUTE and forecast.relative != "none":
        raise UserError(
            f"portfolio.kind={kind} needs a forecast of absolute returns, but this one is relative to the stocks of "
            f"the day (objective.relative={forecast.relative}): choose objective.relative=none or portfolio.kind=tilt"
        )
    if kind == "long_short" and not rules.allow_short:
        raise UserError(
            "portfolio.kind=long_short sells short, but profit_tracker.allow_short=false: choose portfolio.kind=top"
        )


def _target(kind: str, forecast: Forecast, bars: Bars, portfolio: PortfolioConfig, rules: TradingRules) -> np.ndarray:
    """The weights of the kind, before caps and trading."""
    if kind == "head":
        return rules.max_position_size * alone.head(forecast.head_TS, portfolio.smoothing)
    median_TS, uncertainty_TS = median_and_uncertainty(forecast, portfolio.horizon)
    if kind == "edge":
        size_TS = alone.edge(median_TS, uncertainty_TS, portfolio.full_size_at, portfolio.smoothing, rules)
        return rules.max_position_size * size_TS
    if kind == "sign":
        return rules.max_position_size * alone.sign(median_TS, portfolio.smoothing)
    return _by_score(kind, ratio_of(median_TS, uncertainty_TS), bars, portfolio)


def _by_score(kind: str, ratio_TS: np.ndarray, bars: Bars, portfolio: PortfolioConfig) -> np.ndarray:
    present_TS = bars.present_TS
    is_equal = portfolio.weighting == "equal"
    basis_TS = np.ones(present_TS.shape) if is_equal else inverse_volatility(bars.close_TS)
    base_TS = kinds.base_weights(basis_TS, present_TS)
    if kind == "timing":
        return kinds.timing(smoothed(against_own_past(ratio_TS), portfolio.smoothing), base_TS)
    if kind == "hrp":
        return optimized.hrp(bars.close_TS, base_TS, portfolio.every)
    score_TS = smoothed(across_stocks(ratio_TS, present_TS), portfolio.smoothing)
    if kind == "mean_variance":
        return optimized.mean_variance(score_TS, bars.close_TS, base_TS, portfolio)
    if kind == "tilt":
        return kinds.tilt(score_TS, base_TS, portfolio.strength)
    if kind == "top":
        return kinds.top(score_TS, basis_TS, present_TS, portfolio.fraction, portfolio.keep)
    long_short_TS = kinds.long_short(score_TS, basis_TS, present_TS, portfolio.fraction)
    return long_short_TS if kind == "long_short" else kinds.core(long_short_TS, base_TS, portfolio.share)


def _at_volatility(target_TS: np.ndarray, bars: Bars, portfolio: PortfolioConfig, rules: TradingRules) -> np.ndarray:
    """The target scaled by the trailing volatility of the book that trades it unscaled, as far as max_gross allows."""
    book_TS = traded_towards(target_TS, bars.close_TS, portfolio.trade_rate, portfolio.every, rules)
    scale_T = volatility_scale(book_TS, bars.close_TS, portfolio.volatility_target)
    gross_T = np.abs(target_TS).sum(axis=1)
    most_T = rules.max_gross / np.where(gross_T > 0.0, gross_T, rules.max_gross)
    return cap_weights(target_TS * np.minimum(scale_T, most_T)[:, None], rules)
