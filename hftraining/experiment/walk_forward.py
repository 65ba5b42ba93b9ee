"""A walk-forward: a model trained anew along time, whose forecasts are stitched out of sample, fold by fold.

Each fold is trained in folds/NN of the run folder, with its own checkpoints, log and model, one after the other or side
by side in processes. A fold that has left fold.json is done; any other is resumed.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from hftraining.core.bars import Bars
from hftraining.core.errors import UserError
from hftraining.core.files import write_json_atomically
from hftraining.core.metrics import Unit
from hftraining.core.untrusted import is_there, read_json_object
from hftraining.core.values import plain, without_nan
from hftraining.experiment.config import ExperimentConfig
from hftraining.experiment.fit import Fitted, fit
from hftraining.experiment.folds import (
    Fold,
    Walked,
    fold_ground,
    folds_of,
    forecast_of,
    how_many,
    read_forecast,
    stitched,
    until_the_end,
    write_forecast,
)
from hftraining.experiment.ground import Ground
from hftraining.experiment.ledger_row import LedgerRow
from hftraining.experiment.opening import opened_fold
from hftraining.experiment.probe import probes_of
from hftraining.experiment.splits import purge_of
from hftraining.experiment.workers import side_by_side
from hftraining.model.base import Forecaster
from hftraining.reports.console import Console
from hftraining.reports.format import number
from hftraining.runs.manifest import damaged
from hftraining.runs.record import CLOCKS, RunRecord, read_metrics
from hftraining.runs.result import FoldResult
from hftraining.training.trainer import Progress

FOLD_FILE = "fold.json"  # the last file that a fold writes

_FOLD = TypeAdapter(FoldResult)


def walk(ground: Ground, record: RunRecord, row: LedgerRow, opening: tuple[str, ...] = ()) -> tuple[Fitted, Walked]:
    """Train every fold that is not done yet; returns the model of the last one, and all forecasts as one.

    The validation days come first: what trains on test days is an opening of them. opening: lines for the console.
    Raises as fit, whatever the process that it was raised in.
    """
    config, folds = ground.config, folds_of(ground)
    console = Console(config.most_steps, 0, config.profit_tracker.report_every)
    for line in (*opening, f"  walk-forward: {how_many(folds)}"):
        console.say(line)

    def say(fold: Fold) -> None:
        found = _read(fold, record.folder)
        console.say(
            f"fold {fold.number}/{len(folds)}: {found.first} to {found.last}, trained on {found.train_first} to "
            f"{found.train_last}, best step {found.best_step}, loss of the inner days "
            f"{number(found.inner_loss, Unit.LOSS)}"
        )

    for period in dict.fromkeys(fold.period for fold in folds):
        if period == "test":
            row.open_test()
        _train([fold for fold in folds if fold.period == period], ground, record.folder, say)

    relative, n_symbols = ground.forecaster.relative, len(ground.bars.symbols_S)
    trained = [_read(fold, record.folder) for fold in folds]
    forecasts = [
        read_forecast(fold, record.folder, config, relative, n_symbols, found.forecast_sha256)
        for fold, found in zip(folds, trained, strict=True)
    ]
    last = folds[-1].folder(record.folder)
    history = read_metrics(last)
    for logged in history:  # of the model that is saved
        record.log(int(logged["step"]), {tag: value for tag, value in logged.items() if tag not in ("step", *CLOCKS)})
    progress = Progress(trained[-1].steps, trained[-1].best_step, None, trained[-1].skipped_steps)
    fitted = Fitted(Forecaster.load(last / "model", config.training.device), progress, *probes_of(history))
    return fitted, Walked(stitched(folds, forecasts), folds, trained)


def _train(folds: Sequence[Fold], ground: Ground, run: Path, say: Callable[[Fold], None]) -> None:
    """Train the folds that are not done, and say of each how it ended."""
    config, bars, purge = ground.config, ground.universe, purge_of(ground.config)
    open_folds = [fold for fold in folds if not is_there(fold.folder(run) / FOLD_FILE)]
    for fold in folds:
        if fold not in open_folds:
            say(fold)
    tasks = [(config, fold, until_the_end(fold, bars, purge), ground.forecaster.relative, run) for fold in open_folds]
    if config.walk_forward.workers == 1:
        for fold, task in zip(open_folds, tasks, strict=True):
            train_fold(*task)
            say(fold)
        return
    side_by_side(train_fold, tasks, config.walk_forward.workers, lambda place: say(open_folds[place]))


def train_fold(config: ExperimentConfig, fold: Fold, bars: Bars, relative: str, run: Path) -> None:
    """Train a fold, or go on with it, and leave its model, its forecasts and fold.json in its folder.

    config: of the whole run. bars: as of until_the_end. run: the folder of the whole run.
    """
    before = None
    if config.walk_forward.finetune and fold.number > 1:
        earlier = replace(fold, number=fold.number - 1).folder(run)
        before = Forecaster.load(earlier / "model", config.training.device)
    ground = fold_ground(config, fold, bars, relative, before)
    place = fold.folder(run)
    with opened_fold(ground, run, fold.number) as (record, row):
        fitted = fit(ground, record)
        fitted.forecaster.save(record.model)
        known = write_forecast(place, forecast_of(fold, ground, fitted.forecaster))
        found = replace(_facts(fold, ground, fitted), forecast_sha256=known)
        row.ledger.finish(row.row, status="done", result={"inner_loss": found.inner_loss, "steps": found.steps})
        row.is_done = True
        write_json_atomically(place / FOLD_FILE, without_nan(plain(asdict(found))))


def _facts(fold: Fold, ground: Ground, fitted: Fitted) -> FoldResult:
    """What is known of a fold once it is trained: its days, and the step that its inner days chose."""
    progress = fitted.progress
    first, last = fold.days(ground.universe.sessions_T)
    train, inner = (fitted.forecaster.days[name] for name in ("train", "valid"))
    period = ground.periods["valid"]
    forecast = period.forecast(fitted.forecaster)
    return FoldResult(
        period=fold.period,
        days=fold.rows.stop - fold.rows.start,
        first=first,
        last=last,
        train_first=train[0],
        train_last=train[1],
        inner_first=inner[0],
        inner_last=inner[1],
        steps=progress.step,
        best_step=progress.best_step,
        skipped_steps=progress.skipped_steps,
        inner_loss=period.loss(forecast, ground.config.objective, ground.tracker),
    )


def _read(fold: Fold, run: Path) -> FoldResult:
    """fold.json of a fold that is done. Raises UserError for a damaged one."""
    path = fold.folder(run) / FOLD_FILE
    try:
        return _FOLD.validate_python(read_json_object(path))
    except ValidationError as error:
        raise UserError(damaged(path, error)) from None
