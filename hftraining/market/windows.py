"""Chronological splits with purge, and the sampler of contiguous training windows.

Legend: T sessions, S symbols, F features, H horizons, W windows of days in a batch, K symbols in each, L bars.
"""

from dataclasses import dataclass

import numpy as np

from hftraining.core.bars import Bars
from hftraining.market.config import MarketDataError, StocksConfig
from hftraining.market.features.scaler import Scaled

TRAIN_SHARE, TRAIN_AND_VALID_SHARE = 0.70, 0.85  # where validation and test begin when no date is given


@dataclass(frozen=True)
class Splits:
    """Rows of the sessions on which each period takes its decisions; purged rows belong to none."""

    train: slice
    valid: slice
    test: slice

    def days(self, sessions_T: np.ndarray) -> dict[str, tuple[str, str]]:
        """The first and last session of each period, as ISO dates."""
        periods = {"train": self.train, "valid": self.valid, "test": self.test}
        return {name: (str(sessions_T[rows.start]), str(sessions_T[rows.stop - 1])) for name, rows in periods.items()}


def make_splits(sessions_T: np.ndarray, config: StocksConfig, purge: int) -> Splits:
    """Training, validation and test period, in chronological order.

    purge: lag + longest horizon. The last `purge` sessions before validation and before test belong to no
    period, since their labels would reach into the next one. The test period ends with the bars.
    """
    valid_start = _first_row(sessions_T, config.valid_start, TRAIN_SHARE, "valid_start")
    test_start = _first_row(sessions_T, config.test_start, TRAIN_AND_VALID_SHARE, "test_start")
    splits = Splits(
        slice(0, valid_start - purge), slice(valid_start, test_start - purge), slice(test_start, len(sessions_T))
    )
    for name, rows in (("training", splits.train), ("validation", splits.valid), ("test", splits.test)):
        if rows.stop - rows.start <= purge:
            raise MarketDataError(
                f"stocks: no {name} days are left: of {len(sessions_T)} sessions, validation begins at row "
                f"{valid_start} and test at row {test_start}, and each period needs more than the purge of {purge} "
                "sessions (lag + longest horizon): use more data, other dates or shorter objective.horizons"
            )
    return splits


def _first_row(sessions_T: np.ndarray, day: str | None, share: float, name: str) -> int:
    if day is None:
        return int(len(sessions_T) * share)
    row = int(np.searchsorted(sessions_T, np.datetime64(day)))
    if row == 0 or row == len(sessions_T):
        raise MarketDataError(
            f"stocks.{name}={day} lies outside the data, which run from {sessions_T[0]} to {sessions_T[-1]}; "
            f"stocks.{name}=null puts it after {share:.0%} of the sessions"
        )
    return row


@dataclass(frozen=True)
class Batch:
    """A step's windows: the same L sessions for the K symbols of a window, so that they can share an account.

    A place stays empty where fewer than K symbols have labels in a window. present_WKL is False where a symbol has
    no features that day, prices are NaN where it has no bar; in an empty place both hold throughout.
    """

    x_WKLF: np.ndarray  # float32
    label_WKLH: np.ndarray  # float32, NaN where unknown
    present_WKL: np.ndarray  # bool
    open_WKL: np.ndarray  # float32, in currency
    close_WKL: np.ndarray  # float32, in currency
    symbol_WK: np.ndarray  # int64, the symbol's number in the model's universe; -1: none of it, or an empty place


def places_of(batch_size: int, symbols_per_window: int, n_symbols: int) -> tuple[int, int]:
    """How many windows W a batch has, and places K for symbols in each: no place is empty for lack of symbols.

    Together at most batch_size places.
    """
    places = min(symbols_per_window, n_symbols, batch_size)
    return max(1, batch_size // places), places


class WindowSampler:
    """Draws batches of contiguous windows from the training days. A batch is a function of (seed, step).

    The symbols of a window share its days, so that labels beside the other stocks of a day can be learned from them.
    """

    def __init__(
        self,
        bars: Bars,
        scaled_TSF: np.ndarray | Scaled,
        known_TS: np.ndarray,
        labels_TSH: np.ndarray,
        train: slice,
        window: int,
        batch_size: int,
        symbols_per_window: int,
        symbol_S: np.ndarray | None = None,
    ):
        """symbol_S: the symbols' numbers in the model's universe, see Forecaster.numbers_of; None: in these bars."""
        n_starts = train.stop - train.start - window + 1
        if n_starts < 1:
            raise MarketDataError(
                f"training.window={window} is longer than the {train.stop - train.start} training days: "
                "use a shorter window or more data"
            )
        self.window = window
        self.windows_per_batch, self.places = places_of(batch_size, symbols_per_window, known_TS.shape[1])
        self.scaled_TSF, self.known_TS = scaled_TSF[train], known_TS[train]
        self.labels_TSH = np.where(self.known_TS[:, :, None], labels_TSH[train], np.float32(np.nan))
        self.open_TS = bars.open_TS[train].astype(np.float32)
        self.close_TS = bars.close_TS[train].astype(np.float32)
        self.symbol_S = np.arange(known_TS.shape[1]) if symbol_S is None else symbol_S

        # A symbol takes part in a window when at least half of the window's bars have a label.
        labelled_TS = np.isfinite(self.labels_TSH).any(axis=2)
        total_TS = np.concatenate([np.zeros((1, labelled_TS.shape[1]), int), np.cumsum(labelled_TS, axis=0)])
        self.eligible_TS = total_TS[window:] - total_TS[:-window] >= window / 2
        self.starts = np.flatnonzero(self.eligible_TS.any(axis=1))
        if not len(self.starts):
            raise MarketDataError(
                f"training.window={window}: no symbol has labels on half of any {window} training days in a row: "
                "use a shorter window or more data"
            )

    def batch(self, seed: int, step: int) -> Batch:
        """The windows of a step: always the same for the same seed and step."""
        rng = np.random.default_rng([seed, step])
        start_W = rng.choice(self.starts, self.windows_per_batch)
        key_WS = rng.random((self.windows_per_batch, self.eligible_TS.shape[1]))
        key_WS[~self.eligible_TS[start_W]] = np.inf
        symbol_WK = np.argsort(key_WS, axis=1)[:, : self.places]
        taken_WK = np.isfinite(np.take_along_axis(key_WS, symbol_WK, axis=1))

        at = (start_W[:, None, None] + np.arange(self.window), symbol_WK[:, :, None])  # broadcasts to WKL
        taken_WK1 = taken_WK[:, :, None]
        unknown = np.float32(np.nan)
        return Batch(
            x_WKLF=self.scaled_TSF[at],
            label_WKLH=np.where(taken_WK1[..., None], self.labels_TSH[at], unknown),
            present_WKL=self.known_TS[at] & taken_WK1,
            open_WKL=np.where(taken_WK1, self.open_TS[at], unknown),
            close_WKL=np.where(taken_WK1, self.close_TS[at], unknown),
            symbol_WK=np.where(taken_WK, self.symbol_S[symbol_WK], -1),
        )
