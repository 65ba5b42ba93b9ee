"""Fixtures of the room."""

from pathlib import Path

import pytest

from tests.runs_of import own_outputs


@pytest.fixture(scope="module")
def own(base, tmp_path_factory) -> Path:
    """A run whose ledger and outputs may be added to."""
    return own_outputs(base, tmp_path_factory.mktemp("own"))
