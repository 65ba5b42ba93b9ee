"""Many books over the same bars at once, each another one shifted in time: equity alone, some ten times as fast.

The rules are those of trading/step.py for a lag of 1, fractional shares, no stop and no target, in the same order of
the same sums, so that each account is equal to the engine's to the bit (tests/trading/test_lanes.py). What a trade
needs to be written down is left out, and LANES accounts go through each bar side by side, as vectors.

Legend: T sessions, S symbols, D draws (accounts), G the LANES accounts of a group.
"""

# mypy: allow-untyped-defs
# numba infers the types from the calls.

import numpy as np
from numba import njit

from hftraining.trading.step import SMALLEST_FACTOR

LANES = 16  # 8 are slower by half, 32 no faster
# One flat array a group, since the compiler vectorises only what it knows not to overlap: three rows of a symbol
# (shares, what its order opens, its weight), and the sums of the accounts.
OPENING, WEIGHT, ROWS = LANES, 2 * LANES, 3 * LANES
CASH, EQUITY, AT_OPEN, GROSS, ADDED, COSTS, FACTOR, AT_CLOSE, SUMS = (LANES * row for row in range(9))

_compiled = njit(cache=True, nogil=True, error_model="numpy")


@_compiled
def run_shifted(
    open_TS, close_TS, is_last_TS, weights_TS, in_force_T, offset_D, symbol_DS, capital,
    commission, slippage, borrow, leverage, band, equity_TD,
):  # fmt: skip
    """Fill equity_TD: draw d trades at session t the weights of session t - offset_D[d], on a circle.

    in_force_T: the session whose decision holds at each, with which a draw begins. symbol_DS: whose weights each symbol
    takes. The other arguments as the engine has them; borrow: a session.
    """
    n_sessions, n_symbols = close_TS.shape
    pays_borrow = borrow > 0.0 and (weights_TS < 0.0).any()
    for first in range(0, offset_D.size, LANES):
        state, sums, mark_S = np.zeros(n_symbols * ROWS), np.zeros(SUMS), np.full(n_symbols, np.nan)
        sums[CASH : CASH + LANES] = capital
        n_draws = min(LANES, offset_D.size - first)
        for t in range(n_sessions):
            if t:
                for g in range(n_draws):  # the weights of lanes without a draw stay 0
                    decided = (t - 1 - offset_D[first + g]) % n_sessions
                    decided = in_force_T[decided] if t == 1 else decided
                    _take(weights_TS[decided], symbol_DS[first + g], g, state)
                _reduce(open_TS[t], close_TS[t - 1], commission, slippage, band, state, sums)
            _scale(open_TS[t], mark_S, commission, slippage, leverage, state, sums)
            _enlarge(open_TS[t], close_TS[t], is_last_TS[t], mark_S, commission, slippage, state, sums)
            if pays_borrow or is_last_TS[t].any():
                _end(is_last_TS[t], mark_S, commission, slippage, borrow, state, sums)
            _mark(state, sums)
            for g in range(n_draws):
                equity_TD[t, first + g] = sums[EQUITY + g]


@_compiled
def _take(weights_S, symbol_S, g, state):
    """The weights of one lane."""
    for s in range(symbol_S.size):
        state[s * ROWS + WEIGHT + g] = weights_S[symbol_S[s]]


@_compiled
def _reduce(open_S, decided_S, commission, slippage, band, state, sums):
    """What was decided at the last close becomes an order: fill the part that reduces, keep the part that opens."""
    for s in range(open_S.size):
        at, price, close = s * ROWS, open_S[s], decided_S[s]
        if price != price or close != close:  # nothing was ordered, or the order is cancelled
            for g in range(LANES):
                state[at + OPENING + g] = 0.0
            continue
        for g in range(LANES):
            held, target = state[at + g], state[at + WEIGHT + g] * sums[EQUITY + g]
            desired = target / close
            stays = (held * state[at + WEIGHT + g] > 0.0) & (abs(target - held * close) <= band * sums[EQUITY + g])
            stays |= (desired == held) | (desired != desired)  # NaN: nothing was decided
            leaves = (held != 0.0) & (desired * held <= 0.0)
            shrinks = abs(desired) < abs(held)
            rest = 0.0 if leaves else desired if shrinks else held
            opening = desired if leaves else 0.0 if shrinks else desired - held
            rest = held if stays else rest
            sums[CASH + g] -= _paid(rest - held, price, commission, slippage)
            state[at + g] = rest
            state[at + OPENING + g] = 0.0 if stays else opening


@_compiled
def _paid(shares, price, commission, slippage):
    """What an order takes out of the cash."""
    paid = price * (1.0 + slippage) if shares > 0.0 else price * (1.0 - slippage)
    return shares * paid + commission * (abs(shares) * paid)


@_compiled
def _scale(open_S, mark_S, commission, slippage, leverage, state, sums):
    """The common factor of all openings of an account."""
    for g in range(LANES):
        sums[AT_OPEN + g] = sums[CASH + g]
        sums[GROSS + g] = sums[ADDED + g] = sums[COSTS + g] = 0.0
    buying, selling = slippage + commission * (1.0 + slippage), slippage + commission * (1.0 - slippage)
    for s in range(open_S.size):
        at, is_open = s * ROWS, open_S[s] == open_S[s]
        price = open_S[s] if is_open else mark_S[s]
        if price != price:
            continue
        opens_at = price if is_open else 0.0
        for g in range(LANES):
            held, opening = state[at + g], state[at + OPENING + g]
            sums[AT_OPEN + g] += held * price
            sums[GROSS + g] += abs(held) * price
            sums[ADDED + g] += abs(opening) * opens_at
            sums[COSTS + g] += abs(opening) * (buying if opening > 0.0 else selling) * opens_at
    for g in range(LANES):
        room = leverage * sums[AT_OPEN + g] - sums[GROSS + g]
        factor = room / (sums[ADDED + g] + leverage * sums[COSTS + g])
        sums[FACTOR + g] = 1.0 if factor >= 1.0 else factor if factor > SMALLEST_FACTOR else 0.0


@_compiled
def _enlarge(open_S, close_S, is_last_S, mark_S, commission, slippage, state, sums):
    """Fill what opens, move the marks, and sum up what is held after the close."""
    for g in range(LANES):
        sums[AT_CLOSE + g] = 0.0
    for s in range(open_S.size):
        at, price = s * ROWS, open_S[s]
        if close_S[s] == close_S[s]:
            mark_S[s] = close_S[s]
        if mark_S[s] != mark_S[s]:
            continue
        mark = 0.0 if is_last_S[s] else mark_S[s]  # what ends here is sold
        if price != price:
            for g in range(LANES):
                sums[AT_CLOSE + g] += state[at + g] * mark
            continue
        for g in range(LANES):
            opened = sums[FACTOR + g] * state[at + OPENING + g]
            sums[CASH + g] -= _paid(opened, price, commission, slippage)
            held = state[at + g] + opened
            state[at + g] = held
            sums[AT_CLOSE + g] += held * mark


@_compiled
def _end(is_last_S, mark_S, commission, slippage, borrow, state, sums):
    """Sell what has its last bar, and pay for what is borrowed."""
    for s in range(mark_S.size):
        at, mark = s * ROWS, mark_S[s]
        if is_last_S[s]:
            for g in range(LANES):
                sums[CASH + g] -= _paid(0.0 - state[at + g], mark, commission, slippage)
                state[at + g] = 0.0
        elif mark == mark:
            for g in range(LANES):
                sums[CASH + g] -= max(-state[at + g], 0.0) * mark * borrow


@_compiled
def _mark(state, sums):
    """The equity at the close; a bankrupt account holds nothing for good."""
    for g in range(LANES):
        equity = sums[AT_CLOSE + g] + sums[CASH + g]
        if equity <= 0.0:
            equity = sums[CASH + g] = 0.0
            state[g::LANES] = 0.0
        sums[EQUITY + g] = equity
