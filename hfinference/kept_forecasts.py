"""Forecasts of earlier sessions, from the user's cache: see market/kept.py.

A portfolio that remembers is asked each day for forecasts of hundreds of sessions, of which all but the last were made
the day before. They count for the same model, symbols, code, libraries and machine, and only where all bars that they
depend on are what they were: a split or a correction in the history takes nothing. The last one that is kept is made
again with today's, and must come out as it was.

Legend: T sessions, S symbols, H horizons, Q quantiles.
"""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch

from hfinference.bars_of_run import RunBars
from hfinference.trained import TrainedModel
from hftraining.core.bars import Bars
from hftraining.core.files import sha256
from hftraining.core.forecast import Forecast
from hftraining.market import kept as files
from hftraining.market.features.lookup import packages_of
from hftraining.market.kept import Arrays, Kept, Layout, code_of, machine_facts, unlike
from hftraining.model.folder import CONFIG

LOGGER = logging.getLogger("hftraining")
ROOM = "forecasts"  # of the cache
LEAST_FORECASTS = 2**14  # sessions x symbols; fewer take well under a second
MOST_SESSIONS = 1_000  # that are kept
ALIKE = 1e-6  # forecasts of the same bars, wherever these begin and however many threads there are
Make = Callable[[int, int], Forecast]  # of the sessions of two rows and between
Needed = Callable[[int, int], int]  # the first row whose bars these depend on


@dataclass(frozen=True)
class _Earlier:
    """Forecasts that were kept. rows: of the bars. begin: the first row that they depend on."""

    forecast: Forecast
    rows: slice
    begin: int


def kept_forecast(model: TrainedModel, bars: RunBars, first: int, today: int, needed: Needed, make: Make) -> Forecast:
    """What make(first, today) gives to 1e-6, of which the cache holds what an earlier call has made.

    That of today is always made. Few forecasts, and those of features of installed packages, whose code may change
    under one version, are made each time. What is damaged or of another user is made anew, and a folder that cannot be
    written is done without; both are said.
    """
    universe = bars.universe
    if (today + 1 - first) * len(bars.symbols) < LEAST_FORECASTS or packages_of(model.columns):
        return make(first, today)
    kept = Kept("forecast", ROOM, _facts(model, bars))
    before = _earlier(kept, model, universe, len(bars.symbols))
    if before and before.rows.start <= first <= min(before.rows.stop - 1, today):
        checked = min(before.rows.stop - 1, today)
        made = make(checked, today)
        place = checked - before.rows.start
        if _alike(before.forecast.rows(slice(place, place + 1)), made.rows(slice(0, 1))):
            whole = _joined(before.forecast.rows(slice(0, place)), made)
            start = before.rows.start
            if today >= before.rows.stop:
                kept_from = max(start, min(first, today + 1 - MOST_SESSIONS))
                begin = before.begin if kept_from == start else needed(kept_from, today)
                _keep(kept, universe, whole.rows(slice(kept_from - start, None)), slice(kept_from, today + 1), begin)
            return whole.rows(slice(first - start, None))
        LOGGER.warning("forecast: %s has another forecast of its last day than the model: made anew", kept.data)
    made = make(first, today)
    _keep(kept, universe, made, slice(first, today + 1), needed(first, today))
    return made


def _facts(model: TrainedModel, bars: RunBars) -> dict[str, Any]:
    """All that forecasts depend on beside the bars, whose digest is said of them."""
    names = ["\0".join(symbols).encode() for symbols in (bars.universe.symbols_S, bars.symbols)]
    market = Path(files.__file__).parent
    rooms = [market.parent / "core", market / "features", market.parent / "model", market / "kept.py"]
    return {
        # It names the SHA-256 of all other files, which held when the model was loaded.
        "model": sha256((model.folder / "model" if model.manifest else model.folder) / CONFIG),
        "symbols": [hashlib.sha256(name).hexdigest() for name in names],
        "device": model.device,
        "code": code_of(*rooms, *(Path(__file__).with_name(name) for name in ("forecast.py", "trained.py"))),
        **machine_facts(np.__version__, numba.__version__, torch.__version__, _version("lightgbm")),
    }


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


def _earlier(kept: Kept, model: TrainedModel, universe: Bars, n_symbols: int) -> _Earlier | None:
    """What was kept, where the bars that it was made of stand in these unchanged."""
    found = kept.load(partial(_wrong, (n_symbols, len(model.horizons), len(model.levels))))
    if found is None:
        return None
    said, arrays = found
    sessions_T = universe.sessions_T
    days = np.array([said["begin"], said["first"], said["last"]], "datetime64[D]")
    begin, first, last = (int(row) for row in np.searchsorted(sessions_T, days))
    if last >= len(sessions_T) or (sessions_T[[begin, first, last]] != days).any():
        return None
    rows = slice(first, last + 1)
    if last + 1 - first != len(arrays["head_TS"]) or _digest(universe, begin, last) != said["bars"]:
        LOGGER.info("forecast: the bars until %s are not what they were: all sessions are forecast", said["last"])
        return None
    shape = model.horizons, model.levels, model.relative
    return _Earlier(Forecast(arrays["quantiles_TSHQ"], arrays["head_TS"], *shape), rows, begin)


def _wrong(shape: tuple[int, int, int], said: dict[str, Any], arrays: Arrays) -> str:
    """What no call of ours has written, in words."""
    try:
        texts = all(type(said[name]) is str for name in ("begin", "first", "last", "bars"))
        days = [np.datetime64(said[name], "D") for name in ("begin", "first", "last")]
        whole = texts and days == sorted(days)
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole or np.isnat(days).any():
        return "has facts beside it that are none of forecasts"
    sessions = (arrays.get("head_TS", np.zeros(0)).shape or (0,))[0]
    layout: Layout = {"quantiles_TSHQ": ("<f8", (sessions, *shape)), "head_TS": ("<f8", (sessions, *shape[:1]))}
    return unlike(arrays, layout, "forecasts of these symbols")


def _digest(universe: Bars, begin: int, last: int) -> str:
    return universe.rows(slice(begin, last + 1)).fingerprint()


def _keep(kept: Kept, universe: Bars, forecast: Forecast, rows: slice, begin: int) -> None:
    first, last = rows.start, rows.stop - 1
    days = {"begin": begin, "first": first, "last": last}
    said = {name: str(universe.sessions_T[row]) for name, row in days.items()}
    arrays = {"quantiles_TSHQ": forecast.quantiles_TSHQ, "head_TS": forecast.head_TS}
    kept.save(said | {"bars": _digest(universe, begin, last)}, arrays)


def _alike(one: Forecast, other: Forecast) -> bool:
    pairs = ((one.quantiles_TSHQ, other.quantiles_TSHQ), (one.head_TS, other.head_TS))
    return all(np.allclose(*pair, rtol=0.0, atol=ALIKE, equal_nan=True) for pair in pairs)


def _joined(earlier: Forecast, later: Forecast) -> Forecast:
    """Two forecasts of sessions one after the other, as one."""
    quantiles_TSHQ = np.concatenate([earlier.quantiles_TSHQ, later.quantiles_TSHQ])
    return replace(later, quantiles_TSHQ=quantiles_TSHQ, head_TS=np.concatenate([earlier.head_TS, later.head_TS]))
