"""A reader sees the old file or the new one, even if the writer is killed: hftraining/core/files.py."""

import hashlib
import json
import os

import numpy as np
import pytest

from hftraining.core.files import linked, replacing, sha256, write_json_atomically, write_text_atomically


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_new_content_replaces_the_old_content(tmp_path):
    path = tmp_path / "file.txt"
    for text in ("old", "new \N{EURO SIGN}"):
        write_text_atomically(path, text)
        assert path.read_text(encoding="utf-8") == text and names(tmp_path) == ["file.txt"]


def test_an_error_while_writing_leaves_the_old_content_and_no_temporary_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("half of the n")
        assert path.read_text() == "old"  # until all is written
        _ = 1 / 0
    assert path.read_text() == "old" and names(tmp_path) == ["file.txt"]


def test_json_is_strict_and_holds_plain_values(tmp_path):
    write_json_atomically(tmp_path / "x.json", {"a": np.float64("nan"), "b": (np.int64(3), tmp_path), 4: True})
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text) == {"a": None, "b": [3, str(tmp_path)], "4": True} and text.endswith("}\n")


def test_a_link_shares_the_bytes_and_replaces_an_old_file(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"bytes")
    target.write_bytes(b"old")
    linked(source, target)
    assert target.samefile(source) and names(tmp_path) == ["source", "target"]


def test_without_hard_links_the_file_is_copied(tmp_path, monkeypatch):
    def no_links(source, target):
        raise OSError("no links here")

    (tmp_path / "source").write_bytes(b"bytes")
    monkeypatch.setattr(os, "link", no_links)
    linked(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"bytes"
    assert not (tmp_path / "target").samefile(tmp_path / "source")


def test_the_digest_equals_that_of_hashlib(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256(tmp_path / "x") == hashlib.sha256(b"abc").hexdigest()
