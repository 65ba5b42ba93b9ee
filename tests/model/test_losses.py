"""Squared error and correlation as losses of the median: hftraining/model/losses.py."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from hftraining.core.forecast import Forecast
from hftraining.experiment.periods import Period, score_losses, unconditional
from hftraining.market.features.table import make_features
from hftraining.market.labels import make_labels
from hftraining.model.config import LOSSES, ObjectiveConfig
from hftraining.model.losses import VARIANCE_FLOOR, correlation_loss, forecast_loss, spread_loss, squared_loss
from hftraining.model.objective import Objective
from hftraining.trading.config import TradingRules
from tests.bars_of import make_bars
from tests.runs_of import compose_config

LEVELS = (0.1, 0.5, 0.9)
HORIZONS = (1, 5)


def windows(seed=0, holes=0.2, shape=(2, 6, 5, 2)):
    """median_WKLH and label_WKLH in float64, some labels unknown; one day has two known labels alone."""
    rng = np.random.default_rng(seed)
    label = rng.normal(size=shape)
    label[rng.random(shape) < holes] = np.nan
    label[0, 2:, 1] = np.nan
    return torch.from_numpy(0.3 * np.nan_to_num(label) + rng.normal(size=shape)), torch.from_numpy(label)


def floored_correlation(x, y):
    """Scipy's correlation, smaller by what the floors add to the variances."""
    return stats.pearsonr(x, y).statistic / math.sqrt((1 + VARIANCE_FLOOR / x.var()) * (1 + VARIANCE_FLOOR / y.var()))


def test_the_squared_loss_is_the_mean_squared_error_of_the_known_labels():
    median, label = windows()
    known = np.isfinite(label.numpy())
    expected = np.mean((median.numpy()[known] - label.numpy()[known]) ** 2)
    assert squared_loss(median, label).item() == pytest.approx(expected, rel=1e-12)


def test_the_correlation_loss_is_minus_the_mean_of_scipys_correlations_of_the_days_with_three_labels():
    median, label = windows()
    found = []
    for w, day, h in np.ndindex(2, 5, 2):
        x, y = median[w, :, day, h].numpy(), label[w, :, day, h].numpy()
        known = np.isfinite(y)
        if known.sum() >= 3:
            found.append(floored_correlation(x[known], y[known]))
    assert len(found) < 20  # the two days of two labels do not count
    assert correlation_loss(median, label).item() == pytest.approx(-np.mean(found), rel=1e-9)


def test_scale_and_level_of_the_median_do_not_count_in_a_correlation_but_its_sign_does():
    median, label = windows()
    loss = correlation_loss(median, label).item()
    assert correlation_loss(50 * median + 3, label).item() == pytest.approx(loss, rel=1e-3)
    assert correlation_loss(-median, label).item() == pytest.approx(-loss)
    assert correlation_loss(torch.nan_to_num(label), label).item() == pytest.approx(-1.0, abs=1e-3)


def test_permuting_the_symbols_of_a_window_changes_no_loss():
    median, label = windows()
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    for loss in (squared_loss, correlation_loss):
        assert loss(median[:, order], label[:, order]).item() == pytest.approx(loss(median, label).item(), rel=1e-12)


@pytest.mark.parametrize("loss", [squared_loss, correlation_loss])
def test_the_gradient_is_that_of_finite_differences(loss):
    median, label = windows(shape=(1, 4, 2, 1))
    assert torch.autograd.gradcheck(lambda x: loss(x, label), median.clone().requires_grad_())


@pytest.mark.parametrize("loss", [squared_loss, correlation_loss])
@pytest.mark.parametrize("what", ["no label", "equal forecasts", "equal labels", "two symbols"])
def test_loss_and_gradient_are_finite_at_the_edges(loss, what):
    median, label = windows()
    if what == "no label":
        label = torch.full_like(label, math.nan)
    elif what == "equal forecasts":
        median = torch.full_like(median, 0.7)
    elif what == "equal labels":
        label = torch.full_like(label, 0.7)
    else:
        median, label = median[:, :2], label[:, :2]
    median.requires_grad_()
    value = loss(median, label)
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(median.grad).all()
    if what == "no label" or loss is correlation_loss:
        assert value.item() == pytest.approx(0.0, abs=1e-9)
    if loss is correlation_loss and what != "equal forecasts":
        assert torch.count_nonzero(median.grad.abs() > 1e-9) == 0


def test_the_other_quantiles_learn_their_pinball_loss_and_the_median_has_no_part_in_it():
    rng = np.random.default_rng(0)
    quantiles = torch.from_numpy(np.sort(rng.normal(size=(1, 4, 3, 2, 3)))).requires_grad_()
    label = torch.from_numpy(rng.normal(size=(1, 4, 3, 2)))
    levels = torch.tensor(LEVELS, dtype=torch.float64)
    for kind in ("mse", "ic"):
        quantiles.grad = None
        value = spread_loss(kind, quantiles, label, levels)
        value.backward()
        errors = label.numpy()[..., None] - quantiles.detach().numpy()[..., [0, 2]]
        expected = np.maximum(np.array([0.1, 0.9]) * errors, np.array([-0.9, -0.1]) * errors).mean()
        assert value.item() == pytest.approx(expected)
        assert torch.count_nonzero(quantiles.grad[..., 1]) == 0 and (quantiles.grad[..., [0, 2]] != 0).all()
    assert spread_loss("pinball", quantiles, label, levels) == 0


@pytest.mark.parametrize("kind", LOSSES)
def test_the_objective_reports_the_chosen_loss_and_minimises_it_with_the_spread(kind):
    torch.manual_seed(0)
    shape = (2, 4, 20)
    quantiles = torch.randn(*shape, 2, 3).sort(dim=-1).values
    label, prices = torch.randn(*shape, 2), torch.full(shape, 50.0)
    config = ObjectiveConfig(horizons=[1, 5], quantiles=list(LEVELS), loss=kind, forecast_weight=2.0, profit_weight=0)
    present = torch.ones(shape, dtype=torch.bool)
    loss = Objective(config, TradingRules())(quantiles, torch.zeros(shape), label, present, prices, prices)
    task = kind, quantiles, label, torch.tensor(LEVELS)
    assert loss.forecast == forecast_loss(*task)
    assert loss.total.item() == pytest.approx(2 * (forecast_loss(*task) + spread_loss(*task)).item())


@pytest.fixture(scope="module")
def period():
    bars = make_bars(n_sessions=120, n_symbols=6, missing=0.1)
    features = make_features(bars)
    labels = make_labels(bars, features.volatility_TS, HORIZONS, 1, "open", "zscore")

    def cut(kind):
        return Period.cut(bars, features, labels, list(HORIZONS), slice(40, 120), 10, "zscore", kind)

    return cut


def forecast_like(period, seed=0):
    labels_TSH = period.scored_labels_TSH
    noise = np.random.default_rng(seed).normal(size=labels_TSH.shape)
    median_TSH = np.where(
        period.features.known_TS[period.lead :, :, None], 0.2 * np.nan_to_num(labels_TSH) + noise, np.nan
    )
    quantiles_TSHQ = median_TSH[..., None] + np.array([-1.0, 0.0, 1.0])
    return Forecast(quantiles_TSHQ, np.full(labels_TSH.shape[:2], np.nan), HORIZONS, LEVELS, "zscore")


def test_a_period_measures_the_loss_of_training_over_all_symbols_of_a_day(period):
    valid = period("ic")
    forecast, labels_TSH = forecast_like(valid), valid.scored_labels_TSH
    median_TSH = forecast.quantiles_TSHQ[..., 1]
    found = {}
    for t, h in np.ndindex(80, 2):
        known = np.isfinite(labels_TSH[t, :, h])
        if known.sum() >= 3:
            found[t, h] = floored_correlation(median_TSH[t, known, h], labels_TSH[t, known, h])
    assert valid.forecast_loss(forecast) == pytest.approx(-np.mean(list(found.values())), rel=1e-6)
    daily_T = valid.daily_loss(forecast)
    for t in range(80):
        days = [found[t, h] for h in (0, 1) if (t, h) in found]
        assert daily_T[t] == pytest.approx(-np.mean(days) if days else math.nan, rel=1e-6, nan_ok=True)
    squared = period("mse")
    error_TSH = (median_TSH - labels_TSH) ** 2
    assert squared.forecast_loss(forecast) == pytest.approx(np.nanmean(error_TSH))
    with np.errstate(invalid="ignore"):
        known_T = np.isfinite(error_TSH).any(axis=(1, 2))
    np.testing.assert_allclose(
        squared.daily_loss(forecast)[known_T], [np.nanmean(day) for day in error_TSH[known_T]], rtol=1e-6
    )


def test_a_constant_forecast_has_no_correlation_and_the_mean_has_the_least_squared_error(period):
    valid = period("ic")
    losses = score_losses(valid, unconditional(valid, LEVELS), forecast_like(valid))
    assert (losses.nothing_changes, losses.unconditional) == (0.0, 0.0) and losses.model < 0.0
    two = replace(valid, labels_TSH=np.where(np.arange(6)[:, None] < 2, valid.labels_TSH, np.nan))
    assert math.isnan(two.forecast_loss(forecast_like(valid)))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("objective.loss=mae",), r"objective\.loss=mae is not one of pinball, mse, ic"),
        (("objective.loss=mse", "model=ridge"), r"objective\.loss=mse trains networks, but model\.kind=ridge has"),
        (("objective.loss=ic", "training.symbols_per_window=2"), r"symbols_per_window=2 and batch_size=32 must be at"),
        (("objective.loss=ic", "training.batch_size=2"), r"batch_size=2 must be at least 3"),
    ],
)
def test_a_loss_that_cannot_be_is_refused_in_one_line(overrides, message):
    with pytest.raises(ValueError, match=message) as caught:
        compose_config(*overrides)
    assert "\n" not in str(caught.value)
