"""Atomic file writes: a reader sees the old file or the new one, even if the writer is killed."""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hftraining.core.values import plain, without_nan


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` to write into. It replaces `path` on success and is removed on an error.

    The file is synced before the rename and the folder after it, so that a power cut leaves the old content or
    the new one, never a part.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


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


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
