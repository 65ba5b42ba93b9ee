"""The leak proof, through the code of a run itself: its features, scaler, model, portfolio and rules."""

import dataclasses
from pathlib import Path

from hftraining.core.bars import Bars
from hftraining.core.forecast import Forecast
from hftraining.evidence.leaks import LeakReport, Way, prove
from hftraining.experiment.config import ExperimentConfig, load_config
from hftraining.experiment.splits import splits_of
from hftraining.market.features import Features, Scaler
from hftraining.market.prices import load_bars
from hftraining.model.base import Forecaster
from hftraining.portfolio.weights import target_weights
from hftraining.profit_tracker import ProfitTracker


def way_of(forecaster: Forecaster, tracker: ProfitTracker, fits_scaler: bool) -> Way:
    """How a run gets from bars to weights. fits_scaler: false for a fine-tune, which uses the scaler of its base."""

    def forecast(scaler: Scaler, features: Features) -> Forecast:
        return dataclasses.replace(forecaster, scaler=scaler).forecast_features(features)

    way = Way(forecast, lambda forecast, bars: target_weights(forecast, bars, tracker.config), tracker.config)
    return way if fits_scaler else dataclasses.replace(way, fit_scaler=lambda features, train: forecaster.scaler)


def leak_proof(
    config: ExperimentConfig, forecaster: Forecaster, bars: Bars, train: slice, days: int, seed: int
) -> LeakReport:
    """Prove that a run of this config leaks nothing on random days; see evidence/leaks.py."""
    way = way_of(forecaster, ProfitTracker(config.profit_tracker), fits_scaler=not config.init_from)
    return prove(bars, train, way, forecaster.receptive_field, days, seed)


def prove_run(folder: Path, days: int, seed: int = 0) -> LeakReport:
    """The leak proof of a finished run, with its own config, bars and trained model."""
    config = load_config(folder / "config.yaml")
    forecaster = Forecaster.load(folder / "model")
    stocks = config.stocks
    if config.init_from:  # its features are relative to the base's universe
        stocks = dataclasses.replace(stocks, symbols=list(forecaster.symbols), exclude=[])
    bars = load_bars(stocks)
    return leak_proof(config, forecaster, bars, splits_of(config, bars).train, days, seed)
