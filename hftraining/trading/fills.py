"""The fills of one session of an account, one by one, and what it paid to borrow: what a broker would report.

Legend: S symbols.
"""

from dataclasses import dataclass

import numpy as np

from hftraining.trading.dtypes import REASONS
from hftraining.trading.simulator import STAGES, Account

ENTRY = "signal"


@dataclass(frozen=True)
class Filled:
    """Shares that changed hands, signed. symbol: its index. price: paid, slippage within. commission: currency.

    value: signed, shares * price. reason: one of dtypes.REASONS; signal: by an order.
    """

    symbol: int
    shares: float
    price: float
    value: float
    commission: float
    reason: str


@dataclass(frozen=True)
class Settled:
    """What a session did to an account. borrow_S: paid by symbol. written_off: of a bankrupt account's debt.

    cash before - sum of value and commission - borrow + written_off = cash after, to the rounding of the sums.
    """

    fills: tuple[Filled, ...]
    borrow_S: np.ndarray
    written_off: float


def settle_by_fills(
    account: Account, open_S: np.ndarray, high_S: np.ndarray, low_S: np.ndarray, close_S: np.ndarray
) -> Settled:
    """Account.settle to the bit, and what was filled in it. No symbol is known to have its last bar."""
    fills, borrow_S = list[Filled](), np.zeros(account.book_S.size)
    before, closed = account.book_S.copy(), len(account.closed_trades)
    cash = account.cash

    def watch(stage: str) -> None:
        nonlocal before, closed
        after = account.book_S
        ended = account.closed_trades[closed:]
        reasons = {int(trade["symbol"]): REASONS[trade["reason"]] for trade in ended}
        for s in np.flatnonzero(before["shares"] != after["shares"]):
            fills.append(_filled(int(s), before[s], after[s], stage, reasons.get(int(s), ENTRY)))
        if stage == STAGES[2]:
            fees_S = after["fees"] - before["fees"]
            exits = [s for s, reason in reasons.items() if reason != "bankrupt"]
            borrow_S[:] = np.where(before["shares"] < 0.0, fees_S, 0.0)
            borrow_S[exits] = 0.0  # who has left pays the commission alone
        before, closed = after.copy(), len(account.closed_trades)

    account.settle(open_S, high_S, low_S, close_S, watch=watch)
    paid = sum(fill.value + fill.commission for fill in fills) + float(borrow_S.sum())
    is_bankrupt = any(fill.reason == "bankrupt" for fill in fills) or (account.account_1[0]["bankrupt"] and cash)
    return Settled(tuple(fills), borrow_S, paid - cash if is_bankrupt else 0.0)


def _filled(s: int, before: np.void, after: np.void, stage: str, reason: str) -> Filled:
    """The one fill of a symbol in one stage, from what its position was before and after."""
    shares = float(after["shares"] - before["shares"])
    if stage == STAGES[1]:
        is_new = before["shares"] == 0.0
        value = float(after["entry_value"] - (0.0 if is_new else before["entry_value"]))
        commission = float(after["fees"] - (0.0 if is_new else before["fees"]))
    else:
        value = float(after["exit_value"] - before["exit_value"])
        commission = 0.0 if reason == "bankrupt" else float(after["fees"] - before["fees"])
    signed = value if shares > 0.0 else -value
    return Filled(s, shares, value / abs(shares), signed, commission, reason)
