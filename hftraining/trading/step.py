"""The compiled heart of the fill engine: what one bar does to an account, and the loops that call it.

The functions follow the rules of docs/trading.md in their order: gap exits, orders that reduce, orders that open,
exits inside the bar, delisting, borrow, marking, decision. Compiled functions that call each other live in this one
file, because numba's cache on disk notices a change only in the file of the caller.

Legend: T sessions, S symbols, D draws (accounts).
"""

# mypy: allow-untyped-defs
# numba infers the types from the calls, and its records have none that mypy knows.

import math

import numpy as np
from numba import njit

from hftraining.trading.dtypes import BANKRUPT, DELISTED, OPEN, SIGNAL, STOP_LOSS, TAKE_PROFIT, TRADE

# A common factor below this is what rounding leaves of a full book, not an order.
SMALLEST_FACTOR = 1e-9

# Division by zero gives inf or NaN as in numpy: testing for it would keep loops from being vectorised.
_compiled = njit(cache=True, nogil=True, error_model="numpy")


@_compiled
def _fill(account, position, rules, shares, price, slippage):
    """Trade signed shares at price with slippage against us; returns the price paid."""
    side = 1.0 if shares > 0.0 else -1.0
    paid = price * (1.0 + side * slippage)
    value = abs(shares) * paid
    fee = rules.commission * value
    slipped = abs(shares) * price * slippage
    account.cash -= shares * paid + fee
    account.traded += value
    account.costs += fee + slipped
    position.fees += fee
    position.slipped += slipped
    return paid


@_compiled
def _enlarge(account, position, rules, shares, price, t):
    """Open a position or add to it, and set its stop and target from the new average price."""
    held, added = abs(position.shares), abs(shares)
    if held == 0.0:
        position.entry_t = t
        position.average = position.opened = position.entry_value = 0.0
        position.exit_value = position.fees = position.slipped = 0.0
    paid = _fill(account, position, rules, shares, price, rules.slippage)
    position.average = paid if held == 0.0 else (held * position.average + added * paid) / (held + added)
    position.opened += added
    position.entry_value += added * paid
    position.shares += shares
    side = 1.0 if shares > 0.0 else -1.0
    stop = position.average * (1.0 - side * rules.stop_loss) if rules.stop_loss > 0.0 else -side * math.inf
    target = position.average * (1.0 + side * rules.take_profit) if rules.take_profit > 0.0 else side * math.inf
    position.lower = stop if side > 0.0 else target
    position.upper = target if side > 0.0 else stop


@_compiled
def _reduce(account, position, rules, remaining, price, slippage):
    """Trade down to the remaining shares, on the same side or flat."""
    shares = remaining - position.shares
    paid = _fill(account, position, rules, shares, price, slippage)
    position.exit_value += abs(shares) * paid
    position.shares = remaining


@_compiled
def _write(trade, position, symbol, side, t, reason):
    """Write the trade that the position's sums describe."""
    trade.symbol = symbol
    trade.side = side
    trade.shares = position.opened
    trade.entry_t = position.entry_t
    trade.entry_price = position.entry_value / position.opened
    trade.exit_t = t
    trade.exit_price = position.exit_value / position.opened
    trade.costs = position.fees + position.slipped
    trade.pnl = side * (position.exit_value - position.entry_value) - position.fees
    trade.reason = reason


@_compiled
def _leave(account, position, rules, price, slippage, reason, symbol, t, trade):
    """Close the position whole and write its trade."""
    side = 1 if position.shares > 0.0 else -1
    _reduce(account, position, rules, 0.0, price, slippage)
    _end_trade(account, position, side, reason, symbol, t, trade)


@_compiled
def _end_trade(account, position, side, reason, symbol, t, trade):
    """Forget the stop and the target of a position that is flat, count its trade and write it."""
    position.lower = -math.inf
    position.upper = math.inf
    _write(trade, position, symbol, side, t, reason)
    account.closed += 1


@_compiled
def _exit(account, position, rules, price, is_stop, symbol, t, trade):
    """Leave by the stop (which slips) or the target (a limit order, which does not), and cancel what was ordered."""
    slippage = rules.slippage if is_stop else 0.0
    _leave(account, position, rules, price, slippage, STOP_LOSS if is_stop else TAKE_PROFIT, symbol, t, trade)
    position.order = math.nan
    position.later = math.nan


@_compiled
def _at_open(account, position, rules, price, symbol, t, trade):
    """Gap exit, then the part of the order that reduces; returns whether something is left to open."""
    position.opening = 0.0
    order = position.order
    position.order = position.later
    position.later = math.nan
    if price != price:
        return False  # no bar: the order is cancelled
    if position.shares != 0.0 and (price <= position.lower or price >= position.upper):
        is_stop = (price <= position.lower) == (position.shares > 0.0)
        _exit(account, position, rules, price, is_stop, symbol, t, trade)
        return False
    if order != order:
        return False
    held = position.shares
    if held != 0.0 and order * held <= 0.0:
        _leave(account, position, rules, price, rules.slippage, SIGNAL, symbol, t, trade)
        position.opening = order
    elif abs(order) < abs(held):
        _reduce(account, position, rules, order, price, rules.slippage)
    else:
        position.opening = order - held
    return position.opening != 0.0


@_compiled
def _decide(position, rules, equity, close, weight):
    """Order the shares that the target weight buys at this close, unless the change is within the band.

    NaN is no decision. With rules.in_shares the weight is the shares themselves.
    """
    held, exact = position.shares, rules.whole_shares or rules.in_shares
    # With lag 2 an order to be flat matters to a flat account too, while another order is on its way.
    if close != close or weight != weight or (weight == 0.0 and held == 0.0 and position.order != position.order):
        return
    # Compared in currency first, because most days end here and a division costs more than all the rest.
    if held * weight > 0.0 and not exact and abs(weight * equity - held * close) <= rules.band * equity:
        return
    desired = weight if rules.in_shares else weight * equity / close
    if rules.whole_shares:
        desired = float(math.trunc(desired))
    if exact and held * desired > 0.0 and abs(desired - held) * close <= rules.band * equity:
        return
    if desired == held and (held != 0.0 or position.order != position.order):
        return
    _order(position, rules, desired)


@_compiled
def _order(position, rules, desired):
    """Want these shares at the open that is `lag` sessions away."""
    if rules.lag == 1:
        position.order = desired
    else:
        position.later = desired


@_compiled
def _decide_to_hold(book_S, rules, equity, close_S, is_last_S, weights_S):
    """The orders of buy and hold after a close, as `simulator.hold` describes them.

    weights_S: what each symbol was given when it joined, 0 before; those that join now are filled in.
    """
    joining, held, value = 0, 0, 0.0
    for s in range(book_S.size):
        wanted = book_S[s].shares if book_S[s].order != book_S[s].order else book_S[s].order  # held, or already ordered
        joining += weights_S[s] == 0.0 and close_S[s] == close_S[s]
        if wanted != 0.0 and not is_last_S[s]:  # what is delisted at this close has just been sold
            held += 1
            value += wanted * book_S[s].mark
    n = held + joining
    keep = min(1.0, held / n * equity / value) if joining and held else 1.0  # what cash pays for nobody gives up
    for s in range(book_S.size):
        position, close = book_S[s], close_S[s]
        wanted = position.shares if position.order != position.order else position.order
        if weights_S[s] == 0.0 and close == close:
            weights_S[s] = 1.0 / n
        elif is_last_S[s] or close != close:
            continue
        desired = keep * wanted if wanted != 0.0 else weights_S[s] * equity / close
        if rules.whole_shares:  # rounding sells no last share: it is held for good
            desired = max(float(math.trunc(desired)), min(wanted, 1.0))
        if desired != wanted:
            _order(position, rules, desired)


@_compiled
def _go_bankrupt(account, book_S, t, trades):
    """Close everything at the last closes without costs; the account stays flat for good."""
    room = trades.size - 1
    for s in range(book_S.size):
        position = book_S[s]
        position.order = math.nan
        position.later = math.nan
        if position.shares != 0.0:
            side = 1 if position.shares > 0.0 else -1
            position.exit_value += abs(position.shares) * position.mark
            position.shares = 0.0
            _end_trade(account, position, side, BANKRUPT, s, t, trades[min(account.closed, room)])
    account.cash = account.equity = account.gross = 0.0
    account.bankrupt = 1


@_compiled
def _write_off(debt, trades):
    """Share a bankrupt account's debt over the trades of its last bar, in proportion to their exit values.

    So the sum of all pnl stays final equity minus capital.
    """
    total = 0.0
    for i in range(trades.size):
        total += trades[i].exit_price * trades[i].shares
    for i in range(trades.size):
        trades[i].pnl += debt * trades[i].exit_price * trades[i].shares / total


@_compiled
def reduce_at_open(t, open_S, account, book_S, rules, trades):
    """Gap exits and the orders that reduce; returns whether something is left to open."""
    opens, room = False, trades.size - 1
    for s in range(book_S.size):
        opens |= _at_open(account, book_S[s], rules, open_S[s], s, t, trades[min(account.closed, room)])
    return opens


@_compiled
def enlarge_at_open(t, open_S, account, book_S, rules):
    """The orders that open or enlarge, scaled by one factor: gross <= leverage * equity, both after their costs."""
    equity, gross, added, costs = account.cash, 0.0, 0.0, 0.0
    for s in range(book_S.size):
        position = book_S[s]
        if position.shares != 0.0:
            price = open_S[s] if open_S[s] == open_S[s] else position.mark
            equity += position.shares * price
            gross += abs(position.shares) * price
        if position.opening != 0.0:
            side, size = 1.0 if position.opening > 0.0 else -1.0, abs(position.opening)
            added += size * open_S[s]
            costs += size * (rules.slippage + rules.commission * (1.0 + side * rules.slippage)) * open_S[s]
    factor = (rules.leverage * equity - gross) / (added + rules.leverage * costs)
    factor = 1.0 if factor >= 1.0 else factor if factor > SMALLEST_FACTOR else 0.0
    for s in range(book_S.size):
        shares = book_S[s].opening if factor == 1.0 else factor * book_S[s].opening
        shares = float(math.trunc(shares)) if rules.whole_shares else shares
        if factor > 0.0 and shares != 0.0:
            _enlarge(account, book_S[s], rules, shares, open_S[s], t)


@_compiled
def until_close(t, high_S, low_S, close_S, is_last_S, account, book_S, rules, trades, before):
    """Exits inside the bar and at a last close, borrow, and the marks. before: trades closed before this bar."""
    equity, gross, room = 0.0, 0.0, trades.size - 1
    for s in range(book_S.size):
        position, trade, close = book_S[s], trades[min(account.closed, room)], close_S[s]
        if close == close:
            if position.shares != 0.0 and (low_S[s] <= position.lower or high_S[s] >= position.upper):
                # A bar does not show which came first; we assume the stop.
                is_long = position.shares > 0.0
                is_stop = low_S[s] <= position.lower if is_long else high_S[s] >= position.upper
                price = position.lower if is_stop == is_long else position.upper
                _exit(account, position, rules, price, is_stop, s, t, trade)
            if is_last_S[s] and position.shares != 0.0:
                _leave(account, position, rules, close, rules.slippage, DELISTED, s, t, trade)
            position.mark = close
        if position.shares < 0.0:
            borrow = -position.shares * position.mark * rules.borrow
            account.cash -= borrow
            account.costs += borrow
            position.fees += borrow
        if position.shares != 0.0:
            equity += position.shares * position.mark
            gross += abs(position.shares) * position.mark
    equity += account.cash
    account.equity = equity
    if equity > 0.0:
        account.gross = gross / equity
        return
    _go_bankrupt(account, book_S, t, trades)
    if trades.size > 1:
        _write_off(-equity, trades[before : account.closed])


@_compiled
def settle(t, open_S, high_S, low_S, close_S, is_last_S, account, book_S, rules, trades):
    """One bar of an account up to its close. account, rules: records; book_S, trades: arrays of records.

    The account's trade number n goes to trades[n], which needs room for 2 * S more; with room for one trade only,
    trades are counted and overwritten.
    """
    if account.bankrupt:
        return
    before = account.closed
    if reduce_at_open(t, open_S, account, book_S, rules, trades):
        enlarge_at_open(t, open_S, account, book_S, rules)
    until_close(t, high_S, low_S, close_S, is_last_S, account, book_S, rules, trades, before)


@_compiled
def decide(close_S, weights_S, is_last_S, account, book_S, rules):
    """The decision after a close: orders. With rules.hold that of buy and hold, and weights_S what it remembers."""
    if account.bankrupt:
        return
    if rules.hold:
        _decide_to_hold(book_S, rules, account.equity, close_S, is_last_S, weights_S)
        return
    for s in range(book_S.size):
        _decide(book_S[s], rules, account.equity, close_S[s], weights_S[s])


@_compiled
def step(t, open_S, high_S, low_S, close_S, weights_S, is_last_S, account, book_S, rules, trades):
    """One bar of one account: its open, its inside, its close, and the decision after it."""
    settle(t, open_S, high_S, low_S, close_S, is_last_S, account, book_S, rules, trades)
    decide(close_S, weights_S, is_last_S, account, book_S, rules)


@_compiled
def _with_room(trades, used, needed):
    """The same trades with room for more."""
    if used + needed <= trades.size:
        return trades
    larger = np.empty(2 * trades.size + needed, trades.dtype)
    for k in range(used):  # a copy of slices would compile, for seconds, a message of shapes that never differ
        larger[k] = trades[k]
    return larger


@_compiled
def write_open(position, symbol, trade):
    """Write an open position as a trade whose rest is marked at the last close."""
    rest = abs(position.shares) * position.mark
    position.exit_value += rest
    _write(trade, position, symbol, 1 if position.shares > 0.0 else -1, -1, OPEN)
    position.exit_value -= rest


@_compiled
def _with_open(trades, used, book_S):
    """The closed trades, then the open positions."""
    trades = _with_room(trades, used, book_S.size)
    for s in range(book_S.size):
        if book_S[s].shares != 0.0:
            write_open(book_S[s], s, trades[used])
            used += 1
    return trades[:used]


@_compiled
def run(open_TS, high_TS, low_TS, close_TS, weights_TS, is_last_TS, account, book_S, rules, path, shares_TS):
    """Run all sessions of one account over all symbols; returns its trades.

    path: (sessions, 5), to be filled with equity, cash, gross weight, and the session's traded value and costs.
    """
    n_sessions, n_symbols = close_TS.shape
    trades = np.empty(2 * n_symbols + 64, TRADE)
    for t in range(n_sessions):
        trades = _with_room(trades, account.closed, 2 * n_symbols)
        traded, costs = account.traded, account.costs
        step(
            t, open_TS[t], high_TS[t], low_TS[t], close_TS[t], weights_TS[0 if rules.hold else t], is_last_TS[t],
            account, book_S, rules, trades,
        )  # fmt: skip
        path[t, 0] = account.equity
        path[t, 1] = account.cash
        path[t, 2] = account.gross
        path[t, 3] = account.traded - traded
        path[t, 4] = account.costs - costs
        for s in range(n_symbols):
            shares_TS[t, s] = book_S[s].shares
    return _with_open(trades, account.closed, book_S)


@_compiled
def run_draws(open_TS, high_TS, low_TS, close_TS, weights_DTS, is_last_TS, accounts_D, empty_S, rules, equity_TD):
    """Trade many weights over the same bars, each in its own account; trades are counted, not kept."""
    trades = np.empty(1, TRADE)
    for d in range(accounts_D.size):
        account = accounts_D[d]
        book_S = empty_S.copy()
        for t in range(len(close_TS)):
            step(
                t, open_TS[t], high_TS[t], low_TS[t], close_TS[t], weights_DTS[d, t], is_last_TS[t],
                account, book_S, rules, trades,
            )  # fmt: skip
            equity_TD[t, d] = account.equity
