"""Planting a leak into the code that makes the numbers: what replaces a function while a context lasts.

Legend: T sessions, S symbols, F features, H horizons.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from hftraining.core.bars import Bars
from hftraining.market.features.names import BASIC
from hftraining.market.features.table import Features, make_features
from hftraining.market.labels import make_labels

Plant = Callable[[], AbstractContextManager[None]]
Column = Callable[[Bars, np.ndarray], np.ndarray]  # bars, values_TSF -> values_TS of one feature

PLACE = "relative_volume"  # the feature that a planted one takes the place of, or the first where there is none


@contextmanager
def planted(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Replace an attribute of a module or class by what `make` makes of it."""
    real, known = getattr(owner, name), vars(owner)[name]
    setattr(owner, name, make(real))
    try:
        yield
    finally:
        setattr(owner, name, known)


@contextmanager
def planted_item(table: dict[str, Any], name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Replace an entry of a table by what `make` makes of it."""
    real = table[name]
    table[name] = make(real)
    try:
        yield
    finally:
        table[name] = real


@contextmanager
def planted_everywhere(real: Any, leaky: Any) -> Iterator[None]:
    """Replace a function in every module of ours that has imported it."""
    places = [
        (module, name)
        for key, module in sorted(sys.modules.items())
        if key.split(".")[0] in ("hftraining", "hfinference") and not key.startswith("hftraining.experiment.plant")
        for name, value in list(vars(module).items())
        if value is real
    ]
    for module, name in places:
        setattr(module, name, leaky)
    try:
        yield
    finally:
        for module, name in places:
            setattr(module, name, real)


def feature(column: Column) -> Plant:
    """One feature replaced by a column of the bars, unknown where the others are."""

    def leaky(bars: Bars, columns: Sequence[str] = BASIC) -> Features:
        made = make_features(bars, columns)
        values_TSF = made.values_TSF.copy()
        with np.errstate(invalid="ignore", divide="ignore"):
            values_TS = column(bars, values_TSF)
        place = made.names.index(PLACE) if PLACE in made.names else 0
        values_TSF[:, :, place] = np.where(made.known_TS, np.nan_to_num(values_TS), np.nan)
        return replace(made, values_TSF=values_TSF)

    return lambda: planted_everywhere(make_features, leaky)


def all_features(change: Callable[[np.ndarray, Bars], np.ndarray]) -> Plant:
    """All features changed by a function of (values_TSF, bars)."""

    def leaky(bars: Bars, columns: Sequence[str] = BASIC) -> Features:
        made = make_features(bars, columns)
        return replace(made, values_TSF=change(made.values_TSF.copy(), bars).astype(np.float32))

    return lambda: planted_everywhere(make_features, leaky)


def labels(change: Callable[..., np.ndarray]) -> Plant:
    """make_labels replaced by a function of its own arguments."""
    return lambda: planted_everywhere(make_labels, change)


def ahead(values: np.ndarray, sessions: int = 1) -> np.ndarray:
    """Row t + sessions in the place of row t; the last row stands in for what is not there."""
    return values[np.minimum(np.arange(len(values)) + sessions, len(values) - 1)]
