"""What was made before, kept for the next run: one memory-mapped file of arrays, and the facts that make it count.

A run takes only what it wrote itself: a file in the user's cache folder counts with the facts beside it, which hold the
SHA-256 of its content, its inode, size and times, and a hash of themselves. While inode, size and times are as they
were, the content is not read again (as git does with its index); otherwise it must match the SHA-256. Both files and
their folder belong to the user, and nobody else may write them.
"""

import hashlib
import json
import logging
import math
import mmap
import os
import platform
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from platformdirs import user_cache_path

from hftraining.core.errors import UserError
from hftraining.core.files import replacing, write_json_atomically
from hftraining.core.untrusted import SMALL, digest, read_json_object

LOGGER = logging.getLogger("hftraining")
MOST_BYTES = 8 * 2**30  # of all files in a folder: the least recently used ones go first
LEFT_OVER = 3600.0  # seconds after which nobody is writing a temporary file any more
MOST_AT_ONCE = 2**28
FORMAT = 2
MOST_AXES = 8  # of an array
KINDS = ("<f8", "<i8", "<f4", "|b1")  # of arrays, in this order in a file, so that each begins at its own multiple

Arrays = dict[str, np.ndarray]
Layout = Mapping[str, tuple[str, Sequence[int]]]  # kind and shape of each array


class NoRoom(Exception):
    """The arrays cannot be kept; why, in words."""


class Kept:
    """A place for arrays in the user's cache. what: the field of the config that rules it, for notes.

    room: the folder. facts: all that the arrays depend on, as JSON; the code, the libraries and the machine are added
    by machine_facts.
    """

    def __init__(self, what: str, room: str, facts: Mapping[str, Any]):
        self.what, self.facts = what, {"format": FORMAT, **facts}
        self.folder = user_cache_path("hftraining") / room
        name = hashlib.sha256(json.dumps(self.facts).encode()).hexdigest()[:32]
        self.data, self.about = self.folder / f"{name}.bin", self.folder / f"{name}.json"

    def load(self, check: Callable[[dict[str, Any], Arrays], str]) -> tuple[dict[str, Any], Arrays] | None:
        """What was said of the arrays, and the arrays, which cannot be written; None where they must be made.

        check: what is wrong with them, if anything: any JSON may be said, of any arrays. What is damaged, of another
        user or wrong is said and not used.
        """
        if not os.path.exists(self.about):  # False, too, where nobody may look; Path.exists raises
            return None
        try:
            known = self._checked()
            arrays = self._mapped(known["layout"])
            if why := check(known["said"], arrays):
                raise NoRoom(why)
        except NoRoom as why:
            LOGGER.warning("%s: %s %s: made anew", self.what, self.data, why)
            return None
        except (OSError, UserError) as error:
            LOGGER.warning("%s: %s cannot be read (%s): made anew", self.what, self.data, error)
            return None
        with suppress(OSError):
            os.utime(self.about)  # used last
        return known["said"], arrays

    def save(self, said: Mapping[str, Any], arrays: Arrays) -> bool:
        """Keep some arrays, and what is said of them. Whether they were kept; if not, why was logged."""
        layout = {name: (array.dtype.str, array.shape) for name, array in arrays.items()}
        try:
            with self.filling(layout, said) as room:
                for name, array in arrays.items():
                    room[name][...] = array
        except NoRoom as why:
            LOGGER.info("%s: %s", self.what, why)
            return False
        except OSError as error:
            LOGGER.warning("%s: %s cannot be written (%s): nothing was kept", self.what, self.folder, error.strerror)
            return False
        return True

    @contextmanager
    def filling(self, layout: Layout, said: Mapping[str, Any]) -> Iterator["Room"]:
        """Arrays of zeros to be filled, which count once that is done. Raises NoRoom, or OSError."""
        size = _size(layout)
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder.chmod(0o700)
        _make_room(self.folder, size)
        if size > MOST_BYTES or size > shutil.disk_usage(self.folder).free // 2:
            raise NoRoom(f"{size:,} bytes are too many to keep")
        with replacing(self.data) as temporary:
            handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.posix_fallocate(handle, 0, size)  # a full disk is said now: later it would end the process
                room = Room(mmap.mmap(handle, size), layout)
            finally:
                os.close(handle)
            yield room
            room.content.flush()
            sha = digest(temporary, size)
        written = {name: [kind, list(shape)] for name, (kind, shape) in layout.items()}
        known = {"facts": self.facts, "said": dict(said), "layout": written, "sha256": sha}
        self._write({**known, "seal": _seal(known), "seen": _seen(self.data)})

    def _write(self, known: Mapping[str, Any]) -> None:
        write_json_atomically(self.about, known)
        self.about.chmod(0o600)
        if self.about.stat().st_size > SMALL:
            self.about.unlink()

    def _checked(self) -> dict[str, Any]:
        """The facts of a file that may be used. Raises NoRoom, OSError or UserError."""
        if any(_of_others(path) for path in (self.folder, self.data, self.about)):
            raise NoRoom("belongs to another user, or others may write it")
        known = read_json_object(self.about)
        sealed = {name: known.get(name) for name in ("facts", "said", "layout", "sha256")}
        if known.get("seal") != _seal(sealed):
            raise NoRoom("has damaged facts beside it")
        known |= sealed  # also what is missing
        if known["facts"] != json.loads(json.dumps(self.facts)):
            raise NoRoom("is of something else")
        if not _is_layout(known["layout"]) or type(known["said"]) is not dict:
            raise NoRoom("has facts beside it that are none of ours")
        size = _size(known["layout"])
        if self.data.stat().st_size != size:
            raise NoRoom("has another size than its values")
        if known.get("seen") != _seen(self.data):
            if digest(self.data, size) != known["sha256"]:
                raise NoRoom("is damaged")
            self._write(known | {"seen": _seen(self.data)})
        return known

    def _mapped(self, layout: Layout) -> Arrays:
        """The arrays of the file; all pages of a small one at once, which takes a tenth of one page after another."""
        size = _size(layout)
        flags = mmap.MAP_SHARED | (getattr(mmap, "MAP_POPULATE", 0) if size <= MOST_AT_ONCE else 0)
        with open(self.data, "rb") as file:
            return Room(mmap.mmap(file.fileno(), size, flags, mmap.PROT_READ), layout).arrays


class Room:
    """Arrays in a mapped file."""

    def __init__(self, content: mmap.mmap, layout: Layout):
        self.content, self.arrays = content, Arrays()
        place = 0
        for kind in KINDS:
            for name, (own, shape) in layout.items():
                if own == kind:
                    self.arrays[name] = np.ndarray(tuple(shape), kind, content, place)
                    place += self.arrays[name].nbytes
        assert len(self.arrays) == len(layout)

    def __getitem__(self, name: str) -> np.ndarray:
        """One of them."""
        return self.arrays[name]

    def let_go(self) -> None:
        """Take no memory of this process for what was written: it stays with the system, which writes it."""
        self.content.madvise(mmap.MADV_DONTNEED)


def unlike(arrays: Arrays, layout: Layout, what: str) -> str:
    """Why arrays are not of a layout, in words; nothing where they are. what: they should be, such as features."""
    found = {name: (array.dtype.str, array.shape) for name, array in arrays.items()}
    return "" if found == {name: (kind, tuple(shape)) for name, (kind, shape) in layout.items()} else f"has no {what}"


def machine_facts(*libraries: str) -> dict[str, Any]:
    """The machine, since another one may round differently, and versions of libraries."""
    return {"libraries": list(libraries), "machine": [platform.node(), platform.machine()]}


@cache
def code_of(*files: Path) -> str:
    """The digest of some files, and of the Python files right in some folders."""
    paths = [path for file in files for path in (sorted(file.glob("*.py")) if file.is_dir() else [file])]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()[:16]


def _seal(known: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _of_others(path: Path) -> bool:
    found = path.lstat()
    writable = bool(found.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
    return stat.S_ISLNK(found.st_mode) or found.st_uid != os.getuid() or writable


def _seen(path: Path) -> list[int]:
    """What changes when a file does."""
    found = path.stat()
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _is_layout(found: object) -> bool:
    """Whether it is what `filling` writes of arrays, of at least one value together."""
    if type(found) is not dict:
        return False
    for entry in found.values():
        if type(entry) is not list or len(entry) != 2 or entry[0] not in KINDS or type(entry[1]) is not list:
            return False
        if len(entry[1]) > MOST_AXES or not all(type(n) is int and 0 <= n <= MOST_BYTES for n in entry[1]):
            return False
    return 0 < _size(found) <= MOST_BYTES


def _size(layout: Layout) -> int:
    return sum(np.dtype(kind).itemsize * math.prod(shape) for kind, shape in layout.values())


def _make_room(folder: Path, size: int) -> None:
    """Remove what was used longest ago until so many bytes more are within MOST_BYTES, and what a kill left behind."""
    _remove_old(_files(folder, ".*.tmp"))
    kept = _files(folder, "*.json")
    arrays = _files(folder, "*.bin")
    _remove_old({path: found for path, found in arrays.items() if path.with_suffix(".json") not in kept})
    oldest_first = sorted(kept, key=lambda path: kept[path].st_mtime_ns)
    while oldest_first and size + sum(found.st_size for found in _files(folder, "*.bin").values()) > MOST_BYTES:
        oldest = oldest_first.pop(0)
        oldest.unlink(missing_ok=True)
        oldest.with_suffix(".bin").unlink(missing_ok=True)


def _files(folder: Path, pattern: str) -> dict[Path, os.stat_result]:
    """The files of a folder, which other processes fill and empty meanwhile."""
    found = dict[Path, os.stat_result]()
    for path in folder.glob(pattern):
        with suppress(FileNotFoundError):
            found[path] = path.lstat()
    return found


def _remove_old(files: Mapping[Path, os.stat_result]) -> None:
    """Those that nobody is still writing."""
    for path, found in files.items():
        if time.time() - found.st_mtime > LEFT_OVER:
            path.unlink(missing_ok=True)
