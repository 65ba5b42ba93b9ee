"""Where a run ran: versions, threads, and the properties of the machine that can change the last bit of a float.

Environment variables stay out, since they hold secrets.
"""

import os
import platform
import re
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

LIBRARIES = tuple(
    "hftraining torch numpy pandas numba pyarrow scipy safetensors "
    "hydra-core omegaconf optuna tensorboard plotly yfinance arch".split()
)
# Vector units that kernels choose among; each adds up in its own order.
CPU_FLAGS = tuple(
    "fma avx avx2 avx512f avx512bw avx512vl avx512_vnni avx512_bf16 avx512_fp16 amx_bf16 asimd sve sve2".split()
)


def environment() -> dict[str, Any]:
    """python, platform, cpu_count, cpu (model and flags), numerics (what torch and numpy calculate with), versions."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "cpu": cpu(),
        "numerics": numerics(),
        "versions": library_versions(),
    }


def library_versions() -> dict[str, str | None]:
    """Installed versions of the libraries that can change a number or a file; None where one is not installed."""
    versions: dict[str, str | None] = dict.fromkeys(LIBRARIES)
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def cpu() -> dict[str, Any]:
    """The processor's model, and which of CPU_FLAGS it has; empty where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {"model": platform.processor(), "flags": []}
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    have = set(flags[1].split()) if flags else set()
    return {"model": model[1].strip() if model else "", "flags": [flag for flag in CPU_FLAGS if flag in have]}


def numerics() -> dict[str, Any]:
    """The kernels in use: torch's vector unit, threads, MKL and oneDNN, numpy's BLAS. It imports neither library."""
    found: dict[str, Any] = {}
    if torch := sys.modules.get("torch"):
        built = torch.__config__.show()
        mkl = re.search(r"Math Kernel Library Version (\S+)", built)
        onednn = re.search(r"MKL-DNN (v\S+)", built)
        found |= {
            "vector_unit": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
            "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "mkl": mkl[1] if mkl and torch.backends.mkl.is_available() else None,
            "onednn": onednn[1] if onednn and torch.backends.mkldnn.is_available() else None,
        }
    if numpy := sys.modules.get("numpy"):
        blas = numpy.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
        found["numpy_blas"] = f"{blas.get('name')} {blas.get('version')}" if blas.get("name") else None
    return found
