"""Checkpoints: model, optimiser, random state and step, written atomically and verified when read.

A checkpoint is a folder `step_00000250` with model.safetensors, optimizer.safetensors (random state included), with
training.ema average.safetensors, and state.json, which holds the sha256 of each. A model that brings its own learning
has what it saves there instead. The folder is written under a temporary name, synced and renamed, so a kill at any
moment leaves only whole checkpoints. The newest two are kept, and the best by the validation metric.
"""

import json
import logging
import math
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn, optim

from hftraining.core.errors import UserError
from hftraining.core.files import sha256, sync
from hftraining.core.tensor_file import TENSORS_MOST, Shapes, difference, shapes_of
from hftraining.core.untrusted import digest, read_json_object, shown
from hftraining.model.network import read_weights
from hftraining.runs.manifest import Sha256, damaged
from hftraining.training.average import WeightAverage

STATE_FILE = "state.json"
STEP_FOLDER = re.compile(r"step_\d{8}")
# What each optimiser keeps of a weight. `step` counts; the others have the shape of the weight.
MOMENTS = {optim.AdamW: ("step", "exp_avg", "exp_avg_sq"), optim.Muon: ("momentum_buffer",)}
SIGNED = ("exp_avg", "momentum_buffer")
KEPT = 2  # the newest, and one to fall back on when it is damaged
WRITING = ".writing_"  # what a checkpoint's folder is called until it is whole
TENSOR_FILES = ("model.safetensors", "optimizer.safetensors")
AVERAGE_FILE = "average.safetensors"

Step = Annotated[int, Field(strict=True, ge=0, lt=10**8)]  # what the eight digits of a folder can name

Optimizers = Sequence[optim.Optimizer]  # their weights are numbered one after another

logger = logging.getLogger("hftraining")


class CheckpointError(UserError):
    """A checkpoint cannot be used: which, why, in one line."""


@dataclass
class _State:
    """The schema of state.json. A model that brings its own learning has the first three alone."""

    step: Step
    sha256: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,40}\.(safetensors|txt)$")], Sha256]
    best_step: Step | None
    best_value: Annotated[float, Field(strict=True)] | None = None
    skipped_steps: Step = 0
    skipped_in_a_row: Step = 0

    def __post_init__(self) -> None:
        """Refuse a checkpoint without weights."""
        if TENSOR_FILES[0] not in self.sha256:
            raise ValueError(f"sha256 names no {TENSOR_FILES[0]}")


_STATE = TypeAdapter(_State)


class Checkpoints:
    """The checkpoints of one run. durable: they outlive a failure of power, which costs time on a slow disk."""

    def __init__(self, folder: Path, *, durable: bool = True):
        self.folder, self.durable = folder, durable

    def save(
        self,
        step: int,
        model: nn.Module,
        optimizers: Optimizers,
        state: dict[str, Any],
        average: WeightAverage | None = None,
    ) -> None:
        """Write the checkpoint of a step and remove old ones. `state` is JSON and must name `best_step`."""
        parts = {TENSOR_FILES[0]: model.state_dict(), TENSOR_FILES[1]: optimizer_tensors(optimizers)}
        if average:
            parts[AVERAGE_FILE] = average.weights

        def write(folder: Path) -> list[str]:
            for name, tensors in parts.items():
                save_file({key: value.contiguous().cpu() for key, value in tensors.items()}, folder / name)
            return list(parts)

        self.write(step, write, state)

    def write(self, step: int, write: Callable[[Path], list[str]], state: dict[str, Any]) -> None:
        """As save, of whatever `write` puts into a folder; it returns the names of its files."""
        temporary = self.folder / f"{WRITING}{step:08d}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        hashes = {name: sha256(temporary / name) for name in write(temporary)}
        (temporary / "state.json").write_text(json.dumps({"step": step, "sha256": hashes, **state}, indent=2) + "\n")
        for path in (*(temporary / name for name in (*hashes, "state.json")), temporary):
            self._sync(path)
        shutil.rmtree(self.path(step), ignore_errors=True)  # a damaged one, which a resumed run writes again
        temporary.rename(self.path(step))
        self._sync(self.folder)
        self._remove_all_but(state["best_step"])

    def restore(
        self, model: nn.Module, optimizers: Optimizers, average: WeightAverage | None = None
    ) -> dict[str, Any] | None:
        """Load the newest whole checkpoint and return its state; None without one. average: filled, too.

        Raises CheckpointError where its files are whole but are not those of this model and its optimisers.
        """
        step = self.newest()
        if step == 0:
            return None
        if average:  # before the weights, whose place it takes for a moment
            self.load_model(step, model, AVERAGE_FILE)
            average.load(model.state_dict())
        self.load_model(step, model)
        path = self.path(step) / TENSOR_FILES[1]
        try:
            load_optimizers(optimizers, _read_optimizers(path, optimizers))
        except (RuntimeError, ValueError, OSError, SafetensorError) as error:
            raise CheckpointError(f"{path} is not of this run: {shown(error, 200)}") from None
        return _read_state(self.path(step), step)

    def newest(self) -> int:
        """The step of the newest whole checkpoint, or 0 without one. The log names the damaged ones."""
        return next((step for step in reversed(self.steps()) if self._is_whole(step)), 0)

    def load_model(self, step: int, model: nn.Module, name: str = TENSOR_FILES[0]) -> None:
        """Load the weights of a checkpoint into the model. name: of the file, AVERAGE_FILE for the averaged ones.

        Raises CheckpointError for a checkpoint that is missing, damaged, or of another model.
        """
        path = self.path(step) / name
        if not self._is_whole(step):
            raise CheckpointError(f"{self.path(step)} is missing or damaged, and the run needs it: start a new run")
        try:
            model.load_state_dict(read_weights(path, model))
        except (RuntimeError, ValueError, OSError, SafetensorError) as error:
            raise CheckpointError(f"{path} is not of this run: {shown(error, 200)}") from None

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, in order. The log names whatever else lies in the folder."""
        found = []
        for path in sorted(self.folder.glob("step_*")):
            if STEP_FOLDER.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                found.append(int(path.name.removeprefix("step_")))
            else:
                logger.warning("%s is no checkpoint: left alone", path)
        return sorted(found)

    def path(self, step: int) -> Path:
        """The folder of a step's checkpoint."""
        return self.folder / f"step_{step:08d}"

    def tidy(self, best_step: int | None) -> None:
        """Remove what a killed process has left: half-written checkpoints, and those that it was about to remove."""
        for path in self.folder.glob(f"{WRITING}*"):
            shutil.rmtree(path)
        self._remove_all_but(best_step)

    def _sync(self, path: Path) -> None:
        if self.durable:
            sync(path)

    def _is_whole(self, step: int) -> bool:
        path = self.path(step)
        try:
            hashes = _read_state(path, step)["sha256"]
            damaged = [name for name, known in hashes.items() if digest(path / name, TENSORS_MOST) != known]
        except (OSError, UserError) as error:
            damaged = [str(error)]
        if damaged:
            logger.warning("checkpoint %s is damaged (%s): using the one before", path, ", ".join(damaged))
        return not damaged

    def _remove_all_but(self, best_step: int | None) -> None:
        for step in self.steps()[:-KEPT]:
            if step != best_step:
                shutil.rmtree(self.path(step))


def _numbered(optimizers: Optimizers) -> Iterator[tuple[int, optim.Optimizer, Tensor]]:
    """Every weight with its number and the optimiser that steps on it."""
    pairs = ((o, weight) for o in optimizers for group in o.param_groups for weight in group["params"])
    for number, (optimizer, weight) in enumerate(pairs):
        yield number, optimizer, weight


def optimizer_tensors(optimizers: Optimizers) -> dict[str, Tensor]:
    """The moments by number of the weight, and torch's random states. The learning rate follows from the step."""
    tensors = {
        f"{number}.{name}": value.contiguous().cpu()
        for number, optimizer, weight in _numbered(optimizers)
        for name, value in optimizer.state.get(weight, {}).items()
    }
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    return tensors


def _read_optimizers(path: Path, optimizers: Optimizers) -> dict[str, Tensor]:
    """The tensors of a file, each a moment of one of the weights or a random state. Raises ValueError for others."""
    allowed: Shapes = {
        f"{number}.{name}": ("float32", () if name == "step" else tuple(weight.shape))
        for number, optimizer, weight in _numbered(optimizers)
        for name in MOMENTS[type(optimizer)]
    }
    shapes = shapes_of(path)
    random = [name for name in shapes if name in ("random.cpu", "random.cuda")]
    moments = {name: shape for name, shape in shapes.items() if name not in random}
    owners = {name.partition(".")[0] for name in moments}
    wanted = {name: shape for name, shape in allowed.items() if name.partition(".")[0] in owners}
    if unlike := difference(moments, wanted):
        raise ValueError(unlike)
    if "random.cpu" not in random:
        raise ValueError("it has no random state")
    tensors = load_file(path)
    for name in moments:  # the mean of the squares and the count are not negative
        low = -math.inf if name.partition(".")[2] in SIGNED else 0.0
        if not (torch.isfinite(tensors[name]) & (tensors[name] >= low)).all():
            raise ValueError(f"{name} holds numbers that are no moments")
    return tensors


def _read_state(folder: Path, step: int) -> dict[str, Any]:
    """state.json of a checkpoint, once it fits its schema and its folder. Raises UserError."""
    path = folder / STATE_FILE
    values = read_json_object(path)
    try:
        state = _STATE.validate_python(values)
    except ValidationError as error:
        raise CheckpointError(damaged(path, error)) from None
    if state.step != step or (state.best_step or 0) > step:
        raise CheckpointError(f"{path} is damaged (step: it is of step {state.step}, best step {state.best_step})")
    return values


def load_optimizers(optimizers: Optimizers, tensors: dict[str, Tensor]) -> None:
    """Put what optimizer_tensors gave into optimisers of the same weights, and into torch's random state."""
    torch.set_rng_state(tensors.pop("random.cpu"))
    if "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors.pop("random.cuda"))
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".")
        state.setdefault(int(number), {})[name] = value
    first = 0
    for optimizer in optimizers:
        groups = optimizer.state_dict()["param_groups"]
        n = sum(len(group["params"]) for group in groups)
        own = {number - first: values for number, values in state.items() if first <= number < first + n}
        optimizer.load_state_dict({"state": own, "param_groups": groups})
        first += n
