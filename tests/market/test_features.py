"""Features and scaler of hftraining/market/features."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hftraining.market.features.names import BASIC, WIDE
from hftraining.market.features.scaler import Scaler
from hftraining.market.features.table import make_features
from tests.bars_of import make_bars

ARRAYS = ("open_TS", "high_TS", "low_TS", "close_TS", "volume_TS")


def column(values_TSF, name, symbol=0):
    return values_TSF[:, symbol, BASIC.index(name)]


def test_features_of_day_t_do_not_change_when_later_bars_change():
    bars = make_bars(missing=0.05)
    before = make_features(bars)
    rng = np.random.default_rng(1)
    for day in (40, 150, 399):
        noise = {name: getattr(bars, name).copy() for name in ARRAYS}
        for array in noise.values():
            array[day + 1 :] = rng.uniform(1, 1000, array[day + 1 :].shape)
        after = make_features(replace(bars, **noise))
        np.testing.assert_array_equal(before.values_TSF[: day + 1], after.values_TSF[: day + 1])
        np.testing.assert_array_equal(before.volatility_TS[: day + 1], after.volatility_TS[: day + 1])


def test_a_new_listing_counts_in_the_market_whether_or_not_it_will_live_to_have_features():
    bars = make_bars()
    listed, ended = {}, {}
    for name in ARRAYS:
        listed[name], ended[name] = getattr(bars, name).copy(), getattr(bars, name).copy()
        listed[name][:200, 2] = ended[name][:200, 2] = np.nan
        ended[name][210:, 2] = np.nan
    goes_on, ends = (make_features(replace(bars, **arrays)).values_TSF[:210] for arrays in (listed, ended))
    np.testing.assert_array_equal(goes_on, ends)
    alone = make_features(bars.of(bars.symbols_S[:2])).values_TSF
    market = BASIC.index("market_return")
    assert (goes_on[201:, 0, market] != alone[201:210, 0, market]).all(), "it counts from its second bar on"


def test_features_do_not_change_when_the_prices_of_a_symbol_are_multiplied():
    bars = make_bars()
    factor = np.array([1.0, 7.0, 0.01])
    scaled = replace(bars, **{name: getattr(bars, name) * factor for name in ARRAYS[:4]})
    np.testing.assert_allclose(make_features(bars).values_TSF, make_features(scaled).values_TSF, atol=1e-5)


def test_features_equal_those_worked_out_with_pandas():
    bars = make_bars(n_sessions=300, n_symbols=2)
    values = make_features(bars).values_TSF.astype(float)
    close, open_ = pd.Series(bars.close_TS[:, 0]), pd.Series(bars.open_TS[:, 0])
    log_return = np.log(close).diff()
    volatility = log_return.rolling(20).std()
    market = np.log(pd.DataFrame(bars.close_TS)).diff().mean(axis=1).fillna(0.0)
    expected = {
        "return_1d": log_return / volatility,
        "gap": np.log(open_ / close.shift()) / volatility,
        "momentum_5": np.log(close / close.shift(5)) / volatility / np.sqrt(5),
        "momentum_21": np.log(close / close.shift(21)) / volatility / np.sqrt(21),
        "market_return": market / market.iloc[1:].rolling(20).std(),
        "relative_return": (log_return - market) / volatility,
        "volatility": np.log(volatility / np.sqrt((log_return**2).rolling(252, min_periods=1).mean())),
    }
    volume = pd.Series(bars.volume_TS[:, 0])
    expected["relative_volume"] = np.log((volume + 1) / (volume.rolling(20).mean().shift() + 1))
    for name, series in expected.items():
        np.testing.assert_allclose(
            column(values, name)[22:], series.to_numpy()[22:], rtol=2e-5, atol=1e-6, err_msg=name
        )


def test_a_symbol_counts_its_own_bars_and_has_no_features_where_it_has_no_bar():
    whole = make_bars(n_sessions=120, n_symbols=1)
    halted = {name: np.insert(getattr(whole, name), 60, np.nan, axis=0) for name in ARRAYS}
    sessions = np.busday_offset(np.datetime64("2015-01-01"), np.arange(121), roll="forward")
    values = make_features(replace(whole, sessions_T=sessions, **halted)).values_TSF
    assert np.isnan(values[60]).all()
    own = slice(0, BASIC.index("market_return"))
    np.testing.assert_array_equal(np.delete(values, 60, axis=0)[:, :, own], make_features(whole).values_TSF[:, :, own])


@pytest.mark.parametrize("count", [0, 1, 2, 20])
def test_bars_that_are_too_few_give_no_features(count):
    bars = make_bars(n_symbols=2).rows(slice(0, count))
    for columns in (BASIC, WIDE):
        made = make_features(bars, columns)
        assert made.values_TSF.shape == (count, 2, len(columns)) and not made.known_TS.any()


def test_the_first_twenty_bars_of_a_symbol_have_no_features():
    known = make_features(make_bars(n_symbols=1)).known_TS[:, 0]
    assert not known[:20].any()
    assert known[21:].all()


def test_constant_prices_give_finite_features():
    bars = make_bars(n_symbols=1)
    still = {name: np.full_like(getattr(bars, name), 5.0) for name in ARRAYS}
    assert np.isfinite(make_features(replace(bars, **still)).values_TSF[30:]).all()


def test_the_scaler_is_fitted_on_training_days_alone():
    features = make_features(make_bars())
    changed = replace(features, values_TSF=features.values_TSF.copy())
    changed.values_TSF[200:] *= 100.0
    assert Scaler.fit(features, slice(0, 200)) == Scaler.fit(changed, slice(0, 200))
    assert Scaler.fit(features, slice(0, 300)) != Scaler.fit(changed, slice(0, 300))


def test_scaled_training_features_have_mean_zero_and_spread_one_and_unknown_ones_are_zero():
    features = make_features(make_bars(n_sessions=600))
    scaled = Scaler.fit(features, slice(0, 600)).scale(features.values_TSF)
    assert np.abs(scaled[features.known_TS].mean(axis=0)).max() < 0.05
    assert np.abs(scaled[features.known_TS].std(axis=0) - 1).max() < 0.1
    assert (scaled[~features.known_TS] == 0).all()
