"""The recursions of trading/towards.py with a gradient, for many independent windows at once.

Legend: W windows (a book each), T sessions, S symbols.
"""

# mypy: allow-untyped-defs
# numba infers the types of compiled functions from the calls.

import math
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from hftraining.trading import towards
from hftraining.trading.config import TradingRules
from hftraining.trading.strategies import STALE_AFTER


def smoothed(signal_WTS: Tensor, half_life: float) -> Tensor:
    """`trading.towards.smoothed` of each window, NaN: missing. Its gradient is exact, and 0 for a missing signal."""
    smooth_WTS: Tensor = _Smoothed.apply(signal_WTS, half_life)
    return smooth_WTS


def traded_towards(target_WTS: Tensor, close_WTS: Tensor, trade_rate: float, every: int, rules: TradingRules) -> Tensor:
    """`trading.towards.traded_towards` of each window, with a gradient for the targets.

    The gradient is exact where the weights are smooth. The first trade from a book that holds nothing is its target
    and so has a gradient for that alone. Sums are in float64; the result has the type and device of the target.
    """
    if trade_rate == 1.0 and every == 1:
        return target_WTS
    weights_WTS: Tensor = _Traded.apply(target_WTS, close_WTS, trade_rate, every, rules)
    return weights_WTS


class _Smoothed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, signal: Tensor, half_life: float) -> Tensor:
        ctx.signal, ctx.gain = _in_columns(signal), towards.gain_of(half_life)
        ctx.is_remembered = half_life > 0.0
        return _in_windows(towards.smoothed(ctx.signal, half_life), signal)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        d_smooth = _in_columns(gradient)
        if not ctx.is_remembered:
            return _in_windows(np.where(np.isfinite(ctx.signal), d_smooth, 0.0), gradient), None
        return _in_windows(_smooth_backward(ctx.signal, ctx.gain, STALE_AFTER, d_smooth), gradient), None


class _Traded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, target: Tensor, close: Tensor, rate: float, every: int, rules: TradingRules) -> Tensor:
        targets, closes = _to_numpy(target), _to_numpy(close)
        windows = [towards.traded_towards(*window, rate, every, rules) for window in zip(targets, closes, strict=True)]
        ctx.weights = np.stack(windows) if windows else targets
        ctx.arrays, ctx.rest = (targets, closes), (rate, every, *towards.caps_of(rules))
        return torch.from_numpy(ctx.weights).to(target)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        d_target = np.zeros(ctx.weights.shape)
        for w, d_weights in enumerate(_to_numpy(gradient)):
            target, close = (array[w] for array in ctx.arrays)
            _trade_backward(target, close, ctx.weights[w], d_weights.copy(), *ctx.rest, STALE_AFTER, d_target[w])
        return torch.from_numpy(d_target).to(gradient), None, None, None, None


def _to_numpy(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().cpu().double().numpy())


def _in_columns(tensor_WTS: Tensor) -> np.ndarray:
    """Windows beside each other, (T, W * S): to the smoothing each symbol of each window is one of its own."""
    array_TWS = _to_numpy(tensor_WTS).transpose(1, 0, 2)
    return np.ascontiguousarray(array_TWS.reshape(tensor_WTS.shape[1], tensor_WTS.shape[0] * tensor_WTS.shape[2]))


def _in_windows(array: np.ndarray, like_WTS: Tensor) -> Tensor:
    n_windows, n_sessions, n_symbols = like_WTS.shape
    array_WTS = array.reshape(n_sessions, n_windows, n_symbols).transpose(1, 0, 2)
    return torch.from_numpy(np.ascontiguousarray(array_WTS)).to(like_WTS)


@njit(cache=True, nogil=True)
def _smooth_backward(signal_TS, gain, stale, d_smooth_TS):
    """The gradient for the signal: from end to start; d is what one more of the smoothed signal is worth."""
    n_sessions, n_symbols = signal_TS.shape
    d_signal_TS = np.zeros(signal_TS.shape)
    age_T = np.empty(n_sessions, np.int64)  # sessions since the last signal
    for s in range(n_symbols):
        age = stale + 1
        for t in range(n_sessions):
            age = 0 if math.isfinite(signal_TS[t, s]) else age + 1
            age_T[t] = age
        d = 0.0
        for t in range(n_sessions - 1, -1, -1):
            if age_T[t] > stale:
                d = 0.0
                continue
            d += d_smooth_TS[t, s]
            if age_T[t]:
                continue
            starts = t == 0 or age_T[t - 1] > stale
            d_signal_TS[t, s] = d if starts else gain * d
            d = 0.0 if starts else (1.0 - gain) * d
    return d_signal_TS


@njit(cache=True, nogil=True)
def _drifts(close_TS, stale):
    """By what each price moved, and which symbols are still held after a session."""
    ratio_TS, keeps_TS = np.ones(close_TS.shape), np.ones(close_TS.shape, np.bool_)
    for s in range(close_TS.shape[1]):
        price, age = math.nan, 0
        for t in range(close_TS.shape[0]):
            if math.isnan(close_TS[t, s]):
                age += 1
                keeps_TS[t, s] = age <= stale
                continue
            if age <= stale and not math.isnan(price):
                ratio_TS[t, s] = close_TS[t, s] / price
            price, age = close_TS[t, s], 0
    return ratio_TS, keeps_TS


@njit(cache=True, nogil=True)
def _through_caps(wanted_S, lowest, highest, max_gross, d_S):
    """Turn d_S, the gradient for the capped weights, into that for the wanted ones."""
    gross, weighted = 0.0, 0.0
    for s in range(wanted_S.size):
        clipped = min(max(wanted_S[s], lowest), highest)
        gross += abs(clipped)
        weighted += d_S[s] * clipped
    for s in range(wanted_S.size):
        if gross > max_gross:
            side = np.sign(min(max(wanted_S[s], lowest), highest))
            d_S[s] = max_gross / gross * (d_S[s] - side * weighted / gross)
        if not lowest <= wanted_S[s] <= highest:
            d_S[s] = 0.0


@njit(cache=True, nogil=True)
def _trade_backward(
    target_TS, close_TS, weights_TS, d_weights_TS, rate, every, lowest, highest, max_gross, stale, d_target_TS
):
    """Fill d_target_TS; d_weights_TS is added to on the way from end to start."""
    n_sessions, n_symbols = target_TS.shape
    ratio_TS, keeps_TS = _drifts(close_TS, stale)
    held_S, wanted_S = np.zeros(n_symbols), np.zeros(n_symbols)
    first = 0
    while first < n_sessions and not np.any(target_TS[first] != 0.0):
        first += 1
    for t in range(n_sessions - 1, first - 1, -1):
        growth, holds = 1.0, False
        for s in range(n_symbols if t else 0):
            growth += weights_TS[t - 1, s] * (ratio_TS[t, s] - 1.0)
        alive = t > 0 and towards.RUIN < growth < math.inf
        for s in range(n_symbols):
            held_S[s] = weights_TS[t - 1, s] * ratio_TS[t, s] / growth if alive and keeps_TS[t, s] else 0.0
            holds |= held_S[s] != 0.0
        share = 0.0 if (t - first) % every else rate if holds else 1.0
        for s in range(n_symbols):
            wanted_S[s] = target_TS[t, s] if share == 1.0 else held_S[s] + share * (target_TS[t, s] - held_S[s])
        _through_caps(wanted_S, lowest, highest, max_gross, d_weights_TS[t])
        weighted = 0.0
        for s in range(n_symbols):
            d_target_TS[t, s] = share * d_weights_TS[t, s]
            weighted += (1.0 - share) * d_weights_TS[t, s] * held_S[s]
        for s in range(n_symbols if alive else 0):
            d_held = (1.0 - share) * d_weights_TS[t, s] if keeps_TS[t, s] else 0.0
            d_weights_TS[t - 1, s] += (d_held * ratio_TS[t, s] - weighted * (ratio_TS[t, s] - 1.0)) / growth
