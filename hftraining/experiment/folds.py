"""The folds of a walk-forward: which days each forecasts, the ground that it is trained on, and their forecasts as one.

A fold is a sealed run whose test days are the fold's own: its training and the choice of its step see no bar of them.

Legend: T sessions, S symbols, H horizons, Q quantiles.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from hftraining.core.bars import Bars
from hftraining.core.errors import ConfigError, UserError
from hftraining.core.files import replacing, sha256
from hftraining.core.forecast import Forecast
from hftraining.core.tensor_file import difference, shapes_of
from hftraining.core.untrusted import shown
from hftraining.evidence.scores import daily_scores
from hftraining.experiment.config import ExperimentConfig
from hftraining.experiment.ground import Ground, features_of, lay, windows_of
from hftraining.experiment.periods import Period
from hftraining.experiment.splits import purge_of
from hftraining.market.windows import Splits
from hftraining.model.base import Forecaster
from hftraining.runs.folder import FOLDS_FOLDER
from hftraining.runs.quantities import Score
from hftraining.runs.result import RESULT_FILE, FoldResult, read_result
from hftraining.trading.metrics import equity_metrics
from hftraining.training.config import WalkForwardConfig

WALKED = ("valid", "test")  # the periods that folds tile
FORECAST_FILE = "forecast.safetensors"  # of a fold, in its folder


@dataclass(frozen=True)
class Fold:
    """Days that are forecast together. Rows are of the sessions of the run.

    period: valid or test, whose days these are. first: the row from which on it may learn. inner: the first of the days
    that choose its step, which end a purge before its own.
    """

    number: int  # from 1
    period: str
    rows: slice
    first: int
    inner: int

    def days(self, sessions_T: np.ndarray) -> tuple[str, str]:
        """Its own first and last day, ISO."""
        return str(sessions_T[self.rows.start]), str(sessions_T[self.rows.stop - 1])

    def folder(self, run: Path) -> Path:
        """Its folder within that of the run."""
        return run / FOLDS_FOLDER / f"{self.number:02d}"


@dataclass(frozen=True)
class Walked:
    """What a walk-forward came to. forecasts: by period, those of its folds one after the other."""

    forecasts: dict[str, Forecast]
    folds: list[Fold]
    trained: list[FoldResult]  # without the scores of their own days


def folds_along(
    config: ExperimentConfig, splits: Splits, sessions_T: np.ndarray, periods: Sequence[str] = WALKED
) -> list[Fold]:
    """The folds of a config, in their order: `every` sessions each, from the first day of a period on.

    What is left at the end of a period belongs to its last fold where it is less than half a fold, or than a purge.
    Raises ConfigError for fewer than two folds, and where one has too few days to learn from.
    """
    walk, purge = config.walk_forward, purge_of(config)
    folds: list[Fold] = []
    for period in periods:
        rows: slice = getattr(splits, period)
        starts = list(range(rows.start, rows.stop, walk.every))
        least = max(walk.every // 2, min(walk.every, purge + 1))
        if len(starts) > 1 and rows.stop - starts[-1] < least:
            starts.pop()
        for start, stop in zip(starts, [*starts[1:], rows.stop], strict=True):
            first = max(0, start - walk.sessions) if walk.sessions else 0
            inner = start - max(int((start - first) * walk.inner_share), 2 * purge + 1)
            folds.append(Fold(len(folds) + 1, period, slice(start, stop), first, inner))
    if len(folds) < 2:
        days = sum(fold.rows.stop - fold.rows.start for fold in folds)
        raise ConfigError(
            f"walk_forward.every={walk.every}: the {days} days to forecast are one fold, and a walk-forward has two or "
            "more: use fewer sessions, or an earlier stocks.valid_start"
        )
    for fold in folds:
        if (left := fold.inner - purge - fold.first) <= purge:
            raise ConfigError(
                f"walk_forward: fold {fold.number}, from {fold.days(sessions_T)[0]} on, has {max(0, left)} days to "
                f"train on, once {fold.rows.start - fold.inner} inner days and the purge of {purge} before both are "
                "taken from those before it: use a later stocks.valid_start, more walk_forward.sessions or shorter "
                "objective.horizons"
            )
    return folds


def folds_of(ground: Ground) -> list[Fold]:
    """The folds of a run."""
    periods = [name for name in WALKED if name in ground.periods]
    return folds_along(ground.config, ground.splits, ground.universe.sessions_T, periods)


def how_many(folds: Sequence[Fold]) -> str:
    """Their number and the most sessions that one has, in words: the last of a period may have more than `every`."""
    return f"{len(folds)} folds of up to {max(fold.rows.stop - fold.rows.start for fold in folds)} sessions"


def fold_config(config: ExperimentConfig, fold: Fold, sessions_T: np.ndarray, relative: str) -> ExperimentConfig:
    """The config of a fold's own run: the inner days are its validation days, the fold's its test days.

    relative: of the labels of the whole run.
    """
    walk, training = config.walk_forward, config.training
    inner, own = str(sessions_T[fold.inner]), str(sessions_T[fold.rows.start])
    known = fold.inner - purge_of(config) - fold.first
    history = min(training.history or known, known) if walk.sessions else training.history
    return dataclasses.replace(
        config,
        stocks=dataclasses.replace(config.stocks, valid_start=inner, test_start=own),
        training=dataclasses.replace(training, history=history),
        objective=dataclasses.replace(config.objective, relative=relative),
        evidence=dataclasses.replace(config.evidence, baselines=[]),
        walk_forward=WalkForwardConfig(),
        resume=None,
    )


def until_the_end(fold: Fold, bars: Bars, purge: int) -> Bars:
    """The bars up to the last day of a fold: no later one is passed on. A fold shorter than a purge gets one more."""
    return bars.rows(slice(0, max(fold.rows.stop, fold.rows.start + purge + 1)))


def fold_ground(
    config: ExperimentConfig, fold: Fold, bars: Bars, relative: str, before: Forecaster | None = None
) -> Ground:
    """The ground of a fold: of the bars before its own days alone.

    bars: as of until_the_end. before: the model of the fold before, where walk_forward.finetune goes on from it. Raises
    as `lay`.
    """
    own = fold_config(config, fold, bars.sessions_T, relative)
    ground = lay(own, bars, sealed=True)
    days = ground.days | {"test": fold.days(bars.sessions_T)}
    if before is None:
        ground.forecaster.days = days
        return ground
    seen = min(before.days["train"][0], days["train"][0]), days["train"][1]
    forecaster = dataclasses.replace(before, days=days | {"train": seen})  # with its scaler, as its weights want it
    lesson = dataclasses.replace(ground.lesson, scaled_TSF=forecaster.scaler.scale(ground.features.values_TSF))
    windows = windows_of(own, ground.bars, lesson, forecaster)
    torch.manual_seed(own.seed)
    return dataclasses.replace(ground, forecaster=forecaster, lesson=lesson, windows=windows)


def forecast_of(fold: Fold, ground: Ground, forecaster: Forecaster) -> Forecast:
    """The forecasts of a fold's own days; the features look back over the border. ground: the fold's."""
    bars = ground.universe.rows(slice(0, fold.rows.stop))
    first = max(0, fold.rows.start - forecaster.receptive_field + 1)
    features = features_of(ground.config, bars).rows(slice(first, fold.rows.stop))
    return forecaster.forecast_features(features, bars.symbols_S, fold.rows.start - first)


def write_forecast(folder: Path, forecast: Forecast) -> str:
    """Keep the forecasts of a fold in its folder; returns the SHA-256 of the file."""
    with replacing(folder / FORECAST_FILE) as temporary:
        arrays = {"quantiles_TSHQ": forecast.quantiles_TSHQ, "head_TS": forecast.head_TS}
        save_file({name: np.ascontiguousarray(array, np.float64) for name, array in arrays.items()}, temporary)
    return sha256(folder / FORECAST_FILE)


def read_forecast(
    fold: Fold, run: Path, config: ExperimentConfig, relative: str, n_symbols: int, known: str
) -> Forecast:
    """The forecasts of a fold that `write_forecast` kept. known: their SHA-256.

    Raises UserError for others, those of another shape before they take memory.
    """
    path, objective = fold.folder(run) / FORECAST_FILE, config.objective
    shape = (fold.rows.stop - fold.rows.start, n_symbols)
    axes = (*shape, len(objective.horizons), len(objective.quantiles))
    if unlike := difference(shapes_of(path), {"quantiles_TSHQ": ("float64", axes), "head_TS": ("float64", shape)}):
        raise UserError(f"{path} is not of this fold: {unlike}")
    if sha256(path) != known:
        raise UserError(f"{path} is not what this fold forecast: it was changed afterwards, or belongs to another")
    try:
        arrays = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({shown(error, 120)})") from None
    return Forecast(**arrays, horizons=tuple(objective.horizons), levels=tuple(objective.quantiles), relative=relative)


def stitched(folds: Sequence[Fold], forecasts: Sequence[Forecast]) -> dict[str, Forecast]:
    """By period, the forecasts of its folds one after the other, in one Forecast."""
    found: dict[str, Forecast] = {}
    for period in dict.fromkeys(fold.period for fold in folds):
        parts = [part for fold, part in zip(folds, forecasts, strict=True) if fold.period == period]
        quantiles_TSHQ = np.concatenate([part.quantiles_TSHQ for part in parts])
        head_TS = np.concatenate([part.head_TS for part in parts])
        found[period] = dataclasses.replace(parts[0], quantiles_TSHQ=quantiles_TSHQ, head_TS=head_TS)
    return found


def stitched_of(ground: Ground, run: Path, periods: Sequence[str] = WALKED) -> dict[str, Forecast]:
    """The stitched forecasts that a finished walk-forward kept in its folder. ground: of the run.

    Raises UserError for others than those that its result.json was made of.
    """
    folds = [fold for fold in folds_of(ground) if fold.period in periods]
    relative, n_symbols = ground.forecaster.relative, len(ground.bars.symbols_S)
    result = read_result(run)
    known = [found.forecast_sha256 for found in ((result.folds if result else None) or [])]
    if len(known) < folds[-1].number:
        raise UserError(f"{run / RESULT_FILE} does not know the forecasts of its folds: train it again")
    parts = [read_forecast(fold, run, ground.config, relative, n_symbols, known[fold.number - 1]) for fold in folds]
    return stitched(folds, parts)


def scored_folds(ground: Ground, walked: Walked, equity_T: Mapping[str, np.ndarray]) -> list[FoldResult]:
    """The folds with the scores of their own days. equity_T: by period, of the one account that trades all folds."""
    found, objective = [], ground.config.objective
    horizon = ground.config.portfolio.horizon or max(objective.horizons)
    for fold, trained in zip(walked.folds, walked.trained, strict=True):
        start = getattr(ground.splits, fold.period).start
        rows = slice(fold.rows.start - start, fold.rows.stop - start)
        forecast = walked.forecasts[fold.period].rows(rows)
        arrays = (ground.bars, ground.features, ground.lesson.labels_TSH)
        own = Period.cut(*arrays, objective.horizons, fold.rows, 0, ground.forecaster.relative, objective.loss)
        h, middle = forecast.horizons.index(horizon), forecast.levels.index(0.5)
        label_TS = (own.labels_TSH * own.span_TSH)[:, :, h]
        scores = daily_scores(forecast.quantiles_TSHQ[:, :, h, middle], label_TS, overlap=horizon)
        account_T = equity_T[fold.period][max(0, rows.start - 1) : rows.stop]  # from the close before it
        account = equity_metrics(account_T[:, None], float(account_T[0]))
        scored = dataclasses.replace(
            trained,
            loss=own.forecast_loss(forecast),
            rank_ic=Score(**dataclasses.asdict(scores["rank_ic"])),
            sharpe_ratio=float(account["sharpe_ratio"][0]),
            total_return=float(account["total_return"][0]),
        )
        found.append(scored)
    return found
