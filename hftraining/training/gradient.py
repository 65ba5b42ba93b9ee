"""The gradient of a whole batch, where its windows are computed in parts one after another, or in several processes.

A Sharpe ratio or a correlation over a batch is no sum over its windows: parts that are differentiated one by one would
add up to another gradient. So the outputs of all windows come first, the objective is differentiated with respect to
them, and that gradient goes back through one part after another. A mean over labels needs one pass alone.

Legend: W windows of the batch, whatever their part or process.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from hftraining.model.objective import Loss, Objective

Outputs = tuple[Tensor, Tensor]  # of some windows: quantiles_WKLHQ, head_WKL
Forward = Callable[[range], Outputs]  # the outputs of windows of the batch, by their numbers


class Crew(Protocol):
    """The processes that share a batch. Each has the consecutive windows of its rank, see `shares`.

    Every one of them must call the same methods in the same order.
    """

    rank: int
    size: int

    @property
    def is_lead(self) -> bool:
        """Whether this process writes and speaks for all."""

    def gather(self, part: Tensor, sizes: Sequence[int]) -> Tensor:
        """The parts of all ranks along the first axis, in their order, without a gradient. sizes: of the parts."""

    def sum_gradients(self, model: nn.Module) -> None:
        """Replace each weight's gradient by its sum over the ranks: the same bits in all of them."""


def shares(windows: range, parts: int) -> list[range]:
    """Consecutive windows divided into so many parts, of sizes that differ by one at most."""
    n, first = len(windows), windows.start
    ends = [first + n * part // parts for part in range(parts + 1)]
    return [range(start, end) for start, end in itertools.pairwise(ends)]


def whole_gradient(
    model: nn.Module,
    forward: Forward,
    objective: Objective,
    targets: Sequence[Tensor],
    parts: int = 1,
    crew: Crew | None = None,
) -> Loss:
    """Add the gradient of the objective on all windows to that of the model's weights; returns the loss of them all.

    It is that of one pass over the whole batch up to rounding, and to the bit where parts is 1 in one process.
    forward: called once for each part, or twice, and must give the same numbers both times. targets: what the objective
    takes beside the outputs, of all W windows. parts: how many the windows of this process are computed in. A loss that
    is not finite leaves a gradient that is not.
    """
    everyone = range(len(targets[0]))
    if crew is None and parts == 1:
        loss = objective(*forward(everyone), *targets)
        loss.total.backward()
        return loss.detached()
    by_rank = shares(everyone, crew.size if crew else 1)
    own = shares(by_rank[crew.rank if crew else 0], parts)
    sizes = [len(windows) for windows in by_rank]

    def joined(outputs: list[Outputs]) -> Outputs:
        quantiles, head = (torch.cat([part.detach() for part in both]) for both in zip(*outputs, strict=True))
        return (crew.gather(quantiles, sizes), crew.gather(head, sizes)) if crew else (quantiles, head)

    if parts > 1 and objective.is_mean:
        known = torch.isfinite(targets[0])
        outputs = []
        for windows in own:
            outputs.append(forward(windows))
            rows = slice(windows.start, windows.stop)
            share = known[rows].sum() / known.sum().clamp(min=1)  # of the labels, which the loss is a mean over
            (objective(*outputs[-1], *(target[rows] for target in targets)).total * share).backward()
        with torch.no_grad():
            loss = objective(*joined(outputs), *targets)
    else:
        with torch.set_grad_enabled(parts == 1):  # one part alone can keep what its backward pass needs
            outputs = [forward(windows) for windows in own]
        whole = [output.requires_grad_() for output in joined(outputs)]
        loss = objective(*whole, *targets)
        loss.total.backward()
        for windows, known_outputs in zip(own, outputs, strict=True):
            _backward(known_outputs if parts == 1 else forward(windows), whole, windows)
    if crew:
        crew.sum_gradients(model)
    return loss.detached()


def _backward(outputs: Outputs, whole: Sequence[Tensor], windows: range) -> None:
    """Send the objective's gradient with respect to the outputs of these windows back to the weights."""
    gradients = [w.grad[windows.start : windows.stop] if w.grad is not None else None for w in whole]
    pairs = [(o, g) for o, g in zip(outputs, gradients, strict=True) if g is not None and o.requires_grad]
    torch.autograd.backward([output for output, _ in pairs], [gradient for _, gradient in pairs])
