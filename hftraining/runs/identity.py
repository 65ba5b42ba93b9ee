"""What a run is: its delta from the default config, a signature of that delta, and a manifest of where it ran."""

import hashlib
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from importlib import metadata
from pathlib import Path
from typing import Any

from hftraining.runs.record import flatten, plain

# Fields that cannot change a number, as patterns of dotted names; every other field is part of the signature.
# Threads and checkpoint_every stay in: another thread count gives other bits.
CANNOT_CHANGE_A_NUMBER = (
    "name",  # of the run: names its folder
    "*.name",  # of a group: its values count, not what they are called
    "kind",
    "outputs",
    "output_dir",
    "resume",  # bit-exact by construction
    "init_from",  # where the base model lies; what it is counts, as base.signature and base.weights
    "stocks.snapshots",  # where snapshots are kept; which one is stocks.snapshot, and that counts
    "training.device",
    "training.log_every",
    "profit_tracker.report_every",
)
LIBRARIES = tuple(
    "hftraining torch numpy pandas numba pyarrow scipy safetensors "
    "hydra-core omegaconf optuna tensorboard plotly yfinance".split()
)
SOURCE_TREE = Path(__file__).resolve().parents[2]


def config_delta(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """What differs from the defaults: dotted name -> the config's value, sorted by name.

    Lists differ as a whole. 1 equals 1.0 and a tuple equals its list; a missing name equals null.
    """
    ours, theirs = flatten(config), flatten(defaults)
    names = sorted(ours.keys() | theirs.keys())
    return {n: plain(ours.get(n)) for n in names if _canonical(ours.get(n)) != _canonical(theirs.get(n))}


def signature(delta: Mapping[str, Any]) -> str:
    """8 hex digits of the sha1 of the sorted delta, without the fields of CANNOT_CHANGE_A_NUMBER."""
    counted = {name: value for name, value in delta.items() if not _cannot_change_a_number(name)}
    return hashlib.sha1(_canonical(counted).encode(), usedforsecurity=False).hexdigest()[:8]


def manifest(
    *,
    signature: str,
    seed: int,
    threads: int,
    fingerprint: str,
    source: str,
    symbols: Sequence[str],
    first: str,
    last: str,
    argv: Sequence[str] | None = None,
) -> dict[str, Any]:
    """What run.json holds: which code, libraries, machine and data a run used, and how it was called.

    fingerprint, source, symbols, first and last (ISO dates) describe the bars. argv is sys.argv unless given.
    Environment variables are never read into it, since secrets live there.
    """
    return {
        "signature": signature,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "argv": list(sys.argv if argv is None else argv),
        "seed": seed,
        "threads": threads,
        "data": {
            "fingerprint": fingerprint,
            "source": source,
            "symbols": list(symbols),
            "first": str(first),
            "last": str(last),
        },
        "code": code_version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "versions": library_versions(),
    }


def code_version(tree: Path = SOURCE_TREE) -> dict[str, Any]:
    """The commit of a source tree, and whether its code or config differs from it; nulls when not a checkout."""
    if _git(tree, "rev-parse", "--show-toplevel") != str(tree):  # installed, perhaps inside another project's checkout
        return {"commit": None, "dirty": None}
    changed = _git(tree, "status", "--porcelain", "--", "*.py", "*.yaml", "*.toml")
    return {"commit": _git(tree, "rev-parse", "--verify", "HEAD"), "dirty": None if changed is None else bool(changed)}


def library_versions() -> dict[str, str | None]:
    """Installed versions of the libraries that can change a number or a file, without importing them."""
    return {name: _version(name) for name in LIBRARIES}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git(tree: Path, *arguments: str) -> str | None:
    # A hook sets GIT_DIR and the like, which would answer for the wrong repository.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    command = ["git", "-C", str(tree), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, env=environment, check=True)
    except (OSError, subprocess.SubprocessError):  # no git, no checkout, or no commit yet
        return None
    return answer.stdout.strip()


def _cannot_change_a_number(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in CANNOT_CHANGE_A_NUMBER)


def _canonical(value: Any) -> str:
    return json.dumps(_normal(plain(value)), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _normal(value: Any) -> Any:
    """One spelling for equal numbers: 1.0 as 1; what JSON has no number for as text."""
    if isinstance(value, dict):
        return {key: _normal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_normal(item) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return f"float:{value}"
        return int(value) if value.is_integer() else value
    return value
