"""Forecast: what a model expects at each close.

Legend: T sessions, S symbols, H horizons, Q quantiles.
"""

import itertools
from collections.abc import Iterable, Sequence
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

    def alone(self, horizon: int) -> "Forecast":
        """One horizon (0: the longest), and of its quantiles the median and the outer ones: all that most books read.

        Raises ValueError for a horizon that is not forecast.
        """
        h = self.horizons.index(horizon or max(self.horizons))
        kept = sorted({0, self.levels.index(0.5), len(self.levels) - 1})
        return replace(
            self,
            quantiles_TSHQ=self.quantiles_TSHQ[:, :, h : h + 1, kept],
            horizons=self.horizons[h : h + 1],
            levels=tuple(self.levels[q] for q in kept),
        )


def beside(parts: Sequence[Forecast]) -> Forecast:
    """Forecasts of the same sessions and kind for some stocks each, as one for all."""
    quantiles_TSHQ = np.concatenate([part.quantiles_TSHQ for part in parts], axis=1)
    return replace(
        parts[0], quantiles_TSHQ=quantiles_TSHQ, head_TS=np.concatenate([part.head_TS for part in parts], axis=1)
    )


def weighted_mean(parts: Iterable[Forecast], weights: Sequence[float]) -> Forecast:
    """The mean of forecasts of the same sessions, stocks and kind: of each quantile level, and of the positions.

    weights: one a part, not negative, of sum 1; a weighted mean of quantiles level by level (Vincent 1912). NaN where
    any part's is. A mean lies between the least and the largest of its parts, to the bit, whatever rounding does: the
    mean of equal forecasts is that forecast, and quantiles that rise in each part rise in it. The parts are taken one
    after another, so that an iterator of many needs the memory of few.
    """
    first: Forecast | None = None
    total, low, high = list[np.ndarray](), list[np.ndarray](), list[np.ndarray]()
    for part, weight in zip(parts, weights, strict=True):
        arrays = part.quantiles_TSHQ, part.head_TS
        if first is None:
            first, low, high = part, list(arrays), list(arrays)
            total = [weight * array for array in arrays]
            continue
        for i, array in enumerate(arrays):
            total[i] += weight * array
            low[i], high[i] = np.minimum(low[i], array), np.maximum(high[i], array)
    assert first is not None
    quantiles_TSHQ, head_TS = (np.clip(*ends) for ends in zip(total, low, high, strict=True))
    return replace(first, quantiles_TSHQ=quantiles_TSHQ, head_TS=head_TS)
