"""What all candidates of a fine-tune share: bars, features and days, made from the universe of the base."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hftraining.core.errors import ConfigError
from hftraining.experiment.config import ExperimentConfig
from hftraining.experiment.run import splits_of

if TYPE_CHECKING:
    from hftraining.core.bars import Bars
    from hftraining.experiment.base_run import BaseModel
    from hftraining.experiment.periods import Period
    from hftraining.market.features import Features
    from hftraining.market.windows import Splits
    from hftraining.model.objective import Objective
    from hftraining.profit_tracker import ProfitTracker


@dataclass(frozen=True)
class Ground:
    """What all candidates of a fine-tune share: the days, the stocks, and how they are judged."""

    config: ExperimentConfig
    base: BaseModel
    bars: Bars  # of the stocks that are fine-tuned
    features: Features  # theirs, with the base's universe as the market
    labels_TSH: Any
    splits: Splits
    days: dict[str, tuple[str, str]]
    universe: tuple[str, ...]
    periods: dict[str, Period]
    others: Period | None  # validation days of the base's other stocks
    tracker: ProfitTracker
    objective: Objective


def prepare_ground(config: ExperimentConfig, base: BaseModel) -> tuple[Ground, Bars]:
    """Load the base's universe and the stocks of the fine-tune, and cut out the days. Returns the universe's bars too.

    Features such as the market's return are means over the universe, so that a stock looks to the specialist as it did
    to the base. A stock that the base does not know joins the universe.
    """
    from hftraining.experiment.base_run import BaseModelError
    from hftraining.experiment.periods import Period
    from hftraining.market.features import make_features, make_labels
    from hftraining.market.prices import load_bars
    from hftraining.model.objective import Objective
    from hftraining.profit_tracker import ProfitTracker

    objective, symbols = config.objective, config.stocks.symbols or list(base.forecaster.symbols)
    everyone = list(dict.fromkeys([*base.forecaster.symbols, *symbols]))
    universe = load_bars(dataclasses.replace(config.stocks, symbols=everyone, exclude=[]))
    splits = splits_of(config, universe)
    days = splits.days(universe.sessions_T)
    try:
        base.refuse_seen_days(days["valid"][0], days["test"][0])
    except BaseModelError as error:
        raise ConfigError(str(error)) from error
    features, lag = make_features(universe), config.profit_tracker.lag
    labels_TSH = make_labels(
        universe, features.volatility_TS, objective.horizons, lag, objective.label, objective.relative
    )
    lead = base.forecaster.model.receptive_field - 1

    def cut(names: Sequence[str], rows: slice) -> Period:
        columns = [universe.symbols_S.index(name) for name in names]
        parts = (universe.of(names), features.of(columns), labels_TSH[:, columns])
        return Period.cut(*parts, objective.horizons, rows, lead)

    columns = [universe.symbols_S.index(name) for name in symbols]
    rest = [name for name in base.forecaster.symbols if name not in symbols]
    ground = Ground(
        config=config,
        base=base,
        bars=universe.of(symbols),
        features=features.of(columns),
        labels_TSH=labels_TSH[:, columns],
        splits=splits,
        days=days,
        universe=universe.symbols_S,
        periods={name: cut(symbols, getattr(splits, name)) for name in ("train", "valid", "test")},
        others=cut(rest, splits.valid) if rest else None,
        tracker=ProfitTracker(config.profit_tracker),
        objective=Objective(objective, config.profit_tracker),
    )
    return ground, universe


def steps_of_epochs(config: ExperimentConfig, base: BaseModel, epochs: int) -> int:
    """How many steps draw as many bars as `epochs` passes over the training bars of the fine-tune would."""
    ground, _ = prepare_ground(config, base)
    bars = int(ground.features.known_TS[ground.splits.train].sum())
    return max(1, -(-epochs * bars // (config.training.batch_size * config.training.window)))
