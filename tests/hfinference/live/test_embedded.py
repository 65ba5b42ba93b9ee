"""The embedded paper broker: its fills make its account, its state survives, and a rescaled price changes nothing."""

import tempfile
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfinference.live.embedded import STATE, TRADES, EmbeddedDesk
from hfinference.live.entries import OPEN, Mark, micro, money, nano
from hfinference.live.journal import Journal
from hfinference.live.risk import Halt
from hftraining.core.bars import Bars
from hftraining.trading.config import TradingRules
from hftraining.trading.dtypes import TRADE
from hftraining.trading.simulator import Account
from tests.bars_of import make_bars
from tests.naive_engine import random_market, random_rules, random_weights


def bars_of(market) -> Bars:
    n_sessions, n_symbols = market[0].shape
    sessions = np.busday_offset(np.datetime64("2015-01-01"), np.arange(n_sessions), roll="forward")
    return Bars(tuple(f"S{s}" for s in range(n_symbols)), sessions, *market, np.ones(market[0].shape))


class Trading:
    """A desk and its journal, stepped as a trader does."""

    def __init__(self, folder, symbols, rules):
        self.folder, self.symbols, self.rules = folder, symbols, rules
        self.start()

    def start(self):
        self.journal = Journal.open(self.folder, {"capital_micro": micro(self.rules.initial_capital)})
        self.desk = EmbeddedDesk(self.symbols, self.rules)
        self.desk.reconcile(self.journal)

    def restart(self):
        self.journal.close()
        self.start()

    def session(self, bars, weights_S, factors=None):
        day = str(bars.sessions_T[-1])
        with self.journal.transaction():
            if factors:
                self.desk.rescale(self.journal, day, factors, dict.fromkeys(factors, "split"))
            self.desk.settle(self.journal, bars)
            orders = self.desk.decide(self.journal, bars, weights_S)
            for order in orders:
                self.journal.plan(order.day, [order])
            equity = self.desk.account()[1]
            self.journal.mark(Mark(day, self.journal.cash(), micro(equity)), self.desk.arrays())
            self.journal.forget(STATE, day)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_on_any_market_fills_and_adjustments_make_the_engines_account_across_restarts(seed):
    rng = np.random.default_rng(seed)
    n_sessions, n_symbols = int(rng.integers(3, 30)), int(rng.integers(1, 5))
    market = random_market(rng, n_sessions, n_symbols, 0.1, rng.choice([0.02, 0.1, 0.4]))
    bars, weights, rules = bars_of(market), random_weights(rng, n_sessions, n_symbols), random_rules(rng)
    engine = Account(n_symbols, rules)
    with tempfile.TemporaryDirectory() as folder:
        trading = Trading(Path(folder), bars.symbols_S, rules)
        for t in range(n_sessions):
            engine.step(*(prices[t] for prices in market), weights[t])
            trading.session(bars.rows(slice(0, t + 1)), weights[t])
            if rng.random() < 0.3:
                trading.restart()
            own = trading.desk.engine
            assert own.account_1.tobytes() == engine.account_1.tobytes()
            assert own.book_S.tobytes() == engine.book_S.tobytes() and own.trades.tobytes() == engine.trades.tobytes()
            journal = trading.journal
            spent = sum(fill.value + fill.commission_micro for fill in journal.fills())
            came = sum(entry.cash_micro for entry in journal.adjustments())
            assert micro(rules.initial_capital) - spent + came == journal.cash() == micro(engine.cash)
            held = Counter()
            for fill in journal.fills():
                held[fill.symbol] += fill.shares_nano
            for symbol, count in zip(bars.symbols_S, engine.shares_S, strict=True):
                assert abs(held[symbol] - nano(count)) <= 2
        journal.check()
        for fill in journal.fills():  # each alone is what its shares and its price say
            exact = Fraction(fill.shares_nano * fill.price_micro, 10**9)
            assert abs(fill.value - exact) <= 3 + abs(fill.shares_nano) / 1.9e9 + fill.price_micro * 2e-9 * 3
        due = {order.symbol for order in journal.orders(OPEN)}
        ordered = {bars.symbols_S[s] for s in np.flatnonzero(np.isfinite(engine.orders_S))}
        assert due <= ordered
        journal.close()


def traded(folder, rules, sessions=12, seed=2):
    bars = make_bars(sessions, 3, seed=seed)
    weights = np.abs(np.random.default_rng(seed).dirichlet(np.ones(3), sessions))
    trading = Trading(folder, bars.symbols_S, rules)
    for t in range(sessions):
        trading.session(bars.rows(slice(0, t + 1)), weights[t])
    return trading, bars, weights


def test_every_order_ends_with_the_session_for_which_it_was_made(tmp_path):
    trading, bars, _ = traded(tmp_path, TradingRules(max_gross=1.0))
    orders = trading.journal.orders()
    last = str(bars.sessions_T[-1])
    assert {order.status for order in orders if order.day < last} <= {"filled", "cancelled"}
    assert {order.status for order in orders if order.day == last} == {"planned"}
    cut = [order for order in orders if order.status == "cancelled"]
    assert all(order.reason == "the account could not pay the rest" for order in cut)
    filled = {order.client_order_id for order in orders if order.status == "filled"}
    assert filled <= {fill.client_order_id for fill in trading.journal.fills()}


def test_an_order_without_a_bar_to_fill_it_is_cancelled(tmp_path):
    bars = make_bars(3, 2)
    trading = Trading(tmp_path, bars.symbols_S, TradingRules())
    trading.session(bars.rows(slice(0, 1)), np.array([0.5, 0.5]))
    for name in ("open_TS", "high_TS", "low_TS", "close_TS", "volume_TS"):
        getattr(bars, name)[1, 1] = np.nan
    trading.session(bars.rows(slice(0, 2)), np.array([np.nan, np.nan]))
    assert [(order.status, order.reason) for order in trading.journal.orders()] == [
        ("filled", ""),
        ("cancelled", f"no bar on {bars.sessions_T[1]}"),
    ]


@pytest.mark.parametrize("lag", [1, 2])
def test_a_split_of_all_earlier_prices_changes_no_value_and_no_later_account(tmp_path, lag):
    rules = TradingRules(lag=lag, stop_loss=0.05, take_profit=0.08)
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    plain, _, _ = traded(tmp_path / "a", rules, 6)
    split, _, _ = traded(tmp_path / "b", rules, 6)
    later = make_bars(12, 3, seed=2)
    names = ("open_TS", "high_TS", "low_TS", "close_TS")
    halved = replace(later, **{name: getattr(later, name) * np.array([0.5, 1.0, 1.0]) for name in names})
    weights = np.abs(np.random.default_rng(9).dirichlet(np.ones(3), 12))
    for t in range(6, 12):
        plain.session(later.rows(slice(0, t + 1)), weights[t])
        split.session(halved.rows(slice(0, t + 1)), weights[t], {"S0": 0.5} if t == 6 else None)
        split.restart()
        assert split.desk.account()[1] == pytest.approx(plain.desk.account()[1], rel=1e-12)
    assert [entry.reason for entry in split.journal.adjustments() if entry.shares_nano] == ["split"]
    assert split.desk.account()[2]["S0"] == pytest.approx(2 * plain.desk.account()[2]["S0"])
    split.journal.check()


@pytest.mark.parametrize("field", ["cash", "shares"])
def test_a_state_that_is_not_what_the_fills_make_is_a_named_halt(tmp_path, field):
    trading, bars, _ = traded(tmp_path, TradingRules())
    engine = trading.desk.engine
    if field == "cash":
        engine.account_1["cash"] += 0.01
    else:
        engine.book_S["shares"][1] += 1e-7
    trading.journal.keep(str(bars.sessions_T[-1]), STATE, trading.desk.arrays()[STATE])
    with pytest.raises(Halt) as stopped:
        trading.restart()
    assert stopped.value.name == "journal" and "the account has" in str(stopped.value)
    trading.journal.close()


@pytest.mark.parametrize("field", ["symbol", "entry_t", "exit_t", "reason"])
def test_a_trade_of_a_symbol_session_or_reason_that_there_is_not_is_a_named_halt(tmp_path, field):
    trading, _, _ = traded(tmp_path, TradingRules(stop_loss=0.001))
    day, ended = next((day, array) for day, array in trading.journal.arrays(TRADES).items() if array.size)
    for wrong in (-1, 2**40):
        trades = ended.copy().view(TRADE)
        trades[field] = wrong
        trading.journal.keep(day, TRADES, trades.view(np.uint8))
        with pytest.raises(Halt, match="that there is not") as stopped:
            trading.restart()
        assert stopped.value.name == "journal"
    trading.journal.keep(day, TRADES, ended)
    trading.restart()
    trading.journal.close()


def test_a_journal_of_a_run_with_other_stocks_is_a_named_halt(tmp_path):
    trading, _, _ = traded(tmp_path, TradingRules())
    trading.symbols = ("S0", "S1")
    with pytest.raises(Halt, match="has no state"):
        trading.restart()
    assert money(trading.journal.capital) == 10_000.0
    trading.journal.close()
