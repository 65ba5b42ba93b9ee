"""Screens: what they let pass, the checks themselves let pass; so with and without them the same is found."""

import numpy as np
import pandas as pd
import pytest

from hftraining.market import audit, screen
from hftraining.market.config import MarketDataError
from hftraining.market.sessions import _gaps, _lacks
from tests.bars_of import make_bars

N = 70


def table(seed: int) -> pd.DataFrame:
    """Two stocks whose prices hardly move, and now and then a few cells that are wrong or at a border."""
    rng = np.random.default_rng(seed)
    close = np.exp(rng.normal(3.0, 0.001, 2 * N))
    days = np.tile(np.datetime64("2011-01-01", "s") + np.arange(N) * 86_400, 2)
    made = pd.DataFrame({
        "symbol": pd.Categorical(["A"] * N + ["B"] * N),
        "date": days,
        "open": close * 1.0001,
        "high": close * 1.001,
        "low": close * 0.999,
        "close": close,
        "volume": rng.integers(1, 9, 2 * N) * 1.0,
    })  # fmt: skip
    factors = [
        0.0,
        -1.0,
        np.nan,
        np.inf,
        1e12,
        1e-12,
        1.0011,
        0.5,
        2.0,
        1.4,
        1.399,
        1.3986,
        4.9999,
        5.0,
        5.0001,
        19.9,
        20.1,
    ]
    for _ in range(rng.integers(0, 3)):
        rows = rng.integers(2 * N) + np.arange(rng.integers(1, 4))
        names = ["open", "high", "low", "close"] if rng.random() < 0.5 else [str(rng.choice(list(made.columns[2:])))]
        made.loc[made.index.isin(rows), names] *= rng.choice(factors)
    if rng.random() < 0.2:
        made.loc[rng.integers(2 * N), "date"] = pd.Timestamp(
            str(rng.choice(["1850-01-01", "2011-03-01", "2200-01-01"]))
        )
    return made


def found(made: pd.DataFrame) -> list:
    """All that the checks find, in words and rows."""
    said = []
    for how in ("refuse", "drop"):
        try:
            made, notes = audit.check_rows(made, how)
            said += notes
        except MarketDataError as error:
            said.append(str(error))
    slipped, notes = audit.drop_slips(made)
    try:
        audit.refuse_splits(slipped)
    except MarketDataError as error:
        said.append(str(error))
    return [*said, *notes, slipped.drop(columns=["symbol", "date"]).to_numpy().tobytes(), list(slipped["date"])]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of numbers that are absurd
def test_with_and_without_screens_the_same_is_found(monkeypatch):
    tables = [table(seed) for seed in range(60)]
    quick = [found(made) for made in tables]
    for name in ("rises", "within", "agrees", "goes_on"):
        monkeypatch.setattr(screen, name, lambda *_: False)
    assert quick == [found(made) for made in tables]
    assert len({tuple(one[:-2]) for one in quick}) > 20, "many kinds of faults"


def test_a_table_in_order_is_let_pass_by_every_screen():
    made = next(one for seed in range(50) if len(found(one := table(seed))) == 2)
    codes, prices = audit._codes(made), [made[name].to_numpy() for name in audit.PRICES]
    assert screen.rises(codes, audit._days(made)) and audit._is_plausible(made, audit.PRICES)
    assert screen.agrees(codes, *prices, 5.0, 5.0) and screen.goes_on(codes, prices[0], prices[3], 1.4, 20.0)


@pytest.mark.parametrize("seed", range(5))
def test_symbols_without_a_gap_are_told_from_others_as_by_naming_their_gaps(seed):
    bars = make_bars(n_symbols=6, missing=0.002, seed=seed)
    expected_T = np.sort(np.random.default_rng(seed).choice(bars.sessions_T, len(bars.sessions_T) - 3, replace=False))
    expected_T = np.union1d(expected_T, bars.sessions_T[[-1]] + [-1, 0, 9][seed % 3])
    lacks_S = _lacks(bars.present_TS, bars.sessions_T, expected_T)
    for s, lacks in enumerate(lacks_S):
        days_T = bars.sessions_T[bars.present_TS[:, s]]
        between_T = expected_T[(expected_T > days_T[0]) & (expected_T < days_T[-1])]
        assert lacks == (not np.isin(between_T, days_T).all())
        assert lacks or not _gaps(bars.symbols_S[s], days_T, expected_T)
