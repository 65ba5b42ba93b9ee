"""Leaks in features and labels, for the gallery: each a few lines that know what is to come.

Legend: T sessions, S symbols, F features, H horizons.
"""

from typing import Any

import numpy as np

from hftraining.core.bars import Bars
from hftraining.experiment.planting import Column, ahead
from hftraining.market.labels import make_labels, trailing_beta


def return_of_tomorrow(bars: Bars, values_TSF: np.ndarray) -> np.ndarray:
    """From the close of the day to the next."""
    return np.log(ahead(bars.close_TS) / bars.close_TS)


def gap_of_tomorrow(bars: Bars, values_TSF: np.ndarray) -> np.ndarray:
    """From the close of the day to the next open."""
    return np.log(ahead(bars.open_TS) / bars.close_TS)


def over_the_maximum_of_all_years(bars: Bars, values_TSF: np.ndarray) -> np.ndarray:
    """Prices between 0 and 1, as in the data preparation of Feng et al. (2019)."""
    return bars.close_TS / np.nanmax(bars.close_TS, axis=0, initial=1e-9)


def has_a_bar_tomorrow(bars: Bars, values_TSF: np.ndarray) -> np.ndarray:
    """1 where the symbol trades on the next session."""
    return ahead(bars.present_TS).astype(float)


def bars_until_the_last(bars: Bars, values_TSF: np.ndarray) -> np.ndarray:
    """How many bars a symbol still has."""
    return np.cumsum(bars.present_TS[::-1], axis=0)[::-1] / 100.0


def lives_until_the_end(bars: Bars, values_TSF: np.ndarray) -> np.ndarray:
    """1 for a symbol that trades on the last session of all."""
    return np.broadcast_to(bars.present_TS[-1].astype(float), bars.close_TS.shape)


def sessions_until_the_end(bars: Bars, values_TSF: np.ndarray) -> np.ndarray:
    """How many sessions the bars still have."""
    left_T = np.arange(len(bars.sessions_T))[::-1] / 100.0
    return np.broadcast_to(left_T[:, None], bars.close_TS.shape)


def market_of_survivors(bars: Bars, values_TSF: np.ndarray) -> np.ndarray:
    """The mean return of the day over the symbols that still trade at the end."""
    survivors = np.flatnonzero(bars.present_TS[-1])
    return_TS = values_TSF[:, survivors if len(survivors) else [0], 0]
    return np.broadcast_to(np.nan_to_num(return_TS).mean(axis=1, keepdims=True), bars.close_TS.shape)


def market_with_listings_of_tomorrow(bars: Bars, values_TSF: np.ndarray) -> np.ndarray:
    """The mean return of the day over the number of symbols that will ever have been listed by tomorrow."""
    listed_TS = np.maximum.accumulate(ahead(bars.present_TS), axis=0)
    total_T1 = np.nan_to_num(values_TSF[:, :, 0]).sum(axis=1, keepdims=True)
    return np.broadcast_to(total_T1 / np.maximum(listed_TS.sum(axis=1, keepdims=True), 1), bars.close_TS.shape)


def sessions_until_the_next_split(bars: Bars, values_TSF: np.ndarray) -> np.ndarray:
    """0 to 2 in the twenty sessions before a split or dividend."""
    until_TS = np.full(bars.close_TS.shape, 9.0)
    for symbol, date in zip(bars.events["symbol"], bars.events["date"], strict=True):
        row = int(np.searchsorted(bars.sessions_T, np.datetime64(date, "D")))
        s, first = bars.symbols_S.index(symbol), max(0, row - 20)
        until_TS[first:row, s] = (row - np.arange(first, row)) / 10.0
    return until_TS


def price_level(bars: Bars, values_TSF: np.ndarray) -> np.ndarray:
    """Which later splits and dividends rescale."""
    return np.log(bars.close_TS)


def market_by_traded_value(bars: Bars, values_TSF: np.ndarray) -> np.ndarray:
    """The mean return of the day, weighted by what each symbol trades over the whole sample."""
    traded_S = np.nan_to_num(bars.close_TS * bars.volume_TS).mean(axis=0)
    total_T1 = (np.nan_to_num(values_TSF[:, :, 0]) * traded_S).sum(axis=1, keepdims=True)
    return np.broadcast_to(total_T1 / traded_S.sum(), bars.close_TS.shape)


def from_the_test_days_on(column: Column) -> Column:
    """A column that is only known on the last 15 % of the sessions, else 0."""

    def late(bars: Bars, values_TSF: np.ndarray) -> np.ndarray:
        is_late_T1 = (np.arange(len(bars.sessions_T)) >= 0.85 * len(bars.sessions_T))[:, None]
        return np.where(is_late_T1, column(bars, values_TSF), 0.0)

    return late


def now_and_then(column: Column, every: int = 100) -> Column:
    """A column that is only known on every so many sessions, else 0."""

    def rare(bars: Bars, values_TSF: np.ndarray) -> np.ndarray:
        is_rare_T1 = (bars.sessions_T.astype(int) % every == 0)[:, None]
        return np.where(is_rare_T1, column(bars, values_TSF), 0.0)

    return rare


def return_of_a_wild_tomorrow(bars: Bars, values_TSF: np.ndarray) -> np.ndarray:
    """Tomorrow's return where it is beyond four standard deviations, else 0."""
    return_TS = return_of_tomorrow(bars, values_TSF)
    return np.where(np.abs(return_TS) > 4.0 * np.nanstd(return_TS[: len(return_TS) // 2]), return_TS, 0.0)


def standardised(values_TSF: np.ndarray, bars: Bars) -> np.ndarray:
    """Less the mean of the whole sample, over its standard deviation, by symbol."""
    known = np.isfinite(values_TSF).all(axis=2, keepdims=True)
    zeros_TSF, count = np.where(known, values_TSF, 0.0), np.maximum(known.sum(axis=0, keepdims=True), 1)
    mean = zeros_TSF.sum(axis=0, keepdims=True) / count
    square = np.where(known, (zeros_TSF - mean) ** 2, 0.0).sum(axis=0, keepdims=True) / count
    return (values_TSF - mean) / np.sqrt(square + 1e-9)


def between_minimum_and_maximum(values_TSF: np.ndarray, bars: Bars) -> np.ndarray:
    """Between the least and the greatest value of the whole sample, by symbol."""
    low = np.nanmin(values_TSF, axis=0, keepdims=True, initial=1e9)
    high = np.nanmax(values_TSF, axis=0, keepdims=True, initial=-1e9)
    return (values_TSF - low) / np.maximum(high - low, 1e-9)


def filled_with_the_mean(values_TSF: np.ndarray, bars: Bars) -> np.ndarray:
    """The symbol's mean over the whole sample where a feature is unknown."""
    known = np.isfinite(values_TSF)
    mean = np.where(known, values_TSF, 0.0).sum(axis=0, keepdims=True) / np.maximum(known.sum(axis=0, keepdims=True), 1)
    return np.where(known, values_TSF, mean)


def filled_backwards(values_TSF: np.ndarray, bars: Bars) -> np.ndarray:
    """The next known features where a day has none."""
    for t in range(len(values_TSF) - 2, -1, -1):
        unknown = ~np.isfinite(values_TSF[t]).all(axis=1)
        values_TSF[t, unknown] = values_TSF[t + 1, unknown]
    return values_TSF


def centred(values_TSF: np.ndarray, bars: Bars) -> np.ndarray:
    """A moving average of yesterday, today and tomorrow."""
    values_TSF[1:-1] = (values_TSF[:-2] + values_TSF[1:-1] + values_TSF[2:]) / 3
    return values_TSF


def interpolated(values_TSF: np.ndarray, bars: Bars) -> np.ndarray:
    """A hole of one day is the mean of the days beside it."""
    between = (values_TSF[:-2] + values_TSF[2:]) / 2.0
    values_TSF[1:-1] = np.where(np.isnan(values_TSF[1:-1]), between, values_TSF[1:-1])
    return values_TSF


def clipped_at_quantiles(values_TSF: np.ndarray, bars: Bars) -> np.ndarray:
    """Clipped at the 1 and 99 % quantiles of the whole sample."""
    low, high = np.nanquantile(values_TSF, [0.01, 0.99], axis=(0, 1))
    return np.clip(values_TSF, low, high)


def of_the_liquid_half(values_TSF: np.ndarray, bars: Bars) -> np.ndarray:
    """Only the symbols that trade most over the whole sample have features."""
    traded_S = np.nan_to_num(bars.close_TS * bars.volume_TS).mean(axis=0)
    values_TSF[:, traded_S < np.median(traded_S)] = np.nan
    return values_TSF


# --- labels -----------------------------------------------------------------------------------------------------------


def labels_further(*arguments: Any) -> np.ndarray:
    """Labels of three sessions more than they say."""
    bars, volatility_TS, horizons, *rest = arguments
    return make_labels(bars, volatility_TS, [h + 3 for h in horizons], *rest)


def labels_smoothed(*arguments: Any) -> np.ndarray:
    """The mean of the labels of this day and of the next four."""
    labels_TSH = make_labels(*arguments)
    return np.mean([ahead(labels_TSH, n) for n in range(5)], axis=0).astype(np.float32)


def labels_from_the_day_before(*arguments: Any) -> np.ndarray:
    """Close to close, from the day before the decision: the first return of it is known."""
    bars, volatility_TS, horizons, *_ = arguments
    close = np.log(bars.close_TS)
    before = np.vstack([np.full((1, close.shape[1]), np.nan), close[:-1]])
    earned = [(ahead(before, h) - before) / (volatility_TS * np.sqrt(h)) for h in horizons]
    return np.stack(earned, axis=2).astype(np.float32)


def labels_without_lag(bars: Bars, volatility_TS: np.ndarray, horizons: list[int], lag: int, *rest: Any) -> np.ndarray:
    """From the open of the day of the decision."""
    return make_labels(bars, volatility_TS, horizons, 0, *rest)


def labels_of_survivors(*arguments: Any) -> np.ndarray:
    """Only symbols that trade until the end have labels."""
    bars = arguments[0]
    return np.where(bars.present_TS[-1][None, :, None], make_labels(*arguments), np.float32(np.nan))


def labels_over_their_deviation(*arguments: Any) -> np.ndarray:
    """Divided by the standard deviation of all labels."""
    labels_TSH = make_labels(*arguments)
    return (labels_TSH / np.nanstd(labels_TSH)).astype(np.float32)


def labels_over_tomorrow(*arguments: Any) -> np.ndarray:
    """Beside the other stocks, by how far those of the next day lie apart."""
    apart_TSH = make_labels(*(*arguments[:-1], "mean"))
    spread_TH = np.nanstd(np.where(np.isfinite(apart_TSH), apart_TSH, 0.0), axis=1)
    return (apart_TSH / np.maximum(ahead(spread_TH), 1e-6)[:, None]).astype(np.float32)


def labels_of_later_listings(*arguments: Any) -> np.ndarray:
    """Ranks over the stocks of the day and of the days to come."""
    labels_TSH, present_TS = make_labels(*arguments), arguments[0].present_TS
    n_T = ahead(present_TS.sum(axis=1), 21)
    return (labels_TSH * np.maximum(n_T, 1)[:, None, None]).astype(np.float32)


def beta_of_all_years(bars: Bars) -> np.ndarray:
    """The mean of all betas of a symbol, on all days."""
    beta_TS = trailing_beta(bars)
    mean_S = np.mean(np.where(np.isfinite(beta_TS), beta_TS, 1.0), axis=0)
    return np.where(np.isfinite(beta_TS), mean_S, np.nan)


def beta_of_next_month(bars: Bars) -> np.ndarray:
    """A beta that knows 21 sessions more."""
    beta_TS = trailing_beta(bars)
    return np.where(np.isfinite(beta_TS), ahead(beta_TS, 21), np.nan)
