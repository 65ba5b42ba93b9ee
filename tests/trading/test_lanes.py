"""Shifted books side by side: the same accounts as the engine's, to the bit, whatever the market and the rules."""

from dataclasses import replace

import numpy as np
import pytest

from hftraining.trading.config import TradingRules
from hftraining.trading.lanes import LANES
from hftraining.trading.simulator import simulate, simulate_shifted
from tests.naive_engine import random_market, random_rules, random_weights

IN_LANES = {"lag": 1, "stop_loss": 0.0, "take_profit": 0.0, "whole_shares": False}


def drawn(seed: int, n_draws: int):
    """A market, a book, rules, and how the draws shift it and exchange its symbols."""
    rng = np.random.default_rng(seed)
    n_sessions, n_symbols = int(rng.integers(3, 60)), int(rng.integers(1, 9))
    market = random_market(rng, n_sessions, n_symbols, 0.1, rng.choice([0.02, 0.1, 0.4]))
    offset_D = rng.integers(0, 2 * n_sessions, n_draws)
    symbol_DS = rng.permuted(np.tile(np.arange(n_symbols), (n_draws, 1)), axis=1)
    return market, random_weights(rng, n_sessions, n_symbols), random_rules(rng), offset_D, symbol_DS


def one_by_one(market, weights_TS, rules, offset_D, symbol_DS):
    """Each draw written out and traded by the engine alone."""
    books = [
        np.roll(weights_TS, offset, axis=0)[:, symbol_S] for offset, symbol_S in zip(offset_D, symbol_DS, strict=True)
    ]
    return np.stack([simulate(*market, book_TS, rules).equity_T for book_TS in books], axis=1)


@pytest.mark.parametrize("n_draws", [1, LANES, LANES + 3])
def test_every_shifted_account_is_that_of_the_engine_to_the_bit(n_draws):
    bankrupt = 0
    for seed in range(60):
        market, weights_TS, rules, *draws = drawn(seed, n_draws)
        rules = replace(rules, **IN_LANES)
        equity_TD = simulate_shifted(*market, weights_TS, rules, *draws)
        np.testing.assert_array_equal(equity_TD, one_by_one(market, weights_TS, rules, *draws))
        bankrupt += int((equity_TD[-1] == 0.0).sum())
    assert bankrupt  # else the markets would not have tried it


@pytest.mark.parametrize("rule", [{"lag": 2}, {"stop_loss": 0.02}, {"take_profit": 0.03}, {"whole_shares": True}])
def test_rules_that_the_lanes_do_not_know_are_traded_by_the_engine(rule):
    for seed in range(10):
        market, weights_TS, rules, *draws = drawn(seed, 5)
        rules = replace(rules, **(IN_LANES | rule))
        equity_TD = simulate_shifted(*market, weights_TS, rules, *draws)
        np.testing.assert_array_equal(equity_TD, one_by_one(market, weights_TS, rules, *draws))


def test_a_book_without_sessions_or_draws_has_no_equity():
    nothing = [np.empty((0, 2))] * 4
    assert simulate_shifted(*nothing, np.empty((0, 2)), TradingRules(), np.arange(3), np.zeros((3, 2), int)).size == 0
    market, weights_TS, *_ = drawn(0, 1)
    none = np.empty(0, int), np.empty((0, weights_TS.shape[1]), int)
    assert simulate_shifted(*market, weights_TS, TradingRules(), *none).shape == (len(weights_TS), 0)
