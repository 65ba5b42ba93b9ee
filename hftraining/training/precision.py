"""Which precision `training.precision=auto` stands for on this machine, and whether it can compile a network."""

import functools
import logging
import os
import shutil
import sys
import time
from dataclasses import replace

import torch

from hftraining.core.errors import ConfigError
from hftraining.runs.environment import cpu
from hftraining.training.config import TrainingConfig

LEAST_GAIN = 1.3  # in the speed of a matrix product, from which on bf16 pays: it is 2.2 on an AVX-512 CPU with bf16
BF16_UNITS = ("avx512_bf16", "amx_bf16")  # without one of them, bf16 products were 8 times slower than fp32
_ROWS, _WIDTH, _TRIES = 2048, 256, 9  # of the products that are measured, about 20 ms in all
_KINDS = (torch.float32, torch.bfloat16)

logger = logging.getLogger("hftraining")


def settled(config: TrainingConfig) -> TrainingConfig:
    """The config with fp32 or bf16 in place of auto, for this machine; a run records it, and repeats it elsewhere.

    Warns of bf16 on a CPU without instructions for it. Raises ConfigError for training.compile without a compiler.
    """
    if config.compile and not shutil.which(_compiler()):
        raise ConfigError(
            f"training.compile=true needs a C++ compiler, and {_compiler()} is not on the PATH: install one, name "
            "it in the environment variable CXX, or use training.compile=false"
        )
    if config.precision == "bf16" and config.device == "cpu" and not has_bf16():
        logger.warning(
            "training.precision=bf16: this CPU has no instructions for it, so a step takes several times as long as "
            "with fp32"
        )
    return replace(config, precision=fastest(config.device)) if config.precision == "auto" else config


@functools.cache
def fastest(device: str) -> str:
    """bf16 where the device multiplies it at least LEAST_GAIN times as fast as fp32, else fp32. Measured once."""
    if device == "cpu":
        return "bf16" if has_bf16() and _gain() >= LEAST_GAIN else "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def has_bf16() -> bool:
    """Whether the CPU says that it multiplies bf16; False where the system does not tell."""
    return not set(BF16_UNITS).isdisjoint(cpu()["flags"])


def _gain() -> float:
    """How many times as fast bf16 is in a matrix product, by the least time of several, which others disturb least."""
    factors = {kind: (torch.ones(_ROWS, _WIDTH, dtype=kind), torch.ones(_WIDTH, _WIDTH, dtype=kind)) for kind in _KINDS}
    seconds: dict[torch.dtype, list[float]] = {kind: [] for kind in _KINDS}
    for _ in range(_TRIES):
        for kind, (left, right) in factors.items():
            begin = time.perf_counter()
            torch.mm(left, right)
            seconds[kind].append(time.perf_counter() - begin)
    return min(seconds[torch.float32]) / min(seconds[torch.bfloat16])


def _compiler() -> str:
    """What torch compiles for a CPU with."""
    return os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
