"""The compiled heart of the fill engine: what one bar does to an account, and the loops that call it.

Everything here follows section 3 of the rules of money (docs/trading.md) in its order: gap exits, orders that
reduce, orders that open, exits inside the bar, delisting, borrow, marking, decision. All compiled code that
calls each other lives in this one file, because numba's cache on disk notices changes only file by file.

Legend: T sessions, S symbols, D draws (accounts).
"""

# mypy: allow-untyped-defs
# numba infers the types from the calls, and its records have none that mypy knows.

import math

import numpy as np
from numba import njit

from hftraining.trading.records import BANKRUPT, DELISTED, OPEN, SIGNAL, STOP_LOSS, TAKE_PROFIT, TRADE

# Accounts that run_alone passes side by side: rows of 4 KB, below which the memory's prefetching gets lost.
WIDTH = 512

# Where each value of those accounts begins in one flat array of lanes. Constants, and one array, because only so can
# the compiler see that they do not overlap, and use vectors; 24 more than WIDTH, because lanes that lie a multiple of
# 4 KB apart drive each other out of the cache. Unsigned, because that spares a test for negative indices.
SHARES, LOWER, UPPER, CASH, COSTS, FEES, GROSS, LANES = (np.uint64(i * (WIDTH + 24)) for i in range(8))

# What _pass_bars says of a bar that it could not deal with: the decision is left, or everything is.
DECIDE, LIVE = 1, 2

# A common factor below this is what rounding leaves of a full book, not an order.
SMALLEST_FACTOR = 1e-9

# Division by zero gives inf or NaN as in numpy: testing for it would keep loops from being vectorised.
_compiled = njit(cache=True, nogil=True, error_model="numpy")


@_compiled
def _fill(account, position, rules, shares, price, slippage):
    """Trade signed shares at price, slippage against us; the price paid."""
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
    account.won += trade.pnl > 0.0


@_compiled
def _exit(account, position, rules, price, is_stop, symbol, t, trade):
    """Leave by the stop (which slips) or the target (a limit order, which does not), and cancel what was ordered."""
    slippage = rules.slippage if is_stop else 0.0
    _leave(account, position, rules, price, slippage, STOP_LOSS if is_stop else TAKE_PROFIT, symbol, t, trade)
    position.order = math.nan
    position.later = math.nan


@_compiled
def _at_open(account, position, rules, price, symbol, t, trade):
    """Gap exit, then the part of the order that reduces; whether something is left to open."""
    position.opening = 0.0
    order = position.order
    if price != price:
        position.order = position.later  # no bar: the order is cancelled
        position.later = math.nan
        return False
    if position.shares != 0.0 and (price <= position.lower or price >= position.upper):
        is_stop = (price <= position.lower) == (position.shares > 0.0)
        _exit(account, position, rules, price, is_stop, symbol, t, trade)
        return False
    if order != order:
        position.order = position.later
        position.later = math.nan
        return False
    position.order = position.later
    position.later = math.nan
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
def _opening_cost(rules, shares):
    """Slippage and commission of a fill, as shares' worth of the open price."""
    side = 1.0 if shares > 0.0 else -1.0
    return abs(shares) * (rules.slippage + rules.commission * (1.0 + side * rules.slippage))


@_compiled
def _factor(rules, equity, gross, added, costs):
    """The share of all openings after which gross <= leverage * equity, both after their costs."""
    factor = (rules.leverage * equity - gross) / (added + rules.leverage * costs)
    return 1.0 if factor >= 1.0 else factor if factor > SMALLEST_FACTOR else 0.0


@_compiled
def _open(account, position, rules, factor, price, t):
    """Fill the opening part of an order, scaled."""
    shares = position.opening if factor == 1.0 else factor * position.opening
    if rules.whole_shares:
        shares = float(math.trunc(shares))
    if shares != 0.0:
        _enlarge(account, position, rules, shares, price, t)


@_compiled
def _until_close(account, position, rules, high, low, close, is_last, symbol, t, trade):
    """Exits inside the bar and at a last close, borrow, and the mark."""
    if close == close:
        if position.shares != 0.0 and (low <= position.lower or high >= position.upper):
            # A bar does not say which came first, so the stop is taken to have come before the target.
            is_long = position.shares > 0.0
            is_stop = low <= position.lower if is_long else high >= position.upper
            price = position.lower if is_stop == is_long else position.upper
            _exit(account, position, rules, price, is_stop, symbol, t, trade)
        if is_last and position.shares != 0.0:
            _leave(account, position, rules, close, rules.slippage, DELISTED, symbol, t, trade)
        position.mark = close
    if position.shares < 0.0:
        borrow = -position.shares * position.mark * rules.borrow
        account.cash -= borrow
        account.costs += borrow
        position.fees += borrow


@_compiled
def _decide(position, rules, equity, close, weight):
    """Order the shares that the target weight means at this close, unless the band holds them back."""
    held = position.shares
    # With lag 2 an order to be flat matters to a flat account too, while another order is on its way.
    if close != close or (weight == 0.0 and held == 0.0 and position.order != position.order):
        return
    if rules.never_rebalance and (held * weight > 0.0 or position.order * weight > 0.0):
        return
    if held * weight > 0.0:
        # Asked in currency first, because most days end here and a division costs more than all the rest.
        if not rules.whole_shares and abs(weight * equity - held * close) <= rules.band * equity:
            return
    desired = weight * equity / close
    if rules.whole_shares:
        desired = float(math.trunc(desired))
        if held * desired > 0.0 and abs(desired - held) * close <= rules.band * equity:
            return
    if desired == held and (held != 0.0 or position.order != position.order):
        return
    if rules.lag == 1:
        position.order = desired
    else:
        position.later = desired


@_compiled
def _go_bankrupt(account, book_S, first_symbol, t, trades, used):
    """Close everything at the last closes, without costs: the account is flat for good. Trades begin at used."""
    room = trades.size - 1
    for s in range(book_S.size):
        position = book_S[s]
        position.order = math.nan
        position.later = math.nan
        if position.shares != 0.0:
            side = 1 if position.shares > 0.0 else -1
            position.exit_value += abs(position.shares) * position.mark
            position.shares = 0.0
            _end_trade(account, position, side, BANKRUPT, first_symbol + s, t, trades[min(used, room)])
            used += 1
    account.cash = account.equity = account.gross = 0.0
    account.bankrupt = 1


@_compiled
def _write_off(account, debt, trades):
    """Share a bankrupt account's debt over the trades of its last bar, in proportion to their exit values.

    So the sum of all pnl stays final equity minus capital.
    """
    total = 0.0
    for i in range(trades.size):
        total += trades[i].exit_price * trades[i].shares
    for i in range(trades.size):
        lost = trades[i].pnl <= 0.0
        trades[i].pnl += debt * trades[i].exit_price * trades[i].shares / total
        account.won += lost and trades[i].pnl > 0.0


@_compiled
def step(t, open_S, high_S, low_S, close_S, weights_S, is_last_S, account, book_S, rules, trades):
    """One bar of one account: its open, its inside, its close, and the decision after it.

    account, rules: records. book_S, trades: arrays of records. The account's trade number n goes to trades[n],
    which needs room for 2 * S more; with room for one trade only, trades are counted and overwritten.
    """
    if account.bankrupt:
        return
    before, room = account.closed, trades.size - 1
    opens = False
    for s in range(book_S.size):
        opens |= _at_open(account, book_S[s], rules, open_S[s], s, t, trades[min(account.closed, room)])
    if opens:
        equity, gross, added, costs = account.cash, 0.0, 0.0, 0.0
        for s in range(book_S.size):
            position = book_S[s]
            if position.shares != 0.0:
                price = open_S[s] if open_S[s] == open_S[s] else position.mark
                equity += position.shares * price
                gross += abs(position.shares) * price
            if position.opening != 0.0:
                added += abs(position.opening) * open_S[s]
                costs += _opening_cost(rules, position.opening) * open_S[s]
        factor = _factor(rules, equity, gross, added, costs)
        for s in range(book_S.size):
            if factor > 0.0 and book_S[s].opening != 0.0:
                _open(account, book_S[s], rules, factor, open_S[s], t)
    equity, gross = 0.0, 0.0
    for s in range(book_S.size):
        position, trade = book_S[s], trades[min(account.closed, room)]
        _until_close(account, position, rules, high_S[s], low_S[s], close_S[s], is_last_S[s], s, t, trade)
        if position.shares != 0.0:
            equity += position.shares * position.mark
            gross += abs(position.shares) * position.mark
    equity += account.cash
    account.equity = equity
    if equity <= 0.0:
        _go_bankrupt(account, book_S, 0, t, trades, account.closed)
        if trades.size > 1:
            _write_off(account, -equity, trades[before : account.closed])
        return
    account.gross = gross / equity
    account.gross_sum += account.gross
    for s in range(book_S.size):
        _decide(book_S[s], rules, equity, close_S[s], weights_S[s])


@_compiled
def _with_room(trades, used, needed):
    """The same trades with room for more."""
    if used + needed <= trades.size:
        return trades
    larger = np.empty(2 * trades.size + needed, trades.dtype)
    larger[:used] = trades[:used]
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
def run(open_TS, high_TS, low_TS, close_TS, weights_TS, last_S, account, book_S, rules, path, shares_TS):
    """All sessions of one account over all symbols: its trades.

    path: (sessions, 5), to be filled with equity, cash, gross weight, and the session's traded value and costs.
    """
    n_sessions, n_symbols = close_TS.shape
    trades = np.empty(2 * n_symbols + 64, TRADE)
    is_last_S = np.zeros(n_symbols, np.bool_)
    for t in range(n_sessions):
        trades = _with_room(trades, account.closed, 2 * n_symbols)
        for s in range(n_symbols):
            is_last_S[s] = t == last_S[s]
        traded, costs = account.traded, account.costs
        step(
            t, open_TS[t], high_TS[t], low_TS[t], close_TS[t], weights_TS[t], is_last_S,
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
def run_draws(open_TS, high_TS, low_TS, close_TS, weights_DTS, last_S, accounts_D, empty_S, rules, equity_TD):
    """The same bars under many weights, an account each; trades are counted, not kept."""
    n_sessions, n_symbols = close_TS.shape
    is_last_TS = np.zeros((n_sessions, n_symbols), np.bool_)
    for s in range(n_symbols):
        if last_S[s] >= 0:
            is_last_TS[last_S[s], s] = True
    trades = np.empty(1, TRADE)
    for d in range(accounts_D.size):
        account = accounts_D[d]
        book_S = empty_S.copy()
        for t in range(n_sessions):
            step(
                t, open_TS[t], high_TS[t], low_TS[t], close_TS[t], weights_DTS[d, t], is_last_TS[t],
                account, book_S, rules, trades,
            )  # fmt: skip
            equity_TD[t, d] = account.equity


@_compiled
def _step_alone(t, open_, high, low, close, weight, is_last, account, position, rules, symbol, first, second):
    """`step` for an account that holds one symbol: the same parts in the same order, without its loops.

    first, second: where its trades go, of which a bar can end two. A bankruptcy is left to the caller.
    """
    before = account.closed
    if _at_open(account, position, rules, open_, symbol, t, first):
        held = position.shares
        cost = _opening_cost(rules, position.opening) * open_
        added = abs(position.opening) * open_
        factor = _factor(rules, account.cash + held * open_, abs(held) * open_, added, cost)
        if factor > 0.0:
            _open(account, position, rules, factor, open_, t)
    trade = first if account.closed == before else second
    _until_close(account, position, rules, high, low, close, is_last, symbol, t, trade)
    value = position.shares * position.mark if position.shares != 0.0 else 0.0
    equity = value + account.cash
    account.equity = equity
    if equity > 0.0:
        account.gross = abs(value) / equity
        account.gross_sum += account.gross
        _decide(position, rules, equity, close, weight)


@_compiled
def _board(lanes, lane, account, position):
    """Copy what quiet bars need into the lanes. The lower bound is infinite, so that none is quiet, where orders wait.

    It is never negative: a price that is not positive is not passed either.
    """
    waits = account.bankrupt or position.order == position.order or position.later == position.later
    lanes[SHARES + lane] = position.shares
    lanes[LOWER + lane] = math.inf if waits else max(position.lower, 0.0)
    lanes[UPPER + lane] = position.upper
    lanes[CASH + lane] = account.cash
    lanes[COSTS + lane] = account.costs
    lanes[FEES + lane] = position.fees
    lanes[GROSS + lane] = account.gross_sum


@_compiled
def _unboard(lanes, lane, account, position, close):
    """Copy back what quiet bars changed. close: of the last session before, NaN without a bar."""
    account.cash = lanes[CASH + lane]
    account.costs = lanes[COSTS + lane]
    position.fees = lanes[FEES + lane]
    account.gross_sum = lanes[GROSS + lane]
    if close == close:
        position.mark = close


@_compiled
def _pass_bars(
    t, start, width, open_TS, high_TS, low_TS, close_TS, weights_TS, last_S, band, rate, lanes, rest, which, equity_TS,
):  # fmt: skip
    """One session of accounts side by side that changes nothing but their marks and the borrow of the short ones.

    Such a bar is `step` with nothing to do but mark; bars that are more, or none, or not valid are left alone.
    Returns how many these are; which: their lanes; rest: by lane, DECIDE or LIVE. No branches, so it is vectorised.
    """
    for lane in range(np.uint64(width)):
        s = start + lane
        open_, high, low, close, weight = open_TS[t, s], high_TS[t, s], low_TS[t, s], close_TS[t, s], weights_TS[t, s]
        shares, lower, upper, cash = lanes[SHARES + lane], lanes[LOWER + lane], lanes[UPPER + lane], lanes[CASH + lane]
        value = shares * close
        borrow = -value * rate if value < 0.0 else 0.0
        equity = value + (cash - borrow)
        # The bounds are at least 0 and at most infinity, which makes half of the tests for valid prices.
        quiet = (open_ > lower) & (low > lower) & (open_ < upper) & (high < upper) & (high > 0.0) & (low < math.inf)
        quiet &= (close > 0.0) & (close < math.inf) & (abs(weight) < math.inf) & (equity > 0.0)
        quiet &= last_S[s] != np.int64(t)
        decides = (weight * shares <= 0.0) | (abs(weight * equity - value) > band * equity)
        decides &= (shares != 0.0) | (weight != 0.0)
        borrow = borrow if quiet else 0.0
        lanes[CASH + lane] = cash - borrow
        lanes[COSTS + lane] += borrow
        lanes[FEES + lane] += borrow
        lanes[GROSS + lane] += abs(value) / equity if quiet else 0.0
        equity_TS[t, s] = equity
        rest[lane] = (0 if quiet else LIVE) | (DECIDE if decides else 0)
    count = np.uint64(0)
    for lane in range(np.uint64(width)):
        which[count] = lane
        count += np.uint64(rest[lane] != 0)
    return np.int64(count)


@_compiled
def _is_valid(open_, high, low, close, weight):
    """Whether a bar is four finite positive prices or wholly absent, and the weight finite: what checks.py asks."""
    is_bar = 0.0 < open_ < math.inf and 0.0 < high < math.inf and 0.0 < low < math.inf and 0.0 < close < math.inf
    is_absent = open_ != open_ and high != high and low != low and close != close
    return (is_bar or is_absent) and abs(weight) < math.inf


@_compiled
def run_alone(
    open_TS, high_TS, low_TS, close_TS, weights_TS, last_S, accounts_S, book_S, rules, equity_TS
):  # fmt: skip
    """An account for each symbol: (their trades, whether all bars and weights were valid); stops where one is not.

    Most bars change nothing but the mark: `_pass_bars` passes these, and finds the others, which `_step_alone` takes.
    So the bars are read once, in the order of memory, which takes longer than computing does. Trades come session by
    session for each WIDTH symbols.
    """
    n_sessions, n_symbols = close_TS.shape
    # Room that is not written to costs nothing, and growing means copying.
    trades, used = np.empty(2 * n_symbols + n_sessions * n_symbols // 8, TRADE), 0
    band, rate = -1.0 if rules.whole_shares else rules.band, rules.borrow
    lanes, rest, which = np.empty(LANES), np.empty(WIDTH, np.int8), np.empty(WIDTH + 1, np.uint64)
    for start in range(0, n_symbols, WIDTH):
        width, ustart = min(WIDTH, n_symbols - start), np.uint64(start)
        for i in range(width):
            _board(lanes, np.uint64(i), accounts_S[start + i], book_S[start + i])
        for t in range(n_sessions):
            ut = np.uint64(t)
            count = _pass_bars(
                ut, ustart, width, open_TS, high_TS, low_TS, close_TS, weights_TS, last_S, band, rate,
                lanes, rest, which, equity_TS,
            )  # fmt: skip
            trades = _with_room(trades, used, 2 * count)
            for i in range(count):
                lane = which[i]
                us, s = ustart + lane, start + np.int64(lane)
                account, position = accounts_S[us], book_S[us]
                close, weight = close_TS[ut, us], weights_TS[ut, us]
                if rest[lane] == DECIDE:
                    _decide(position, rules, equity_TS[ut, us], close, weight)
                    if position.order == position.order or position.later == position.later:
                        lanes[LOWER + lane] = math.inf
                    continue
                open_, high, low = open_TS[ut, us], high_TS[ut, us], low_TS[ut, us]
                if not _is_valid(open_, high, low, close, weight):
                    return trades[:0], False
                if not account.bankrupt:
                    before = account.closed
                    _unboard(lanes, lane, account, position, close_TS[t - 1, us] if t > 0 else math.nan)
                    _step_alone(
                        t, open_, high, low, close, weight, t == last_S[us],
                        account, position, rules, s, trades[used], trades[used + 1],
                    )  # fmt: skip
                    if account.equity <= 0.0:
                        debt = -account.equity
                        _go_bankrupt(account, book_S[s : s + 1], s, t, trades, used + account.closed - before)
                        _write_off(account, debt, trades[used : used + account.closed - before])
                    used += account.closed - before
                    _board(lanes, lane, account, position)
                equity_TS[ut, us] = account.equity
        for i in range(width):
            close = close_TS[n_sessions - 1, start + i] if n_sessions > 0 else math.nan
            _unboard(lanes, np.uint64(i), accounts_S[start + i], book_S[start + i], close)
    return _with_open(trades, used, book_S), True
