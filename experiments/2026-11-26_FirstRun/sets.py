"""The four sets of bars, the years that are walked, and where forecasts are kept.

Legend: T sessions, S symbols, H horizons, Q quantiles.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from hftraining.core.bars import Bars
from hftraining.core.forecast import Forecast
from hftraining.market.config import StocksConfig
from hftraining.market.features.table import Features, make_features
from hftraining.market.labels import make_labels
from hftraining.market.prices import load_bars

HORIZONS, LAG = (5, 20), 1
PURGE = LAG + max(HORIZONS)
LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)  # the defaults of ObjectiveConfig
KEPT = (0, 2, 4)  # of LEVELS: what a score reads
LABELS = ("none", "mean", "zscore", "rank", "residual")
ABSOLUTE_SCALE = ("none", "mean", "residual")  # in units of the stock's volatility; the others in those of the day
# Events that contradict the prices, so that adjusted closes double or halve: the first three are refused on load.
WRONG_EVENTS = ["ANTM", "DVN", "GNRC", "KSU", "WST"]
# Folds of a set that one model forecasts; 1 where nothing is said.
PACES = {
    "lightgbm": {"us300": 2, "sp500_369": 4},
    "small": {"us300": 4, "kdd17": 4, "stocknet88": 4, "sp500_369": 7},
}


def pace_of(model: str, data: str) -> int:
    """How many folds a model forecasts before it is trained anew; all variants of `small` as `small`."""
    return PACES.get(model.split("_")[0], {}).get(data, 1)


@dataclass(frozen=True)
class Span:
    """Days that are forecast by a model that learned from those before: [start, stop), rows of sessions."""

    name: str
    start: int
    stop: int

    @property
    def train(self) -> slice:
        """All sessions whose labels end before the span."""
        return slice(0, self.start - PURGE)


@dataclass(frozen=True)
class Set:
    """A set of bars. valid, test: ISO days on which a fold begins; after_valid: where validation ends."""

    name: str
    file: str
    valid: tuple[str, ...]
    test: tuple[str, ...]
    folder: Path
    exclude: tuple[str, ...] = ()

    @cached_property
    def bars(self) -> Bars:
        """Adjusted by the product's loader, bad rows dropped."""
        path = str(self.folder / self.file)
        stocks = StocksConfig(self.name, "files", path, bad_rows="drop", exclude=list(self.exclude))
        return load_bars(stocks)

    @cached_property
    def features(self) -> Features:
        """Of all sessions; row t reads rows <= t."""
        return make_features(self.bars)

    def labels_TSH(self, kind: str) -> np.ndarray:
        """Open to open, in the unit of their kind."""
        return make_labels(self.bars, self.features.volatility_TS, HORIZONS, LAG, "open", kind)

    @cached_property
    def earned_TSH(self) -> np.ndarray:
        """Log returns open to open, which every label kind is scored against; NaN where a bar is missing."""
        log_TS = np.where(self.bars.present_TS, np.log(self.bars.open_TS), np.nan)
        earned_TSH = np.full((*log_TS.shape, len(HORIZONS)), np.nan)
        for h, horizon in enumerate(HORIZONS):
            count = len(log_TS) - LAG - horizon
            earned_TSH[:count, :, h] = log_TS[LAG + horizon :] - log_TS[LAG : LAG + count]
        return earned_TSH

    def spans(self, period: str, pace: int = 1) -> list[Span]:
        """The folds of valid or test; pace: how many of them one model forecasts."""
        sessions_T = self.bars.sessions_T
        days = getattr(self, period)
        end = self.test[0] if period == "valid" else None
        starts = [int(np.searchsorted(sessions_T, np.datetime64(day))) for day in days]
        starts.append(int(np.searchsorted(sessions_T, np.datetime64(end))) if end else len(sessions_T))
        kept = range(0, len(days), pace)
        return [
            Span(f"{days[i]}x{min(pace, len(days) - i)}", starts[i], starts[min(i + pace, len(days))]) for i in kept
        ]

    def rows(self, period: str) -> slice:
        """The sessions of a whole period; those of validation end where a label would reach into the test days."""
        spans = self.spans(period)
        return slice(spans[0].start, spans[-1].stop - (PURGE if period == "valid" else 0))


def years(first: int, last: int) -> tuple[str, ...]:
    """The first days of some years."""
    return tuple(f"{year}-01-01" for year in range(first, last + 1))


def all_sets(folder: Path) -> dict[str, Set]:
    """The four sets by name."""
    halves = ("2014-01-01", "2014-07-01", "2015-01-01", "2015-07-01")
    return {
        found.name: found
        for found in (
            Set("us300", "us300_2005_2017.parquet", years(2010, 2013), years(2014, 2017), folder),
            Set("kdd17", "kdd17_50_2007_2016.parquet", years(2011, 2014), years(2015, 2016), folder),
            Set(
                "stocknet88", "stocknet88_2012_2017.parquet", halves, ("2016-01-01", "2016-07-01", "2017-01-01"), folder
            ),
            Set(
                "sp500_369",
                "sp500_369_1999_2021.parquet",
                years(2007, 2013),
                years(2014, 2021),
                folder,
                tuple(WRONG_EVENTS),
            ),
        )
    }


def kept_at(cache: Path, data: str, model: str, label: str, seed: int, span: Span) -> Path:
    """Where the forecasts of a model for a span are kept."""
    return cache / "forecasts" / data / f"{model}_{label}_{seed}_{span.name}.npz"


def stitched(found: Set, cache: Path, model: str, label: str, seed: int, period: str, pace: int) -> Forecast | None:
    """The forecasts of a period, fold after fold, in the unit of the product; None where one is missing."""
    parts = []
    for span in found.spans(period, pace):
        path = kept_at(cache, found.name, model, label, seed, span)
        if not path.exists():
            return None
        parts.append(np.load(path)["quantiles_TSHQ"])
    rows = found.rows(period)
    quantiles_TSHQ = np.concatenate(parts)[: rows.stop - rows.start].astype(np.float64)
    if label in ABSOLUTE_SCALE:
        span_TSH = found.features.volatility_TS[rows, :, None] * np.sqrt(np.asarray(HORIZONS, float))
        quantiles_TSHQ = quantiles_TSHQ * span_TSH[..., None]
    head_TS = np.full(quantiles_TSHQ.shape[:2], np.nan)
    return Forecast(quantiles_TSHQ, head_TS, HORIZONS, tuple(LEVELS[q] for q in KEPT), relative=label)
