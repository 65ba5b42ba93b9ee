"""Models walked along the years of a set: each fold is trained by the product itself on the years before it.

Legend: T sessions, S symbols, H horizons, Q quantiles.
"""

import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from hftraining.core.bars import Bars
from hftraining.core.forecast import Forecast
from hftraining.experiment.compose import composed
from hftraining.experiment.config import ExperimentConfig, typed_config
from hftraining.experiment.fit import Fitting
from hftraining.experiment.ground import lay
from hftraining.experiment.splits import purge_of
from hftraining.market.prices import load_bars
from hftraining.training.checkpoint import Checkpoints

INNER_SHARE = 0.1  # of the sessions before a fold, the last: they choose the step, and are not forecast
LEVELS, KEPT = (0.1, 0.5, 0.9), (0, 2, 4)  # of objective.quantiles: what a score reads
LONGER = ("training.max_steps=800", "training.learning_rate=1e-3", "profit_tracker.every=80")
# What a variant adds to the defaults. All learn the forecast alone, from the labels that `auto` chooses: zscore.
VARIANTS = {
    "ridge": ("model=ridge",),
    "lightgbm": ("model=lightgbm",),
    "linear": ("model=linear", *LONGER),
    "mlp": ("model=mlp", *LONGER),
    "lstm": ("model=lstm", *LONGER),
    "patchtst": ("model=patchtst", *LONGER),
    "small": ("model=small", *LONGER),
    "small_mse": ("model=small", "objective.loss=mse", *LONGER),
    "tiny_mse": ("model=tiny", "objective.loss=mse", *LONGER),
}


@dataclass(frozen=True)
class Set:
    """A file of bars. years: those that are forecast. pace: how many of them one training forecasts.

    symbols: of these stocks; of all without any.
    """

    file: str
    years: tuple[int, ...]
    pace: int
    exclude: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        """Which stocks of the file, as train.py takes it."""
        asked = [f"stocks.exclude=[{','.join(self.exclude)}]"]
        return [*asked, f"stocks.symbols=[{','.join(self.symbols)}]"] if self.symbols else asked

    @property
    def until(self) -> str:
        """The first day that is not forecast, ISO."""
        return f"{self.years[-1] + 1}-01-01"


# The years of validation of 2026-11-26_FirstRun; test days stay sealed. Excluded: events that contradict the prices.
SETS = {
    "us300": Set("us300_2005_2017.parquet", (2010, 2011, 2012, 2013), 2),
    "sp500_369": Set("sp500_369_1999_2021.parquet", tuple(range(2007, 2014)), 4, ("ANTM", "DVN", "GNRC", "KSU", "WST")),
}


@dataclass(frozen=True)
class Task:
    """A model of one seed on one set of features, trained anew along the years of a set."""

    data: str
    features: str
    variant: str
    seed: int

    def folds(self) -> list[tuple[str, str]]:
        """The first day of each fold and the first after it."""
        found = SETS[self.data]
        days = [f"{year}-01-01" for year in found.years[:: found.pace]]
        return list(zip(days, [*days[1:], found.until], strict=True))

    def path(self, kept: Path, fold: tuple[str, str]) -> Path:
        """Where the forecasts of a fold are kept."""
        return kept / self.data / f"{self.features}_{self.variant}_{self.seed}_{fold[0]}_{fold[1]}.npz"

    def config(self, data: Path, fold: tuple[str, str]) -> ExperimentConfig:
        """Of the training before a fold. The fold is its test period, so that no step and no choice sees it."""
        found, bars = SETS[self.data], bars_of(data, self.data)
        stop = int(np.searchsorted(bars.sessions_T, np.datetime64(fold[0])))
        inner = bars.sessions_T[int(stop * (1.0 - INNER_SHARE))]
        return typed_config(
            composed(
                [
                    "objective=forecast",
                    "stocks=folder",
                    f"stocks.path={data / found.file}",
                    *found.words,
                    "stocks.bad_rows=drop",
                    f"stocks.valid_start='{inner}'",
                    f"stocks.test_start='{fold[0]}'",
                    f"features={self.features}",
                    "evidence.baselines=[]",
                    "training.threads=1",
                    f"seed={self.seed}",
                    *VARIANTS[self.variant],
                ]
            )
        )


@cache
def bars_of(data: Path, name: str) -> Bars:
    """All bars of a set but those after its years: nothing here can see a test day."""
    found = SETS[name]
    values = ["stocks=folder", f"stocks.path={data / found.file}", *found.words]
    bars = load_bars(typed_config(composed([*values, "stocks.bad_rows=drop"])).stocks)
    return bars.rows(slice(0, int(np.searchsorted(bars.sessions_T, np.datetime64(found.until)))))


def learn(task: Task, data: Path, kept: Path) -> None:
    """Train and forecast every fold of a task that is not kept yet, and keep its forecasts."""
    for fold in task.folds():
        path = task.path(kept, fold)
        if path.exists():
            continue
        started, bars, config = time.process_time(), bars_of(data, task.data), task.config(data, fold)
        stop = int(np.searchsorted(bars.sessions_T, np.datetime64(fold[1])))
        ground = lay(config, bars.rows(slice(0, stop)))
        with tempfile.TemporaryDirectory() as folder:
            fitting = Fitting.of(ground, Checkpoints(Path(folder), durable=False), [])
            fitted = fitting.run(lambda step, values: None, lambda step, values: None)
        forecast = ground.periods["test"].forecast(fitted.forecaster)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            path.with_suffix(".part.npz"),
            quantiles_TSHQ=forecast.quantiles_TSHQ[..., KEPT].astype(np.float32),
            seconds=time.process_time() - started,
            best_step=fitted.progress.best_step or 0,
            probes=fitted.losses,
        )
        path.with_suffix(".part.npz").rename(path)
        said = f"best step {fitted.progress.best_step}, {time.process_time() - started:.0f} s"
        print(
            f"{time.strftime('%H:%M:%S')} {task.data} {task.features} {task.variant} {task.seed} {fold[0]}: {said}",
            flush=True,
        )


def stitched(task: Task, data: Path, kept: Path) -> tuple[Forecast, float] | None:
    """The forecasts of all folds, one after the other, and the seconds of CPU they cost; None where one is missing.

    The last days, whose labels would reach beyond the years, are left out.
    """
    parts = [task.path(kept, fold) for fold in task.folds()]
    if not all(path.exists() for path in parts):
        return None
    loaded = [np.load(path) for path in parts]
    config = task.config(data, task.folds()[0])
    quantiles_TSHQ = np.concatenate([part["quantiles_TSHQ"] for part in loaded])[: -purge_of(config)].astype(float)
    head_TS = np.full(quantiles_TSHQ.shape[:2], np.nan)
    forecast = Forecast(quantiles_TSHQ, head_TS, tuple(config.objective.horizons), LEVELS, relative="zscore")
    return forecast, float(sum(part["seconds"] for part in loaded))
