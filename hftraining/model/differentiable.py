"""The fill engine as a differentiable function: weights in, equity out, for many independent accounts at once.

It follows trading/step.py in lag, order sizing, costs, borrow, gross cap, missing bars, delisting and bankruptcy, in
fractional shares, without stops, targets and band. Forward and backward are compiled loops, because torch would need
some thirty operations a session.

Legend: W windows (an account each), T sessions, S symbols.
"""

# mypy: allow-untyped-defs
# numba infers the types of compiled functions from the calls.

import math
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from hftraining.trading.checks import last_bars
from hftraining.trading.config import TradingRules
from hftraining.trading.simulator import SESSIONS_PER_YEAR


def account_equity(open_WTS: Tensor, close_WTS: Tensor, weights_WTS: Tensor, rules: TradingRules) -> Tensor:
    """Equity_WT at each close, in currency, with a gradient for weights_WTS.

    open, close_WTS: prices, both NaN where a symbol has no bar. weights_WTS: target weights after each close,
    finite, already within the caps of caps.cap_weights. The result has the type and device of the weights; sums are
    in float64. It ignores stop_loss, take_profit, rebalance_band and whole_shares of the rules.
    The gradient is exact where the account is smooth. Costs have a kink at zero weights and at weights that exactly
    keep or close a position; their gradient counts as 0 there, so it is always finite. After a bankruptcy equity and
    gradient are 0. There is no second derivative. Raises ValueError for other shapes or non-finite weights.
    """
    if not open_WTS.shape == close_WTS.shape == weights_WTS.shape or weights_WTS.ndim != 3:
        raise ValueError(
            f"weights: shape {tuple(weights_WTS.shape)}, but open has {tuple(open_WTS.shape)} "
            f"and close {tuple(close_WTS.shape)}; all must be (windows, sessions, symbols)"
        )
    equity_WT: Tensor = _AccountEquity.apply(weights_WTS, open_WTS, close_WTS, rules)
    return equity_WT


class _AccountEquity(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, opens: Tensor, closes: Tensor, rules: TradingRules) -> Tensor:
        arrays = [_to_numpy(tensor) for tensor in (opens, closes, weights)]
        if not np.isfinite(arrays[2]).all():
            w, t, s = np.argwhere(~np.isfinite(arrays[2]))[0]
            raise ValueError(f"weights: {arrays[2][w, t, s]} at window {w}, session {t}, symbol {s}")
        n_windows, n_sessions, n_symbols = closes.shape
        by_session = arrays[1].transpose(1, 0, 2).reshape(n_sessions, -1)
        arrays.append(last_bars(by_session).reshape(n_windows, n_symbols))
        borrow = float(rules.borrow_rate) / SESSIONS_PER_YEAR
        costs = (float(rules.commission), float(rules.slippage), borrow, float(max(1.0, rules.max_gross)), rules.lag)
        equity, shares, cash = _forward(*arrays, *costs, float(rules.initial_capital))
        ctx.arrays, ctx.costs = (*arrays, equity, shares, cash), costs
        return torch.from_numpy(equity).to(weights)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        towards_weights = _backward(*ctx.arrays, _to_numpy(gradient), *ctx.costs)
        return torch.from_numpy(towards_weights).to(gradient), None, None, None


def _to_numpy(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().cpu().double().numpy())


@njit(cache=True, nogil=True)
def _marks(close_TS):
    """Last closes, 0 before the first."""
    mark_TS = np.zeros_like(close_TS)
    for t in range(close_TS.shape[0]):
        for s in range(close_TS.shape[1]):
            if not math.isnan(close_TS[t, s]):
                mark_TS[t, s] = close_TS[t, s]
            elif t:
                mark_TS[t, s] = mark_TS[t - 1, s]
    return mark_TS


@njit(cache=True, nogil=True)
def _reduce(
    t, lag, open_S, close_TS, mark_S, weights_TS, equity_T, held_S, cash, costs, leverage, desired_S, reduced_S
):
    """Split the orders of session t into what they reduce, which is paid here, and what they open.

    Writes the desired shares, and those held after the reductions. Returns the prices at the open, the cash after the
    reductions, and the leverage that the openings want and the factor by which they are scaled to fit the gross cap.
    """
    side_cost, mean_cost = costs
    price_S = mark_S.copy()
    for s in range(held_S.size):
        desired_S[s] = held_S[s]
        if not math.isnan(open_S[s]):
            price_S[s] = open_S[s]
            if t >= lag and not math.isnan(close_TS[t - lag, s]):
                desired_S[s] = weights_TS[t - lag, s] * equity_T[t - lag] / close_TS[t - lag, s]
        reduced_S[s] = min(max(desired_S[s], min(held_S[s], 0.0)), max(held_S[s], 0.0))
    for s in range(held_S.size):
        cash -= _paid(price_S[s], reduced_S[s] - held_S[s], costs)
    equity, gross, added, spent = cash, 0.0, 0.0, 0.0
    for s in range(held_S.size):
        opening = desired_S[s] - reduced_S[s]
        equity += reduced_S[s] * price_S[s]
        gross += abs(reduced_S[s]) * price_S[s]
        added += abs(opening) * price_S[s]
        spent += (side_cost * opening + mean_cost * abs(opening)) * price_S[s]
    wanted = added + leverage * spent
    factor = max(0.0, min(1.0, (leverage * equity - gross) / wanted)) if added > 0.0 else 1.0
    return price_S, cash, wanted, factor


@njit(cache=True, nogil=True)
def _paid(price, traded, costs):
    """What an order costs in cash, negative for a sale."""
    side_cost, mean_cost = costs
    return price * (traded * (1.0 + side_cost) + mean_cost * abs(traded))


@njit(cache=True, nogil=True)
def _forward(open_WTS, close_WTS, weights_WTS, last_WS, commission, slippage, borrow, leverage, lag, initial):
    """Equity_WT and, for the backward pass, shares_WTS and cash_WT after each close."""
    n_windows, n_sessions, n_symbols = open_WTS.shape
    equity_WT = np.zeros((n_windows, n_sessions))
    shares_WTS = np.zeros(open_WTS.shape)
    cash_WT = np.zeros((n_windows, n_sessions))
    desired_S, reduced_S = np.empty(n_symbols), np.empty(n_symbols)
    # A buy costs side_cost more than the mean of both sides, a sale as much less.
    side_cost, mean_cost = costs = commission * slippage, commission + slippage
    for w in range(n_windows):
        mark_TS, last_S = _marks(close_WTS[w]), last_WS[w]
        cash, held_S = initial, np.zeros(n_symbols)
        for t in range(n_sessions):
            price_S, cash, _, factor = _reduce(
                t, lag, open_WTS[w, t], close_WTS[w], mark_TS[max(t - 1, 0)], weights_WTS[w], equity_WT[w],
                held_S, cash, costs, leverage, desired_S, reduced_S,
            )  # fmt: skip
            for s in range(n_symbols):
                traded = factor * (desired_S[s] - reduced_S[s])
                cash -= _paid(price_S[s], traded, costs)
                held_S[s] = reduced_S[s] + traded
                if last_S[s] == t:
                    cash += close_WTS[w, t, s] * (held_S[s] * (1.0 + side_cost) - mean_cost * abs(held_S[s]))
            for s in range(n_symbols):
                shares_WTS[w, t, s] = held_S[s]  # a symbol that ends here is closed only after this line
                if last_S[s] == t:
                    held_S[s] = 0.0
                cash -= borrow * max(-held_S[s], 0.0) * mark_TS[t, s]
            equity = cash
            for s in range(n_symbols):
                equity += held_S[s] * mark_TS[t, s]
            if equity <= 0.0:
                break
            equity_WT[w, t], cash_WT[w, t] = equity, cash
    return equity_WT, shares_WTS, cash_WT


@njit(cache=True, nogil=True)
def _through_close(t, d_equity, d_cash, close_S, mark_S, after_S, last_S, costs, borrow, d_held_S):
    """Backward through a close: adds to d_held_S what one more share held after the orders of t is worth."""
    side_cost, mean_cost = costs
    for s in range(after_S.size):
        if last_S[s] == t:
            side = np.sign(after_S[s])
            d_held_S[s] = d_cash * close_S[s] * (1.0 + side_cost - mean_cost * side)
        else:
            d_held_S[s] += d_equity * mark_S[s]
            if after_S[s] < 0.0:
                d_held_S[s] += d_cash * borrow * mark_S[s]


@njit(cache=True, nogil=True)
def _through_order(
    price, held, reduced, desired, d_held, d_cash, d_cash_before, factor, d_room, d_wanted, leverage, costs
):
    """Backward through one symbol's order: what one more share held before it, and one more desired, are worth."""
    side_cost, mean_cost = costs
    side = np.sign(desired - reduced)
    d_opening = d_held - d_cash * price * (1.0 + side_cost + mean_cost * side)
    d_opening *= factor
    d_opening += d_wanted * price * (side + leverage * (side_cost + mean_cost * side))
    d_reduced = d_held + d_room * price * (leverage - np.sign(reduced)) - d_opening
    d_traded = -d_cash_before * price * (1.0 + side_cost + mean_cost * np.sign(reduced - held))
    d_reduced += d_traded
    d_before, d_desired = -d_traded, d_opening
    if min(held, 0.0) < desired < max(held, 0.0):
        d_desired += d_reduced
    elif reduced != 0.0:  # the order enlarges the position
        d_before += d_reduced
    return d_before, d_desired


@njit(cache=True, nogil=True)
def _backward(
    open_WTS, close_WTS, weights_WTS, last_WS, equity_WT, shares_WTS, cash_WT, gradient_WT,
    commission, slippage, borrow, leverage, lag,
):  # fmt: skip
    """The gradient for the weights: `_forward` from end to start; d_x is what one more x is worth."""
    n_windows, n_sessions, n_symbols = open_WTS.shape
    d_weights_WTS = np.zeros(open_WTS.shape)
    desired_S, reduced_S = np.empty(n_symbols), np.empty(n_symbols)
    costs = commission * slippage, commission + slippage
    for w in range(n_windows):
        mark_TS, last_S = _marks(close_WTS[w]), last_WS[w]
        d_equity_T = gradient_WT[w].copy()
        d_held_S, d_cash = np.zeros(n_symbols), 0.0
        for t in range(n_sessions - 1, -1, -1):
            if equity_WT[w, t] <= 0.0:
                continue
            d_cash += d_equity_T[t]
            _through_close(
                t, d_equity_T[t], d_cash, close_WTS[w, t], mark_TS[t], shares_WTS[w, t], last_S, costs, borrow, d_held_S
            )
            held_S, cash = np.zeros(n_symbols), cash_WT[w, t - 1] if t else 0.0
            for s in range(n_symbols):
                if t and last_S[s] != t - 1:
                    held_S[s] = shares_WTS[w, t - 1, s]
            price_S, cash, wanted, factor = _reduce(
                t, lag, open_WTS[w, t], close_WTS[w], mark_TS[max(t - 1, 0)], weights_WTS[w], equity_WT[w],
                held_S, cash, costs, leverage, desired_S, reduced_S,
            )  # fmt: skip
            d_factor = 0.0
            for s in range(n_symbols if 0.0 < factor < 1.0 else 0):
                opening = desired_S[s] - reduced_S[s]
                d_factor += d_held_S[s] * opening - d_cash * _paid(price_S[s], opening, costs)
            d_room = d_factor / wanted if wanted else 0.0
            d_wanted = -d_factor * factor / wanted if wanted else 0.0
            d_cash_before = d_cash + d_room * leverage
            for s in range(n_symbols):
                d_held_S[s], d_desired = _through_order(
                    price_S[s], held_S[s], reduced_S[s], desired_S[s], d_held_S[s], d_cash, d_cash_before,
                    factor, d_room, d_wanted, leverage, costs,
                )  # fmt: skip
                if t >= lag and not math.isnan(open_WTS[w, t, s]) and not math.isnan(close_WTS[w, t - lag, s]):
                    decided = close_WTS[w, t - lag, s]
                    d_weights_WTS[w, t - lag, s] += d_desired * (equity_WT[w, t - lag] / decided)
                    d_equity_T[t - lag] += d_desired * weights_WTS[w, t - lag, s] / decided
                else:
                    d_held_S[s] += d_desired  # without an order, desired shares are held shares
            d_cash = d_cash_before
    return d_weights_WTS
