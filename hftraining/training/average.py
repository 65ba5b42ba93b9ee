"""The exponential moving average of a network's weights, which probes and the saved model use; training goes on raw."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """After n steps: average = d * average + (1 - d) * weights, d = min(decay, (1 + n) / (10 + n)).

    It begins as the weights that it is made of; a small d in the first steps forgets them soon. Weights that do not
    move stay equal to the bit. Sources: Polyak and Juditsky (1992); the warm-up of the decay is that of TensorFlow's
    ExponentialMovingAverage.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model, self.decay = model, decay
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, n: int) -> None:
        """Take in the weights after step n, counted from 1 without skipped ones."""
        self.blend(1.0 - min(self.decay, (1 + n) / (10 + n)))

    @torch.no_grad()
    def blend(self, share: float | Tensor) -> None:
        """Move by this share of the way to the weights. A tensor: on their device."""
        for name, value in self.model.state_dict().items():
            self.weights[name].lerp_(value, share.to(value.dtype) if isinstance(share, Tensor) else share)

    def load(self, weights: dict[str, Tensor]) -> None:
        """Go on from an average that was saved: the same names and shapes."""
        for name, value in weights.items():
            self.weights[name].copy_(value)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model with the averaged weights, and with its own again afterwards, to the bit."""
        raw = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.weights)
        try:
            yield
        finally:
            self.model.load_state_dict(raw)
