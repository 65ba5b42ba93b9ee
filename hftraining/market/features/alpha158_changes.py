"""The set `alpha158`, other half: how volume goes with price and by itself, and what rises and falls.

As in qlib, the series that go into CORR, CORD and WVMA are rounded to float32 before.

Legend: S symbols, N rows, K statistics as in nested.py.
"""

import numpy as np

from hftraining.market.features.alpha158 import STILL_PRICE, earlier, ratio
from hftraining.market.features.kernels import lag
from hftraining.market.features.nested import COUNT, MEAN_X, WINDOWS, XX, XY, YY, moments, std_of, sums
from hftraining.market.features.registry import feature
from hftraining.market.features.rows import Rows

STILL = 2e-5  # the standard deviation up to which logs and ratios do not move
LEAST_VOLUME = 1e-3  # of the window's mean: a day with less counts as one with so much


def _correlation(of_KSN: np.ndarray, still_x: np.ndarray | float, first: int) -> np.ndarray:
    """The correlation of pairs, 0 where one of both does not move; NaN before the row `first`."""
    least_SN = np.maximum(of_KSN[COUNT] - 1.0, 1.0)
    is_still_SN = (of_KSN[XX] <= least_SN * np.square(still_x)) | (of_KSN[YY] <= least_SN * STILL**2)
    correlation_SN = np.where(is_still_SN, 0.0, of_KSN[XY] / np.sqrt(of_KSN[XX] * of_KSN[YY]))
    correlation_SN[:, :first] = np.nan
    return correlation_SN


def _with_volume(rows: Rows) -> dict[int, np.ndarray]:
    log_SN = np.log((rows.volume_SN + 1.0).astype(np.float32))
    return moments(rows.close_SN, log_SN, np.full(log_SN.shape, True))


def _change(rows: Rows) -> np.ndarray:
    return (rows.close_SN / lag(rows.close_SN, 1)).astype(np.float32)


def _changes(rows: Rows) -> dict[int, np.ndarray]:
    growth_SN = (rows.volume_SN / lag(rows.volume_SN, 1)).astype(np.float32)
    return moments(rows.once(_change), np.log(growth_SN + np.float32(1.0)), np.isfinite(growth_SN))


@feature("CORR{}", spans=WINDOWS, inputs=["close", "volume"], lookback=earlier, scale_free=False)
def level_correlation(rows: Rows, span: int) -> np.ndarray:
    """Correlation of the last {span} closes with the logs of the volumes plus one; 0 where one does not move."""
    of_KSN = rows.once(_with_volume)[span]
    return _correlation(of_KSN, STILL_PRICE * of_KSN[MEAN_X], first=1)


@feature("CORD{}", spans=WINDOWS, inputs=["close", "volume"], lookback=int)
def change_correlation(rows: Rows, span: int) -> np.ndarray:
    """Correlation of the last {span} changes of close and volume, without those after a day without volume."""
    return _correlation(rows.once(_changes)[span], STILL, first=2)


def _volumes(rows: Rows) -> dict[int, np.ndarray]:
    return moments(rows.volume_SN, rows.volume_SN, np.full(rows.volume_SN.shape, True))


def _moved(rows: Rows) -> dict[int, np.ndarray]:
    """Of the volumes, each times the size of the return of its day, which the first row has not."""
    moved_SN = np.abs(rows.once(_change) - np.float32(1.0)) * rows.volume_SN.astype(np.float32)
    has_return_SN = np.full(moved_SN.shape, True)
    has_return_SN[:, 0] = False
    return moments(moved_SN, moved_SN, has_return_SN)


def _traded(rows: Rows, span: int) -> np.ndarray:
    """The day's volume, at least LEAST_VOLUME of the window's mean."""
    return np.maximum(rows.volume_SN, LEAST_VOLUME * rows.once(_volumes)[span][MEAN_X])


@feature("VMA{}", spans=WINDOWS, inputs=["volume"], lookback=earlier)
def mean_volume(rows: Rows, span: int) -> np.ndarray:
    """Mean volume of the last {span} rows over that of the day, 1000 at most; 0 without any."""
    return ratio(rows.once(_volumes)[span][MEAN_X], _traded(rows, span))


@feature("VSTD{}", spans=WINDOWS, inputs=["volume"], lookback=earlier)
def std_volume(rows: Rows, span: int) -> np.ndarray:
    """Standard deviation of the last {span} volumes, over that of the day as in VMA{span}."""
    return ratio(std_of(rows.once(_volumes)[span], XX), _traded(rows, span))


@feature("WVMA{}", spans=WINDOWS, inputs=["close", "volume"], lookback=int)
def spread_of_moved(rows: Rows, span: int) -> np.ndarray:
    """Standard deviation over mean of volume times size of return, of the last {span} rows; 0 where none moves."""
    of_KSN = rows.once(_moved)[span]
    spread_SN = ratio(std_of(of_KSN, XX), of_KSN[MEAN_X])
    spread_SN[:, :2] = np.nan  # no deviation of fewer than two
    return spread_SN


# What rises and falls: how often, and how much of all movement.


def _steps(x_SN: np.ndarray) -> np.ndarray:
    """Changes from row to row, 0 in the first."""
    step_SN = x_SN - lag(x_SN, 1)
    step_SN[:, 0] = 0.0
    return step_SN


def _rising_days(rows: Rows) -> dict[int, np.ndarray]:
    return sums((_steps(rows.close_SN) > 0.0).astype(float))


def _falling_days(rows: Rows) -> dict[int, np.ndarray]:
    return sums((_steps(rows.close_SN) < 0.0).astype(float))


def _share_of_days(days_SN: np.ndarray, span: int) -> np.ndarray:
    return days_SN / np.minimum(np.arange(1, days_SN.shape[1] + 1), span)


@feature("CNTP{}", spans=WINDOWS, inputs=["close"], lookback=int)
def rising_days(rows: Rows, span: int) -> np.ndarray:
    """Share of the last {span} rows on which the close rose."""
    return _share_of_days(rows.once(_rising_days)[span], span)


@feature("CNTN{}", spans=WINDOWS, inputs=["close"], lookback=int)
def falling_days(rows: Rows, span: int) -> np.ndarray:
    """Share of the last {span} rows on which the close fell."""
    return _share_of_days(rows.once(_falling_days)[span], span)


@feature("CNTD{}", spans=WINDOWS, inputs=["close"], lookback=int)
def net_days(rows: Rows, span: int) -> np.ndarray:
    """CNTP{span} less CNTN{span}."""
    return _share_of_days(rows.once(_rising_days)[span] - rows.once(_falling_days)[span], span)


def _rises(rows: Rows, of: str) -> dict[int, np.ndarray]:
    return sums(np.maximum(_steps(getattr(rows, of)), 0.0))


def _falls(rows: Rows, of: str) -> dict[int, np.ndarray]:
    return sums(np.maximum(-_steps(getattr(rows, of)), 0.0))


def _share_of_moves(rows: Rows, of: str, span: int, rises: int, falls: int) -> np.ndarray:
    """So many times the rises and the falls, over all movement; 0 without any, NaN in the first row."""
    rise_SN, fall_SN = rows.once(_rises, of)[span], rows.once(_falls, of)[span]
    share_SN = ratio(rises * rise_SN + falls * fall_SN, rise_SN + fall_SN)
    share_SN[:, 0] = np.nan
    return share_SN


@feature("SUMP{}", spans=WINDOWS, inputs=["close"], lookback=int)
def rises_of_close(rows: Rows, span: int) -> np.ndarray:
    """The rises of the last {span} closes over rises and falls; 0 where none moves."""
    return _share_of_moves(rows, "close_SN", span, 1, 0)


@feature("SUMN{}", spans=WINDOWS, inputs=["close"], lookback=int)
def falls_of_close(rows: Rows, span: int) -> np.ndarray:
    """The falls of the last {span} closes over rises and falls; 0 where none moves."""
    return _share_of_moves(rows, "close_SN", span, 0, 1)


@feature("SUMD{}", spans=WINDOWS, inputs=["close"], lookback=int)
def net_rise_of_close(rows: Rows, span: int) -> np.ndarray:
    """SUMP{span} less SUMN{span}."""
    return _share_of_moves(rows, "close_SN", span, 1, -1)


@feature("VSUMP{}", spans=WINDOWS, inputs=["volume"], lookback=int)
def rises_of_volume(rows: Rows, span: int) -> np.ndarray:
    """The rises of the last {span} volumes over rises and falls; 0 where none moves."""
    return _share_of_moves(rows, "volume_SN", span, 1, 0)


@feature("VSUMN{}", spans=WINDOWS, inputs=["volume"], lookback=int)
def falls_of_volume(rows: Rows, span: int) -> np.ndarray:
    """The falls of the last {span} volumes over rises and falls; 0 where none moves."""
    return _share_of_moves(rows, "volume_SN", span, 0, 1)


@feature("VSUMD{}", spans=WINDOWS, inputs=["volume"], lookback=int)
def net_rise_of_volume(rows: Rows, span: int) -> np.ndarray:
    """VSUMP{span} less VSUMN{span}."""
    return _share_of_moves(rows, "volume_SN", span, 1, -1)
