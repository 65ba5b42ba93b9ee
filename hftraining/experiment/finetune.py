"""The conductor of a fine-tune: a base model and some of its stocks -> a decision table and the model to keep.

The run folder is outputs/finetuned/SYMBOL/DATE_TIME. What was tried lies in its candidates/, each with its own
checkpoints, metrics and model; its model/ is the one that the decision table recommends, which may be the base's.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hftraining.core.errors import ConfigError, LeakError
from hftraining.experiment.config import ExperimentConfig
from hftraining.experiment.inherit import check, open_base, signature_of
from hftraining.experiment.opening import check_resumable, new_record, stacked, warnings_of
from hftraining.experiment.run import run_experiment

if TYPE_CHECKING:
    from hftraining.core.bars import Bars
    from hftraining.experiment.decision import Candidate
    from hftraining.experiment.finetune_ground import Ground
    from hftraining.runs.record import RunRecord


def run(config: ExperimentConfig, argv: list[str] | None = None) -> dict[str, Any]:
    """Run any config: a fine-tune where it has a base model to start from, else one training, of one stock or many."""
    if config.init_from:
        return run_finetune(config, argv)
    return run_experiment(config, argv, kind="single" if len(config.stocks.symbols) == 1 else "base")


def run_finetune(config: ExperimentConfig, argv: list[str] | None = None) -> dict[str, Any]:
    """Try every method on the stocks of the config, compare, keep what is best or the base; returns result.json.

    The config is what `inherit` makes. The test days are opened once, by what was chosen. Raises as run_experiment.
    """
    import torch

    from hftraining.core.errors import Interrupted
    from hftraining.evidence.leaks import Way, prove
    from hftraining.experiment.candidates import facts_of, kept, references, try_method
    from hftraining.experiment.decision import BASE, decide
    from hftraining.experiment.finetune_ground import prepare_ground
    from hftraining.experiment.judging import baseline_weights, judge
    from hftraining.experiment.periods import score_losses
    from hftraining.experiment.probe import loss_profit_correlation
    from hftraining.experiment.trial import in_the_ledger
    from hftraining.reports.console import Console
    from hftraining.reports.report import write_report
    from hftraining.runs.record import read_metrics

    if config.training.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("training.device=cuda: this machine has no usable CUDA device; use training.device=cpu")
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    if config.resume:
        check_resumable(Path(config.resume))
    base = open_base(str(config.init_from), config.training.device)
    check(config, base)

    # What the market said, of the whole universe; what can be known by when; what simple rules would hold.
    ground, universe = prepare_ground(config, base)
    splits, scaler, evidence = ground.splits, base.forecaster.scaler, config.evidence
    way = Way.of(base.forecaster, ground.tracker)
    way = dataclasses.replace(way, fit_scaler=lambda features, train: scaler)
    reach = base.forecaster.model.receptive_field
    proof = prove(universe, splits.train, way, reach, evidence.leak_days, config.seed)
    if not proof.ok:
        raise LeakError(f"the leak proof failed, nothing was trained: {'; '.join(proof.lines[:3])}")
    luck = baseline_weights(
        ground.bars,
        ground.features,
        scaler,
        ground.labels_TSH,
        splits.train,
        config.objective.horizons,
        config.objective.quantiles,
        config.profit_tracker.lag + max(config.objective.horizons),
        config.seed,
        ground.tracker,
        evidence,
    )
    rows = {name: getattr(splits, name) for name in ("train", "valid", "test")}

    record = _open_record(ground, universe, argv)
    facts, outputs = facts_of(record.folder), record.folder.parents[2]
    endings = {"interrupted": (Interrupted, KeyboardInterrupt)}
    with (
        record,
        in_the_ledger(outputs, record.folder, facts, ground.periods, bool(config.resume), endings) as trial,
    ):
        console = Console(config.training.max_steps, 0, config.profit_tracker.report_every)
        console.say(f"{universe.source}: {', '.join(ground.bars.symbols_S)} of {len(ground.universe)} symbols")
        for name, (first, last) in ground.days.items():
            console.say(f"  {name}: {len(ground.periods[name].bars.sessions_T)} sessions, {first} to {last}")
        console.say(f"  base: {base.folder} (signature {base.signature})")
        console.say(f"  leak proof: passed on {proof.days} days in {proof.seconds:.1f} s")

        # What could be done: nothing, each method, something much simpler. Judged on validation days alone.
        as_it_is, *simpler = references(ground)
        tried = [try_method(method, ground, record.folder, outputs) for method in config.training.methods]
        candidates = {row.name: row for row in (as_it_is, *tried, *simpler)}
        trials = trial.ledger.trials(trial.fingerprint, trial.valid_window)
        decision = decide(
            candidates.values(),
            ground.periods["valid"],
            ground.others,
            trials,
            evidence,
            config.seed,
            bool(config.objective.forecast_weight),
        )

        # What the choice is worth. It alone opens the test days, once, and the opening is counted.
        choice: str = decision["choice"]
        chosen = candidates[choice]
        assert chosen.forecaster is not None and chosen.judged is not None
        forecasts = {"train": ground.periods["train"].forecast(chosen.forecaster), "valid": chosen.forecast}
        openings = trial.open_test()
        forecasts["test"] = ground.periods["test"].forecast(chosen.forecaster)
        losses = {
            name: score_losses(period, ground.periods["train"], chosen.forecaster, forecasts[name])
            for name, period in ground.periods.items()
        }
        judged = {
            name: judge(
                ground.periods[name],
                forecasts[name],
                ground.tracker,
                {baseline: weights_TS[rows[name]] for baseline, weights_TS in luck.items()},
                evidence,
                config.seed,
            )
            for name in ("valid", "test")
        }
        history = [] if choice == BASE else read_metrics(record.folder / "candidates" / choice)
        for line in history:
            record.log(int(line["step"]), {tag: v for tag, v in line.items() if tag not in ("step", "seconds")})
        probes = [line for line in history if "eval/loss" in line]
        sharpes = [line["profit/sharpe_ratio"] for line in probes]
        correlation, interval = loss_profit_correlation([line["eval/loss"] for line in probes], sharpes)
        result = {
            "signature": facts["signature"],
            "decision": decision,
            "base": facts["base"],
            "steps": chosen.steps,
            "best_step": chosen.best_step,
            "skipped_steps": chosen.skipped_steps,
            "eval": {"loss": _eval_loss(ground, chosen)},
            "loss": losses,
            **{name: part.result for name, part in judged.items()},
            **trial.verdicts(judged, openings),
            "profit_loss_correlation": {
                "rank_correlation": correlation,
                "interval": interval,
                "probes": len(probes),
            },
            "leak_proof": {"ok": proof.ok, "days": proof.days},
            "warnings": [*_base_warnings(ground, universe), *warnings_of(config, universe.warnings, openings)],
        }
        kept(chosen, ground).save(record.model)
        record.write_equity(stacked({name: part.equity for name, part in judged.items()}))
        record.write_trades(stacked({name: part.trades for name, part in judged.items()}))
        record.write_null_band(stacked({name: part.fan for name, part in judged.items()}))
        record.write_result(result)
        write_report(record.folder)
        console.decision(decision)
        console.summary(result)
        trial.done(judged["valid"], result)
    return {**result, "folder": str(record.folder)}


def _open_record(ground: Ground, universe: Bars, argv: list[str] | None) -> RunRecord:
    """A new run folder outputs/finetuned/NAME/DATE_TIME, or the one to go on with."""
    from hftraining.experiment.candidates import KIND, facts_of
    from hftraining.runs.record import RunRecord

    config, base, bars = ground.config, ground.base, ground.bars
    prints = {"fingerprint": bars.fingerprint(), "universe": universe.fingerprint()}
    if config.resume:
        folder, data = Path(config.resume), facts_of(Path(config.resume))["data"]
        if any(data.get(name) != value for name, value in prints.items()):
            raise ConfigError(f"{folder}: the bars are not those that the run began with: start a new run")
        return RunRecord.reopen(folder, -1)
    delta, signature = signature_of(config, base)
    start = {"folder": str(base.folder), "signature": base.signature, "weights": base.weights}
    where = (KIND, config.name, None)
    # The universe is what the features were made of.
    return new_record(config, bars, argv, where, delta, signature, start, universe=prints["universe"])


def _eval_loss(ground: Ground, chosen: Candidate) -> float:
    valid = ground.periods["valid"]
    if ground.config.objective.forecast_weight:
        return valid.forecast_loss(chosen.forecast)
    return valid.profit_loss(chosen.forecast, ground.tracker.config)


def _base_warnings(ground: Ground, universe: Bars) -> list[str]:
    warnings = []
    base = ground.base
    if ground.universe == base.forecaster.symbols and universe.fingerprint() != base.fingerprint:
        warnings.append("the bars are not those that the base model was trained on: its features may look otherwise")
    if ground.days["test"][0] <= base.forecaster.days["test"][1]:
        warnings.append("the base model's own run has opened test days of this run: they are no first look")
    return warnings
