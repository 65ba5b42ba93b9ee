"""Fine-tuning: which weights of a base model are trained, and what pulls them back to the base."""

import math
from typing import TypeVar

import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F

from hftraining.model.network import Network


class LowRank(nn.Module):
    """A frozen linear layer plus a trainable change of low rank, up @ down, which starts at zero.

    Source: Hu et al. (2021), LoRA: Low-Rank Adaptation of Large Language Models; without their scale alpha / r, since
    the learning rate does the same.
    """

    def __init__(self, linear: nn.Linear, rank: int):
        super().__init__()
        rank = min(rank, linear.in_features, linear.out_features)
        self.linear = linear
        self.down = nn.Parameter(torch.empty(rank, linear.in_features, device=linear.weight.device))
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank, device=linear.weight.device))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5.0))

    def forward(self, x: Tensor) -> Tensor:
        """The output of the linear layer plus that of the change."""
        return self.linear(x) + F.linear(F.linear(x, self.down), self.up)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The plain layer that computes the same."""
        self.linear.weight += self.up @ self.down
        return self.linear


def adapt(model: Network, method: str, rank: int) -> int:
    """Freeze the weights that the method does not train; returns how many it trains.

    full and scratch train all weights, head the last layers, lora a change of at most `rank` on every linear layer,
    half of it drawn from torch's random state.
    """
    if method == "head":
        model.requires_grad_(False)
        for layer in model.heads():
            layer.requires_grad_(True)
    elif method == "lora":
        model.requires_grad_(False)
        for parent, name, linear in _children(model, nn.Linear):
            setattr(parent, name, LowRank(linear, rank))
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def merge(model: Network) -> None:
    """Merge the low-rank changes: a plain model with the same forecasts and no frozen weights."""
    for parent, name, layer in _children(model, LowRank):
        setattr(parent, name, layer.merged())
    model.requires_grad_(True)


def pull_back(optimizer: optim.Optimizer, shrinkage: float) -> None:
    """After each step, move the optimiser's weights back to their present values by shrinkage * learning rate.

    An L2 penalty on the distance from the base (Li, Grandvalet and Davoine 2018, L2-SP), decoupled from Adam's moments
    as AdamW decouples its decay. Call it before restoring weights from a checkpoint.
    """
    start = {p: p.detach().clone() for group in optimizer.param_groups for p in group["params"]}

    @torch.no_grad()
    def towards_start(optimizer: optim.Optimizer, *_: object) -> None:
        for group in optimizer.param_groups:  # read anew each time: restoring a checkpoint replaces them
            for p in group["params"]:
                p.lerp_(start[p], min(1.0, shrinkage * group["lr"]))

    if shrinkage:
        optimizer.register_step_post_hook(towards_start)


_Layer = TypeVar("_Layer", nn.Linear, LowRank)


def _children(model: nn.Module, kind: type[_Layer]) -> list[tuple[nn.Module, str, _Layer]]:
    return [
        (parent, name, layer)
        for parent in model.modules()
        if not isinstance(parent, LowRank)
        for name, layer in parent.named_children()
        if isinstance(layer, kind)
    ]
