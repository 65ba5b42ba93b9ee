"""Decisions that anybody made, in any tool: read from a csv or parquet file or a pandas frame, and put on sessions.

A date names the whole book as it was decided after the close of that session: symbols without a row are flat. Between
two dates nothing is decided, and what is held drifts. A date on which the market was closed is that of the session
before, whose close was the last thing that such a decision could know; it is filled at the same open either way.

Legend: T sessions, S symbols.
"""

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv

from hftraining.core.bars import Bars
from hftraining.core.errors import UserError, did_you_mean
from hftraining.market.columns import ALIASES, MOST_ROWS, key_of, refuse_rows
from hftraining.market.csv_files import MOST_HEADER_BYTES, NO_NUMBER, unpacked
from hftraining.market.files import SUFFIXES, naming, table_of
from hftraining.market.parquet import MOST_COLUMNS, Parquet, UnsafeFile, check_texts
from hftraining.market.prices import as_named
from hftraining.market.wording import listed, plain, plain_path
from hftraining.trading.caps import cap_weights
from hftraining.trading.config import TradingRules

FRAME = "the frame"  # in messages
COLUMNS = {
    "date": ALIASES["date"],
    "symbol": ALIASES["symbol"],
    "weight": ("weight", "target_weight"),
    "position": ("position", "shares"),
}
# A sum of weights that is written with three or four digits exceeds a cap by so much; it is scaled down to it.
ROUNDING = 5e-3


@dataclass(frozen=True)
class Decisions:
    """What was decided, at each session of some bars.

    book_TS: signed weights, or signed shares where in_shares; NaN throughout on a session without a decision. notes:
    one sentence for each thing that was moved, left out or scaled.
    """

    book_TS: np.ndarray
    in_shares: bool
    notes: tuple[str, ...] = ()

    @property
    def row_D(self) -> np.ndarray:
        """The sessions with a decision."""
        return np.flatnonzero(np.isfinite(self.book_TS).all(axis=1))


def read_decisions(path: Path) -> pd.DataFrame:
    """The rows of a csv (commas, decimal points; also .csv.gz) or parquet file, as `checked_frame` gives them."""
    name = plain_path(path)
    with naming(name):
        if not path.exists():
            raise UnsafeFile("does not exist")
        if not path.is_file():
            raise UnsafeFile("is not a regular file: only files are read")
        if not path.name.endswith(SUFFIXES):
            raise UnsafeFile(f"is not one of {', '.join(SUFFIXES)}")
        if path.name.endswith(".parquet"):
            file = Parquet(str(path))
            refuse_rows(file.rows, MOST_ROWS)
            names = _columns(file.names)
            raw = file.read(list(names.values())).select(list(names.values())).rename_columns(list(names))
        else:
            raw = _read_csv(path)
    return _rows(raw, name)


def rows_of_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """As read_decisions, of a frame whose columns or index levels are date, symbol, and weight or position."""
    if not isinstance(frame, pd.DataFrame):
        raise UserError(
            "decisions are a pandas frame with the columns date, symbol, and weight or position, not a "
            f"{type(frame).__name__}"
        )
    with naming(FRAME):
        if frame.columns.nlevels > 1:
            raise UnsafeFile(f"has {frame.columns.nlevels} levels of columns: one row a date and symbol is needed")
        if any(name is not None for name in frame.index.names) or isinstance(frame.index, pd.DatetimeIndex):
            named = {name for name in frame.index.names if name is not None}
            if taken := named & set(frame.columns):
                raise UnsafeFile(f"has {plain(min(taken, key=str))} as a column and in its index: leave one out")
            frame = frame.reset_index()
        header = ["date" if name == "index" else str(name) for name in frame.columns]
        names = _columns(header)
        frame = frame.set_axis(header, axis="columns")[list(names.values())].set_axis(list(names), axis="columns")
        try:
            raw = pa.Table.from_pandas(frame, preserve_index=False)
        except (TypeError, pa.ArrowException) as error:
            raise UnsafeFile(f"cannot be read: {plain('; '.join(map(str, reversed(error.args))))}") from error
    return _rows(raw, FRAME)


def digest_of(rows: pd.DataFrame) -> str:
    """A SHA-256 of what was decided, whatever the order of the rows and the kind of file. rows: as read_decisions."""
    by_day = rows.assign(symbol=rows["symbol"].astype(str)).sort_values(["date", "symbol"], kind="stable")
    days, values = by_day["date"].to_numpy().astype("datetime64[D]").astype("<i8"), by_day[_kind(rows)].to_numpy("<f8")
    texts = "\0".join([_kind(rows), *by_day["symbol"]])
    return hashlib.sha256(texts.encode() + days.tobytes() + values.tobytes()).hexdigest()


def decisions_on(
    rows: pd.DataFrame, bars: Bars, rules: TradingRules, start: str | None = None, end: str | None = None
) -> Decisions:
    """The decisions of some rows at the sessions of bars, within the caps of the rules.

    rows: as read_decisions. start, end: ISO dates; decisions before and after them are left out, with a note. Symbols
    may be written in another case. Raises UserError, in one line that names the first: for a symbol that the bars lack,
    two rows of one date and symbol, a number that is not finite, a date outside the bars, two dates that come to one
    session, and what is beyond the caps (of positions: see `refuse_large_positions`).
    """
    name, column = rows.attrs["name"], _kind(rows)
    rows = rows.assign(symbol=_known(rows["symbol"], bars, name))
    _refuse_doubles(rows, name)
    _refuse_strange(rows, column, name)
    rows, notes = _between(rows, start, end, name)
    rows, moved = _on_sessions(rows, bars.sessions_T, name)
    book_TS = np.full(bars.close_TS.shape, np.nan)
    row_N = np.searchsorted(bars.sessions_T, rows["date"].to_numpy().astype("datetime64[D]"))
    book_TS[np.unique(row_N)] = 0.0
    book_TS[row_N, bars.columns_of(rows["symbol"])] = rows[column].to_numpy()
    if column == "weight":
        book_TS, scaled = _within_caps(book_TS, bars, rules, name)
        moved += scaled
    elif not rules.allow_short and (book_TS < 0.0).any():
        raise UserError(_of_first(book_TS < 0.0, book_TS, bars, name, "a short position", "allow_short=true"))
    absent_TS = (np.nan_to_num(book_TS) != 0.0) & ~bars.present_TS
    if absent_TS.any():
        t, s = np.argwhere(absent_TS)[0]
        moved.append(
            f"{absent_TS.sum():,} decisions are for a symbol without a bar on that day and order nothing, first "
            f"{bars.symbols_S[s]} on {bars.sessions_T[t]}"
        )
    return Decisions(book_TS, column == "position", (*notes, *moved))


def refuse_large_positions(
    decisions: Decisions, equity_T: np.ndarray, bars: Bars, rules: TradingRules, name: str
) -> None:
    """Refuse shares that are worth more at their decision's close than the account that trades them may hold.

    equity_T: of that account. Raises UserError, naming the first.
    """
    for t in decisions.row_D:
        value_S = np.nan_to_num(np.abs(decisions.book_TS[t]) * bars.close_TS[t])
        part_S = value_S / equity_T[t] if equity_T[t] > 0.0 else np.zeros(len(value_S))
        s = int(part_S.argmax())
        for part, most, what in (
            (part_S[s], rules.max_position_size, "max_position_size"),
            (part_S.sum(), rules.max_gross, "max_gross"),
        ):
            if part > most * (1.0 + ROUNDING):
                raise UserError(
                    f"{name}: the positions of {bars.sessions_T[t]} are worth {part:.2f} times the account, which then "
                    f"has {equity_T[t]:,.2f} ({decisions.book_TS[t, s]:g} shares of {bars.symbols_S[s]} at "
                    f"{bars.close_TS[t, s]:,.2f}), beyond profit_tracker.{what}={most:g}: give the capital that they "
                    f"are meant for, profit_tracker.initial_capital=..., or allow it, profit_tracker.{what}={part:.2f}"
                )


# Reading.


def _columns(header: Sequence[str]) -> dict[str, str]:
    """Our name for each column that is used, and its name in the file."""
    if len(header) > MOST_COLUMNS:
        raise UnsafeFile(f"has {len(header):,} columns, more than the {MOST_COLUMNS:,} that are read")
    keys: dict[str, list[str]] = {}
    for name in header:
        keys.setdefault(key_of(name), []).append(name)
    found: dict[str, str] = {}
    for ours, aliases in COLUMNS.items():
        theirs = [name for alias in aliases for name in keys.get(alias, [])]
        if len(theirs) > 1:
            raise UnsafeFile(f"has two columns for {ours}, {listed(theirs[:2], between=' and ')}: leave one out")
        if theirs:
            found[ours] = theirs[0]
    wanted = "decisions need date, symbol, and weight or position"
    if "date" in found and "symbol" not in found and len(header) > 1 and not {"weight", "position"} & set(found):
        raise UnsafeFile(
            f"has a column a symbol, as it seems ({listed(header, 5)}): {wanted}, one row each, which pandas makes of "
            'it by frame.melt("date", var_name="symbol", value_name="weight")'
        )
    for ours in ("date", "symbol"):
        if ours not in found:
            raise UnsafeFile(f"has no {ours} column{did_you_mean(ours, list(keys))}: {wanted}; it has {listed(header)}")
    if ("weight" in found) == ("position" in found):
        which = "both weight and position: leave one out" if "weight" in found else "neither weight nor position"
        raise UnsafeFile(f"has {which}: {wanted}; it has {listed(header)}")
    return found


def _read_csv(path: Path) -> pa.Table:
    content = unpacked(path)
    if not content or content.isspace():
        raise UnsafeFile("is empty")
    refuse_rows(max(content.count(b"\n"), content.count(b"\r")), MOST_ROWS)
    first = content[:MOST_HEADER_BYTES].decode("utf-8-sig", errors="replace").splitlines()[0]
    header = next(csv.reader([first]), [])
    for separator in (";", "\t", "|"):
        if len(header) == 1 and len(parts := first.split(separator)) > 1:
            raise UnsafeFile(f"has {plain(separator) or 'tabs'} between its columns ({listed(parts)}): write commas")
    names = _columns(header)
    text = pa.dictionary(pa.int32(), pa.string())
    kinds = {theirs: text if ours in ("symbol", "date") else pa.float64() for ours, theirs in names.items()}
    options = pa_csv.ConvertOptions(column_types=kinds, include_columns=list(names.values()), null_values=NO_NUMBER)
    table = pa_csv.read_csv(pa.BufferReader(content), convert_options=options).rename_columns(list(names))
    for name in ("symbol", "date"):
        check_texts(table[name], name)
    return table


def _rows(raw: pa.Table, name: str) -> pd.DataFrame:
    """symbol, date, and weight or position, in the order of the source, whose name is in `attrs`."""
    if not raw.num_rows:
        raise UserError(f"{name} has no rows")
    rows = table_of(raw, name).to_pandas(date_as_object=False).drop(columns="file")
    if "time" in rows:
        row = int(rows["time"].to_numpy().argmax())
        day, moment = rows["date"].iloc[row].date(), pd.Timestamp(0) + pd.Timedelta(int(rows["time"].iloc[row]), "us")
        raise UserError(
            f"{name}, row {row + 1}: {day} {moment:%H:%M:%S} has a time of day, but a decision is taken after the "
            "close of its session and filled at a later open: write the date alone, for what was decided before a "
            "close that of the session before"
        )
    rows.attrs["name"] = name
    return rows


# Checking.


def _kind(rows: pd.DataFrame) -> str:
    return "weight" if "weight" in rows else "position"


def _known(symbol_N: pd.Series, bars: Bars, name: str) -> np.ndarray:
    """The symbols of the rows as the bars write them."""
    asked = [str(symbol) for symbol in symbol_N.cat.categories]
    named = as_named(asked, set(bars.symbols_S))
    for theirs, ours in zip(asked, named, strict=True):
        if ours not in bars.symbols_S:
            hint = did_you_mean(theirs.upper(), bars.symbols_S) or f"; there are {listed(bars.symbols_S)}"
            raise UserError(f"{name}: {plain(theirs, 64)} is not a symbol of the bars{hint}")
    return np.asarray(named, object)[symbol_N.cat.codes.to_numpy()]


def _refuse_doubles(rows: pd.DataFrame, name: str) -> None:
    doubles = rows.duplicated(["date", "symbol"]).to_numpy()
    if doubles.any():
        again = int(doubles.argmax())
        symbol, day = rows["symbol"].iloc[again], rows["date"].iloc[again]
        first = int(((rows["symbol"] == symbol) & (rows["date"] == day)).to_numpy().argmax())
        raise UserError(
            f"{name}: {symbol} stands twice on {day.date()}, in rows {first + 1} and {again + 1}: leave one out"
        )


def _refuse_strange(rows: pd.DataFrame, column: str, name: str) -> None:
    wrong = ~np.isfinite(rows[column].to_numpy())
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(
            f"{name}, row {row + 1}: the {column} of {rows['symbol'].iloc[row]} on {rows['date'].iloc[row].date()} is "
            f"{rows[column].iloc[row]:g}: write 0 for none, or leave the row out"
        )


def _between(rows: pd.DataFrame, start: str | None, end: str | None, name: str) -> tuple[pd.DataFrame, list[str]]:
    days = rows["date"].to_numpy().astype("datetime64[D]")
    keep = np.ones(len(rows), bool)
    notes = []
    for word, text, inside in (
        ("before", start, days >= np.datetime64(start or "0001-01-01")),
        ("after", end, days <= np.datetime64(end or "9999-12-31")),
    ):
        if not inside.all():
            notes.append(f"{len(np.unique(days[~inside])):,} dates {word} {text} are left out")
        keep &= inside
    if not keep.any():
        raise UserError(f"{name} has no decision from {start or 'its first date'} to {end or 'its last'}")
    return (rows if keep.all() else rows[keep]), notes


def _on_sessions(rows: pd.DataFrame, sessions_T: np.ndarray, name: str) -> tuple[pd.DataFrame, list[str]]:
    """The rows with each date that is no session moved to the session before it."""
    days = np.unique(rows["date"].to_numpy().astype("datetime64[D]"))
    first, last = sessions_T[0].astype("datetime64[D]"), sessions_T[-1].astype("datetime64[D]")
    for day in days:
        if not first <= day <= last:
            raise UserError(
                f"{name}: {day} lies outside the bars, which run from {first} to {last}: give bars of those days, or "
                "leave out what lies outside them, --start and --end"
            )
    known = sessions_T.astype("datetime64[D]")
    session_of = known[np.searchsorted(known, days, side="right") - 1]
    moved = session_of != days
    if not moved.any():
        return rows, []
    twice = np.flatnonzero(session_of[1:] == session_of[:-1])
    if len(twice):
        one, other = days[twice[0]], days[twice[0] + 1]
        raise UserError(
            f"{name}: {other} is no session, and its decision would be that of {session_of[twice[0]]}, which has one "
            f"already ({one}): leave one out"
        )
    new = dict(zip(days.astype("datetime64[s]"), session_of.astype("datetime64[s]"), strict=True))
    rows = rows.assign(date=[new[day] for day in rows["date"].to_numpy().astype("datetime64[s]")])
    count, shown = int(moved.sum()), int(moved.argmax())
    said = "1 date is no session and counts" if count == 1 else f"{count:,} dates are no sessions and count"
    note = f"{said} as the session before, {days[shown]} as {session_of[shown]}"
    return rows, [note]


def _within_caps(book_TS: np.ndarray, bars: Bars, rules: TradingRules, name: str) -> tuple[np.ndarray, list[str]]:
    """The weights, with what rounding left beyond the caps taken off."""
    most, slack = rules.max_position_size, 1.0 + ROUNDING
    size_TS, gross_T = np.abs(np.nan_to_num(book_TS)), np.abs(np.nan_to_num(book_TS)).sum(axis=1)
    if not rules.allow_short and (book_TS < 0.0).any():
        raise UserError(_of_first(book_TS < 0.0, book_TS, bars, name, "a short position", "allow_short=true"))
    if (size_TS > most * slack).any():
        what, allowed = f"beyond profit_tracker.max_position_size={most:g}", f"max_position_size={size_TS.max():g}"
        raise UserError(_of_first(size_TS > most * slack, book_TS, bars, name, what, allowed))
    if (gross_T > rules.max_gross * slack).any():
        t = int((gross_T > rules.max_gross * slack).argmax())
        raise UserError(
            f"{name}: the weights of {bars.sessions_T[t]} are {gross_T[t]:g} in all, beyond profit_tracker.max_gross="
            f"{rules.max_gross:g}: profit_tracker.max_gross={np.ceil(gross_T.max() * 100) / 100:g} allows them"
        )
    beyond_T = (gross_T > rules.max_gross * (1.0 + 1e-9)) | (size_TS > most * (1.0 + 1e-9)).any(axis=1)
    if not beyond_T.any():
        return book_TS, []
    capped_TS = np.where(np.isnan(book_TS), np.nan, cap_weights(np.nan_to_num(book_TS), rules))
    count, most = int(beyond_T.sum()), float(gross_T.max())
    return capped_TS, [f"the weights of {count:,} dates exceed a cap by rounding (up to {most:.4f}): scaled down"]


def _of_first(wrong_TS: np.ndarray, book_TS: np.ndarray, bars: Bars, name: str, what: str, allowed: str) -> str:
    t, s = np.argwhere(wrong_TS)[0]
    return (
        f"{name}: {bars.symbols_S[s]} on {bars.sessions_T[t]} has {book_TS[t, s]:g}, {what}: profit_tracker.{allowed} "
        "allows it"
    )
