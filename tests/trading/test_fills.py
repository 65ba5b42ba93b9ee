"""The fills of a session one by one: what they sum to, and that looking at them changes nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftraining.trading.config import TradingRules
from hftraining.trading.fills import settle_by_fills
from hftraining.trading.simulator import Account
from tests.naive_engine import random_market, random_rules, random_weights

SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=80, deadline=None)
@given(SEEDS)
def test_settling_by_fills_and_deciding_is_a_step_to_the_bit_and_the_fills_make_the_cash(seed):
    rng = np.random.default_rng(seed)
    n_sessions, n_symbols = int(rng.integers(3, 50)), int(rng.integers(1, 6))
    market = random_market(rng, n_sessions, n_symbols, 0.1, rng.choice([0.02, 0.1, 0.4]))
    weights, rules = random_weights(rng, n_sessions, n_symbols), random_rules(rng)
    stepped, watched = Account(n_symbols, rules), Account(n_symbols, rules)
    cash, shares_S = rules.initial_capital, np.zeros(n_symbols)
    for t in range(n_sessions):
        bar = tuple(prices[t] for prices in market)
        stepped.step(*bar, weights[t])
        done = settle_by_fills(watched, *bar)
        cash += done.written_off - done.borrow_S.sum()
        for fill in done.fills:
            assert fill.price == pytest.approx(fill.value / fill.shares) and fill.commission >= 0.0
            cash -= fill.value + fill.commission
            shares_S[fill.symbol] += fill.shares
        assert cash == pytest.approx(watched.cash, abs=1e-7 * rules.initial_capital)
        np.testing.assert_allclose(shares_S, watched.shares_S, atol=1e-9 * (1.0 + np.abs(shares_S).max()))
        watched.decide(bar[3], weights[t])
        for name in ("account_1", "book_S", "trades"):
            assert getattr(stepped, name).tobytes() == getattr(watched, name).tobytes()


def test_each_reason_to_fill_is_named_at_the_price_that_was_paid():
    rules = TradingRules(initial_capital=1000.0, commission=0.0, slippage=0.01, stop_loss=0.1, take_profit=0.2)
    account, whole = Account(1, rules), np.array([1.0])
    account.step(*([np.array([10.0])] * 4), whole)
    (bought,) = settle_by_fills(account, *([np.array([10.0])] * 4)).fills
    assert (bought.reason, bought.price) == ("signal", pytest.approx(10.1)) and bought.shares == pytest.approx(99.0099)
    account.decide(np.array([10.0]), whole)
    (left,) = settle_by_fills(account, *(np.array([price]) for price in (10.0, 10.0, 9.0, 9.5))).fills
    assert (left.reason, left.price) == ("stop_loss", pytest.approx(10.1 * 0.9 * 0.99))
    assert left.shares == pytest.approx(-bought.shares)


def test_the_debt_of_a_bankrupt_account_is_written_off():
    rules = TradingRules(initial_capital=100.0, commission=0.0, slippage=0.0, max_gross=2.0, max_position_size=2.0)
    account = Account(1, rules)
    account.step(*([np.array([10.0])] * 4), np.array([2.0]))
    account.step(*([np.array([10.0])] * 4), np.array([np.nan]))
    done = settle_by_fills(account, *([np.array([4.0])] * 4))
    assert [(fill.reason, fill.shares, fill.price) for fill in done.fills] == [("bankrupt", -20.0, 4.0)]
    assert done.written_off == pytest.approx(20.0) and account.cash == 0.0
    assert settle_by_fills(account, *([np.array([5.0])] * 4)).written_off == 0.0


def test_an_account_goes_on_from_its_saved_state_to_the_bit():
    rng = np.random.default_rng(5)
    market, weights, rules = random_market(rng, 40, 3, 0.1, 0.1), random_weights(rng, 40, 3), random_rules(rng)
    account, whole = Account(3, rules), Account(3, rules)
    for t in range(40):
        if t % 7 == 0:
            other = Account(3, rules)
            other.restore(account.account_1.copy(), account.book_S.copy(), account.sessions, account.closed_trades)
            account = other
        for each in (account, whole):
            each.step(*(prices[t] for prices in market), weights[t])
    assert account.trades.tobytes() == whole.trades.tobytes() and len(whole.closed_trades) > 5
    with pytest.raises(ValueError, match="is not that of this account"):
        Account(2, rules).restore(account.account_1, account.book_S, account.sessions, account.closed_trades)
