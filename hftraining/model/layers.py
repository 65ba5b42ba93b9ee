"""Layers that a CPU computes in one pass over the numbers, by the loops of model/kernels.py.

Each has a plain formula, which other devices, torch.compile and a CPU with many threads compute by torch's operators:
the same up to rounding. Legend: B sequences of bars, L bars, D width, H heads, E width of a head.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from hftraining.model import kernels

MOST_THREADS = 4  # the loops run on one; torch's operators share theirs and overtake them where there are more


def in_one_pass(x: Tensor) -> bool:
    """Whether a tensor's numbers go through model/kernels.py."""
    if torch.compiler.is_compiling() or x.device.type != "cpu" or x.dtype == torch.float64:
        return False
    return torch.get_num_threads() <= MOST_THREADS


class RmsNorm(nn.RMSNorm):
    """x / rms(x) * weight over the last axis (Zhang and Sennrich 2019), for fp32."""

    def forward(self, x: Tensor) -> Tensor:
        """The shape of x; a row of NaN stays one."""
        if not in_one_pass(x):
            return super().forward(x)
        eps = torch.finfo(x.dtype).eps if self.eps is None else self.eps
        return _RmsNorm.apply(x, self.weight, eps)


class Gelu(nn.Module):
    """x * Phi(x), Phi the normal distribution function (Hendrycks and Gimpel 2016), in fp32 or bf16."""

    def forward(self, x: Tensor) -> Tensor:
        """The shape and type of x."""
        if not in_one_pass(x):
            return F.gelu(x)
        if x.requires_grad or x.dtype != torch.float32:
            return _Gelu.apply(x)
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        kernels.gelu_alone(_numpy(x).reshape(-1), out.numpy().reshape(-1))
        return out


def split_heads(
    qkv_BLD: Tensor, n_heads: int, rotation_LE2: Tensor, before: int = 0, after: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys, rotated by the angle of their bar, and values, each BHLE; D holds the three after another.

    rotation_LE2: from rotary. A pair is a number of the first half of a head and one of the second. before, after: how
    many bars of zeros each has ahead of L and behind.
    """
    qkv_BL3HE = qkv_BLD.unflatten(-1, (3, n_heads, -1))
    cos_LE, sin_LE = rotation_LE2.unbind(dim=-1)
    if in_one_pass(qkv_BLD):
        return _SplitHeads.apply(qkv_BL3HE, cos_LE, sin_LE, before, after)
    query, key, value = qkv_BL3HE.permute(2, 0, 3, 1, 4)
    parts = rotate(query, cos_LE, sin_LE), rotate(key, cos_LE, sin_LE), value
    query, key, value = (F.pad(part, (0, 0, before, after)) if before or after else part for part in parts)
    return query, key, value


def rotary(length: int, width: int, device: torch.device) -> Tensor:
    """(L, E / 2, 2) cosines and sines of rotary positions (Su et al. 2021), computed in float64."""
    frequency = 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64, device=device) / width)
    angle = torch.arange(length, dtype=torch.float64, device=device)[:, None] * frequency
    return torch.stack([angle.cos(), angle.sin()], dim=-1).float()


def rotate(x_BHLE: Tensor, cos_LE: Tensor, sin_LE: Tensor) -> Tensor:
    """Turn each pair (first half, second half) of a head by the angle of its position."""
    first, second = x_BHLE.chunk(2, dim=-1)
    return torch.cat([first * cos_LE - second * sin_LE, first * sin_LE + second * cos_LE], dim=-1)


def numbers(tensor: Tensor) -> np.ndarray:
    """The numbers of a contiguous tensor in its own memory, those of bfloat16 as their bits in uint16."""
    assert tensor.is_contiguous()
    tensor = tensor.detach() if tensor.requires_grad else tensor
    return tensor.view(torch.uint16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


def _numpy(tensor: Tensor) -> np.ndarray:
    """For kernels that take no bfloat16, of which numpy raises TypeError: they would take its bits for numbers."""
    return tensor.detach().contiguous().numpy()


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        x = x.contiguous()
        out, inverse = torch.empty_like(x), x.new_empty(x.shape[:-1])
        width = x.shape[-1]
        kernels.rms_norm(
            _numpy(x).reshape(-1, width),
            _numpy(weight),
            np.float32(eps),
            out.numpy().reshape(-1, width),
            inverse.view(-1).numpy(),
        )
        ctx.save_for_backward(x, weight, inverse)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, inverse = ctx.saved_tensors
        rows = (-1, x.shape[-1])
        towards_x, towards_weight = torch.empty_like(x), torch.zeros_like(weight, dtype=torch.float64)
        kernels.rms_norm_backward(
            _numpy(gradient).reshape(rows),
            _numpy(x).reshape(rows),
            _numpy(weight),
            _numpy(inverse).reshape(-1),
            towards_x.numpy().reshape(rows),
            towards_weight.numpy(),
        )
        return towards_x, towards_weight.to(weight.dtype), None


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        out, slope = torch.empty_like(x), torch.empty_like(x)
        kernels.gelu(*(numbers(part).reshape(-1) for part in (x, out, slope)))
        ctx.save_for_backward(slope)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors
        return gradient * slope


class _SplitHeads(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv_BL3HE: Tensor, cos_LE: Tensor, sin_LE: Tensor, before: int, after: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        n_sequences, length, _, n_heads, width = qkv_BL3HE.shape
        parts = [qkv_BL3HE.new_empty(n_sequences, n_heads, before + length + after, width) for _ in range(3)]
        for part in parts if before or after else ():
            part[:, :, :before], part[:, :, before + length :] = 0, 0
        ctx.angles, ctx.own = (_numpy(cos_LE), _numpy(sin_LE)), slice(before, before + length)
        kernels.split_heads(_numpy(qkv_BL3HE), *ctx.angles, before, *(part.numpy() for part in parts))
        query_BHLE, key_BHLE, value_BHLE = parts
        return query_BHLE, key_BHLE, value_BHLE

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        gradients = tuple(gradient[:, :, ctx.own] for gradient in gradients)
        n_sequences, n_heads, length, width = gradients[0].shape
        towards = gradients[0].new_empty(n_sequences, length, 3, n_heads, width)
        kernels.join_heads(*map(_numpy, gradients), *ctx.angles, towards.numpy())
        return towards, None, None, None, None
