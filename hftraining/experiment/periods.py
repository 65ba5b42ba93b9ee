"""Periods: the training, validation or test days, and the forecast loss and profit loss of a model on them.

Legend: T sessions, S symbols, H horizons, Q quantiles.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from hftraining.core.bars import Bars
from hftraining.core.forecast import Forecast
from hftraining.market.features import Features
from hftraining.market.labels import label_span
from hftraining.model.base import Forecaster
from hftraining.model.config import IC_SYMBOLS, ObjectiveConfig
from hftraining.model.differentiable import account_equity
from hftraining.model.losses import daily_correlation, forecast_loss
from hftraining.model.objective import net_sharpe, position_weights
from hftraining.profit_tracker import ProfitTracker
from hftraining.runs.result import Losses


@dataclass(frozen=True)
class Period:
    """The days to score: their bars, labels, and the features that a forecast of them depends on."""

    bars: Bars
    labels_TSH: np.ndarray  # see market.labels
    span_TSH: np.ndarray  # their unit: see label_span
    features: Features  # of these days and of the receptive field before them
    lead: int  # rows of features before the first day
    kind: str = "pinball"  # of the forecast loss: see objective.loss

    @classmethod
    def cut(
        cls,
        bars: Bars,
        features: Features,
        labels_TSH: np.ndarray,
        horizons: list[int],
        rows: slice,
        lead: int,
        relative: str = "none",
        kind: str = "pinball",
    ) -> "Period":
        """The days of `rows`, with up to `lead` rows of features before them. relative: of labels. kind: of loss."""
        first = max(0, rows.start - lead)
        with_lead = Features(features.values_TSF[first : rows.stop], features.volatility_TS[first : rows.stop])
        span_TSH = label_span(features.volatility_TS[rows], horizons, relative)
        return cls(bars.rows(rows), labels_TSH[rows], span_TSH, with_lead, rows.start - first, kind)

    @property
    def window(self) -> tuple[str, str]:
        """The first and last day, ISO dates."""
        return str(self.bars.sessions_T[0]), str(self.bars.sessions_T[-1])

    def forecast(self, forecaster: Forecaster) -> Forecast:
        """The forecast of these days."""
        return forecaster.forecast_features(self.features).rows(slice(self.lead, None))

    @property
    def scored_labels_TSH(self) -> np.ndarray:
        """The labels where a day and symbol has features, and so a forecast; NaN elsewhere."""
        return np.where(self.features.known_TS[self.lead :, :, None], self.labels_TSH, np.nan)

    def loss(self, forecast: Forecast, objective: ObjectiveConfig, tracker: ProfitTracker) -> float:
        """eval/loss: the forecast loss, or the profit loss if the objective has no forecast loss."""
        return self.forecast_loss(forecast) if objective.forecast_weight else self.profit_loss(forecast, tracker)

    def forecast_loss(self, forecast: Forecast) -> float:
        """The loss of this kind over the labels of these days, in their unit; NaN if none is known.

        A correlation is over all stocks of a day, where training draws some; NaN if no day has three.
        """
        return self._loss(forecast.quantiles_TSHQ / self.span_TSH[..., None], forecast.levels)

    def daily_loss(self, forecast: Forecast) -> np.ndarray:
        """Loss_T of each day, in the unit of the labels; NaN without a label, or without three for a correlation."""
        labels_TSH = self.scored_labels_TSH
        known_TSH, levels_Q = np.isfinite(labels_TSH), np.asarray(forecast.levels)
        quantiles_TSHQ = forecast.quantiles_TSHQ / self.span_TSH[..., None]
        if self.kind == "ic":
            median_TSH = quantiles_TSHQ[..., forecast.levels.index(0.5)]
            pair = (torch.from_numpy(part).transpose(0, 1)[None] for part in (median_TSH, labels_TSH))
            return _mean_of(-daily_correlation(*pair)[0].numpy(), known_TSH.sum(axis=1) >= IC_SYMBOLS)
        with np.errstate(invalid="ignore"):
            error_TSHQ = labels_TSH[..., None] - quantiles_TSHQ
        if self.kind == "mse":
            loss_TSH = error_TSHQ[..., forecast.levels.index(0.5)] ** 2
        else:
            loss_TSH = np.maximum(levels_Q * error_TSHQ, (levels_Q - 1.0) * error_TSHQ).mean(axis=-1)
        n = len(labels_TSH)
        return _mean_of(loss_TSH.reshape(n, -1), known_TSH.reshape(n, -1))

    def constant_loss(self, quantiles_HQ: np.ndarray, levels: tuple[float, ...]) -> float:
        """The forecast loss of one forecast for every day and symbol, in the unit of the labels."""
        return self._loss(np.broadcast_to(quantiles_HQ, (*self.labels_TSH.shape[:2], *quantiles_HQ.shape)), levels)

    def profit_loss(self, forecast: Forecast, tracker: ProfitTracker) -> float:
        """Negative net Sharpe ratio of the position head over these days, as in the profit objective."""
        rules, pace = tracker.config, tracker.portfolio
        open_1TS, close_1TS = torch.tensor(self.bars.open_TS)[None], torch.tensor(self.bars.close_TS)[None]
        head_1TS = torch.from_numpy(forecast.head_TS)[None]
        present_1TS = torch.isfinite(head_1TS)
        weights_1TS = position_weights(
            head_1TS, present_1TS, close_1TS, rules, pace.smoothing, pace.trade_rate, pace.every
        )
        equity = account_equity(open_1TS, close_1TS, weights_1TS, rules)
        return -net_sharpe(equity).item()

    def _loss(self, quantiles_TSHQ: np.ndarray, levels: tuple[float, ...]) -> float:
        labels_TSH = self.scored_labels_TSH
        known_TSH = np.isfinite(labels_TSH)
        if not (known_TSH.sum(axis=1) >= (IC_SYMBOLS if self.kind == "ic" else 1)).any():
            return math.nan
        # A model that gives NaN where a label is known gets a NaN loss.
        quantiles_TSHQ = np.where(known_TSH[..., None], quantiles_TSHQ, 0.0)
        # One window of all days and symbols.
        quantiles, label = (torch.from_numpy(part).transpose(0, 1)[None] for part in (quantiles_TSHQ, labels_TSH))
        return forecast_loss(self.kind, quantiles, label, torch.tensor(levels, dtype=torch.float64)).item()


def _mean_of(loss_TN: np.ndarray, known_TN: np.ndarray) -> np.ndarray:
    """The mean over the known losses of each day; NaN without any."""
    total_T, count_T = np.where(known_TN, loss_TN, 0.0).sum(axis=1), known_TN.sum(axis=1)
    return np.divide(total_T, count_T, out=np.full(len(count_T), math.nan), where=count_T > 0)


def score_losses(period: Period, train: Period, forecast: Forecast) -> Losses:
    """The forecast loss beside those of two constant forecasts: all zero, and the quantiles of the training labels."""
    levels, labels_TSH = forecast.levels, train.scored_labels_TSH
    quantiles_HQ = np.stack([np.nanquantile(labels_TSH[:, :, h], levels) for h in range(labels_TSH.shape[2])])
    return Losses(
        model=period.forecast_loss(forecast),
        nothing_changes=period.constant_loss(np.zeros((len(forecast.horizons), len(levels))), levels),
        unconditional=period.constant_loss(quantiles_HQ, levels),
    )
