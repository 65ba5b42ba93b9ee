"""Causal, scale-free features of bars, and the scaler that is fitted on training days.

Legend: T sessions, S symbols, F features, N rows of one symbol (the sessions on which it has a bar).
Row t of every array uses rows <= t alone; the leak proof checks this to the bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from hftraining.core.bars import ARRAYS, Bars

FEATURES = (
    "return_1d",  # close to close
    "gap",  # previous close to open
    "intraday",  # open to close
    "range",  # low to high
    "close_in_range",  # -0.5 at the low, 0.5 at the high
    "relative_volume",  # against the mean of the 20 rows before
    "volatility",  # of 20 rows against 252
    "momentum_5",
    "momentum_21",
    "momentum_63",
    "momentum_252",
    "market_return",  # mean of the universe's returns of the day
    "market_momentum_21",
    "relative_return",  # the symbol's return minus the market's
    "relative_momentum_21",
)
VOLATILITY_ROWS = 20
LONG_VOLATILITY_ROWS = 252
VOLATILITY_FLOOR = 0.001  # a day; without it a constant price would give infinite features
SCALED_LIMIT = 5.0  # standard deviations; beyond it a feature says no more than "extreme"


@dataclass(frozen=True)
class Features:
    """values_TSF: float32, NaN where a symbol has no bar or not yet 21 rows. volatility_TS: trailing, a day."""

    values_TSF: np.ndarray
    volatility_TS: np.ndarray

    @property
    def known_TS(self) -> np.ndarray:
        """Where all features of a symbol are known, boolean."""
        return np.isfinite(self.values_TSF).all(axis=2)

    def of(self, columns: Sequence[int]) -> "Features":
        """The features of some symbols, by column; the market in them stays the whole universe."""
        return Features(self.values_TSF[:, columns], self.volatility_TS[:, columns])


def make_features(bars: Bars) -> Features:
    """The features of FEATURES, in that order, at every session.

    Returns and momenta are log returns in units of the symbol's volatility (standard deviation of its last 20
    daily log returns) over the same span, so they depend neither on the price level nor on the
    volatility. A row counts only where the symbol has a bar: "20 rows" are its own last 20 bars.
    A momentum that spans more rows than a symbol has yet uses the rows that it has, at least 20.
    """
    n_sessions, n_symbols = bars.close_TS.shape
    return_TS = np.full((n_sessions, n_symbols), np.nan)
    volatility_TS = np.full((n_sessions, n_symbols), np.nan)
    values_TSF = np.full((n_sessions, n_symbols, len(FEATURES)), np.nan)
    own = FEATURES.index("market_return")  # the features before it need the symbol's own bars alone
    present_TS = bars.present_TS  # a property that scans all bars
    for s in range(n_symbols):
        rows = np.flatnonzero(present_TS[:, s])
        # Counts in the market from its second bar on, whether or not it will ever have a volatility.
        return_TS[rows[1:], s] = np.diff(np.log(bars.close_TS[rows, s]))
        if len(rows) <= VOLATILITY_ROWS:
            continue
        own_NA = (getattr(bars, name)[rows, s] for name in ARRAYS)
        volatility_TS[rows, s], values_TSF[rows, s, :own] = _own_features(*own_NA)

    # The mean of log returns over the symbols that trade today and traded before; 0 on a day without any.
    counts_T = np.isfinite(return_TS).sum(axis=1)
    market_T = np.nansum(return_TS, axis=1) / np.maximum(counts_T, 1)
    market_volatility_T = np.full(n_sessions, np.nan)
    market_volatility_T[VOLATILITY_ROWS:] = _rolling_std(market_T[1:], VOLATILITY_ROWS)
    market_21_T = _momentum(np.cumsum(market_T), 21)
    root_21 = np.sqrt(21.0)
    month = FEATURES.index("momentum_21")
    values_TSF[:, :, own] = (market_T / market_volatility_T)[:, None]
    values_TSF[:, :, own + 1] = (market_21_T / (market_volatility_T * root_21))[:, None]
    values_TSF[:, :, own + 2] = (return_TS - market_T[:, None]) / volatility_TS
    values_TSF[:, :, own + 3] = values_TSF[:, :, month] - market_21_T[:, None] / (volatility_TS * root_21)
    values_TSF[~np.isfinite(values_TSF).all(axis=2)] = np.nan
    return Features(values_TSF.astype(np.float32), volatility_TS)


def _own_features(
    open_N: np.ndarray, high_N: np.ndarray, low_N: np.ndarray, close_N: np.ndarray, volume_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Trailing volatility, and the features of one symbol that need no other symbol."""
    log_close_N = np.log(close_N)
    return_N = np.diff(log_close_N, prepend=np.nan)
    volatility_N = np.full(len(close_N), np.nan)
    volatility_N[VOLATILITY_ROWS:] = _rolling_std(return_N[1:], VOLATILITY_ROWS)
    gap_N = np.log(open_N[1:] / close_N[:-1])
    spread_N = high_N - low_N
    position_N = np.where(spread_N > 0, (close_N - low_N) / np.where(spread_N > 0, spread_N, 1.0), 0.5)
    columns = [
        return_N / volatility_N,
        np.concatenate([[np.nan], gap_N]) / volatility_N,
        np.log(close_N / open_N) / volatility_N,
        np.log(high_N / low_N) / volatility_N,
        position_N - 0.5,
        _relative_volume(volume_N),
        np.log(volatility_N / _long_volatility(return_N)),
    ]
    for span in (5, 21, 63, 252):
        length_N = np.minimum(np.arange(len(close_N)), span)
        columns.append(_momentum(log_close_N, span) / (volatility_N * np.sqrt(np.maximum(length_N, 1))))
    return volatility_N, np.stack(columns, axis=1)


def _rolling_std(values_N: np.ndarray, span: int) -> np.ndarray:
    """Standard deviation (ddof 1, floored) of the last `span` values, for each row that has them."""
    return np.maximum(sliding_window_view(values_N, span).std(axis=1, ddof=1), VOLATILITY_FLOOR)


def _long_volatility(return_N: np.ndarray) -> np.ndarray:
    """Root mean square of up to the last 252 returns, floored; the first row has no return."""
    total_N = np.cumsum(np.where(np.isnan(return_N), 0.0, return_N) ** 2)
    before_N = np.concatenate([np.zeros(LONG_VOLATILITY_ROWS), total_N])[: len(total_N)]
    count_N = np.clip(np.arange(len(return_N)), 1, LONG_VOLATILITY_ROWS)
    return np.maximum(np.sqrt(np.maximum(total_N - before_N, 0.0) / count_N), VOLATILITY_FLOOR)


def _momentum(log_price_N: np.ndarray, span: int) -> np.ndarray:
    """Log return over the last `span` rows, over fewer where there are fewer."""
    start_N = np.maximum(np.arange(len(log_price_N)) - span, 0)
    return log_price_N - log_price_N[start_N]


def _relative_volume(volume_N: np.ndarray) -> np.ndarray:
    """Log of volume over the mean of the 20 rows before, plus one share, so that days without volume are finite."""
    mean_N = np.full(len(volume_N), np.nan)
    mean_N[VOLATILITY_ROWS:] = sliding_window_view(volume_N, VOLATILITY_ROWS)[:-1].mean(axis=1)
    return np.log((volume_N + 1.0) / (mean_N + 1.0))


@dataclass(frozen=True)
class Scaler:
    """Mean and standard deviation of each feature over training days, all symbols together."""

    features: tuple[str, ...]
    mean_F: tuple[float, ...]
    std_F: tuple[float, ...]

    @classmethod
    def fit(cls, features: Features, train: slice) -> "Scaler":
        """Fit on the sessions of `train` alone. A feature without variance is scaled by 1."""
        rows_NF = features.values_TSF[train][features.known_TS[train]].astype(np.float64)
        if not len(rows_NF):
            raise ValueError(
                "no training day has features: a symbol needs more than 20 bars before the training days end"
            )
        std_F = rows_NF.std(axis=0)
        std_F[std_F < 1e-9] = 1.0
        return cls(FEATURES, tuple(map(float, rows_NF.mean(axis=0))), tuple(map(float, std_F)))

    def scale(self, values_TSF: np.ndarray) -> np.ndarray:
        """Standardised float32, clipped to +-5, and 0 (the training mean) where a feature is unknown."""
        scaled = (values_TSF - np.asarray(self.mean_F, np.float32)) / np.asarray(self.std_F, np.float32)
        return np.nan_to_num(np.clip(scaled, -SCALED_LIMIT, SCALED_LIMIT), nan=0.0).astype(np.float32)
