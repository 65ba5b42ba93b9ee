"""From a forecast and bars to target weights.

Legend: T sessions, S symbols, H horizons, Q quantiles.
"""

from statistics import NormalDist

import numpy as np

from hftraining.core.bars import Bars
from hftraining.core.forecast import Forecast
from hftraining.portfolio.config import PortfolioConfig, kind_of
from hftraining.trading.caps import cap_weights
from hftraining.trading.config import TradingRules


def target_weights(forecast: Forecast, bars: Bars, portfolio: PortfolioConfig, rules: TradingRules) -> np.ndarray:
    """Target weights_TS: signed fractions of equity, finite, 0 where there is no forecast.

    bars: of the forecast's sessions and symbols.
    edge: long or short in proportion to median / uncertainty, full at config.full_size_at, and only where the
    expected simple return exceeds the costs of a round trip. Uncertainty is a standard deviation of the log
    return: the distance between the outer quantiles, divided by the same distance in a standard normal.
    sign: full size on the median's side. top_k: in each session, full size long in the k symbols with the highest
    medians and short in the k with the lowest; fewer where there are not enough forecasts for both sides. A median
    of exactly 0 trades nothing. head: the model's own position. All within the caps of `cap_weights`.
    Raises ValueError where forecast and bars have different shapes, and for a horizon that is not forecast.
    """
    if forecast.head_TS.shape != bars.close_TS.shape:
        raise ValueError(
            f"forecast: shape {forecast.head_TS.shape}, but bars have {bars.close_TS.shape}; "
            "both must be of the same (sessions, symbols)"
        )
    kind = kind_of(portfolio, len(bars.symbols_S))
    if kind == "head":
        size_TS = np.clip(np.nan_to_num(forecast.head_TS.astype(np.float64)), -1.0, 1.0)
    else:
        median_TS, uncertainty_TS = _median_and_uncertainty(forecast, portfolio.horizon)
        if kind == "edge":
            size_TS = _edge(median_TS, uncertainty_TS, portfolio.full_size_at, rules)
        else:
            size_TS = np.sign(np.nan_to_num(median_TS))
    return cap_weights(rules.max_position_size * size_TS, rules)


def _median_and_uncertainty(forecast: Forecast, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    chosen = horizon or max(forecast.horizons)
    if chosen not in forecast.horizons:
        raise ValueError(f"portfolio.horizon={chosen} is not forecast: horizons are {list(forecast.horizons)}")
    quantiles_TSQ = forecast.quantiles_TSHQ[:, :, forecast.horizons.index(chosen)].astype(np.float64)
    absent_TS = ~np.isfinite(quantiles_TSQ).all(axis=-1)
    median_TS = np.where(absent_TS, np.nan, quantiles_TSQ[:, :, forecast.levels.index(0.5)])
    normal = NormalDist()
    distance = normal.inv_cdf(forecast.levels[-1]) - normal.inv_cdf(forecast.levels[0])
    spread_TS = np.where(absent_TS, 0.0, np.abs(quantiles_TSQ[:, :, -1] - quantiles_TSQ[:, :, 0]))
    return median_TS, spread_TS / distance if distance else spread_TS


def _edge(median_TS: np.ndarray, uncertainty_TS: np.ndarray, full_size_at: float, rules: TradingRules) -> np.ndarray:
    edge_TS = np.nan_to_num(median_TS)
    round_trip = 2.0 * (rules.commission + rules.slippage)
    full_TS = full_size_at * uncertainty_TS
    # Dividing by the larger of the two clips at full size and needs no special case for a certain forecast.
    size_TS = edge_TS / np.maximum(np.maximum(full_TS, np.abs(edge_TS)), np.finfo(np.float64).tiny)
    with np.errstate(over="ignore"):  # of a model that diverges: more than any cost, as infinity is
        return np.where(np.abs(np.expm1(edge_TS)) > round_trip, size_TS, 0.0)
