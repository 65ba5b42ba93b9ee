"""Backtests: what a trained run of any kind would have earned on other days, stocks, costs or with another portfolio.

Legend: T sessions, S symbols, H horizons.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hfinference.bars_of_run import RunBars, bars_of_run
from hfinference.judged import PERIOD, Asked, judged_folder
from hfinference.overrides import rules_of
from hfinference.seen_days import SeenDays, first_test_day, notes_of_walk, rows_between
from hfinference.trained import Table, TrainedModel, forecast_of, load_model, threads_of
from hftraining.core.bars import Bars
from hftraining.core.errors import UserError
from hftraining.core.forecast import Forecast
from hftraining.core.progress import phase
from hftraining.core.untrusted import SMALL, digest
from hftraining.core.values import flatten, printable
from hftraining.experiment.baselines import baseline_weights, lesson_of
from hftraining.experiment.compose import override
from hftraining.experiment.config import ExperimentConfig, typed_config
from hftraining.experiment.finished import lost_ledger
from hftraining.experiment.judging import COSTS, at_costs, judge_book, with_scores
from hftraining.experiment.periods import Period
from hftraining.market.labels import make_labels
from hftraining.model.ensemble import members_of
from hftraining.model.folder import CONFIG
from hftraining.model.learner import LearningError
from hftraining.profit_tracker import ProfitTracker
from hftraining.runs.folder import outputs_of, read_config_diff
from hftraining.runs.result import AtCosts, PeriodResult, RunResult
from hftraining.trading.strategies import STRATEGIES

LAGS = (1, 2)  # sessions from decision to fill in the table of costs
LEAST_SESSIONS = 3  # a decision, its fill, and a day on which it earns


@dataclass(frozen=True)
class Backtest:
    """A backtest that was made. folder: of its files, report.html among them. equity: date, equity, buy_and_hold."""

    folder: Path
    result: RunResult
    equity: pd.DataFrame
    trades: pd.DataFrame

    @property
    def period(self) -> PeriodResult:
        """What result.json says of these days."""
        return self.result.periods[PERIOD]

    @property
    def metrics(self) -> dict[str, Any]:
        """As trading.metrics.summarize: total_return, sharpe_ratio, max_drawdown and so on."""
        return self.period.profit

    @property
    def final_equity(self) -> float:
        """Of the account at the last close, in currency."""
        return float(self.equity["equity"].iloc[-1])

    def as_object(self) -> dict[str, Any]:
        """For --json."""
        result, period = self.result, self.period
        return {
            "folder": str(self.folder),
            "report": str(self.folder / "report.html"),
            "final_equity": self.final_equity,
            "days": {"sessions": period.days, "first": period.first, "last": period.last},
            "profit": period.profit,
            "buy_and_hold": period.held,
            "verdict": result.verdict,
            "in_sample": result.in_sample,
            "n_trials": result.n_trials,
            "test_openings": result.test_openings,
            "at_costs": [dataclasses.asdict(found) for found in period.at_costs],
            "warnings": result.warnings,
        }


@dataclass(frozen=True)
class Stage:
    """All that is known of a backtest before anything is traded. config: with the rules and stocks that were asked for.

    period: the days that are traded, with their labels. weights_TS: what the portfolio makes of the forecast of them.
    """

    model: TrainedModel
    config: ExperimentConfig
    bars: RunBars
    rows: slice
    period: Period
    forecast: Forecast
    weights_TS: np.ndarray
    baselines: dict[str, np.ndarray]
    warnings: tuple[str, ...]
    in_sample: str
    test_first: str | None


def backtest_model(
    model_path: Path | str,
    start_date: str | None = None,
    end_date: str | None = None,
    *,
    stocks: Sequence[str] = (),
    snapshot: str | None = None,
    words: Sequence[str] = (),
    in_sample: bool = False,
    outputs: Path | None = None,
    argv: Sequence[str] | None = None,
    say: Callable[[str], None] = lambda line: None,
    **costs: Any,
) -> Backtest:
    """Trade the forecasts of a run of any kind over some days, with the whole evidence and a page of its own.

    model_path: a run folder, or a model folder. start_date, end_date: ISO, both included; None: the first test day of
    the run, the last bar. The account starts flat at start_date; what comes before it only the features see. stocks,
    snapshot: see bars_of_run. words: portfolio=top profit_tracker.stop_loss=0 and so on, see rules_of; stocks.* too.
    costs: fields of profit_tracker by name, such as commission=0.002. in_sample: days that the model was trained on are
    allowed, and everything is marked. outputs: where backtests/NAME/DATE_TIME goes; by default that of the run.

    Each backtest with other settings, days or bars is a trial in the ledger, the same again is not; one that reaches
    test days is an opening. Nothing is written before it is known that all fits. Raises UserError, in one line.

    >>> backtest_model("outputs/base/NAME/DATE_TIME", "2016-01-01", "2017-12-31", commission=0.002).final_equity
    """
    model = load_model(model_path)
    typed = [*words, *(override(f"profit_tracker.{name}", value) for name, value in costs.items())]
    with threads_of(model):
        stage = staged(model, start_date, end_date, stocks, snapshot, typed, in_sample)
        for line in stage.warnings:
            say(f"  note: {line}")
        place = outputs or outputs_of(model.folder, model.manifest) or Path("outputs")
        return _judged(stage, place, argv)


def staged(
    model: TrainedModel,
    start: str | None,
    end: str | None,
    stocks: Sequence[str],
    snapshot: str | None,
    words: Sequence[str],
    in_sample: bool,
) -> Stage:
    """Everything up to the target weights, and all that can be wrong with what was asked for. Raises UserError."""
    of_stocks = [word for word in words if word.startswith(("stocks.", "stocks="))]
    config = rules_of(config_of(model), [word for word in words if word not in of_stocks])
    warnings = list[str]()
    if lost := lost_ledger(config.evidence):
        warnings.append(f"its ledger, {printable(lost)}, does not exist: your own ledger counts this backtest")
        config = dataclasses.replace(config, evidence=dataclasses.replace(config.evidence, ledger=None))
    with phase("reading the bars"):
        bars = bars_of_run(model, stocks, snapshot, of_stocks)
    if stocks or of_stocks or model.config is None:
        config = dataclasses.replace(config, stocks=bars.config)
    seen = SeenDays.of(model)
    rows = rows_between(bars.universe.sessions_T, seen.test_first if start is None else start, end, LEAST_SESSIONS)
    sentence = seen.check(bars.universe.sessions_T, rows, in_sample)
    seen_before = seen.notes(bars.universe.sessions_T, rows)
    warnings += [*bars.notes, *notes_of_walk(model), *seen_before, *bars.universe.warnings]
    table = Table(bars.universe)
    with phase(f"forecasts of {len(bars.symbols):,} stocks"):
        forecast = forecast_of(model.predictor, table, bars.symbols, rows)
    refuse_nothing(forecast, bars.universe, rows)
    period, lesson_rows = _period(model, config, table, bars, rows), seen.training_rows(bars.universe.sessions_T)
    with phase("the weights of the portfolio"):
        tracker = ProfitTracker(config.profit_tracker, config.portfolio)
        weights_TS = tracker.weights(period.bars, forecast)
    baselines, said = _baselines(model, config, table, bars, lesson_rows)
    return Stage(
        model,
        config,
        bars,
        rows,
        period,
        forecast,
        weights_TS,
        {name: weights_TS[rows] for name, weights_TS in baselines.items()},
        (*warnings, *said),
        sentence,
        seen.test_first,
    )


def config_of(model: TrainedModel) -> ExperimentConfig:
    """The config of the run; of a model alone the defaults, for what it forecasts."""
    if model.config is not None:
        return model.config
    task = {"horizons": list(model.horizons), "quantiles": list(model.levels), "relative": model.relative}
    return typed_config({"objective": task, "features": {"columns": list(model.columns)}, "name": "model"})


def refuse_nothing(forecast: Forecast, bars: Bars, rows: slice) -> None:
    """Raise UserError where the model forecasts nothing on these days."""
    if not np.isfinite(forecast.quantiles_TSHQ).any():
        raise UserError(
            f"the model forecasts nothing from {bars.sessions_T[rows.start]} to {bars.sessions_T[rows.stop - 1]}: its "
            f"features need more bars before these days than the {rows.start:,} sessions that there are"
        )


def _period(model: TrainedModel, config: ExperimentConfig, table: Table, bars: RunBars, rows: slice) -> Period:
    """The days that are traded, with what a decision on each of them earned."""
    features, columns = table.of(members_of(model.predictor)[0].columns), bars.universe.columns_of(bars.symbols)
    objective, lag = config.objective, config.profit_tracker.lag
    horizons = list(model.horizons)
    labels = make_labels(table.bars, features.volatility_TS, horizons, lag, objective.label, model.relative)
    own = features if bars.symbols == bars.universe.symbols_S else features.of(columns)
    return Period.cut(bars.traded, own, labels[:, columns], horizons, rows, 0, model.relative, objective.loss)


def _baselines(
    model: TrainedModel, config: ExperimentConfig, table: Table, bars: RunBars, train: slice
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The target weights of the run's baselines over all sessions, and which were left out, one sentence each.

    Those that learn do so on the training days of the model, as far as these bars have them. train: their rows.
    """
    like, columns = members_of(model.predictor)[0], bars.universe.columns_of(bars.symbols)
    features = table.of(like.columns)
    own = features if bars.symbols == bars.universe.symbols_S else features.of(columns)

    def weights(names: list[str], labels: np.ndarray) -> dict[str, np.ndarray]:
        asked = dataclasses.replace(config, evidence=dataclasses.replace(config.evidence, baselines=names))
        lesson = lesson_of(asked, own, like.scaler, labels, train)
        return baseline_weights(asked, bars.traded, own, like, lesson)

    rules = [name for name in config.evidence.baselines if name in STRATEGIES]
    learned = [name for name in config.evidence.baselines if name not in STRATEGIES]
    none = np.empty((*bars.traded.close_TS.shape, 0), np.float32)
    found, said = weights(rules, none) if rules else {}, list[str]()
    if not learned:
        return found, said
    objective, lag = config.objective, config.profit_tracker.lag
    task = list(model.horizons), lag, objective.label, model.relative
    labels = make_labels(table.bars, features.volatility_TS, *task)[:, columns]
    for name in learned:
        if train.start == train.stop:
            said.append(f"the baseline {name} is left out: these bars have none of the model's training days")
            continue
        try:
            found |= weights([name], labels)
        except LearningError as error:
            said.append(f"the baseline {name} is left out: {error}")
    return found, said


def _judged(stage: Stage, outputs: Path, argv: Sequence[str] | None) -> Backtest:
    """The folder, the ledger row, the account and its evidence."""
    config, model, period = stage.config, stage.model, stage.period
    asked = asked_of(model, config, period.bars, stage.bars.traded, stage.in_sample)
    tracker = ProfitTracker(config.profit_tracker, config.portfolio)
    evidence = stage.baselines, config.evidence, config.seed, period.window
    with judged_folder(asked, outputs, argv) as found:
        with phase("the evidence"):
            judged = judge_book(period.bars, stage.weights_TS, tracker, *evidence)
            judged = with_scores(judged, period, stage.forecast, config.portfolio.horizon)
            judged.result.at_costs = _costs_by_lag(stage)
        done = found.conclude(judged, stage.warnings, model.relative)
    return Backtest(done.folder, done.result, judged.equity, judged.trades)


def asked_of(model: TrainedModel, config: ExperimentConfig, bars: Bars, whole: Bars, in_sample: str) -> Asked:
    """A backtest as the ledger knows it. bars: of the days that are traded; whole: all there are of these stocks."""
    facts = model.manifest
    source = {"folder": str(model.folder), **{name: facts[name] for name in ("id", "signature") if facts.get(name)}}
    return Asked(
        kind="backtests",
        name=str(facts.get("name") or config.name),
        config=config,
        bars=bars,
        made_of=[source],
        whole=whole,
        further=_further(model, (str(bars.sessions_T[0]), str(bars.sessions_T[-1]))),
        test_first=first_test_day(model),
        in_sample=in_sample,
        columns=model.columns,
    )


def _costs_by_lag(stage: Stage) -> list[AtCosts]:
    """The same target weights at each cost, filled after each lag."""
    rules, bars = stage.config.profit_tracker, stage.period.bars
    lagged = [dataclasses.replace(rules, lag=lag) for lag in LAGS]
    return [at_costs(bars, stage.weights_TS, own, points) for own in lagged for points in COSTS]


def _further(model: TrainedModel, window: tuple[str, str]) -> dict[str, Any]:
    """What a backtest is beside its config: what the run was made of, and its days, where they are not the run's own.

    By the run's own rules on its own days it repeats numbers that are known, which is no other trial.
    """
    found = _made_of(model)
    is_own = window in (model.days.get("valid"), model.days.get("test"))
    return found if is_own else found | {"backtest.days": " to ".join(window)}


def _made_of(model: TrainedModel) -> dict[str, Any]:
    """What a run is beside its config: its base model, the members of an ensemble."""
    if not model.manifest:
        return {"model.sha256": digest(model.folder / CONFIG, SMALL)}
    fields = flatten(dataclasses.asdict(typed_config({})))
    return {name: value for name, value in read_config_diff(model.folder).items() if name not in fields}
