"""Dropout whose masks are a function of (seed, step, window, site), however a batch is divided and wherever it runs.

The numbers are those of a counter: SplitMix64 (Steele, Lea and Flood 2014) in 64-bit integers, keyed anew for each
(seed, step, window, site), four lanes of 16 bits a number. So nothing depends on torch's random state, on the device,
or on which other windows are computed beside a window: one process, parts of a batch one after another, and several
processes draw the same masks, and a resumed run has nothing to restore.

Legend: W windows that are computed together, N numbers of one window at one site, R random 64-bit words for them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hftraining.model import kernels
from hftraining.model.layers import in_one_pass, numbers

LANES = 4  # of 16 bits in a random word
STEPS_OF_P = 2**16  # a share of dropped values is rounded to a multiple of 1 / STEPS_OF_P
_WORD = 2**64
_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


class Dropout(nn.Module):
    """A site: in training, drops values independently with probability p and scales the others by 1 / (1 - p).

    Every kind of Network uses it in place of nn.Dropout, one module a place: within one forward a module is called
    once. The first axis of its input is that of the windows, or windows before anything flattened into it (W * K * L).
    p is rounded to 1 / 65,536, and the scale follows what it is rounded to, so the expectation is kept.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p
        self.dropped = min(round(p * STEPS_OF_P), STEPS_OF_P - 1)  # lanes of STEPS_OF_P that drop a value
        self.key_W: Tensor | None = None  # of this site within `noise`

    def forward(self, x: Tensor) -> Tensor:
        """x itself outside training or without dropout; in training only within `noise`, else RuntimeError."""
        if (lanes := self._lanes(x)) is None:
            return x
        return _Kept.apply(x.float(), lanes, *self._rule) if in_one_pass(x) else x * self._keep(lanes)

    def added_to(self, sum_: Tensor, x: Tensor) -> Tensor:
        """sum_ + forward(x), both of one shape."""
        if (lanes := self._lanes(x)) is None:
            return sum_ + x
        return _AddKept.apply(sum_.float(), x, lanes, *self._rule) if in_one_pass(x) else sum_ + x * self._keep(lanes)

    @property
    def _rule(self) -> tuple[int, float]:
        """The least lane that keeps its value, and what that is multiplied with: 1 / (1 - p)."""
        return self.dropped - STEPS_OF_P // 2, STEPS_OF_P / (STEPS_OF_P - self.dropped)

    def _keep(self, lanes: Tensor) -> Tensor:
        """What is multiplied, float32: 0 or 1 / (1 - p)."""
        least, scale = self._rule
        return (lanes >= least).to(torch.float32).mul_(scale)

    def _lanes(self, x: Tensor) -> Tensor | None:
        """A random int16 for each number of x, in its shape. None where nothing is dropped."""
        if not (self.training and self.dropped):
            return None
        if self.key_W is None:
            raise RuntimeError("a model in training with dropout > 0 needs its masks: call it within model.noise.noise")
        if x.shape[0] % len(self.key_W):
            raise ValueError(f"{len(self.key_W)} windows have noise, where the model sees {x.shape[0]} in {x.shape}")
        n = x.numel() // len(self.key_W)
        return random_words(self.key_W, -(-n // LANES)).view(torch.int16)[:, :n].reshape(x.shape)

    def extra_repr(self) -> str:
        """For print(model)."""
        return f"p={self.p}"


class _Kept(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, lanes: Tensor, least: int, scale: float) -> Tensor:
        ctx.save_for_backward(lanes)
        ctx.rule = least, scale, x.dtype
        return _kept(x, lanes, *ctx.rule)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, towards: Tensor) -> tuple[Tensor, None, None, None]:
        return _kept(towards, *ctx.saved_tensors, *ctx.rule), None, None, None


class _AddKept(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sum_: Tensor, x: Tensor, lanes: Tensor, least: int, scale: float) -> Tensor:
        ctx.save_for_backward(lanes)
        ctx.rule = least, scale, x.dtype
        assert sum_.shape == x.shape  # which the loop does not see
        out = torch.empty(x.shape)
        kernels.add_kept(*map(_flat, (sum_, x, lanes)), least, np.float32(scale), _flat(out))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, towards: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        return towards, _kept(towards, *ctx.saved_tensors, *ctx.rule), None, None, None


def _kept(x: Tensor, lanes: Tensor, least: int, scale: float, kind: torch.dtype) -> Tensor:
    out = torch.empty(x.shape, dtype=kind)
    kernels.kept(_flat(x), _flat(lanes), least, np.float32(scale), _flat(out))
    return out


def _flat(x: Tensor) -> np.ndarray:
    return numbers(x.contiguous()).reshape(-1)


@contextmanager
def noise(model: nn.Module, seed: int, step: int, windows: Sequence[int]) -> Iterator[None]:
    """Within it, a model in training draws the masks of these windows of a step, a forward pass at a time.

    windows: the numbers, in the whole batch of the step, of the windows that the model is given, in their order.
    Entered again with the same numbers, it gives the same masks: a second pass over the windows repeats the first.
    """
    sites = [module for module in model.modules() if isinstance(module, Dropout)]
    device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
    of_window_W = [_hash(seed, step, window) for window in windows]
    for number, site in enumerate(sites):
        keys = np.array([_hash(key, number) for key in of_window_W], np.uint64).view(np.int64)
        site.key_W = torch.from_numpy(keys).to(device)
    try:
        yield
    finally:
        for site in sites:
            site.key_W = None


def random_words(key_W: Tensor, n_words: int) -> Tensor:
    """(W, R) random int64: the first words of the SplitMix64 streams that begin at the keys."""
    if in_one_pass(key_W):
        words = torch.empty(len(key_W), n_words, dtype=torch.int64)
        kernels.random_words(key_W.numpy().view(np.uint64), words.numpy().view(np.uint64))
        return words
    count_R = torch.arange(1, n_words + 1, device=key_W.device)
    state = count_R * _signed(_GOLDEN) + key_W[:, None]
    state = (state ^ _shifted(state, 30)) * _signed(_FIRST)
    state = (state ^ _shifted(state, 27)) * _signed(_SECOND)
    return state ^ _shifted(state, 31)


def _shifted(state: Tensor, bits: int) -> Tensor:
    """To the right, with zeros from the left: int64 has a sign, which >> would repeat."""
    return (state >> bits) & (2 ** (64 - bits) - 1)


def _hash(*numbers: int) -> int:
    """One 64-bit number of several integers, of any size, in their order."""
    state = 0
    for number in numbers:
        state = _mixed((state + number + _GOLDEN) % _WORD)
    return state


def _mixed(state: int) -> int:
    state = (state ^ state >> 30) * _FIRST % _WORD
    state = (state ^ state >> 27) * _SECOND % _WORD
    return state ^ state >> 31


def _signed(word: int) -> int:
    return word - _WORD if word >= _WORD // 2 else word
