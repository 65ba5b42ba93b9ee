"""The fill engine beside two independent engines, on real bars and on random markets.

Both are given share counts, so that all of them trade the same orders; ours is given the weights that mean those
shares at the other engine's equity, so that it agrees only if the equity of every decision does.
vectorbt looks at stops only from the bar after an entry, so each session goes to it as two rows: its open, where
orders are filled, and its whole bar.
"""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hftraining.trading.config import TradingRules
from hftraining.trading.metrics import equity_metrics, summarize
from hftraining.trading.simulator import simulate
from tests.naive_engine import random_market

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]
RULES = TradingRules(
    initial_capital=1e6, commission=0.001, slippage=0.0005, borrow_rate=0.0, max_gross=100.0, rebalance_band=10.0,
    stop_loss=0.0, take_profit=0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def vectorbt():
    return pytest.importorskip("vectorbt", reason="vectorbt is not installed: pip install -e '.[oracles]'")


@pytest.fixture(scope="module")
def backtesting():
    return pytest.importorskip("backtesting", reason="backtesting.py is not installed: pip install -e '.[oracles]'")


@pytest.fixture(scope="module")
def real_market(shared_data):
    """Twelve symbols of us300 without missing bars: open, high, low, close (T, 12)."""
    rows = pd.read_parquet(shared_data / "us300_2005_2017.parquet")
    rows = rows[rows["date"] >= "2012-01-01"]
    tables = [rows.pivot(index="date", columns="symbol", values=name) for name in ("open", "high", "low", "close")]
    whole = tables[3].columns[tables[3].notna().all()][::20][:12]
    return tuple(table[whole].to_numpy(float) for table in tables)


def markets(n, n_symbols=3):
    for seed in range(n):
        yield np.random.default_rng(seed), random_market(np.random.default_rng(seed), 60, n_symbols)


def lasting_sides(rng, shape):
    """-1, 0 or 1, each for some sessions."""
    sides = rng.integers(-1, 2, shape)
    for t in range(1, shape[0]):
        sides[t] = np.where(rng.random(shape[1]) < 0.8, sides[t - 1], sides[t])
    return sides


def assert_same_trades(mine, theirs):
    """theirs: columns symbol, side, entry_t, exit_t, entry_price, exit_price, pnl; the closed ones."""
    closed = mine[mine["exit_t"] >= 0]
    mine = pd.DataFrame({name: closed[name] for name in theirs.columns})
    mine, theirs = (table.sort_values(["symbol", "entry_t", "exit_t"]).to_numpy(float) for table in (mine, theirs))
    assert mine.shape == theirs.shape
    np.testing.assert_array_equal(mine[:, :4], theirs[:, :4])
    np.testing.assert_allclose(mine[:, 4:6], theirs[:, 4:6], rtol=1e-9)
    np.testing.assert_allclose(mine[:, 6], theirs[:, 6], rtol=1e-7, atol=1e-6)


# vectorbt


def compare_signals(vbt, market, sides_TS, shares, rules):
    """One account a symbol, shares a position, stops and targets by vectorbt's from_signals."""
    open_TS, high_TS, low_TS, close_TS = market
    n_sessions = len(close_TS)
    at_open = np.repeat(open_TS, 2, axis=0)
    high, low, close = at_open.copy(), at_open.copy(), at_open.copy()
    high[1::2], low[1::2], close[1::2] = high_TS, low_TS, close_TS
    decided = np.zeros((2 * n_sessions, close_TS.shape[1]))
    decided[2::2] = sides_TS[:-1]
    is_open_row = (np.arange(2 * n_sessions) % 2 == 0)[:, None]
    portfolio = vbt.Portfolio.from_signals(
        pd.DataFrame(close), open=pd.DataFrame(at_open), high=pd.DataFrame(high), low=pd.DataFrame(low),
        entries=pd.DataFrame(is_open_row & (decided > 0)), short_entries=pd.DataFrame(is_open_row & (decided < 0)),
        exits=pd.DataFrame(is_open_row & (decided == 0)), short_exits=pd.DataFrame(is_open_row & (decided == 0)),
        price=pd.DataFrame(close), size=shares, fees=rules.commission, slippage=rules.slippage,
        init_cash=rules.initial_capital, upon_opposite_entry="Reverse", accumulate=False,
        sl_stop=rules.stop_loss or None, tp_stop=rules.take_profit or None, stop_entry_price="FillPrice",
        stop_exit_price="StopLimit" if rules.take_profit and not rules.stop_loss else "StopMarket", freq="1D",
    )  # fmt: skip
    theirs_TS = portfolio.value().to_numpy()[1::2]
    positions = portfolio.positions.records
    positions = positions[positions["status"] == 1]
    for s in range(close_TS.shape[1]):
        weights = sides_TS[:, [s]] * shares * close_TS[:, [s]] / theirs_TS[:, [s]]
        mine = simulate(*(prices[:, [s]] for prices in market), weights, rules)
        np.testing.assert_allclose(mine.equity_T, theirs_TS[:, s], rtol=1e-9)
        rows = positions[positions["col"] == s]
        theirs = pd.DataFrame(
            {
                "symbol": 0,
                "side": np.where(rows["direction"] == 0, 1, -1),
                "entry_t": rows["entry_idx"] // 2,
                "exit_t": rows["exit_idx"] // 2,
                "entry_price": rows["entry_price"],
                "exit_price": rows["exit_price"],
                "pnl": rows["pnl"],
            }
        )
        assert_same_trades(mine.trades, theirs)


EXITS = {
    "neither": RULES,
    "stops": replace(RULES, stop_loss=0.02),
    "targets": replace(RULES, take_profit=0.05),
    # vectorbt lets both slip or neither; ours only the stop. So both at once are compared without slippage.
    "both, without slippage": replace(RULES, stop_loss=0.02, take_profit=0.05, slippage=0.0),
}


@pytest.mark.parametrize("exits", EXITS)
def test_vectorbt_agrees_trade_by_trade_on_two_hundred_random_markets(vectorbt, exits):
    for rng, market in markets(200):
        compare_signals(vectorbt, market, lasting_sides(rng, (60, 3)), 100.0, EXITS[exits])


@pytest.mark.parametrize("exits", EXITS)
def test_vectorbt_agrees_trade_by_trade_on_real_bars(vectorbt, real_market, exits):
    sides = lasting_sides(np.random.default_rng(0), real_market[3].shape)
    compare_signals(vectorbt, real_market, sides, 100.0, EXITS[exits])


def compare_orders(vbt, market, wanted_TS, rules):
    """One account that all symbols share, target share counts by vectorbt's from_orders."""
    open_TS, _, _, close_TS = market
    sizes = np.full(wanted_TS.shape, np.nan)
    sizes[1:] = wanted_TS[:-1]
    portfolio = vbt.Portfolio.from_orders(
        pd.DataFrame(close_TS), size=pd.DataFrame(sizes), size_type="targetamount", price=pd.DataFrame(open_TS),
        fees=rules.commission, slippage=rules.slippage, init_cash=rules.initial_capital, cash_sharing=True,
        group_by=True, call_seq="auto", freq="1D",
    )  # fmt: skip
    theirs_T = portfolio.value().to_numpy()
    mine = simulate(*market, wanted_TS * close_TS / theirs_T[:, None], replace(rules, rebalance_band=0.0))
    np.testing.assert_allclose(mine.equity_T, theirs_T, rtol=1e-9)
    np.testing.assert_allclose(mine.shares_TS, portfolio.assets().to_numpy(), rtol=1e-9, atol=1e-7)
    orders = portfolio.orders.records
    assert mine.traded_T.sum() == pytest.approx((orders["size"] * orders["price"]).sum(), rel=1e-9)
    ours = summarize(mine, rules)
    assert ours["total_return"] == pytest.approx(portfolio.total_return(), rel=1e-9)
    # vectorbt's returns begin with a 0 on the first day; without it both have the same mean and spread.
    returns = portfolio.returns().to_numpy()[1:]
    assert ours["sharpe_ratio"] == pytest.approx(returns.mean() / returns.std(ddof=1) * 252**0.5, rel=1e-9)
    assert ours["max_drawdown"] == pytest.approx(portfolio.max_drawdown(), rel=1e-9)


def test_vectorbt_agrees_on_shared_cash_on_two_hundred_random_markets(vectorbt):
    for rng, market in markets(200):
        wanted = lasting_sides(rng, (60, 3)) * rng.integers(1, 50, (60, 3))
        compare_orders(vectorbt, market, wanted.astype(float), RULES)


def test_vectorbt_agrees_on_shared_cash_on_real_bars(vectorbt, real_market):
    rng = np.random.default_rng(1)
    wanted = lasting_sides(rng, real_market[3].shape) * rng.integers(1, 50, real_market[3].shape)
    compare_orders(vectorbt, real_market, wanted.astype(float), RULES)


def test_vectorbt_measures_the_drawdown_from_its_first_close_and_not_from_the_capital(vectorbt):
    close = np.linspace(100, 80, 30)
    for first in (0, 1):
        sizes = pd.Series(np.full(30, np.nan))
        sizes[first] = 30.0
        portfolio = vectorbt.Portfolio.from_orders(
            pd.Series(close), size=sizes, price=close, fees=0.001, slippage=0.0005, init_cash=10_000.0, freq="1D"
        )
        value_T1 = portfolio.value().to_numpy()[:, None]
        theirs, ours = portfolio.max_drawdown(), equity_metrics(value_T1, 10_000.0)["max_drawdown"][0]
        assert theirs == pytest.approx(equity_metrics(value_T1, value_T1[0, 0])["max_drawdown"][0], rel=1e-9)
        # A fill on the first bar has paid its costs before the first close: 0.15 % of 30 % of the capital.
        assert theirs - ours == pytest.approx(4.2e-4 if first == 0 else 0.0, abs=1e-5)


# backtesting.py


def run_backtesting(bt, frame, strategy, rules, finalize):
    engine = bt.Backtest(
        frame, strategy, cash=rules.initial_capital, commission=rules.commission, finalize_trades=finalize, margin=1
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return engine.run()


def wanted_shares(trades, n_sessions):
    """The shares that each decision wanted, from trades that began at one open and ended later."""
    wanted = np.zeros(n_sessions)
    for trade in trades.itertuples():
        wanted[trade.EntryBar - 1 : trade.ExitBar - (trade.by_signal)] = trade.Size
    return wanted


def as_table(trades):
    return pd.DataFrame(
        {
            "symbol": 0,
            "side": np.sign(trades["Size"]),
            "entry_t": trades["EntryBar"],
            "exit_t": trades["ExitBar"],
            "entry_price": trades["EntryPrice"],
            "exit_price": trades["ExitPrice"],
            "pnl": trades["PnL"],
        }
    )


def test_the_golden_row_of_google_is_reproduced(backtesting):
    from backtesting.lib import crossover
    from backtesting.test import GOOG, SMA

    class SmaCross(backtesting.Strategy):
        def init(self):
            self.fast, self.slow = self.I(SMA, self.data.Close, 10), self.I(SMA, self.data.Close, 20)

        def next(self):
            if crossover(self.fast, self.slow):
                self.position.close()
                self.buy()
            elif crossover(self.slow, self.fast):
                self.position.close()
                self.sell()

    rules = replace(RULES, initial_capital=10_000.0, commission=0.002, slippage=0.0)
    stats = run_backtesting(backtesting, GOOG, SmaCross, rules, finalize=True)
    trades = stats["_trades"].assign(by_signal=1)
    # The last trade is closed by running the last bar once more, so it is given to ours once more.
    last = len(GOOG) - 1
    is_last = trades["ExitBar"] == last
    assert is_last.sum() == 1
    trades.loc[is_last, "ExitBar"] = last + 1
    market = tuple(
        np.append(GOOG[name].to_numpy(float), GOOG[name].iloc[-1])[:, None] for name in ("Open", "High", "Low", "Close")
    )
    wanted = wanted_shares(trades, last + 2)
    equity = np.append(stats["_equity_curve"]["Equity"].to_numpy(), np.nan)
    equity[last] = equity[last - 1] + wanted[last - 1] * (market[3][last, 0] - market[3][last - 1, 0])
    equity[last + 1] = 1.0  # the decision after the end, which wants nothing
    result = simulate(*market, (wanted * market[3][:, 0] / equity)[:, None], rules)
    assert_same_trades(result.trades, as_table(trades))
    result = replace(result, **{name: np.delete(getattr(result, name), last) for name in ("equity_T", "gross_T")})
    np.testing.assert_allclose(result.equity_T, stats["_equity_curve"]["Equity"], rtol=1e-9)
    summary = summarize(result, rules)
    assert summary["trade_count"] == 94
    assert result.equity_T[-1] == pytest.approx(55_574.51, abs=0.005)
    assert 100 * summary["win_rate"] == pytest.approx(53.191, abs=0.0005)
    assert 100 * summary["max_drawdown"] == pytest.approx(-33.9316, abs=0.00005)


def compare_brackets(bt, market, sides_T, size, rules):
    """One symbol; entries on a signal while flat, exits by stop and target alone."""
    frame = pd.DataFrame(np.concatenate(market, axis=1), columns=["Open", "High", "Low", "Close"])
    frame.index = pd.bdate_range("2000-01-03", periods=len(frame))
    opens, closes = frame["Open"].to_numpy(), frame["Close"].to_numpy()

    class Brackets(bt.Strategy):
        def init(self):
            pass

        def next(self):
            t = len(self.data) - 1
            side = sides_T[t]
            if self.position or self.orders or side == 0 or t + 1 == len(opens):
                return
            # The stop is known only after the fill, so this strategy looks at the open that fills it.
            stop, target = (opens[t + 1] * (1 - side * rules.stop_loss), opens[t + 1] * (1 + side * rules.take_profit))
            if min(stop, target) < closes[t] < max(stop, target):
                (self.buy if side > 0 else self.sell)(size=size, sl=stop, tp=target)

    stats = run_backtesting(bt, frame, Brackets, rules, finalize=False)
    closed = stats["_trades"].assign(by_signal=0)
    curve = stats["_equity_curve"]["Equity"].to_numpy()
    open_now = stats["_strategy"].trades
    still = pd.DataFrame(
        [{"Size": trade.size, "EntryBar": trade.entry_bar, "ExitBar": len(frame), "by_signal": 0} for trade in open_now]
    )
    wanted = wanted_shares(pd.concat([closed, still]), len(frame))
    result = simulate(*market, (wanted * closes / curve)[:, None], rules)
    np.testing.assert_allclose(result.equity_T, curve, rtol=1e-9)
    assert_same_trades(result.trades, as_table(closed))
    summary = summarize(result, rules)
    if len(closed):
        assert 100 * summary["win_rate"] == pytest.approx(stats["Win Rate [%]"], rel=1e-9)
    assert 100 * summary["max_drawdown"] == pytest.approx(stats["Max. Drawdown [%]"], rel=1e-9, abs=1e-9)
    assert 100 * summary["total_return"] == pytest.approx(stats["Return [%]"], rel=1e-6, abs=1e-9)
    return len(closed)


BRACKETS = replace(RULES, slippage=0.0, stop_loss=0.02, take_profit=0.05)


def test_backtesting_agrees_on_stops_and_targets_on_two_hundred_random_markets(backtesting):
    n_trades = 0
    for rng, market in markets(200, n_symbols=1):
        n_trades += compare_brackets(backtesting, market, lasting_sides(rng, (60, 1))[:, 0], 100, BRACKETS)
    assert n_trades > 1_000


def test_backtesting_agrees_on_stops_and_targets_on_real_bars(backtesting, real_market):
    for s in range(0, 12, 3):
        market = tuple(prices[:, [s]] for prices in real_market)
        sides = lasting_sides(np.random.default_rng(s), market[3].shape)[:, 0]
        assert compare_brackets(backtesting, market, sides, 100, BRACKETS) > 50
