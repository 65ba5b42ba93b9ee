"""Ridge and LightGBM: fits against least squares and brute force, forecasts against properties that always hold."""

from dataclasses import replace

import numpy as np
import pytest

from hftraining.core.forecast import Forecast
from hftraining.market.config import StocksConfig
from hftraining.market.features.scaler import Scaler
from hftraining.market.features.table import make_features
from hftraining.market.labels import make_labels
from hftraining.market.prices import load_bars
from hftraining.market.windows import make_splits
from hftraining.model import linear
from hftraining.model.base import KINDS, Forecaster
from hftraining.model.config import ModelConfig
from hftraining.model.learner import LearningError, Lesson
from hftraining.model.linear import PENALTIES_P, choose_penalties, fit_ridge
from hftraining.model.trees import choose_rounds, fit_trees
from tests.bars_of import make_bars
from tests.trackers import edge_tracker

HORIZONS, LEVELS, PURGE = (1, 5), (0.1, 0.5, 0.9), 6
TRAIN = slice(0, 500)
NO_LIGHTGBM = "LightGBM is not installed: pip install -e .[baselines]"


@pytest.fixture(params=["ridge", "lightgbm"])
def name(request):
    if request.param == "lightgbm":
        pytest.importorskip("lightgbm", reason=NO_LIGHTGBM)
    return request.param


def market(signal=0.0, n_sessions=700, n_symbols=6, n_features=4, seed=0):
    """x_TSF, known_TS, labels_TSH, span_TSH: labels are `signal` times the first two features, and noise."""
    rng = np.random.default_rng(seed)
    x_TSF = rng.normal(size=(n_sessions, n_symbols, n_features)).astype(np.float32)
    known_TS = rng.random((n_sessions, n_symbols)) > 0.05
    known_TS[:20] = False
    labels_TSH = signal * x_TSF[:, :, :2] + 0.05 + rng.standard_t(4, size=(n_sessions, n_symbols, 2))
    labels_TSH[-PURGE:], labels_TSH[rng.random((n_sessions, n_symbols)) < 0.02] = np.nan, np.nan
    span_TSH = rng.uniform(0.01, 0.03, (n_sessions, n_symbols, 1)) * np.sqrt(HORIZONS)
    return x_TSF, known_TS, labels_TSH.astype(np.float32), span_TSH


def forecast(name, x_TSF, known_TS, labels_TSH, span_TSH, train=TRAIN, seed=1):
    model = KINDS[name](ModelConfig(kind=name), x_TSF.shape[2], HORIZONS, LEVELS)
    model.learn(Lesson(x_TSF, known_TS, labels_TSH, train, PURGE, seed))
    quantiles_TSHQ, head_TS = model.predict(x_TSF, known_TS, "cpu")
    return Forecast(quantiles_TSHQ * span_TSH[..., None], head_TS, HORIZONS, LEVELS)


def pinball(quantiles_NHQ, label_NH):
    error = label_NH[..., None] - quantiles_NHQ
    return np.nanmean(np.maximum(np.array(LEVELS) * error, (np.array(LEVELS) - 1) * error))


def test_ridge_is_least_squares_with_rows_added_for_the_penalty():
    rng = np.random.default_rng(0)
    x_NF, label_NH = rng.normal(0.3, 2.0, (300, 5)), rng.normal(1.0, 1.0, (300, 2))
    ridge = fit_ridge(x_NF, label_NH, np.array([0.0, 0.5]))
    for h, penalty in enumerate((0.0, 0.5)):
        added = np.hstack([np.zeros((5, 1)), np.sqrt(300 * penalty) * np.eye(5)])  # none for the intercept
        whole = np.vstack([np.hstack([np.ones((300, 1)), x_NF]), added])
        solution = np.linalg.lstsq(whole, np.concatenate([label_NH[:, h], np.zeros(5)]))[0]
        np.testing.assert_allclose([ridge.intercept_H[h], *ridge.slope_FH[:, h]], solution, rtol=1e-9, atol=1e-12)
    expected_NH = ridge.intercept_H + x_NF @ ridge.slope_FH
    np.testing.assert_allclose(ridge.predict(x_NF), expected_NH, rtol=1e-12, atol=1e-12)


def test_ridge_agrees_with_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(1)
    x_NF = rng.normal(size=(400, 6))
    label_NH = x_NF[:, :2] + rng.normal(size=(400, 2))
    theirs = linear_model.Ridge(alpha=400 * 0.1).fit(x_NF, label_NH)
    ours = fit_ridge(x_NF, label_NH, np.array([0.1, 0.1]))
    np.testing.assert_allclose(ours.slope_FH, theirs.coef_.T, rtol=1e-9)
    np.testing.assert_allclose(ours.intercept_H, theirs.intercept_, rtol=1e-9)


def test_the_penalty_is_the_one_with_the_least_error_on_later_rows():
    rng = np.random.default_rng(2)
    x_NF, x_MF = rng.normal(size=(60, 8)), rng.normal(size=(400, 8))
    slope_FH = np.array([[0.0, 0.15, 3.0]]) * np.ones((8, 1))
    label_NH, label_MH = (x @ slope_FH + rng.normal(size=(len(x), 3)) for x in (x_NF, x_MF))
    chosen_H = choose_penalties(x_NF, label_NH, x_MF, label_MH)
    for h in range(3):
        fits = [fit_ridge(x_NF, label_NH[:, [h]], np.array([penalty])) for penalty in PENALTIES_P]
        errors = [((label_MH[:, [h]] - fit.predict(x_MF)) ** 2).mean() for fit in fits]
        assert chosen_H[h] == PENALTIES_P[np.argmin(errors)]
    assert chosen_H[0] > chosen_H[1] > chosen_H[2]  # a higher penalty where there is less to learn


def test_ridge_recovers_labels_that_are_exactly_linear():
    x_TSF, known_TS, labels_TSH, span_TSH = market()
    exact_TSH = (x_TSF[:, :, :2] * 0.5 - x_TSF[:, :, 2:] + 0.1).astype(np.float32)
    got = forecast("ridge", x_TSF, known_TS, np.where(np.isnan(labels_TSH), np.nan, exact_TSH), span_TSH)
    # The smallest penalty shrinks by 1e-4, which widens the outer quantiles as much.
    error = np.abs(got.quantiles_TSHQ - (exact_TSH * span_TSH)[..., None])[known_TS]
    assert error.max() < 2e-3 * span_TSH.max()


def test_lightgbm_learns_a_step_that_ridge_cannot():
    pytest.importorskip("lightgbm", reason=NO_LIGHTGBM)
    x_TSF, known_TS, labels_TSH, span_TSH = market()
    labels_TSH = labels_TSH + 2.0 * (np.abs(x_TSF[:, :, :1]) > 1)
    rows = slice(520, 690)
    losses = {
        name: pinball(
            (forecast(name, x_TSF, known_TS, labels_TSH, span_TSH).quantiles_TSHQ / span_TSH[..., None])[rows],
            labels_TSH[rows],
        )
        for name in ("ridge", "lightgbm")
    }
    assert losses["lightgbm"] < 0.9 * losses["ridge"]


def test_a_learner_finds_a_signal_and_lowers_the_loss(name):
    x_TSF, known_TS, labels_TSH, span_TSH = market(signal=0.5)
    got = forecast(name, x_TSF, known_TS, labels_TSH, span_TSH)
    units_TSHQ = got.quantiles_TSHQ / span_TSH[..., None]
    rows = known_TS & (np.arange(len(known_TS)) >= TRAIN.stop)[:, None]
    for h in range(2):
        assert np.corrcoef(units_TSHQ[rows][:, h, 1], x_TSF[rows][:, h])[0, 1] > 0.8
    constant_HQ = np.nanquantile(labels_TSH[TRAIN], LEVELS, axis=(0, 1)).T
    constant = np.broadcast_to(constant_HQ, units_TSHQ[rows].shape)
    assert pinball(units_TSHQ[rows], labels_TSH[rows]) < 0.97 * pinball(constant, labels_TSH[rows])


def test_noise_gives_about_the_unconditional_forecast(name):
    x_TSF, known_TS, labels_TSH, span_TSH = market()
    got = forecast(name, x_TSF, known_TS, labels_TSH, span_TSH)
    units_NHQ = (got.quantiles_TSHQ / span_TSH[..., None])[known_TS]
    unconditional_HQ = np.nanquantile(labels_TSH[TRAIN][known_TS[TRAIN]], LEVELS, axis=0).T
    np.testing.assert_allclose(units_NHQ.mean(axis=0), unconditional_HQ, atol=0.06)
    # Labels have a deviation of 1.4, so four slopes without a penalty would give about 0.05 here.
    assert units_NHQ[:, :, 1].std(axis=0).max() < 0.1


def test_quantiles_are_calibrated_on_days_that_were_not_fitted(name):
    x_TSF, known_TS, labels_TSH, span_TSH = market(signal=0.3, n_sessions=2000)
    got = forecast(name, x_TSF, known_TS, labels_TSH, span_TSH, train=slice(0, 1000))
    rows = known_TS & np.isfinite(labels_TSH).all(axis=2) & (np.arange(2000) >= 1006)[:, None]
    below_HQ = (labels_TSH[rows][..., None] * span_TSH[rows][..., None] < got.quantiles_TSHQ[rows]).mean(axis=0)
    np.testing.assert_allclose(below_HQ, np.tile(LEVELS, (2, 1)), atol=0.02)


def test_quantiles_are_equally_far_apart_on_every_day_in_volatility_units(name):
    x_TSF, known_TS, labels_TSH, span_TSH = market(signal=0.3)
    got = forecast(name, x_TSF, known_TS, labels_TSH, span_TSH)
    apart = np.diff(got.quantiles_TSHQ / span_TSH[..., None], axis=-1)[known_TS]
    assert (apart > 0).all()
    np.testing.assert_allclose(apart, np.broadcast_to(apart[0], apart.shape), rtol=1e-9)


def test_only_symbols_with_features_have_a_forecast_and_none_has_a_position(name):
    x_TSF, known_TS, labels_TSH, span_TSH = market()
    span_TSH[~known_TS] = np.nan
    got = forecast(name, x_TSF, known_TS, labels_TSH, span_TSH)
    assert (np.isfinite(got.quantiles_TSHQ).all(axis=(2, 3)) == known_TS).all()
    assert np.isnan(got.head_TS).all()
    assert (got.horizons, got.levels) == (HORIZONS, LEVELS)


def test_later_bars_change_no_earlier_forecast_by_a_bit(name):
    x_TSF, known_TS, labels_TSH, span_TSH = market(signal=0.2)
    whole = forecast(name, x_TSF, known_TS, labels_TSH, span_TSH).quantiles_TSHQ
    rng = np.random.default_rng(5)
    for t in (TRAIN.stop - 1, 560, 698):
        other = [array.copy() for array in (x_TSF, known_TS, labels_TSH, span_TSH)]
        other[0][t + 1 :] = rng.normal(0, 9, other[0][t + 1 :].shape)
        other[1][t + 1 :] = rng.random(other[1][t + 1 :].shape) > 0.5
        other[2][max(TRAIN.stop, t + 1 - PURGE) :] = rng.normal(0, 9, other[2][max(TRAIN.stop, t + 1 - PURGE) :].shape)
        other[3][t + 1 :] = 1.0
        np.testing.assert_array_equal(forecast(name, *other).quantiles_TSHQ[: t + 1], whole[: t + 1])
        cut = (array[: t + 1] for array in (x_TSF, known_TS, labels_TSH, span_TSH))
        np.testing.assert_array_equal(forecast(name, *cut).quantiles_TSHQ, whole[: t + 1])


def test_labels_outside_the_training_days_are_never_read(name):
    x_TSF, known_TS, labels_TSH, span_TSH = market(signal=0.2)
    train = slice(100, 500)
    blind_TSH = np.full_like(labels_TSH, np.nan)
    blind_TSH[train] = labels_TSH[train]
    np.testing.assert_array_equal(
        forecast(name, x_TSF, known_TS, blind_TSH, span_TSH, train).quantiles_TSHQ,
        forecast(name, x_TSF, known_TS, labels_TSH, span_TSH, train).quantiles_TSHQ,
    )


def test_the_purge_separates_fitted_days_from_judged_days(monkeypatch):
    x_TSF, known_TS, labels_TSH, span_TSH = market()
    x_TSF[:, :, 0] = np.arange(len(x_TSF))[:, None]  # so that a row names its session
    fits, judged = [], []

    class Noted(linear.Ridge):
        def predict(self, x_NF):
            judged.append(x_NF[:, 0])
            return super().predict(x_NF)

    def noted_fit(x_NF, label_NH, penalty_H, *, seed):
        fits.append(x_NF[:, 0])
        ridge = fit_ridge(x_NF, label_NH, penalty_H)
        return Noted(ridge.intercept_H, ridge.slope_FH)

    def noted_choice(x_NF, label_NH, x_MF, label_MH, *, seed):
        fits.append(x_NF[:, 0])
        judged.append(x_MF[:, 0])
        return np.array([1.0, 1.0])

    monkeypatch.setattr(linear.RidgeModel, "fit", staticmethod(noted_fit))
    monkeypatch.setattr(linear.RidgeModel, "choose", staticmethod(noted_choice))
    forecast("ridge", x_TSF, known_TS, labels_TSH, span_TSH)
    tuning, whole, of_late, of_early = fits
    last_fifth, first, second, everything = judged
    assert (whole.min(), whole.max(), everything.max()) == (20, 499, 699)
    assert (last_fifth.min(), last_fifth.max()) == (404, 499)  # 480 days with features
    assert last_fifth.min() - tuning.max() == PURGE + 1
    assert (first.min(), first.max(), second.min(), second.max()) == (20, 259, 260, 499)
    assert of_late.min() - first.max() == PURGE + 1
    assert second.min() - of_early.max() == PURGE + 1


def test_the_same_seed_gives_the_same_forecast_to_the_bit(name):
    once, again = (forecast(name, *market(signal=0.2)).quantiles_TSHQ for _ in range(2))
    np.testing.assert_array_equal(once, again)


def test_the_trees_of_one_horizon_do_not_depend_on_the_others():
    pytest.importorskip("lightgbm", reason=NO_LIGHTGBM)
    rng = np.random.default_rng(0)
    x_NF = rng.normal(size=(2000, 5))
    label_NH = x_NF[:, :3] * [0.0, 0.2, 2.0] + rng.normal(size=(2000, 3))
    cut = (x_NF[:1500], label_NH[:1500], x_NF[1500:], label_NH[1500:])
    rounds_H = choose_rounds(*cut, seed=1)
    assert rounds_H[0] < rounds_H[2]
    together_NH = fit_trees(x_NF, label_NH, rounds_H, seed=1).predict(x_NF)
    for h in range(3):
        alone = (array if array.shape[1] == 5 else array[:, [h]] for array in cut)
        assert choose_rounds(*alone, seed=1) == rounds_H[h]
        alone_N1 = fit_trees(x_NF, label_NH[:, [h]], rounds_H[[h]], seed=1).predict(x_NF)
        np.testing.assert_array_equal(alone_N1[:, 0], together_NH[:, h])


@pytest.mark.parametrize("scale", [0.125, 8.0])
def test_labels_of_any_unit_give_forecasts_in_that_unit(name, scale):
    x_TSF, known_TS, labels_TSH, span_TSH = market(signal=0.3)
    plain, other = (forecast(name, x_TSF, known_TS, c * labels_TSH, span_TSH).quantiles_TSHQ for c in (1.0, scale))
    np.testing.assert_allclose(other, scale * plain, rtol=1e-5, atol=1e-9)


def test_too_few_training_days_are_refused_in_one_line(name):
    arguments = market()
    enough = 20 + 2 * (PURGE + 1)  # the first 20 have no features
    assert np.isfinite(forecast(name, *arguments, train=slice(0, enough)).quantiles_TSHQ).any()
    with pytest.raises(LearningError, match=f"^{name}: 13 training days .* or do without {name}$"):
        forecast(name, *arguments, train=slice(0, enough - 1))


def forecast_bars(name, bars, horizons=(1, 5, 20), levels=(0.1, 0.25, 0.5, 0.75, 0.9)):
    """From bars to a forecast, as in a run; returns the forecast and the splits."""
    purge = 1 + max(horizons)
    splits = make_splits(bars.sessions_T, StocksConfig(), purge)
    features = make_features(bars)
    labels_TSH = make_labels(bars, features.volatility_TS, horizons, 1, "open", "none")
    scaler = Scaler.fit(features, splits.train)
    forecaster = Forecaster.fresh(ModelConfig(name=name, kind=name), scaler, horizons, levels)
    scaled_TSF = scaler.scale(features.values_TSF)
    forecaster.model.learn(Lesson(scaled_TSF, features.known_TS, labels_TSH, splits.train, purge, 1))
    return forecaster.forecast_features(features, bars.symbols_S), splits


def test_on_the_sample_a_learner_trades_and_is_not_too_good_to_be_true(name):
    bars = load_bars(StocksConfig(source="sample5"))
    got, splits = forecast_bars(name, bars)
    tracker = edge_tracker()
    for rows in (splits.valid, splits.test):
        metrics = tracker.evaluate(bars.rows(rows), got.rows(rows)).metrics
        assert abs(metrics["sharpe_ratio"]) < 3
        assert metrics["turnover"] > 0 and 0.1 < metrics["exposure"] <= 1.05


def test_the_scale_of_prices_does_not_matter(name):
    bars = make_bars(500, 3, missing=0.02)
    # Powers of two change no digit.
    scale_S = np.array([8.0, 0.25, 1024.0])
    scaled = {key: getattr(bars, key) * scale_S for key in ("open_TS", "high_TS", "low_TS", "close_TS")}
    plain, other = (forecast_bars(name, b)[0].quantiles_TSHQ for b in (bars, replace(bars, **scaled)))
    np.testing.assert_allclose(plain, other, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_on_300_stocks_the_scores_are_as_small_as_the_honest_anchors(name, shared_data):
    config = StocksConfig(
        source="files", path=str(shared_data / "us300_2005_2017.parquet"), test_start="2014-01-01", bad_rows="drop"
    )
    bars = load_bars(config)
    got, _ = forecast_bars(name, bars)
    rows = slice(int(np.searchsorted(bars.sessions_T, np.datetime64("2014-01-01"))), None)
    volatility_TS = make_features(bars).volatility_TS
    labels_TS = make_labels(bars, volatility_TS, (1,), 1, "open", "none")[rows, :, 0]
    median_TS = (got.quantiles_TSHQ[rows, :, 0, 2] / volatility_TS[rows]).astype(float)
    both_TS = np.isfinite(labels_TS) & np.isfinite(median_TS)
    daily = [
        np.corrcoef(m[k], y[k])[0, 1] for m, y, k in zip(median_TS, labels_TS, both_TS, strict=True) if k.sum() > 9
    ]
    assert -0.01 < np.mean(daily) < 0.06
