"""Features that were made before, of the same bars, columns and code, from the user's cache: see market/kept.py.

Legend: T sessions, S symbols, F features, D sessions and K symbols of a sample.

A table that is taken from there is not believed: some symbols, drawn anew each time, are made again, and must be equal
to the bit on some days.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numba
import numpy as np

from hftraining.core.bars import Bars
from hftraining.market.features.lookup import packages_of
from hftraining.market.features.names import base_of
from hftraining.market.features.rows import market_of, market_on
from hftraining.market.features.table import Features, known_of, make_features
from hftraining.market.kept import Arrays, Kept, Layout, NoRoom, code_of, machine_facts, unlike

LOGGER = logging.getLogger("hftraining")
WHAT = "features of these bars"
LEAST_VALUES = 2**24  # below, making them takes well under a second
MOST_BYTES_IN_MEMORY = 2**28  # of a table; a larger one is made right in its file, some symbols at a time
SYMBOLS_TRIED, DAYS_TRIED, MARKET_TRIED = 2, 64, 3  # of a table from the cache: its map is read at these places alone
Make = Callable[..., Features]  # as make_features


def kept_features(bars: Bars, columns: Sequence[str], make: Make) -> Features:
    """What make(bars, columns) gives, from the cache where it is there, and kept there where it was made.

    Few values, and those of installed packages, whose code may change under one version, are made each time. A file
    that is damaged, of another user or not what the code makes is made anew, and a folder that cannot be written is
    done without; both are said. Where a table is large and has no room in the cache, it is made in memory.
    """
    if bars.close_TS.size * len(columns) < LEAST_VALUES or packages_of(columns):
        return make(bars, columns)
    kept = Kept("features.cache", "features", _facts(bars, columns))
    shape = bars.close_TS.shape
    layout: Layout = {
        "volatility_TS": ("<f8", shape),
        "market_T": ("<f8", shape[:1]),
        "values_TSF": ("<f4", (*shape, len(columns))),
        "known_TS": ("|b1", shape),
    }
    if found := kept.load(lambda said, arrays: unlike(arrays, layout, WHAT) or _differs(bars, columns, arrays)):
        return _features(columns, found[1], kept.facts)
    if 4 * bars.close_TS.size * len(columns) <= MOST_BYTES_IN_MEMORY:
        made = make(bars, columns)
        kept.save({}, _arrays(made, bars))
        return made
    try:
        with kept.filling(layout, {}) as room:
            made = make(bars, columns, room)
            room["market_T"][...] = market_of(bars)
            room["known_TS"][...] = known_of(made.values_TSF, room.let_go)
            del made
    except (NoRoom, OSError) as error:
        LOGGER.warning("features.cache: %s: a table of %s values is held in memory", error, f"{made_size(layout):,}")
        return make(bars, columns)
    if found := kept.load(lambda said, arrays: unlike(arrays, layout, WHAT)):
        return _features(columns, found[1], kept.facts)
    return make(bars, columns)  # another process made room, or it lies where anybody may write: said by load


def made_size(layout: Layout) -> int:
    """How many values a table has."""
    return int(np.prod(layout["values_TSF"][1]))


def _facts(bars: Bars, columns: Sequence[str]) -> dict[str, Any]:
    room = Path(__file__).parent
    return {
        "bars": bars.fingerprint(),
        "shape": [*bars.close_TS.shape, len(columns)],
        "columns": list(columns),
        "code": code_of(room, room.parent / "kept.py", room.parents[1] / "core" / "bars.py"),
        **machine_facts(np.__version__, numba.__version__),
    }


def _arrays(made: Features, bars: Bars) -> Arrays:
    return {
        "volatility_TS": made.volatility_TS,
        "market_T": market_of(bars),
        "values_TSF": made.values_TSF,
        "known_TS": made.known_TS,
    }


def _features(columns: Sequence[str], arrays: Arrays, facts: dict[str, Any]) -> Features:
    """The values as views of the file, which are read when they are used and cannot be written."""
    features = Features(tuple(columns), arrays["values_TSF"], arrays["volatility_TS"])
    features.__dict__.update(known_TS=arrays["known_TS"], kept_as=facts)  # neither outlives dataclasses.replace
    return features


def _differs(bars: Bars, columns: Sequence[str], arrays: Arrays) -> str:
    """What of a table is not what the code makes; nothing where a sample of it is equal to the bit.

    Ranks are held against each other alone: the ranks of two symbols must be in the order of what they rank.
    """
    rng = np.random.default_rng()
    n_sessions, n_symbols = bars.close_TS.shape
    drawn_K = np.sort(rng.choice(n_symbols, min(SYMBOLS_TRIED, n_symbols), replace=False))
    few = bars.of([bars.symbols_S[k] for k in drawn_K])
    market_T = arrays["market_T"].copy()  # which may be written: numba would load its loops anew for one that may not
    for t in rng.choice(n_sessions, min(MARKET_TRIED, n_sessions), replace=False):
        if market_on(bars, int(t)) != market_T[t]:
            return f"has another return of the market on {bars.sessions_T[t]} than its bars"
    bases = list(dict.fromkeys(map(base_of, columns)))
    made = make_features(few, bases, market_T=market_T)
    days = rng.choice(n_sessions, min(DAYS_TRIED, n_sessions), replace=False)
    place = np.ix_(days, drawn_K)
    own_DKF, made_DKF = arrays["values_TSF"][place], made.values_TSF[days]
    for f, name in enumerate(columns):
        own_DK, made_DK = own_DKF[:, :, f], made_DKF[:, :, bases.index(base_of(name))]
        if base_of(name) == name:
            same = np.array_equal(own_DK, made_DK, equal_nan=True)
        else:
            same = bool((_order(own_DK) == _order(made_DK)).all())
        if not same:
            return f"has other values of {name} than its bars"
    others = (
        np.array_equal(arrays["volatility_TS"][place], made.volatility_TS[days], equal_nan=True),
        np.array_equal(arrays["known_TS"][place], made.known_TS[days]),
    )
    return "" if all(others) else "has other volatilities or known days than its bars"


def _order(values_DK: np.ndarray) -> np.ndarray:
    """Of each day: whether the first or the last symbol of a sample has more, and which are known."""
    known_DK = np.isfinite(values_DK)
    return np.column_stack([np.nan_to_num(np.sign(values_DK[:, -1] - values_DK[:, 0])), known_DK])
