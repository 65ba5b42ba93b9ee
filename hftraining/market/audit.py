"""What is wrong with a table of bars: refused, or repaired and said.

Refused are things that make every number after them wrong (splits left in, a price of zero) or that only the owner
of the data can decide (duplicates). Repaired is what has one honest repair: a bar that contradicts itself is
left out, as if the symbol had not traded.
"""

import numpy as np
import pandas as pd

from hftraining.market.config import MarketDataError

PRICES = ["open", "high", "low", "close"]
FEWEST_ROWS = 60  # features need 21 rows, and a symbol with less than a quarter of a year says nothing
SLIP = 1.5  # a price this many times outside its own bar is a slipped decimal point, not a move
WIDEST_BAR = 3.0  # high / low of one session
LARGEST_JUMP = 20.0  # close to close
# New shares for an old one, or old ones for a new one. Smaller ones (5:4) look like any bad day.
SPLITS = np.array([1.5, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40, 50])
GAP_TOLERANCE, CLOSE_TOLERANCE = 0.07, 0.11  # distance of the logs of price change and split ratio
# A split leaves what is traded in money about as it was; a fall by half brings everyone to market. Calibrated on
# eleven splits and 40 true moves beyond 28 %: a move of a third can be true on a calm day.
CALM, CALM_FOR_3_FOR_2 = 2.5, 1.5  # traded value against the median of 20 rows before


def check_rows(table: pd.DataFrame, bad_rows: str) -> tuple[pd.DataFrame, list[str]]:
    """Sorted by symbol and date, without the rows that cannot be bars, and what was dropped.

    bad_rows="refuse": raises MarketDataError at the first duplicated, incomplete or non-positive row; "drop" leaves
    them out, and of several rows for one day keeps the last that is left.
    """
    table = table.sort_values(["symbol", "date"], kind="stable", ignore_index=True)
    prices = table[[*PRICES, *(["adj_close"] if "adj_close" in table else [])]]
    missing = prices.isna()
    checks = [
        ("has no prices at all", missing.all(axis=1)),
        ("lacks some of its prices", missing.any(axis=1) & ~missing.all(axis=1)),
        ("has a price that is zero or negative", (prices <= 0).any(axis=1)),
        ("has an infinite price", np.isinf(prices).any(axis=1)),
        ("has no volume, or a negative one", ~(table["volume"] >= 0)),
    ]
    notes, bad = [], np.zeros(len(table), bool)
    for what, wrong in checks:
        notes += _refuse_or_note(table, what, wrong.to_numpy() & ~bad, bad_rows)
        bad |= wrong.to_numpy()
    table = table[~bad]
    repeated = table.duplicated(["symbol", "date"], keep="last").to_numpy()
    notes += _refuse_or_note(table, "is not the only row of its day", repeated, bad_rows)
    return table[~repeated].reset_index(drop=True), notes


def _refuse_or_note(table: pd.DataFrame, what: str, wrong: np.ndarray, bad_rows: str) -> list[str]:
    if not wrong.any():
        return []
    if bad_rows == "refuse":
        raise MarketDataError(
            f"{_places(table, wrong, most=1)} {what} ({int(wrong.sum())} such rows): "
            "mend the data, or leave such rows out with stocks.bad_rows=drop"
        )
    return [f"{int(wrong.sum())} rows left out, since each {what}: {_places(table, wrong)}"]


def drop_slips(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Without bars whose prices contradict each other by more than any market could, and which those were.

    Also widens high and low to hold open and close where rounding left them a little outside.
    """
    highest, lowest = table[["open", "close"]].max(axis=1), table[["open", "close"]].min(axis=1)
    slipped = (highest > table["high"] * SLIP) | (lowest < table["low"] / SLIP) | (table["high"] < table["low"] / SLIP)
    slipped |= table["high"] > table["low"] * WIDEST_BAR
    notes = []
    if slipped.any():
        notes.append(
            f"{int(slipped.sum())} bars left out, since their own prices contradict each other (slipped decimal "
            f"points): {_places(table, slipped.to_numpy())}"
        )
    table = table[~slipped]
    high, low = (table[PRICES].max(axis=1), table[PRICES].min(axis=1))
    narrow = (high > table["high"] * (1 + 1e-6)) | (low < table["low"] * (1 - 1e-6))
    if narrow.any():
        notes.append(f"high or low widened on {int(narrow.sum())} bars to hold their open and close")
    return table.assign(high=high, low=low).reset_index(drop=True), notes


def refuse_splits(table: pd.DataFrame) -> None:
    """Raise MarketDataError where a split was left in, or where a price jumps as no price does.

    A split: open and close both stand near a usual ratio to the close before, on a day when no more money than
    usual changed hands.
    """
    symbol, close = table["symbol"].to_numpy(), table["close"].to_numpy()
    follows = np.concatenate([[False], symbol[1:] == symbol[:-1]])
    before = np.concatenate([[np.nan], close[:-1]])
    with np.errstate(invalid="ignore"):
        log_close, log_gap = np.log(close / before), np.log(table["open"].to_numpy() / before)
    candidates = np.flatnonzero(follows & (np.abs(log_gap) > 0.3))
    splits = {row: ratio for row in candidates if (ratio := _split_ratio(table, row, log_gap[row], log_close[row]))}
    if splits:
        first = min(splits)
        terms = f"{splits[first]:g} for 1" if log_close[first] < 0 else f"1 for {splits[first]:g}"
        raise MarketDataError(
            f"{table['symbol'][first]} on {table['date'][first].date()}: the close goes from {before[first]:g} to "
            f"{close[first]:g}, a split ({terms}) that was left in"
            + (f" (one of {len(splits)})" if len(splits) > 1 else "")
            + ": use split-adjusted bars or an adj_close column, or leave the symbol out with stocks.exclude"
        )
    jumps = follows & (np.abs(log_close) > np.log(LARGEST_JUMP))
    if jumps.any():
        raise MarketDataError(
            f"{_places(table, jumps, most=1)} closes at {np.exp(log_close[jumps][0]):,.3g} times the close before: "
            "mend the data, or leave the symbol out with stocks.exclude"
        )


def _split_ratio(table: pd.DataFrame, row: int, log_gap: float, log_close: float) -> float:
    """The ratio of the split that happened at a row, whichever way it went; 0 where the move was a true one."""
    distance = np.abs(abs(log_gap) - np.log(SPLITS))
    nearest = int(distance.argmin())
    if distance[nearest] > GAP_TOLERANCE or abs(abs(log_close) - np.log(SPLITS[nearest])) > CLOSE_TOLERANCE:
        return 0.0
    before = table.iloc[max(0, row - 20) : row]
    before = before[before["symbol"] == table["symbol"][row]]
    usual = float((before["close"] * before["volume"]).median())
    if not usual > 0:
        return 0.0
    traded = table["close"][row] * table["volume"][row] / usual
    return float(SPLITS[nearest]) if traded < (CALM_FOR_3_FOR_2 if nearest == 0 else CALM) else 0.0


def refuse_short(table: pd.DataFrame) -> None:
    """Raise MarketDataError for symbols with too few rows to say anything."""
    counts = table["symbol"].value_counts()
    short = counts[counts < FEWEST_ROWS].sort_index()
    if len(short):
        named = ", ".join(f"{symbol} has {count} rows" for symbol, count in list(short.items())[:5])
        raise MarketDataError(
            f"stocks: {named}, fewer than the {FEWEST_ROWS} that are needed: leave such symbols out with "
            f"stocks.exclude=[{','.join(short.index)}]"
        )


def _places(table: pd.DataFrame, wrong: np.ndarray, most: int = 3) -> str:
    rows = np.flatnonzero(wrong)
    named = [f"{table['symbol'].iloc[row]} on {table['date'].iloc[row].date()}" for row in rows[:most]]
    return ", ".join(named) + (f" and {len(rows) - most} more" if most > 1 and len(rows) > most else "")
