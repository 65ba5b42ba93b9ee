"""The leak proof through the code of a run: its features, its scaler, its model, its portfolio, its rules."""

import dataclasses
from pathlib import Path

from hftraining.core.forecast import Forecast
from hftraining.evidence.leaks import LeakReport, Way, prove
from hftraining.experiment.config import load_config
from hftraining.experiment.splits import splits_of
from hftraining.market.features import Features, Scaler
from hftraining.market.prices import load_bars
from hftraining.model.base import Forecaster
from hftraining.portfolio.weights import target_weights
from hftraining.profit_tracker import ProfitTracker


def way_of(forecaster: Forecaster, tracker: ProfitTracker, fits_scaler: bool) -> Way:
    """The way of a run from bars to weights. fits_scaler: false for a fine-tune, whose scaler is the base's."""

    def forecast(scaler: Scaler, features: Features) -> Forecast:
        return dataclasses.replace(forecaster, scaler=scaler).forecast_features(features)

    way = Way(forecast, lambda forecast, bars: target_weights(forecast, bars, tracker.config), tracker.config)
    return way if fits_scaler else dataclasses.replace(way, fit_scaler=lambda features, train: forecaster.scaler)


def prove_run(folder: Path, days: int, seed: int = 0) -> LeakReport:
    """The leak proof of a finished run, with its own config, bars and trained model."""
    config = load_config(folder / "config.yaml")
    forecaster = Forecaster.load(folder / "model")
    stocks = config.stocks
    if config.init_from:  # its market is that of the base
        stocks = dataclasses.replace(stocks, symbols=list(forecaster.symbols), exclude=[])
    bars = load_bars(stocks)
    way = way_of(forecaster, ProfitTracker(config.profit_tracker), fits_scaler=not config.init_from)
    return prove(bars, splits_of(config, bars).train, way, forecaster.receptive_field, days, seed)
