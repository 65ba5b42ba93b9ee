"""The feed-forward step of a transformer's block, some rows at a time where a CPU computes it.

Legend: N rows (a bar of a symbol), D width, M width between.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hftraining.model import kernels
from hftraining.model.layers import Gelu, in_one_pass, numbers

NUMBERS_AT_ONCE = 2**18  # of the hidden layer: they stay in a core's own cache from one product to the next


class FeedForward(nn.Sequential):
    """Linear, GELU, linear; four times as wide between."""

    def __init__(self, width: int):
        super().__init__(nn.Linear(width, 4 * width), Gelu(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """The shape of x; under autocast in its type, as the layers one after another."""
        first, _, second = self
        if not in_one_pass(x) or type(first) is not nn.Linear or type(second) is not nn.Linear:  # low-rank changes
            return super().forward(x)
        kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        inputs = x.reshape(-1, x.shape[-1]).to(kind), first.weight.to(kind), first.bias.float(), second.weight.to(kind)
        if torch.is_grad_enabled():
            return _FeedForward.apply(*inputs, second.bias).view(x.shape)
        return _forward(*inputs, second.bias, None).view(x.shape)


def _parts(x_ND: Tensor, first_MD: Tensor) -> list[slice]:
    """Rows that are computed at once: all in bf16, which would round a sum over them once a part."""
    at_once = len(x_ND) if x_ND.dtype == torch.bfloat16 else NUMBERS_AT_ONCE // len(first_MD)
    at_once = max(1, min(at_once, len(x_ND)))
    return [slice(begin, min(begin + at_once, len(x_ND))) for begin in range(0, len(x_ND), at_once)]


def _scratch(x_ND: Tensor, first_MD: Tensor, parts: list[slice]) -> Tensor:
    return x_ND.new_empty(parts[0].stop if parts else 0, len(first_MD))


def _forward(
    x_ND: Tensor, first_MD: Tensor, first_M: Tensor, second_DM: Tensor, second_D: Tensor, kept_NM: Tensor | None
) -> Tensor:
    """kept_NM: where to keep what the first layer gives, without its bias."""
    out_ND, parts, second_D = torch.empty_like(x_ND), _parts(x_ND, first_MD), second_D.to(x_ND.dtype)
    active_NM = _scratch(x_ND, first_MD, parts)
    hidden_NM = _scratch(x_ND, first_MD, parts) if kept_NM is None else kept_NM
    for rows in parts:
        n_rows = rows.stop - rows.start
        hidden, active = hidden_NM[:n_rows] if kept_NM is None else hidden_NM[rows], active_NM[:n_rows]
        torch.mm(x_ND[rows], first_MD.t(), out=hidden)
        kernels.gelu_rows(numbers(hidden), numbers(first_M), numbers(active))
        torch.addmm(second_D, active, second_DM.t(), out=out_ND[rows])
    return out_ND


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, first_MD: Tensor, first_M: Tensor, second_DM: Tensor, second_D: Tensor
    ) -> Tensor:
        hidden_NM = x_ND.new_empty(len(x_ND), len(first_MD))
        out_ND = _forward(x_ND, first_MD, first_M, second_DM, second_D, hidden_NM)
        ctx.save_for_backward(x_ND, first_MD, first_M, second_DM, hidden_NM)
        return out_ND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, towards_ND: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What the first layer gave is kept, and the rest computed from it again."""
        x_ND, first_MD, first_M, second_DM, hidden_NM = ctx.saved_tensors
        towards_ND, towards_x_ND, parts = towards_ND.contiguous(), torch.empty_like(x_ND), _parts(x_ND, first_MD)
        towards_first_MD, towards_second_DM = torch.zeros_like(first_MD), torch.zeros_like(second_DM)
        towards_first_M = torch.zeros_like(first_M)
        active_NM, slope_NM = (_scratch(x_ND, first_MD, parts) for _ in range(2))
        for rows in parts:
            active, towards_hidden = (part[: rows.stop - rows.start] for part in (active_NM, slope_NM))
            torch.mm(towards_ND[rows], second_DM, out=towards_hidden)
            kernels.gelu_rows_backward(*map(numbers, (hidden_NM[rows], first_M, active, towards_hidden)))
            towards_second_DM.addmm_(towards_ND[rows].t(), active)
            towards_first_MD.addmm_(towards_hidden.t(), x_ND[rows])
            towards_first_M += towards_hidden.sum(dim=0)
            torch.mm(towards_hidden, first_MD, out=towards_x_ND[rows])
        return towards_x_ND, towards_first_MD, towards_first_M, towards_second_DM, towards_ND.sum(dim=0).float()
