"""The set `wide`: returns, volatility, skew, volume, ranges, distances and the market over 5 to 252 rows.

Legend: S symbols, N rows. Every span that is longer than a young stock's history uses the rows that there are, at least
20, so that all of them are known from a stock's 21st bar on. Returns are log returns, and those over a span are in
units of the symbol's volatility (of its last 20 rows) times the root of the span's rows.
"""

import numpy as np

from hftraining.market.features.basic import at_least_20, close_in_range
from hftraining.market.features.kernels import lag, mean, std
from hftraining.market.features.moments import highest, lowest, skew, together
from hftraining.market.features.registry import feature
from hftraining.market.features.rows import VOLATILITY_FLOOR, VOLATILITY_ROWS, Rows

LEAST = 20  # values that a longer span needs
MONTH, YEAR = 21, 252


@feature("momentum_252_21", inputs=["close"], lookback=YEAR)
def momentum_but_the_last_month(rows: Rows) -> np.ndarray:
    """Return from 252 to 21 rows ago, or from the first row; 0 with fewer than 22 rows."""
    row_N = np.arange(rows.close_SN.shape[1])
    start_N, end_N = np.maximum(row_N - YEAR, 0), np.maximum(row_N - MONTH, 0)
    unit_SN = rows.volatility_SN * np.sqrt(np.maximum(end_N - start_N, 1))
    return (rows.log_close_SN[:, end_N] - rows.log_close_SN[:, start_N]) / unit_SN


@feature("volatility_20", inputs=["close"], lookback=VOLATILITY_ROWS)
def volatility_level(rows: Rows) -> np.ndarray:
    """Log of the volatility a day."""
    return np.log(rows.volatility_SN)


@feature("volatility_5_63", inputs=["close"], lookback=63)
def volatility_of_a_week(rows: Rows) -> np.ndarray:
    """Log of the standard deviation of 5 returns over that of 63."""
    week_SN, quarter_SN = std(rows.return_SN, 5), std(rows.return_SN, 63, LEAST)
    return np.log(np.maximum(week_SN, VOLATILITY_FLOOR) / np.maximum(quarter_SN, VOLATILITY_FLOOR))


@feature("downside_{}", spans=[63], inputs=["close"], lookback=at_least_20)
def downside(rows: Rows, span: int) -> np.ndarray:
    """Share of the falls in the sum of squared returns over {span} rows; 0.5 where nothing moves."""
    fall_SN = mean(np.minimum(rows.return_SN, 0.0) ** 2, span, LEAST)
    all_SN = mean(rows.return_SN**2, span, LEAST)
    return np.where(all_SN == 0.0, 0.5, fall_SN / all_SN)


@feature("skew_{}", spans=[63, YEAR], inputs=["close"], lookback=at_least_20)
def skew_of_returns(rows: Rows, span: int) -> np.ndarray:
    """Skew of the returns over {span} rows."""
    return skew(rows.return_SN, span, LEAST)


@feature("max_return_{}", spans=[MONTH], inputs=["close"], lookback=at_least_20)
def max_return(rows: Rows, span: int) -> np.ndarray:
    """Highest daily return in {span} rows, in volatilities (Bali, Cakici and Whitelaw 2011)."""
    return highest(rows.return_SN, span, LEAST) / rows.volatility_SN


@feature("volume_5_63", inputs=["volume"], lookback=62, scale_free=False)
def volume_of_a_week(rows: Rows) -> np.ndarray:
    """Log of the mean volume of 5 rows over that of 63, plus one share each."""
    return np.log((mean(rows.volume_SN, 5) + 1.0) / (mean(rows.volume_SN, 63, LEAST) + 1.0))


@feature("volume_21_252", inputs=["volume"], lookback=251, scale_free=False)
def volume_of_a_month(rows: Rows) -> np.ndarray:
    """Log of the mean volume of 21 rows over that of 252, plus one share each."""
    return np.log((mean(rows.volume_SN, MONTH, LEAST) + 1.0) / (mean(rows.volume_SN, YEAR, LEAST) + 1.0))


@feature("volume_volatility_{}", spans=[63], inputs=["volume"], lookback=at_least_20, scale_free=False)
def volume_volatility(rows: Rows, span: int) -> np.ndarray:
    """Standard deviation over {span} rows of the log change of the volume plus one share."""
    return std(rows.once(_volume_change), span, LEAST)


@feature("volume_return_{}", spans=[63], inputs=["close", "volume"], lookback=at_least_20, scale_free=False)
def volume_with_return(rows: Rows, span: int) -> np.ndarray:
    """Correlation over {span} rows of the return and the log change of the volume plus one share."""
    return together(rows.return_SN, rows.once(_volume_change), span, LEAST)[1]


def _volume_change(rows: Rows) -> np.ndarray:
    log_SN = np.log(rows.volume_SN + 1.0)
    return log_SN - lag(log_SN, 1)


@feature("range_21_252", inputs=["high", "low"], lookback=251)
def range_of_a_month(rows: Rows) -> np.ndarray:
    """Log of the mean daily range (log high over low) of 21 rows over that of 252."""
    range_SN = np.log(rows.high_SN / rows.low_SN)
    month_SN, year_SN = mean(range_SN, MONTH, LEAST), mean(range_SN, YEAR, LEAST)
    return np.log(np.maximum(month_SN, VOLATILITY_FLOOR) / np.maximum(year_SN, VOLATILITY_FLOOR))


@feature("close_in_range_21", inputs=["high", "low", "close"], lookback=20)
def close_in_range_of_a_month(rows: Rows) -> np.ndarray:
    """Mean over 21 rows of where the close lies in the day's range, from -0.5 at the low to 0.5 at the high."""
    return mean(close_in_range(rows), MONTH, LEAST)


@feature("overnight_21", inputs=["open", "close"], lookback=MONTH)
def overnight(rows: Rows) -> np.ndarray:
    """Return from close to open over 21 rows."""
    gap_SN = np.log(rows.open_SN / lag(rows.close_SN, 1))
    return mean(gap_SN, MONTH, LEAST) * np.sqrt(float(MONTH)) / rows.volatility_SN


@feature("intraday_21", inputs=["open", "close"], lookback=VOLATILITY_ROWS)
def within_days(rows: Rows) -> np.ndarray:
    """Return from open to close over 21 rows."""
    return mean(np.log(rows.close_SN / rows.open_SN), MONTH, LEAST) * np.sqrt(float(MONTH)) / rows.volatility_SN


@feature("to_high_{}", spans=[MONTH, YEAR], inputs=["high", "close"], lookback=at_least_20)
def to_high(rows: Rows, span: int) -> np.ndarray:
    """Return from the highest high of {span} rows to the close, never above 0 (George and Hwang 2004)."""
    return np.log(rows.close_SN / highest(rows.high_SN, span, LEAST)) / _unit(rows, span)


@feature("to_low_{}", spans=[MONTH, YEAR], inputs=["low", "close"], lookback=at_least_20)
def to_low(rows: Rows, span: int) -> np.ndarray:
    """Return from the lowest low of {span} rows to the close, never below 0."""
    return np.log(rows.close_SN / lowest(rows.low_SN, span, LEAST)) / _unit(rows, span)


def _unit(rows: Rows, span: int) -> np.ndarray:
    """The volatility of a return over a span, or over the rows that there are."""
    length_N = np.minimum(np.arange(rows.close_SN.shape[1]) + 1, span)
    return rows.volatility_SN * np.sqrt(length_N)


@feature("beta_{}", spans=[63, YEAR], inputs=["close", "market"], lookback=at_least_20)
def beta(rows: Rows, span: int) -> np.ndarray:
    """Slope of the returns on the market's over {span} rows; 0 where one of both does not move."""
    return rows.once(_with_market, span)[0]


@feature("residual_{}", spans=[5, MONTH, YEAR], inputs=["close", "market"], lookback=lambda span: YEAR)
def residual(rows: Rows, span: int) -> np.ndarray:
    """Return over {span} rows less beta_252 times the market's, or over the rows that there are."""
    start_N = np.maximum(np.arange(rows.close_SN.shape[1]) - span, 0)
    own_SN, market_SN = rows.log_close_SN, rows.once(_market_level)
    beta_SN = rows.once(_with_market, YEAR)[0]
    apart_SN = (own_SN - own_SN[:, start_N]) - beta_SN * (market_SN - market_SN[:, start_N])
    return apart_SN / (rows.volatility_SN * np.sqrt(np.clip(np.arange(rows.close_SN.shape[1]), 1, span)))


@feature("residual_volatility_{}", spans=[63], inputs=["close", "market"], lookback=at_least_20)
def residual_volatility(rows: Rows, span: int) -> np.ndarray:
    """Share of the standard deviation over {span} rows that the market does not explain: root of 1 - R squared."""
    return np.sqrt(np.maximum(1.0 - rows.once(_with_market, span)[1] ** 2, 0.0))


def _market_level(rows: Rows) -> np.ndarray:
    """The sum of the market's returns up to the day of each row."""
    return rows.on_days(np.cumsum(rows.market_T))


def _with_market(rows: Rows, span: int) -> np.ndarray:
    """Slope of the returns on the market's, and their correlation."""
    return together(rows.return_SN, rows.once(_market_return), span, LEAST)


def _market_return(rows: Rows) -> np.ndarray:
    """The market's return since the symbol's row before."""
    return rows.once(_market_level) - lag(rows.once(_market_level), 1)
