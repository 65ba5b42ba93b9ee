"""The leak proof: replace the future by noise; nothing that was known before may change by a bit.

Legend: T sessions, S symbols.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from hftraining.core.bars import ARRAYS, Bars
from hftraining.core.forecast import Forecast
from hftraining.market.features import Features, Scaler, make_features
from hftraining.trading.config import ProfitTrackerConfig
from hftraining.trading.simulator import simulate

MOST_SYMBOLS = 10  # all symbols are treated alike, so a few are enough and keep the proof quick
AFTERWARDS = 40  # sessions of noise that are used: they reveal a centred window as wide as 80


@dataclass(frozen=True)
class Way:
    """The steps of a run from bars to shares held."""

    forecast: Callable[[Scaler, Features], Forecast]
    decide: Callable[[Forecast, Bars], np.ndarray]
    rules: ProfitTrackerConfig
    make_features: Callable[[Bars], Features] = make_features
    fit_scaler: Callable[[Features, slice], Scaler] = Scaler.fit


@dataclass(frozen=True)
class LeakReport:
    """ok: nothing changed. lines: what changed, one sentence each. days: how many futures were replaced."""

    ok: bool
    lines: list[str] = field(default_factory=list)
    days: int = 0
    seconds: float = 0.0


def prove(bars: Bars, train: slice, way: Way, reach: int, days: int, seed: int) -> LeakReport:
    """Replace the bars after random days by noise and compare everything that was known by those days.

    train: the sessions that the scaler is fitted on. reach: how many earlier sessions a forecast depends on.
    After the close of day t: features, scaled features, forecasts and weights up to t must not change, nor
    the scaler on every second day, which lies after the training days. After the open of t: the shares held through t
    must not change, or a decision was filled before it was taken. One symbol has no bar on day t and the day before,
    so that filling backwards shows.
    """
    started = time.perf_counter()
    rng = np.random.default_rng([seed, 0x1EAF])
    lines: list[str] = []
    for number in range(days):
        behind = number % 2 == 0
        first = train.stop if behind else min(30, train.stop - 1)
        some = bars.of([bars.symbols_S[s] for s in np.sort(rng.permutation(len(bars.symbols_S))[:MOST_SYMBOLS])])
        day = int(rng.choice(first + np.flatnonzero(some.present_TS[first:-2].any(axis=1))))
        hole = int(rng.choice(np.flatnonzero(some.present_TS[day])))
        some = _with_hole(some, slice(day - 1, day + 1), hole)
        seen = _outcome(some, train, way, reach, day, None)
        scaler = None if behind else seen.scaler
        after_close = _outcome(_noise_after(some, day, rng, keep_open=False), train, way, reach, day, scaler)
        after_open = _outcome(_noise_after(some, day, rng, keep_open=True), train, way, reach, day, scaler)
        when = bars.sessions_T[day]
        if behind and seen.scaler != after_close.scaler:
            lines.append(f"the scaler changes with bars after {when}, although they are not training days")
        for name in seen.known:
            if not np.array_equal(seen.known[name], after_close.known[name], equal_nan=True):
                lines.append(f"{name} up to {when} change with bars after that day")
        if not np.array_equal(seen.shares_TS, after_open.shares_TS):
            lines.append(f"shares held at the open of {when} change with what happens after it (lag 0)")
    return LeakReport(not lines, lines, days, time.perf_counter() - started)


@dataclass(frozen=True)
class _Outcome:
    scaler: Scaler
    known: dict[str, np.ndarray]  # by the close of the day
    shares_TS: np.ndarray  # through the day


def _outcome(bars: Bars, train: slice, way: Way, reach: int, day: int, scaler: Scaler | None) -> _Outcome:
    features = way.make_features(bars)
    scaler = scaler or way.fit_scaler(features, train)
    first, last = max(0, day - reach - AFTERWARDS), min(len(bars.sessions_T), day + 1 + AFTERWARDS)
    near = Features(features.values_TSF[first:last], features.volatility_TS[first:last])
    forecast = way.forecast(scaler, near)
    cut = bars.rows(slice(first, last))
    weights_TS = way.decide(forecast, cut)
    # Without exits inside the day, the shares held through it were ordered before it.
    rules = replace(way.rules, stop_loss=0.0, take_profit=0.0)
    held = simulate(cut.open_TS, cut.high_TS, cut.low_TS, cut.close_TS, weights_TS, rules)
    until = day + 1 - first
    known = {
        "features": features.values_TSF[: day + 1],
        "volatilities": features.volatility_TS[: day + 1],
        "scaled features": scaler.scale(near.values_TSF[:until]),
        "forecasts": forecast.quantiles_TSHQ[:until],
        "positions": forecast.head_TS[:until],
        "weights": weights_TS[:until],
    }
    return _Outcome(scaler, known, held.shares_TS[:until])


def _with_hole(bars: Bars, rows: slice, symbol: int) -> Bars:
    arrays = {name: getattr(bars, name).copy() for name in ARRAYS}
    for array in arrays.values():
        array[rows, symbol] = np.nan
    return replace(bars, **arrays)


def _noise_after(bars: Bars, day: int, rng: np.random.Generator, keep_open: bool) -> Bars:
    """Replace all bars after the day by noise at other levels; with keep_open, also the day itself after its open.

    A bar is present where it was before; only its values change.
    """
    first = day if keep_open else day + 1
    arrays = {name: getattr(bars, name).copy() for name in ARRAYS}
    shape = arrays["close_TS"][first:].shape
    traded_S = np.isfinite(bars.close_TS).any(axis=0)
    level = np.exp(rng.uniform(-1.0, 1.0, shape[1]))
    level[traded_S] *= np.nanmedian(bars.close_TS[:, traded_S], axis=0)
    close = level * np.exp(0.05 * np.cumsum(rng.standard_normal(shape), axis=0))
    opening = close * np.exp(0.03 * rng.standard_normal(shape))
    if keep_open:
        # The day itself moves by at most a tenth: a ruined account would rightly close its positions within the day.
        opening[0] = arrays["open_TS"][day]
        close[0] = opening[0] * np.exp(np.clip(0.05 * rng.standard_normal(shape[1]), -0.1, 0.1))
    absent = np.isnan(arrays["close_TS"][first:])
    noise = {
        "open_TS": opening,
        "close_TS": close,
        "high_TS": np.maximum(opening, close) * np.exp(np.abs(0.02 * rng.standard_normal(shape))),
        "low_TS": np.minimum(opening, close) * np.exp(-np.abs(0.02 * rng.standard_normal(shape))),
        "volume_TS": np.exp(rng.uniform(8, 16, shape)),
    }
    for name, values in noise.items():
        arrays[name][first:] = np.where(absent, np.nan, values)
    return replace(bars, **arrays)
