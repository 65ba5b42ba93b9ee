"""The ground of a run: from a config and bars to everything that training starts from and is judged by.

Legend: T sessions, S symbols, H horizons.
"""

import dataclasses
import os
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from hftraining.core.bars import Bars
from hftraining.core.errors import ConfigError, listed
from hftraining.core.launch import ray_cluster
from hftraining.core.metrics import IC_TAG
from hftraining.core.progress import phase
from hftraining.evidence.leaks import LeakReport
from hftraining.experiment.base_run import BaseRun
from hftraining.experiment.baselines import baseline_weights, lesson_of
from hftraining.experiment.config import ExperimentConfig
from hftraining.experiment.periods import Period
from hftraining.experiment.relative import chosen_relative
from hftraining.experiment.splits import splits_of
from hftraining.market.config import StocksConfig
from hftraining.market.features.cache import kept_features
from hftraining.market.features.scaler import Scaler
from hftraining.market.features.table import Features, make_features
from hftraining.market.labels import make_labels
from hftraining.market.prices import as_named, load_bars
from hftraining.market.windows import Splits, WindowSampler, places_of
from hftraining.model.base import Forecaster, Learner
from hftraining.model.config import IC_SYMBOLS
from hftraining.model.learner import Lesson
from hftraining.model.network import Network
from hftraining.portfolio.config import PAIRED
from hftraining.profit_tracker import ProfitTracker
from hftraining.runs.record import read_manifest
from hftraining.training.config import TrainingConfig
from hftraining.training.precision import settled

_DIVIDED: list[tuple[int, int]] = []  # threads before and after a run of this process divided them


@dataclass(frozen=True)
class Ground:
    """What training starts from.

    bars: of the stocks that are learned and traded, without the test days of a sealed run; features, lesson, baselines
    (target weights by name) and periods (train, valid and, unless sealed, test) are theirs. universe: all bars that
    the features were made of; a fine-tune adds those of the base's stocks. forecaster: untrained, or the base's.
    others: the validation days of the base's other stocks.
    """

    config: ExperimentConfig
    bars: Bars
    universe: Bars
    features: Features
    lesson: Lesson  # what a model of any kind learns from
    splits: Splits
    days: dict[str, tuple[str, str]]  # first and last of each set, the test days of a sealed run included
    periods: dict[str, Period]
    forecaster: Forecaster
    tracker: ProfitTracker
    baselines: dict[str, np.ndarray]
    windows: WindowSampler | None  # what a network is trained on; None for a model that brings its own learning
    sealed: bool = False
    base: BaseRun | None = None
    others: Period | None = None
    proof: LeakReport = field(default_factory=lambda: LeakReport(False, ["the leak proof has not been made"]))

    @property
    def whole(self) -> Bars:
        """The bars of the stocks that are traded over all sessions, those of sealed test days included."""
        own = self.bars.symbols_S
        return self.universe if own == self.universe.symbols_S else self.universe.of(own)


def lay(config: ExperimentConfig, universe: Bars, *, sealed: bool = False, base: BaseRun | None = None) -> Ground:
    """Split the days, make features and labels, draw the model, fit scaler and baselines: all but the leak proof.

    universe: of the config and, for a fine-tune, all stocks of the base, since features such as the market's return are
    means over it. sealed: no bar of the test days is seen. The same arguments give the same bits.

    Raises ConfigError or MarketDataError, and LearningError if a model that brings its own learning cannot be fitted.
    """
    splits, objective = splits_of(config, universe), config.objective
    days = splits.days(universe.sessions_T)
    seen = universe.rows(slice(0, splits.test.start)) if sealed else universe
    asked = tuple(as_named(config.stocks.symbols, universe.symbols_S))
    symbols = asked if base and asked else universe.symbols_S
    relative = chosen_relative(config, len(universe.symbols_S), len(symbols), base)
    _refuse_few(config, len(symbols))
    features, lag = features_of(config, seen), config.profit_tracker.lag
    with phase(f"labels of {len(seen.symbols_S):,} stocks"):
        labels_TSH = make_labels(seen, features.volatility_TS, objective.horizons, lag, objective.label, relative)
    if base:
        forecaster = base.forecaster.knowing(universe.symbols_S)
    else:
        forecaster = untrained(config, features, splits, relative, universe.symbols_S)
        forecaster.days = days

    rest = tuple(name for name in base.forecaster.symbols if name not in symbols) if base else ()
    everything = (seen, features, labels_TSH)
    own_bars, own_features, own_labels_TSH = own = _part(*everything, symbols)
    lesson = lesson_of(config, own_features, forecaster.scaler, own_labels_TSH, splits.train)
    if isinstance(forecaster.model, Learner):
        forecaster.model.check(lesson)
    sets, lead = ("train", "valid") if sealed else ("train", "valid", "test"), forecaster.receptive_field - 1

    def period(part: tuple[Bars, Features, np.ndarray], rows: slice) -> Period:
        return Period.cut(*part, objective.horizons, rows, lead, relative, objective.loss)

    return Ground(
        config=config,
        bars=own_bars,
        universe=universe,
        features=own_features,
        lesson=lesson,
        splits=splits,
        days=days,
        periods={name: period(own, getattr(splits, name)) for name in sets},
        forecaster=forecaster,
        tracker=ProfitTracker(config.profit_tracker, config.portfolio),
        # Before the run begins, so that a baseline or window that fails leaves nothing half-done.
        baselines=baseline_weights(config, own_bars, own_features, forecaster, lesson),
        windows=windows_of(config, own_bars, lesson, forecaster) if isinstance(forecaster.model, Network) else None,
        sealed=sealed,
        base=base,
        others=period(_part(*everything, rest), splits.valid) if rest else None,
    )


def features_of(config: ExperimentConfig, bars: Bars) -> Features:
    """The features of the config, made or from the cache."""
    asked = config.features
    with phase(f"{len(asked.columns)} features of {len(bars.symbols_S):,} stocks"):
        return kept_features(bars, asked.columns, make_features) if asked.cache else make_features(bars, asked.columns)


def _refuse_few(config: ExperimentConfig, n_symbols: int) -> None:
    """Raise ConfigError where a loss, a metric or a portfolio needs more stocks."""
    if config.objective.loss == "ic" and n_symbols < IC_SYMBOLS:
        raise ConfigError(
            f"objective.loss=ic correlates the stocks of a day, so it needs at least {IC_SYMBOLS}, but there "
            f"{'is' if n_symbols == 1 else 'are'} {n_symbols}: use objective.loss=pinball"
        )
    if config.training.best_metric == IC_TAG and n_symbols < IC_SYMBOLS:
        raise ConfigError(
            f"training.best_metric={IC_TAG} correlates the stocks of a day, so it needs at least {IC_SYMBOLS}, but "
            f"there {'is' if n_symbols == 1 else 'are'} {n_symbols}: choose another metric"
        )
    if config.portfolio.kind in PAIRED and n_symbols < 2:
        raise ConfigError(
            f"portfolio.kind={config.portfolio.kind} holds some stocks against others, but there is one: use "
            "portfolio=default, or more stocks"
        )


def windows_of(config: ExperimentConfig, bars: Bars, lesson: Lesson, forecaster: Forecaster) -> WindowSampler:
    """The windows of the training days; the forecaster numbers their symbols.

    Raises MarketDataError where none fits, ConfigError for more parts or processes than a batch has windows, and for
    stocks that would learn alone to look across.
    """
    training = config.training
    shape = (training.window, training.batch_size, training.symbols_per_window)
    arrays = (lesson.scaled_TSF, lesson.known_TS, lesson.labels_TSH)
    windows = WindowSampler(bars, *arrays, lesson.train, *shape, forecaster.numbers_of(bars.symbols_S))
    if config.model.cross_asset and windows.places < 2 <= len(bars.symbols_S):
        raise ConfigError(
            f"model.cross_asset=true: with training.symbols_per_window={training.symbols_per_window} and batch_size="
            f"{training.batch_size} each stock would be alone in training, and beside all others in forecasts: use at "
            "least 2, better as many as there are"
        )
    n_windows, parts = windows.windows_per_batch, training.accumulate * training.processes
    if parts > n_windows:
        asked = [f"training.{name}={n}" for name in ("accumulate", "processes") if (n := getattr(training, name)) > 1]
        raise ConfigError(
            f"{' times '.join(asked)}: a step has {n_windows} window{'s' if n_windows > 1 else ''} of {windows.places} "
            f"stocks, and a window is not divided: use at most as many parts, a larger training.batch_size, or fewer "
            "training.symbols_per_window"
        )
    return windows


def untrained(
    config: ExperimentConfig, features: Features, splits: Splits, relative: str, symbols: tuple[str, ...]
) -> Forecaster:
    """A new model, drawn from the seed, with a scaler fitted on the training days.

    relative: of its labels. symbols: the universe that it will learn from. Raises ConfigError where no feature varies.
    """
    torch.manual_seed(config.seed)
    objective, scaler = config.objective, Scaler.fit(features, splits.train)
    if set(scaler.std_F) == {1.0}:  # what the scaler gives a feature without variance
        few = ": ranks and relative returns of one stock do not" if len(symbols) == 1 else ""
        raise ConfigError(f"features.columns: none of {listed(features.names)} varies on the training days{few}")
    task = objective.horizons, objective.quantiles
    return Forecaster.fresh(config.model, scaler, *task, config.training.device, relative, symbols)


def steps_of_epochs(config: ExperimentConfig, base: BaseRun, epochs: int) -> int:
    """How many steps draw as many bars as `epochs` passes over the training bars of the fine-tune."""
    universe = load_bars(stocks_of(config, base))
    symbols = as_named(config.stocks.symbols or base.forecaster.symbols, universe.symbols_S)
    known_TS = features_of(config, universe).of(universe.columns_of(symbols)).known_TS
    bars = int(known_TS[splits_of(config, universe).train].sum())
    training = config.training
    windows, places = places_of(training.batch_size, training.symbols_per_window, len(symbols))
    return max(1, -(-epochs * bars // (windows * places * training.window)))


def use_machine(config: ExperimentConfig) -> ExperimentConfig:
    """Check the device, set the threads and settle the precision; returns the config with it.

    A resumed run keeps its number of threads, and the precision that it began with: others would give other bits.

    Raises ConfigError for a folder that cannot be resumed.
    """
    training = config.training
    if training.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("training.device=cuda: this machine has no usable CUDA device; use training.device=cpu")
    if training.engine == "ray":
        if find_spec("ray") is None:
            raise ConfigError("training.engine=ray needs the extra `ray`: pip install -e '.[ray]'")
        ray_cluster()
    _set_threads(training, config.walk_forward.workers)
    if config.resume:
        folder = Path(config.resume)
        if not (folder / "run.json").is_file():
            raise ConfigError(f"{folder} is not a run that can be resumed: it has no run.json")
        torch.set_num_threads(int(read_manifest(folder)["threads"]))
    return replace(config, training=settled(training))


def _set_threads(training: TrainingConfig, workers: int) -> None:
    """The number of torch's threads in this process: what the config says, or a share where processes divide them.

    workers: of a walk-forward.
    """
    if _DIVIDED and torch.get_num_threads() == _DIVIDED[-1][1]:
        torch.set_num_threads(_DIVIDED.pop()[0])  # as they were before an earlier run of this process
    if training.threads:
        torch.set_num_threads(training.threads)
    elif training.processes > 1 or workers > 1:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", training.processes * workers))  # of torchrun's, on this machine
        before = torch.get_num_threads()
        torch.set_num_threads(min(before, max(1, (os.cpu_count() or 1) // here)))
        _DIVIDED[:] = [(before, torch.get_num_threads())]


def stocks_of(config: ExperimentConfig, base: BaseRun | None) -> StocksConfig:
    """The stocks of a run's universe: for a fine-tune, those of its base and any that the base does not know."""
    if not base:
        return config.stocks
    own = as_named(config.stocks.symbols, base.forecaster.symbols)
    everyone = list(dict.fromkeys([*base.forecaster.symbols, *own]))
    return dataclasses.replace(config.stocks, symbols=everyone, exclude=[])


def as_recorded(stocks: StocksConfig, resumed: str | None) -> StocksConfig:
    """The stocks of a run to resume, from the snapshot that it began with: nothing is fetched, or stored, again."""
    snapshot = read_manifest(Path(resumed))["data"].get("snapshot") if resumed else None
    return dataclasses.replace(stocks, snapshot=snapshot, refresh=False) if snapshot else stocks


def _part(
    bars: Bars, features: Features, labels_TSH: np.ndarray, symbols: tuple[str, ...]
) -> tuple[Bars, Features, np.ndarray]:
    """Bars, features and labels of some symbols; the features stay relative to the whole universe."""
    if symbols == bars.symbols_S:
        return bars, features, labels_TSH
    columns = bars.columns_of(symbols)
    return bars.of(symbols), features.of(columns), labels_TSH[:, columns]
