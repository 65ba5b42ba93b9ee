"""Checkpoints: model, optimiser, random state and step, written atomically and verified when read.

A checkpoint is a folder `step_00000250` with model.safetensors, optimizer.safetensors (random state included) and
state.json, which holds the sha256 of both. A model that brings its own learning has what it saves there instead. The
folder is written under a temporary name, synced and renamed, so a kill at any moment leaves only whole checkpoints. The
newest two are kept, and the best by the validation metric.
"""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn, optim

from hftraining.core.files import sha256, sync

KEPT = 2  # the newest, and one to fall back on when it is damaged
WRITING = ".writing_"  # what a checkpoint's folder is called until it is whole
TENSOR_FILES = ("model.safetensors", "optimizer.safetensors")

logger = logging.getLogger("hftraining")


class Checkpoints:
    """The checkpoints of one run. durable: they outlive a failure of power, which costs time on a slow disk."""

    def __init__(self, folder: Path, *, durable: bool = True):
        self.folder, self.durable = folder, durable

    def save(self, step: int, model: nn.Module, optimizer: optim.Optimizer, state: dict[str, Any]) -> None:
        """Write the checkpoint of a step and remove old ones. `state` is JSON and must name `best_step`."""

        def write(folder: Path) -> list[str]:
            save_file({k: v.contiguous().cpu() for k, v in model.state_dict().items()}, folder / TENSOR_FILES[0])
            save_file(_optimizer_tensors(optimizer), folder / TENSOR_FILES[1])
            return list(TENSOR_FILES)

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

    def restore(self, model: nn.Module, optimizer: optim.Optimizer) -> dict[str, Any] | None:
        """Load the newest whole checkpoint and return its state; None without one."""
        step = self.newest()
        if step == 0:
            return None
        self.load_model(step, model)
        _load_optimizer(optimizer, load_file(self.path(step) / TENSOR_FILES[1]))
        return json.loads((self.path(step) / "state.json").read_text())

    def newest(self) -> int:
        """The step of the newest whole checkpoint, or 0 without one. The log names the damaged ones."""
        return next((step for step in reversed(self.steps()) if self._is_whole(step)), 0)

    def load_model(self, step: int, model: nn.Module) -> None:
        """Load the weights of a checkpoint into the model."""
        model.load_state_dict(load_file(self.path(step) / TENSOR_FILES[0]))

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, in order."""
        return sorted(int(path.name.removeprefix("step_")) for path in self.folder.glob("step_*"))

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
            hashes = json.loads((path / "state.json").read_text())["sha256"]
            damaged = [name for name, digest in hashes.items() if sha256(path / name) != digest]
        except (OSError, json.JSONDecodeError, KeyError) as error:
            damaged = [str(error)]
        if damaged:
            logger.warning("checkpoint %s is damaged (%s): using the one before", path, ", ".join(damaged))
        return not damaged

    def _remove_all_but(self, best_step: int | None) -> None:
        for step in self.steps()[:-KEPT]:
            if step != best_step:
                shutil.rmtree(self.path(step))


def _optimizer_tensors(optimizer: optim.Optimizer) -> dict[str, Tensor]:
    """Adam's moments by parameter index, and torch's random states. The learning rate follows from the step."""
    tensors = {
        f"{index}.{name}": value.contiguous().cpu()
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    return tensors


def _load_optimizer(optimizer: optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    torch.set_rng_state(tensors.pop("random.cpu"))
    if "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors.pop("random.cuda"))
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
