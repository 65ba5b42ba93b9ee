"""The set alpha158 beside pandas, and the places where it differs from qlib."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hftraining.core.bars import ARRAYS
from hftraining.market.features.lookup import find
from hftraining.market.features.names import ALPHA158
from hftraining.market.features.nested import quantiles
from hftraining.market.features.registry import REGISTRY
from hftraining.market.features.rows import Rows, market_of
from hftraining.market.features.table import make_features
from tests.bars_of import make_bars
from tests.compose import compose_config

WINDOWS = (5, 10, 20, 30, 60)


def rows_of(bars):
    with np.errstate(all="ignore"):
        return Rows(bars, slice(0, len(bars.symbols_S)), market_of(bars))


def column(bars, name, symbol=0):
    with np.errstate(all="ignore"):
        return find(name).make(rows_of(bars))[symbol]


def by_pandas(open_, high, low, close, volume):
    """Every column of one symbol as qlib's expressions say it, in pandas."""
    f32, ref, top = np.float32, close.shift(1), np.maximum(open_, close)
    bottom, span = np.minimum(open_, close), high - low
    middle = 2 * close - high - low
    made = {
        "KMID": (close - open_) / open_,
        "KLEN": span / open_,
        "KMID2": (close - open_) / span,
        "KUP": (high - top) / open_,
        "KUP2": (high - top) / span,
        "KLOW": (bottom - low) / open_,
        "KLOW2": (bottom - low) / span,
        "KSFT": middle / open_,
        "KSFT2": middle / span,
        "OPEN0": open_ / close,
        "HIGH0": high / close,
        "LOW0": low / close,
    }
    growth = np.log((volume / volume.shift(1)).astype(f32) + f32(1)).astype(float)
    change, log_volume = (close / ref).astype(f32), np.log((volume + 1).astype(f32)).astype(float)
    moved = ((change - f32(1)).abs() * volume.astype(f32)).astype(float)
    rise, fall = (close - ref).clip(lower=0), (ref - close).clip(lower=0)
    more, less = volume.diff().clip(lower=0), (-volume.diff()).clip(lower=0)

    def fit(window):
        x = np.arange(len(window))
        return np.polyfit(x, window, 1) if len(x) > 1 else (np.nan, np.nan)

    for w in WINDOWS:

        def over(series, w=w):
            return series.rolling(w, min_periods=1)

        closes = over(close)
        hi, lo = over(high).max(), over(low).min()
        top_at = over(high).apply(lambda x: x.argmax() + 1, raw=True)
        bottom_at = over(low).apply(lambda x: x.argmin() + 1, raw=True)
        up, down = over(close > ref).mean(), over(close < ref).mean()
        made |= {
            f"ROC{w}": close.shift(w) / close,
            f"MA{w}": closes.mean() / close,
            f"STD{w}": closes.std() / close,
            f"BETA{w}": closes.apply(lambda x: fit(x)[0], raw=True) / close,
            f"RSQR{w}": closes.corr(pd.Series(np.arange(len(close), dtype=float))) ** 2,
            f"RESI{w}": closes.apply(lambda x: x[-1] - np.polyval(fit(x), len(x) - 1), raw=True) / close,
            f"MAX{w}": hi / close,
            f"MIN{w}": lo / close,
            f"QTLU{w}": closes.quantile(0.8) / close,
            f"QTLD{w}": closes.quantile(0.2) / close,
            f"RANK{w}": closes.rank(pct=True),
            f"RSV{w}": (close - lo) / (hi - lo),
            f"IMAX{w}": top_at / w,
            f"IMIN{w}": bottom_at / w,
            f"IMXD{w}": (top_at - bottom_at) / w,
            f"CORR{w}": closes.corr(log_volume),
            f"CORD{w}": over(change.astype(float)).corr(growth),
            f"CNTP{w}": up,
            f"CNTN{w}": down,
            f"CNTD{w}": up - down,
            f"SUMP{w}": over(rise).sum() / (over(rise + fall).sum() + 1e-12),
            f"SUMN{w}": over(fall).sum() / (over(rise + fall).sum() + 1e-12),
            f"SUMD{w}": (over(rise).sum() - over(fall).sum()) / (over(rise + fall).sum() + 1e-12),
            f"VMA{w}": over(volume).mean() / volume,
            f"VSTD{w}": over(volume).std() / volume,
            f"WVMA{w}": over(moved).std() / (over(moved).mean() + 1e-12),
            f"VSUMP{w}": over(more).sum() / (over(more + less).sum() + 1e-12),
            f"VSUMN{w}": over(less).sum() / (over(more + less).sum() + 1e-12),
            f"VSUMD{w}": (over(more).sum() - over(less).sum()) / (over(more + less).sum() + 1e-12),
        }
    return made


def test_every_column_is_that_of_pandas_from_the_first_row_on():
    bars = make_bars(n_sessions=220, n_symbols=2, missing=0.05)
    # Closes in steps of a dollar, so that ties are many.
    close_TS = np.clip(np.round(bars.close_TS), bars.low_TS, bars.high_TS)
    bars = replace(bars, close_TS=close_TS)
    rows = rows_of(bars)
    assert set(ALPHA158) <= REGISTRY.keys()
    assert len(ALPHA158) == 157
    for s in range(2):
        own = bars.present_TS[:, s]
        expected = by_pandas(*(pd.Series(getattr(bars, name)[own, s]) for name in ARRAYS))
        assert set(expected) == set(ALPHA158)
        for name in ALPHA158:
            with np.errstate(all="ignore"):
                made = find(name).make(rows)[s]
            values = expected[name].to_numpy(copy=True)
            if name[:3] in ("RSQ", "COR"):  # of equal closes pandas knows none
                least = 2 if name[:4] == "CORD" else 1
                values[least:] = np.nan_to_num(values[least:])
            np.testing.assert_allclose(made[: own.sum()], values, rtol=1e-6, atol=1e-8, err_msg=name)


def test_a_price_that_does_not_move_has_no_trend_no_spread_and_no_correlation():
    bars = make_bars(n_sessions=100, n_symbols=1)
    prices = {name: np.full((100, 1), 17.3) for name in ARRAYS[:4]}
    bars = replace(bars, **prices)
    for name in ("RSQR5", "CORR60", "CORD20", "KMID2", "RSV5", "SUMP5", "SUMD60", "WVMA10", "STD60", "RESI30", "BETA5"):
        assert (column(bars, name)[3:] == 0.0).all(), name
    assert (column(bars, "RANK60")[60:] == 30.5 / 60).all(), "equal closes share their mean rank"
    assert (column(bars, "IMAX5")[4:] == 1 / 5).all(), "of equal highs the oldest"


def test_a_day_without_volume_has_finite_columns_and_no_growth_after_it():
    bars = make_bars(n_sessions=100, n_symbols=1)
    volume_TS = bars.volume_TS.copy()
    volume_TS[50] = 0.0
    halted = replace(bars, volume_TS=volume_TS)
    window = volume_TS[46:51, 0]
    assert column(halted, "VMA5")[50] == pytest.approx(1000.0)
    assert column(halted, "VSTD5")[50] == pytest.approx(1000 * window.std(ddof=1) / window.mean())
    known = make_features(halted, ALPHA158).known_TS[:, 0]
    assert known[60:].all() and not known[:60].any(), "ROC60 needs 60 rows before"
    pairs = np.arange(47, 54) != 51  # 51 grows from nothing
    change = (bars.close_TS[47:54, 0] / bars.close_TS[46:53, 0])[pairs]
    growth = np.log(volume_TS[47:54, 0][pairs] / volume_TS[46:53, 0][pairs] + 1)
    assert column(halted, "CORD5")[53] == pytest.approx(np.corrcoef(change[2:], growth[2:])[0, 1], abs=1e-5)


def test_quantiles_are_those_of_numpy_until_a_value_is_unknown():
    x_SN = np.random.default_rng(0).normal(size=(2, 40)).round(1)  # with equal values
    x_SN[1, 25] = np.nan
    found_2SN = quantiles(x_SN, 10, 0.2, 0.8)
    for s, known in ((0, 40), (1, 25)):
        windows = [x_SN[s, max(0, n - 9) : n + 1] for n in range(known)]
        wanted = np.array([np.quantile(window, [0.2, 0.8]) for window in windows]).T
        np.testing.assert_allclose(found_2SN[:, s, :known], wanted, rtol=1e-12)
        assert np.isnan(found_2SN[:, s, known:]).all()


def test_columns_do_not_depend_on_the_unit_of_prices_and_volumes():
    bars = make_bars(n_sessions=200, n_symbols=3, missing=0.03)
    other = replace(bars, **{name: getattr(bars, name) * 1000.0 for name in ARRAYS[:4]}, volume_TS=bars.volume_TS * 10)
    for name in ALPHA158:
        one, thousand = column(bars, name, 1), column(other, name, 1)
        # The logs of volume + 1 differ a little more from each other.
        np.testing.assert_allclose(one, thousand, rtol=1e-5, atol=1e-5 if name[:3] == "COR" else 1e-9, err_msg=name)


def test_values_do_not_change_to_the_bit_with_bars_before_their_window_or_after_them():
    bars = make_bars(n_sessions=300, n_symbols=2)
    whole = make_features(bars, ALPHA158).values_TSF
    for cut in (slice(0, 130), slice(100, 300), slice(37, 259)):
        known_from = 61 if cut.start else 0
        part = make_features(bars.rows(cut), ALPHA158).values_TSF
        np.testing.assert_array_equal(part[known_from:], whole[cut][known_from:])


@pytest.mark.slow
def test_the_group_alpha158_has_the_columns_of_qlib_in_their_order():
    config = compose_config("features=alpha158")
    assert tuple(config.features.columns) == ALPHA158


@pytest.mark.parametrize("rows", [1, 2, 6, 60, 61])
def test_a_stock_is_known_from_its_61st_bar_on(rows):
    known_TS = make_features(make_bars(n_sessions=rows, n_symbols=2), ALPHA158).known_TS
    assert known_TS.sum() == (2 if rows == 61 else 0)
