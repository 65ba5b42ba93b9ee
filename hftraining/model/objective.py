"""What training minimises: the pinball loss of the forecasts, and the net Sharpe ratio of the positions.

Legend: W windows, K symbols in each, L bars, H horizons, Q quantiles. B any leading axes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hftraining.model.config import ObjectiveConfig
from hftraining.model.differentiable import account_equity
from hftraining.trading.config import TradingRules
from hftraining.trading.simulator import SESSIONS_PER_YEAR

VARIANCE_FLOOR = 1e-8  # of daily returns, (0.01 %)^2, so that an account that never trades has a gradient


@dataclass(frozen=True)
class Loss:
    """total is minimised; the parts are unweighted. A part without a weight in the objective is NaN."""

    total: Tensor
    forecast: Tensor
    profit: Tensor


class Objective:
    """forecast_weight * pinball loss + profit_weight * (-annual net Sharpe)."""

    def __init__(self, config: ObjectiveConfig, rules: TradingRules):
        self.config, self.rules = config, rules
        self.levels_Q = torch.tensor(config.quantiles)

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
            forecast = pinball_loss(quantiles_WKLHQ, label_WKLH, self.levels_Q)
            total = total + config.forecast_weight * forecast
        if config.profit_weight:
            open_WLK, close_WLK, head_WLK, present_WLK = (
                part.transpose(1, 2) for part in (open_WKL, close_WKL, head_WKL, present_WKL)
            )
            weights_WLK = position_weights(head_WLK, present_WLK, self.rules)
            if torch.isfinite(weights_WLK).all():
                profit = -net_sharpe(account_equity(open_WLK, close_WLK, weights_WLK, self.rules))
            else:  # the model has diverged; the trainer skips and counts this loss
                profit = weights_WLK.sum()
            total = total + config.profit_weight * profit
        return Loss(total, forecast, profit)


def position_weights(head_BK: Tensor, present_BK: Tensor, rules: TradingRules) -> Tensor:
    """Target weights from the position head, as in the policy `head`; K symbols share an account.

    Zero where a symbol is not present; scaled down together where their gross sum would exceed max_gross.
    """
    weights_BK = torch.where(present_BK, head_BK, 0.0) * rules.max_position_size
    if not rules.allow_short:
        weights_BK = weights_BK.clamp(min=0.0)
    gross_B1 = weights_BK.abs().sum(dim=-1, keepdim=True)
    return weights_BK * (rules.max_gross / gross_B1.clamp(min=rules.max_gross))


def pinball_loss(quantiles_BHQ: Tensor, label_BH: Tensor, levels_Q: Tensor) -> Tensor:
    """Mean pinball (quantile) loss over the labels that are known, in the unit of the labels.

    quantiles: (..., H, Q); label: (..., H), NaN where unknown; levels: (Q,) in (0, 1). Returns a scalar, 0 without
    labels. At level 0.5 it is half the mean absolute error. Source: Koenker and Bassett (1978).
    """
    known_BH = torch.isfinite(label_BH)
    error_BHQ = torch.where(known_BH, label_BH, 0.0)[..., None] - quantiles_BHQ
    levels_Q = levels_Q.to(quantiles_BHQ.device)
    loss_BHQ = torch.maximum(levels_Q * error_BHQ, (levels_Q - 1.0) * error_BHQ)
    return (loss_BHQ.mean(dim=-1) * known_BH).sum() / known_BH.sum().clamp(min=1)


def net_sharpe(equity_WL: Tensor) -> Tensor:
    """Annual Sharpe ratio of the pooled daily returns of W accounts, after costs.

    One pooled ratio is less noisy than W ratios. The variance has a floor, so that a flat account scores 0 and still
    has a gradient.
    """
    return_WL = equity_WL[:, 1:] / equity_WL[:, :-1] - 1.0
    return return_WL.mean() / (return_WL.var() + VARIANCE_FLOOR).sqrt() * SESSIONS_PER_YEAR**0.5
