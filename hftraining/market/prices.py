"""load_bars: from a StocksConfig to audited, adjusted bars aligned by date."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numba import njit

from hftraining.core.bars import Bars
from hftraining.core.errors import did_you_mean
from hftraining.market import audit, dividends, files, intraday, sample, sessions, yahoo
from hftraining.market.columns import MOST_ROWS, NEEDED
from hftraining.market.config import MOST_LETTERS_OF_A_SYMBOL, MarketDataError, StocksConfig
from hftraining.market.kept_bars import kept_bars
from hftraining.market.screen import codes_of
from hftraining.market.wording import excluding, listed, plain, plain_path

MOST_BARS = MOST_ROWS  # also where most symbols have no bar on most days; some 2 GB
MOST_SEARCHED = 20_000  # symbols, for one that may have been meant: a second
SLACK = np.timedelta64(7, "D")  # a start or end may fall on a weekend or holiday just outside the data


def load_bars(config: StocksConfig, session: Any = None) -> Bars:
    """Exactly the bars that the config asks for. Raises MarketDataError, in one line, if it cannot.

    Symbols come in the order of stocks.symbols, else sorted; as_named says in which case. Rows are the union of the
    sessions on which any symbol has a bar. Bars.warnings says what was repaired and what is missing. session: of
    curl_cffi, for yahoo; by default new.
    """
    try:
        return _loaded(config, session)
    finally:
        files.hand_back_memory()


def _loaded(config: StocksConfig, session: Any) -> Bars:
    sessions.check_calendar(config.calendar)
    if config.source == "yahoo":
        config, notes = _in_their_case(config, {name.upper() for name in config.symbols if name.isascii()})
        _refuse_unknown("stocks.exclude", config.exclude, set(config.symbols), "among stocks.symbols")
        table, events, source, said, exchanges = yahoo.read_yahoo(config, session)
        bars = _checked(table, events, "before", config, source, [*notes, *said], exchanges)
        return replace(bars, snapshot=source.rpartition(" ")[2])
    if config.source == "sample":
        return bars_of_rows(*sample.read_sample(), config, "packaged sample", [sample.HINDSIGHT])
    if config.source == "sample5":
        return bars_of_rows(sample.read_sample5(), None, config, "packaged sample of five")
    return kept_bars(config, _of_files)


def _of_files(config: StocksConfig) -> Bars:
    assert config.path is not None
    table = files.read_files(Path(config.path), config.csv)
    return bars_of_rows(table, None, config, config.path if config.path.isprintable() else plain_path(config.path))


def bars_of_rows(
    table: pd.DataFrame, events: pd.DataFrame | None, config: StocksConfig, source: str, notes: Sequence[str] = ()
) -> Bars:
    """What the config asks for of a table as of files.read_files, or, with events, of one adjusted for splits alone.

    source and notes: for Bars.source and Bars.warnings. Raises MarketDataError as load_bars does.
    """
    config, renamed = _in_their_case(config, table["symbol"].cat.categories)
    table = intraday.recognised(_between(_choose(table, config), config), config.resample)
    events = None if events is None else _events_of(events, table)
    return _checked(table, events, "ex", config, source, [*renamed, *notes], {})


def _checked(
    table: pd.DataFrame,
    events: pd.DataFrame | None,
    reinvested: str,
    config: StocksConfig,
    source: str,
    notes: Sequence[str],
    exchanges: Mapping[str, str],
) -> Bars:
    """The rows audited, adjusted and aligned."""
    doubts: list[str] = []
    table, dropped = audit.check_rows(table, config.bad_rows)
    table, resampled = intraday.daily(table)
    if events is None:
        table = files.adjusted(table)
    else:
        table, doubts = dividends.adjusted(table, events, reinvested)
    table, absurd = audit.check_adjusted(table, config.bad_rows)
    table, slipped = audit.drop_slips(table)
    audit.refuse_splits(table)
    if table.empty:
        raise MarketDataError("stocks: no usable row is left: check stocks.start, stocks.end and the data")
    audit.refuse_short(table)
    bars = _align(table, config.symbols, source, [*notes, *dropped, *resampled, *doubts, *absurd, *slipped])
    bars = replace(bars, warnings=(*bars.warnings, *sessions.notes_on_sessions(bars, config.calendar, exchanges)))
    return bars if events is None else replace(bars, events=events)


def as_named(asked: Iterable[str], known: Collection[str]) -> list[str]:
    """Symbols as those that are known are written: aapl is AAPL where no aapl, and no other aApL, is among them.

    What is not known in any case, or in several, stays as it was asked for.
    """
    asked = list(asked)
    if all(symbol in known for symbol in asked):
        return asked
    in_capitals: dict[str, list[str]] = {}
    for symbol in known:
        in_capitals.setdefault(symbol.upper(), []).append(symbol)
    meant = [[symbol] if symbol in known else in_capitals.get(str(symbol).upper(), []) for symbol in asked]
    return [names[0] if len(names) == 1 else symbol for symbol, names in zip(asked, meant, strict=True)]


def _in_their_case(config: StocksConfig, known: Iterable[str]) -> tuple[StocksConfig, list[str]]:
    """The config with its symbols as the data name them, and a note where that is another case."""
    known = frozenset(known)
    symbols, exclude = as_named(config.symbols, known), as_named(config.exclude, known)
    pairs = zip([*config.symbols, *config.exclude], [*symbols, *exclude], strict=True)
    changed = dict.fromkeys(f"{was} is read as {now}" for was, now in pairs if was != now)
    if not changed:
        return config, []
    try:
        config = replace(config, symbols=symbols, exclude=exclude)
    except ValueError as error:  # two that were asked for are one
        raise MarketDataError(str(error)) from error
    return config, [f"no such symbol, but in another case: {listed(changed)}"]


def _choose(table: pd.DataFrame, config: StocksConfig) -> pd.DataFrame:
    known = set(table["symbol"].cat.categories)
    _refuse_unknown("stocks.symbols", config.symbols, known, "in the data")
    _refuse_unknown("stocks.exclude", config.exclude, known, "in the data")
    wanted = set(config.symbols or known) - set(config.exclude)
    if not wanted:
        raise MarketDataError(f"{excluding(config.exclude)} leaves no symbol")
    if wanted != known:
        table = table[table["symbol"].isin(wanted)]
    # Sorted categories, so that sorting by symbol is alphabetical.
    return table.assign(symbol=table["symbol"].cat.set_categories(sorted(wanted)))


def _refuse_unknown(name: str, asked: list[str], known: set[str], where: str) -> None:
    for symbol in asked:
        if symbol not in known:
            asked_for = symbol[:MOST_LETTERS_OF_A_SYMBOL]  # the search takes time with the square of the length
            other_case = [s for s in known if s.upper() == asked_for.upper()]
            searched = sorted(known)[:MOST_SEARCHED]
            hint = did_you_mean(asked_for, other_case, cutoff=0.0) or did_you_mean(asked_for, searched)
            hint = hint or did_you_mean(asked_for.upper(), searched)
            said = plain(hint) if hint else f"; there are {listed(sorted(known))}"
            raise MarketDataError(f"{name}: {plain(symbol, MOST_LETTERS_OF_A_SYMBOL)} is not {where}{said}")


def _between(table: pd.DataFrame, config: StocksConfig) -> pd.DataFrame:
    dates = table["date"].to_numpy().astype("datetime64[D]")
    first, last = dates.min(), dates.max()
    keep = np.ones(len(table), bool)
    for name, text in (("start", config.start), ("end", config.end)):
        if text is None:
            continue
        day = np.datetime64(text)
        if not first - SLACK <= day <= last + SLACK:
            raise MarketDataError(f"stocks.{name}={text} lies outside the data, which run from {first} to {last}")
        keep &= dates >= day if name == "start" else dates <= day
    return table if keep.all() else table[keep]


def _events_of(events: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """The events of the symbols and days of a table."""
    days = events["date"].between(table["date"].min(), table["date"].max())
    return events[days & events["symbol"].isin(table["symbol"].cat.categories)].reset_index(drop=True)


def _align(table: pd.DataFrame, wanted: list[str], source: str, notes: list[str]) -> Bars:
    """Put each row at its session and symbol."""
    known = dict.fromkeys(table["symbol"].cat.categories)
    symbols = [symbol for symbol in wanted or known if symbol in known]
    place = {symbol: s for s, symbol in enumerate(symbols)}
    place_of_code = np.array([place[symbol] for symbol in known])
    sessions_T, since_N, row_D = _sessions(table["date"].to_numpy().astype("datetime64[D]"))
    if len(sessions_T) * len(symbols) > MOST_BARS:
        raise MarketDataError(
            f"{len(symbols):,} symbols on {len(sessions_T):,} days, of which {len(table):,} have a bar, take more than "
            f"the {MOST_BARS:,} places that are held in memory: choose fewer with stocks.symbols, stocks.start or "
            "stocks.end"
        )
    arrays = np.empty((len(NEEDED), len(sessions_T), len(symbols)))
    if len(table) < arrays[0].size:
        arrays.fill(np.nan)
    at = codes_of(table["symbol"].cat.codes.to_numpy()), since_N, place_of_code, row_D
    for array_TS, name in zip(arrays, NEEDED, strict=True):
        _put(table[name].to_numpy("float64"), *at, array_TS)
    idle = (table["volume"] == 0).to_numpy()
    if idle.any():
        named = listed(sorted(table["symbol"][idle].astype(str).unique()))
        notes = [*notes, f"{int(idle.sum()):,} bars have a volume of zero ({named}); they are kept"]
    open_TS, high_TS, low_TS, close_TS, volume_TS = arrays
    bars = Bars(tuple(symbols), sessions_T, open_TS, high_TS, low_TS, close_TS, volume_TS, source=source)
    return replace(bars, warnings=tuple(notes))


def _sessions(days_N: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The days that there are, rising; of each row the days since the first; the place of each such day D among them.

    As np.unique, which sorts all rows.
    """
    first = days_N.min()
    since_N = (days_N - first).astype(np.int64)  # of the years that audit.py lets pass, some 46,000 days
    is_session_D = np.zeros(int(since_N.max()) + 1, bool)
    is_session_D[since_N] = True
    return first + np.flatnonzero(is_session_D), since_N, np.cumsum(is_session_D) - 1


@njit(cache=True, nogil=True)
def _put(values_N, code_N, since_N, place_of_code, row_D, array_TS):  # type: ignore[no-untyped-def]
    """Put each value at its session and symbol."""
    for n in range(values_N.size):
        array_TS[row_D[since_N[n]], place_of_code[code_N[n]]] = values_N[n]
