"""What several test files share: where the real bars lie."""

import os
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # as train.py does, before torch is loaded

import numpy as np
import pytest

from hftraining.core.bars import Bars

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the shared real bars are not at {SHARED_DATA}")
    return SHARED_DATA


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
