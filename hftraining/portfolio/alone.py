"""The kinds of portfolio that take each stock alone: edge, sign and head. Sizes in [-1, 1] of the largest position.

Legend: T sessions, S symbols.
"""

import numpy as np

from hftraining.trading.config import TradingRules
from hftraining.trading.towards import smoothed

CERTAIN = 1e-12  # of the median: an uncertainty below it counts as this much, so that a ratio is finite


def edge(
    median_TS: np.ndarray, uncertainty_TS: np.ndarray, full_size_at: float, smoothing: float, rules: TradingRules
) -> np.ndarray:
    """size_TS in proportion to the smoothed median / uncertainty, full where that is full_size_at.

    Only where the expected simple return, of the smoothed median, exceeds the costs of a round trip, twice
    commission + slippage; else 0, and 0 where there is no forecast. median: an expected log return. A certain
    forecast (uncertainty 0) has its full size.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # of a model that diverges
        floor_TS = np.maximum(CERTAIN * np.abs(median_TS), np.finfo(np.float64).tiny)
        ratio_TS = smoothed(median_TS / np.maximum(uncertainty_TS, floor_TS), smoothing)
        is_worth_it_TS = np.abs(np.expm1(smoothed(median_TS, smoothing))) > 2.0 * (rules.commission + rules.slippage)
    return np.where(is_worth_it_TS, np.clip(ratio_TS / full_size_at, -1.0, 1.0), 0.0)


def sign(median_TS: np.ndarray, smoothing: float) -> np.ndarray:
    """size_TS: 1 on the side of the smoothed median; 0 where that is 0 and where there is no forecast."""
    return np.sign(smoothed(median_TS, smoothing))


def head(head_TS: np.ndarray, smoothing: float) -> np.ndarray:
    """size_TS: the model's own position, cut to [-1, 1] and smoothed; 0 where there is none."""
    return smoothed(np.clip(head_TS.astype(np.float64), -1.0, 1.0), smoothing)
