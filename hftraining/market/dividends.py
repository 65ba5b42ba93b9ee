"""The adjustment of Yahoo's bars for dividends."""

import numpy as np
import pandas as pd

from hftraining.market.yahoo import PRICES, BadResponse

DOUBT = 0.005  # our adjustment against Yahoo's own: more than rounding


def adjusted(table: pd.DataFrame, events: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The table of read_yahoo adjusted for dividends, without adj_close, and doubts about the adjustment.

    Before an ex-date all prices are multiplied by 1 - dividend / (close before the ex-date) and volumes divided by it,
    so that the return of holding through the ex-date is the true one (CRSP). A symbol is in doubt if its adjustment
    differs from Yahoo's Adj Close by more than 0.5 %. The table must be sorted by symbol and date. Raises
    BadResponse for a dividend that is not between zero and the close before it.
    """
    doubts: list[str] = []
    factor = np.ones(len(table))
    paid = events[events["dividend"] != 0]
    for symbol, place in table.groupby("symbol", observed=True).indices.items():
        bars = table.iloc[place]
        mine = paid[paid["symbol"] == symbol]
        factor[place] = _dividend_factor(str(symbol), bars, mine)
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
    return table.drop(columns="adj_close").assign(**prices, volume=table["volume"] / factor), doubts


def _dividend_factor(symbol: str, bars: pd.DataFrame, paid: pd.DataFrame) -> np.ndarray:
    """The factor by which each row of one symbol is multiplied."""
    dates, close = bars["date"].to_numpy(), bars["close"].to_numpy()
    step = np.ones(len(bars) + 1)
    for day, dividend in zip(paid["date"].to_numpy(), paid["dividend"].to_numpy(), strict=True):
        row = int(np.searchsorted(dates, day))
        if not 0 < row < len(bars):  # no bar before or no bar after it, so nothing to adjust
            continue
        if not 0 < dividend < close[row - 1]:
            raise BadResponse(
                f"{symbol}: Yahoo reports a dividend of {dividend:g} on {str(day)[:10]}, after a close of "
                f"{close[row - 1]:g}: leave it out with stocks.exclude=[{symbol}]"
            )
        step[row] *= 1 - dividend / close[row - 1]
    return np.cumprod(step[::-1])[::-1][1:]
