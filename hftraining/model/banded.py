"""Attention of a whole window over its own bars, a few sequences at a time, as a CPU computes it in training.

The same numbers as model.attention.attend up to rounding. Scores lie with the queries as inner axis, so that their
softmax goes through a vector unit, and a few sequences at once stay in a core's own cache.

Legend: B sequences of bars, L bars, H heads, E width of a head, Q queries: the bars and zeros behind them, J keys.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from hftraining.model import kernels
from hftraining.model.layers import numbers

QUERIES = 32  # their number is a multiple of it, so that no loop over them has a rest
SCORES_AT_ONCE = 2**18


def attend_in_band(qkv_BLD: Tensor, n_heads: int, rotation_LE2: Tensor, mask_BJQ: Tensor) -> Tensor:
    """(B, L, H * E): rotated softmax attention, scores scaled by 1 / sqrt(E) plus a mask from mask_of, in fp32.

    qkv_BLD: queries, keys and values after another, which may be bf16.
    """
    with torch.autocast("cpu", enabled=False):
        return _AttendInBand.apply(qkv_BLD, n_heads, rotation_LE2, mask_BJQ)


def mask_of(allowed_BQJ: Tensor) -> Tensor:
    """(B, J, Q) zeros where a query sees a key, else minus infinity. Queries behind the last see all keys."""
    missing = -allowed_BQJ.shape[1] % QUERIES
    seen_BJQ = F.pad(allowed_BQJ, (0, 0, 0, missing), value=True).transpose(1, 2)
    return torch.zeros(seen_BJQ.shape).masked_fill_(~seen_BJQ, float("-inf"))


class _AttendInBand(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv_BLD: Tensor, n_heads: int, rotation_LE2: Tensor, mask_BJQ: Tensor) -> Tensor:
        n_sequences, length, _ = qkv_BLD.shape
        qkv_BL3HE = qkv_BLD.contiguous().unflatten(-1, (3, n_heads, -1))
        width, n_queries = qkv_BL3HE.shape[-1], mask_BJQ.shape[-1]
        cos_LE, sin_LE = (part.contiguous().numpy() for part in rotation_LE2.unbind(dim=-1))
        query, key, value = (torch.empty(n_sequences, n_heads, n_queries, width) for _ in range(3))
        for part in (query, key, value):
            part[:, :, length:] = 0
        share_BHJQ = torch.empty(n_sequences, n_heads, length, n_queries)
        out_BLHE = torch.empty(n_sequences, length, n_heads, width)
        for some in _parts(share_BHJQ):
            heads = tuple(part[some] for part in (query, key, value))
            kernels.split_heads(numbers(qkv_BL3HE[some]), cos_LE, sin_LE, 0, *map(numbers, heads))
            q, k, v = (part.flatten(0, 1) for part in heads)
            share = share_BHJQ[some]
            torch.bmm(k[:, :length], q.transpose(1, 2), out=share.flatten(0, 1))
            kernels.softmax_columns(numbers(share), mask_BJQ[some].numpy(), np.float32(width**-0.5))
            mixed = torch.bmm(share.flatten(0, 1).transpose(1, 2), v[:, :length])
            out_BLHE[some] = mixed.unflatten(0, (-1, n_heads))[:, :, :length].transpose(1, 2)
        ctx.save_for_backward(query, key, value, share_BHJQ)
        ctx.angles, ctx.kind = (cos_LE, sin_LE), qkv_BLD.dtype
        return out_BLHE.flatten(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, towards_BLD: Tensor) -> tuple[Tensor, None, None, None]:
        query, key, value, share_BHJQ = ctx.saved_tensors
        n_sequences, n_heads, length, n_queries = share_BHJQ.shape
        width = query.shape[-1]
        towards_BHLE, padded = towards_BLD.unflatten(-1, (n_heads, width)).transpose(1, 2), None
        towards_qkv_BL3HE = torch.empty(n_sequences, length, 3, n_heads, width, dtype=ctx.kind)
        for some in _parts(share_BHJQ):
            q, k, v, share = (part[some].flatten(0, 1) for part in (query, key, value, share_BHJQ))
            k, v = k[:, :length], v[:, :length]
            if padded is None or len(padded) != len(q):  # the last ones may be fewer
                padded = torch.zeros(len(q), n_queries, width)
            padded.view(-1, n_heads, n_queries, width)[:, :, :length] = towards_BHLE[some]
            score = torch.bmm(v, padded.transpose(1, 2))  # first the gradient of the shares
            towards_v = torch.bmm(share, padded)
            scores = share_BHJQ[some], score.view_as(share_BHJQ[some])
            kernels.softmax_columns_backward(*map(numbers, scores), np.float32(width**-0.5))
            towards = torch.bmm(score.transpose(1, 2), k), torch.bmm(score, q), towards_v
            heads = (numbers(part.unflatten(0, (-1, n_heads))) for part in towards)
            kernels.join_heads(*heads, *ctx.angles, numbers(towards_qkv_BL3HE[some]))
        return towards_qkv_BL3HE.flatten(2), None, None, None


def _parts(share_BHJQ: Tensor) -> list[slice]:
    n_sequences = len(share_BHJQ)
    at_once = max(1, SCORES_AT_ONCE // max(1, share_BHJQ[0].numel())) if n_sequences else 1
    return [slice(begin, begin + at_once) for begin in range(0, n_sequences, at_once)]
