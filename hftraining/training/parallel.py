"""Several processes that train one model together: each computes its own windows of a batch, all take the same step.

One process is the lead, of rank 0. It alone probes, logs and saves, and says before every step that there is one. What
travels between the processes is numbers and JSON, never code: see `send`.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from hftraining.core.errors import Ending, Fault, Interrupted, in_a_line

LEAD = 0
TIMEOUT = timedelta(hours=1)  # helpers wait while the lead probes
_LEAVE, _COMPARE = 0, -1  # said in place of the number of a step
_PLACE = re.compile(r"\[/\S+\] ?")  # in gloo's sources
_HEADER_MOST = 64 * 2**20  # bytes of JSON
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool)
}


class CrewBroken(Exception):
    """The processes can no longer work together. end: how the run ends."""

    def __init__(self, end: Ending):
        super().__init__(str(end))
        self.end = end


class ProcessCrew:
    """The processes of torch.distributed's default group; see `gradient.Crew`.

    Every one of them must call the same methods in the same order. why: says in words, on the lead, how a process has
    ended; None where it has not.
    """

    def __init__(self, why: Callable[[], Ending | None] = lambda: None):
        self.rank, self.size, self._why = dist.get_rank(), dist.get_world_size(), why
        self.is_idle = True  # the others wait for the next word of the lead

    @property
    def is_lead(self) -> bool:
        """Whether this process probes, writes and speaks for all."""
        return self.rank == LEAD

    def gather(self, part: Tensor, sizes: Sequence[int]) -> Tensor:
        """The parts of all ranks along the first axis, in their order, without a gradient. sizes: of the parts."""
        padded = part.new_zeros(max(sizes), *part.shape[1:])
        padded[: len(part)] = part.detach()
        parts = [torch.empty_like(padded) for _ in sizes]
        self._call(dist.all_gather, parts, padded)
        return torch.cat([found[:size] for found, size in zip(parts, sizes, strict=True)])

    def sum_gradients(self, model: nn.Module) -> None:
        """Replace each weight's gradient by its sum over the ranks: the same bits in all of them."""
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        if gradients:
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            self._call(dist.all_reduce, flat)
            for gradient, piece in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(piece.view_as(gradient))

    @contextmanager
    def step(self, step: int) -> Iterator[None]:
        """The lead's step: the others take it, too."""
        with self._busy():
            self._say(step)
            yield

    def compare(self, model: nn.Module) -> None:
        """On the lead: make sure that all processes hold the same weights, to the bit. Raises CrewBroken."""
        with self._busy():
            self._say(_COMPARE)
            self._compare(model)

    def leave(self) -> None:
        """On the lead: this training is over."""
        self._say(_LEAVE)

    def steps(self, model: nn.Module) -> Iterator[int]:
        """On the others: the steps that the lead takes, as it takes them."""
        while word := self._hear():
            if word == _COMPARE:
                self._compare(model)
            else:
                yield word

    def send(self, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """On the lead: what the others `receive`. header: JSON; tensors: of any shape, contiguous or not."""
        shapes = {name: [_name_of(tensor), list(tensor.shape)] for name, tensor in tensors.items()}
        said = json.dumps({"header": header, "tensors": shapes}).encode()
        text = torch.frombuffer(bytearray(said), dtype=torch.uint8)
        with self._busy():
            self._say(len(text))
            self._call(dist.broadcast, text, LEAD)
            for tensor in tensors.values():
                if tensor.numel():
                    self._call(dist.broadcast, _bytes_of(tensor.detach().cpu().contiguous()), LEAD)

    def receive(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """On the others: the header and the tensors that the lead sends next."""
        length = self._hear()
        if not 0 < length <= _HEADER_MOST:
            raise CrewBroken(Fault(f"the lead announced {length} bytes, which nobody sends"))
        text = torch.empty(length, dtype=torch.uint8)
        self._call(dist.broadcast, text, LEAD)
        said = json.loads(bytes(text.numpy()))
        tensors = {name: torch.empty(shape, dtype=_DTYPES[kind]) for name, (kind, shape) in said["tensors"].items()}
        for tensor in tensors.values():
            if tensor.numel():
                self._call(dist.broadcast, _bytes_of(tensor), LEAD)
        return said["header"], tensors

    @contextmanager
    def _busy(self) -> Iterator[None]:
        """What is left by an exception leaves the others in the middle of something."""
        self.is_idle = False
        yield
        self.is_idle = True

    def _say(self, word: int) -> None:
        self._call(dist.broadcast, torch.tensor([word]), LEAD)

    def _hear(self) -> int:
        word = torch.zeros(1, dtype=torch.int64)
        self._call(dist.broadcast, word, LEAD)
        return int(word)

    def _compare(self, model: nn.Module) -> None:
        digest = hashlib.sha256()
        for weight in model.state_dict().values():
            digest.update(_bytes_of(weight.detach().cpu().contiguous()).numpy().data)
        own = torch.from_numpy(np.frombuffer(digest.digest()[:8], np.int64).copy())
        found = self.gather(own, [1] * self.size).tolist()
        if apart := [rank for rank, known in enumerate(found) if known != found[LEAD]]:
            raise CrewBroken(
                Fault(f"process {apart[0]} of {self.size} holds other weights than the lead: they should be equal")
            )

    def _call(self, collective: Callable[..., Any], *arguments: Any) -> None:
        """A collective operation. Raises CrewBroken where another process has gone."""
        try:
            collective(*arguments)
        except RuntimeError as error:
            self.is_idle = False
            said = in_a_line(_PLACE.sub("", str(error)).partition(". ")[0], 200)
            lost = Interrupted(f"one of the {self.size} processes was lost ({said})")
            raise CrewBroken(self._why() or lost) from error


def _name_of(tensor: Tensor) -> str:
    name = str(tensor.dtype).removeprefix("torch.")
    assert name in _DTYPES, f"{name} cannot be sent"
    return name


def _bytes_of(tensor: Tensor) -> Tensor:
    """The same memory as bytes."""
    return tensor.reshape(-1).view(torch.uint8)
