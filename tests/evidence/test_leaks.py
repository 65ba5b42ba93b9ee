"""The leak proof catches planted leaks and passes causal runs: hftraining/evidence/leaks.py."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hftraining.evidence import leaks as leak_proof
from hftraining.evidence.leaks import prove
from hftraining.experiment.proof import way_of
from hftraining.experiment.splits import splits_of
from hftraining.market.features import Features, Scaler, make_features, make_labels
from hftraining.market.prices import load_bars
from hftraining.model.base import Forecaster
from hftraining.model.config import ModelConfig
from hftraining.profit_tracker import ProfitTracker
from tests.bars_of import make_bars
from tests.compose import compose_config

TRAIN = slice(0, 420)


def make_way(bars, **fields):
    torch.manual_seed(0)
    model = ModelConfig(hidden_size=16, num_layers=2, num_heads=2, context=16, **fields.pop("model", {}))
    scaler = Scaler.fit(make_features(bars), TRAIN)
    forecaster = Forecaster.fresh(model, scaler, [1, 5], [0.1, 0.5, 0.9], "cpu")
    with torch.no_grad():
        for parameter in forecaster.model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    tracker = ProfitTracker(**{"policy": "head", "rebalance_band": 0.0} | fields)
    return way_of(forecaster, tracker, fits_scaler=True), forecaster.receptive_field


@pytest.fixture(scope="module")
def bars():
    return make_bars(n_sessions=600, n_symbols=4, missing=0.02)


def found(bars, days=2, seed=0, **planted):
    way, reach = make_way(bars)
    return prove(bars, TRAIN, replace(way, **planted), reach, days, seed)


def values_changed(change):
    """make_features with its values changed by a function of them and of the bars."""

    def make(bars):
        features = make_features(bars)
        return Features(change(features.values_TSF.copy(), bars).astype(np.float32), features.volatility_TS)

    return make


def test_a_causal_run_passes(bars):
    report = found(bars, days=6)
    assert report.ok and report.lines == [] and report.days == 6


@pytest.mark.parametrize("seed", range(2))
def test_a_scaler_fitted_on_all_days_is_caught(bars, seed):
    report = found(bars, seed=seed, fit_scaler=lambda features, train: Scaler.fit(features, slice(0, 600)))
    assert not report.ok and "the scaler changes with bars after" in report.lines[0]


def backward_filled(values_TSF, bars):
    for t in range(len(values_TSF) - 2, -1, -1):
        unknown = ~np.isfinite(values_TSF[t]).all(axis=1)
        values_TSF[t, unknown] = values_TSF[t + 1, unknown]
    return values_TSF


def centred(values_TSF, bars):
    values_TSF[1:-1] = (values_TSF[:-2] + values_TSF[1:-1] + values_TSF[2:]) / 3
    return values_TSF


def over_the_maximum_of_all_days(values_TSF, bars):
    values_TSF[:, :, 0] = bars.close_TS / np.nanmax(bars.close_TS, axis=0)
    return values_TSF


def with_the_label(values_TSF, bars):
    volatility_TS = np.full(bars.close_TS.shape, 0.02)
    values_TSF[:, :, 3] = make_labels(bars, volatility_TS, [1], 1, "open", relative=False)[:, :, 0]
    return values_TSF


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("leak", [backward_filled, centred, over_the_maximum_of_all_days, with_the_label])
def test_a_feature_that_looks_ahead_is_caught(bars, leak, seed):
    report = found(bars, seed=seed, make_features=values_changed(leak))
    assert not report.ok and any(line.startswith("features up to") for line in report.lines)


@pytest.mark.parametrize("seed", range(2))
def test_a_decision_that_is_filled_at_the_open_of_its_own_day_is_caught(bars, seed, monkeypatch):
    real = leak_proof.simulate

    def with_lag_0(open_TS, high_TS, low_TS, close_TS, weights_TS, rules):
        early = np.vstack([weights_TS[1:], weights_TS[-1:]])  # a fill a day later of a decision a day early
        return real(open_TS, high_TS, low_TS, close_TS, early, rules)

    monkeypatch.setattr(leak_proof, "simulate", with_lag_0)
    report = found(bars, seed=seed)
    assert not report.ok and any("(lag 0)" in line for line in report.lines)


def test_a_policy_that_looks_ahead_is_caught(bars):
    way, reach = make_way(bars)

    def decide(forecast, bars):
        weights_TS = way.decide(forecast, bars)
        return weights_TS / (1e-9 + np.abs(weights_TS).max())

    report = prove(bars, TRAIN, replace(way, decide=decide), reach, 2, 0)
    assert any(line.startswith("weights up to") for line in report.lines)


def test_a_model_without_a_causal_mask_is_caught(bars):
    way, reach = make_way(bars)

    def forecast(scaler, features):
        whole = way.forecast(scaler, features)
        return replace(whole, head_TS=whole.head_TS - np.nanmean(whole.head_TS, axis=0))

    report = prove(bars, TRAIN, replace(way, forecast=forecast), reach, 2, 0)
    assert any(line.startswith("positions up to") for line in report.lines)


@pytest.mark.parametrize("number", range(20))
def test_twenty_clean_configurations_pass(number):
    rng = np.random.default_rng(number)
    bars = make_bars(
        n_sessions=600, n_symbols=int(rng.integers(1, 13)), seed=number, missing=float(rng.choice([0, 0.05]))
    )
    way, reach = make_way(
        bars,
        model={"cross_asset": bool(rng.integers(2))},
        policy=str(rng.choice(["edge", "sign", "top_k", "head"])),
        lag=int(rng.integers(1, 3)),
        allow_short=bool(rng.integers(2)),
        whole_shares=bool(rng.integers(2)),
        max_gross=float(rng.choice([0.3, 1.0, 2.0])),
        horizon=int(rng.choice([0, 1])),
        commission=float(rng.choice([0.0, 0.001])),
    )
    report = prove(bars, TRAIN, way, reach, 2, number)
    assert report.ok, report.lines


@pytest.mark.slow
def test_a_hundred_random_days_of_a_fresh_model_are_clean_whichever_seed_draws_them():
    """A ruined account closes within the day, and the scaler knows the last training day: neither is a leak."""
    config = compose_config("model=tiny")
    bars = load_bars(config.stocks)
    splits = splits_of(config, bars)
    features = make_features(bars)
    scaler = Scaler.fit(features, splits.train)
    forecaster = Forecaster.fresh(config.model, scaler, config.objective.horizons, config.objective.quantiles, "cpu")
    way = way_of(forecaster, ProfitTracker(config.profit_tracker), fits_scaler=True)
    assert prove(bars, splits.train, way, forecaster.model.receptive_field, 100, seed=18).lines == []
