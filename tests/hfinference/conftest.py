"""Fixtures of the room."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def own(base, tmp_path_factory) -> Path:
    """A run whose ledger and outputs may be added to."""
    outputs = tmp_path_factory.mktemp("own") / "outputs"
    shutil.copytree(base.parents[2], outputs)
    folder = outputs / base.relative_to(base.parents[2])
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace(str(base.parents[2]), str(outputs)))
    return folder
