"""The fill engine: against a naive loop, and by hand where one rule decides."""

from dataclasses import replace

import numpy as np
import pytest

from hftraining.trading.config import TradingRules
from hftraining.trading.dtypes import REASONS
from hftraining.trading.simulator import Account, hold, simulate, simulate_draws
from tests.naive_engine import naive_simulate, random_market, random_rules, random_weights
from tests.slowly import mostly_slow

FREE = TradingRules(
    commission=0.0, slippage=0.0, borrow_rate=0.0, stop_loss=0.0, take_profit=0.0, rebalance_band=0.0, max_gross=10.0
)
PRICES = ("open", "high", "low", "close")


def bars(*rows):
    """One symbol's (open, high, low, close) rows as four arrays (T, 1); None is a missing bar."""
    table = np.array([row or (np.nan,) * 4 for row in rows], float)
    return tuple(table[:, [i]] for i in range(4))


def flat_bars(*closes):
    return bars(*[(c, c, c, c) for c in closes])


def column(*weights):
    return np.array(weights, float)[:, None]


def random_case(seed):
    rng = np.random.default_rng(seed)
    n_sessions, n_symbols = int(rng.integers(3, 60)), int(rng.integers(1, 6))
    missing, wild = rng.choice([0.0, 0.1]), rng.choice([0.02, 0.1, 0.3])
    market = random_market(rng, n_sessions, n_symbols, missing, wild)
    return market, random_weights(rng, n_sessions, n_symbols), random_rules(rng)


def trade_rows(trades):
    """Trades as tuples, sorted by symbol and time, with reasons by name."""
    names = ("symbol", "entry_t", "exit_t", "side", "reason", "shares", "entry_price", "exit_price", "costs", "pnl")
    rows = [[trade[name] for name in names] for trade in trades]
    for row in rows:
        row[4] = row[4] if isinstance(row[4], str) else REASONS[row[4]]
    return sorted(tuple(row) for row in rows)


def assert_equals_naive(seed):
    market, weights, rules = random_case(seed)
    got = simulate(*market, weights, rules)
    want = naive_simulate(*[prices.tolist() for prices in market], weights.tolist(), rules)
    money = 1e-9 * rules.initial_capital
    np.testing.assert_allclose(got.equity_T, want.equity, rtol=1e-9, atol=money)
    np.testing.assert_allclose(got.cash_T, want.cash, rtol=1e-9, atol=10 * money)
    np.testing.assert_allclose(got.shares_TS, want.shares, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(got.traded_T.sum(), want.traded, rtol=1e-9)
    np.testing.assert_allclose(got.costs_T.sum(), want.costs, rtol=1e-9)
    got_rows, want_rows = trade_rows(got.trades), trade_rows(want.trades)
    assert [row[:5] for row in got_rows] == [row[:5] for row in want_rows]
    numbers = [row[5:] for row in got_rows], [row[5:] for row in want_rows]
    if got_rows:
        np.testing.assert_allclose(*numbers, rtol=1e-8, atol=10 * money)
    return {row[4] for row in got_rows}


@pytest.mark.parametrize("seeds", mostly_slow([range(200), range(200, 1000)], quick=(0,)), ids=str)
def test_the_engine_equals_a_naive_loop_on_a_thousand_random_markets(seeds):
    reasons = set()
    for seed in seeds:
        reasons |= assert_equals_naive(seed)
    assert reasons == set(REASONS)  # else the markets would not have tried every exit


def test_stepping_bar_by_bar_equals_the_whole_run_to_the_bit():
    for seed in range(40):
        market, weights, rules = random_case(seed)
        whole = simulate(*market, weights, rules)
        present = np.isfinite(market[3])
        n_sessions, n_symbols = weights.shape
        last_S = [np.flatnonzero(present[:, s])[-1] if present[:, s].any() else -1 for s in range(n_symbols)]
        account = Account(n_symbols, rules)
        for t in range(n_sessions):
            ends = np.array([t == last < n_sessions - 1 for last in last_S])
            account.step(*(prices[t] for prices in market), weights[t], ends)
            assert (account.equity, account.cash) == (whole.equity_T[t], whole.cash_T[t])
            assert (account.shares_S == whole.shares_TS[t]).all()
        assert account.trades.tobytes() == whole.trades.tobytes()


def test_draws_are_the_same_accounts_as_single_runs():
    market, weights, rules = random_case(5)
    weights_DTS = np.stack([np.roll(weights, shift, axis=0) for shift in range(6)])
    equity_TD = simulate_draws(*market, weights_DTS, rules)
    for d, shifted in enumerate(weights_DTS):
        assert (equity_TD[:, d] == simulate(*market, shifted, rules).equity_T).all()


def test_an_order_is_for_the_shares_that_the_close_of_the_decision_meant():
    market = bars((100, 100, 100, 100), (125, 125, 125, 125), (125, 125, 125, 125))
    result = simulate(*market, column(0.5, 0.5, 0.5), replace(FREE, rebalance_band=1.0))
    assert result.shares_TS[1, 0] == 50.0  # 0.5 * 10,000 / 100, although they cost 125 each
    assert result.gross_T[1] == pytest.approx(0.625)


def test_lag_two_fills_one_session_later_than_lag_one():
    market = flat_bars(100, 100, 100, 100)
    assert simulate(*market, column(1, 1, 1, 1), FREE).shares_TS[:, 0].tolist() == [0, 100, 100, 100]
    later = simulate(*market, column(1, 1, 1, 1), replace(FREE, lag=2))
    assert later.shares_TS[:, 0].tolist() == [0, 0, 100, 100]


def test_with_lag_two_a_decision_to_be_flat_follows_an_order_that_is_still_on_its_way():
    result = simulate(*flat_bars(*[100] * 5), column(1, 0, 0, 0, 0), replace(FREE, lag=2))
    assert result.shares_TS[:, 0].tolist() == [0, 0, 100, 0, 0]


def test_buys_pay_slippage_up_and_sales_pay_it_down_and_both_pay_commission():
    rules = replace(FREE, commission=0.01, slippage=0.02)
    result = simulate(*flat_bars(100, 100, 100), column(0.5, 0, 0), rules)
    # 50 shares: bought at 102 with a fee of 51, sold at 98 with a fee of 49.
    assert result.equity_T[-1] == pytest.approx(10_000 - 50 * 102 - 51 + 50 * 98 - 49)
    assert result.costs_T.sum() == pytest.approx(50 * 2 + 51 + 50 * 2 + 49)
    assert result.trades["pnl"][0] == pytest.approx(-300)


def test_a_short_pays_borrow_at_each_close():
    rules = replace(FREE, borrow_rate=0.252)
    result = simulate(*flat_bars(100, 100, 100, 100), column(-0.5, 0, 0, 0), replace(rules, rebalance_band=0.9))
    assert result.equity_T[1] == pytest.approx(10_000 - 5_000 * 0.001)
    assert result.equity_T[-1] == result.equity_T[1]  # covered at the next open, before another close
    held = simulate(*flat_bars(100, 100, 100, 100), column(-0.5, -0.5, -0.5, 0), replace(rules, rebalance_band=0.9))
    assert held.costs_T.sum() == pytest.approx(3 * 5_000 * 0.001)


def test_the_band_holds_back_small_adjustments_but_never_an_exit_or_a_change_of_side():
    market = flat_bars(*[100] * 8)
    weights = column(0.5, 0.53, 0.56, 0.58, -0.01, 0.0, 0.0, 0.0)
    result = simulate(*market, weights, replace(FREE, rebalance_band=0.05))
    assert result.shares_TS[:, 0] == pytest.approx([0, 50, 50, 56, 56, -1, 0, 0])


def test_openings_shrink_in_proportion_so_that_cash_never_falls_below_zero():
    rules = replace(FREE, commission=0.01, max_gross=1.0)
    opens = np.array([[100.0, 50.0], [200.0, 50.0], [200.0, 50.0]])
    result = simulate(opens, opens, opens, opens, np.array([[0.5, 0.5]] * 3), replace(rules, rebalance_band=1.0))
    # 50 and 100 shares are wanted for 10,000 + 5,000; f * 15,000 * 1.01 = 10,000.
    factor = 10_000 / (15_000 * 1.01)
    assert result.shares_TS[1] == pytest.approx([50 * factor, 100 * factor])
    assert result.cash_T[1] == pytest.approx(0, abs=1e-9)


def test_reductions_are_filled_whole_and_pay_for_openings_of_the_same_session():
    market = tuple(np.full((4, 2), 100.0) for _ in PRICES)
    weights = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    result = simulate(*market, weights, replace(FREE, max_gross=1.0))
    assert result.shares_TS[2].tolist() == [0.0, 100.0]


def test_leverage_lets_gross_exposure_exceed_equity_up_to_its_cap():
    market = flat_bars(100, 100, 100)
    assert simulate(*market, column(3, 3, 3), replace(FREE, max_gross=2.0)).gross_T[1] == pytest.approx(2.0)
    assert simulate(*market, column(3, 3, 3), replace(FREE, max_gross=0.5)).gross_T[1] == pytest.approx(1.0)


def test_whole_shares_round_towards_zero_on_both_sides():
    rules = replace(FREE, whole_shares=True)
    assert simulate(*flat_bars(300, 300), column(0.5, 0.5), rules).shares_TS[1, 0] == 16  # of 16.67
    assert simulate(*flat_bars(300, 300), column(-0.5, 0.5), rules).shares_TS[1, 0] == -16


STOPPED = replace(FREE, stop_loss=0.1, take_profit=0.1, rebalance_band=1.0)
STILL = (100, 100, 100, 100)


def only_trade(*rows, weights, rules=STOPPED):
    result = simulate(*bars(*rows), column(*weights), rules)
    return result.trades[0], result


def test_a_stop_touched_inside_the_bar_fills_at_the_stop():
    trade, _ = only_trade(STILL, STILL, (100, 105, 85, 95), STILL, weights=(1, 1, 0, 0))
    assert (REASONS[trade["reason"]], trade["exit_t"], trade["exit_price"]) == ("stop_loss", 2, pytest.approx(90))


def test_a_gap_beyond_the_stop_fills_at_the_open_and_not_at_the_stop():
    trade, _ = only_trade(STILL, STILL, (80, 105, 80, 95), STILL, weights=(1, 1, 0, 0))
    assert (REASONS[trade["reason"]], trade["exit_price"]) == ("stop_loss", 80)


def test_a_gap_beyond_the_target_fills_at_the_better_open():
    trade, _ = only_trade(STILL, STILL, (120, 130, 120, 125), STILL, weights=(1, 1, 0, 0))
    assert (REASONS[trade["reason"]], trade["exit_price"]) == ("take_profit", 120)


def test_stop_comes_first_when_stop_and_target_lie_in_one_bar():
    trade, _ = only_trade(STILL, STILL, (100, 120, 80, 100), STILL, weights=(1, 1, 0, 0))
    assert REASONS[trade["reason"]] == "stop_loss"
    short, _ = only_trade(STILL, STILL, (100, 120, 80, 100), STILL, weights=(-1, -1, 0, 0))
    assert (REASONS[short["reason"]], short["exit_price"]) == ("stop_loss", pytest.approx(110))


def test_a_stop_acts_in_the_bar_of_the_entry():
    trade, _ = only_trade(STILL, (100, 101, 85, 95), STILL, weights=(1, 0, 0))
    assert (trade["entry_t"], trade["exit_t"], REASONS[trade["reason"]]) == (1, 1, "stop_loss")


def test_a_stop_slips_and_a_target_does_not():
    rules = replace(STOPPED, slippage=0.01)
    stop, _ = only_trade(STILL, STILL, (100, 100, 80, 100), STILL, weights=(1, 1, 0, 0), rules=rules)
    assert stop["exit_price"] == pytest.approx(101 * 0.9 * 0.99)
    target, _ = only_trade(STILL, STILL, (100, 120, 100, 100), STILL, weights=(1, 1, 0, 0), rules=rules)
    assert target["exit_price"] == pytest.approx(101 * 1.1)


def test_orders_decided_before_an_exit_are_cancelled_and_the_next_decision_enters_again():
    rows = [STILL, STILL, STILL, (100, 100, 80, 100), STILL, STILL]
    result = simulate(*bars(*rows), column(0.5, 0.5, 0.5, 0.5, 0.5, 0.5), replace(STOPPED, lag=2))
    # Entry at 2, out in 3; the order decided at 2 for the open of 4 is void, that of the close of 3 fills at 5.
    assert result.shares_TS[:, 0].tolist() == [0, 0, 50, 0, 0, pytest.approx(47.5)]


def test_a_gap_exit_cancels_the_order_of_the_same_open():
    rows = [STILL, STILL, (80, 80, 80, 80), (80, 80, 80, 80)]
    result = simulate(*bars(*rows), column(0.5, -0.5, 0, 0), STOPPED)
    assert result.shares_TS[:, 0].tolist() == [0, 50, 0, 0]


def test_enlarging_averages_the_stop_and_reducing_leaves_it():
    rows = [STILL, STILL, (120, 120, 120, 120), (120, 120, 120, 120), (100, 100, 98, 99)]
    rules = replace(FREE, stop_loss=0.1, rebalance_band=0.0)
    enlarged = simulate(*bars(*rows), column(0.1, 0.3, 0.3, 0.3, 0.3), rules)
    held_10_at_100, added = enlarged.shares_TS[1, 0], enlarged.shares_TS[2, 0] - enlarged.shares_TS[1, 0]
    average = (held_10_at_100 * 100 + added * 120) / (held_10_at_100 + added)
    assert average * 0.9 > 100  # so the open of 100 is a gap through the stop
    assert REASONS[enlarged.trades["reason"][0]] == "stop_loss"
    reduced = simulate(*bars(*rows), column(0.3, 0.1, 0.1, 0.1, 0.1), rules)
    assert REASONS[reduced.trades["reason"][0]] == "open"  # its stop is still 90


def test_an_order_is_cancelled_when_its_fill_bar_is_missing():
    result = simulate(*bars(STILL, None, STILL, STILL), column(0.5, 0.5, 0.0, 0.0), FREE)
    assert not result.shares_TS.any()


def test_a_symbol_without_a_bar_keeps_its_last_value():
    result = simulate(*bars(STILL, (100, 110, 100, 110), None, STILL), column(0.5, 0.5, 0.5, 0.5), STOPPED)
    assert result.equity_T[2] == result.equity_T[1]


def test_a_symbol_that_never_trades_again_is_closed_at_its_last_close():
    rules = replace(FREE, commission=0.01, slippage=0.02)
    result = simulate(*bars(STILL, (100, 120, 100, 120), None), column(0.5, 0.5, 0.0), rules)
    trade = result.trades[0]
    assert (REASONS[trade["reason"]], trade["exit_t"]) == ("delisted", 1)
    assert trade["exit_price"] == pytest.approx(120 * 0.98)
    assert trade["pnl"] == pytest.approx(50 * (120 * 0.98 * 0.99 - 100 * 1.02 * 1.01))


def test_a_bankrupt_account_is_flat_for_good_and_its_debt_is_written_off():
    market = flat_bars(100, 100, 300, 50, 50)
    result = simulate(*market, column(-1, -1, -1, -1, -1), FREE)
    assert result.equity_T.tolist() == [10_000, 10_000, 0, 0, 0]
    assert REASONS[result.trades["reason"][0]] == "bankrupt"
    assert result.trades["pnl"].sum() == -10_000


def test_a_position_at_the_end_is_listed_as_open_and_marked():
    result = simulate(*bars(STILL, STILL, (100, 108, 100, 108)), column(0.5, 0.5, 0.5), STOPPED)
    frame = result.trades_frame(np.array(["2020-01-02", "2020-01-03", "2020-01-06"], "datetime64[D]"), ("AAPL",))
    row = frame.iloc[0]
    assert (row.symbol, row.side, row.exit_reason, row.shares) == ("AAPL", "long", "open", 50)
    assert str(row.entry_date.date()) == "2020-01-03" and frame.exit_date.isna().all()
    assert (row.exit_price, row.pnl) == (108, 400)


def test_a_change_of_side_is_two_trades():
    result = simulate(*flat_bars(100, 100, 100, 100), column(0.5, -0.5, -0.5, -0.5), FREE)
    assert result.trades["side"].tolist() == [1, -1]
    assert [REASONS[r] for r in result.trades["reason"]] == ["signal", "open"]


def test_what_is_bought_to_be_held_stays_as_it_was_bought():
    market = flat_bars(100, 100, 200, 300, 50)
    result = hold(*market, replace(FREE, whole_shares=True))
    assert result.shares_TS[1:, 0].tolist() == [100] * 4


def test_an_account_refuses_bars_of_another_number_of_symbols():
    with pytest.raises(ValueError, match=r"weights: 2 symbols, but the account has 1"):
        Account(1, FREE).step(*np.ones((4, 2)), np.zeros(2))


def test_markets_without_sessions_or_symbols_trade_nothing():
    for shape in ((0, 3), (3, 0), (1, 1)):
        result = simulate(*(np.ones(shape) for _ in PRICES), np.zeros(shape), TradingRules())
        assert len(result.trades) == 0 and (result.equity_T == 10_000).all()
        held = hold(*(np.ones(shape) for _ in PRICES), TradingRules())
        assert len(held.trades) == 0 and held.equity_T.tolist() == result.equity_T.tolist()


def good():
    return {name: np.full((5, 3), 10.0) for name in PRICES} | {"weights": np.zeros((5, 3))}


@pytest.mark.parametrize("name", PRICES)
@pytest.mark.parametrize("value", [0.0, -1.0, np.inf, np.nan])
def test_an_impossible_price_is_refused_with_its_place(name, value):
    arguments = good()
    arguments[name][3, 1] = value
    arguments[name][4, 0] = value
    with pytest.raises(ValueError, match=rf"{name}: {value} at session 3, symbol 1"):
        simulate(*arguments.values(), TradingRules())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_refused_with_its_place(value):
    arguments = good()
    arguments["weights"][2, 1] = value
    with pytest.raises(ValueError, match=rf"weights: {value} at session 2, symbol 1"):
        simulate(*arguments.values(), TradingRules())
    draws = np.stack([np.zeros((5, 3)), arguments["weights"]])
    with pytest.raises(ValueError, match=rf"weights: {value} at draw 1, session 2, symbol 1"):
        simulate_draws(*list(arguments.values())[:4], draws, TradingRules())


@pytest.mark.parametrize("name", ["open", "high", "low", "weights"])
def test_arrays_of_another_shape_are_refused_by_name(name):
    arguments = good()
    arguments[name] = arguments[name][:, :2]
    with pytest.raises(ValueError, match=rf"{name}: shape \(5, 2\), but close has \(5, 3\)"):
        simulate(*arguments.values(), TradingRules())


def test_sessions_that_do_not_rise_are_refused_with_their_row():
    days = np.array(["2020-01-01", "2020-01-02", "2020-01-02", "2020-01-03", "2020-01-04"], "datetime64[D]")
    with pytest.raises(ValueError, match=r"sessions: 2020-01-02 at row 2 does not come after 2020-01-02"):
        simulate(*good().values(), TradingRules(), sessions_T=days)


@pytest.mark.parametrize(
    ("name", "value"),
    [("commission", -0.1), ("slippage", -0.1), ("stop_loss", 1.0), ("borrow_rate", -1.0), ("lag", 0), ("lag", 3)],
)
def test_rules_that_no_market_has_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=rf"{name}={value}"):
        TradingRules(**{name: value})
