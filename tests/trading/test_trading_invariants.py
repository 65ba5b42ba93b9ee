"""What must hold for any engine, any market and any rules: properties on drawn markets."""

import copy
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hftraining.trading.config import TradingRules
from hftraining.trading.simulator import Account, simulate
from tests.naive_engine import random_market, random_rules, random_weights

SEEDS = st.integers(0, 2**32 - 1)
quickly = settings(max_examples=60, deadline=None)


def drawn(seed, missing=0.1):
    rng = np.random.default_rng(seed)
    n_sessions, n_symbols = int(rng.integers(3, 50)), int(rng.integers(1, 6))
    market = random_market(rng, n_sessions, n_symbols, missing, rng.choice([0.02, 0.1]))
    return market, random_weights(rng, n_sessions, n_symbols), random_rules(rng), rng


def calm_market(seed, n_sessions=250, n_symbols=4):
    return random_market(np.random.default_rng(seed), n_sessions, n_symbols, 0.0, 0.02)


@quickly
@given(SEEDS)
def test_cash_and_positions_are_equity(seed):
    market, weights, rules, _ = drawn(seed, missing=0.0)
    result = simulate(*market, weights, rules)
    alive = result.equity_T > 0
    worth_T = result.cash_T + np.nansum(result.shares_TS * market[3], axis=1)
    if np.isfinite(market[3]).all():
        np.testing.assert_allclose(worth_T[alive], result.equity_T[alive], rtol=1e-9, atol=1e-9 * rules.initial_capital)


@quickly
@given(SEEDS)
def test_capital_and_the_pnl_of_all_trades_are_the_final_equity(seed):
    market, weights, rules, _ = drawn(seed)
    result = simulate(*market, weights, rules)
    final = rules.initial_capital + result.trades["pnl"].sum()
    scale = rules.initial_capital + result.traded_T.sum()
    assert abs(final - result.equity_T[-1]) <= 1e-9 * max(scale, 1.0)


@quickly
@given(SEEDS)
def test_all_costs_belong_to_trades(seed):
    market, weights, rules, _ = drawn(seed)
    result = simulate(*market, weights, rules)
    np.testing.assert_allclose(result.trades["costs"].sum(), result.costs_T.sum(), rtol=1e-9, atol=1e-9)


@quickly
@given(SEEDS, st.floats(0.01, 100.0))
def test_multiplying_the_prices_of_a_symbol_changes_nothing(seed, factor):
    market, weights, rules, _ = drawn(seed)
    rules = replace(rules, whole_shares=False)
    scaled = tuple(np.concatenate([prices[:, :1] * factor, prices[:, 1:]], axis=1) for prices in market)
    want, got = simulate(*market, weights, rules), simulate(*scaled, weights, rules)
    np.testing.assert_allclose(got.equity_T, want.equity_T, rtol=1e-9, atol=1e-7 * rules.initial_capital)


@quickly
@given(SEEDS)
def test_permuting_the_symbols_changes_nothing(seed):
    market, weights, rules, rng = drawn(seed)
    order = rng.permutation(weights.shape[1])
    want = simulate(*market, weights, rules)
    got = simulate(*(prices[:, order] for prices in market), weights[:, order], rules)
    np.testing.assert_allclose(got.equity_T, want.equity_T, rtol=1e-9, atol=1e-7 * rules.initial_capital)
    np.testing.assert_allclose(got.shares_TS, want.shares_TS[:, order], rtol=1e-7, atol=1e-7)


@quickly
@given(SEEDS)
def test_zero_weights_leave_equity_unchanged_to_the_bit(seed):
    market, weights, rules, _ = drawn(seed)
    result = simulate(*market, 0.0 * weights, rules)
    assert (result.equity_T == rules.initial_capital).all() and len(result.trades) == 0


@quickly
@given(SEEDS)
def test_a_long_book_without_leverage_never_owes_cash(seed):
    market, weights, rules, _ = drawn(seed)
    result = simulate(*market, np.abs(weights), replace(rules, max_gross=1.0))
    assert result.cash_T.min() >= -1e-9 * rules.initial_capital


@quickly
@given(SEEDS)
def test_later_bars_do_not_change_the_past(seed):
    market, weights, rules, rng = drawn(seed, missing=0.0)
    t = int(rng.integers(1, len(weights)))
    changed = tuple(np.concatenate([prices[:t], prices[t:] * 1.5]) for prices in market)
    want, got = simulate(*market, weights, rules), simulate(*changed, weights, rules)
    if np.isfinite(market[3][-1]).all():  # else a last bar would have another meaning
        assert (got.equity_T[:t] == want.equity_T[:t]).all()


def follow_shares(market, wanted_TS, rules):
    """Trade towards share counts: the weight is worked out from the equity of the close that it is decided at."""
    account = Account(wanted_TS.shape[1], rules)
    for t, wanted_S in enumerate(wanted_TS):
        bar = [prices[t] for prices in market]
        preview = copy.deepcopy(account)
        preview.step(*bar, 0.0 * wanted_S)
        account.step(*bar, wanted_S * bar[3] / preview.equity)
    return account


@quickly
@given(SEEDS, st.floats(0.0, 0.01), st.floats(0.0, 0.01), st.floats(0.0, 0.5))
def test_higher_costs_never_raise_the_final_equity_of_the_same_fills(seed, commission, slippage, borrow):
    market = calm_market(seed, 40, 3)
    wanted_TS = np.random.default_rng(seed).integers(-5, 6, (40, 3)).astype(float)
    free = TradingRules(
        commission=0, slippage=0, borrow_rate=0, stop_loss=0, take_profit=0, rebalance_band=0, max_gross=50
    )
    dear = replace(free, commission=commission, slippage=slippage, borrow_rate=borrow)
    without, with_costs = follow_shares(market, wanted_TS, free), follow_shares(market, wanted_TS, dear)
    np.testing.assert_allclose(with_costs.shares_S, without.shares_S, rtol=1e-9)
    assert with_costs.equity <= without.equity * (1 + 1e-12)


@quickly
@given(SEEDS, st.floats(0.005, 0.1), st.floats(1.0, 5.0), st.booleans())
def test_a_wider_stop_never_exits_earlier(seed, stop, wider, is_long):
    market = calm_market(seed, 60, 1)
    weights = np.full((60, 1), 0.5 if is_long else -0.5)
    rules = TradingRules(stop_loss=stop, take_profit=0.0, rebalance_band=10.0)

    def first_exit(rules):
        exit_t = simulate(*market, weights, rules).trades["exit_t"][0]
        return exit_t if exit_t >= 0 else 60

    assert first_exit(replace(rules, stop_loss=min(0.9, stop * wider))) >= first_exit(rules)


def test_perfect_foresight_earns_and_its_reverse_loses():
    market = calm_market(1)
    opens = market[0]
    foresight = np.zeros_like(opens)
    foresight[:-2] = 0.25 * np.sign(opens[2:] - opens[1:-1])
    for rules in (TradingRules(), TradingRules(stop_loss=0, take_profit=0)):
        assert simulate(*market, foresight, rules).equity_T[-1] > 2 * rules.initial_capital
        assert simulate(*market, -foresight, rules).equity_T[-1] < 0.5 * rules.initial_capital


def test_a_coin_flip_loses_about_its_costs():
    rules = TradingRules(stop_loss=0, take_profit=0)
    results = []
    for seed in range(200):
        flips = np.random.default_rng(seed).choice([-0.25, 0.25], (250, 4))
        results.append(simulate(*calm_market(1000 + seed), flips, rules))
    losses = np.array([rules.initial_capital - r.equity_T[-1] for r in results])
    costs = np.array([r.costs_T.sum() for r in results])
    error = (losses - costs).std(ddof=1) / np.sqrt(len(results))
    assert abs((losses - costs).mean()) < 3 * error
    assert costs.mean() > 10 * error  # so that the line above says something


def test_buy_and_hold_equals_the_market_less_one_entry():
    market = calm_market(3, n_symbols=1)
    rules = TradingRules(stop_loss=0, take_profit=0, rebalance_band=10.0)
    result = simulate(*market, np.ones((250, 1)), rules)
    # All cash goes into shares whose price and fee it just pays.
    paid = market[0][1, 0] * (1 + rules.slippage)
    wanted = rules.initial_capital / market[3][0, 0]
    shares = min(wanted, rules.initial_capital / (paid * (1 + rules.commission)))
    cash = rules.initial_capital - shares * paid * (1 + rules.commission)
    np.testing.assert_allclose(result.equity_T[1:], cash + shares * market[3][1:, 0], rtol=1e-9)
