"""The rules of money as a slow loop over dictionaries, written from their text alone, and random markets to trade.

It keeps every fill of every trade and works out the trades from their cash flows, which the engine does not.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from hftraining.trading.config import TradingRules


@dataclass
class Holding:
    """A position and the fills that made it."""

    shares: float
    average: float
    entry_t: int
    fills: list[tuple[float, float, float]] = field(default_factory=list)  # signed shares, price paid, price asked
    fees: float = 0.0


@dataclass
class NaiveResult:
    equity: list[float]
    cash: list[float]
    shares: list[list[float]]
    traded: float
    costs: float
    trades: list[dict]


def naive_simulate(open_, high, low, close, weights, rules: TradingRules, in_shares: bool = False) -> NaiveResult:
    """One account over all symbols; arguments as nested lists or arrays indexed [session][symbol].

    A weight of NaN is no decision. in_shares: weights are the shares wanted.
    """
    n_sessions = len(close)
    n_symbols = len(close[0]) if n_sessions else 0
    cash, bankrupt = rules.initial_capital, False
    holdings: dict[int, Holding] = {}
    orders: dict[tuple[int, int], float] = {}  # (session of the fill, symbol) -> shares wanted
    marks: dict[int, float] = {}
    result = NaiveResult([], [], [], 0.0, 0.0, [])

    def has_bar(t, s):
        return not math.isnan(close[t][s])

    def trade(t, s, shares, price, slippage):
        """Fill signed shares in a new or existing holding."""
        nonlocal cash
        paid = price * (1 + slippage) if shares > 0 else price * (1 - slippage)
        fee = rules.commission * abs(shares) * paid
        cash -= shares * paid
        cash -= fee
        result.traded += abs(shares) * paid
        result.costs += fee + abs(shares) * abs(paid - price)
        holding = holdings.setdefault(s, Holding(0.0, 0.0, t))
        if holding.shares == 0 or (holding.shares > 0) == (shares > 0):
            before, more = abs(holding.shares), abs(shares)
            holding.average = (before * holding.average + more * paid) / (before + more)
        holding.shares += shares
        holding.fees += fee
        holding.fills.append((shares, paid, price))

    def finish(t, s, reason):
        """Turn the fills of a holding that is flat into a trade."""
        result.trades.append(describe(holdings.pop(s), s, t, reason))

    def leave(t, s, price, slippage, reason):
        trade(t, s, -holdings[s].shares, price, slippage)
        finish(t, s, reason)

    def cancel_orders(s):
        for key in [key for key in orders if key[1] == s]:
            del orders[key]

    def stop_of(holding):
        if rules.stop_loss == 0:
            return None
        return holding.average * (1 - rules.stop_loss if holding.shares > 0 else 1 + rules.stop_loss)

    def target_of(holding):
        if rules.take_profit == 0:
            return None
        return holding.average * (1 + rules.take_profit if holding.shares > 0 else 1 - rules.take_profit)

    def reaches_stop(holding, price):
        stop = stop_of(holding)
        return stop is not None and (price <= stop if holding.shares > 0 else price >= stop)

    def reaches_target(holding, price):
        target = target_of(holding)
        return target is not None and (price >= target if holding.shares > 0 else price <= target)

    for t in range(n_sessions):
        if bankrupt:
            result.equity.append(0.0)
            result.cash.append(0.0)
            result.shares.append([0.0] * n_symbols)
            continue
        trades_before = len(result.trades)
        # 1. gap exits
        for s in range(n_symbols):
            if has_bar(t, s) and s in holdings:
                if reaches_stop(holdings[s], open_[t][s]):
                    leave(t, s, open_[t][s], rules.slippage, "stop_loss")
                    cancel_orders(s)
                elif reaches_target(holdings[s], open_[t][s]):
                    leave(t, s, open_[t][s], 0.0, "take_profit")
                    cancel_orders(s)
        # 2. reductions
        openings = {}
        for s in range(n_symbols):
            desired = orders.pop((t, s), None)
            if desired is None or not has_bar(t, s):
                continue
            held = holdings[s].shares if s in holdings else 0.0
            if held != 0 and (desired == 0 or (desired > 0) != (held > 0)):
                leave(t, s, open_[t][s], rules.slippage, "signal")
                held = 0.0
            if abs(desired) < abs(held):
                trade(t, s, desired - held, open_[t][s], rules.slippage)
            elif desired != held:
                openings[s] = desired - held
        # 3. openings, in common proportion
        if openings:
            price = {s: open_[t][s] if has_bar(t, s) else marks[s] for s in {*holdings, *openings}}
            equity = cash + sum(h.shares * price[s] for s, h in holdings.items())
            gross = sum(abs(h.shares) * price[s] for s, h in holdings.items())
            cap = max(1.0, rules.max_gross)

            excess_of_none = gross - cap * equity
            for s, shares in openings.items():
                fill = price[s] * (1 + (1 if shares > 0 else -1) * rules.slippage)
                gross += abs(shares) * price[s]
                equity -= shares * (fill - price[s]) + rules.commission * abs(shares) * fill
            excess_of_all = gross - cap * equity
            factor = 1.0
            if excess_of_all > 0:
                # The excess is a straight line in the factor, so its zero follows from two points.
                factor = max(0.0, -excess_of_none / (excess_of_all - excess_of_none))
            for s, shares in openings.items():
                part = shares * factor
                if rules.whole_shares:
                    part = float(int(part))
                if part != 0 and factor > 1e-9:
                    trade(t, s, part, open_[t][s], rules.slippage)
        # inside the bar
        for s in range(n_symbols):
            if has_bar(t, s) and s in holdings:
                worst, best = (low, high) if holdings[s].shares > 0 else (high, low)
                if reaches_stop(holdings[s], worst[t][s]):
                    leave(t, s, stop_of(holdings[s]), rules.slippage, "stop_loss")
                    cancel_orders(s)
                elif reaches_target(holdings[s], best[t][s]):
                    leave(t, s, target_of(holdings[s]), 0.0, "take_profit")
                    cancel_orders(s)
        # the close
        for s in range(n_symbols):
            if has_bar(t, s):
                marks[s] = close[t][s]
                never_again = t < n_sessions - 1 and not any(has_bar(u, s) for u in range(t + 1, n_sessions))
                if never_again and s in holdings:
                    leave(t, s, close[t][s], rules.slippage, "delisted")
        for s, holding in holdings.items():
            if holding.shares < 0:
                borrow = -holding.shares * marks[s] * rules.borrow_rate / 252
                cash -= borrow
                holding.fees += borrow
                result.costs += borrow
        equity = cash + sum(h.shares * marks[s] for s, h in sorted(holdings.items()))
        if equity <= 0:
            bankrupt = True
            for s in sorted(holdings):
                holding = holdings[s]
                holding.fills.append((-holding.shares, marks[s], marks[s]))
                finish(t, s, "bankrupt")
            ended = result.trades[trades_before:]
            total = sum(trade["exit_value"] for trade in ended)
            for trade_ in ended:
                trade_["pnl"] += -equity * trade_["exit_value"] / total
            result.equity.append(0.0)
            result.cash.append(0.0)
            result.shares.append([0.0] * n_symbols)
            continue
        result.equity.append(equity)
        result.cash.append(cash)
        result.shares.append([holdings[s].shares if s in holdings else 0.0 for s in range(n_symbols)])
        # the decision
        for s in range(n_symbols):
            if not has_bar(t, s) or math.isnan(weights[t][s]):
                continue
            held = holdings[s].shares if s in holdings else 0.0
            desired = weights[t][s] if in_shares else weights[t][s] * equity / close[t][s]
            if rules.whole_shares:
                desired = float(int(desired))
            same_side = desired * held > 0
            within_band = abs(desired - held) * close[t][s] / equity <= rules.rebalance_band
            if same_side and within_band:
                continue
            orders[(t + rules.lag, s)] = desired
    for s, holding in sorted(holdings.items()):
        holding.fills.append((-holding.shares, marks[s], marks[s]))
        result.trades.append(describe(holding, s, -1, "open"))
    return result


def describe(holding: Holding, symbol: int, exit_t: int, reason: str) -> dict:
    """A trade from its fills."""
    side = 1 if holding.fills[0][0] > 0 else -1
    entries = [(abs(n), paid) for n, paid, _ in holding.fills if n * side > 0]
    exits = [(abs(n), paid) for n, paid, _ in holding.fills if n * side < 0]
    opened = sum(n for n, _ in entries)
    return {
        "symbol": symbol,
        "side": side,
        "shares": opened,
        "entry_t": holding.entry_t,
        "entry_price": sum(n * paid for n, paid in entries) / opened,
        "exit_t": exit_t,
        "exit_price": sum(n * paid for n, paid in exits) / opened,
        "exit_value": sum(n * paid for n, paid in exits),
        "costs": holding.fees + sum(abs(n) * abs(paid - asked) for n, paid, asked in holding.fills),
        "pnl": -sum(n * paid for n, paid, _ in holding.fills) - holding.fees,
        "reason": reason,
    }


def random_market(rng: np.random.Generator, n_sessions: int, n_symbols: int, missing: float = 0.0, wild: float = 0.02):
    """(open, high, low, close)_TS: random walks with gaps; bars missing at random and some symbols ending early."""
    close = 50.0 * np.exp(np.cumsum(rng.normal(0, wild, (n_sessions, n_symbols)), axis=0))
    before = np.vstack([close[:1], close[:-1]])
    open_ = before * np.exp(rng.normal(0, wild / 2, close.shape))
    high = np.maximum(open_, close) * np.exp(np.abs(rng.normal(0, wild / 2, close.shape)))
    low = np.minimum(open_, close) * np.exp(-np.abs(rng.normal(0, wild / 2, close.shape)))
    if missing:
        absent = rng.random(close.shape) < missing
        for s in range(n_symbols):
            if rng.random() < 0.3:
                absent[rng.integers(n_sessions // 2, n_sessions) :, s] = True
        for prices in (open_, high, low, close):
            prices[absent] = np.nan
    return open_, high, low, close


def random_rules(rng: np.random.Generator) -> TradingRules:
    """Every option drawn at random, each of its special values often."""

    def one_of(*values):
        return values[rng.integers(len(values))]

    return TradingRules(
        initial_capital=one_of(1_000.0, 10_000.0, 1e6),
        commission=one_of(0.0, 0.001, 0.02),
        slippage=one_of(0.0, 0.0005, 0.01),
        borrow_rate=one_of(0.0, 0.005, 0.5),
        max_gross=one_of(0.5, 1.0, 2.0, 4.0),
        stop_loss=one_of(0.0, 0.02, 0.05, 0.3),
        take_profit=one_of(0.0, 0.02, 0.05, 0.5),
        rebalance_band=one_of(0.0, 0.01, 0.05, 0.5),
        whole_shares=bool(rng.random() < 0.3),
        lag=one_of(1, 2),
    )


def random_weights(rng: np.random.Generator, n_sessions: int, n_symbols: int) -> np.ndarray:
    """Weights that last a random while; some zero, sometimes all on one side, sometimes more than the cap."""
    size = [0.1, 0.3, 1.0, 3.0][rng.integers(4)]
    weights = rng.normal(0, size, (n_sessions, n_symbols)) * (rng.random((n_sessions, n_symbols)) < 0.7)
    keep = rng.random((n_sessions, n_symbols)) < [0.0, 0.5, 0.9][rng.integers(3)]
    for t in range(1, n_sessions):
        weights[t] = np.where(keep[t], weights[t - 1], weights[t])
    return np.abs(weights) if rng.random() < 0.3 else weights
