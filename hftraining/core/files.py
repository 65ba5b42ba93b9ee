"""Atomic file writes: a reader sees the old file or the new one, even if the writer is killed."""

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hftraining.core.values import plain, without_nan

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp\Z")  # what replacing and filling write into


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` to write into. It replaces `path` on success and is removed on an error.

    The file is synced before the rename and the folder after it, so that a power cut leaves the old content or
    the new one, never a part.
    """
    temporary = _temporary(path)
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


@contextmanager
def filling(folder: Path, last: str) -> Iterator[Path]:
    """A temporary folder to write files into. On success they are moved into `folder`, made if absent; `last` last.

    So whoever finds a new `last`, which may hold the checksums of the others, finds them complete. Other files stay.
    """
    temporary = _temporary(folder)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        folder.mkdir(exist_ok=True)
        for file in sorted(temporary.iterdir(), key=lambda file: (file.name == last, file.name)):
            sync(file)
            os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync(folder)


def remove_left_over(folder: Path) -> None:
    """Remove the temporary files and folders that a killed writer has left in a folder. Nobody may be writing there."""
    for path in folder.iterdir():
        if _TEMPORARY.match(path.name):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def linked(source: Path, target: Path) -> None:
    """Replace target by a hard link to source, or by a copy where the file system has no links."""
    with replacing(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:  # another device, or a file system without hard links
            shutil.copyfile(source, temporary)


def write_text_atomically(path: Path, text: str) -> None:
    """Write UTF-8 text so that a reader sees the old file or the new one."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json_atomically(path: Path, value: Any) -> None:
    """Write strict JSON: NaN and infinity become null, numpy scalars numbers, tuples lists, paths text."""
    write_text_atomically(path, json.dumps(without_nan(plain(value)), indent=2, allow_nan=False) + "\n")


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, as 64 hex digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def open_lock(path: Path, *, make: bool = True) -> int:
    """A handle of a lock file, made if it is absent, to be locked with fcntl.flock; its content stays.

    No link is followed and no pipe waited for, since the folder may come from a stranger. make=False: raises
    FileNotFoundError for an absent one. Raises OSError, also for what is no regular file.
    """
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | (os.O_RDWR | os.O_CREAT if make else os.O_RDONLY)
    handle = os.open(path, flags, 0o644)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return handle


@contextmanager
def locked(path: Path, said: str = "") -> Iterator[None]:
    """Hold the lock of a file, which the kernel frees if this process dies. said: printed if another one has it."""
    handle = open_lock(path)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (fcntl.LOCK_NB if said else 0))
        except BlockingIOError:
            print(said, flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock of a file; it does not where there is none."""
    try:
        handle = open_lock(path, make=False)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
