"""The identity of a run: its delta from the default config, a signature of that delta, and where and how it ran."""

import hashlib
import sys
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from hftraining.core.secret import masked_argument
from hftraining.core.values import canonical, flatten, plain
from hftraining.runs.code_version import PATCH_FILE, code_version
from hftraining.runs.environment import environment

# Fields that cannot change a number, as patterns of dotted names; all other fields are part of the signature. For all
# but training.device, tests/experiment/test_signature.py shows weights that are equal to the bit. Threads count, since
# another number of threads gives other bits.
CANNOT_CHANGE_A_NUMBER = (
    "name",  # of the run: names its folder
    "*.name",  # of a group: its values count
    "output_dir",
    "resume",  # bit-exact by construction
    "init_from",  # where the base model lies; base.signature and base.weights count
    "stocks.snapshots",  # where snapshots lie; stocks.snapshot, which names one, counts
    "stocks.calendar",  # names gaps in the bars, and fills none
    "stocks.path",  # where files lie; run.json and the ledger know the bars in them by their fingerprint
    "stocks.cache",  # what was read before is equal to the bit
    "features.cache",  # what was made before is equal to the bit
    "evidence.ledger",  # where the trials are counted
    # The exception: another device rounds differently. It belongs to the machine, and a config is the same trial on
    # every machine; run.json names it, and replay says where it differs.
    "training.device",
    "walk_forward.workers",  # which process trains a fold; the threads of each count
    "training.engine",  # what starts the processes; their number counts, since it rounds otherwise
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
    data: Mapping[str, Any],
    argv: Sequence[str] | None = None,
    patch: tuple[bytes, str | None] = (b"", None),
) -> dict[str, Any]:
    """What run.json holds: its own id, which code, libraries, machine and data a run used, and how it was called.

    data describes the bars: fingerprint, source, symbols, first and last day, and the id of the snapshot or None.
    argv: sys.argv unless given, without secrets. patch: from `code_patch`. Environment variables stay out, since they
    hold secrets.
    """
    return {
        "id": new_id(),
        "signature": signature,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "argv": [masked_argument(text) for text in (sys.argv if argv is None else argv)],
        "seed": seed,
        "threads": threads,
        "data": dict(data),
        "code": code_version() | {"patch": PATCH_FILE if patch[0] else patch[1]},
        **environment(),
    }


def new_id() -> str:
    """A name for one run among all runs of everybody, by which the ledger knows it wherever its folder lies."""
    return uuid.uuid4().hex


def cannot_change_a_number(name: str) -> bool:
    """Whether a field, by its dotted name, is left out of the signature."""
    return any(fnmatchcase(name, pattern) for pattern in CANNOT_CHANGE_A_NUMBER)
