"""Forecasts, bars and portfolios for the tests of this room."""

from statistics import NormalDist

import numpy as np

from hftraining.core.bars import Bars
from hftraining.core.forecast import Forecast
from hftraining.portfolio.config import PortfolioConfig
from hftraining.trading.config import TradingRules
from tests.naive_engine import random_market

LEVELS = (0.1, 0.5, 0.9)
OUTER = 2 * NormalDist().inv_cdf(0.9)  # standard deviations between the outer quantiles
RULES = TradingRules(max_position_size=1.0, stop_loss=0.0, take_profit=0.0, rebalance_band=0.0)
AT_ONCE = {"smoothing": 0.0, "trade_rate": 1.0}


def portfolio(kind="tilt", **fields) -> PortfolioConfig:
    """Unsmoothed and traded at once unless said otherwise."""
    return PortfolioConfig(kind=kind, **(AT_ONCE | fields))


def forecast_of(median_TS, deviation=1.0, head=None, relative="none", horizons=(5,)) -> Forecast:
    """The same normal forecast at each horizon: a median, and quantiles so that `deviation` is its uncertainty."""
    median_TS = np.array(median_TS, float)
    spread_TS = OUTER * deviation * np.ones(median_TS.shape) / 2
    quantiles = np.stack([median_TS - spread_TS, median_TS, median_TS + spread_TS], axis=-1)
    head_TS = np.full(median_TS.shape, np.nan) if head is None else np.array(head, float)
    return Forecast(np.stack([quantiles] * len(horizons), axis=2), head_TS, horizons, LEVELS, relative)


def bars_of(close_TS) -> Bars:
    """Bars whose four prices are the close; NaN: no bar."""
    close_TS = np.array(close_TS, float)
    return made(close_TS, close_TS, close_TS, close_TS)


def flat_bars(n_sessions, n_symbols) -> Bars:
    return bars_of(np.full((n_sessions, n_symbols), 100.0))


def made(*market) -> Bars:
    n_sessions, n_symbols = market[0].shape
    days = np.busday_offset(np.datetime64("2020-01-01"), np.arange(n_sessions), roll="forward")
    return Bars(tuple(f"S{s}" for s in range(n_symbols)), days, *market, np.ones(market[0].shape))


def random_bars(seed, n_sessions=60, n_symbols=6, missing=0.1) -> Bars:
    return made(*random_market(np.random.default_rng(seed), n_sessions, n_symbols, missing, 0.02))


def random_forecast(seed, bars, missing=0.1) -> Forecast:
    """Distinct medians, uncertainties and heads; some stocks and days without a forecast."""
    rng = np.random.default_rng([seed, 1])
    shape = bars.close_TS.shape
    absent_TS = rng.random(shape) < missing
    median_TS = np.where(absent_TS, np.nan, rng.normal(0, 0.02, shape))
    head_TS = np.where(absent_TS, np.nan, rng.uniform(-1, 1, shape))
    return forecast_of(median_TS, rng.uniform(0.01, 0.1, shape), head_TS)
