"""Trading towards a target and targets of volatility, beside naive loops."""

from dataclasses import replace

import numpy as np
import pytest

from hftraining.portfolio.weights import target_weights
from hftraining.trading.caps import cap_weights
from hftraining.trading.config import TradingRules
from hftraining.trading.simulator import simulate
from hftraining.trading.towards import traded_towards
from tests.naive_engine import random_weights
from tests.portfolio.books import RULES, bars_of, flat_bars, forecast_of, portfolio, random_bars, random_forecast

NAN = np.nan
LOOSE = TradingRules(max_position_size=5.0, max_gross=20.0)


def naive_towards(target_TS, close_TS, rate, every, rules):
    """An account of one unit of money with a value for each symbol, and cash."""
    n_sessions, n_symbols = target_TS.shape
    first = next((t for t in range(n_sessions) if target_TS[t].any()), n_sessions)
    wanted, price, age, result = np.zeros(n_symbols), [None] * n_symbols, [0] * n_symbols, []
    for t in range(n_sessions):
        value, cash = wanted.copy(), 1.0 - wanted.sum()
        for s in range(n_symbols):
            if np.isfinite(close_TS[t, s]):
                if price[s] is not None and age[s] <= 5:
                    value[s] *= close_TS[t, s] / price[s]
                price[s], age[s] = close_TS[t, s], 0
            else:
                age[s] += 1
                if age[s] > 5:
                    cash, value[s] = cash + value[s], 0.0
        held = value / (cash + value.sum()) if cash + value.sum() > 1e-6 else 0.0 * value
        if t < first or (t - first) % every:
            wanted = held
        else:
            wanted = held + (rate if held.any() else 1.0) * (target_TS[t] - held)
        wanted = cap_weights(wanted, rules)
        result.append(wanted)
    return np.array(result)


@pytest.mark.parametrize("rules", [LOOSE, TradingRules(max_position_size=0.4), replace(RULES, allow_short=False)])
def test_trading_towards_a_target_equals_an_account_that_is_kept_by_hand(rules):
    for seed in range(30):
        rng = np.random.default_rng(seed)
        bars = random_bars(seed, 50, 4, missing=[0.0, 0.1, 0.6][seed % 3])
        target_TS = cap_weights(0.3 * random_weights(rng, 50, 4), rules)
        rate, every = rng.choice([0.05, 0.5, 1.0]), int(rng.choice([2, 1, 5]))
        got = traded_towards(target_TS, bars.close_TS, rate, every, rules)
        np.testing.assert_allclose(got, naive_towards(target_TS, bars.close_TS, rate, every, rules), atol=1e-12)


def test_a_tenth_of_the_way_is_traded_each_day():
    target_TS = np.array([[1.0, 0.0]] + [[0.0, 1.0]] * 3)
    got = traded_towards(target_TS, np.full((4, 2), 50.0), 0.1, 1, RULES)
    assert got[:, 1] == pytest.approx([0.0, 0.1, 0.19, 0.271])
    assert got.sum(axis=1) == pytest.approx([1.0] * 4)


def test_the_first_trade_from_a_book_that_holds_nothing_goes_all_the_way():
    target_TS = np.array([[0.0, 0.0], [0.5, -0.5], [0.5, -0.5]])
    got = traded_towards(target_TS, np.full((3, 2), 50.0), 0.1, 1, RULES)
    assert got.tolist() == target_TS.tolist()


def test_what_is_held_drifts_with_the_prices_and_with_the_cash():
    close_TS = np.array([[100.0, 100.0], [200.0, 100.0]])
    target_TS = np.array([[0.4, 0.4], [0.0, 0.0]])
    got = traded_towards(target_TS, close_TS, 0.5, 1, RULES)
    # 0.4 grows to 0.8 and the book to 1.4; half of what is held is sold.
    np.testing.assert_allclose(got[1], np.array([0.8, 0.4]) / 1.4 / 2)


def test_between_two_rebalances_what_is_held_drifts_and_nothing_is_traded():
    bars = random_bars(1, 40, 4, missing=0.0)
    given = random_forecast(1, bars)
    config = portfolio("tilt", every=10, trade_rate=1.0)
    weights_TS = target_weights(given, bars, config, RULES)
    free = replace(RULES, commission=0.0, slippage=0.0)
    traded_T = simulate(bars.open_TS, bars.high_TS, bars.low_TS, bars.close_TS, weights_TS, free).traded_T
    daily = target_weights(given, bars, portfolio("tilt"), RULES)
    assert (weights_TS[::10] == daily[::10]).all()
    # The engine fills at the next open, so what it holds differs a little from what was wanted.
    quiet = np.arange(40) % 10 != 1
    assert traded_T[quiet].max() < 0.1 * traded_T[~quiet].min()


def test_the_sessions_of_every_are_counted_from_the_first_that_has_a_target():
    target_TS = np.array([0.0, 0.0, 0.5, 0.4, 0.3, 0.2, 0.1])[:, None]
    got = traded_towards(target_TS, np.full((7, 1), 50.0), 1.0, 3, RULES)
    assert got[:, 0].tolist() == [0.0, 0.0, 0.5, 0.5, 0.5, 0.2, 0.2]


def test_all_the_way_every_day_is_the_target_to_the_bit():
    target_TS = random_weights(np.random.default_rng(0), 30, 3)
    assert (traded_towards(target_TS, np.full((30, 3), 50.0), 1.0, 1, RULES) == target_TS).all()


def test_a_symbol_that_leaves_is_held_for_five_sessions_and_is_then_cash():
    close_TS = np.full((9, 2), 50.0)
    close_TS[2:, 1] = NAN
    target_TS = np.full((9, 2), 0.5)
    got = traded_towards(target_TS, close_TS, 1e-9, 1, RULES)
    np.testing.assert_allclose(got[:, 1], [0.5] * 7 + [0.0] * 2, atol=1e-8)
    np.testing.assert_allclose(got[:, 0], 0.5, atol=1e-8)


def test_a_book_that_is_ruined_by_a_short_gives_finite_weights_within_the_caps():
    close_TS = np.array([100.0, 300.0, 310.0, 290.0])[:, None]
    got = traded_towards(np.full((4, 1), -1.0), close_TS, 0.5, 1, RULES)
    assert np.isfinite(got).all() and (np.abs(got) <= 1.0).all()


def test_a_volatility_target_scales_the_book_by_its_own_trailing_volatility():
    bars = random_bars(2, 120, 5, missing=0.0)
    given = random_forecast(2, bars)
    plain, scaled = (
        target_weights(given, bars, portfolio("tilt", volatility_target=v), replace(RULES, max_gross=3.0))
        for v in (0.0, 0.1)
    )
    return_TS = bars.close_TS[1:] / bars.close_TS[:-1] - 1.0
    book_T = (plain[:-1] * return_TS).sum(axis=1)
    for t in range(120):
        past = book_T[max(0, t - 60) : t]
        scale = 0.1 / (past.std(ddof=1) * 252**0.5) if len(past) >= 20 else 1.0
        np.testing.assert_allclose(scaled[t], plain[t] * min(scale, 3.0), rtol=1e-9)
    assert (scaled[30:].sum(axis=1) != 1.0).all()


def test_a_volatility_target_borrows_no_more_than_max_gross_allows():
    bars = random_bars(2, 60, 5, missing=0.0)
    got = target_weights(random_forecast(2, bars), bars, portfolio("tilt", volatility_target=50.0), RULES)
    assert got.sum(axis=1) == pytest.approx(np.ones(60))
    calm = target_weights(forecast_of(np.zeros((60, 2))), flat_bars(60, 2), portfolio(volatility_target=0.1), RULES)
    assert (calm == 0.5).all()
    idle = target_weights(
        forecast_of(np.zeros((60, 2))), bars_of(bars.close_TS[:, :2]), portfolio("head", volatility_target=0.1), RULES
    )
    assert (idle == 0.0).all()
