"""What a run is: its delta from the default config, a signature of that delta, and a manifest of where it ran."""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from hftraining.core.values import canonical, flatten, plain
from hftraining.runs.code_version import PATCH_FILE, code_version
from hftraining.runs.environment import environment

# Fields that cannot change a number, as patterns of dotted names; every other field is part of the signature. For each
# of them but one tests/experiment/test_signature.py shows weights that are equal to the bit. Threads and
# checkpoint_every stay in: another thread count gives other bits.
CANNOT_CHANGE_A_NUMBER = (
    "name",  # of the run: names its folder
    "*.name",  # of a group: its values count, not what they are called
    "output_dir",
    "resume",  # bit-exact by construction
    "init_from",  # where the base model lies; what it is counts, as base.signature and base.weights
    "stocks.snapshots",  # where snapshots are kept; which one is stocks.snapshot, and that counts
    # The exception: another device rounds otherwise in the last bits. It is left out since it belongs to the machine,
    # on which a config is the same trial; run.json names it, and replay says where it differs.
    "training.device",
    "training.log_every",
    "profit_tracker.report_every",
)


def config_delta(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """What differs from the defaults: dotted name -> the config's value, sorted by name.

    Lists differ as a whole. 1 equals 1.0 and a tuple equals its list; a missing name equals null.
    """
    ours, theirs = flatten(config), flatten(defaults)
    names = sorted(ours.keys() | theirs.keys())
    return {n: plain(ours.get(n)) for n in names if canonical(ours.get(n)) != canonical(theirs.get(n))}


def signature(delta: Mapping[str, Any]) -> str:
    """8 hex digits of the sha1 of the sorted delta, without the fields of CANNOT_CHANGE_A_NUMBER."""
    counted = {name: value for name, value in delta.items() if not cannot_change_a_number(name)}
    return hashlib.sha1(canonical(counted).encode(), usedforsecurity=False).hexdigest()[:8]


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
    snapshot: str | None = None,
    argv: Sequence[str] | None = None,
    patch: tuple[bytes, str | None] = (b"", None),
) -> dict[str, Any]:
    """What run.json holds: which code, libraries, machine and data a run used, and how it was called.

    fingerprint, source, symbols, first and last (ISO dates) and the id of the snapshot, if they come from one,
    describe the bars. argv is sys.argv unless given. patch is as `code_patch` gives it.
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
            "snapshot": snapshot,
        },
        "code": code_version() | {"patch": PATCH_FILE if patch[0] else patch[1]},
        **environment(),
    }


def cannot_change_a_number(name: str) -> bool:
    """Whether a field, by its dotted name, is left out of the signature."""
    return any(fnmatchcase(name, pattern) for pattern in CANNOT_CHANGE_A_NUMBER)
