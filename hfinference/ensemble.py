"""The forecasts of several trained runs, averaged.

Legend: T sessions, S symbols, H horizons, Q quantiles.
"""

from collections.abc import Sequence

import pandas as pd

from hfinference.trained import TrainedModel, predictor_of
from hftraining.core.bars import Bars
from hftraining.core.forecast import Forecast
from hftraining.model.ensemble import Ensemble, Predictor


def average_predictions(
    models: Sequence[TrainedModel | Predictor], bars: Bars | pd.DataFrame, weights: Sequence[float] | None = None
) -> Forecast:
    """The mean forecast of several models of any kinds, at every session and symbol of the bars.

    models: of load_model, or forecasters; of other seeds, folds, kinds, features or stocks; an ensemble counts as its
    members. bars: Bars, or a frame with one row a symbol and day, see hftraining.market.frames.bars_of; its symbols
    come sorted. weights: one a model, not negative, of any sum; None: equal ones.

    It averages quantiles level by level (Vincent 1912; Lichtendahl, Grushka-Cockayne and Winkler 2013), and positions.
    A value is NaN where any model's is: with a model that has no position of its own, such as ridge, the average has
    none. Features such as the market's return are means over the stocks in these bars, for every model alike, whatever
    stocks it has learned from; the log says where some of those are missing. The bars should begin 252 bars and the
    longest receptive_field before the first day of interest. Raises ValueError without models, for models with other
    horizons, quantiles or labels, and for weights that are none.
    """
    try:
        ensemble = Ensemble.of([predictor_of(model) for model in models], weights)
    except ValueError as error:
        raise ValueError(f"average_predictions: {error}") from None
    return ensemble.forecast(bars)
