"""Other futures, and the comparison of what was known: hftraining/evidence/noise.py and leaks.py."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hftraining.core.bars import ARRAYS
from hftraining.evidence.leaks import Known, changed, moved, unmoved
from hftraining.evidence.noise import half_of, other_future, rescaled_past
from hftraining.market.features.table import make_features
from hftraining.trading.config import TradingRules
from hftraining.trading.simulator import simulate
from tests.bars_of import make_bars

DAY = 150


def events_of(bars, *rows):
    dates = [pd.Timestamp(bars.sessions_T[row]) for row in rows]
    return pd.DataFrame({"symbol": "S0", "date": dates, "split": 2.0, "dividend": 0.0})


@pytest.fixture(scope="module")
def bars():
    made = make_bars(n_sessions=220, n_symbols=6, missing=0.05)
    return replace(made, events=events_of(made, 20, 100, 180, 200))


def other(bars, seed=0, **settings):
    return other_future(bars, DAY, np.random.default_rng(seed), **settings)


def arrays(bars, rows):
    return {name: getattr(bars, name)[rows] for name in ARRAYS}


@pytest.mark.parametrize("seed", range(5))
def test_another_future_leaves_the_past_alone_and_nothing_of_the_future(bars, seed):
    made = other(bars, seed)
    for name in ARRAYS:
        ours, theirs = getattr(made, name), getattr(bars, name)
        assert np.array_equal(ours[: DAY + 1], theirs[: DAY + 1], equal_nan=True)
        assert not (ours[DAY + 1 :] == theirs[DAY + 1 :]).any()
    day = pd.Timestamp(bars.sessions_T[DAY])
    past = [events[events["date"] <= day]["date"].tolist() for events in (made.events, bars.events)]
    assert past[0] == past[1] and len(past[0]) == 2
    assert pd.Timestamp(bars.sessions_T[DAY + 1]) in made.events["date"].tolist()


def test_noise_is_bars_that_a_market_could_have(bars):
    made = other(bars)
    known = made.present_TS
    assert all(np.array_equal(np.isfinite(getattr(made, name)), known) for name in ARRAYS)
    low, high = made.low_TS[known], made.high_TS[known]
    for prices in (made.open_TS[known], made.close_TS[known]):
        assert (low <= prices).all() and (prices <= high).all() and (prices > 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_presence_changes_tomorrow_soon_and_at_the_end(bars, seed):
    ours, theirs = other(bars, seed).present_TS, bars.present_TS
    traded = theirs[DAY]
    assert (ours[DAY + 1, traded] != theirs[DAY + 1, traded]).any()
    assert (ours[DAY + 1, traded] == theirs[DAY + 1, traded]).any()
    assert not ours[-1].all() and ours[-1].any()


def test_the_one_symbol_of_a_run_has_no_bar_tomorrow():
    single = make_bars(n_sessions=220, n_symbols=1)
    assert not other(single).present_TS[DAY + 1].any()


@pytest.mark.parametrize("seed", range(8))
def test_noise_exceeds_every_price_before_it_on_both_sides(bars, seed):
    made = other(bars, seed).close_TS
    before, after = made[: DAY + 1], made[DAY + 1 :]
    exceeds = np.nanmax(after, axis=0, initial=0.0) > np.nanmax(before, axis=0)
    undercuts = np.nanmin(after, axis=0, initial=1e9) < np.nanmin(before, axis=0)
    assert exceeds.any() and undercuts.any()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("day", [101, 130, 157, 158, 159])
def test_an_account_up_to_the_day_does_not_change_whatever_becomes_of_its_symbols(seed, day):
    """A symbol that never trades again is closed at its last bar, so within the judged rows it must trade again."""
    bars = make_bars(n_sessions=220, n_symbols=4, missing=0.1, seed=seed)
    for array in arrays(bars, slice(None)).values():
        array[day - 3 : 200, 0] = np.nan  # ended, as far as these rows go
        array[day + 2 :, 1] = np.nan
    judged = slice(100, 160)
    weights_TS = np.random.default_rng(seed).uniform(-0.4, 0.4, (60, 4))
    rules = TradingRules(rebalance_band=0.0, stop_loss=0.0, take_profit=0.0)
    made = other_future(bars, day, np.random.default_rng(seed), judged=judged)
    accounts = [
        simulate(*(getattr(b, name)[judged] for name in ARRAYS[:4]), weights_TS, rules).equity_T[: day - 99]
        for b in (bars, made)
    ]
    assert np.array_equal(*accounts)


def test_with_its_open_kept_a_day_moves_little_and_is_as_present_as_before(bars):
    made = other(bars, keep_open=True)
    assert np.array_equal(made.open_TS[DAY], bars.open_TS[DAY], equal_nan=True)
    assert np.array_equal(made.present_TS[DAY], bars.present_TS[DAY])
    known = bars.present_TS[DAY]
    assert not (made.close_TS[DAY] == bars.close_TS[DAY]).any()
    assert (np.abs(np.log(made.close_TS / made.open_TS)[DAY, known]) <= 0.05 + 1e-12).all()
    before = arrays(made, slice(0, DAY))
    assert all(np.array_equal(before[name], getattr(bars, name)[:DAY], equal_nan=True) for name in ARRAYS)


def test_a_later_split_rescales_prices_but_no_feature(bars):
    scaled = rescaled_past(bars, DAY, np.random.default_rng(0))
    assert np.array_equal(scaled.close_TS[DAY + 1 :], bars.close_TS[DAY + 1 :], equal_nan=True)
    factor_TS = (scaled.close_TS / bars.close_TS)[: DAY + 1]
    assert (np.nanstd(factor_TS, axis=0) < 1e-12).all() and (np.abs(np.nanmean(factor_TS, axis=0) - 1) > 0.01).all()
    ours, theirs = (make_features(b).values_TSF[: DAY + 1] for b in (scaled, bars))
    assert np.allclose(ours, theirs, rtol=1e-4, atol=1e-5, equal_nan=True)


def test_only_what_is_known_by_a_row_is_compared():
    items = np.arange(10.0)
    later = items.copy()
    later[7:] = -1.0
    assert changed({"a": Known.since(items, 5)}, {"a": Known.since(later, 5)}, 11) == []
    assert changed({"a": Known.since(items, 5)}, {"a": Known.since(later, 5)}, 12) == ["a"]
    assert Known.since(items, 5, earliest=8).by(7).size == 0
    assert Known.since(items, 5, earliest=8).by(8).tolist() == [0.0, 1.0, 2.0, 3.0]


def test_a_last_bit_is_a_change_a_missing_row_too_and_nan_is_itself():
    ours = np.array([1.0, np.nan, 2.0])
    theirs = np.array([1.0, np.nan, np.nextafter(2.0, 3.0)])
    assert changed({"a": Known.since(ours, 0)}, {"a": Known.since(ours.copy(), 0)}, 2) == []
    assert changed({"a": Known.since(ours, 0)}, {"a": Known.since(theirs, 0)}, 2) == ["a"]
    assert changed({"a": Known.since(ours, 0)}, {"a": Known.since(ours[:2], 0)}, 2) == ["a"]


def test_rounding_moves_nothing_and_scale_does():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(300, 4)).astype(np.float32)
    near = values * np.float32(1 + 1e-6)
    assert moved({"features": Known.since(values, 0)}, {"features": Known.since(near, 0)}, 299, ("features",)) == []
    far = values + np.log(2.0)
    found = moved({"features": Known.since(values, 0)}, {"features": Known.since(far, 0)}, 299, ("features",))
    assert found == ["features"]
    assert moved({"prices": Known.since(values, 0)}, {"prices": Known.since(far, 0)}, 299, ("features",)) == []


def test_what_never_follows_other_bars_is_named():
    items = np.arange(10.0)
    follows, stays = items.copy(), items.copy()
    follows[8] = -1.0
    seen = {"features": Known.since(items, 0), "labels": Known.since(items, 0)}
    other = {"features": Known.since(follows, 0), "labels": Known.since(stays, 0)}
    assert unmoved(seen, other, 5, ("features", "labels")) == ["labels"]
    assert unmoved(seen, other, 9, ("features", "labels")) == [], "nothing comes after"


def test_each_symbol_ends_early_in_one_of_two_futures(bars):
    early_S = half_of(bars.present_TS, DAY, np.random.default_rng(3))
    ended = [~other(bars, early_S=ended_S).present_TS[-20:].any(axis=0) for ended_S in (early_S, ~early_S)]
    assert early_S.sum() == 3
    assert not ended[0][~early_S].any() and not ended[1][early_S].any()
    assert (ended[0] | ended[1]).sum() >= 4


@pytest.mark.parametrize("seed", range(10))
def test_half_of_every_kind_of_symbol_ends_early_and_one_that_trades_within_three_sessions(bars, seed):
    sparse = {name: array.copy() for name, array in arrays(bars, slice(None)).items()}
    for array in sparse.values():
        array[DAY - 5 : DAY + 1, :3] = np.nan
        array[DAY, 3:] = 50.0
    few = replace(bars, **sparse)
    early_S = half_of(few.present_TS, DAY, np.random.default_rng(seed))
    assert early_S[:3].sum() in (1, 2) and early_S[3:].sum() in (1, 2)
    made = other(few, seed).present_TS[DAY + 1 :, 3:]
    assert (made[:3].any(axis=0) & ~made[3:].any(axis=0)).any()


def test_a_symbol_alone_never_ends_early():
    single = make_bars(n_sessions=220, n_symbols=1)
    assert not half_of(single.present_TS, DAY, np.random.default_rng(0)).any()
