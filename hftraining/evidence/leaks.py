"""What the leak proof compares, and what it reports: experiment/proof.py makes it through the code of a run.

Legend: N items, each known from a row (a session of the bars) on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

ROUNDING = 1e-3  # relative; float32 and a deep network leave far less, an effect of scale far more
ODD_SHARE = 0.01  # of the items: so few may jump where rounding moves a value over a threshold


@dataclass(frozen=True)
class LeakReport:
    """ok: nothing changed. lines: what changed, one sentence each. days: how many futures were replaced."""

    ok: bool
    lines: list[str] = field(default_factory=list)
    days: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Known:
    """Items in the order of their first axis, and the row from which on each is known."""

    items: np.ndarray
    row_N: np.ndarray

    @classmethod
    def since(cls, items: np.ndarray, first: int, *, earliest: int = 0) -> "Known":
        """Item i is known from row first + i on, but not before `earliest`."""
        return cls(items, np.maximum(first + np.arange(len(items)), earliest))

    def by(self, row: int) -> np.ndarray:
        """The items that are known by the close of a row."""
        return self.items[self.row_N <= row]

    def after(self, row: int) -> np.ndarray:
        """The other items."""
        return self.items[self.row_N > row]


Outcome = Mapping[str, Known]  # everything that a run makes of its bars, by name


def changed(one: Outcome, other: Outcome, row: int) -> list[str]:
    """The names of what both have, is known by a row, and is not equal to the bit."""
    both = [name for name in other if name in one]
    return [name for name in both if not _equal(one[name].by(row), other[name].by(row))]


def unmoved(one: Outcome, other: Outcome, row: int, words: tuple[str, ...]) -> list[str]:
    """Of what has one of these words in its name, what has known values after a row that do not change at all.

    A cache, for example, would make a proof blind by giving the same answer for other bars.
    """
    both = [name for name in _with(words, other) if name in one]
    later = {name: (one[name].after(row), other[name].after(row)) for name in both}
    return [name for name, (a, b) in later.items() if np.isfinite(a).any() and _equal(a, b)]


def moved(one: Outcome, other: Outcome, row: int, words: tuple[str, ...]) -> list[str]:
    """As changed, beyond rounding, of what has one of these words in its name."""
    both = [name for name in _with(words, other) if name in one]
    return [name for name in both if not _near(one[name].by(row), other[name].by(row))]


def _with(words: tuple[str, ...], outcome: Outcome) -> list[str]:
    return [name for name in outcome if any(word in name for word in words)]


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b, equal_nan=True)


def _near(a: np.ndarray, b: np.ndarray) -> bool:
    if a.shape != b.shape:
        return False
    scale = np.nanmedian(np.abs(a)) if np.isfinite(a).any() else 1.0
    is_near = np.isclose(a, b, rtol=ROUNDING, atol=ROUNDING * (scale or 1.0), equal_nan=True)
    return not is_near.size or float(np.mean(~is_near)) <= ODD_SHARE
