"""Sessions without a decision, and decisions in shares: against the naive loop, and by hand."""

from dataclasses import replace

import numpy as np
import pytest

from hftraining.trading.config import TradingRules
from hftraining.trading.simulator import simulate, simulate_shifted
from tests.naive_engine import naive_simulate, random_market, random_rules, random_weights

FREE = TradingRules(commission=0.0, slippage=0.0, borrow_rate=0.0)


def drawn(seed, in_shares):
    """A market, a book that is decided on some sessions alone, and rules."""
    rng = np.random.default_rng(seed)
    n_sessions, n_symbols = int(rng.integers(3, 60)), int(rng.integers(1, 6))
    market = random_market(rng, n_sessions, n_symbols, rng.choice([0.0, 0.1]), rng.choice([0.02, 0.1]))
    book_TS, rules = random_weights(rng, n_sessions, n_symbols), random_rules(rng)
    if in_shares:
        book_TS = np.round(book_TS * rules.initial_capital / 50.0, 1)
    book_TS[rng.random(n_sessions) < 0.7] = np.nan
    return market, book_TS, rules


@pytest.mark.parametrize("in_shares", [False, True])
def test_books_that_are_decided_now_and_then_trade_as_the_naive_loop(in_shares):
    traded = 0
    for seed in range(150):
        market, book_TS, rules = drawn(seed, in_shares)
        got = simulate(*market, book_TS, rules, in_shares=in_shares)
        want = naive_simulate(*[prices.tolist() for prices in market], book_TS.tolist(), rules, in_shares)
        money = 1e-9 * rules.initial_capital
        np.testing.assert_allclose(got.equity_T, want.equity, rtol=1e-9, atol=money)
        np.testing.assert_allclose(got.shares_TS, want.shares, rtol=1e-9, atol=1e-9)
        assert len(got.trades) == len(want.trades)
        traded += len(got.trades)
    assert traded > 150


def test_shares_are_ordered_to_the_bit_and_not_by_way_of_weights():
    rng = np.random.default_rng(1)
    market = random_market(rng, 40, 3, wild=0.05)
    shares_TS = rng.integers(0, 40, (40, 3)).astype(float)
    got = simulate(*market, shares_TS, FREE, in_shares=True)
    np.testing.assert_array_equal(got.shares_TS[1:], shares_TS[:-1])  # the account affords them all


def test_what_is_held_between_two_decisions_is_not_traded():
    rng = np.random.default_rng(2)
    market = random_market(rng, 50, 4)
    weights_TS = np.full((50, 4), np.nan)
    weights_TS[3], weights_TS[30] = 0.25, 0.1
    got = simulate(*market, weights_TS, TradingRules())
    assert np.flatnonzero(got.traded_T).tolist() == [4, 31]
    assert (got.shares_TS[4:31] == got.shares_TS[4]).all()


def test_shifted_books_keep_their_sessions_without_a_decision_to_the_bit():
    for seed in range(30):
        market, book_TS, rules = drawn(seed, in_shares=False)
        rules = replace(rules, lag=1, stop_loss=0.0, take_profit=0.0, whole_shares=False)
        offset_D = np.arange(5)
        home_DS = np.tile(np.arange(book_TS.shape[1]), (5, 1))
        equity_TD = simulate_shifted(*market, book_TS, rules, offset_D, home_DS)
        for offset in offset_D:
            moved_TS = np.roll(book_TS, offset, axis=0)
            decided = [t for t in range(len(moved_TS)) if not np.isnan(moved_TS[t]).all()]
            if decided and decided[0] > 0:  # it begins with what was decided last
                moved_TS[0] = moved_TS[decided[-1]]
            again = simulate(*market, moved_TS, rules)
            np.testing.assert_array_equal(equity_TD[:, offset], again.equity_T)


def test_a_book_that_is_decided_once_is_held_from_the_start_wherever_it_is_moved():
    rng = np.random.default_rng(3)
    market = random_market(rng, 60, 3)
    once_TS = np.full((60, 3), np.nan)
    once_TS[0] = 0.2
    for lag in (1, 2):
        draws = np.arange(30), np.tile(np.arange(3), (30, 1))
        equity_TD = simulate_shifted(*market, once_TS, TradingRules(lag=lag), *draws)
        assert (equity_TD[lag] == equity_TD[lag, 0]).all() and equity_TD[lag, 0] != equity_TD[0, 0]


def test_a_weight_of_nan_beside_others_is_refused():
    weights_TS = np.zeros((4, 2))
    weights_TS[1, 0] = np.nan
    with pytest.raises(ValueError, match="weights: nan at session 1, symbol 0"):
        simulate(*[np.ones((4, 2))] * 4, weights_TS, FREE)
