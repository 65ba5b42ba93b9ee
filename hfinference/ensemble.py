"""Trained runs as forecasters: one of them loaded, several of them averaged.

Legend: T sessions, S symbols, H horizons, Q quantiles.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hftraining.core.bars import Bars
from hftraining.core.forecast import Forecast
from hftraining.market.features import make_features
from hftraining.model.base import Forecaster, ModelFolderError


def load_model(path: Path | str, device: str = "cpu") -> Forecaster:
    """The forecaster of a run with a model of any kind, verified by its checksums.

    path: a run folder, or the model folder in it. `.forecast(bars)` gives a Forecast; `.symbols` is the universe that
    the model learned from, `.days` are the days that it has seen, `.kind` is transformer, ridge or lightgbm. The model
    of a fine-tuned run is the one that its decision table recommends; the others lie in its candidates/.
    Raises ModelFolderError (a ValueError) in one line where there is no model, or where it is damaged or has a format
    that this version does not read; MissingDependency where LightGBM is needed and not installed.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ModelFolderError(f"{folder} does not exist: give a run folder, outputs/base/NAME/DATE_TIME")
    if (folder / "run.json").is_file():
        if not (folder / "model").is_dir():
            raise ModelFolderError(f"{folder} has no model yet: python train.py resume={folder} finishes it")
        folder = folder / "model"
    return Forecaster.load(folder, device)


def average_predictions(models: Sequence[Forecaster], bars: Bars) -> Forecast:
    """The mean of what several models forecast, each with the same weight, at every session and symbol of the bars.

    The models may be of any kinds. Quantiles are averaged level by level (Vincent 1912; Lichtendahl, Grushka-Cockayne
    and Winkler 2013), and so are positions. A value is NaN where that of any model is: a model without a position of
    its own, such as ridge, leaves the average without one. The bars should begin 252 bars and the longest
    receptive_field before the first day of interest.
    Raises ValueError without models, and where models do not fit each other or the bars: other horizons, other
    quantiles, another universe (features such as the market's return are means over it), or bars that lack a symbol of
    it. Symbols beyond it are forecast, too, and count in the market of the day.
    """
    if not models:
        raise ValueError("average_predictions: there are no models to average")
    first = models[0]
    for number, model in enumerate(models[1:], start=2):
        for what, ours, theirs in (
            ("horizons", model.horizons, first.horizons),
            ("quantiles", model.levels, first.levels),
            ("symbols", sorted(model.symbols), sorted(first.symbols)),
        ):
            if ours != theirs:
                shown = f"{_without(ours, theirs)} where the first has {_without(theirs, ours)}"
                raise ValueError(f"average_predictions: model {number} has other {what} than the first: {shown}")
    if lacking := [symbol for symbol in first.symbols if symbol not in bars.symbols_S]:
        named = ", ".join(lacking[:5]) + (f" and {len(lacking) - 5} more" if len(lacking) > 5 else "")
        raise ValueError(f"average_predictions: the bars lack {named}, which the models take for a part of the market")
    features = make_features(bars)
    forecasts = [model.forecast_features(features) for model in models]
    quantiles_TSHQ = np.mean([forecast.quantiles_TSHQ for forecast in forecasts], axis=0)
    head_TS = np.mean([forecast.head_TS for forecast in forecasts], axis=0)
    return Forecast(quantiles_TSHQ, head_TS, first.horizons, first.levels)


def _without(some: Sequence[object], others: Sequence[object]) -> str:
    """The items of one list that the other does not have, as people write lists."""
    only = [str(item) for item in some if item not in others]
    return ", ".join(only[:5]) + (f" and {len(only) - 5} more" if len(only) > 5 else "") if only else "no other"
