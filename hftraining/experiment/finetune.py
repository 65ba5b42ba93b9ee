"""A fine-tune: from a base model and some of its stocks to a table of candidates and the model to keep.

The run folder is outputs/finetuned/NAME/DATE_TIME. What was tried lies in its candidates/, each a sealed run with its
own checkpoints, metrics, model and report; model/ is the one that is recommended, which may be the base's.
"""

import copy
import dataclasses
from pathlib import Path

import torch

from hftraining.core.errors import ConfigError
from hftraining.experiment.baselines import baseline_forecast, rules_without_head
from hftraining.experiment.conclude import conclude
from hftraining.experiment.config import ExperimentConfig
from hftraining.experiment.fit import Fitted, fit, movable
from hftraining.experiment.ground import Ground, prepare, windows_of
from hftraining.experiment.inherit import candidate_config, check, open_base
from hftraining.experiment.judging import judge
from hftraining.experiment.opening import opened, opened_candidate
from hftraining.experiment.probe import probes_of
from hftraining.experiment.recommendation import BASE, NOTHING, RIDGE, Candidate, nothing_changes, recommend
from hftraining.experiment.run import opening_lines, run_experiment
from hftraining.market.features import Scaler
from hftraining.model.adapt import prepare as adapt
from hftraining.model.base import Forecaster, Learner
from hftraining.model.network import Network
from hftraining.profit_tracker import ProfitTracker
from hftraining.reports.console import Console
from hftraining.reports.recommendations import CANDIDATES
from hftraining.runs.record import RunRecord, read_metrics
from hftraining.runs.result import FinishedRun, read_result
from hftraining.training.trainer import Progress


def run(config: ExperimentConfig, argv: list[str] | None = None) -> FinishedRun:
    """Run any config: a fine-tune where it has a base model to start from, else one training, of one stock or many."""
    if config.init_from:
        return run_finetune(config, argv)
    return run_experiment(config, argv, kind="single" if len(config.stocks.symbols) == 1 else "base")


def run_finetune(config: ExperimentConfig, argv: list[str] | None = None) -> FinishedRun:
    """Try every method on the stocks of the config, compare, keep what is best or the base.

    The config is what `inherit` makes. The test days are opened once, by what was chosen. Raises as run_experiment.
    """
    base = open_base(str(config.init_from), config.training.device)
    check(config, base)
    if isinstance(base.forecaster.model, Learner):
        raise ConfigError(
            f"init_from={base.folder}: a {base.forecaster.kind} model cannot be fine-tuned: start from a transformer, "
            f"or train it anew: model={base.forecaster.kind} stocks.symbols=[...]"
        )
    ground = prepare(config, base=base)
    with opened(ground, argv, "finetuned", config.name) as (record, row):
        console = Console(config.training.max_steps, 0, config.profit_tracker.report_every)
        for line in (*opening_lines(ground), f"  base: {base.folder} (signature {base.signature})"):
            console.say(line)
        as_it_is, *simpler = references(ground)
        tried = [try_method(method, ground, record.folder) for method in config.training.methods]
        candidates = {row.name: row for row in (as_it_is, *tried, *simpler)}
        recommendation = recommend(
            candidates.values(),
            ground.periods["valid"],
            ground.others,
            row.trials(),
            config.evidence,
            config.seed,
            bool(config.objective.forecast_weight),
        )
        fitted = candidates[recommendation.choice].fitted
        assert fitted is not None
        _copy_history(record, recommendation.choice)
        conclusion = conclude(ground, fitted, record, row, recommendation)
        console.recommendation(recommendation)
        console.summary(conclusion.result)
    return FinishedRun(record.folder, conclusion.result)


def references(ground: Ground) -> list[Candidate]:
    """The rows of the table that nothing is trained for: the base as it is, ridge (if wanted), "nothing changes"."""
    config, valid, base = ground.config, ground.periods["valid"], ground.forecaster
    as_it_is = Fitted(_with_universe(base, ground), Progress(), [], [])
    forecast = valid.forecast(base)
    judged = judge(valid, forecast, ground.tracker, {}, config.evidence, config.seed)
    rows = [Candidate(BASE, forecast, judged, as_it_is)]
    if RIDGE in config.evidence.baselines:
        whole = baseline_forecast(RIDGE, config, ground.features, base.scaler, ground.labels_TSH, ground.splits.train)
        tracker = ProfitTracker(rules_without_head(config.profit_tracker))
        ridge = whole.rows(ground.splits.valid)
        rows.append(Candidate(RIDGE, ridge, judge(valid, ridge, tracker, {}, config.evidence, config.seed)))
    rows.append(Candidate(NOTHING, nothing_changes(forecast)))
    return rows


def try_method(method: str, ground: Ground, folder: Path) -> Candidate:
    """Train one candidate, resume it, or read it back when it is finished; its row is in the ledger."""
    own = _ground_of(method, ground)
    training, place = own.config.training, folder / "candidates" / method
    moved = movable(own.forecaster)
    if known := read_result(place):
        forecaster = Forecaster.load(place / "model", training.device)
        progress = Progress(known.steps or 0, known.best_step, None, known.skipped_steps)
        valid = ground.periods["valid"]
        forecast = valid.forecast(forecaster)
        judged = judge(valid, forecast, ground.tracker, {}, own.config.evidence, own.config.seed)
        losses, sharpes = probes_of(read_metrics(place))
        return Candidate(method, forecast, judged, Fitted(forecaster, progress, losses, sharpes, moved))
    words = f"{CANDIDATES[method]}: {moved:,} weights may move, {training.max_steps} steps"
    with opened_candidate(own, folder, method) as (record, row):
        fitted = fit(own, record, opening=(words,))
        fitted = dataclasses.replace(fitted, forecaster=_with_universe(fitted.forecaster, ground))
        conclusion = conclude(own, fitted, record, row)
    return Candidate(method, conclusion.valid_forecast, conclusion.valid, fitted)


def _ground_of(method: str, ground: Ground) -> Ground:
    """The ground of one candidate: its own config and the model that it starts from; the test days stay sealed."""
    assert ground.base is not None
    config, base = candidate_config(ground.config, ground.base, method), ground.forecaster
    torch.manual_seed(config.seed)
    if method == "scratch":
        scaler, objective = Scaler.fit(ground.features, ground.splits.train), config.objective
        device = config.training.device
        forecaster = Forecaster.fresh(config.model, scaler, objective.horizons, objective.quantiles, device)
    else:
        forecaster = dataclasses.replace(base, model=copy.deepcopy(base.model))
    assert isinstance(forecaster.model, Network)
    assert isinstance(forecaster.model, Network)
    adapt(forecaster.model, method, config.training.lora_rank)
    windows = ground.windows
    if method == "scratch":  # scaled otherwise
        parts = (ground.bars, ground.features, ground.labels_TSH, ground.splits.train)
        windows = windows_of(config, *parts, forecaster)
    return dataclasses.replace(
        ground,
        config=config,
        forecaster=forecaster,
        windows=windows,
        periods={name: period for name, period in ground.periods.items() if name != "test"},
        baselines={},
        sealed=True,
    )


def _with_universe(forecaster: Forecaster, ground: Ground) -> Forecaster:
    """The forecaster with the universe that its features need and the days that it has seen."""
    assert ground.base is not None
    first = min(ground.base.forecaster.days["train"][0], ground.days["train"][0])
    days = ground.days | {"train": (first, ground.days["train"][1])}
    return dataclasses.replace(forecaster, symbols=ground.universe.symbols_S, days=days)


def _copy_history(record: RunRecord, choice: str) -> None:
    """Log the steps of the chosen candidate as those of the run; the base model has none."""
    for line in read_metrics(record.folder / "candidates" / choice) if choice != BASE else []:
        record.log(int(line["step"]), {tag: v for tag, v in line.items() if tag not in ("step", "seconds")})
