"""Leaks that show on rare days only: very many days, each with bars that end on it, in place of a whole other future.

Legend: T sessions, S symbols, N days to try.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from hftraining.core.bars import Bars
from hftraining.experiment.ground import Ground
from hftraining.experiment.outcome import decided_daily
from hftraining.experiment.periods import Period
from hftraining.experiment.small import MOST_SYMBOLS
from hftraining.market.features.rows import VOLATILITY_ROWS
from hftraining.market.features.table import Features, make_features
from hftraining.market.labels import label_span
from hftraining.model.ensemble import Predictor

GROUP = 100  # days that share random symbols
ROUNDING = 1e-4  # relative; a forecast is the same to 1e-6 wherever its bars begin and end
SHARE = 0.2  # of the days: from each kind of unusual day


def sweep_days(ground: Ground, forecaster: Predictor, count: int, rng: np.random.Generator) -> list[str]:
    """Compare features, forecasts and weights of many days between whole bars and bars that end on the day.

    count: how many days, or all if there are fewer; days of extreme returns and volumes, the days before them and the
    ends of months are preferred. Returns what changed, one sentence each.
    """
    names = np.asarray(ground.bars.symbols_S, object)
    days_N = unusual_first(ground.bars, count, rng)
    for first in range(0, len(days_N), GROUP):
        chosen = sorted(rng.permutation(len(names))[:MOST_SYMBOLS])
        bars = ground.bars.of(list(names[chosen]))
        if lines := _Whole(ground, forecaster, bars).compared(np.sort(days_N[first : first + GROUP])):
            return lines  # enough is known
    return []


def unusual_first(bars: Bars, count: int, rng: np.random.Generator) -> np.ndarray:
    """Rows to try, in random order: a share of each kind of unusual day, and any others."""
    n = len(bars.sessions_T)
    candidates = np.arange(VOLATILITY_ROWS + 1, n - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        move_TS = np.abs(np.diff(np.log(bars.close_TS), axis=0, prepend=np.nan))
        surprise_T = np.nan_to_num(move_TS / _typical(move_TS)).max(axis=1)
        traded_T = np.nan_to_num(bars.volume_TS / _typical(bars.volume_TS)).max(axis=1)
    month_T = bars.sessions_T.astype("datetime64[M]")
    ends_T = np.append(month_T[1:] != month_T[:-1], True).astype(float) + rng.random(n) / 2
    before_T = np.append(surprise_T[1:], 0.0)
    most = int(SHARE * count)
    chosen = [
        candidates[np.argsort(-score_T[candidates])][:most] for score_T in (surprise_T, before_T, traded_T, ends_T)
    ]
    unusual = np.unique(np.concatenate(chosen))
    others = rng.permutation(np.setdiff1d(candidates, unusual))[: max(0, count - len(unusual))]
    return rng.permutation(np.concatenate([unusual, others]))


def until(bars: Bars, day: int) -> Bars:
    """The bars, splits and dividends up to a row."""
    is_past = pd.to_datetime(bars.events["date"]).to_numpy().astype("datetime64[D]") <= bars.sessions_T[day]
    return replace(bars.rows(slice(0, day + 1)), events=bars.events[is_past])


def _typical(values_TS: np.ndarray) -> np.ndarray:
    """The median of each symbol; 1 for one without bars."""
    known_S = np.isfinite(values_TS).any(axis=0)
    typical_S = np.ones(values_TS.shape[1])
    typical_S[known_S] = np.nanmedian(values_TS[:, known_S], axis=0)
    return np.where(typical_S > 0.0, typical_S, 1.0)


class _Whole:
    """Features, forecasts and weights of whole bars, and the same of bars that end on a day."""

    def __init__(self, ground: Ground, forecaster: Predictor, bars: Bars):
        self.forecaster, self.bars = forecaster, bars
        self.features = make_features(bars, forecaster.columns)
        span_TSH = label_span(self.features.volatility_TS, forecaster.horizons, forecaster.relative)
        self.unit_TSH = np.nan_to_num(span_TSH, nan=1.0)
        self.labels_TSH = np.zeros((*bars.close_TS.shape, len(forecaster.horizons)), np.float32)
        self.forecast = self._period(bars, self.features, 0).forecast(forecaster)
        self.tracker = decided_daily(ground.tracker)
        self.weights_TS = self.tracker.evaluate(bars, self.forecast).weights_TS

    def _period(self, bars: Bars, features: Features, first: int) -> Period:
        rows, lead = slice(first, len(bars.sessions_T)), self.forecaster.receptive_field - 1
        horizons, relative = list(self.forecaster.horizons), self.forecaster.relative
        return Period.cut(bars, features, self.labels_TSH[: rows.stop], horizons, rows, lead, relative)

    def compared(self, days_N: np.ndarray) -> list[str]:
        return [line for day in days_N for line in self._on(int(day))]

    def _on(self, day: int) -> list[str]:
        rows, bars = slice(0, day + 1), until(self.bars, day)
        features = make_features(bars, self.features.names)
        forecast = self._period(bars, features, day).forecast(self.forecaster)
        weights_TS = self.tracker.evaluate(bars, self.forecast.rows(rows)).weights_TS
        ours = {
            "features": _equal(features.values_TSF, self.features.values_TSF[rows]),
            "volatilities": _equal(features.volatility_TS, self.features.volatility_TS[rows]),
            "forecasts": self._near(forecast.quantiles_TSHQ[0], self.forecast.quantiles_TSHQ[day], day),
            "positions": np.allclose(
                forecast.head_TS[0], self.forecast.head_TS[day], rtol=0.0, atol=ROUNDING, equal_nan=True
            ),
            "weights": _equal(weights_TS, self.weights_TS[rows]),
        }
        when = self.bars.sessions_T[day]
        return [
            f"{name} up to {when} are others when the bars end on that day" for name, same in ours.items() if not same
        ]

    def _near(self, a_SHQ: np.ndarray, b_SHQ: np.ndarray, day: int) -> bool:
        unit_SH1 = self.unit_TSH[day][:, :, None]
        return np.allclose(a_SHQ / unit_SH1, b_SHQ / unit_SH1, rtol=ROUNDING, atol=ROUNDING, equal_nan=True)


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b, equal_nan=True)
