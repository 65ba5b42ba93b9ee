"""Plain values: types that JSON and YAML can hold, one text for equal values, and dotted names."""

import json
import math
from collections.abc import Mapping
from typing import Any


def plain(value: Any) -> Any:
    """The same value in the types that JSON and YAML know. Keys become text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy scalars and arrays, without importing numpy
        return plain(value.tolist())
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def printable(text: object) -> str:
    """The text of a value with ? for signs that could steer a terminal, such as escape and line ends."""
    return "".join(sign if sign.isprintable() else "?" for sign in str(text))


def without_nan(value: Any) -> Any:
    """A plain value with null where a float is not finite."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping with dotted names; empty mappings disappear."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def put(values: dict[str, Any], name: str, value: Any) -> None:
    """Set a value of nested mappings by its dotted name, as flatten has it."""
    *groups, field = name.split(".")
    for group in groups:
        values = values[group]
    values[field] = value


def canonical(value: Any) -> str:
    """One text for equal values: 1.0 as 1, a tuple as its list; True is not 1."""
    return json.dumps(_normal(plain(value)), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _normal(value: Any) -> Any:
    """Equal numbers alike: 1.0 as 1; NaN and infinities, which JSON lacks, as text."""
    if isinstance(value, dict):
        return {key: _normal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_normal(item) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return f"float:{value}"
        return int(value) if value.is_integer() else value
    return value
