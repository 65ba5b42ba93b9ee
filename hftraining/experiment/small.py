"""A run made small: few symbols and sessions around one border between training and validation, few steps.

The leak proof makes such a run again and again from other bars, through the same code as the run itself.

Legend: T sessions, S symbols.
"""

from dataclasses import dataclass, replace

import numpy as np

from hftraining.core.bars import ARRAYS, Bars
from hftraining.experiment.base_run import BaseRun
from hftraining.experiment.config import ExperimentConfig
from hftraining.experiment.ground import Ground, lay
from hftraining.experiment.splits import splits_of
from hftraining.market.features.rows import VOLATILITY_ROWS
from hftraining.market.labels import BETA_LEAST
from hftraining.market.windows import Splits
from hftraining.model.config import WINDOWED

MOST_SYMBOLS = 10  # all symbols are treated alike, so a few are enough
WINDOW, STEPS, DRAWS = (
    32,
    3,
    (20, 100),
)  # sessions of a training window, see _window; training steps; of null band and bootstrap
SEEDS = 2  # of more, what holds for two holds for all
TRAIN_ROWS, JUDGED_ROWS = 120, 60  # sessions, at least
FEW, NEWLY = 4, 8  # symbols, fewer than which none is listed late; sessions since a new listing
PRESENT_SHARE = 0.75  # of the training sessions, on which a symbol needs a bar to be learned from


@dataclass(frozen=True)
class SmallRun:
    """config, bars, base and sealed: as `lay` takes them. splits: of these bars.

    n_traded: how many symbols, the first ones, are learned and traded; a base's others follow.
    """

    config: ExperimentConfig
    bars: Bars
    base: BaseRun | None
    sealed: bool
    splits: Splits
    n_traded: int

    def ground(self, bars: Bars | None = None) -> Ground:
        """The ground of this run, or of the same run on other bars."""
        return lay(self.config, bars or self.bars, sealed=self.sealed, base=self.base)

    @property
    def judged(self) -> dict[str, slice]:
        """The periods over which accounts are kept."""
        periods = {"valid": self.splits.valid, "test": self.splits.test}
        return {name: rows for name, rows in periods.items() if not (self.sealed and name == "test")}

    def with_holes(self, days: list[int], day: int, rng: np.random.Generator) -> "SmallRun":
        """The same run with fewer bars, so that what fills holes or waits for listings shows.

        On each of the days (rows) one symbol has no bar, and another has none on the row before, either; on `day`, too.
        Of four symbols or more, one is listed some rows before `day`, another after it. The symbol with the most
        training days keeps its bars, unless it is alone: then the days are its holes, but not `day`.
        """
        arrays = {name: getattr(self.bars, name).copy() for name in ARRAYS}
        count_S = self.bars.present_TS[: self.splits.train.stop, : self.n_traded].sum(axis=0)
        others = np.delete(np.arange(len(self.bars.symbols_S)), int(np.argmax(count_S)))
        late = rng.permutation(others)[: 2 if len(others) >= FEW - 1 else 0]
        for array in arrays.values():
            for symbol, row in zip(late, (day - NEWLY, day + 1), strict=False):
                array[:row, symbol] = np.nan
        for row in (*days, day) if len(others) else days:
            present = np.flatnonzero(np.isfinite(arrays["close_TS"][row]))
            present = rng.permutation(np.intersect1d(present, others) if len(others) else present)
            for symbol, first in zip(present, (row, row - 1), strict=False):
                for array in arrays.values():
                    array[first : row + 1, symbol] = np.nan
        return replace(self, bars=replace(self.bars, **arrays))


def small_run(ground: Ground, rng: np.random.Generator, border: int | None = None) -> SmallRun:
    """A run like that of the ground, with random symbols.

    border: the row of the universe on which its validation days begin; at random unless given. A fine-tune keeps its
    base's model, and stocks of both kinds: those to be traded and others.
    """
    universe, config, splits = ground.universe, ground.config, ground.splits
    if ground.sealed:
        universe = universe.rows(slice(0, splits.test.start))  # its last validation days stand for test days
    n_sessions = len(universe.sessions_T)
    purge = config.profit_tracker.lag + max(config.objective.horizons)
    relative = ground.forecaster.relative
    unlabelled = BETA_LEAST if relative == "residual" else VOLATILITY_ROWS  # rows, after the first
    n_train = unlabelled + 1 + max(TRAIN_ROWS, 3 * purge + _window(config))
    n_judged = max(JUDGED_ROWS, purge + 20)
    own = universe.columns_of(ground.bars.symbols_S)
    present_TS = universe.present_TS
    if border is None:
        borders = _borders(present_TS[:, own], n_train, purge)
        borders = borders[borders <= n_sessions - 2 * n_judged - purge]
        border = int(rng.choice(borders)) if len(borders) else splits.valid.start
    # Validation and test days as short as the border needs them, and each longer than the purge.
    n_judged = max(purge + 1, min(n_judged, (n_sessions - border - purge) // 2))
    border = min(border, n_sessions - 2 * n_judged - purge)
    test, stop = border + n_judged + purge, border + 2 * n_judged + purge

    start = _begin(present_TS[: border - purge, own], n_train)
    count_S = present_TS[start : border - purge].sum(axis=0)
    others = sorted(set(range(len(count_S))) - set(own))
    room = MOST_SYMBOLS // 2 if others else MOST_SYMBOLS
    wanted = PRESENT_SHARE * (border - purge - start)
    chosen = _choose(own, count_S, wanted, room, rng), _choose(others, count_S, wanted, MOST_SYMBOLS - room, rng)
    names, other_names = ([universe.symbols_S[s] for s in part] for part in chosen)
    bars = universe.of([*names, *other_names]).rows(slice(start, stop))
    # Labels as of the run: fewer symbols could choose otherwise.
    config = replace(config, objective=replace(config.objective, relative=relative))
    small = _small(config, names, str(universe.sessions_T[border]), str(universe.sessions_T[test]))
    base = ground.base
    if base:
        base = replace(base, forecaster=base.forecaster.knowing(bars.symbols_S))
    return SmallRun(small, bars, base, ground.sealed, splits_of(small, bars), len(names))


def _borders(present_TS: np.ndarray, n_train: int, purge: int) -> np.ndarray:
    """The rows before whose purge some symbol has bars on most of so many sessions."""
    total_TS = np.cumsum(np.vstack([np.zeros((1, present_TS.shape[1]), int), present_TS]), axis=0)
    count_TS = total_TS[n_train:] - total_TS[:-n_train]
    return n_train + purge + np.flatnonzero(count_TS.max(axis=1) >= PRESENT_SHARE * n_train)


def _begin(present_TS: np.ndarray, n_train: int) -> int:
    """The first row, so that some symbol has bars on most of the rows from there."""
    while True:
        start = max(0, len(present_TS) - n_train)
        if start == 0 or present_TS[start:].sum(axis=0).max() >= PRESENT_SHARE * n_train:
            return start
        n_train *= 2


def _choose(columns: list[int], count_S: np.ndarray, wanted: float, room: int, rng: np.random.Generator) -> list[int]:
    """Some of the columns in rising order: for the most part symbols with bars enough, then any, such as late ones."""
    shuffled = [int(s) for s in rng.permutation(columns)]
    enough = [s for s in shuffled if count_S[s] >= wanted] or sorted(shuffled, key=lambda s: -count_S[s])
    first = enough[: max(1, room - 2)]
    return sorted(first + [s for s in shuffled if s not in first][: room - len(first)])


def _window(config: ExperimentConfig) -> int:
    """Sessions of a training window: few, but all that a kind which reads a window anew sees for a forecast."""
    least = config.model.context if config.model.kind in WINDOWED else 0
    return min(config.training.window, max(WINDOW, least))


def _small(config: ExperimentConfig, symbols: list[str], valid: str, test: str) -> ExperimentConfig:
    training = config.training
    null_draws, bootstrap_draws = DRAWS
    return replace(
        config,
        stocks=replace(
            config.stocks, symbols=symbols, exclude=[], start=None, end=None, valid_start=valid, test_start=test
        ),
        training=replace(
            training,
            max_steps=STEPS,
            processes=1,
            engine="local",
            accumulate=1,
            seeds=min(training.seeds, SEEDS),
            compile=False,  # which takes minutes, and computes the same
            batch_size=min(training.symbols_per_window, len(symbols)),  # one window
            window=_window(config),
            warmup_steps=0,
            history=training.history if training.history >= TRAIN_ROWS else 0,  # fewer days may be too few here
            checkpoint_every=STEPS,
            log_every=1,
        ),
        profit_tracker=replace(config.profit_tracker, every=1),
        evidence=replace(config.evidence, null_draws=null_draws, bootstrap_draws=bootstrap_draws),
        resume=None,
    )
