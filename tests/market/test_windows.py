"""Splits and the window sampler of hftraining/market/windows.py."""

import numpy as np
import pytest

from hftraining.market.config import MarketDataError, StocksConfig
from hftraining.market.features.scaler import Scaler
from hftraining.market.features.table import make_features
from hftraining.market.labels import make_labels
from hftraining.market.windows import WindowSampler, make_splits
from tests.bars_of import make_bars


def make_sampler(
    bars, train=slice(0, 300), window=40, batch_size=8, symbols_per_window=2, horizons=(1, 5), symbol_S=None
):
    features = make_features(bars)
    labels = make_labels(bars, features.volatility_TS, horizons, 1, "open", "none")
    scaled = Scaler.fit(features, train).scale(features.values_TSF)
    shape = window, batch_size, symbols_per_window
    return WindowSampler(bars, scaled, features.known_TS, labels, train, *shape, symbol_S)


def test_periods_follow_each_other_and_no_label_reaches_into_the_next_one():
    sessions = make_bars(n_sessions=1000).sessions_T
    splits = make_splits(sessions, StocksConfig(), purge=21)
    assert (splits.train, splits.valid, splits.test) == (slice(0, 679), slice(700, 829), slice(850, 1000))
    last_label_of_training = splits.train.stop - 1 + 21
    assert last_label_of_training < splits.valid.start


def test_given_dates_decide_where_the_periods_begin():
    sessions = make_bars(n_sessions=1000).sessions_T
    config = StocksConfig(valid_start=str(sessions[500]), test_start=str(sessions[800]))
    splits = make_splits(sessions, config, purge=6)
    assert (splits.valid.start, splits.test.start) == (500, 800)


@pytest.mark.parametrize("field", ["valid_start", "test_start"])
def test_a_date_outside_the_data_is_refused_with_the_span_of_the_data(field):
    sessions = make_bars(n_sessions=500).sessions_T
    with pytest.raises(MarketDataError, match=f"stocks.{field}=2031-01-01 lies outside the data, which run from 2015"):
        make_splits(sessions, StocksConfig(**{field: "2031-01-01"}), purge=6)


def test_a_period_that_the_purge_empties_is_refused():
    with pytest.raises(MarketDataError, match="no validation days are left"):
        make_splits(make_bars(n_sessions=120).sessions_T, StocksConfig(), purge=21)


def test_a_window_longer_than_the_history_is_refused():
    with pytest.raises(MarketDataError, match=r"training.window=301 is longer than the 300 training days"):
        make_sampler(make_bars(), window=301)


def test_a_batch_is_a_function_of_seed_and_step():
    sampler = make_sampler(make_bars())
    again = make_sampler(make_bars())
    first, other_step, other_seed = again.batch(3, 7), sampler.batch(3, 8), sampler.batch(4, 7)
    np.testing.assert_array_equal(sampler.batch(3, 7).x_WKLF, first.x_WKLF)
    assert not np.array_equal(first.x_WKLF, other_step.x_WKLF)
    assert not np.array_equal(first.x_WKLF, other_seed.x_WKLF)


def test_windows_hold_the_bars_of_one_symbol_in_a_row_and_all_symbols_of_a_window_share_their_days():
    bars = make_bars()
    batch = make_sampler(bars).batch(1, 1)
    starts = []
    for prices_KL in batch.close_WKL:
        found = [_find(bars.close_TS[:300], prices_L) for prices_L in prices_KL]
        assert len({start for start, _ in found}) == 1
        assert len({symbol for _, symbol in found}) == len(found)
        starts.append(found[0][0])
    assert len(set(starts)) > 1


def _find(close_TS, prices_L):
    """The one place whose closes are these."""
    length = len(prices_L)
    places = [
        (start, symbol)
        for symbol in range(close_TS.shape[1])
        for start in range(len(close_TS) - length + 1)
        if np.allclose(close_TS[start : start + length, symbol], prices_L, rtol=1e-6)
    ]
    assert len(places) == 1
    return places[0]


@pytest.mark.parametrize("numbers", [None, [4, -1, 0, 7, 2]])
def test_the_windows_of_a_batch_carry_the_numbers_of_their_symbols_in_the_universe_of_the_model(numbers):
    bars = make_bars(n_symbols=5)
    batch = make_sampler(bars, symbol_S=None if numbers is None else np.array(numbers)).batch(1, 1)
    for number_K, prices_KL in zip(batch.symbol_WK, batch.close_WKL, strict=True):
        found = [_find(bars.close_TS[:300], prices_L)[1] for prices_L in prices_KL]
        assert [*number_K] == (found if numbers is None else [numbers[symbol] for symbol in found])


def test_no_window_reaches_beyond_the_training_days():
    bars = make_bars()
    sampler = make_sampler(bars)
    assert max(sampler.starts) + sampler.window <= 300


@pytest.mark.parametrize(
    ("batch_size", "symbols_per_window", "n_symbols", "shape"),
    [(32, 16, 40, (2, 16)), (32, 16, 5, (6, 5)), (32, 16, 1, (32, 1)), (8, 16, 40, (1, 8)), (8, 16, 3, (2, 3))],
)
def test_a_batch_has_windows_and_places_for_the_symbols_that_there_are(
    batch_size, symbols_per_window, n_symbols, shape
):
    bars = make_bars(n_sessions=150, n_symbols=n_symbols)
    size = {"batch_size": batch_size, "symbols_per_window": symbols_per_window}
    batch = make_sampler(bars, train=slice(0, 120), **size).batch(1, 1)
    assert batch.present_WKL.shape == (*shape, 40) and batch.label_WKLH.shape == (*shape, 40, 2)
    assert batch.present_WKL.any(axis=2).all()


def test_a_place_stays_empty_where_too_few_symbols_have_labels_in_a_window():
    bars = make_bars(n_symbols=3)
    for name in ("open_TS", "high_TS", "low_TS", "close_TS", "volume_TS"):
        getattr(bars, name)[:, 1:] = np.nan
    batch = make_sampler(bars, symbols_per_window=3).batch(1, 1)
    assert batch.present_WKL[:, 0].any()
    assert not batch.present_WKL[:, 1:].any()
    assert (batch.symbol_WK[:, 0] == 0).all() and (batch.symbol_WK[:, 1:] == -1).all()
    assert np.isnan(batch.label_WKLH[:, 1:]).all()
    assert np.isnan(batch.close_WKL[:, 1:]).all() and np.isnan(batch.open_WKL[:, 1:]).all()
    assert np.isfinite(batch.x_WKLF).all()


def test_over_many_batches_all_symbols_are_drawn_alike():
    sampler = make_sampler(make_bars(n_sessions=200, n_symbols=12), train=slice(0, 180), symbols_per_window=8)
    closes = {float(sampler.close_TS[0, s]): s for s in range(12)}
    sampler.starts = np.array([0])  # so that a symbol is known by its first close
    sampler.eligible_TS[0] = True
    drawn = np.concatenate([sampler.batch(5, step).close_WKL[:, :, 0].ravel() for step in range(300)])
    count_S = np.bincount([closes[float(close)] for close in drawn], minlength=12)
    assert count_S.sum() == 300 * 8 and count_S.min() > 0.8 * 200 and count_S.max() < 1.2 * 200


def test_a_symbol_that_lists_late_is_drawn_only_where_it_has_labels():
    bars = make_bars()
    for name in ("open_TS", "high_TS", "low_TS", "close_TS", "volume_TS"):
        getattr(bars, name)[:200, 0] = np.nan
    sampler = make_sampler(bars, symbols_per_window=1)
    for step in range(20):
        batch = sampler.batch(1, step)
        assert (np.isfinite(batch.label_WKLH).any(axis=3).mean(axis=2) >= 0.5).all()
        assert np.isfinite(batch.x_WKLF).all()
