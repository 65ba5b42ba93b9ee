"""The loss of forecasts: of all quantiles, or of the median by its squared error or its correlation with the labels.

Legend: W windows, K symbols in each, L bars, H horizons, Q quantiles. B any leading axes.
"""

import torch
from torch import Tensor

from hftraining.model.config import IC_SYMBOLS

VARIANCE_FLOOR = 1e-4  # of forecasts and labels within a day, in their unit; equal ones have a gradient, too


def forecast_loss(kind: str, quantiles_WKLHQ: Tensor, label_WKLH: Tensor, levels_Q: Tensor) -> Tensor:
    """What objective.loss names: `pinball` of all quantiles, or `mse` or `ic` of the median alone; a scalar.

    label: NaN where unknown; a loss without any label is 0. levels: of the quantiles, 0.5 among them.
    """
    if kind == "pinball":
        return pinball_loss(quantiles_WKLHQ, label_WKLH, levels_Q)
    median_WKLH = quantiles_WKLHQ[..., median_of(levels_Q)]
    return {"mse": squared_loss, "ic": correlation_loss}[kind](median_WKLH, label_WKLH)


def spread_loss(kind: str, quantiles_WKLHQ: Tensor, label_WKLH: Tensor, levels_Q: Tensor) -> Tensor:
    """What `mse` and `ic` leave untaught: the pinball loss of the other quantiles, which are the uncertainty.

    The median has no part in it and no gradient from it. 0 for `pinball`, which teaches them all.
    """
    if kind == "pinball":
        return torch.zeros((), device=quantiles_WKLHQ.device)
    others = torch.arange(len(levels_Q)) != median_of(levels_Q)
    return pinball_loss(quantiles_WKLHQ[..., others.to(quantiles_WKLHQ.device)], label_WKLH, levels_Q[others])


def median_of(levels_Q: Tensor) -> int:
    """The place of the level 0.5."""
    return int((levels_Q - 0.5).abs().argmin())


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


def squared_loss(median_BH: Tensor, label_BH: Tensor) -> Tensor:
    """Mean squared error over the labels that are known, in the square of their unit; a scalar, 0 without labels."""
    known_BH = torch.isfinite(label_BH)
    error_BH = torch.where(known_BH, label_BH - median_BH, 0.0)
    return (error_BH**2).sum() / known_BH.sum().clamp(min=1)


def correlation_loss(median_WKLH: Tensor, label_WKLH: Tensor) -> Tensor:
    """Minus the mean information coefficient: Pearson's correlation over the K symbols of a day, for each horizon.

    The mean is over days and horizons with at least three known labels; a scalar, 0 without such. Where all forecasts,
    or all labels, of a day are equal its correlation is 0, and the gradient is finite. The scale and the level of the
    median do not count, so they are no forecast of a return. Source: Grinold (1989), for the coefficient.
    """
    ic_WLH = daily_correlation(median_WKLH, label_WKLH)
    known_WLH = torch.isfinite(label_WKLH).sum(dim=1) >= IC_SYMBOLS
    return 0.0 - torch.where(known_WLH, ic_WLH, 0.0).sum() / known_WLH.sum().clamp(min=1)  # 0, never -0


def daily_correlation(median_WKLH: Tensor, label_WKLH: Tensor) -> Tensor:
    """ic_WLH: over the symbols whose label is known; means nothing where they are fewer than two.

    Both variances have a floor, which shrinks a correlation by about the floor over the variance.
    """
    known_WKLH = torch.isfinite(label_WKLH)
    n_W1LH = known_WKLH.sum(dim=1, keepdim=True).clamp(min=1)

    def centred(values_WKLH: Tensor) -> Tensor:
        values_WKLH = torch.where(known_WKLH, values_WKLH, 0.0)
        return torch.where(known_WKLH, values_WKLH - values_WKLH.sum(dim=1, keepdim=True) / n_W1LH, 0.0)

    x_WKLH, y_WKLH = centred(median_WKLH), centred(label_WKLH)
    x_variance, y_variance = ((part**2).sum(dim=1) / n_W1LH[:, 0] for part in (x_WKLH, y_WKLH))
    covariance_WLH = (x_WKLH * y_WKLH).sum(dim=1) / n_W1LH[:, 0]
    return covariance_WLH / ((x_variance + VARIANCE_FLOOR) * (y_variance + VARIANCE_FLOOR)).sqrt()
