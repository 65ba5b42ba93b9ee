"""The set `basic`: returns, ranges, volume and momenta of a stock, and the market's.

Legend: S symbols, N rows. Returns and momenta are log returns in units of the symbol's volatility (standard deviation
of its last 20 daily log returns) over the same span, so they depend neither on the price level nor on the volatility.
"""

import numpy as np

from hftraining.market.features.kernels import change, lag, mean, root_mean_square
from hftraining.market.features.registry import feature
from hftraining.market.features.rows import VOLATILITY_FLOOR, VOLATILITY_ROWS, Rows, floored_std

LONG_VOLATILITY_ROWS = 252
MOMENTA = (5, 21, 63, 252)
MONTH = 21


def at_least_20(span: int) -> int:
    """The lookback of a span that is measured in the volatility of 20 rows."""
    return max(span, VOLATILITY_ROWS)


@feature("return_1d", inputs=["close"], lookback=VOLATILITY_ROWS)
def return_1d(rows: Rows) -> np.ndarray:
    """Return from close to close."""
    return rows.return_SN / rows.volatility_SN


@feature("gap", inputs=["open", "close"], lookback=VOLATILITY_ROWS)
def gap(rows: Rows) -> np.ndarray:
    """Return from the close before to the open."""
    return np.log(rows.open_SN / lag(rows.close_SN, 1)) / rows.volatility_SN


@feature("intraday", inputs=["open", "close"], lookback=VOLATILITY_ROWS)
def intraday(rows: Rows) -> np.ndarray:
    """Return from the open to the close."""
    return np.log(rows.close_SN / rows.open_SN) / rows.volatility_SN


@feature("range", inputs=["high", "low", "close"], lookback=VOLATILITY_ROWS)
def high_over_low(rows: Rows) -> np.ndarray:
    """Return from the low to the high of the day."""
    return np.log(rows.high_SN / rows.low_SN) / rows.volatility_SN


@feature("close_in_range", inputs=["high", "low", "close"], lookback=0)
def close_in_range(rows: Rows) -> np.ndarray:
    """Where the close lies in the day's range: -0.5 at the low, 0.5 at the high, 0 without a range."""
    spread_SN = rows.high_SN - rows.low_SN
    known_SN = np.where(spread_SN > 0, spread_SN, 1.0)
    return np.where(spread_SN > 0, (rows.close_SN - rows.low_SN) / known_SN, 0.5) - 0.5


@feature("relative_volume", inputs=["volume"], lookback=VOLATILITY_ROWS, scale_free=False)
def relative_volume(rows: Rows) -> np.ndarray:
    """Log of the volume over the mean of the 20 rows before, plus one share each, so that days without are finite."""
    return np.log((rows.volume_SN + 1.0) / (lag(mean(rows.volume_SN, VOLATILITY_ROWS), 1) + 1.0))


@feature("volatility", inputs=["close"], lookback=LONG_VOLATILITY_ROWS)
def volatility(rows: Rows) -> np.ndarray:
    """Log of the volatility over the root mean square of up to 252 returns."""
    return np.log(rows.volatility_SN / _long_volatility(rows.return_SN))


def _long_volatility(return_SN: np.ndarray) -> np.ndarray:
    """Root mean square of up to the last 252 returns, floored; the first row has no return."""
    return np.maximum(root_mean_square(return_SN, LONG_VOLATILITY_ROWS), VOLATILITY_FLOOR)


@feature("momentum_{}", spans=MOMENTA, inputs=["close"], lookback=at_least_20)
def momentum(rows: Rows, span: int) -> np.ndarray:
    """Return over {span} rows, or over those that there are, at least 20."""
    length_N = np.minimum(np.arange(rows.close_SN.shape[1]), span)
    return change(rows.log_close_SN, span) / (rows.volatility_SN * np.sqrt(np.maximum(length_N, 1)))


@feature("market_return", inputs=["market"], lookback=VOLATILITY_ROWS)
def market_return(rows: Rows) -> np.ndarray:
    """The market's return of the day, in units of the market's own volatility."""
    return rows.on_days(rows.market_T / market_volatility(rows.market_T))


@feature("market_momentum_21", inputs=["market"], lookback=MONTH)
def market_momentum_21(rows: Rows) -> np.ndarray:
    """The market's return over 21 sessions, in units of the market's own volatility."""
    return rows.on_days(_market_month(rows) / (market_volatility(rows.market_T) * np.sqrt(float(MONTH))))


@feature("relative_return", inputs=["close", "market"], lookback=VOLATILITY_ROWS)
def relative_return(rows: Rows) -> np.ndarray:
    """Return of the day less the market's."""
    return (rows.return_SN - rows.on_days(rows.market_T)) / rows.volatility_SN


@feature("relative_momentum_21", inputs=["close", "market"], lookback=MONTH)
def relative_momentum_21(rows: Rows) -> np.ndarray:
    """Return over 21 rows less the market's over 21 sessions."""
    own_SN = rows.once(momentum, MONTH)
    return own_SN - rows.on_days(_market_month(rows)) / (rows.volatility_SN * np.sqrt(float(MONTH)))


def market_volatility(market_T: np.ndarray) -> np.ndarray:
    """The volatility of the market's return; NaN on the first 20 sessions, of which the first has no return."""
    return np.concatenate([[np.nan], floored_std(market_T[None, 1:])[0]]) if len(market_T) > 1 else market_T * np.nan


def _market_month(rows: Rows) -> np.ndarray:
    return change(np.cumsum(rows.market_T)[None], MONTH)[0]
