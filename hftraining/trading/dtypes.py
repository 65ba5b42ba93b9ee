"""The state of the fill engine, as numpy structures that compiled code and Python share."""

import numpy as np

# Exit reasons, the order of the names in REASONS.
OPEN, SIGNAL, STOP_LOSS, TAKE_PROFIT, DELISTED, BANKRUPT = range(6)
REASONS = ("open", "signal", "stop_loss", "take_profit", "delisted", "bankrupt")

# One symbol of one account. The first eight fields are read at every bar and fill one line of the CPU's cache.
POSITION = np.dtype(
    [
        ("shares", "f8"),  # signed
        ("lower", "f8"),  # price at or below which the position is left: stop of a long, target of a short
        ("upper", "f8"),  # price at or above which the position is left
        ("mark", "f8"),  # last close
        ("order", "f8"),  # shares wanted at the next open, NaN: no order
        ("later", "f8"),  # shares wanted at the open after that (lag 2), NaN: no order
        ("opening", "f8"),  # shares that open or enlarge at this open, before the common factor
        ("average", "f8"),  # average fill price
        ("opened", "f8"),  # shares bought (long) or sold (short) since flat
        ("entry_value", "f8"),  # what they were filled for
        ("exit_value", "f8"),  # what the reductions were filled for
        ("fees", "f8"),  # commission and borrow since flat
        ("slipped", "f8"),  # slippage since flat
        ("entry_t", "i8"),  # session of the first fill
    ]
)
ACCOUNT = np.dtype(
    [
        ("cash", "f8"),
        ("equity", "f8"),  # at the last close
        ("gross", "f8"),  # sum of |shares| * close / equity, at the last close
        ("traded", "f8"),  # value of all fills so far
        ("costs", "f8"),  # commission, slippage and borrow so far
        ("closed", "i8"),  # trades closed so far
        ("bankrupt", "i8"),
    ]
)
RULES = np.dtype(
    [
        ("commission", "f8"),
        ("slippage", "f8"),
        ("borrow", "f8"),  # a session
        ("leverage", "f8"),  # max(1, max_gross)
        ("stop_loss", "f8"),
        ("take_profit", "f8"),
        ("band", "f8"),
        ("whole_shares", "i8"),
        ("hold", "i8"),  # buy and hold: see simulator.hold
        ("in_shares", "i8"),  # decisions are shares, not weights
        ("lag", "i8"),
    ]
)
TRADE = np.dtype(
    [
        ("symbol", "i8"),  # index of the symbol
        ("side", "i8"),  # 1 long, -1 short
        ("shares", "f8"),  # all shares opened between flat and flat, unsigned
        ("entry_t", "i8"),
        ("entry_price", "f8"),  # average of all openings
        ("exit_t", "i8"),  # -1: open
        ("exit_price", "f8"),  # average of all reductions; for an open trade the rest counts at its last close
        ("costs", "f8"),  # commission, slippage and borrow
        ("pnl", "f8"),  # side * shares * (exit_price - entry_price) - commission - borrow
        ("reason", "i8"),  # index into REASONS
    ]
)
