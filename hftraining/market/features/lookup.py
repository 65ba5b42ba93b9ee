"""Every feature by name: those of this package, and those of installed packages once they are proved."""

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from hftraining.core.errors import in_a_line
from hftraining.market.features import alpha158, alpha158_changes, basic, wide
from hftraining.market.features.names import FeatureError, base_of, foreign, refuse_unknown
from hftraining.market.features.perturbation import faults_of, is_marked_alike, mark_of
from hftraining.market.features.registry import REGISTRY, Feature, fault_of
from hftraining.market.features.rows import Rows

SETS = (basic, wide, alpha158, alpha158_changes)  # the files that register our features


def find(name: str) -> Feature:
    """The feature of this name; for the name of a rank, the feature that is ranked. Raises FeatureError.

    One of an installed package is loaded now, and refused unless it passes the perturbation proof.
    """
    base = base_of(name)
    if base in REGISTRY:
        return REGISTRY[base]
    refuse_unknown([name])
    return _proved(base)


def packages_of(columns: Sequence[str]) -> dict[str, str]:
    """The installed packages that some columns come from, beside this one, and their versions."""
    points = [foreign()[base_of(name)] for name in columns if base_of(name) not in REGISTRY]
    return {point.dist.name: point.dist.version for point in points if point.dist}


def marks_of(columns: Sequence[str], among: Container[str] | None = None) -> dict[str, list[float]]:
    """A few numbers for each feature of an installed package among some columns, or whose rank is: see mark_of.

    They tell features apart whose code has changed under one version, as that of an editable package does. among: of
    these features alone, and no other one is loaded.
    """
    names = dict.fromkeys(base_of(name) for name in columns)
    asked = [name for name in names if name not in REGISTRY and (among is None or name in among)]
    marks = dict[str, list[float]]()
    for name in asked:
        with _by_name(name):
            marks[name] = mark_of(find(name))
    return marks


def other_packages(columns: Sequence[str], facts: Mapping[str, Any]) -> list[str]:
    """Where the packages of some columns are not those that a run.json names, or make other values, in words."""
    known, found = facts.get("versions") or {}, packages_of(columns).items()
    apart = {name: version for name, version in found if name in known and known[name] != version}
    lines = [f"{name} {version} here, {known[name]} then" for name, version in apart.items()]
    return lines + other_marks(columns, facts)


def other_marks(columns: Sequence[str], facts: Mapping[str, Any]) -> list[str]:
    """Which features of installed packages make other values than when a run.json was written, in words."""
    known = facts.get("marks") or {}
    found = marks_of(columns, among=known).items()
    return [f"{name} has other values here than then" for name, mark in found if not is_marked_alike(mark, known[name])]


def made(name: str, rows: Rows) -> np.ndarray:
    """values_SN of the feature of this name.

    Those of installed packages have rows of their own: what one does to them reaches none of ours. Raises FeatureError
    where one fails, or gives something else than numbers for these rows, whatever it did in its proof.
    """
    feature = find(name)
    if name in REGISTRY:
        return feature.make(rows)
    with _by_name(name):
        values_SN = feature.make(rows.theirs)
    if fault := fault_of(values_SN, rows):
        raise FeatureError(f"{_called(name)} is refused: {fault}")
    return values_SN


@cache
def _proved(name: str) -> Feature:
    with _by_name(name):
        found = foreign()[name].load()
        if not isinstance(found, Feature) or found.name != name:
            raise TypeError(f"{foreign()[name].value} is no Feature named {name}")
        faults = faults_of(found)
    if faults:
        raise FeatureError(f"{_called(name)} is refused: {'; '.join(faults)}")
    return found


def _called(name: str) -> str:
    point = foreign()[name]
    return f"feature {name} of {f'{point.dist.name} {point.dist.version}' if point.dist else point.value}"


@contextmanager
def _by_name(name: str) -> Iterator[None]:
    """Raise what a feature of an installed package raises, which may be anything, as a FeatureError."""
    try:
        yield
    except FeatureError:
        raise
    except (Exception, SystemExit) as error:  # sys.exit would end the command as if it were done
        said = in_a_line(f"{type(error).__name__}: {error}", 300)
        raise FeatureError(f"{_called(name)} cannot be used: {said}") from error
