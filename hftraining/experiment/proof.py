"""The leak proof: the run made small, again and again from bars with another future; what was known may not change.

It goes through the code of the run itself: `lay` makes features, labels, scaler, baselines and periods, `Fitting`
trains, `judge` keeps the accounts. It proves that code with the run's config, on a few sessions and symbols.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hftraining.core.bars import Bars
from hftraining.core.errors import Interrupted, UserError
from hftraining.core.untrusted import refuse_links
from hftraining.evidence.leaks import Known, LeakReport, Outcome, changed, moved, unmoved
from hftraining.evidence.noise import half_of, other_future, rescaled_past
from hftraining.experiment.base_run import BaseRun
from hftraining.experiment.config import ExperimentConfig, load_config
from hftraining.experiment.folds import fold_ground, folds_of, until_the_end
from hftraining.experiment.ground import Ground, lay, stocks_of
from hftraining.experiment.outcome import (
    batches_of,
    joined,
    judged,
    lively,
    losses_of,
    outcome_of,
    reversed_from,
    smooth_account,
    traded,
    training_of,
)
from hftraining.experiment.rare_days import sweep_days, until
from hftraining.experiment.seams import seam_lines
from hftraining.experiment.small import SmallRun, small_run
from hftraining.experiment.splits import purge_of
from hftraining.experiment.their_features import their_lines
from hftraining.market.features.table import make_features
from hftraining.market.labels import label_span
from hftraining.market.prices import load_bars
from hftraining.model.base import Forecaster
from hftraining.model.ensemble import Predictor, load_predictor, members_of

SWEPT = 20  # days for each small run of a finished run: 1,000 for the 50 of `leaks RUN`
SCALE_FREE = ("features", "forecasts", "positions")  # words in the names of what no price level may change
FOLLOW_BARS = ("features", "volatilities", "labels of horizon", "forecasts")  # and of what other bars must change


def prove(ground: Ground, days: int, seed: int, trained: Predictor | None = None, *, swept: int = 0) -> LeakReport:
    """Replace the bars after random days by noise and compare everything that was known by those days.

    days: how many small runs are made, the first at the border between training and validation days, the others at
    random borders. trained: the model of a finished run; else an untrained one whose forecasts depend on every
    feature, or that of a fine-tune's base. swept: on how many more days bars end that otherwise go on; see
    rare_days.py. The random state of torch stays as it was. Raises Interrupted.
    """
    started = time.perf_counter()
    lines: list[str] = []
    with _apart():
        for number in range(days):
            rng = np.random.default_rng([seed, 0x1EAF, number])
            small = small_run(ground, rng, ground.splits.valid.start if number == 0 else None)
            if lines := _Trial(small, rng, trained, whole=number == 0).lines():
                break  # enough is known
        if swept and not lines:
            model = trained or (ground.forecaster if ground.base else lively(ground.forecaster))
            lines = sweep_days(ground, model, swept, np.random.default_rng([seed, 0x5EE9]))
        if not lines:
            lines = their_lines(ground, np.random.default_rng([seed, 0x7E1F]))
        if ground.config.walk_forward.every and not lines:
            lines = _of_a_walk(ground, seed)
    return LeakReport(not lines, lines, days, time.perf_counter() - started)


def _of_a_walk(ground: Ground, seed: int) -> list[str]:
    """What is wrong with the ground of the first fold, or at the seams of the walk."""
    fold, config, bars = folds_of(ground)[0], ground.config, ground.universe
    first = fold_ground(config, fold, until_the_end(fold, bars, purge_of(config)), ground.forecaster.relative)
    return prove(first, 1, seed).lines or seam_lines(ground, np.random.default_rng([seed, 0x5EA3]))


def prove_run(folder: Path, days: int, seed: int = 0) -> LeakReport:
    """The leak proof of a finished run, with its own config, bars and trained model, and many more days swept.

    Raises UserError for a folder that is damaged, or whose config and model are not of one run.
    """
    refuse_links(folder)
    config = load_config(folder / "config.yaml")
    config.training.device = "cpu"  # of the machine that proves
    trained = load_predictor(folder / "model")
    if config.objective.relative == "auto":
        config.objective.relative = trained.relative
    _refuse_other(folder, config, trained)
    base = None
    if config.init_from:  # its universe and scaler are the base's, and so is its architecture
        if not isinstance(trained, Forecaster):
            raise UserError(f"{folder}: a fine-tune has one model, but model/config.json is of an ensemble")
        base = BaseRun(Path(config.init_from), trained, asdict(config), signature="", weights="", fingerprint="")
    ground = lay(config, load_bars(stocks_of(config, base)), base=base)
    return prove(ground, days, seed, trained, swept=SWEPT * days)


def _refuse_other(folder: Path, config: ExperimentConfig, trained: Predictor) -> None:
    """Refuse a model that is not the one of the config beside it. Raises UserError."""
    members, seeds = members_of(trained), config.training.seeds
    if len(members) != seeds:
        raise UserError(f"{folder}: the model has {len(members)} members, where config.yaml has training.seeds={seeds}")
    checks: list[tuple[str, Any, Any]] = [
        ("objective.horizons", tuple(config.objective.horizons), trained.horizons),
        ("objective.quantiles", tuple(config.objective.quantiles), trained.levels),
        ("objective.relative", config.objective.relative, trained.relative),
    ]
    for member in members:
        theirs = vars(member.model.config)
        checks.append(("model", vars(config.model) | {"name": theirs["name"]}, theirs))
        checks.append(("features.columns", tuple(config.features.columns), member.columns))
    for what, asked, found in checks:
        if asked != found:
            raise UserError(f"{folder}: config.yaml and model/config.json are not of one run: {what} differs")


@contextmanager
def _apart() -> Iterator[None]:
    """Leave torch's random state as it was; an interruption has nothing to save."""
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            yield
    except Interrupted as error:
        raise Interrupted("interrupted during the leak proof, before the run began: nothing was written") from error


class _Trial:
    """A small run beside the same run with other futures."""

    def __init__(self, small: SmallRun, rng: np.random.Generator, trained: Predictor | None, whole: bool):
        """whole: replace what follows the training, validation and purged days, too, and train."""
        self.rng, self.whole = rng, whole
        splits, periods = small.splits, list(small.judged.values())
        self.borders = splits.train.stop - 1, splits.valid.start - 1, splits.test.start - 1
        one, other = (periods[i] for i in rng.permutation(2) % len(periods))
        self.closed, self.opened, self.scaled = (self._day(small, rows) for rows in (one, other, one))
        self.small = small.with_holes(list(self.borders) if whole else [], self.closed, rng)
        try:
            self.real = self.small.ground()
        except UserError:  # the bars are so few that not one may be missing
            self.small = small
            self.real = small.ground()
        known = self.real.forecaster
        self.trained = trained or (known if small.base else None)
        self.untrained = [lively(known, seed) for seed in range(small.config.training.seeds)]
        self.account = judged if whole else traded  # judging takes longer
        self.seen: Outcome = outcome_of(self.real, self.model(self.real), len(small.bars.sessions_T), self.account)

    def model(self, ground: Ground) -> Predictor:
        """The trained model, or the untrained one (several of them, if a run trains several) with a ground's scaler."""
        return self.trained or joined([replace(one, scaler=ground.forecaster.scaler) for one in self.untrained])

    def lines(self) -> list[str]:
        """What changed, one sentence each: all that the first check finds which finds anything."""
        checks = [self._after_the_close, self._at_the_end, self._after_the_open, self._after_the_decision]
        if self.whole:
            checks = [self._after_the_training_days, *checks, self._rescaled, self._learned]
        return next((lines for check in checks if (lines := check())), [])

    def _day(self, small: SmallRun, rows: slice) -> int:
        """A random row of a period, not one of its last two, on which some symbol trades."""
        traded = np.flatnonzero(np.any(small.bars.present_TS[rows.start : rows.stop - 2], axis=1))
        return rows.start + int(self.rng.choice(traded)) if len(traded) else rows.start

    def _other(self, day: int, *, keep_open: bool = False, early_S: np.ndarray | None = None) -> Bars:
        around = [rows for rows in self.small.judged.values() if rows.start <= day < rows.stop]
        judged = around[0] if around else None
        return other_future(self.small.bars, day, self.rng, keep_open=keep_open, judged=judged, early_S=early_S)

    def _when(self, day: int) -> str:
        return str(self.small.bars.sessions_T[day])

    def _after_the_close(self) -> list[str]:
        return self._compared(self._other(self.closed), self.closed)

    def _compared(self, bars: Bars, day: int) -> list[str]:
        return self._told(bars, day, lambda other: self._differing(other, day))

    def _told(self, bars: Bars, day: int, tell: Callable[[Ground], list[str]]) -> list[str]:
        """What `tell` finds on the ground of other bars, or that there is none: that depends on later bars, too."""
        try:
            ground = self.small.ground(bars)
        except (UserError, ValueError) as error:
            return [f"the run cannot be prepared with other bars after {self._when(day)}: {error}"]
        return tell(ground)

    def _differing(self, other: Ground, day: int) -> list[str]:
        outcome, when = outcome_of(other, self.model(other), day, self.account), self._when(day)
        lines = [f"{name} up to {when} change with bars after that day" for name in changed(self.seen, outcome, day)]
        blind = unmoved(self.seen, outcome, day, FOLLOW_BARS)
        return lines + [f"{name} after {when} are the same with other bars: the proof sees nothing" for name in blind]

    def _at_the_end(self) -> list[str]:
        """End the bars on the day: how many sessions are to come is unknown, too."""
        day = self.closed
        features = make_features(until(self.small.bars, day), self.small.config.features.columns)
        features = features.of(range(len(self.real.bars.symbols_S)))
        ended = {
            "features": Known.since(features.values_TSF, 0),
            "volatilities": Known.since(features.volatility_TS, 0),
        }
        when, names = self._when(day), changed(self.seen, ended, day)
        return [f"{name} up to {when} are others when the bars end on that day" for name in names]

    def _after_the_open(self) -> list[str]:
        """Replace a day after its open: what was known before, and what is held through the day, must not change."""
        return self._told(self._other(self.opened, keep_open=True), self.opened, self._held_through)

    def _held_through(self, other: Ground) -> list[str]:
        day = self.opened
        lines = self._differing(other, day - 1)
        for name, rows in self.small.judged.items():
            if not rows.start <= day < rows.stop:
                continue
            accounts = [smooth_account(ground, name, self.model(ground)).simulation for ground in (self.real, other)]
            last = day - rows.start
            if any(account.equity_T[last] == 0.0 for account in accounts):
                continue  # a ruined account rightly closes within the day
            traded_TS = self.small.bars.present_TS[day : rows.stop]
            ends = bool((traded_TS[0] & ~traded_TS[1:].any(axis=0)).any())  # what ends today is sold at its close
            for what in ("shares_TS",) if ends else ("shares_TS", "cash_T"):
                ours, theirs = (getattr(account, what)[: last + 1] for account in accounts)
                if not np.array_equal(ours, theirs):
                    word = what.partition("_")[0]
                    lines.append(
                        f"{word} held at the open of {self._when(day)} change with what happens after it (lag 0)"
                    )
        return lines

    def _after_the_decision(self) -> list[str]:
        """Take the other side from a day on: nothing may be filled before `lag` sessions."""
        lines = []
        lag = self.small.config.profit_tracker.lag
        for name, rows in self.small.judged.items():
            period = self.real.periods[name]
            forecast = period.forecast(self.model(self.real))
            day = int(self.rng.integers(1, rows.stop - rows.start - lag))
            decided = self.real.tracker.evaluate(period.bars, forecast)
            otherwise = self.real.tracker.evaluate(period.bars, reversed_from(forecast, day))
            when = self._when(rows.start + day)
            if not np.array_equal(decided.weights_TS[:day], otherwise.weights_TS[:day]):
                lines.append(f"weights before {when} change with forecasts of that day")
            for what in ("shares_TS", "cash_T", "equity_T"):
                ours, theirs = (getattr(made.simulation, what)[: day + lag] for made in (decided, otherwise))
                if not np.array_equal(ours, theirs):
                    word = what.partition("_")[0]
                    lines.append(f"{word} until {lag} sessions after {when} change with the decision of that day (lag)")
        return lines

    def _after_the_training_days(self) -> list[str]:
        return self._compared(self._other(self.borders[0]), self.borders[0])

    def _learned(self) -> list[str]:
        """What training gives may not change with bars from the validation days on, nor its choice with test bars."""
        _, valid, test = self.borders
        batches = batches_of(self.real)
        taught, chosen = training_of(self.real)  # changes the model of this ground, so that it comes last

        def learned(other: Ground, border: int) -> list[str]:
            differing, names = self._differing(other, border), changed(batches, batches_of(other), 0)
            taught_too, chosen_too = training_of(other)
            if border == test:
                names += changed({**taught, **chosen}, {**taught_too, **chosen_too}, 0)
            else:
                names += _taught_otherwise(taught, taught_too)
            since = f"{self._when(border + 1)} on, the first {'validation' if border == valid else 'test'} day"
            return differing + [f"{name} change with bars from {since}" for name in names]

        early_S = half_of(self.small.bars.present_TS, valid, self.rng)
        for border, ended_S in ((valid, early_S), (test, ~early_S if early_S.any() else early_S)):
            bars = self._other(border, early_S=ended_S)  # each symbol ends early in one of the two
            if lines := self._told(bars, border, partial(learned, border=border)):
                return lines
        return self._without_test_days({**taught, **chosen})

    def _without_test_days(self, trained: Outcome) -> list[str]:
        """Training and its choice are the same where there are no test days to look at."""
        sealed = replace(self.small, sealed=True).ground()
        try:
            taught, chosen = training_of(sealed)
        except (KeyError, IndexError, ValueError) as error:
            return [f"training does not do without the test days: {type(error).__name__} {error}"]
        return [f"{name} are others without the test days" for name in changed(trained, {**taught, **chosen}, 0)]

    def _rescaled(self) -> list[str]:
        """Adjust all prices up to a day as for a later split: nothing but rounding may move."""
        return self._told(rescaled_past(self.small.bars, self.scaled, self.rng), self.scaled, self._rescales)

    def _rescales(self, other: Ground) -> list[str]:
        day = self.scaled
        outcome = outcome_of(other, self.model(other), day)
        lines = [
            f"{name} up to {self._when(day)} change when a later split or dividend rescales all earlier prices"
            for name in moved(self.seen, outcome, day, SCALE_FREE)
        ]
        return lines + self._begins_after(other, day)

    def _begins_after(self, other: Ground, day: int) -> list[str]:
        """A label holds no return that was known at its decision, so rescaling the past does not change it."""
        objective, relative, grounds = self.small.config.objective, self.real.forecaster.relative, (self.real, other)
        begins = day if objective.label == "open" else day + 1
        if relative == "residual":  # a beta holds known returns, rightly: the same labels without one
            relative = "none"
            config = replace(self.small.config, objective=replace(objective, relative=relative))
            plain = replace(self.small, config=config, base=None)
            grounds = plain.ground(), plain.ground(other.universe)
        ours, theirs = (
            ground.lesson.labels_TSH[begins]
            * label_span(ground.features.volatility_TS[begins : begins + 1], objective.horizons, relative)[0]
            for ground in grounds
        )
        if np.allclose(ours, theirs, rtol=1e-3, atol=1e-6, equal_nan=True):
            return []
        return [f"labels of {self._when(begins)} hold returns that were known on that day"]


def _taught_otherwise(taught: dict[str, Known], taught_too: dict[str, Known]) -> list[str]:
    """What changes in the steps that both took: with patience, other validation days allow for another number."""
    ours, theirs = losses_of(taught), losses_of(taught_too)
    steps = min(len(known.items) for known in (*ours.values(), *theirs.values()))
    weights = {name: known for name, known in taught_too.items() if name not in theirs}
    return changed(taught, weights, 0) + changed(ours, theirs, steps - 1)
