"""Trained runs as forecasters: one of them loaded, several of them averaged.

Legend: T sessions, S symbols, H horizons, Q quantiles.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hftraining.core.bars import Bars
from hftraining.core.forecast import Forecast
from hftraining.core.untrusted import Untrusted, is_there, refuse_links
from hftraining.market.features import make_features
from hftraining.market.frames import bars_of
from hftraining.model.base import Forecaster, ModelFolderError


def load_model(path: Path | str, device: str = "cpu") -> Forecaster:
    """The forecaster of a run with a model of any kind, verified by its checksums.

    path: a run folder, or the model folder in it. `.forecast(bars)` gives a Forecast; `.symbols` is the universe that
    the model learned from, `.days` are the first and last day of its periods, `.kind` is transformer, ridge or
    lightgbm. Of a fine-tuned run it is the recommended model; the others lie in candidates/.
    Raises ModelFolderError (a ValueError) in one line for a model that is missing, damaged or of a format that this
    version does not read; MissingDependency where LightGBM is needed and not installed.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ModelFolderError(f"{folder} does not exist: give a run folder, outputs/base/NAME/DATE_TIME")
    if is_there(folder / "run.json"):
        try:
            refuse_links(folder)
        except Untrusted as error:
            raise ModelFolderError(str(error)) from None
        if not (folder / "model").is_dir():
            raise ModelFolderError(f"{folder} has no model yet: python train.py resume={folder} finishes it")
        folder = folder / "model"
    return Forecaster.load(folder, device)


def average_predictions(models: Sequence[Forecaster], bars: Bars | pd.DataFrame) -> Forecast:
    """The mean forecast of several models of any kinds, weighted equally, at every session and symbol of the bars.

    bars: Bars, or a frame with one row a symbol and day, see hftraining.market.frames.bars_of; its symbols come sorted.
    It averages quantiles level by level (Vincent 1912; Lichtendahl, Grushka-Cockayne and Winkler 2013), and positions.
    A value is NaN where any model's is: with a model that has no position of its own, such as ridge, the average has
    none. The bars should begin 252 bars and the longest receptive_field before the first day of interest.
    Raises ValueError without models, for models with different horizons, quantiles, labels or universes (features such
    as the market's return are means over the universe), and for bars that lack a symbol of the universe. Further
    symbols are forecast, too, and count in the market of the day.
    """
    if not models:
        raise ValueError("average_predictions: there are no models to average")
    first = models[0]
    for number, model in enumerate(models[1:], start=2):
        for what, ours, theirs in (
            ("horizons", model.horizons, first.horizons),
            ("quantiles", model.levels, first.levels),
            ("labels", [model.relative], [first.relative]),
            ("symbols", sorted(model.symbols), sorted(first.symbols)),
        ):
            if ours != theirs:
                shown = f"{_without(ours, theirs)} where the first has {_without(theirs, ours)}"
                raise ValueError(f"average_predictions: model {number} has other {what} than the first: {shown}")
    bars = bars_of(bars)
    if lacking := [symbol for symbol in first.symbols if symbol not in bars.symbols_S]:
        raise ValueError(
            f"average_predictions: the bars lack {_listed(lacking)}, which the models take for a part of the market"
        )
    features = make_features(bars)
    forecasts = [model.forecast_features(features) for model in models]
    quantiles_TSHQ = np.mean([forecast.quantiles_TSHQ for forecast in forecasts], axis=0)
    head_TS = np.mean([forecast.head_TS for forecast in forecasts], axis=0)
    return Forecast(quantiles_TSHQ, head_TS, first.horizons, first.levels, first.relative)


def _without(some: Sequence[object], others: Sequence[object]) -> str:
    return _listed([item for item in some if item not in others]) or "no other"


def _listed(items: Sequence[object]) -> str:
    return ", ".join(map(str, items[:5])) + (f" and {len(items) - 5} more" if len(items) > 5 else "")
