"""The rows of the decision table: the base as it is, what is trained from it, and what is much simpler than it."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hftraining.core.errors import Interrupted
from hftraining.core.files import write_json_atomically
from hftraining.core.forecast import Forecast
from hftraining.experiment.base_run import BaseModel
from hftraining.experiment.config import ExperimentConfig
from hftraining.experiment.decision import BASE, NOTHING, RIDGE, WORDS, Candidate, nothing_changes
from hftraining.experiment.finetune_ground import Ground
from hftraining.experiment.inherit import candidate_config, signature_of
from hftraining.experiment.judging import Judgement, judge
from hftraining.experiment.probe import ValidationProbe
from hftraining.experiment.trial import in_the_ledger
from hftraining.market.features import Scaler
from hftraining.market.windows import WindowSampler
from hftraining.model.adapt import merge, prepare, pull_back
from hftraining.model.baselines import baseline_forecast
from hftraining.model.forecaster import Forecaster
from hftraining.profit_tracker import ProfitTracker
from hftraining.reports.console import Console
from hftraining.runs.record import RunRecord
from hftraining.training.checkpoint import Checkpoints
from hftraining.training.trainer import Trainer

KIND = "finetuned"  # the folder below outputs, and what the ledger calls it


def references(ground: Ground) -> list[Candidate]:
    """The rows of the table that nothing is trained for: the base as it is, ridge (if wanted), "nothing changes"."""
    config, valid, base = ground.config, ground.periods["valid"], ground.base.forecaster
    forecast = valid.forecast(base)
    rows = [Candidate(BASE, forecast, _judge(ground, forecast), base)]
    if RIDGE in config.evidence.baselines:
        objective = config.objective
        whole = baseline_forecast(
            RIDGE,
            base.scaler.scale(ground.features.values_TSF),
            ground.features.known_TS,
            ground.labels_TSH,
            ground.features.volatility_TS[:, :, None] * np.sqrt(np.asarray(objective.horizons, float)),
            ground.splits.train,
            objective.horizons,
            objective.quantiles,
            config.profit_tracker.lag + max(objective.horizons),
            config.seed,
            1,
        )
        days = ground.splits.valid
        ridge = Forecast(whole.quantiles_TSHQ[days], whole.head_TS[days], whole.horizons, whole.levels)
        rows.append(Candidate(RIDGE, ridge, _judge(ground, ridge, without_head=True)))
    rows.append(Candidate(NOTHING, nothing_changes(forecast)))
    return rows


def try_method(method: str, ground: Ground, folder: Path, outputs: Path) -> Candidate:
    """Train one candidate, or go on with it, or take it as it is when it is finished; its row is in the ledger."""
    config = candidate_config(ground.config, ground.base, method)
    base, training, train = ground.base.forecaster, config.training, ground.splits.train
    torch.manual_seed(config.seed)
    if method == "scratch":
        scaler = Scaler.fit(ground.features, train)
        levels, horizons = config.objective.quantiles, config.objective.horizons
        forecaster = Forecaster.fresh(config.model, scaler, horizons, levels, training.device)
    else:
        forecaster = dataclasses.replace(base, model=copy.deepcopy(base.model))
    moved = prepare(forecaster.model, method, training.lora_rank)
    path = folder / "candidates" / method
    checkpoints = Checkpoints(path / "checkpoints")
    if (path / "result.json").is_file():
        known = json.loads((path / "result.json").read_text())
        forecaster = Forecaster.load(path / "model", training.device)
        forecast = ground.periods["valid"].forecast(forecaster)
        judged = _judge(ground, forecast)
        return Candidate(method, forecast, judged, forecaster, moved=moved, **known)

    going_on = checkpoints.newest() > 0
    record = _open_candidate(config, ground.base, folder, method, checkpoints)
    facts, endings = facts_of(path), {"interrupted": (Interrupted, KeyboardInterrupt)}
    with record, in_the_ledger(outputs, path, facts, ground.periods, going_on, endings) as trial:
        sampler = WindowSampler(
            ground.bars,
            forecaster.scaler.scale(ground.features.values_TSF),
            ground.features.known_TS,
            ground.labels_TSH,
            train,
            training.window,
            training.batch_size,
            training.symbols_per_window,
        )
        probe = ValidationProbe(forecaster, ground.tracker, config.objective, ground.periods["valid"], record.history())
        trainer = Trainer(
            forecaster.model,
            ground.objective,
            sampler,
            training,
            config.seed,
            probe,
            config.profit_tracker.every,
            checkpoints,
        )
        pull_back(trainer.optimizer, training.shrinkage)
        first_step = trainer.resume()
        with Console(training.max_steps, first_step, config.profit_tracker.report_every) as console:
            console.say(f"{WORDS[method]}: {moved:,} weights may move, {training.max_steps} steps")

            def on_step(step: int, values: dict[str, float]) -> None:
                is_due = step % config.profit_tracker.report_every == 0
                console.step(step, values, probe.report if is_due else None)  # the table at the end has the rest

            progress = trainer.train(record.log, on_step)
            console.stopped(progress.step, training.patience)
        trainer.load_best()
        merge(forecaster.model)
        forecast = ground.periods["valid"].forecast(forecaster)
        judged = _judge(ground, forecast)
        ended: dict[str, Any] = {
            "steps": progress.step,
            "best_step": progress.best_step,
            "skipped_steps": progress.skipped_steps,
        }
        candidate = Candidate(method, forecast, judged, forecaster, moved=moved, **ended)
        kept(candidate, ground).save(record.model)
        trial.ledger.finish(
            trial.row,
            status="done",
            valid_dates=[str(day.date()) for day in judged.equity["date"][1:]],
            valid_returns=judged.returns_T.tolist(),
            sharpe=judged.result["profit"]["sharpe_ratio"],
        )
        write_json_atomically(path / "result.json", ended)
    return candidate


def kept(chosen: Candidate, ground: Ground) -> Forecaster:
    """The forecaster of a candidate, with the universe that its features need and the days that it has seen."""
    assert chosen.forecaster is not None
    first = min(ground.base.forecaster.days["train"][0], ground.days["train"][0])
    days = ground.days | {"train": (first, ground.days["train"][1])}
    return dataclasses.replace(chosen.forecaster, symbols=ground.universe, days=days)


def _judge(ground: Ground, forecast: Forecast, without_head: bool = False) -> Judgement:
    tracker = ground.tracker
    if without_head and tracker.config.policy == "head":
        tracker = ProfitTracker(tracker.config, policy="edge")
    return judge(ground.periods["valid"], forecast, tracker, {}, ground.config.evidence, ground.config.seed)


def _open_candidate(
    config: ExperimentConfig, base: BaseModel, folder: Path, method: str, checkpoints: Checkpoints
) -> RunRecord:
    """The folder of a candidate within the run's; one that was killed before its first checkpoint begins anew."""
    path = folder / "candidates" / method
    if (step := checkpoints.newest()) > 0:
        return RunRecord.reopen(path, step)
    shutil.rmtree(path, ignore_errors=True)
    delta, signature = signature_of(config, base, method)
    facts = facts_of(folder) | {"signature": signature, "kind": KIND, "name": f"{config.name} {method}"}
    values = dataclasses.asdict(config)
    return RunRecord.create(folder.parent, folder.name, "candidates", values, delta, facts, called=method)


def facts_of(folder: Path) -> dict[str, Any]:
    """What run.json of a folder says."""
    return json.loads((folder / "run.json").read_text())
