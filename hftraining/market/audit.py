"""Checks of a table of bars: each fault is refused, or repaired with a note.

We refuse faults that make every later number wrong (unadjusted splits, a price of zero) and those that only the owner
of the data can resolve (duplicates). We repair a fault that has one honest repair: a bar that contradicts itself is
left out, as if the symbol had not traded.
"""

import numpy as np
import pandas as pd

from hftraining.market import screen
from hftraining.market.config import MarketDataError
from hftraining.market.wording import excluding, listed, plain

PRICES = ["open", "high", "low", "close"]
# Wider than any stock: Berkshire trades at 8e5; before many reverse splits, stocks stand at up to 1e10 once adjusted,
# and before many splits and dividends, as coins do, at down to 1e-7. Price times volume stays a 32-bit number.
LEAST_PRICE, MOST_PRICE = 1e-8, 1e12
MOST_VOLUME = 1e15  # some 1e10 shares a day are the most; what is counted in won or coins can reach 1e14
LEAST_FACTOR, MOST_FACTOR = 1e-8, 1e10  # adj_close over close: splits and dividends of a century
EARLIEST = np.datetime64("1900-01-01")  # no daily open, high, low and volume were written down before

FEWEST_ROWS = 60  # features need 21 rows, and a symbol with less than a quarter of a year says nothing

# Decimal-point slips. In 966,252 rows of 300 stocks no true open or close lies outside its own low to high, and the
# widest true bar (a bank in 2008) has a high of 3.9 times its low.
OUTSIDE = 1.2  # open or close this many times beyond the bar's own high or low
WIDEST_BAR = 5.0  # high / low of one session
SPIKE, RETURNED = 5.0, 1.5  # a close this far from both closes beside it, which agree among themselves
LARGEST_JUMP = 20.0  # close to close, without a way back: another stock under the same name

# Splits: new shares for an old one, or old ones for a new one. Smaller ones (5:4) look like any bad day.
SPLITS = np.array([1.5, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40, 50])
GAP_TOLERANCE, CLOSE_TOLERANCE, STAY_TOLERANCE = 0.07, 0.11, 0.3  # of the log price change at open, close, and after
# A split hardly changes the traded value; a fall by half multiplies it. Calibrated on 21 splits
# and some 40 true moves beyond 28 %: the calmest true move near 2:1 traded 4.2 times the usual value, the busiest
# split 2.3 times, but a move of a third can be true on a calmer day.
CALM, CALM_FOR_3_FOR_2 = 2.5, 1.5  # traded value against the median of 20 rows before


def check_rows(table: pd.DataFrame, bad_rows: str) -> tuple[pd.DataFrame, list[str]]:
    """The table sorted by symbol and date without rows that cannot be bars, and a note on each kind dropped.

    bad_rows="refuse": raises MarketDataError at the first duplicated, incomplete or absurd row; "drop" leaves them out
    and keeps the last of several rows for one day. With a column time, rows of one day may differ in it.
    """
    key = ["symbol", "date", *(["time"] if "time" in table else [])]
    rising = len(key) == 2 and screen.rises(_codes(table), _days(table))
    table = table.reset_index(drop=True) if rising else _sorted(table, key)
    table, notes = _check_values(table, bad_rows)
    if rising:  # so no row stands twice
        return table, notes
    repeated = _beside(table, key)[1]
    one = "day" if len(key) == 2 else "moment"
    what = (
        f"is one of several rows for its {one}"
        if bad_rows == "refuse"
        else f"is followed by another one for the same {one}"
    )
    notes += _refuse_or_note(table, what, repeated, bad_rows)
    return _without(table, repeated), notes


def _sorted(table: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    """The table in the order of the key; files mostly are in order, which is seen in a tenth of the time of sorting."""
    before, same = _beside(table, key)
    if (before | same)[:-1].all():
        return table.reset_index(drop=True)
    return table.sort_values(key, kind="stable", ignore_index=True)


def _beside(table: pd.DataFrame, key: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Of each row: whether its key comes before that of the next row, and whether it is the same; the last has none."""
    before, same = np.zeros(len(table), bool), np.zeros(len(table), bool)
    same[:-1] = True
    for name in key:
        values = (table[name].cat.codes if name == "symbol" else table[name]).to_numpy()
        before[:-1] |= same[:-1] & (values[:-1] < values[1:])
        same[:-1] &= values[:-1] == values[1:]
    return before, same


def _codes(table: pd.DataFrame) -> np.ndarray:
    return screen.codes_of(table["symbol"].cat.codes.to_numpy())


def _days(table: pd.DataFrame) -> np.ndarray:
    """The dates as numbers, in the unit that they have."""
    return table["date"].to_numpy().view(np.int64)


def _without(table: pd.DataFrame, rows: np.ndarray) -> pd.DataFrame:
    """The table without some rows, and without a copy where there are none."""
    return table[~rows].reset_index(drop=True) if rows.any() else table


def check_adjusted(table: pd.DataFrame, bad_rows: str) -> tuple[pd.DataFrame, list[str]]:
    """The table without rows whose prices or volume are absurd once they are adjusted, and notes; as check_rows."""
    return _check_values(table, bad_rows, "has, once adjusted,")


def _check_values(table: pd.DataFrame, bad_rows: str, has: str = "has") -> tuple[pd.DataFrame, list[str]]:
    names = [*PRICES, *(["adj_close"] if "adj_close" in table else [])]
    if _is_plausible(table, names):
        return table, []
    prices, volume = table[names].to_numpy("float64"), table[["volume"]].to_numpy("float64")
    days = table[["date"]].to_numpy().astype("datetime64[D]")
    tomorrow = np.datetime64("now", "D") + 1  # it begins in Asia while it is still today in UTC
    missing = np.isnan(prices)
    # What is said, the cells that are wrong, and the columns that they are in.
    checks: list[tuple[str, np.ndarray, list[str]]] = [
        (f"is not between {EARLIEST} and today", (days < EARLIEST) | (days > tomorrow), ["date"]),
        (f"{has} no prices at all", missing & missing.all(axis=1, keepdims=True), names),
        ("lacks some prices", missing, names),
        (f"{has} a price that is zero or negative", prices <= 0, names),
        (f"{has} an infinite price", prices == np.inf, names),
        (
            f"{has} a price outside {LEAST_PRICE:g} to {MOST_PRICE:g}",
            (prices < LEAST_PRICE) | (prices > MOST_PRICE),
            names,
        ),
        (f"{has} no volume, or one that is negative or infinite", ~((volume >= 0) & (volume < np.inf)), ["volume"]),
        (f"{has} a volume above {MOST_VOLUME:g}", volume > MOST_VOLUME, ["volume"]),
    ]
    if "adj_close" in table:
        with np.errstate(all="ignore"):  # of prices that are absurd themselves
            factor = prices[:, 4:] / prices[:, 3:4]
        far = (factor < LEAST_FACTOR) | (factor > MOST_FACTOR)
        said = f"has an adj_close outside {LEAST_FACTOR:g} to {MOST_FACTOR:g} times its close"
        checks.append((said, far, ["adj_close"]))
    notes: list[str] = []
    bad = np.zeros(len(table), bool)
    for what, cells, columns in checks:
        wrong = cells.any(axis=1) & ~bad
        if wrong.any():
            row = int(wrong.argmax())
            column = columns[int(cells[row].argmax())]
            value = table[column].iloc[row]
            said = "" if column == "date" or np.isnan(value) else f": {column} is {value:g}"
            notes += _refuse_or_note(table, what, wrong, bad_rows, said)
            bad |= wrong
    return _without(table, bad), notes


def _is_plausible(table: pd.DataFrame, prices: list[str]) -> bool:
    """Whether no check of _check_values finds anything."""
    unit = table["date"].to_numpy().dtype
    after = (np.datetime64("now", "D") + 2).astype(unit).astype(np.int64)
    return (
        screen.within(_days(table), EARLIEST.astype(unit).astype(np.int64), after - 1)
        and all(screen.within(table[name].to_numpy("float64"), LEAST_PRICE, MOST_PRICE) for name in prices)
        and screen.within(table["volume"].to_numpy("float64"), 0.0, MOST_VOLUME)
        and ("adj_close" not in prices or screen.within(_factor(table), LEAST_FACTOR, MOST_FACTOR))
    )


def _factor(table: pd.DataFrame) -> np.ndarray:
    return table["adj_close"].to_numpy("float64") / table["close"].to_numpy("float64")


def _refuse_or_note(table: pd.DataFrame, what: str, wrong: np.ndarray, bad_rows: str, said: str = "") -> list[str]:
    if not wrong.any():
        return []
    if bad_rows == "refuse":
        first = table.iloc[int(wrong.argmax())]
        file = f" in {first['file']}" if "file" in table else ""
        raise MarketDataError(
            f"{plain(first['symbol'])} on {first['date'].date()}{file} {what}{said} ({_count(wrong, 'such row')}): "
            "correct the data, or leave such rows out with stocks.bad_rows=drop"
        )
    return [f"{_count(wrong, 'row')} left out, since each {what}: {_places(table, wrong, 3)}"]


def drop_slips(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The table without bars whose prices contradict each other more than any market could, and notes naming them.

    Also widens high and low to hold open and close where rounding left them a little outside. The table must be
    sorted by symbol and date, with positive prices.
    """
    opens, highs, lows, closes = (table[name].to_numpy() for name in PRICES)
    if screen.agrees(_codes(table), opens, highs, lows, closes, WIDEST_BAR, SPIKE):
        return table, []
    close_slipped = _outside(closes, highs, lows) & ~_outside(opens, highs, lows) & (highs >= lows)
    slipped = _outside(closes, highs, lows) | _outside(opens, highs, lows) | (highs * OUTSIDE < lows)
    slipped |= highs > lows * WIDEST_BAR
    others = slipped & ~close_slipped
    notes = [
        f"{_count(wrong, 'bar')} left out, since {what} is out by a decimal point or so: {_places(table, wrong, 10)}"
        for what, wrong in (("the close", close_slipped), ("an open, high or low", others))
        if wrong.any()
    ]
    table = _without(table, slipped)

    spiked = _spikes(table)
    if spiked.any():
        notes.append(
            f"{_count(spiked, 'bar')} left out, since the close is more than {SPIKE:g} times off both the close "
            f"before and the close after: {_places(table, spiked, 10)}"
        )
        table = _without(table, spiked)

    high, low = table[PRICES].max(axis=1), table[PRICES].min(axis=1)
    narrow = ((high > table["high"] * (1 + 1e-6)) | (low < table["low"] * (1 - 1e-6))).to_numpy()
    if narrow.any():
        notes.append(
            f"high or low widened on {_count(narrow, 'bar')} to hold its open and close: {_places(table, narrow, 3)}"
        )
    return table.assign(high=high, low=low), notes


def _outside(prices: np.ndarray, highs: np.ndarray, lows: np.ndarray) -> np.ndarray:
    return (prices > highs * OUTSIDE) | (prices * OUTSIDE < lows)


def _spikes(table: pd.DataFrame) -> np.ndarray:
    """Where a bar as a whole is off by a factor, with agreeing closes before and after it."""
    close, same = np.log(table["close"].to_numpy()), _follows(table)
    spiked = np.zeros(len(table), bool)
    if len(table) < 3:
        return spiked
    step = np.diff(close)
    spiked[1:-1] = (
        (same[1:-1] & same[2:])
        & (np.minimum(np.abs(step[:-1]), np.abs(step[1:])) > np.log(SPIKE))
        & (np.abs(step[:-1] + step[1:]) < np.log(RETURNED))
    )
    return spiked


def refuse_splits(table: pd.DataFrame) -> None:
    """Raise MarketDataError for an unadjusted split, and for a jump larger than any price makes."""
    smallest = float(np.exp(np.log(SPLITS[0]) - GAP_TOLERANCE))
    if screen.goes_on(_codes(table), table["open"].to_numpy(), table["close"].to_numpy(), smallest, LARGEST_JUMP):
        return
    splits = find_splits(table)
    if len(splits):
        first = splits.iloc[0]
        ratio = first["ratio"]
        terms = f"{ratio:g} for 1" if ratio > 1 else f"1 for {1 / ratio:g}"
        symbols = splits["symbol"].unique()
        others = f" (one of {len(splits):,}, in {listed(symbols)})" if len(splits) > 1 else ""
        raise MarketDataError(
            f"{plain(first['symbol'])} on {first['date'].date()}: the close goes from {first['before']:g} to "
            f"{first['close']:g}, a split of {terms} left in{others}: use split-adjusted bars or an adj_close column, "
            f"or leave it out with {excluding(list(symbols))}"
        )
    close = np.log(table["close"].to_numpy())
    change = np.concatenate([[0.0], np.diff(close)])
    jumps = _follows(table) & (np.abs(change) > np.log(LARGEST_JUMP))
    if jumps.any():
        symbol = table["symbol"].iloc[int(jumps.argmax())]
        raise MarketDataError(
            f"{_places(table, jumps, 1)}: the close is {np.exp(change[jumps][0]):,.3g} times the close before, "
            f"more than any price moves in a day: correct the data, or leave it out with {excluding([symbol])}"
        )


def find_splits(table: pd.DataFrame) -> pd.DataFrame:
    """Unadjusted splits: columns symbol, date, before and close (currency), ratio (new shares for one).

    A split: open and close both stand near a usual ratio to the close before, the median of the next three closes
    stays there, and no more money than usual changed hands. The table must be sorted by symbol and date.
    """
    codes = table["symbol"].cat.codes.to_numpy()
    close, opens, volume = (table[name].to_numpy() for name in ("close", "open", "volume"))
    before = np.concatenate([close[:1], close[:-1]])
    log_gap, log_close = np.log(opens / before), np.log(close / before)
    rows = np.flatnonzero(_follows(table) & (np.abs(log_gap) > np.log(SPLITS[0]) - GAP_TOLERANCE))
    ratio = SPLITS[np.abs(np.abs(log_gap[rows])[:, None] - np.log(SPLITS)).argmin(axis=1)]
    log_ratio = np.sign(log_gap[rows]) * np.log(ratio)
    fits = (np.abs(log_gap[rows] - log_ratio) < GAP_TOLERANCE) & (np.abs(log_close[rows] - log_ratio) < CLOSE_TOLERANCE)
    fits &= (ratio != SPLITS[0]) | (log_ratio < 0)  # nobody merges three shares into two
    found = []
    for row, size, change in zip(rows[fits], ratio[fits], log_ratio[fits], strict=True):
        past, future = np.arange(max(0, row - 20), row), np.arange(row + 1, min(len(table), row + 4))
        past, future = past[codes[past] == codes[row]], future[codes[future] == codes[row]]
        if len(future) and abs(np.log(np.median(close[future]) / before[row]) - change) > STAY_TOLERANCE:
            continue
        usual = float(np.median(close[past] * volume[past]))
        if close[row] * volume[row] < usual * (CALM_FOR_3_FOR_2 if size == SPLITS[0] else CALM):
            found.append((*table[["symbol", "date"]].iloc[row], before[row], close[row], float(np.exp(-change))))
    return pd.DataFrame(found, columns=["symbol", "date", "before", "close", "ratio"])


def refuse_short(table: pd.DataFrame) -> None:
    """Raise MarketDataError for symbols with too few rows to say anything."""
    symbols = table["symbol"].cat.categories
    counts = np.bincount(_codes(table), minlength=len(symbols)).tolist()
    short = {symbol: n for symbol, n in zip(symbols, counts, strict=True) if n < FEWEST_ROWS}
    if short:
        named = listed((f"{plain(symbol)} has {n} row{'s' * (n != 1)}" for symbol, n in sorted(short.items())), 5)
        raise MarketDataError(
            f"{named}, and at least {FEWEST_ROWS} are needed: leave {'it' if len(short) == 1 else 'them'} out with "
            f"{excluding(sorted(short))}"
        )


def _follows(table: pd.DataFrame) -> np.ndarray:
    """Where the row before is of the same symbol."""
    codes = table["symbol"].cat.codes.to_numpy()
    return np.concatenate([[False], codes[1:] == codes[:-1]])[: len(table)]


def _count(wrong: np.ndarray, what: str) -> str:
    count = int(wrong.sum())
    return f"{count:,} {what}{'s' * (count != 1)}"


def _places(table: pd.DataFrame, wrong: np.ndarray, most: int) -> str:
    rows = np.flatnonzero(wrong)
    named = [f"{plain(table['symbol'].iloc[row])} on {table['date'].iloc[row].date()}" for row in rows[:most]]
    return ", ".join(named) + (f" and {len(rows) - most:,} more" if 1 < most < len(rows) else "")
