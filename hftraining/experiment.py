"""The experiment: its config tree, and the conductor that takes a run from prices to report.

Everything heavy is imported inside run_experiment, so that composing, checking and completing a config is quick.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hftraining.evidence.config import EvidenceConfig
from hftraining.forecast.config import ModelConfig, ObjectiveConfig
from hftraining.market.config import StocksConfig
from hftraining.trading.config import ProfitTrackerConfig
from hftraining.training.config import TrainingConfig

if TYPE_CHECKING:
    import pandas as pd

    from hftraining.leak_proof import LeakReport
    from hftraining.market.bars import Bars
    from hftraining.market.windows import Splits
    from hftraining.runs.record import RunRecord
    from hftraining.training.scoring import Stretch
    from hftraining.training.trial import Trial


class ConfigError(ValueError):
    """The config cannot be run: what, where, what to do, in one line."""


@dataclass
class ExperimentConfig:
    """The tree. Its defaults are what `python train.py` runs."""

    model: ModelConfig = field(default_factory=ModelConfig)
    stocks: StocksConfig = field(default_factory=StocksConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    profit_tracker: ProfitTrackerConfig = field(default_factory=ProfitTrackerConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    evidence: EvidenceConfig = field(default_factory=EvidenceConfig)
    seed: int = 1
    name: str = "${model.name}-${stocks.name}-${objective.name}"  # names the run folder
    output_dir: str = "outputs"
    resume: str | None = None  # a run folder to go on with, under its own config
    init_from: str | None = None  # fine-tune: the run folder of the base model; see finetuning/

    def __post_init__(self) -> None:
        """Refuse combinations of groups that make no sense together."""
        tracker, objective = self.profit_tracker, self.objective
        if tracker.horizon and tracker.horizon not in objective.horizons:
            raise ValueError(
                f"profit_tracker.horizon={tracker.horizon} is not one of objective.horizons={objective.horizons}"
            )
        if objective.forecast_weight == 0 and tracker.policy != "head":
            raise ValueError(
                f"profit_tracker.policy={tracker.policy} trades forecasts, but objective.forecast_weight=0 trains "
                "none: use profit_tracker.policy=head"
            )
        if objective.profit_weight == 0 and tracker.policy == "head":
            raise ValueError(
                "profit_tracker.policy=head trades the position head, but objective.profit_weight=0 does not train it: "
                "use objective=mixed or objective=profit"
            )
        if self.training.methods and not self.init_from:
            raise ValueError(f"training.methods={self.training.methods} needs a base model: init_from=outputs/base/...")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must not be negative")


def typed_config(values: Any) -> ExperimentConfig:
    """The checked tree from nested values (a dict or an OmegaConf node).

    Merged back onto the dataclass, so that a key slipped in with `+` is refused too. Raises ConfigError.
    """
    try:
        plain = OmegaConf.to_container(values, resolve=False) if OmegaConf.is_config(values) else values
        merged = OmegaConf.merge(OmegaConf.structured(ExperimentConfig), plain)
        config = OmegaConf.to_object(merged)
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        raise ConfigError(explain(error)) from error
    assert isinstance(config, ExperimentConfig)
    return config


def load_config(path: Path) -> ExperimentConfig:
    """The config of a run folder's config.yaml."""
    if not path.is_file():
        raise ConfigError(f"{path} does not exist: resume wants a run folder, e.g. resume=outputs/base/NAME/DATE_TIME")
    return typed_config(OmegaConf.load(path))


def explain(error: BaseException) -> str:
    """One line for a config error, with a did-you-mean where a key is close to a known one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = next((line for line in lines if not line.startswith(("full_key", "object_type", "reference_type"))), "")
    full_key = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key")), "")
    if match := re.search(r"Key '(\w+)' (?:not in|is not in struct)", text):
        return unknown_key(full_key or match.group(1))
    return f"{full_key}: {text}" if full_key and full_key not in text else text


def unknown_key(key: str) -> str:
    """The message for a field that does not exist, with the closest one that does."""
    known = [name for name in _field_names(ExperimentConfig()) if ("." in name) == ("." in key)]
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if not close:  # the right field, under a wrong group or none
        close = [
            name for name in _field_names(ExperimentConfig()) if name.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]
        ][:1]
    return f"{key}: there is no such field" + (f"; did you mean {close[0]}?" if close else "")


def _field_names(config: Any, prefix: str = "") -> list[str]:
    names = []
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        names.append(prefix + entry.name)
        if dataclasses.is_dataclass(value):
            names += _field_names(value, f"{prefix}{entry.name}.")
    return names


class LeakError(Exception):
    """The leak proof failed: something that was known on a day changed with what came after it."""


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
    from hftraining.forecast.forecaster import Forecaster
    from hftraining.leak_proof import Way, prove
    from hftraining.market.prices import load_bars
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

    from hftraining.forecast.forecaster import Forecaster
    from hftraining.forecast.objective import Objective
    from hftraining.leak_proof import Way, prove
    from hftraining.market.features import Scaler, make_features, make_labels
    from hftraining.market.prices import load_bars
    from hftraining.market.windows import WindowSampler
    from hftraining.profit_tracker import ProfitTracker
    from hftraining.runs.report import write_report
    from hftraining.training.checkpoint import Checkpoints
    from hftraining.training.console import Console
    from hftraining.training.judging import baseline_weights, judge
    from hftraining.training.probe import ValidationProbe, loss_profit_correlation
    from hftraining.training.scoring import Stretch, score_losses
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
    stretches = {
        name: Stretch.cut(bars, features, labels_TSH, objective.horizons, part, reach - 1)
        for name, part in rows.items()
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
        _open_record(config, whole, argv, where) as record,
        _in_the_ledger(config, record, stretches) as trial,
    ):
        probe = ValidationProbe(forecaster, tracker, objective, stretches["valid"], record.history())
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
            for name, stretch in stretches.items():
                console.say(f"  {name}: {len(stretch.bars.sessions_T)} sessions, {_span(stretch.bars)}")
            for warning in bars.warnings:
                console.say(f"  note: {warning}")
            console.say(f"  leak proof: passed on {proof.days} days in {proof.seconds:.1f} s")

            def on_step(step: int, values: dict[str, float]) -> None:
                console.step(step, values, probe.report)
                if watch is not None and "eval/loss" in values:
                    watch(step, values)

            progress = trainer.train(record.log, on_step)
        trainer.load_best()

        # What it is worth: validation days first. Then the test days, unless they stay sealed: they are opened here,
        # once, by the model that validation chose, and the opening is counted.
        forecasts = {name: stretches[name].forecast(forecaster) for name in ("train", "valid")}
        openings = 0 if sealed else trial.open_test()
        if not sealed:
            forecasts["test"] = stretches["test"].forecast(forecaster)
        losses = {
            name: score_losses(stretch, stretches["train"], forecaster, forecasts[name])
            for name, stretch in stretches.items()
        }
        judged = {
            name: judge(
                stretches[name],
                forecasts[name],
                tracker,
                {baseline: weights_TS[rows[name]] for baseline, weights_TS in luck.items()},
                config.evidence,
                config.seed,
            )
            for name in stretches
            if name != "train"
        }
        correlation, interval = loss_profit_correlation(probe.losses, probe.sharpes)
        result = {
            "signature": _run_json(record.folder)["signature"],
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


def _open_record(
    config: ExperimentConfig,
    bars: Bars,
    argv: list[str] | None,
    where: tuple[str, str, str | None],
) -> RunRecord:
    """A new run folder with config and manifest in it, or the folder of the run to go on with."""
    import torch

    from hftraining.runs.bar_digests import digest_bars, write_digests
    from hftraining.runs.code_version import code_patch
    from hftraining.runs.identity import config_delta, manifest, signature
    from hftraining.runs.record import RunRecord
    from hftraining.training.checkpoint import Checkpoints

    if config.resume:
        folder = Path(config.resume)
        known = _run_json(folder)
        if bars.fingerprint() != known["data"]["fingerprint"]:
            raise ConfigError(
                f"{folder}: the bars are not those that the run began with (fingerprint {bars.fingerprint()} where "
                f"run.json says {known['data']['fingerprint']}): start a new run"
            )
        return RunRecord.reopen(folder, Checkpoints(folder / "checkpoints").newest())
    values = dataclasses.asdict(config)
    delta = config_delta(values, dataclasses.asdict(typed_config({})))
    patch = code_patch()
    facts = manifest(
        signature=signature(delta),
        seed=config.seed,
        threads=torch.get_num_threads(),
        fingerprint=bars.fingerprint(),
        source=bars.source,
        symbols=bars.symbols_S,
        first=str(bars.sessions_T[0]),
        last=str(bars.sessions_T[-1]),
        snapshot=bars.snapshot,
        argv=argv,
        patch=patch,
    )
    kind, name, called = where
    outputs = Path(config.output_dir)
    record = RunRecord.create(outputs, kind, name, values, delta, facts, patch[0], called)
    write_digests(digest_bars(bars), record.folder, outputs / ".bars" / f"{bars.fingerprint()}.npz")
    return record


def check_resumable(folder: Path) -> None:
    """A run that is finished has nothing to go on with; another thread count would give other bits."""
    import torch

    if (folder / "result.json").exists():
        raise ConfigError(f"{folder} is finished: there is nothing to resume")
    try:
        threads = json.loads((folder / "run.json").read_text())["threads"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{folder} is not a run that can be resumed: run.json cannot be read ({error})") from error
    torch.set_num_threads(threads)


def _in_the_ledger(
    config: ExperimentConfig, record: RunRecord, stretches: dict[str, Stretch]
) -> AbstractContextManager[Trial]:
    from hftraining.training.trainer import Interrupted, Pruned
    from hftraining.training.trial import in_the_ledger

    endings = {"interrupted": (Interrupted, KeyboardInterrupt), "pruned": (Pruned,)}
    facts = _run_json(record.folder)
    return in_the_ledger(record.folder.parents[2], record.folder, facts, stretches, bool(config.resume), endings)


def _run_json(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def stacked(frames: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Frames under each other, with a first column that names the window."""
    import pandas as pd

    return pd.concat([frame.assign(window=name) for name, frame in frames.items()], ignore_index=True)


def warnings_of(config: ExperimentConfig, of_the_bars: tuple[str, ...], openings: int) -> list[str]:
    """What a reader of the results has to know, one sentence each."""
    warnings = list(of_the_bars)
    warnings.append("the symbols were chosen by people who know which ones survived: profits on them are flattered")
    if openings > 1:
        warnings.append(f"these test days were opened {openings} times: their figures count for less each time")
    if config.objective.label == "close":
        warnings.append("objective.label=close: the forecasts are of close-to-close returns, which nobody can trade")
    if config.profit_tracker.commission + config.profit_tracker.slippage == 0:
        warnings.append("no trading costs: profits say what forecasts are worth before anyone is paid")
    return warnings


def _span(bars: Bars) -> str:
    return f"{bars.sessions_T[0]} to {bars.sessions_T[-1]}"
