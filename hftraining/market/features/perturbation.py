"""The perturbation proof: a feature is run on bars with another future, and may not know it.

Legend: T sessions, S symbols, N rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from hftraining.core.bars import ARRAYS, Bars
from hftraining.market.features.registry import INPUTS, Feature, fault_of
from hftraining.market.features.rows import VOLATILITY_ROWS, Rows, market_of

SESSIONS, SYMBOLS = 420, 6
DAYS = (30, 190, 333, 418)  # after which the bars are others
# What the features of some rows have in common; market_T is one array for all rows.
SHARED = (
    *(name.replace("_TS", "_SN") for name in ARRAYS),
    *("day_SN", "market_T", "log_close_SN", "return_SN", "volatility_SN"),
)
PRICES, VOLUMES = 1000.0, 10.0  # what a scale-free feature does not see
ROUNDING = 1e-5
ALIKE, LEAST_SPREAD = 1e-3, 1e-6  # marks: as a share of the standard deviation; that as a share of the mean


def faults_of(feature: Feature) -> list[str]:
    """What a feature does that it must not, one sentence each; none for a feature that is sound.

    It must give finite values_SN that are the same to the bit whatever comes later, whether or not the bars end,
    whichever other symbols are made beside it, and whatever an input is that it does not declare; up to rounding they
    must be the same wherever the bars begin, if they hold its lookback. It may neither keep what it made of other bars
    nor change what other features are made of, and where it claims to be scale-free prices times 1,000 and volumes
    times 10 must not change it.
    """
    rng = np.random.default_rng(20240229)
    bars = random_bars(rng)
    whole = Rows(bars, slice(0, SYMBOLS), market_of(bars))
    with np.errstate(all="ignore"):
        before = {name: getattr(whole, name).copy() for name in SHARED}
        made_SN = feature.make(whole)
        if fault := fault_of(made_SN, whole):
            return [fault]
        values_TS = _placed(made_SN, whole)
        if changed := [name for name, array in before.items() if not _equal(getattr(whole, name), array)]:
            return [f"it changes its inputs: rows.{changed[0]}, of which the other features are made, too"]
        if not np.isfinite(values_TS).any():
            return [f"it is never known on {SESSIONS} bars"]
        checks: list[Callable[[], list[str]]] = [
            lambda: _of_the_future(feature, bars, values_TS, rng),
            lambda: _of_its_bars(feature, bars, values_TS, rng),
            lambda: _of_its_neighbours(feature, bars, values_TS),
            lambda: _of_undeclared(feature, bars, values_TS, rng),
            lambda: _of_the_distant_past(feature, bars, values_TS),
        ]
        if feature.scale_free:
            checks.append(lambda: _of_scale(feature, bars, values_TS))
        return [line for check in checks for line in check()]


def values_of(
    feature: Feature, bars: Bars, part: slice | None = None, market_T: np.ndarray | None = None
) -> np.ndarray:
    """values_TS of a feature by itself, float64; of some symbols, beside the market of all."""
    rows = Rows(bars, part or slice(0, len(bars.symbols_S)), market_of(bars) if market_T is None else market_T)
    return _placed(feature.make(rows), rows)


def mark_of(feature: Feature) -> list[float]:
    """A few numbers that tell what a feature makes of the proof's bars from what another one would.

    The share of its values that is finite, their mean, their standard deviation, and three sums of the values with
    random factors, as large as one value that stands out.
    """
    rng = np.random.default_rng(20240229)
    with np.errstate(all="ignore"):
        values_TS = values_of(feature, random_bars(rng))
        known_TS = np.isfinite(values_TS)
        known_N, factors_KN = values_TS[known_TS], rng.normal(size=(3, *known_TS.shape))[:, known_TS]
        found = [known_TS.mean(), known_N.mean(), known_N.std(), *(factors_KN @ (known_N - known_N.mean()))]
    marks: list[float] = np.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0).tolist()
    return marks


def is_marked_alike(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two marks are of the same feature: alike but for what rounding, on another machine, may change."""
    if len(one) != len(other) or one[0] != other[0]:
        return False
    mean, spread = abs(one[1]), max(one[2], LEAST_SPREAD * abs(one[1]))  # less than that is rounding of the mean
    with np.errstate(over="ignore"):
        apart_K = np.abs(np.subtract(one[1:], other[1:]))
    return bool((apart_K <= ALIKE * np.array([max(mean, spread), *[spread] * (len(one) - 2)])).all())


def keeps_what_it_made(plain_TS: np.ndarray, later_TS: np.ndarray, all_TS: np.ndarray) -> np.ndarray:
    """Of which symbols the values of some days are the same where these days are shaken, and not where all are.

    later: of bars that are shaken from these days on; all: of bars that are from the first on, which must move half of
    the values, since what marks a few days may miss them by chance.
    """
    same_S = ((later_TS == plain_TS) | ~np.isfinite(plain_TS)).all(axis=0)
    known_TS = np.isfinite(plain_TS)
    moved_S = (known_TS & (all_TS != plain_TS)).sum(axis=0)
    return same_S & known_TS.any(axis=0) & (2 * moved_S >= known_TS.sum(axis=0))


def shaken(bars: Bars, first: int, rng: np.random.Generator) -> Bars:
    """The same bars on the same days, from row `first` on with other prices and volumes."""
    shape = bars.close_TS[first:].shape
    price, volume = np.exp(rng.normal(0.0, 0.1, shape)), np.exp(rng.normal(0.0, 1.0, shape))
    arrays = {name: getattr(bars, name).copy() for name in ARRAYS}
    for name, array_TS in arrays.items():
        array_TS[first:] *= volume if name == "volume_TS" else price
    return _with(bars, arrays)


def random_bars(rng: np.random.Generator) -> Bars:
    """Random walks with holes; one symbol is listed late, one ends early."""
    shape = (SESSIONS, SYMBOLS)
    close_TS = 50.0 * np.exp(np.cumsum(rng.normal(0.0, 0.02, shape), axis=0))
    open_TS = close_TS * np.exp(rng.normal(0.0, 0.01, shape))
    high_TS = np.maximum(open_TS, close_TS) * np.exp(np.abs(rng.normal(0.0, 0.005, shape)))
    low_TS = np.minimum(open_TS, close_TS) * np.exp(-np.abs(rng.normal(0.0, 0.005, shape)))
    volume_TS = np.exp(rng.normal(14.0, 0.5, shape))
    absent_TS = rng.random(shape) < 0.03
    absent_TS[:150, 1] = absent_TS[360:, 2] = True
    for array in (open_TS, high_TS, low_TS, close_TS, volume_TS):
        array[absent_TS] = np.nan
    days = np.busday_offset(np.datetime64("2015-01-01"), np.arange(SESSIONS), roll="forward")
    return Bars(tuple(f"S{s}" for s in range(SYMBOLS)), days, open_TS, high_TS, low_TS, close_TS, volume_TS)


def _of_the_future(feature: Feature, bars: Bars, values_TS: np.ndarray, rng: np.random.Generator) -> list[str]:
    for day in DAYS:
        other = random_bars(rng)
        is_past_T1 = (np.arange(SESSIONS) <= day)[:, None]
        mixed = {name: np.where(is_past_T1, getattr(bars, name), 3.0 * getattr(other, name)) for name in ARRAYS}
        goes_on_TS = values_of(feature, _with(bars, mixed))[: day + 1]
        ends_TS = values_of(feature, bars.rows(slice(0, day + 1)))
        for what, found_TS in (("with other bars after it", goes_on_TS), ("when the bars end on it", ends_TS)):
            if not _equal(found_TS, values_TS[: day + 1]):
                return [f"it looks ahead: its values up to session {day} are others {what}"]
    return []


def _of_its_bars(feature: Feature, bars: Bars, values_TS: np.ndarray, rng: np.random.Generator) -> list[str]:
    first, market_T = SESSIONS // 2, market_of(bars)
    later_TS, all_TS = (values_of(feature, shaken(bars, row, rng), market_T=market_T) for row in (first, 0))
    if not keeps_what_it_made(values_TS[first:], later_TS[first:], all_TS[first:]).any():
        return []
    return [f"it keeps what it has made: its values from session {first} on follow the bars before it alone"]


def _of_its_neighbours(feature: Feature, bars: Bars, values_TS: np.ndarray) -> list[str]:
    market_T, half = market_of(bars), SYMBOLS // 2
    parts = [values_of(feature, bars, part, market_T) for part in (slice(0, half), slice(half, SYMBOLS))]
    same = _equal(np.concatenate(parts, axis=1), values_TS)
    return [] if same else ["it mixes the symbols that are made at once; `market` and NAME_rank are what compares them"]


def _of_the_distant_past(feature: Feature, bars: Bars, values_TS: np.ndarray) -> list[str]:
    """The last day is looked at, with the volatility known, too; a lookback beyond these bars cannot be tried."""
    rows = max(feature.lookback, VOLATILITY_ROWS) + 3  # today's, and two since a first row has no market return
    later_TS = np.cumsum(bars.present_TS[::-1], axis=0)[::-1]  # the bars from a day on
    is_last_S = bars.present_TS[-1] & (later_TS[0] > rows)
    if not is_last_S.any():
        return []
    first = int(np.flatnonzero((later_TS[:, is_last_S] >= rows).all(axis=1))[-1])
    found_S = values_of(feature, bars.rows(slice(first, SESSIONS)))[-1][is_last_S]
    same = np.allclose(found_S, values_TS[-1][is_last_S], rtol=ROUNDING, atol=ROUNDING, equal_nan=True)
    return [] if same else [f"it depends on more than the {feature.lookback} rows before today's of its lookback"]


def _of_undeclared(feature: Feature, bars: Bars, values_TS: np.ndarray, rng: np.random.Generator) -> list[str]:
    market_T, other = market_of(bars), random_bars(rng)
    lines = []
    for name in set(INPUTS) - set(feature.inputs):
        # The close says where a symbol has a bar; elsewhere another one is a number all the same.
        arrays = {} if name == "market" else {f"{name}_TS": _noise(bars, getattr(other, f"{name}_TS"))}
        market = rng.normal(0.0, 0.01, SESSIONS) if name == "market" else market_T
        if not _equal(values_of(feature, _with(bars, arrays), market_T=market), values_TS):
            lines.append(f"it reads {name}, which its inputs do not name")
    return sorted(lines)


def _with(bars: Bars, arrays: dict[str, np.ndarray]) -> Bars:
    return replace(bars, **arrays)  # type: ignore[arg-type]


def _noise(bars: Bars, other_TS: np.ndarray) -> np.ndarray:
    return np.where(bars.present_TS, np.nan_to_num(other_TS, nan=7.0), np.nan)


def _of_scale(feature: Feature, bars: Bars, values_TS: np.ndarray) -> list[str]:
    factors = {name: VOLUMES if name == "volume_TS" else PRICES for name in ARRAYS}
    scaled = _with(bars, {name: getattr(bars, name) * factor for name, factor in factors.items()})
    same = np.allclose(values_of(feature, scaled), values_TS, rtol=ROUNDING, atol=ROUNDING, equal_nan=True)
    return [] if same else ["it claims to be scale-free, but prices times 1,000 and volumes times 10 change it"]


def _placed(values_SN: np.ndarray, rows: Rows) -> np.ndarray:
    """values_TS from rows, NaN between them."""
    out_TS = np.full((len(rows.market_T), len(values_SN)), np.nan)
    s_N, n_N = np.nonzero(rows.day_SN >= 0)
    out_TS[rows.day_SN[s_N, n_N], s_N] = values_SN[s_N, n_N]
    return out_TS


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b, equal_nan=True)
