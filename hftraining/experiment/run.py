"""The conductor: a run from prices to report.

Everything heavy is imported inside the functions, so that composing, checking and completing a config is quick.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hftraining.core.errors import ConfigError, LeakError
from hftraining.experiment.config import ExperimentConfig, load_config
from hftraining.experiment.opening import (
    check_resumable,
    open_record,
    row_in_the_ledger,
    run_json,
    stacked,
    warnings_of,
)

if TYPE_CHECKING:
    from hftraining.core.bars import Bars
    from hftraining.evidence.leaks import LeakReport
    from hftraining.market.windows import Splits


def splits_of(config: ExperimentConfig, bars: Bars) -> Splits:
    """The training, validation and test days of a config, with the purge between them."""
    from hftraining.market.windows import make_splits

    splits = make_splits(bars.sessions_T, config.stocks, config.profit_tracker.lag + max(config.objective.horizons))
    if not config.training.history:
        return splits
    train = slice(max(splits.train.start, splits.train.stop - config.training.history), splits.train.stop)
    return dataclasses.replace(splits, train=train)


def prove_run(folder: Path, days: int, seed: int = 0) -> LeakReport:
    """The leak proof of a finished run, with its own config, bars and trained model."""
    from hftraining.evidence.leaks import Way, prove
    from hftraining.market.prices import load_bars
    from hftraining.model.forecaster import Forecaster
    from hftraining.profit_tracker import ProfitTracker

    config = load_config(folder / "config.yaml")
    forecaster = Forecaster.load(folder / "model")
    way, stocks = Way.of(forecaster, ProfitTracker(config.profit_tracker)), config.stocks
    if config.init_from:  # its scaler and its market are those of the base
        way = dataclasses.replace(way, fit_scaler=lambda features, train: forecaster.scaler)
        stocks = dataclasses.replace(stocks, symbols=list(forecaster.symbols), exclude=[])
    bars = load_bars(stocks)
    return prove(bars, splits_of(config, bars).train, way, forecaster.model.receptive_field, days, seed)


def run_experiment(
    config: ExperimentConfig,
    argv: list[str] | None = None,
    bars: Bars | None = None,
    *,
    kind: str = "base",
    name: str | None = None,
    called: str | None = None,
    sealed: bool = False,
    watch: Callable[[int, dict[str, float]], None] | None = None,
) -> dict[str, Any]:
    """Train, judge and record one run; returns what result.json holds, with its folder under "folder".

    bars: those that the config asks for, where they are loaded already; a replay pins their snapshot so. The run
    folder is outputs/kind/name/called; name is config.name and called the date and time unless given. A sealed run
    never sees a bar of the test days, and has no test results. `watch` gets the step and the values of each probe;
    what it raises ends the run, and Pruned says that this was meant.

    Raises before anything is written: ConfigError or MarketDataError for what the user can mend, LeakError for what
    we must. Raises Interrupted when SIGTERM or SIGINT came and everything is saved, Diverged when training broke down.
    """
    import torch

    from hftraining.evidence.leaks import Way, prove
    from hftraining.experiment.judging import baseline_weights, judge
    from hftraining.experiment.periods import Period, score_losses
    from hftraining.experiment.probe import ValidationProbe, loss_profit_correlation
    from hftraining.market.features import Scaler, make_features, make_labels
    from hftraining.market.prices import load_bars
    from hftraining.market.windows import WindowSampler
    from hftraining.model.forecaster import Forecaster
    from hftraining.model.objective import Objective
    from hftraining.profit_tracker import ProfitTracker
    from hftraining.reports.console import Console
    from hftraining.reports.report import write_report
    from hftraining.training.checkpoint import Checkpoints
    from hftraining.training.trainer import Trainer

    assert not config.init_from, "finetuning/conductor.py conducts what starts from a base"
    model, objective, training = config.model, config.objective, config.training
    if training.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("training.device=cuda: this machine has no usable CUDA device; use training.device=cpu")
    if training.threads:
        torch.set_num_threads(training.threads)
    if config.resume:
        check_resumable(Path(config.resume))

    # What the market said, and what a decision could have earned.
    bars = bars or load_bars(config.stocks)
    lag, purge = config.profit_tracker.lag, config.profit_tracker.lag + max(objective.horizons)
    whole, splits = bars, splits_of(config, bars)
    if sealed:
        bars = whole.rows(slice(0, splits.test.start))
    features = make_features(bars)
    labels_TSH = make_labels(bars, features.volatility_TS, objective.horizons, lag, objective.label, objective.relative)
    scaler = Scaler.fit(features, splits.train)
    sampler = WindowSampler(
        bars,
        scaler.scale(features.values_TSF),
        features.known_TS,
        labels_TSH,
        splits.train,
        training.window,
        training.batch_size,
        training.symbols_per_window,
    )

    # What the model thinks comes next.
    torch.manual_seed(config.seed)
    forecaster = Forecaster.fresh(model, scaler, objective.horizons, objective.quantiles, training.device)
    forecaster.symbols, forecaster.days = bars.symbols_S, splits.days(whole.sessions_T)
    reach = forecaster.model.receptive_field
    rows = {"train": splits.train, "valid": splits.valid} | ({} if sealed else {"test": splits.test})
    periods = {
        name: Period.cut(bars, features, labels_TSH, objective.horizons, part, reach - 1) for name, part in rows.items()
    }
    tracker = ProfitTracker(config.profit_tracker)
    proof = prove(bars, splits.train, Way.of(forecaster, tracker), reach, config.evidence.leak_days, config.seed)
    if not proof.ok:
        raise LeakError(f"the leak proof failed, nothing was trained: {'; '.join(proof.lines[:3])}")

    # What simple rules and models would hold; here, so that a baseline that cannot be fitted stops nothing half-done.
    luck = baseline_weights(
        bars,
        features,
        scaler,
        labels_TSH,
        splits.train,
        objective.horizons,
        objective.quantiles,
        purge,
        config.seed,
        tracker,
        config.evidence,
    )

    where = (kind, name or config.name, called)
    with (
        open_record(config, whole, argv, where) as record,
        row_in_the_ledger(config, record, periods) as trial,
    ):
        probe = ValidationProbe(forecaster, tracker, objective, periods["valid"], record.history())
        trainer = Trainer(
            forecaster.model,
            Objective(objective, config.profit_tracker),
            sampler,
            training,
            config.seed,
            probe,
            config.profit_tracker.every,
            Checkpoints(record.checkpoints),
        )
        first_step = trainer.resume()
        with Console(training.max_steps, first_step, config.profit_tracker.report_every, quiet=sealed) as console:
            console.say(f"{bars.source}: {len(bars.symbols_S)} symbols, {_span(bars)}")
            for name, period in periods.items():
                console.say(f"  {name}: {len(period.bars.sessions_T)} sessions, {_span(period.bars)}")
            for warning in bars.warnings:
                console.say(f"  note: {warning}")
            console.say(f"  leak proof: passed on {proof.days} days in {proof.seconds:.1f} s")

            def on_step(step: int, values: dict[str, float]) -> None:
                console.step(step, values, probe.report)
                if watch is not None and "eval/loss" in values:
                    watch(step, values)

            progress = trainer.train(record.log, on_step)
            console.stopped(progress.step, training.patience)
        trainer.load_best()

        # What it is worth: validation days first. Then the test days, unless they stay sealed: they are opened here,
        # once, by the model that validation chose, and the opening is counted.
        forecasts = {name: periods[name].forecast(forecaster) for name in ("train", "valid")}
        openings = 0 if sealed else trial.open_test()
        if not sealed:
            forecasts["test"] = periods["test"].forecast(forecaster)
        losses = {
            name: score_losses(period, periods["train"], forecaster, forecasts[name])
            for name, period in periods.items()
        }
        judged = {
            name: judge(
                periods[name],
                forecasts[name],
                tracker,
                {baseline: weights_TS[rows[name]] for baseline, weights_TS in luck.items()},
                config.evidence,
                config.seed,
            )
            for name in periods
            if name != "train"
        }
        correlation, interval = loss_profit_correlation(probe.losses, probe.sharpes)
        result = {
            "signature": run_json(record.folder)["signature"],
            "steps": progress.step,
            "best_step": progress.best_step,
            "skipped_steps": progress.skipped_steps,
            "eval": {"loss": probe.look(forecasts["valid"])["eval/loss"]},
            "loss": losses,
            **{name: part.result for name, part in judged.items()},
            **trial.verdicts(judged, openings),
            "profit_loss_correlation": {
                "rank_correlation": correlation,
                "interval": interval,
                "probes": len(probe.losses),
            },
            "leak_proof": {"ok": proof.ok, "days": proof.days},
            "warnings": warnings_of(config, bars.warnings, openings),
        }
        forecaster.save(record.model)
        record.write_equity(stacked({name: part.equity for name, part in judged.items()}))
        record.write_trades(stacked({name: part.trades for name, part in judged.items()}))
        record.write_null_band(stacked({name: part.fan for name, part in judged.items()}))
        record.write_result(result)
        write_report(record.folder)
        console.summary(result)
        trial.done(judged["valid"], result)
    return {**result, "folder": str(record.folder)}


def _span(bars: Bars) -> str:
    return f"{bars.sessions_T[0]} to {bars.sessions_T[-1]}"
