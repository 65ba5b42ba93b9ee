"""load_bars: from a StocksConfig to audited, adjusted bars aligned by date."""

import difflib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from hftraining.market import audit, files
from hftraining.market.bars import Bars
from hftraining.market.config import MarketDataError, StocksConfig


def load_bars(config: StocksConfig) -> Bars:
    """The bars that the config asks for, all of them, or MarketDataError in one line; never others.

    Symbols come in the order of stocks.symbols, else sorted. Rows are the union of the sessions on which any of
    them has a bar.
    """
    notes: list[str] = []
    events = None
    if config.source == "yahoo":
        from hftraining.market import yahoo

        table, events, source, notes = yahoo.fetch(config)
    elif config.source == "files":
        assert config.path is not None
        table, source = files.read_files(Path(config.path)), config.path
    else:
        table, source = files.read_sample(), "packaged sample"

    table = _choose(table, config)
    table, dropped = audit.check_rows(table, config.bad_rows)
    table = _between(files.adjusted(table), config)
    table, slipped = audit.drop_slips(table)
    audit.refuse_short(table)
    audit.refuse_splits(table)
    symbols = config.symbols or sorted(table["symbol"].unique())
    bars = _align(table, [symbol for symbol in symbols if symbol not in config.exclude], source, [*notes, *dropped, *slipped])
    if events is None:
        return bars
    return Bars(**{**bars.__dict__, "events": events})


def _choose(table: pd.DataFrame, config: StocksConfig) -> pd.DataFrame:
    known = set(table["symbol"].unique())
    for name, asked in (("symbols", config.symbols), ("exclude", config.exclude)):
        for symbol in asked:
            if symbol not in known:
                close = difflib.get_close_matches(symbol, known, n=1)
                hint = f"; did you mean {close[0]}?" if close else f" (there are {_some(known)})"
                raise MarketDataError(f"stocks.{name}: {symbol} is not in the data{hint}")
    repeated = {symbol for symbol in config.symbols if config.symbols.count(symbol) > 1}
    if repeated:
        raise MarketDataError(f"stocks.symbols names {_some(repeated)} twice")
    wanted = set(config.symbols or known) - set(config.exclude)
    if not wanted:
        raise MarketDataError("stocks.exclude leaves no symbol")
    return table if wanted == known else table[table["symbol"].isin(wanted)]


def _between(table: pd.DataFrame, config: StocksConfig) -> pd.DataFrame:
    first, last = table["date"].min(), table["date"].max()
    for name, day in (("start", config.start), ("end", config.end)):
        if day and not first <= pd.Timestamp(day) <= last:
            raise MarketDataError(
                f"stocks.{name}={day} lies outside the data, which run from {first.date()} to {last.date()}"
            )
    if config.start:
        table = table[table["date"] >= pd.Timestamp(config.start)]
    if config.end:
        table = table[table["date"] <= pd.Timestamp(config.end)]
    return table.reset_index(drop=True)


def _align(table: pd.DataFrame, symbols: list[str], source: str, notes: list[str]) -> Bars:
    """Put each row at the session and symbol that it names."""
    sessions_T, rows = np.unique(table["date"].to_numpy().astype("datetime64[D]"), return_inverse=True)
    columns = table["symbol"].map({symbol: s for s, symbol in enumerate(symbols)}).to_numpy()
    arrays = {}
    for name in files.NEEDED:
        arrays[f"{name}_TS"] = np.full((len(sessions_T), len(symbols)), np.nan)
        arrays[f"{name}_TS"][rows, columns] = table[name].to_numpy()
    idle = int((table["volume"] == 0).sum())
    if idle:
        notes = [*notes, f"{idle} bars have a volume of zero; they are kept"]
    return Bars(tuple(symbols), sessions_T, **arrays, source=source, warnings=tuple(notes))


def _some(names: Iterable[str], most: int = 10) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:most]) + (f" and {len(ordered) - most} more" if len(ordered) > most else "")
