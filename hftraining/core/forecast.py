"""Forecast: what a model expects at each close.

Legend: T sessions, S symbols, H horizons, Q quantiles.
"""

import itertools
from dataclasses import dataclass, replace

import numpy as np

from hftraining.core.relative import KINDS


@dataclass(frozen=True)
class Forecast:
    """Quantiles of future returns and the model's own position, at each close.

    quantiles_TSHQ: return from the fill open[t + lag] to open[t + lag + h]; NaN: no forecast.
    head_TS: the model's own position in [-1, 1]; NaN: none.
    horizons: sessions, rising. levels: of the quantiles, rising within (0, 1), 0.5 among them.
    relative: what the returns are relative to. none: log returns. mean, residual: log returns less the mean of the
    day's stocks, or less the stock's beta times it. zscore, rank: in standard deviations of the day over its stocks.
    Raises ValueError for shapes or axes that do not match.
    """

    quantiles_TSHQ: np.ndarray
    head_TS: np.ndarray
    horizons: tuple[int, ...]
    levels: tuple[float, ...]
    relative: str = "none"

    def __post_init__(self) -> None:
        """Refuse shapes and axes that do not match."""
        wanted = (*self.head_TS.shape, len(self.horizons), len(self.levels))
        if self.head_TS.ndim != 2 or self.quantiles_TSHQ.shape != wanted:
            raise ValueError(
                f"quantiles: shape {self.quantiles_TSHQ.shape}, but head has {self.head_TS.shape}, "
                f"{len(self.horizons)} horizons and {len(self.levels)} levels"
            )
        for name in ("horizons", "levels"):
            values = getattr(self, name)
            if not all(low < high for low, high in itertools.pairwise(values)):
                raise ValueError(f"{name}: {values} must rise")
        if 0.5 not in self.levels or not 0.0 < self.levels[0] or not self.levels[-1] < 1.0:
            raise ValueError(f"levels: {self.levels} must lie within (0, 1) and contain 0.5")
        if self.relative not in KINDS:
            raise ValueError(f"relative={self.relative} is not one of {', '.join(KINDS)}")

    def rows(self, rows: slice) -> "Forecast":
        """The forecasts of some sessions, as views."""
        return replace(self, quantiles_TSHQ=self.quantiles_TSHQ[rows], head_TS=self.head_TS[rows])
