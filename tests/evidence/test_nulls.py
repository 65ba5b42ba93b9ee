"""The null band: shifts, ties, missing bars, and markets without skill."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftraining.evidence.nulls import MIN_OFFSET, null_band, p_value
from hftraining.trading.config import TradingRules
from hftraining.trading.metrics import sharpe_ratio
from hftraining.trading.simulator import simulate
from tests.bars_of import make_bars

RULES = TradingRules()
FREE = replace(RULES, commission=0.0, slippage=0.0, borrow_rate=0.0, stop_loss=0.0, take_profit=0.0)


def prices(bars):
    return bars.open_TS, bars.high_TS, bars.low_TS, bars.close_TS


def noise(bars, seed=0):
    return 0.3 * np.random.default_rng(seed).choice([-1.0, 0.0, 1.0], bars.close_TS.shape)


def test_a_book_that_never_changes_is_no_better_than_its_shifts():
    bars = make_bars(300, 3)
    assert null_band(*prices(bars), np.full((300, 3), 0.3), RULES, 100, 0).p == 1.0


def test_a_book_that_never_trades_has_p_one_and_says_so():
    bars = make_bars(300, 3)
    band = null_band(*prices(bars), np.zeros((300, 3)), RULES, 100, 0)
    assert band.p == 1.0 and band.reason == "nothing was traded"
    assert all(math.isnan(end) for end in band.band)
    assert (band.fan_TQ == RULES.initial_capital).all()


def test_a_period_too_short_to_shift_gives_nan_with_a_reason():
    bars = make_bars(40, 2)
    band = null_band(*prices(bars), noise(bars), RULES, 100, 0)
    assert math.isnan(band.p) and band.reason == "40 sessions are too short for a null band, which needs 41"
    assert band.fan_TQ.shape == (40, 5)
    assert math.isfinite(null_band(*prices(make_bars(41, 2)), noise(make_bars(41, 2)), RULES, 100, 0).p)


def test_perfect_foresight_has_the_smallest_p_and_its_reverse_the_largest():
    bars = make_bars(300, 2)
    rise_TS = np.zeros((300, 2))
    rise_TS[:-2] = np.sign(bars.open_TS[2:] - bars.open_TS[1:-1])
    assert null_band(*prices(bars), 0.3 * rise_TS, FREE, 500, 0).p == 1 / 281
    assert null_band(*prices(bars), -0.3 * rise_TS, FREE, 500, 0).p == 1.0


def test_p_and_band_are_those_of_a_loop_over_the_shifts():
    bars = make_bars(90, 2)
    weights_TS = noise(bars)
    shifted = [simulate(*prices(bars), np.roll(weights_TS, k, axis=0), RULES).equity_T for k in range(71)]
    own, *sharpes = sharpe_ratio(np.stack(shifted, axis=1))
    far = shifted[MIN_OFFSET:]
    band = null_band(*prices(bars), weights_TS, RULES, 500, 0)
    assert band.draws == 70
    assert band.sharpe == pytest.approx(own)
    assert band.p == pytest.approx((1 + sum(sharpe >= own for sharpe in sharpes)) / 71)
    assert band.band == pytest.approx(np.quantile(sharpes[MIN_OFFSET - 1 :], [0.05, 0.5, 0.95]))
    assert band.fan_TQ == pytest.approx(np.quantile(far, [0.05, 0.25, 0.5, 0.75, 0.95], axis=0).T)


def test_missing_bars_do_not_stop_the_shifts():
    bars = make_bars(200, 3, missing=0.1)
    band = null_band(*prices(bars), noise(bars), RULES, 100, 0)
    assert 0.0 < band.p <= 1.0 and np.isfinite(band.fan_TQ).all()


@pytest.mark.parametrize("rules", [RULES, replace(RULES, stop_loss=0.05)])
def test_the_same_seed_draws_the_same_band_and_chunks_do_not_matter(monkeypatch, rules):
    bars = make_bars(200, 3)
    first = null_band(*prices(bars), noise(bars), rules, 100, 5)
    monkeypatch.setattr("hftraining.trading.simulator._CHUNK_VALUES", 5_000)
    again = null_band(*prices(bars), noise(bars), rules, 100, 5)
    assert (first.p, first.band, first.selection_p, first.selection_band) == (
        again.p, again.band, again.selection_p, again.selection_band,
    )  # fmt: skip
    assert (first.fan_TQ == again.fan_TQ).all()


def test_skill_in_selection_shows_where_timing_has_none():
    bars = make_bars(300, 6, seed=3)
    best_S = bars.open_TS[-1] / bars.open_TS[1] == (bars.open_TS[-1] / bars.open_TS[1]).max()
    weights_TS = np.tile(0.3 * best_S, (300, 1))
    band = null_band(*prices(bars), weights_TS, FREE, 300, 0)
    assert band.p == 1.0 and band.selection_p < 0.4


@given(
    st.lists(st.floats(-5, 5) | st.just(math.nan), min_size=1, max_size=40),
    st.floats(-5, 5) | st.just(math.nan),
    st.floats(0, 3),
)
@settings(max_examples=200, deadline=None)
def test_p_lies_in_its_range_counts_ties_and_falls_as_the_strategy_gets_better(drawn, own, more):
    drawn_D = np.array(drawn)
    p = p_value(own, drawn_D)
    assert 1 / (1 + len(drawn)) <= p <= 1.0
    as_good = sum(not d < own - 1e-12 for d in drawn)
    assert p == pytest.approx((1 + as_good) / (1 + len(drawn)))
    if not math.isnan(own):
        assert p_value(own + more, drawn_D) <= p


@pytest.mark.slow
def test_p_is_uniform_on_markets_without_skill():
    from scipy.stats import kstest

    found = []
    for seed in range(400):
        bars = make_bars(250, 2, seed=seed)
        held_TS = np.repeat(noise(bars, seed + 10_000)[::10], 10, axis=0)  # each position for two weeks
        found.append(null_band(*prices(bars), held_TS, RULES, 249, seed).p)
    assert kstest(found, "uniform").pvalue > 0.01
    assert np.mean(np.array(found) <= 0.05) <= 0.07
