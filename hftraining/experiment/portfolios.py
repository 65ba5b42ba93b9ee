"""A search of portfolios alone: many ways to trade the validation forecasts of a finished run, each a trial."""

import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hftraining.core.errors import ConfigError, did_you_mean, status_of
from hftraining.core.forecast import Forecast
from hftraining.core.values import printable
from hftraining.experiment.base_run import BaseRun
from hftraining.experiment.compose import override
from hftraining.experiment.config import load_config
from hftraining.experiment.finished import lost_ledger
from hftraining.experiment.folds import stitched_of
from hftraining.experiment.ground import Ground, lay
from hftraining.experiment.inherit import signature_of
from hftraining.experiment.judging import Judgement, judge
from hftraining.experiment.ledger_row import LedgerRow, open_ledger, remember
from hftraining.experiment.replay import (
    ReplayError,
    finished_run,
    identity_of,
    known_causes,
    refuse_edited_run,
    the_same_bars,
)
from hftraining.experiment.selecting import decide
from hftraining.model.ensemble import Predictor, load_predictor
from hftraining.portfolio.config import ABSOLUTE, PortfolioConfig, kind_of
from hftraining.profit_tracker import ProfitReport, ProfitTracker
from hftraining.runs.code_version import source_digest
from hftraining.runs.folder import RunFolder
from hftraining.runs.ledger import Ledger
from hftraining.runs.trials import Days
from hftraining.trading.metrics import daily_returns

KIND = "portfolio"  # of a row in the ledger
SAME_RETURN = 1e-4  # of the capital: what another machine's rounding may change
# What is tried: every pair of smoothing and trade rate, and monthly trading, with each setting of each kind.
PACES: tuple[dict[str, Any], ...] = (
    *({"smoothing": s, "trade_rate": r} for s in (0.0, 5.0, 10.0, 20.0, 40.0) for r in (0.02, 0.05, 0.1, 0.25, 1.0)),
    *({"smoothing": s, "trade_rate": 1.0, "every": 21} for s in (0.0, 5.0, 10.0, 20.0)),
)
SETTINGS: dict[str, tuple[dict[str, Any], ...]] = {
    "tilt": tuple({"strength": strength} for strength in (0.25, 0.5, 1.0, 2.0)),
    "top": tuple({"fraction": fraction, "keep": 0.5} for fraction in (0.1, 0.2, 0.4)),
    "core": tuple({"share": share} for share in (0.15, 0.3)),
    "long_short": ({},),
    "timing": ({},),
    "edge": tuple({"full_size_at": size} for size in (0.05, 0.1, 0.2)),
    "head": ({},),
}


@dataclass(frozen=True)
class Tried:
    """One portfolio and what its account came to on the validation days. metrics: as `trading.metrics.summarize`."""

    portfolio: PortfolioConfig
    metrics: dict[str, float]
    row: int  # in the ledger

    @property
    def sharpe(self) -> float:
        """Its Sharpe ratio; minus infinity where it has none."""
        value = self.metrics["sharpe_ratio"]
        return value if math.isfinite(value) else -math.inf

    def read(self, n_symbols: int) -> dict[str, Any]:
        """The fields that its kind reads on so many symbols, by name."""
        kind = kind_of(self.portfolio, n_symbols)
        names = (*(SETTINGS[kind][0] if kind in SETTINGS else ()), *PACES[-1])
        return {"kind": kind, **{name: getattr(self.portfolio, name) for name in names}}

    @property
    def settings(self) -> dict[str, Any]:
        """The fields that differ from the defaults, by name."""
        defaults = asdict(PortfolioConfig())
        ours = asdict(self.portfolio)
        return {name: ours[name] for name in ours if ours[name] != defaults[name] and name != "name"}

    @property
    def overrides(self) -> str:
        """The same as typed to train.py."""
        return " ".join(override(f"portfolio.{name}", value) for name, value in self.settings.items())


@dataclass(frozen=True)
class Portfolios:
    """All that were tried on a run. outputs: the folder around it, as of RunFolder.

    own: the run's. best: of the highest Sharpe ratio; judged: its account, as the best of n_trials. command: trains
    anew with it.
    """

    run: Path
    outputs: Path | None
    tried: list[Tried]
    own: Tried
    best: Tried
    judged: Judgement
    n_trials: int
    command: str

    def as_object(self) -> dict[str, Any]:
        """For --json."""
        best, result = self.best, self.judged.result
        return {
            "run": str(self.run),
            "tried": len(self.tried),
            "n_trials": self.n_trials,
            "command": self.command,
            "best": {"overrides": best.overrides, "settings": best.settings, "metrics": best.metrics},
            "own": {"overrides": self.own.overrides, "settings": self.own.settings, "metrics": self.own.metrics},
            "buy_and_hold": dict(self.judged.report.buy_and_hold.metrics),
            "verdict": result.verdict,
            "money": result.money,
        }


def grid_of(ground: Ground, forecast: Forecast, kinds: Sequence[str] = ()) -> list[PortfolioConfig]:
    """The portfolios to try: those of the kinds, or all that these forecasts can feed. Raises ConfigError."""
    n_symbols, own = len(ground.bars.symbols_S), ground.config.portfolio
    possible = _possible(ground, forecast, n_symbols)
    for kind in kinds:
        if kind not in possible:
            hint = did_you_mean(kind, possible)
            raise ConfigError(f"--kinds {printable(kind)}: these forecasts feed {', '.join(possible)}{hint}")
    chosen = [kind for kind in possible if not kinds or kind in kinds]
    made = (
        replace(own, name=kind, kind=kind, **{"every": 1, **settings, **pace})
        for kind in chosen
        for settings, pace in itertools.product(SETTINGS[kind], PACES)
    )
    return [portfolio for portfolio in made if portfolio != own]


def _possible(ground: Ground, forecast: Forecast, n_symbols: int) -> list[str]:
    """The kinds that a forecast can feed, under the rules of the run."""
    config = ground.config
    single = ("timing", "edge")
    kinds = [kind for kind in SETTINGS if (kind in single) == (n_symbols == 1) and kind != "head"]
    if forecast.relative != "none":
        kinds = [kind for kind in kinds if kind not in ABSOLUTE]
    if not config.profit_tracker.allow_short:
        kinds = [kind for kind in kinds if kind not in ("long_short", "core")]
    if config.objective.profit_weight and np.isfinite(forecast.head_TS).any():
        kinds.append("head")
    return kinds if config.objective.forecast_weight else [kind for kind in kinds if kind == "head"]


def try_portfolios(folder: Path, kinds: Sequence[str] = (), say: Callable[[str], None] = print) -> Portfolios:
    """Trade the validation forecasts of a finished run by every portfolio of the grid; nothing is trained.

    Each is a row of the ledger before it is traded, one however often this is called, so that N of every run on these
    days counts them. The test days stay sealed. Raises UserError for a run that cannot be used.
    """
    run = finished_run(folder)
    ground, forecaster = _ground_of(run, say)
    config, period = ground.config, ground.periods["valid"]
    walks = config.walk_forward.every  # its model has learned from these days; the forecasts of its folds have not
    forecast = stitched_of(ground, folder, ["valid"])["valid"] if walks else period.forecast(forecaster)
    counter = _Counter.of(run, ground)
    grid = [config.portfolio, *grid_of(ground, forecast, kinds)]
    say(f"{len(grid)} portfolios on the {len(period.bars.sessions_T)} validation sessions of {folder}")
    own = counter.counted(config.portfolio, forecast)
    _refuse_other(run, own.metrics["total_return"])
    tried = [own, *(counter.counted(portfolio, forecast) for portfolio in grid[1:])]
    best = max(tried, key=lambda one: one.sharpe)
    tracker = ProfitTracker(config.profit_tracker, best.portfolio)
    judged = judge(period, forecast, tracker, {}, config.evidence, config.seed)
    trials = LedgerRow(counter.ledger, best.row).trials(judged)
    decide(judged, trials, config.evidence, config.seed)
    delta, _ = signature_of(replace(config, portfolio=best.portfolio))
    typed = [override(name, value) for name, value in delta.items() if not name.endswith(".name")]
    command = " ".join(["python train.py", *typed])
    return Portfolios(folder, run.outputs, tried, own, best, judged, trials.count, command)


def _refuse_other(run: RunFolder, earned: float) -> None:
    """Raise ReplayError where the run's own portfolio does not earn what its result says, by the same code."""
    known = run.result.periods["valid"].profit.get("total_return") if run.result else None
    if known is None or run.code.get("digest") != source_digest() or abs(earned - known) <= SAME_RETURN:
        return
    raise ReplayError(
        f"{run.path}: by its own portfolio these forecasts earn {earned:+.2%} on the validation days, where "
        f"result.json says {known:+.2%}: its model, forecasts or result were changed after the run"
    )


def _ground_of(run: RunFolder, say: Callable[[str], None]) -> tuple[Ground, Predictor]:
    """The ground of a finished run without its test days and baselines, and its model."""
    config = load_config(run.path / "config.yaml")
    if lost := lost_ledger(config.evidence):
        say(f"its ledger, {printable(lost)}, does not exist: your own ledger counts these trials")
        config.evidence.ledger = None
    threads = config.training.threads or run.manifest.get("threads")
    if isinstance(threads, int) and threads > 0:
        torch.set_num_threads(threads)
    causes = known_causes(run, config)
    refuse_edited_run(run, config, causes)
    bars = the_same_bars(run, config, code_differs=any(cause.kind == "code" for cause in causes))
    base = BaseRun.open(config.init_from, config.training.device) if config.init_from else None
    bare = replace(config, evidence=replace(config.evidence, baselines=[]))
    ground = lay(bare, bars, sealed=True, base=base)
    return replace(ground, config=config), load_predictor(run.path / "model", config.training.device)


@dataclass(frozen=True)
class _Counter:
    """Trades portfolios on the validation days of a run, each with its row in the ledger."""

    ledger: Ledger
    ground: Ground
    run: RunFolder
    fingerprint: str
    code: str
    benchmark: list[float]  # daily returns of buy and hold

    @classmethod
    def of(cls, run: RunFolder, ground: Ground) -> "_Counter":
        ledger = open_ledger(ground.config.evidence, run.outputs or Path("outputs"))
        fingerprint = ground.whole.fingerprint()
        remember(ledger, ground.whole, fingerprint)
        held = ground.tracker.buy_and_hold(ground.periods["valid"].bars)
        benchmark = daily_returns(held.simulation.equity_T).tolist()
        return cls(ledger, ground, run, fingerprint, source_digest(), benchmark)

    def counted(self, portfolio: PortfolioConfig, forecast: Forecast) -> Tried:
        """The account of one portfolio, which is a trial from before it is traded."""
        ground, row = self.ground, self._row(portfolio)
        period = ground.periods["valid"]
        try:
            report = ProfitTracker(ground.config.profit_tracker, portfolio).evaluate(period.bars, forecast)
            tried = Tried(portfolio, report.metrics, row)
            self.ledger.finish(
                row,
                status="done",
                valid=self._days(report),
                sharpe=report.metrics["sharpe_ratio"],
                result={"portfolio": tried.overrides},
            )
        except BaseException as end:
            self.ledger.finish(row, status=status_of(end))
            raise
        return tried

    def _row(self, portfolio: PortfolioConfig) -> int:
        """The row of a portfolio on this run: a new one, or that of an earlier search of the same."""
        config, facts = replace(self.ground.config, portfolio=portfolio), self.run.manifest
        signature = signature_of(config, self.ground.base)[1]
        uuid = hashlib.sha256(f"{identity_of(self.run)} {signature}".encode()).hexdigest()[:32]
        same = {"signature": signature, "fingerprint": self.fingerprint}
        if known := self.ledger.resume(self.run.path, uuid, same):
            return known
        return self.ledger.begin(
            kind=KIND,
            name=str(facts["name"]),
            folder=self.run.path,
            symbols=self.ground.bars.symbols_S,
            windows={"valid": self.ground.periods["valid"].window},
            code=self.code,
            uuid=uuid,
            **same,
        )

    def _days(self, report: ProfitReport) -> Days:
        sessions_T = self.ground.periods["valid"].bars.sessions_T
        dates = [str(day) for day in sessions_T[1:]]
        return Days(dates, daily_returns(report.simulation.equity_T).tolist(), self.benchmark)
