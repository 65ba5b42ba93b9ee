"""The registry: what a feature declares, and how one of this package is registered.

Legend: S symbols, N rows.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from hftraining.market.features.kernels import checked_span
from hftraining.market.features.names import RANK
from hftraining.market.features.rows import Rows

INPUTS = ("open", "high", "low", "close", "volume", "market")  # market: the mean return of the day over all stocks

Make = Callable[[Rows], np.ndarray]


@dataclass(frozen=True)
class Feature:
    """A column that a model may see.

    make: rows -> values_SN, of the bars of each symbol at and before row n alone; NaN where unknown. inputs: of INPUTS,
    all that it reads. lookback: rows before today's that it depends on at most. scale_free: prices times a number and
    volumes times another give the same values up to rounding. doc: what it means, in one line.
    """

    name: str
    make: Make
    inputs: tuple[str, ...]
    lookback: int
    scale_free: bool
    doc: str

    def __post_init__(self) -> None:
        """Refuse a declaration that cannot be one."""
        if not self.name.isidentifier() or not self.name.isascii() or len(self.name) > 60 or self.name.endswith(RANK):
            raise ValueError(
                f"feature {self.name[:60]!r}: a name has letters, digits and _, at most 60, and no {RANK} at its end"
            )
        if not self.inputs or set(self.inputs) - set(INPUTS):
            raise ValueError(f"feature {self.name}: inputs={self.inputs} must be of {', '.join(INPUTS)}")
        if not self.doc:
            raise ValueError(f"feature {self.name}: a line must say what it means")
        try:
            checked_span(self.lookback, 0)
        except ValueError as error:
            raise ValueError(f"feature {self.name}: lookback: {error}") from None


def fault_of(made: object, rows: Rows) -> str | None:
    """What is wrong with what a feature gives, if it is no array of real numbers of the shape of the rows."""
    if type(made) is not np.ndarray or made.shape != rows.close_SN.shape:  # a masked array would lose its mask
        return f"it gives {type(made).__name__} where values_SN of the shape of close_SN are wanted"
    return None if made.dtype.kind in "fiub" else f"it gives values of {made.dtype}, which are no real numbers"


REGISTRY: dict[str, Feature] = {}  # of this package, by name


def feature(
    name: str,
    *,
    inputs: Sequence[str],
    lookback: int | Callable[[int], int],
    scale_free: bool = True,
    spans: Sequence[int] = (),
) -> Callable[[Callable[..., np.ndarray]], Callable[..., np.ndarray]]:
    """Register the function below as a feature, or as one for each of the spans: make(rows, span).

    name: with {} in the place of the span. lookback: of the span, where there are spans. The first line of the
    function's docstring says what it means, with {span} in it. Raises ValueError for a name that is taken, and for a
    negative span or lookback: a feature reads no later rows.
    """

    def register(make: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        doc = (inspect.getdoc(make) or "").partition("\n")[0]
        for known in spans:
            checked_span(known)
        for span in spans or (None,):
            own, rows, reach = name, make, lookback
            if span is not None:
                own, rows = name.format(span), partial(make, span=span)
                reach = lookback(span) if callable(lookback) else lookback
            assert isinstance(reach, int)
            if own in REGISTRY:
                raise ValueError(f"feature {own}: there is one of this name")
            REGISTRY[own] = Feature(own, rows, tuple(inputs), reach, scale_free, doc.format(span=span))
        return make

    return register
