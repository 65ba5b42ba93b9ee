"""A trial: a config composed from a point of the space, trained on its folds and seeds, with the test days sealed."""

import dataclasses
import hashlib
import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from hftraining.core.errors import ConfigError, UserError, status_of
from hftraining.core.metrics import higher_is_better
from hftraining.experiment.compose import Composer
from hftraining.experiment.config import ExperimentConfig, unknown_key
from hftraining.experiment.inherit import signature_of, with_precision_of
from hftraining.experiment.ledger_row import open_ledger, remember
from hftraining.experiment.run import run_experiment
from hftraining.experiment.splits import splits_of
from hftraining.market.config import StocksConfig
from hftraining.market.prices import load_bars
from hftraining.runs.code_version import source_digest
from hftraining.runs.frames import read_table
from hftraining.runs.lock import is_in_use
from hftraining.runs.record import read_manifest
from hftraining.runs.result import RunResult
from hftraining.runs.trials import Days
from hftraining.sweep.config import SearchConfig
from hftraining.sweep.serve import Report
from hftraining.sweep.space import Param, Value
from hftraining.sweep.study import Study


class TrialRunner:
    """Runs trials; a trial is one run for each fold and seed."""

    def __init__(self, search: SearchConfig, composer: Composer, outputs: Path, study: Study) -> None:
        self.search, self.composer, self.outputs, self.study = search, composer, outputs, study
        self.folder = outputs / "sweeps" / search.name

    def run(self, number: int, point: Mapping[str, Value], watch: Report, facts: dict[str, Any]) -> dict[str, float]:
        """Train a trial; returns its metrics, means over folds and seeds, NaN if one of them is.

        watch: called after each probe, or after each part if the pruner compares parts; it may raise Pruned.
        facts: filled on the way, to be kept however the trial ends.
        """
        config = dataclasses.replace(self.composer.config(point), seed=self.search.seeds[0])
        started = time.monotonic()
        done: list[dict[str, float]] = []
        facts |= {"folders": [], "signature": signature_of(config)[1], "steps": 0, "max_steps": 0, "seconds": 0.0}
        data = self.study.definition["data"]
        argv = ["train.py", *self.composer.overrides(point)]
        parts = self._parts(config)
        facts["max_steps"] = config.most_steps * len(parts)
        with self._as_one_trial(config, number, facts) as whole:
            for place, (ending, part) in enumerate(parts):
                progress = _Progress(self.search, part, place, done, watch)
                called, part = place_of(self.folder, f"trial-{number:04d}{ending}", part, data)
                facts["folders"].append(called)
                try:
                    finished = run_experiment(
                        part,
                        argv,
                        kind="sweeps",
                        name=self.search.name,
                        called=called,
                        sealed=True,
                        watch=progress,
                        part_of=whole,
                    )
                finally:
                    facts["steps"] += progress.step
                    facts["seconds"] = round(time.monotonic() - started, 2)
                done.append(metrics_of(finished.result))
                progress.part_done()
        return {name: fmean(part[name] for part in done) for name in done[0]}

    def _parts(self, config: ExperimentConfig) -> list[tuple[str, ExperimentConfig]]:
        """(end of the folder's name, config) of each training of a trial."""
        parts = {
            f"-fold{fold}-seed{seed}": dataclasses.replace(config, seed=seed, stocks=stocks)
            for fold, stocks in enumerate(folds_of(config, self.search.folds), start=1)
            for seed in self.search.seeds
        }
        return list(parts.items()) if len(parts) > 1 else [("", part) for part in parts.values()]

    @contextmanager
    def _as_one_trial(self, config: ExperimentConfig, number: int, facts: dict[str, Any]) -> Iterator[str | None]:
        """Count a trial of several folds on the whole validation period, in place of its parts: it is chosen on it.

        Gives the uuid of its row; None for a trial of one fold, whose runs count themselves.
        """
        if self.search.folds == 1:
            yield None
            return
        bars = load_bars(config.stocks)
        valid = bars.sessions_T[splits_of(config, bars).valid]
        ledger, fingerprint = open_ledger(config.evidence, self.outputs), bars.fingerprint()
        # The same for a trial that is repeated because its worker died: it stays one trial.
        uuid = hashlib.sha256(f"{self.study.id}/{number}".encode()).hexdigest()[:32]
        remember(ledger, bars, fingerprint)
        whole = self.folder / f"trial-{number:04d}"
        row = ledger.resume(whole, uuid) or ledger.begin(
            kind="sweeps",
            name=self.search.name,
            folder=whole,
            signature=facts["signature"],
            fingerprint=fingerprint,
            symbols=bars.symbols_S,
            windows={"valid": (str(valid[0]), str(valid[-1]))},
            code=source_digest(),
            uuid=uuid,
        )
        try:
            yield uuid
        except BaseException as end:
            ledger.finish(row, status=status_of(end))
            raise
        ledger.finish(row, status="done", valid=daily_returns_of([self.folder / name for name in facts["folders"]]))


def place_of(parent: Path, called: str, config: ExperimentConfig, fingerprint: str) -> tuple[str, ExperimentConfig]:
    """The folder of a training in the folder of a sweep: its name, and the config, which resumes what a killed worker
    began there.

    A folder of other code, another config or other bars (by their fingerprint), as an earlier study of the same name
    leaves, is not touched: the new one gets _2 at its end.
    """
    for name in itertools.chain([called], (f"{called}_{number}" for number in itertools.count(2))):
        folder = parent / name
        if not folder.exists():
            return name, dataclasses.replace(config, resume=None)
        if not (folder / "run.json").is_file() or is_in_use(folder):
            continue
        facts, begun = read_manifest(folder), with_precision_of(config, folder)
        found = facts["signature"], facts["code"].get("digest"), facts["data"]["fingerprint"]
        if found == (signature_of(begun)[1], source_digest(), fingerprint):
            return name, dataclasses.replace(begun, resume=str(folder))
    raise AssertionError("there is always a further name")


class _Progress:
    """Turns the probes of one training into what the pruner compares: means over the parts of the trial so far."""

    def __init__(
        self, search: SearchConfig, part: ExperimentConfig, place: int, done: list[dict[str, float]], watch: Report
    ) -> None:
        self.search, self.place, self.done, self.watch = search, place, done, watch
        self.best_metric = part.training.best_metric
        self.sign = -1.0 if higher_is_better(self.best_metric) else 1.0
        self.probes_a_part = math.ceil(part.most_steps / part.profit_tracker.every)
        self.best, self.probes, self.step = math.inf, 0, 0
        self.values: dict[str, float] = {}

    def __call__(self, step: int, values: dict[str, float]) -> None:
        """After a probe: report the values of the best one so far, whose weights a run keeps."""
        self.step, self.probes = step, self.probes + 1
        if self.sign * values[self.best_metric] < self.best or not self._are_finite():
            self.best = self.sign * values[self.best_metric]
            self.values = {name: values[name] for name in self.search.pruning_metrics}
        if self.search.pruner != "wilcoxon" and self._are_finite():
            means = {name: fmean([*(part[name] for part in self.done), value]) for name, value in self.values.items()}
            self.watch(self.place * self.probes_a_part + self.probes, means)

    def part_done(self) -> None:
        """After a training, whose metrics are the last of `done`."""
        self.values = {name: self.done[-1][name] for name in self.search.pruning_metrics}
        if self.search.pruner == "wilcoxon" and self._are_finite():
            self.watch(self.place + 1, self.values)

    def _are_finite(self) -> bool:
        return bool(self.values) and all(math.isfinite(value) for value in self.values.values())


def metrics_of(result: RunResult) -> dict[str, float]:
    """The metrics of a run that a sweep can choose by; NaN where the result has no number."""
    metrics = {"eval/loss": result.eval_loss}
    metrics |= {f"profit/{name}": value for name, value in result.valid.profit.items()}
    return {name: math.nan if value is None else float(value) for name, value in metrics.items()}


def folds_of(config: ExperimentConfig, folds: int) -> list[StocksConfig]:
    """The stocks configs of walk-forward folds: each validates on one piece of the validation days and trains on all
    days before it. Raises MarketDataError where a piece is shorter than the purge.
    """
    if folds == 1:
        return [config.stocks]
    bars = load_bars(config.stocks)
    splits = splits_of(config, bars)
    first, last = splits.valid.start, splits.test.start
    borders = [first + (last - first) * number // folds for number in range(folds + 1)]
    days = [str(bars.sessions_T[row]) for row in borders]
    return [dataclasses.replace(config.stocks, valid_start=begin, test_start=end) for begin, end in pairwise(days)]


def daily_returns_of(folders: Sequence[Path]) -> Days:
    """Daily net validation returns of a trial and of its benchmark: means over seeds, folds one after the other."""
    pieces = []
    for folder in folders:
        equity = read_table(folder, "equity.parquet")
        if equity is None:
            raise UserError(f"{folder} has no equity.parquet: remove the folder, and its training is repeated")
        curves = equity[equity["window"] == "valid"].set_index("date")[["equity", "buy_and_hold"]]
        pieces.append(curves.pct_change().iloc[1:])
    returns = pd.concat(pieces).groupby(level=0).mean().sort_index()
    days = [str(day)[:10] for day in returns.index]
    return Days(days, returns["equity"].tolist(), returns["buy_and_hold"].tolist())


def fixed_values(config: ExperimentConfig, space: Sequence[Param]) -> dict[str, Value]:
    """The values of fields that conditions name but that are not searched. Raises ConfigError."""
    searched = {param.name for param in space}
    fixed: dict[str, Value] = {}
    for param in space:
        other = param.condition.other if param.condition else None
        if other is None or other in searched:
            continue
        if other.split(".")[0] in searched:
            raise ConfigError(
                f"search.when: {param.name}: {other} depends on the searched group {other.split('.')[0]}: name the "
                "group, or search the field"
            )
        value: Any = config
        for name in other.split("."):
            if not hasattr(value, name):
                raise ConfigError(f"search.when: {param.name}: {unknown_key(other)}")
            value = getattr(value, name)
        fixed[other] = getattr(value, "name", value)  # a group goes by its name
    return fixed
