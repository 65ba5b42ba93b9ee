"""The adjustment of bars for splits, where they are as traded, and for dividends."""

import numpy as np
import pandas as pd

from hftraining.market.yahoo import PRICES, BadResponse

EVENTS = ["symbol", "date", "split", "dividend"]
DOUBT = 0.005  # our adjustment against Yahoo's own: more than rounding


def split_adjusted(raw: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Bars as traded, adjusted for splits alone, and their events.

    raw: symbol (categorical), date, open, high, low, close, volume, split (new shares for an old one, 0 on a day
    without one), dividend (as it was paid, 0 for none); sorted by symbol and date. table: without these two. events:
    symbol, date, split, dividend (for a share as it is after all splits), where there was one.
    """
    split = raw["split"].to_numpy()
    growth = np.where(split == 0, 1.0, split)
    later = np.ones(len(raw))  # shares on the last day for one of the day
    for rows in raw.groupby("symbol", observed=True).indices.values():
        later[rows[:-1]] = np.cumprod(growth[rows][:0:-1])[::-1]
    table = raw.drop(columns=["split", "dividend"]).assign(
        **{name: raw[name] / later for name in PRICES},
        volume=raw["volume"] * later,
    )
    happened = (split != 0) | (raw["dividend"] != 0).to_numpy()
    events = raw.loc[happened, EVENTS].assign(dividend=raw["dividend"] / later).astype({"symbol": str})
    return table, events.reset_index(drop=True)


def adjusted(table: pd.DataFrame, events: pd.DataFrame, reinvested: str = "before") -> tuple[pd.DataFrame, list[str]]:
    """The table of read_yahoo adjusted for dividends, without adj_close, and doubts about the adjustment.

    Before an ex-date all prices are multiplied by a factor and volumes divided by it, so that the return of holding
    through the ex-date has the dividend D in it. reinvested says at which close D buys shares:

    - "before", as Yahoo reckons: 1 - D / (close before the ex-date).
    - "ex", as Alpha Vantage does: C / (C + D) with the close C of the ex-date, so that the return from close to close
      is (C + D) / (close before) - 1, as CRSP defines it. The two part by D times the return of the day, which is
      little, but 3.5 % where Altria gave away Philip Morris, two thirds of its price.

    A symbol is in doubt if its adjustment differs from the table's adj_close, where there is one, by more than 0.5 %.
    The table must be sorted by symbol and date. Raises BadResponse for a dividend that is not between zero and the
    close before it.
    """
    doubts: list[str] = []
    factor = np.ones(len(table))
    paid = events[events["dividend"] != 0]
    for symbol, place in table.groupby("symbol", observed=True).indices.items():
        bars = table.iloc[place]
        mine = paid[paid["symbol"] == symbol]
        factor[place] = _dividend_factor(str(symbol), bars, mine, reinvested)
        if "adj_close" not in table:
            continue
        theirs = (bars["adj_close"] / bars["close"]).to_numpy()
        # Yahoo's factors include dividends paid after the last bar, equally in every row.
        apart = np.abs(factor[place] / (theirs / theirs[-1]) - 1)
        if not np.isfinite(apart).all() or apart.max() > DOUBT:
            worst = int(np.nan_to_num(apart, nan=np.inf).argmax())
            doubts.append(
                f"{symbol}: the adjustment for {len(mine)} dividends differs from Yahoo's Adj Close by "
                f"{apart[worst]:.1%} on {bars['date'].iloc[worst].date()}; the dividends are used"
            )
    prices = {name: table[name] * factor for name in PRICES}
    return table.drop(columns="adj_close", errors="ignore").assign(**prices, volume=table["volume"] / factor), doubts


def _dividend_factor(symbol: str, bars: pd.DataFrame, paid: pd.DataFrame, reinvested: str) -> np.ndarray:
    """The factor by which each row of one symbol is multiplied."""
    assert reinvested in ("before", "ex"), reinvested
    dates, close = bars["date"].to_numpy(), bars["close"].to_numpy()
    step = np.ones(len(bars) + 1)
    for day, dividend in zip(paid["date"].to_numpy(), paid["dividend"].to_numpy(), strict=True):
        row = int(np.searchsorted(dates, day))
        if not 0 < row < len(bars):  # no bar before or no bar after it, so nothing to adjust
            continue
        if not 0 < dividend < close[row - 1]:
            raise BadResponse(
                f"{symbol}: a dividend of {dividend:g} on {str(day)[:10]}, after a close of {close[row - 1]:g}, cannot "
                f"be: correct the data, or leave it out with stocks.exclude=[{symbol}]"
            )
        kept = 1 - dividend / close[row - 1] if reinvested == "before" else close[row] / (close[row] + dividend)
        step[row] *= kept
    return np.cumprod(step[::-1])[::-1][1:]
