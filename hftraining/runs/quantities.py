"""The numbers and texts of result.json, and the limits within which they are read back."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field

from hftraining.runs.manifest import MOST_COUNT, printable


def _ends(values: list[float | None]) -> list[float | None]:
    """None, or both ends of an interval."""
    if len(values) not in (0, 2):
        raise ValueError(f"{len(values)} numbers are no interval")
    return values


def _band(values: list[float | None]) -> list[float | None]:
    """None, or the three lines of a band."""
    if len(values) not in (0, 3):
        raise ValueError(f"{len(values)} numbers are no band")
    return values


# What is read back from a file must lie within these; what a run makes is not checked.
Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-1e30, le=1e30)] | None
Count = Annotated[int, Field(strict=True, ge=0, le=MOST_COUNT)]
Text = Annotated[str, Field(strict=True, max_length=10_000), AfterValidator(printable)]
Word = Annotated[str, Field(strict=True, max_length=200), AfterValidator(printable)]
Ends = Annotated[list[Number], AfterValidator(_ends)]
Band = Annotated[list[Number], AfterValidator(_band)]
Metrics = dict[Word, Number]  # by the names of core/metrics.py


@dataclass(frozen=True)
class Estimate:
    """A value and the ends of its 95 % interval."""

    value: Number = None
    low: Number = None
    high: Number = None


@dataclass(frozen=True)
class Score:
    """A score over days: see evidence/scores.py."""

    value: Number = None
    t: Number = None
    low: Number = None
    high: Number = None
    days: Count = 0
