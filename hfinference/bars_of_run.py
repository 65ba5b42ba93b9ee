"""The bars that a trained run is put to work on: its own again, to the last day there is, or other stocks'."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from hfinference.overrides import with_words
from hfinference.trained import TrainedModel
from hftraining.core.bars import Bars
from hftraining.core.errors import ConfigError, listed
from hftraining.experiment.compose import options_of
from hftraining.experiment.config import ExperimentConfig, typed_config
from hftraining.market.config import StocksConfig
from hftraining.market.prices import as_named, load_bars
from hftraining.market.snapshots import with_snapshot
from hftraining.runs.folder import outputs_of

NAMED = 5  # symbols in a note


@dataclass(frozen=True)
class RunBars:
    """universe: what features are made of. symbols: what is forecast and traded. config: by which they were loaded.

    notes: a sentence each.
    """

    universe: Bars
    symbols: tuple[str, ...]
    config: StocksConfig
    notes: tuple[str, ...] = ()

    @property
    def traded(self) -> Bars:
        """The bars of the symbols over all sessions."""
        return self.universe if self.symbols == self.universe.symbols_S else self.universe.of(self.symbols)


def bars_of_run(
    model: TrainedModel,
    stocks: Sequence[str] = (),
    snapshot: str | None = None,
    words: Sequence[str] = (),
    newest: bool = False,
) -> RunBars:
    """The bars of a run again, to the last day that there is now, or others.

    stocks: the name of an option of conf/stocks, or symbols: of the run's universe, whose other stocks stay the market
    that the model sees, or any others of the run's source, which are then all that it sees. snapshot: id of a stored
    Yahoo snapshot; by default that of the run. words: stocks.path=new.csv and so on, over the stocks of the run or of
    the option. newest: Yahoo is asked for the bars of today, unless a snapshot is given. Raises ConfigError or
    MarketDataError, in one line.
    """
    config, asked = _asked(model, stocks, words)
    own = _own_symbols(model)
    if asked and (own and set(as_named(asked, own)) <= set(own)):
        asked = as_named(asked, own)
        config = dataclasses.replace(config, symbols=list(own), exclude=[])
    elif asked:
        config = dataclasses.replace(config, symbols=list(asked), exclude=[])
    elif own and not stocks and not any(word.startswith(("stocks.symbols", "stocks=")) for word in words):
        assert model.config is not None
        asked = as_named(model.config.stocks.symbols, own)
        if model.config.init_from:  # of the universe of its base it trades its own stocks
            config = dataclasses.replace(config, symbols=list(own), exclude=[])
        else:
            asked = []
    if newest and config.source == "yahoo" and not (snapshot or config.snapshot):
        config = dataclasses.replace(config, refresh=True)
    config = _from_snapshot(config, model, snapshot)
    universe = load_bars(config)
    symbols = tuple(as_named(asked, universe.symbols_S)) if asked else universe.symbols_S
    return RunBars(universe, symbols, config, _notes(model, universe, symbols))


def _asked(model: TrainedModel, stocks: Sequence[str], words: Sequence[str]) -> tuple[StocksConfig, list[str]]:
    """The stocks group to load, and the symbols that were asked for by name."""
    is_option = len(stocks) == 1 and stocks[0] in options_of("stocks")
    if is_option or (model.config is None and any(word.startswith("stocks=") for word in words)):
        words = [*(f"stocks={name}" for name in stocks), *words]
        values = with_words(dataclasses.asdict(ExperimentConfig()), words, ["stocks"], "of these")
        return typed_config(values).stocks, []
    if model.config is None:
        raise ConfigError(f"{model.folder} is a model without a run: say which stocks, such as --stocks sample")
    values = dataclasses.asdict(model.config)
    values["stocks"]["end"] = None  # also what came after the run's last day
    if words:
        values = with_words(values, words, ["stocks"], "of these")
    return typed_config(values).stocks, list(stocks)


def _own_symbols(model: TrainedModel) -> tuple[str, ...]:
    """The universe of the run; none for a model without one."""
    return model.symbols if model.config is not None else ()


def _from_snapshot(config: StocksConfig, model: TrainedModel, snapshot: str | None) -> StocksConfig:
    """The stocks from the snapshot that is asked for or that the run began with, wherever it lies."""
    if snapshot and config.source != "yahoo":
        raise ConfigError(f"--snapshot {snapshot[:60]}: these stocks are of source={config.source}, not of yahoo")
    recorded = (model.manifest.get("data") or {}).get("snapshot")
    same = model.config is not None and sorted(config.symbols) == sorted(model.config.stocks.symbols)
    chosen = snapshot or config.snapshot or (recorded if same and not config.refresh else None)
    if not chosen:
        return config
    advice = "bring it back, or stocks.refresh=true fetches the bars of today"
    return with_snapshot(config, chosen, outputs_of(model.folder, model.manifest), advice)


def _notes(model: TrainedModel, universe: Bars, symbols: Sequence[str]) -> tuple[str, ...]:
    """What a reader has to know of the stocks, one sentence each."""
    notes, known = list[str](), set(model.symbols)
    if not known:
        return ()
    if unseen := [symbol for symbol in symbols if symbol not in known]:
        notes.append(f"the model never saw {listed(unseen, NAMED)}: it forecasts them as it does any stock")
    if set(universe.symbols_S) != known:
        notes.append(
            f"the market that the model sees, and the ranks, are those of the {len(universe.symbols_S):,} stocks given "
            f"here; it learned from {len(known):,}"
        )
    return tuple(notes)
