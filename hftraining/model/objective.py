"""What training minimises: the loss of the forecasts, and the net Sharpe ratio of the positions.

Legend: W windows, K symbols in each, L bars, H horizons, Q quantiles. B any leading axes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hftraining.model.config import ObjectiveConfig
from hftraining.model.differentiable import account_equity
from hftraining.model.losses import forecast_loss, spread_loss
from hftraining.model.towards import smoothed, traded_towards
from hftraining.trading.config import TradingRules
from hftraining.trading.simulator import SESSIONS_PER_YEAR

VARIANCE_FLOOR = 1e-8  # of daily returns, (0.01 %)^2, so that an account that never trades has a gradient


@dataclass(frozen=True)
class Loss:
    """total is minimised; the parts are unweighted. A part without a weight in the objective is NaN.

    forecast: the loss that the objective names, as a probe measures it. For `mse` and `ic` the total also holds, by the
    same weight, what teaches the other quantiles: see `spread_loss`.
    """

    total: Tensor
    forecast: Tensor
    profit: Tensor

    def detached(self) -> "Loss":
        """The same numbers, without what led to them."""
        return Loss(self.total.detach(), self.forecast.detach(), self.profit.detach())


class Objective:
    """forecast_weight * forecast loss + profit_weight * (-annual net Sharpe).

    smoothing, trade_rate, every: how the position head is traded, as the fields of the portfolio `head`.
    """

    def __init__(
        self,
        config: ObjectiveConfig,
        rules: TradingRules,
        smoothing: float = 0.0,
        trade_rate: float = 1.0,
        every: int = 1,
    ):
        self.config, self.rules = config, rules
        self.smoothing, self.trade_rate, self.every = smoothing, trade_rate, every
        self.levels_Q = torch.tensor(config.quantiles)

    @property
    def is_mean(self) -> bool:
        """Whether the loss of a batch is the mean over its known labels, not a ratio or correlation of many of them."""
        config = self.config
        return not config.profit_weight and config.loss in ("pinball", "mse")

    def __call__(
        self,
        quantiles_WKLHQ: Tensor,
        head_WKL: Tensor,
        label_WKLH: Tensor,
        present_WKL: Tensor,
        open_WKL: Tensor,
        close_WKL: Tensor,
    ) -> Loss:
        """The loss of a batch; see Batch for the arrays. Computes only parts with a weight."""
        config = self.config
        forecast = profit = torch.full((), torch.nan, device=head_WKL.device)
        total = torch.zeros((), device=head_WKL.device)
        if config.forecast_weight:
            task = config.loss, quantiles_WKLHQ, label_WKLH, self.levels_Q
            forecast = forecast_loss(*task)
            total = total + config.forecast_weight * (forecast + spread_loss(*task))
        if config.profit_weight:
            open_WLK, close_WLK, head_WLK, present_WLK = (
                part.transpose(1, 2) for part in (open_WKL, close_WKL, head_WKL, present_WKL)
            )
            if torch.isfinite(head_WLK[present_WLK]).all():
                weights_WLK = position_weights(
                    head_WLK, present_WLK, close_WLK, self.rules, self.smoothing, self.trade_rate, self.every
                )
                profit = -net_sharpe(account_equity(open_WLK, close_WLK, weights_WLK, self.rules))
            else:  # the model has diverged; the trainer skips and counts this loss
                profit = head_WLK[present_WLK].sum()
            total = total + config.profit_weight * profit
        return Loss(total, forecast, profit)


def position_weights(
    head_WLK: Tensor,
    present_WLK: Tensor,
    close_WLK: Tensor,
    rules: TradingRules,
    smoothing: float = 0.0,
    trade_rate: float = 1.0,
    every: int = 1,
) -> Tensor:
    """Weights from the position head, as in the portfolio `head`; K symbols share an account, a window begins flat.

    The head, in [-1, 1], is smoothed over the bars where a symbol is present (half-life `smoothing` in sessions; 0:
    none, and zero where it is absent), scaled down together where the gross sum would exceed max_gross, and traded
    towards by trade_rate on every `every`-th session, see trading/towards.py. Finite where the head is.
    """
    size_WLK = smoothed(torch.where(present_WLK, head_WLK, torch.nan), smoothing)
    target_WLK = size_WLK * rules.max_position_size
    if not rules.allow_short:
        target_WLK = target_WLK.clamp(min=0.0)
    gross_WL1 = target_WLK.abs().sum(dim=-1, keepdim=True)
    target_WLK = target_WLK * (rules.max_gross / gross_WL1.clamp(min=rules.max_gross))
    return traded_towards(target_WLK, close_WLK, trade_rate, every, rules)


def net_sharpe(equity_WL: Tensor) -> Tensor:
    """Annual Sharpe ratio of the pooled daily returns of W accounts, after costs.

    One pooled ratio is less noisy than W ratios. The variance has a floor, so that a flat account scores 0 and still
    has a gradient.
    """
    return_WL = equity_WL[:, 1:] / equity_WL[:, :-1] - 1.0
    return return_WL.mean() / (return_WL.var() + VARIANCE_FLOOR).sqrt() * SESSIONS_PER_YEAR**0.5
