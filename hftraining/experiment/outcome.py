"""What a run makes of its bars, and the row from which on it may know each part: the leak proof compares it.

Legend: T sessions, S symbols, H horizons, F features.
"""

import copy
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import torch

from hftraining.core.forecast import Forecast
from hftraining.evidence.leaks import Known
from hftraining.experiment.candidate import candidate_ground
from hftraining.experiment.fit import Fitting
from hftraining.experiment.ground import Ground
from hftraining.experiment.judging import judge
from hftraining.experiment.seeds import member_ground
from hftraining.market.features.scaler import Scaler
from hftraining.market.windows import Batch
from hftraining.model.base import Forecaster
from hftraining.model.ensemble import Ensemble, Predictor
from hftraining.model.network import Network
from hftraining.portfolio.config import OPTIMIZED
from hftraining.profit_tracker import ProfitReport, ProfitTracker
from hftraining.runs.result import PERIODS
from hftraining.trading.dtypes import TRADE
from hftraining.trading.strategies import STRATEGIES
from hftraining.training.checkpoint import Checkpoints
from hftraining.training.trainer import StepListener

Account = Callable[[Ground, str, Forecast], dict[str, Known]]  # of a period

BATCHES = 100  # of one window each
SPREAD = 0.2  # standard deviation of what is added to every weight of an untrained network
WORDS = {"train": "training", "valid": "validation", "test": "test"}
SMOOTH = {  # rules without thresholds, and exits only where the next decision is filled
    "stop_loss": 0.0,
    "take_profit": 0.0,
    "borrow_rate": 0.0,
    "commission": 0.0,
    "slippage": 0.0,
    "rebalance_band": 0.0,
    "whole_shares": False,
}


def lively(forecaster: Forecaster, seed: int = 0) -> Forecaster:
    """A copy of an untrained model whose forecasts differ from day to day as much as labels do, so that it trades."""
    model = copy.deepcopy(forecaster.model)
    if isinstance(model, Network):
        noise = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_((SPREAD * torch.randn(parameter.shape, generator=noise)).to(parameter.device))
    return replace(forecaster, model=model)


def joined(forecasters: Sequence[Forecaster]) -> Predictor:
    """What a run forecasts with: its model, or the ensemble of its members."""
    return forecasters[0] if len(forecasters) == 1 else Ensemble.of(forecasters)


def outcome_of(ground: Ground, forecaster: Predictor, until: int, account: Account | None = None) -> dict[str, Known]:
    """Everything but training, by name: of periods that begin by row `until`, and accounts only if asked."""
    lesson, train, objective = ground.lesson, ground.splits.train, ground.config.objective
    known = {
        "features": Known.since(ground.features.values_TSF, 0),
        "volatilities": Known.since(ground.features.volatility_TS, 0),
        "the scaler's values": Known.since(_row(ground.forecaster.scaler), train.stop - 1),
        "scaled features": Known.since(np.asarray(lesson.scaled_TSF), 0, earliest=train.stop - 1),
        **_labels("labels", lesson.labels_TSH, ground, 0),
    }
    border = ground.splits.valid.start  # the labels of the training days reach up to it
    for name, weights_TS in ground.baselines.items():
        earliest = 0 if name in STRATEGIES else border - 1
        known[f"weights of the baseline {name}"] = Known.since(weights_TS, 0, earliest=earliest)
    for name, period in ground.periods.items():
        rows = getattr(ground.splits, name)
        if rows.start > until:
            continue
        forecast = period.forecast(forecaster)
        known |= _forecasts(f"of the {WORDS[name]} days", forecast, rows.start)
        known |= _labels(f"labels of the {WORDS[name]} days", period.scored_labels_TSH, ground, rows.start)
        if account and name in PERIODS:
            known |= account(ground, name, forecast)
    if ground.others and border <= until:
        known |= _forecasts("of the base's other stocks", ground.others.forecast(forecaster), border)
    assert len(objective.horizons) == lesson.labels_TSH.shape[2]
    return known


def _row(scaler: Scaler) -> np.ndarray:
    return np.array([[*scaler.mean_F, *scaler.std_F]])


def _forecasts(of: str, forecast: Forecast, first: int) -> dict[str, Known]:
    known = {f"forecasts {of}": Known.since(forecast.quantiles_TSHQ, first)}
    return known | {f"positions {of}": Known.since(forecast.head_TS, first)}


def _labels(name: str, labels_TSH: np.ndarray, ground: Ground, first: int) -> dict[str, Known]:
    """A label of horizon h is known lag + h rows after its day; one from close to close ignores the lag."""
    objective = ground.config.objective
    lag, horizons = ground.config.profit_tracker.lag if objective.label == "open" else 0, objective.horizons
    return {
        f"{name} of horizon {horizon}": Known.since(labels_TSH[:, :, h], first + lag + horizon)
        for h, horizon in enumerate(horizons)
    }


def traded(ground: Ground, name: str, forecast: Forecast) -> dict[str, Known]:
    """The account of a period, as the probe trades it."""
    return _account(ground.tracker.evaluate(ground.periods[name].bars, forecast), ground, name, forecast)


def judged(ground: Ground, name: str, forecast: Forecast) -> dict[str, Known]:
    """The account of a period that is judged, as the run judges it, and buy and hold."""
    config, period, rows = ground.config, ground.periods[name], getattr(ground.splits, name)
    baselines = {baseline: weights_TS[rows] for baseline, weights_TS in ground.baselines.items()}
    judgement = judge(period, forecast, ground.tracker, baselines, config.evidence, config.seed)
    return _account(judgement.report, ground, name, forecast) | {
        f"equity of the {WORDS[name]} result": Known.since(
            judgement.equity[["equity", "buy_and_hold"]].to_numpy(), rows.start
        )
    }


def decided_daily(tracker: ProfitTracker) -> ProfitTracker:
    """The same, rebalanced every session: a leak in what is decided then shows on every day, not on one in many.

    The optimised kinds stay as they are: they would be solved anew each session.
    """
    portfolio = tracker.portfolio
    if portfolio.every == 1 or portfolio.kind in OPTIMIZED:
        return tracker
    return ProfitTracker(tracker.config, replace(portfolio, every=1))


def _account(report: ProfitReport, ground: Ground, name: str, forecast: Forecast) -> dict[str, Known]:
    first = getattr(ground.splits, name).start
    known = _of_report(report, first, WORDS[name])
    if (daily := decided_daily(ground.tracker)) is not ground.tracker:
        weights_TS = daily.evaluate(ground.periods[name].bars, forecast).weights_TS
        known[f"weights of the {WORDS[name]} account, if decided daily,"] = Known.since(weights_TS, first)
    return known


def _of_report(report: ProfitReport, first: int, word: str) -> dict[str, Known]:
    account = report.simulation
    trades = account.trades[account.trades["exit_t"] >= 0]
    columns = np.stack([trades[field].astype(float) for field in TRADE.names or ()], axis=1)
    series = {
        "weights": report.weights_TS,
        "shares": account.shares_TS,
        "cash": account.cash_T,
        "equity": account.equity_T,
    }
    known = {f"{what} of the {word} account": Known.since(values, first) for what, values in series.items()}
    return known | {f"closed trades of the {word} account": Known(columns, first + trades["exit_t"])}


def smooth_account(ground: Ground, name: str, forecaster: Predictor) -> ProfitReport:
    """The account of a period without exits inside a day and without borrow: its shares and cash change at opens."""
    rules = replace(ground.config.profit_tracker, **SMOOTH)  # type: ignore[arg-type]
    tracker = ProfitTracker(rules, ground.config.portfolio)
    period = ground.periods[name]
    return tracker.evaluate(period.bars, period.forecast(forecaster))


def reversed_from(forecast: Forecast, row: int) -> Forecast:
    """The forecast with all signs turned round from a row on, so that it takes the other side."""
    quantiles_TSHQ, head_TS = forecast.quantiles_TSHQ.copy(), forecast.head_TS.copy()
    quantiles_TSHQ[row:] = -quantiles_TSHQ[row:, :, :, ::-1]
    head_TS[row:] *= -1.0
    return replace(forecast, quantiles_TSHQ=quantiles_TSHQ, head_TS=head_TS)


def batches_of(ground: Ground) -> dict[str, Known]:
    """What a model learns from: the lesson's training days, and some batches. All of it is known when they end."""
    lesson, seed = ground.lesson, ground.config.seed
    parts = {
        "features of the training days": np.asarray(lesson.scaled_TSF[lesson.train]),
        "known features of the training days": lesson.known_TS[lesson.train],
        "labels of the training days": lesson.labels_TSH[lesson.train],
        "the sessions left out between fitted and forecast days": np.array([lesson.purge, lesson.seed]),
    }
    for candidate, own in _candidates(ground):
        if own.windows is not None:
            drawn = [own.windows.batch(seed, step) for step in range(1, BATCHES + 1)]
            for part in fields(Batch):
                name = f"{part.name.rpartition('_')[0]} of the training batches{candidate}"
                parts[name] = np.stack([getattr(batch, part.name) for batch in drawn])
    return _at_once(parts)


def training_of(ground: Ground) -> tuple[dict[str, Known], dict[str, Known]]:
    """What a few real steps of training come to, by the code of the run: what training days give, and the choice.

    The first part: losses of the steps, and weights after the last step, named by their number:
    with patience the validation days say how many there are. The second: probes, the chosen step and its weights. The
    forecaster of the ground is trained by it, unless it belongs to a base.
    """
    taught: dict[str, np.ndarray] = {}
    chosen: dict[str, np.ndarray] = {}
    for candidate, own in _candidates(ground):
        with tempfile.TemporaryDirectory(prefix="hftraining-proof-") as folder:
            logged: list[dict[str, float]] = []
            checkpoints = Checkpoints(Path(folder) / "checkpoints", durable=False)
            with unheard():
                fitted = Fitting.of(own, checkpoints, []).run(_appending(logged), lambda *_: None)
            last = checkpoints.path(fitted.progress.step)
            own.forecaster.model.save(Path(folder))
            taught[f"the weights after {fitted.progress.step} training steps{candidate}"] = content_of(last)
            chosen[f"the weights of the chosen step{candidate}"] = content_of(Path(folder))
        taught[f"the losses of the training steps{candidate}"] = _values(logged, "train/")
        chosen[f"the probes on the validation days{candidate}"] = _values(logged, "")
        progress = {name: value for name, value in asdict(fitted.progress).items() if value is not None}
        chosen[f"the chosen step{candidate}"] = np.array([list(progress.values())], float)
    return _at_once(taught), _at_once(chosen)


@contextmanager
def unheard() -> Iterator[None]:
    """Warnings within are not shown: the same training says the same again when it is the run's own."""
    logger = logging.getLogger("hftraining")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


def losses_of(taught: dict[str, Known]) -> dict[str, Known]:
    """The losses in the first part of training_of, each known from its step on."""
    return {name: Known.since(known.items, 0) for name, known in taught.items() if name.startswith("the losses")}


def _appending(logged: list[dict[str, float]]) -> StepListener:
    return lambda step, values: logged.append(dict(values))


def _candidates(ground: Ground) -> Iterator[tuple[str, Ground]]:
    if ground.config.training.seeds > 1:
        for number in range(ground.config.training.seeds):
            member = member_ground(ground, number)
            yield f" of the member of seed {member.config.seed}", member
        return
    if not ground.base:
        yield "", ground
        return
    for method in ground.config.training.methods:
        yield f" of the candidate {method}", candidate_ground(method, ground)[0]


def content_of(folder: Path) -> np.ndarray:
    """The bytes of the weights that were saved into a folder."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name != "state.json"]
    return np.frombuffer(b"".join(path.read_bytes() for path in files), np.uint8)


def _values(logged: list[dict[str, float]], prefix: str) -> np.ndarray:
    return np.array([[v for tag, v in sorted(line.items()) if tag.startswith(prefix)] for line in logged])


def _at_once(parts: dict[str, np.ndarray]) -> dict[str, Known]:
    return {name: Known(values, np.zeros(len(values), int)) for name, values in parts.items()}
