"""Trained runs as forecasters: one of them loaded, several of them averaged.

Legend: T sessions, S symbols, H horizons, Q quantiles.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hftraining.core.bars import Bars
from hftraining.core.forecast import Forecast
from hftraining.market.features import make_features
from hftraining.model.forecaster import Forecaster, ModelFolderError


def load_model(path: Path | str, device: str = "cpu") -> Forecaster:
    """The forecaster of a run, base, single or fine-tuned, verified by its checksums.

    path: a run folder, or the model folder in it. `.forecast(bars)` gives a Forecast; `.symbols` is the universe that
    it learned from and `.days` are the days that it has seen. Of a fine-tuned run this is the model that its decision
    table recommends; what else was tried lies in its candidates/.
    Raises ModelFolderError (a ValueError) where there is no model, where it is damaged, of another kind or from a newer
    version, each in one line.
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

    Quantiles are averaged level by level (Vincent 1912; Lichtendahl, Grushka-Cockayne and Winkler 2013), positions are
    averaged too. NaN where any model has no forecast. The bars should begin as far before the first day of interest as
    the widest model looks back, and 252 bars more.
    Raises ValueError for no models, and where models do not fit each other or the bars: other horizons, other
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
