"""Features of installed packages on all of a run's own bars: what the perturbation proof and small runs cannot see.

Such a feature may be sound on a few hundred rows of a few stocks, and look ahead in long series, in some stocks or on
rare days. Ours are tested; those of others are made here once more, of the run's bars with other futures.

Legend: T sessions, S symbols, F features.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from hftraining.core.bars import ARRAYS, Bars
from hftraining.evidence.noise import other_future
from hftraining.experiment.ground import Ground
from hftraining.experiment.rare_days import until
from hftraining.market.features.lookup import packages_of
from hftraining.market.features.names import base_of
from hftraining.market.features.perturbation import keeps_what_it_made, shaken
from hftraining.market.features.rows import VOLATILITY_ROWS, market_of
from hftraining.market.features.table import make_features

SCATTERED, TIMES = 32, 2  # days, at least, and times, after which some stock goes on otherwise by itself


def their_lines(ground: Ground, rng: np.random.Generator) -> list[str]:
    """What is wrong with the columns of installed packages, one sentence each: all that the first check finds.

    The table that the run has is held against the same bars made again; then bars that end, and go on otherwise, after
    the training days and after the validation days; then bars of which each stock goes on otherwise from a day of its
    own. Nothing is made for a run without such columns.
    """
    columns = [name for name in ground.config.features.columns if packages_of([name])]
    if not columns:
        return []
    seen = ground.universe.rows(slice(0, ground.splits.test.start)) if ground.sealed else ground.universe
    return next((lines for lines in _checks(ground, seen, columns, rng) if lines), [])


def _checks(ground: Ground, seen: Bars, columns: Sequence[str], rng: np.random.Generator) -> Iterator[list[str]]:
    made_TSF = make_features(seen, columns).values_TSF
    table_TSF = ground.features.values_TSF[:, :, [ground.features.names.index(name) for name in columns]]
    again_TSF = made_TSF[:, seen.columns_of(ground.bars.symbols_S)]
    known_TS1 = np.isfinite(table_TSF)  # a day on which any column is unknown has none
    again_TSF = np.where(known_TS1, again_TSF, np.nan)
    yield [f"feature {name} is another when it is made again" for name in _apart(columns, again_TSF, table_TSF)]
    for day in (ground.splits.train.stop - 1, ground.splits.test.start - 1):
        if day >= len(seen.sessions_T) - 1:
            continue
        when, rows = seen.sessions_T[day], slice(0, day + 1)
        ended_TSF = make_features(until(seen, day), columns).values_TSF
        names = _apart(columns, ended_TSF, made_TSF[rows])
        yield [f"feature {name} up to {when} is another when the bars end on that day" for name in names]
        other_TSF = make_features(other_future(seen, day, rng), columns).values_TSF
        names = _apart(columns, other_TSF[rows], made_TSF[rows])
        yield [f"feature {name} up to {when} changes with bars after that day" for name in names]
    bases, market_T = list(dict.fromkeys(map(base_of, columns))), market_of(seen)
    plain_TSF = make_features(seen, bases, market_T=market_T).values_TSF
    yield _kept(seen, bases, plain_TSF, market_T, rng)
    for _ in range(max(TIMES, -(-SCATTERED // len(seen.symbols_S)))):
        yield _scattered(seen, bases, plain_TSF, market_T, rng)


def _kept(
    seen: Bars, bases: Sequence[str], plain_TSF: np.ndarray, market_T: np.ndarray, rng: np.random.Generator
) -> list[str]:
    """A feature that keeps what it has made gives it again for bars with the same beginning, and not for others."""
    first = len(seen.sessions_T) // 2
    later_TSF, all_TSF = (
        make_features(shaken(seen, row, rng), bases, market_T=market_T).values_TSF[first:] for row in (first, 0)
    )
    kept_SF = keeps_what_it_made(plain_TSF[first:], later_TSF, all_TSF)
    names = [name for name, kept_S in zip(bases, kept_SF.T, strict=True) if kept_S.any()]
    when = seen.sessions_T[first]
    return [f"feature {name} keeps what it has made: from {when} on it follows earlier bars alone" for name in names]


def _scattered(
    seen: Bars, bases: Sequence[str], plain_TSF: np.ndarray, market_T: np.ndarray, rng: np.random.Generator
) -> list[str]:
    """Let each stock go on otherwise after a day of its own, beside the same market: as many days as stocks."""
    n_sessions, n_symbols = seen.close_TS.shape
    first = min(VOLATILITY_ROWS, n_sessions - 2)
    other = other_future(seen, first, rng)
    is_past_TS = np.arange(n_sessions)[:, None] <= rng.integers(first, n_sessions - 1, n_symbols)
    mixed = {name: np.where(is_past_TS, getattr(seen, name), getattr(other, name)) for name in ARRAYS}
    made_TSF = make_features(replace(seen, **mixed), bases, market_T=market_T).values_TSF
    is_past_TS1 = is_past_TS[:, :, None]
    names = _apart(bases, np.where(is_past_TS1, made_TSF, 0.0), np.where(is_past_TS1, plain_TSF, 0.0))
    return [f"feature {name} of a stock changes with its later bars" for name in names]


def _apart(names: Sequence[str], one_TSF: np.ndarray, other_TSF: np.ndarray) -> list[str]:
    """The columns that are not equal to the bit."""
    return [
        name for f, name in enumerate(names) if not np.array_equal(one_TSF[..., f], other_TSF[..., f], equal_nan=True)
    ]
