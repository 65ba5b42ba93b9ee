"""What a run makes of its bars, and the row from which on it may know each part: the leak proof compares it.

Legend: T sessions, S symbols, H horizons, F features.
"""

import copy
import logging
import tempfile
from collections.abc import Callable, Iterator
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
from hftraining.market.features import Scaler
from hftraining.market.windows import Batch
from hftraining.model.base import Forecaster
from hftraining.model.network import Network
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


def lively(forecaster: Forecaster) -> Forecaster:
    """A copy of an untrained model whose forecasts differ from day to day as much as labels do, so that it trades."""
    model = copy.deepcopy(forecaster.model)
    if isinstance(model, Network):
        noise = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_((SPREAD * torch.randn(parameter.shape, generator=noise)).to(parameter.device))
    return replace(forecaster, model=model)


def outcome_of(ground: Ground, forecaster: Forecaster, until: int, account: Account | None = None) -> dict[str, Known]:
    """Everything but training, by name: of periods that begin by row `until`, and accounts only if asked."""
    lesson, train, objective = ground.lesson, ground.splits.train, ground.config.objective
    known = {
        "features": Known.since(ground.features.values_TSF, 0),
        "volatilities": Known.since(ground.features.volatility_TS, 0),
        "the scaler's values": Known.since(_row(ground.forecaster.scaler), train.stop - 1),
        "scaled features": Known.since(lesson.scaled_TSF, 0, earliest=train.stop - 1),
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
    report = ground.tracker.evaluate(ground.periods[name].bars, forecast)
    return _of_report(report, getattr(ground.splits, name).start, WORDS[name])


def judged(ground: Ground, name: str, forecast: Forecast) -> dict[str, Known]:
    """The account of a period that is judged, as the run judges it, and buy and hold."""
    config, period, rows = ground.config, ground.periods[name], getattr(ground.splits, name)
    baselines = {baseline: weights_TS[rows] for baseline, weights_TS in ground.baselines.items()}
    judgement = judge(period, forecast, ground.tracker, baselines, config.evidence, config.seed)
    return _of_report(judgement.report, rows.start, f"{WORDS[name]}") | {
        f"equity of the {WORDS[name]} result": Known.since(
            judgement.equity[["equity", "buy_and_hold"]].to_numpy(), rows.start
        )
    }


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


def smooth_account(ground: Ground, name: str, forecaster: Forecaster) -> ProfitReport:
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
        "features of the training days": lesson.scaled_TSF[lesson.train],
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
    torch.manual_seed(ground.config.seed)  # dropout draws from the random state that laying the ground leaves
    for candidate, own in _candidates(ground):
        with tempfile.TemporaryDirectory(prefix="hftraining-proof-") as folder:
            logged: list[dict[str, float]] = []
            checkpoints = Checkpoints(Path(folder) / "checkpoints", durable=False)
            with _unheard():
                fitted = Fitting.of(own, checkpoints, []).run(_appending(logged), lambda *_: None)
            last = checkpoints.path(fitted.progress.step)
            fitted.forecaster.model.save(Path(folder))
            taught[f"the weights after {fitted.progress.step} training steps{candidate}"] = _content(last)
            chosen[f"the weights of the chosen step{candidate}"] = _content(Path(folder))
        taught[f"the losses of the training steps{candidate}"] = _values(logged, "train/")
        chosen[f"the probes on the validation days{candidate}"] = _values(logged, "")
        progress = {name: value for name, value in asdict(fitted.progress).items() if value is not None}
        chosen[f"the chosen step{candidate}"] = np.array([list(progress.values())], float)
    return _at_once(taught), _at_once(chosen)


@contextmanager
def _unheard() -> Iterator[None]:
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
    if not ground.base:
        yield "", ground
        return
    for method in ground.config.training.methods:
        yield f" of the candidate {method}", candidate_ground(method, ground)[0]


def _content(folder: Path) -> np.ndarray:
    """The bytes of the weights that were saved into a folder."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name != "state.json"]
    return np.frombuffer(b"".join(path.read_bytes() for path in files), np.uint8)


def _values(logged: list[dict[str, float]], prefix: str) -> np.ndarray:
    return np.array([[v for tag, v in sorted(line.items()) if tag.startswith(prefix)] for line in logged])


def _at_once(parts: dict[str, np.ndarray]) -> dict[str, Known]:
    return {name: Known(values, np.zeros(len(values), int)) for name, values in parts.items()}
