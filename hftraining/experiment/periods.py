"""Periods: the training, validation or test days, and the forecast loss and profit loss of a model on them.

Legend: T sessions, S symbols, H horizons, Q quantiles.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from hftraining.core.bars import Bars
from hftraining.core.forecast import Forecast
from hftraining.evidence.scores import daily_rank_ic
from hftraining.market.features.table import Features
from hftraining.market.labels import label_span
from hftraining.model.config import IC_SYMBOLS, ObjectiveConfig
from hftraining.model.differentiable import account_equity
from hftraining.model.ensemble import Predictor
from hftraining.model.losses import daily_correlation, forecast_loss
from hftraining.model.objective import net_sharpe, position_weights
from hftraining.profit_tracker import ProfitTracker
from hftraining.runs.result import Losses

TRAIN_BARS = 1_000_000  # sessions times stocks on which the loss of the training days is measured, at most


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
        with_lead = features.rows(slice(first, rows.stop))
        span_TSH = label_span(features.volatility_TS[rows], horizons, relative)
        return cls(bars.rows(rows), labels_TSH[rows], span_TSH, with_lead, rows.start - first, kind)

    @property
    def window(self) -> tuple[str, str]:
        """The first and last day, ISO dates."""
        return str(self.bars.sessions_T[0]), str(self.bars.sessions_T[-1])

    def forecast(self, forecaster: Predictor) -> Forecast:
        """The forecast of these days."""
        return forecaster.forecast_features(self.features, self.bars.symbols_S, self.lead)

    @cached_property
    def scored_labels_TSH(self) -> np.ndarray:
        """The labels where a day and symbol has features, and so a forecast; NaN elsewhere."""
        return np.where(self.features.known_TS[self.lead :, :, None], self.labels_TSH, np.nan)

    def of(self, columns: Sequence[int]) -> "Period":
        """The same days of some stocks, by column; their features stay relative to all."""
        bars = self.bars.of([self.bars.symbols_S[s] for s in columns])
        labels_TSH, span_TSH = self.labels_TSH[:, columns], self.span_TSH[:, columns]
        return replace(self, bars=bars, labels_TSH=labels_TSH, span_TSH=span_TSH, features=self.features.of(columns))

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

    def rank_ic(self, forecast: Forecast) -> float:
        """eval/ic: the rank correlation of median and outcome over the stocks of a day, the mean of days and horizons.

        NaN where no day has three stocks with a label, or all forecasts of each day are equal.
        """
        outcome_TSH = self.scored_labels_TSH * self.span_TSH  # in the unit of the forecast
        median_TSH = forecast.quantiles_TSHQ[..., forecast.levels.index(0.5)]
        horizons = range(outcome_TSH.shape[2])
        ic_HT = np.stack([daily_rank_ic(median_TSH[:, :, h], outcome_TSH[:, :, h]) for h in horizons])
        known_HT = np.isfinite(ic_HT)
        return float(ic_HT[known_HT].mean()) if known_HT.any() else math.nan

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


def unconditional(train: Period, levels: tuple[float, ...]) -> np.ndarray:
    """quantiles_HQ of the training labels: the constant forecast of somebody who knows nothing of the day."""
    labels_TSH = train.scored_labels_TSH
    return np.stack([np.nanquantile(labels_TSH[:, :, h], levels) for h in range(labels_TSH.shape[2])])


def score_losses(period: Period, constant_HQ: np.ndarray, forecast: Forecast) -> Losses:
    """The forecast loss beside those of two constant forecasts: all zero, and constant_HQ of `unconditional`."""
    return Losses(
        model=period.forecast_loss(forecast),
        nothing_changes=period.constant_loss(np.zeros(constant_HQ.shape), forecast.levels),
        unconditional=period.constant_loss(constant_HQ, forecast.levels),
    )


def score_training(train: Period, constant_HQ: np.ndarray, forecaster: Predictor) -> Losses:
    """As score_losses for the training days; `stocks` says on how many where `measured_part` leaves some out."""
    part = measured_part(train, forecaster)
    losses = score_losses(part, constant_HQ, part.forecast(forecaster))
    return losses if part is train else replace(losses, stocks=part.labels_TSH.shape[1])


def measured_part(train: Period, forecaster: Predictor) -> Period:
    """The training days on which the loss is measured, since their forecasts are needed for nothing else.

    Where they are more than TRAIN_BARS sessions times stocks they are those of fewer stocks, evenly chosen in their
    order. A model whose stocks see each other takes all.
    """
    n_sessions, n_symbols = train.labels_TSH.shape[:2]
    count = max(IC_SYMBOLS, TRAIN_BARS // n_sessions)
    if count >= n_symbols or forecaster.looks_across:
        return train
    return train.of(np.linspace(0, n_symbols - 1, count).astype(int).tolist())
