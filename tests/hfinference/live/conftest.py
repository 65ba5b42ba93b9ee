"""Fixtures of the room."""

from pathlib import Path

import pytest

from tests.runs_of import own_outputs


@pytest.fixture(scope="module")
def base(base, tmp_path_factory) -> Path:
    """The shared run, in outputs of the module's own: replays and accounts are written beside it."""
    return own_outputs(base, tmp_path_factory.mktemp("own"))
