"""Which values of a test that is run with many are kept for CI."""

from collections.abc import Container, Iterable
from typing import Any

import pytest


def mostly_slow(values: Iterable[Any], quick: Container[int]) -> list[Any]:
    """All values, of which the default tests try those in the places of quick, and CI every one."""
    return [value if i in quick else _slow(value) for i, value in enumerate(values)]


def _slow(value: Any) -> Any:
    if hasattr(value, "marks"):  # a pytest.param
        return pytest.param(*value.values, id=value.id, marks=[*value.marks, pytest.mark.slow])
    values = value if isinstance(value, tuple) else (value,)
    return pytest.param(*values, marks=pytest.mark.slow)
