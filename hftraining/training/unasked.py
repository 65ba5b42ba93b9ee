"""Steps on a device that nobody asks whether a gradient is finite: what a bad one would change is put back there.

To look at one number, a CPU waits until its device has done all that it was given. So the step is taken in any case,
and the device itself keeps the old values where it should not have been, and counts such steps.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, optim

from hftraining.training.average import WeightAverage


class UnaskedSteps:
    """Steps of some optimisers, and of the average of their weights.

    skipped, in_a_row: how many steps have been left out so far, and of the last ones without one between; scalars on
    the device.
    """

    def __init__(
        self, optimizers: tuple[optim.Optimizer, ...], average: WeightAverage | None, skipped: int, in_a_row: int
    ):
        self.optimizers, self.average = optimizers, average
        device = next(self._weights()).device
        self.skipped, self.in_a_row = (torch.tensor(n, device=device) for n in (skipped, in_a_row))

    @torch.no_grad()
    def take(self, step: int, finite: Tensor) -> None:
        """Take a step where finite, a scalar on the device, is true; elsewhere weights, moments and average stay."""
        if not all(optimizer.state for optimizer in self.optimizers) and not finite:  # before moments: ask, this once
            self._count(finite)
            return
        before = [(tensor, tensor.clone()) for tensor in (*self._weights(), *self._moments())]
        for optimizer in self.optimizers:
            optimizer.step()
        for tensor, old in before:
            tensor.copy_(torch.where(finite, tensor, old))
        self._count(finite)
        if self.average:
            n = (step - self.skipped).double()
            kept = torch.clamp((1 + n) / (10 + n), max=self.average.decay)
            self.average.blend((1.0 - kept) * finite)

    def _count(self, finite: Tensor) -> None:
        self.skipped = self.skipped + ~finite
        self.in_a_row = torch.where(finite, 0, self.in_a_row + 1)

    def _weights(self) -> Iterator[Tensor]:
        return (p for optimizer in self.optimizers for group in optimizer.param_groups for p in group["params"])

    def _moments(self) -> Iterator[Tensor]:
        states = (optimizer.state[p] for optimizer in self.optimizers for p in optimizer.state)
        return (value for state in states for value in state.values() if isinstance(value, Tensor))
