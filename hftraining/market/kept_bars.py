"""Bars of files that were read before, from the user's cache: see market/kept.py.

The same files are those of the same names, sizes, inodes and times of writing and of change. A file that is changed
within the same tick of the clock as it was read has the same times: so bars are kept only where no file was touched
in the two seconds before they were read, which is the coarsest clock of a file system, nor while they were.
"""

import dataclasses
import hashlib
import logging
import os
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeGuard

import numba
import numpy as np
import pandas as pd
import pyarrow as pa

from hftraining.core.bars import ARRAYS, Bars
from hftraining.market.config import StocksConfig
from hftraining.market.files import names_of
from hftraining.market.kept import Arrays, Kept, Layout, code_of, machine_facts, unlike
from hftraining.market.snapshots import FIRST_DAY, LAST_DAY

LOGGER = logging.getLogger("hftraining")
LEAST_BYTES = 2**23  # of all files; fewer are read in well under a second
COARSEST_CLOCK = 2 * 10**9  # nanoseconds, of FAT


def kept_bars(config: StocksConfig, load: Callable[[StocksConfig], Bars]) -> Bars:
    """What load(config) gives, from the cache where it is there, and kept there where it was read.

    Of stocks.source=files. Small files are read each time. A cached file that is damaged or of another user is made
    anew, and a folder that cannot be written is done without; both are said.
    """
    assert config.path is not None
    if not config.cache:
        return load(config)
    began = time.time_ns()
    seen, size, newest = _seen(config)
    if size < LEAST_BYTES:
        return load(config)
    kept = Kept("stocks.cache", "bars", _facts(config, seen, began))
    if found := kept.load(_wrong):
        said, arrays = found
        arrays["sessions_T"] = arrays["sessions_T"].view("datetime64[D]")
        bars = Bars(tuple(said["symbols"]), source=said["source"], warnings=tuple(said["warnings"]), **arrays)  # type: ignore[arg-type]
        object.__setattr__(bars, "known_fingerprint", said["fingerprint"])
        return bars
    bars = load(config)
    if newest > began - COARSEST_CLOCK or _seen(config)[0] != seen:
        LOGGER.info("stocks.cache: the files in %s were just changed: their bars were not kept", config.path)
        return bars
    said = {"symbols": bars.symbols_S, "source": bars.source, "warnings": bars.warnings}
    days_T = bars.sessions_T.astype("datetime64[D]").view(np.int64)
    arrays = {"sessions_T": days_T} | {name: getattr(bars, name) for name in ARRAYS}
    kept.save(said | {"fingerprint": bars.fingerprint()}, arrays)
    return bars


def _wrong(said: dict[str, Any], arrays: Arrays) -> str:
    """What are no bars in what was kept, in words."""
    days_T, symbols = arrays.get("sessions_T", np.zeros(0)), said.get("symbols")
    texts = all(type(said.get(name)) is str for name in ("source", "fingerprint"))
    if not texts or not _are_texts(symbols) or not _are_texts(said.get("warnings")):
        return "has facts beside it that are none of bars"
    shape = (days_T.size, len(symbols))
    layout: Layout = {"sessions_T": ("<i8", shape[:1]), **dict.fromkeys(ARRAYS, ("<f8", shape))}
    if why := unlike(arrays, layout, "bars of these symbols"):
        return why
    first, last = (np.datetime64(day, "D").astype(np.int64) for day in (FIRST_DAY, LAST_DAY))
    if not first <= days_T.min(initial=last) or not days_T.max(initial=first) <= last or (np.diff(days_T) <= 0).any():
        return "has other days than rising ones"
    return ""


def _are_texts(found: object) -> TypeGuard[list[str]]:
    return isinstance(found, list) and all(isinstance(text, str) for text in found)


def _facts(config: StocksConfig, seen: str, now: int) -> dict[str, Any]:
    """All that the bars depend on."""
    room = Path(__file__).parent
    versions = [module.__version__ for module in (np, pd, pa, numba)]
    return {
        "stocks": dataclasses.asdict(config),
        "folder": os.getcwd(),  # in which stocks.path may be
        "files": seen,
        "day": now // (86_400 * 10**9) if config.bad_rows == "drop" else None,  # rows of days to come are left out
        "code": code_of(room, room.parent / "core" / "bars.py"),
        **machine_facts(*versions, version("exchange_calendars")),
    }


def _seen(config: StocksConfig) -> tuple[str, int, int]:
    """What changes when one of the files does; the bytes of all of them; and when the last one was changed (ns)."""
    assert config.path is not None
    size, newest, every = 0, 0, list[str]()
    for name in names_of(Path(config.path)):
        try:
            found = os.stat(name)
        except OSError:  # which reading says in words
            return "", 0, 0
        size, newest = size + found.st_size, max(newest, found.st_mtime_ns, found.st_ctime_ns)
        # As text: many small lists would have Python's collector look through all that there is.
        times = f"{found.st_mtime_ns} {found.st_ctime_ns}"
        every.append(f"{name!r} {found.st_dev} {found.st_ino} {found.st_size} {times}")
    return hashlib.sha256("\n".join(every).encode()).hexdigest(), size, newest
