"""Buy and hold of all that could be bought, as a slow loop over dictionaries, and markets with late listings."""

import math

import numpy as np

from hftraining.trading.config import TradingRules
from tests.naive_engine import random_market


def naive_hold(open_, close, rules: TradingRules) -> tuple[list[float], list[list[float]]]:
    """Equity and shares at each close. Fractional shares, no stops; prices indexed [session][symbol], NaN: no bar."""
    n_sessions, n_symbols = len(close), len(close[0])
    cash = rules.initial_capital
    shares: dict[int, float] = {}
    last_price: dict[int, float] = {}
    share_given: dict[int, float] = {}  # of the equity, when the symbol was listed
    orders: list[dict[int, float]] = [{} for _ in range(n_sessions + 2)]  # by session of the fill: shares wanted
    equities, books = [], []

    def has_bar(t, s):
        return not math.isnan(close[t][s])

    def delisted(t, s):
        return has_bar(t, s) and t < n_sessions - 1 and not any(has_bar(u, s) for u in range(t + 1, n_sessions))

    def sell(s, number, price):
        nonlocal cash
        cash += number * price * (1 - rules.slippage) * (1 - rules.commission)
        shares[s] -= number

    for t in range(n_sessions):
        wishes = {s: wanted for s, wanted in orders[t].items() if has_bar(t, s)}
        for s, wanted in wishes.items():
            if wanted < shares.get(s, 0.0):
                sell(s, shares[s] - wanted, open_[t][s])
        dear = {s: open_[t][s] * (1 + rules.slippage) * (1 + rules.commission) for s in wishes}
        buys = {s: wanted - shares.get(s, 0.0) for s, wanted in wishes.items() if wanted > shares.get(s, 0.0)}
        bill = sum(number * dear[s] for s, number in buys.items())
        for s, number in buys.items():
            part = number * min(1.0, cash / bill)
            if part > 0:
                shares[s] = shares.get(s, 0.0) + part
        cash -= min(cash, bill)
        for s in range(n_symbols):
            if has_bar(t, s):
                last_price[s] = close[t][s]
                if delisted(t, s) and s in shares:
                    sell(s, shares[s], close[t][s])
                    del shares[s]
        equity = cash + sum(number * last_price[s] for s, number in shares.items())
        equities.append(equity)
        books.append([shares.get(s, 0.0) for s in range(n_symbols)])

        # What the book will be when the orders on their way are filled (with lag 2 there may be some).
        coming = shares | {s: wanted for s, wanted in orders[t + 1].items() if not delisted(t, s)}
        new = [s for s in range(n_symbols) if has_bar(t, s) and s not in share_given]
        n = len(coming) + len(new)
        worth = sum(number * last_price[s] for s, number in coming.items())
        for s in new:
            share_given[s] = 1 / n
        for s in range(n_symbols):
            if not has_bar(t, s):
                continue
            if s in coming:
                if new and worth > len(coming) / n * equity:
                    orders[t + rules.lag][s] = coming[s] * len(coming) / n * equity / worth
            elif s in new or not delisted(t, s):
                orders[t + rules.lag][s] = share_given[s] * equity / close[t][s]
    return equities, books


def market_with_listings(rng: np.random.Generator, n_sessions: int, n_symbols: int, missing: float = 0.0):
    """Prices as `random_market`, where about half of the symbols are listed late and some have holes."""
    prices = random_market(rng, n_sessions, n_symbols, missing, 0.03)
    first_S = np.where(rng.random(n_symbols) < 0.5, rng.integers(0, n_sessions, n_symbols), 0)
    unlisted_TS = np.arange(n_sessions)[:, None] < first_S
    for array in prices:
        array[unlisted_TS] = np.nan
    return prices
