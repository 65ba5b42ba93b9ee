"""The set `alpha158`: the columns of qlib's Alpha158 that daily bars can fill, under the names that they have there.

All but VWAP0, which needs the mean price of the day's trades. Source: https://github.com/microsoft/qlib,
Alpha158DL in qlib/contrib/data/loader.py and the operators in qlib/data/ops.py. docs/features.md lists where values
differ. As there, a window that begins before the first bar has the rows that there are. alpha158_changes.py has the
other half: volume, and what rises and falls.

Legend: S symbols, N rows, K statistics as in nested.py.
"""

import numpy as np

from hftraining.market.features.kernels import lag
from hftraining.market.features.nested import (
    MEAN_X,
    MEAN_Y,
    WINDOWS,
    XX,
    XY,
    YY,
    highest,
    lines,
    quantiles,
    ranks,
    std_of,
)  # fmt: skip
from hftraining.market.features.registry import feature
from hftraining.market.features.rows import Rows

STILL_PRICE = 1e-6  # of its mean: the standard deviation up to which a price does not move
BAR = ("open", "high", "low", "close")


def ratio(above_SN: np.ndarray, below_SN: np.ndarray) -> np.ndarray:
    """A ratio, 0 where it is nothing of nothing."""
    return np.where(below_SN == 0.0, 0.0, above_SN / below_SN)


def earlier(span: int) -> int:
    """The rows of a window before today's."""
    return span - 1


# The bar of the day.


@feature("KMID", inputs=["open", "close"], lookback=0)
def body(rows: Rows) -> np.ndarray:
    """Close less open, over the open."""
    return (rows.close_SN - rows.open_SN) / rows.open_SN


@feature("KLEN", inputs=["open", "high", "low"], lookback=0)
def length(rows: Rows) -> np.ndarray:
    """High less low, over the open."""
    return (rows.high_SN - rows.low_SN) / rows.open_SN


@feature("KMID2", inputs=BAR, lookback=0)
def body_in_range(rows: Rows) -> np.ndarray:
    """Close less open, over the day's range; 0 without a range."""
    return ratio(rows.close_SN - rows.open_SN, rows.high_SN - rows.low_SN)


def _above(rows: Rows) -> np.ndarray:
    return rows.high_SN - np.maximum(rows.open_SN, rows.close_SN)


def _below(rows: Rows) -> np.ndarray:
    return np.minimum(rows.open_SN, rows.close_SN) - rows.low_SN


def _shift(rows: Rows) -> np.ndarray:
    return 2.0 * rows.close_SN - rows.high_SN - rows.low_SN


@feature("KUP", inputs=BAR, lookback=0)
def above(rows: Rows) -> np.ndarray:
    """High less the larger of open and close, over the open."""
    return _above(rows) / rows.open_SN


@feature("KUP2", inputs=BAR, lookback=0)
def above_in_range(rows: Rows) -> np.ndarray:
    """High less the larger of open and close, over the day's range; 0 without a range."""
    return ratio(_above(rows), rows.high_SN - rows.low_SN)


@feature("KLOW", inputs=BAR, lookback=0)
def below(rows: Rows) -> np.ndarray:
    """The smaller of open and close less low, over the open."""
    return _below(rows) / rows.open_SN


@feature("KLOW2", inputs=BAR, lookback=0)
def below_in_range(rows: Rows) -> np.ndarray:
    """The smaller of open and close less low, over the day's range; 0 without a range."""
    return ratio(_below(rows), rows.high_SN - rows.low_SN)


@feature("KSFT", inputs=BAR, lookback=0)
def shift(rows: Rows) -> np.ndarray:
    """Twice the close less high and low, over the open."""
    return _shift(rows) / rows.open_SN


@feature("KSFT2", inputs=BAR, lookback=0)
def shift_in_range(rows: Rows) -> np.ndarray:
    """Twice the close less high and low, over the day's range; 0 without a range."""
    return ratio(_shift(rows), rows.high_SN - rows.low_SN)


@feature("OPEN0", inputs=["open", "close"], lookback=0)
def open_over_close(rows: Rows) -> np.ndarray:
    """The open over the close."""
    return rows.open_SN / rows.close_SN


@feature("HIGH0", inputs=["high", "close"], lookback=0)
def high_over_close(rows: Rows) -> np.ndarray:
    """The high over the close."""
    return rows.high_SN / rows.close_SN


@feature("LOW0", inputs=["low", "close"], lookback=0)
def low_over_close(rows: Rows) -> np.ndarray:
    """The low over the close."""
    return rows.low_SN / rows.close_SN


# The close against earlier ones, against their line over time, and among them.


def _line(rows: Rows) -> dict[int, np.ndarray]:
    return lines(rows.close_SN)


@feature("ROC{}", spans=WINDOWS, inputs=["close"], lookback=int)
def close_before(rows: Rows, span: int) -> np.ndarray:
    """The close of {span} rows before over the close."""
    return lag(rows.close_SN, span) / rows.close_SN


@feature("MA{}", spans=WINDOWS, inputs=["close"], lookback=earlier)
def mean_close(rows: Rows, span: int) -> np.ndarray:
    """Mean of the last {span} closes, over the close."""
    return rows.once(_line)[span][MEAN_Y] / rows.close_SN


@feature("STD{}", spans=WINDOWS, inputs=["close"], lookback=earlier)
def std_close(rows: Rows, span: int) -> np.ndarray:
    """Standard deviation of the last {span} closes, over the close."""
    return std_of(rows.once(_line)[span], YY) / rows.close_SN


def _slope(of_KSN: np.ndarray) -> np.ndarray:
    return of_KSN[XY] / of_KSN[XX]  # NaN of one value


@feature("BETA{}", spans=WINDOWS, inputs=["close"], lookback=earlier)
def slope(rows: Rows, span: int) -> np.ndarray:
    """Slope of the line through the last {span} closes, over the close."""
    return _slope(rows.once(_line)[span]) / rows.close_SN


@feature("RSQR{}", spans=WINDOWS, inputs=["close"], lookback=earlier)
def straightness(rows: Rows, span: int) -> np.ndarray:
    """Share of the variance of the last {span} closes that lies on their line; 0 where they do not move."""
    of_KSN = rows.once(_line)[span]
    is_still_SN = std_of(of_KSN, YY) <= STILL_PRICE * of_KSN[MEAN_Y]
    return np.where(is_still_SN, 0.0, of_KSN[XY] * _slope(of_KSN) / of_KSN[YY])


@feature("RESI{}", spans=WINDOWS, inputs=["close"], lookback=earlier)
def residual(rows: Rows, span: int) -> np.ndarray:
    """Close less the line through the last {span} closes, over the close."""
    of_KSN = rows.once(_line)[span]
    today_SN = of_KSN[MEAN_Y] - _slope(of_KSN) * of_KSN[MEAN_X]
    return (rows.close_SN - today_SN) / rows.close_SN


def _quantiles(rows: Rows, span: int) -> np.ndarray:
    return quantiles(rows.close_SN, span, 0.2, 0.8)


@feature("QTLU{}", spans=WINDOWS, inputs=["close"], lookback=earlier)
def upper_quantile(rows: Rows, span: int) -> np.ndarray:
    """80 % quantile of the last {span} closes, over the close."""
    return rows.once(_quantiles, span)[1] / rows.close_SN


@feature("QTLD{}", spans=WINDOWS, inputs=["close"], lookback=earlier)
def lower_quantile(rows: Rows, span: int) -> np.ndarray:
    """20 % quantile of the last {span} closes, over the close."""
    return rows.once(_quantiles, span)[0] / rows.close_SN


def _ranks(rows: Rows) -> np.ndarray:
    return ranks(rows.close_SN)


@feature("RANK{}", spans=WINDOWS, inputs=["close"], lookback=earlier)
def rank(rows: Rows, span: int) -> np.ndarray:
    """Rank of the close among the last {span} ones as a share; equal ones share their mean rank."""
    return rows.once(_ranks)[WINDOWS.index(span)]


# Highs and lows.


def _highs(rows: Rows) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    return highest(rows.high_SN)


def _lows(rows: Rows) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """With the lows times -1."""
    return highest(-rows.low_SN)


def _place(row_SN: np.ndarray, span: int) -> np.ndarray:
    """The place of a row in its window as a share of the span: the oldest of a full one has 1 / span, today's 1."""
    before_N = np.maximum(np.arange(row_SN.shape[1]) - span, -1)  # the row before the window
    return (row_SN - before_N) / span


@feature("MAX{}", spans=WINDOWS, inputs=["high", "close"], lookback=earlier)
def highest_high(rows: Rows, span: int) -> np.ndarray:
    """Highest high of the last {span} rows, over the close."""
    return rows.once(_highs)[span][0] / rows.close_SN


@feature("MIN{}", spans=WINDOWS, inputs=["low", "close"], lookback=earlier)
def lowest_low(rows: Rows, span: int) -> np.ndarray:
    """Lowest low of the last {span} rows, over the close."""
    return -rows.once(_lows)[span][0] / rows.close_SN


@feature("RSV{}", spans=WINDOWS, inputs=["high", "low", "close"], lookback=earlier)
def close_in_range(rows: Rows, span: int) -> np.ndarray:
    """Where the close lies between lowest low (0) and highest high (1) of the last {span} rows; 0 without a range."""
    high_SN, low_SN = rows.once(_highs)[span][0], -rows.once(_lows)[span][0]
    return ratio(rows.close_SN - low_SN, high_SN - low_SN)


@feature("IMAX{}", spans=WINDOWS, inputs=["high"], lookback=earlier)
def place_of_high(rows: Rows, span: int) -> np.ndarray:
    """Place of the highest high among the last {span} rows as a share (today 1); of equal ones the oldest."""
    return _place(rows.once(_highs)[span][1], span)


@feature("IMIN{}", spans=WINDOWS, inputs=["low"], lookback=earlier)
def place_of_low(rows: Rows, span: int) -> np.ndarray:
    """Place of the lowest low among the last {span} rows as a share (today 1); of equal ones the oldest."""
    return _place(rows.once(_lows)[span][1], span)


@feature("IMXD{}", spans=WINDOWS, inputs=["high", "low"], lookback=earlier)
def high_after_low(rows: Rows, span: int) -> np.ndarray:
    """Rows from the lowest low to the highest high of the last {span} rows, over {span}."""
    return (rows.once(_highs)[span][1] - rows.once(_lows)[span][1]) / span
