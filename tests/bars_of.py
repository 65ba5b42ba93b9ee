"""Bars for tests: random walks as arrays, as rows of a table, and as files, and how files are loaded or refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hftraining.core.bars import Bars
from hftraining.market.config import MarketDataError, StocksConfig
from hftraining.market.prices import load_bars


def make_bars(n_sessions: int = 400, n_symbols: int = 3, seed: int = 0, missing: float = 0.0) -> Bars:
    """Random walks with gaps, ranges and volumes; a share of bars can be missing."""
    rng = np.random.default_rng(seed)
    shape = (n_sessions, n_symbols)
    close = 50.0 * np.exp(np.cumsum(rng.normal(0.0003, 0.02, shape), axis=0))
    open_ = np.vstack([np.full((1, n_symbols), 50.0), close[:-1]]) * np.exp(rng.normal(0, 0.005, shape))
    high = np.maximum(open_, close) * np.exp(np.abs(rng.normal(0, 0.005, shape)))
    low = np.minimum(open_, close) * np.exp(-np.abs(rng.normal(0, 0.005, shape)))
    volume = np.exp(rng.normal(14, 0.4, shape))
    arrays = [open_, high, low, close, volume]
    absent = rng.random(shape) < missing
    for array in arrays:
        array[absent] = np.nan
    sessions = np.busday_offset(np.datetime64("2015-01-01"), np.arange(n_sessions), roll="forward")
    return Bars(tuple(f"S{i}" for i in range(n_symbols)), sessions, *arrays, source="random walks")


def write_csv_files(bars: Bars, folder: Path) -> Path:
    """One CSV file a symbol."""
    for s, symbol in enumerate(bars.symbols_S):
        columns = {name: getattr(bars, f"{name}_TS")[:, s] for name in ("open", "high", "low", "close", "volume")}
        pd.DataFrame({"date": bars.sessions_T.astype(str), **columns}).to_csv(folder / f"{symbol}.csv", index=False)
    return folder


def frame_of(bars: Bars) -> pd.DataFrame:
    """One row a symbol and day on which it has a bar, day by day."""
    names = ("open", "high", "low", "close", "volume")
    return pd.DataFrame(
        [
            {"symbol": symbol, "date": pd.Timestamp(bars.sessions_T[t])}
            | {name: getattr(bars, f"{name}_TS")[t, s] for name in names}
            for t, s in zip(*np.nonzero(bars.present_TS), strict=True)
            for symbol in [bars.symbols_S[s]]
        ]
    )


def made_bars(symbols=("AAA", "BBB"), days=70, start="2015-01-05", seed=1) -> pd.DataFrame:
    """Random walks as rows: symbol, date, prices, volume."""
    rng = np.random.default_rng(seed)
    frames = []
    for symbol in symbols:
        close = 50 * np.exp(np.cumsum(rng.normal(0, 0.01, days)))
        opens = close * np.exp(rng.normal(0, 0.003, days))
        frames.append(
            pd.DataFrame(
                {
                    "symbol": symbol,
                    "date": pd.bdate_range(start, periods=days),
                    "open": opens,
                    "high": np.maximum(opens, close) * 1.01,
                    "low": np.minimum(opens, close) * 0.99,
                    "close": close,
                    "volume": rng.integers(1000, 2000, days).astype(float),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def load(path: Path, **changes) -> Bars:
    return load_bars(StocksConfig(source="files", path=str(path), **changes))


def refused(path: Path, **changes) -> str:
    """The one line with which these files are refused."""
    with pytest.raises(MarketDataError) as caught:
        load(path, **changes)
    message = str(caught.value)
    assert "\n" not in message
    return message
