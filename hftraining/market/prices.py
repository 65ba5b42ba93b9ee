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
SYMBOLS_AT_ONCE = 64  # are put side by side near the processor, then turned
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
    absurd: list[str] = []
    checked, dropped = audit.check_rows(table, config.bad_rows)
    table, resampled = intraday.daily(checked)
    if events is None:
        table = files.adjusted(table)
    else:
        table, doubts = dividends.adjusted(table, events, reinvested)
    if table is not checked:
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
    dates = table["date"].to_numpy()  # midnights
    first, last = dates.min().astype("datetime64[D]"), dates.max().astype("datetime64[D]")
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
    code_of = {symbol: code for code, symbol in enumerate(table["symbol"].cat.categories)}
    symbols = [symbol for symbol in wanted or code_of if symbol in code_of]
    sessions_T, row_N = _sessions(table["date"].to_numpy())
    if len(sessions_T) * len(symbols) > MOST_BARS:
        raise MarketDataError(
            f"{len(symbols):,} symbols on {len(sessions_T):,} days, of which {len(table):,} have a bar, take more than "
            f"the {MOST_BARS:,} places that are held in memory: choose fewer with stocks.symbols, stocks.start or "
            "stocks.end"
        )
    arrays = np.empty((len(NEEDED), len(sessions_T), len(symbols)))
    code_N = codes_of(table["symbol"].cat.codes.to_numpy())
    first_C = np.searchsorted(code_N, np.arange(len(code_of) + 1, dtype=np.int32))  # rows are sorted by symbol and date
    code_S = np.array([code_of[symbol] for symbol in symbols])
    columns = [table[name].to_numpy("float64") for name in NEEDED]
    for at in range(0, len(symbols), SYMBOLS_AT_ONCE):
        part = slice(at, at + SYMBOLS_AT_ONCE)
        part_ST = np.full((len(code_S[part]), len(sessions_T)), np.nan)
        for array_TS, values_N in zip(arrays, columns, strict=True):
            _put(values_N, row_N, first_C, code_S[part], part_ST)  # over those of the column before: in the same places
            array_TS[:, part] = part_ST.T
    idle = (table["volume"] == 0).to_numpy()
    if idle.any():
        named = listed(sorted(table["symbol"][idle].astype(str).unique()))
        notes = [*notes, f"{int(idle.sum()):,} bars have a volume of zero ({named}); they are kept"]
    open_TS, high_TS, low_TS, close_TS, volume_TS = arrays
    bars = Bars(tuple(symbols), sessions_T, open_TS, high_TS, low_TS, close_TS, volume_TS, source=source)
    return replace(bars, warnings=tuple(notes))


def _sessions(midnights_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The days that there are, rising, and the place of each row's day among them. As np.unique, which sorts all rows.

    Of the years that audit.py lets pass: some 46,000 days.
    """
    first = midnights_N.min()
    apart_N = midnights_N - first
    since_N = apart_N.view(np.int64)
    since_N //= np.timedelta64(1, "D").astype(apart_N.dtype).astype(np.int64)
    is_session_D = np.zeros(int(since_N.max()) + 1, bool)
    is_session_D[since_N] = True
    return first.astype("datetime64[D]") + np.flatnonzero(is_session_D), (np.cumsum(is_session_D) - 1)[since_N]


@njit(cache=True, nogil=True)
def _put(values_N, row_N, first_C, code_S, part_ST):  # type: ignore[no-untyped-def]
    """Put each value of some symbols at its session.

    first_C: the first row of each symbol's code, and after the last one's how many rows there are.
    """
    for s in range(code_S.size):
        for n in range(first_C[code_S[s]], first_C[code_S[s] + 1]):
            part_ST[s, row_N[n]] = values_N[n]
