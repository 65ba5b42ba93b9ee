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
from hftraining.model.config import ObjectiveConfig
from hftraining.model.differentiable import account_equity
from hftraining.model.objective import net_sharpe, pinball_loss, position_weights
from hftraining.runs.result import Losses
from hftraining.trading.config import TradingRules


@dataclass(frozen=True)
class Period:
    """The days to score: their bars, labels, and the features that a forecast of them depends on."""

    bars: Bars
    labels_TSH: np.ndarray  # see market.labels
    span_TSH: np.ndarray  # their unit: see label_span
    features: Features  # of these days and of the receptive field before them
    lead: int  # rows of features before the first day

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
    ) -> "Period":
        """The days of `rows`, with up to `lead` rows of features before them. relative: of the labels."""
        first = max(0, rows.start - lead)
        with_lead = Features(features.values_TSF[first : rows.stop], features.volatility_TS[first : rows.stop])
        span_TSH = label_span(features.volatility_TS[rows], horizons, relative)
        return cls(bars.rows(rows), labels_TSH[rows], span_TSH, with_lead, rows.start - first)

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

    def loss(self, forecast: Forecast, objective: ObjectiveConfig, rules: TradingRules) -> float:
        """eval/loss: the forecast loss, or the profit loss if the objective has no forecast loss."""
        return self.forecast_loss(forecast) if objective.forecast_weight else self.profit_loss(forecast, rules)

    def forecast_loss(self, forecast: Forecast) -> float:
        """Pinball loss, in the unit of the labels, over the labels of these days; NaN if none is known."""
        return self._pinball(forecast.quantiles_TSHQ / self.span_TSH[..., None], forecast.levels)

    def daily_loss(self, forecast: Forecast) -> np.ndarray:
        """Mean pinball loss_T of each day, in the unit of the labels; NaN without a label."""
        labels_TSH = self.scored_labels_TSH
        known_TSH, levels_Q = np.isfinite(labels_TSH), np.asarray(forecast.levels)
        with np.errstate(invalid="ignore"):
            error_TSHQ = labels_TSH[..., None] - forecast.quantiles_TSHQ / self.span_TSH[..., None]
        loss_TSH = np.maximum(levels_Q * error_TSHQ, (levels_Q - 1.0) * error_TSHQ).mean(axis=-1)
        total_T = np.where(known_TSH, loss_TSH, 0.0).sum(axis=(1, 2))
        count_T = known_TSH.sum(axis=(1, 2))
        return np.divide(total_T, count_T, out=np.full(len(count_T), math.nan), where=count_T > 0)

    def constant_loss(self, quantiles_HQ: np.ndarray, levels: tuple[float, ...]) -> float:
        """The forecast loss of one forecast for every day and symbol, in the unit of the labels."""
        return self._pinball(np.broadcast_to(quantiles_HQ, (*self.labels_TSH.shape[:2], *quantiles_HQ.shape)), levels)

    def profit_loss(self, forecast: Forecast, rules: TradingRules) -> float:
        """Negative net Sharpe ratio of the position head over these days, as in the profit objective."""
        weights = position_weights(
            torch.from_numpy(np.nan_to_num(forecast.head_TS)), torch.from_numpy(np.isfinite(forecast.head_TS)), rules
        )
        open_TS, close_TS = torch.tensor(self.bars.open_TS), torch.tensor(self.bars.close_TS)
        equity = account_equity(open_TS[None], close_TS[None], weights[None], rules)
        return -net_sharpe(equity).item()

    def _pinball(self, quantiles_TSHQ: np.ndarray, levels: tuple[float, ...]) -> float:
        labels_TSH = self.scored_labels_TSH
        if not np.isfinite(labels_TSH).any():
            return math.nan
        # A model that gives NaN where a label is known gets a NaN loss.
        quantiles = torch.from_numpy(np.where(np.isfinite(labels_TSH)[..., None], quantiles_TSHQ, 0.0))
        return pinball_loss(quantiles, torch.from_numpy(labels_TSH), torch.tensor(levels, dtype=torch.float64)).item()


def score_losses(period: Period, train: Period, forecast: Forecast) -> Losses:
    """The forecast loss beside those of two constant forecasts: all zero, and the quantiles of the training labels."""
    levels, labels_TSH = forecast.levels, train.scored_labels_TSH
    quantiles_HQ = np.stack([np.nanquantile(labels_TSH[:, :, h], levels) for h in range(labels_TSH.shape[2])])
    return Losses(
        model=period.forecast_loss(forecast),
        nothing_changes=period.constant_loss(np.zeros((len(forecast.horizons), len(levels))), levels),
        unconditional=period.constant_loss(quantiles_HQ, levels),
    )
