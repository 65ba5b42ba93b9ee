"""The features of the set `wide`, beside loops over the rows of one symbol, and the ranks of the day."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from hftraining.market.features.lookup import find
from hftraining.market.features.names import BASIC, WIDE, WIDE_BASES, base_of
from hftraining.market.features.ranks import rank_of_the_day
from hftraining.market.features.table import make_features
from tests.bars_of import make_bars

ARRAYS = ("open_TS", "high_TS", "low_TS", "close_TS", "volume_TS")
SYMBOL = 1


@pytest.fixture(scope="module")
def bars():
    made = make_bars(n_sessions=420, n_symbols=4, missing=0.03)
    late = {name: getattr(made, name).copy() for name in ARRAYS}
    for array in late.values():
        array[:100, 2] = np.nan
    return replace(made, **late)


@pytest.fixture(scope="module")
def made(bars):
    return make_features(bars, WIDE)


class Days:
    """What an oracle of one row sees: the rows of one symbol up to it, oldest first."""

    def __init__(self, frame, row):
        self.past = frame.iloc[: row + 1]
        self.close, self.open, self.high, self.low, self.volume, self.level = (
            self.past[name].to_numpy() for name in ("close", "open", "high", "low", "volume", "level")
        )
        self.returns = np.diff(np.log(self.close))
        self.market = np.diff(self.level)
        self.volatility = max(np.std(self.returns[-20:], ddof=1), 0.001)

    def over(self, span):
        """The return over so many rows, or over those that there are, in volatilities."""
        span = min(span, len(self.close) - 1)
        return np.log(self.close[-1] / self.close[-1 - span]) / self.volatility / np.sqrt(span)

    def residual(self, span):
        beta = np.polyfit(self.market[-252:], self.returns[-252:], 1)[0]
        span = min(span, len(self.close) - 1)
        apart = self.returns[-span:].sum() - beta * self.market[-span:].sum()
        return apart / self.volatility / np.sqrt(span)


def std(values):
    return max(np.std(values, ddof=1), 0.001)


def in_range(days, span):
    close, high, low = days.close[-span:], days.high[-span:], days.low[-span:]
    return np.mean([0.0 if h == lo else (c - lo) / (h - lo) - 0.5 for c, h, lo in zip(close, high, low, strict=True)])


def month_but_last(days):
    end = max(len(days.close) - 1 - 21, 0)
    start = max(len(days.close) - 1 - 252, 0)
    return np.log(days.close[end] / days.close[start]) / days.volatility / np.sqrt(max(end - start, 1))


def unit(days, span):
    return days.volatility * np.sqrt(min(len(days.close), span))


def volume_change(days):
    return np.diff(np.log(days.volume + 1))


ORACLES = {
    "return_1d": lambda d: d.over(1),
    "momentum_5": lambda d: d.over(5),
    "momentum_21": lambda d: d.over(21),
    "momentum_63": lambda d: d.over(63),
    "momentum_252": lambda d: d.over(252),
    "momentum_252_21": month_but_last,
    "volatility_20": lambda d: np.log(d.volatility),
    "volatility_5_63": lambda d: np.log(std(d.returns[-5:]) / std(d.returns[-63:])),
    "volatility": lambda d: np.log(d.volatility / max(np.sqrt(np.mean(d.returns[-252:] ** 2)), 0.001)),
    "downside_63": lambda d: sum(r * r for r in d.returns[-63:] if r < 0) / sum(r * r for r in d.returns[-63:]),
    "skew_63": lambda d: stats.skew(d.returns[-63:]),
    "skew_252": lambda d: stats.skew(d.returns[-252:]),
    "max_return_21": lambda d: max(d.returns[-21:]) / d.volatility,
    "volume_5_63": lambda d: np.log((d.volume[-5:].mean() + 1) / (d.volume[-63:].mean() + 1)),
    "volume_21_252": lambda d: np.log((d.volume[-21:].mean() + 1) / (d.volume[-252:].mean() + 1)),
    "volume_volatility_63": lambda d: np.std(volume_change(d)[-63:], ddof=1),
    "volume_return_63": lambda d: np.corrcoef(d.returns[-63:], volume_change(d)[-63:])[0, 1],
    "range_21_252": lambda d: np.log(np.log(d.high / d.low)[-21:].mean() / np.log(d.high / d.low)[-252:].mean()),
    "close_in_range_21": lambda d: in_range(d, 21),
    "overnight_21": lambda d: np.log(d.open[1:] / d.close[:-1])[-21:].mean() * np.sqrt(21) / d.volatility,
    "intraday_21": lambda d: np.log(d.close / d.open)[-21:].mean() * np.sqrt(21) / d.volatility,
    "to_high_21": lambda d: np.log(d.close[-1] / d.high[-21:].max()) / unit(d, 21),
    "to_high_252": lambda d: np.log(d.close[-1] / d.high[-252:].max()) / unit(d, 252),
    "to_low_21": lambda d: np.log(d.close[-1] / d.low[-21:].min()) / unit(d, 21),
    "to_low_252": lambda d: np.log(d.close[-1] / d.low[-252:].min()) / unit(d, 252),
    "beta_63": lambda d: np.polyfit(d.market[-63:], d.returns[-63:], 1)[0],
    "beta_252": lambda d: np.polyfit(d.market[-252:], d.returns[-252:], 1)[0],
    "residual_5": lambda d: d.residual(5),
    "residual_21": lambda d: d.residual(21),
    "residual_252": lambda d: d.residual(252),
    "residual_volatility_63": lambda d: np.sqrt(1 - np.corrcoef(d.market[-63:], d.returns[-63:])[0, 1] ** 2),
}


@pytest.fixture(scope="module")
def frame(bars):
    """The rows of one symbol, and the level of the market: the sum of the mean returns of the days."""
    closes = pd.DataFrame(bars.close_TS)
    returns = pd.DataFrame({s: np.log(closes[s].dropna()).diff() for s in closes}).reindex(closes.index)
    level = returns.mean(axis=1).fillna(0.0).cumsum()
    columns = {name.removesuffix("_TS"): getattr(bars, name)[:, SYMBOL] for name in ARRAYS}
    return pd.DataFrame({**columns, "level": level}).dropna()


def test_there_is_an_oracle_for_each_feature():
    assert set(ORACLES) == set(WIDE_BASES) and {base_of(name) for name in WIDE} == set(WIDE_BASES)


@pytest.mark.parametrize("name", ORACLES)
def test_a_wide_feature_equals_a_loop_over_the_rows_of_its_symbol(name, made, frame):
    values_T = made.values_TSF[:, SYMBOL, WIDE.index(name)]
    for row in (20, 21, 25, 70, 130, 270, 300, len(frame) - 1):
        expected = ORACLES[name](Days(frame, row))
        assert values_T[frame.index[row]] == pytest.approx(expected, rel=2e-5, abs=2e-6), row


def test_every_wide_feature_is_known_from_the_21st_bar_of_a_stock_on(bars, made):
    for symbol in range(4):
        days = np.flatnonzero(bars.present_TS[:, symbol])
        np.testing.assert_array_equal(made.known_TS[:, symbol].nonzero()[0], days[20:])


def test_a_rank_is_that_among_the_known_stocks_of_the_day_and_ties_share_it(made):
    for name in ("momentum_5", "to_high_21", "beta_63"):
        values_TS = made.values_TSF[:, :, WIDE.index(name)].astype(float)
        ranks_TS = made.values_TSF[:, :, WIDE.index(f"{name}_rank")]
        rank = pd.DataFrame(values_TS).rank(axis=1)
        expected = np.sqrt(12) * ((rank.sub(0.5)).div(rank.count(axis=1), axis=0) - 0.5)
        np.testing.assert_allclose(ranks_TS, expected.to_numpy(), atol=1e-6)
    flat = make_bars(n_sessions=40, n_symbols=3)
    same = {name: np.repeat(getattr(flat, name)[:, :1], 3, axis=1) for name in ARRAYS}
    np.testing.assert_array_equal(make_features(replace(flat, **same), ["gap_rank"]).values_TSF[25:], 0.0)


def test_a_value_that_is_not_finite_has_no_rank_and_moves_that_of_no_other():
    values = np.array([[3.0, np.inf, 1.0, -np.inf, np.nan, 2.0]], np.float32)[:, :, None]
    ranked = np.zeros_like(values)
    rank_of_the_day(values, 0, ranked, 0)
    third = np.sqrt(12.0) / 3  # of three known values: -1/3, 0 and 1/3
    np.testing.assert_allclose(ranked[0, :, 0], [third, np.nan, -third, np.nan, np.nan, 0.0], atol=1e-6)


def test_a_single_stock_has_rank_0():
    values = make_features(make_bars(n_sessions=60, n_symbols=1), ["gap_rank", "momentum_5_rank"]).values_TSF
    np.testing.assert_array_equal(values[20:], 0.0)


def test_a_column_is_the_same_whatever_other_columns_are_made(bars, made):
    columns = ["residual_21_rank", "beta_63", "gap"]
    apart = make_features(bars, columns).values_TSF
    known = made.known_TS & np.isfinite(apart).all(axis=2)
    for f, name in enumerate(columns[:2]):
        np.testing.assert_array_equal(apart[:, :, f][known], made.values_TSF[:, :, WIDE.index(name)][known])
    np.testing.assert_array_equal(
        apart[:, :, 2][known], make_features(bars, BASIC).values_TSF[:, :, BASIC.index("gap")][known]
    )


def test_many_symbols_are_made_in_parts_and_give_what_fewer_give(monkeypatch, bars, made):
    monkeypatch.setattr("hftraining.market.features.rows.CELLS", 1000)
    monkeypatch.setattr("hftraining.market.features.table.DAYS", 7)
    again = make_features(bars, WIDE)
    np.testing.assert_array_equal(again.values_TSF, made.values_TSF)
    np.testing.assert_array_equal(again.volatility_TS, made.volatility_TS)


def test_still_prices_give_finite_features():
    bars = make_bars(n_sessions=300, n_symbols=2)
    still = {name: np.full_like(getattr(bars, name), 5.0) for name in ARRAYS}
    assert np.isfinite(make_features(replace(bars, **still), WIDE).values_TSF[20:]).all()


def test_a_price_that_grows_evenly_has_no_skew_although_its_returns_differ_by_rounding():
    bars = make_bars(n_sessions=120, n_symbols=1)
    price = 5.0 * 1.001 ** np.arange(120.0)[:, None]
    assert len(np.unique(np.diff(np.log(price), axis=0))) > 1
    even = {name: price for name in ARRAYS if name != "volume_TS"}
    skew_TS = make_features(replace(bars, **even), ["skew_63"]).values_TSF[20:, :, 0]
    np.testing.assert_array_equal(skew_TS, 0.0)


def test_stocks_that_move_with_the_market_alone_have_nothing_of_their_own():
    """Correlations of 1 are above it by rounding on some days."""
    bars, power_S = make_bars(n_sessions=420, n_symbols=3), np.array([1.0, 2.0, 0.5])
    moved = {name: getattr(bars, name)[:, :1] ** power_S for name in ARRAYS if name != "volume_TS"}
    made_TSF = make_features(replace(bars, **moved), ["residual_volatility_63", "residual_21", "beta_63"]).values_TSF[
        20:
    ]
    assert np.isfinite(made_TSF).all()
    np.testing.assert_allclose(made_TSF[..., :2], 0.0, atol=1e-5)
    np.testing.assert_allclose(
        made_TSF[..., 2], np.broadcast_to(power_S / power_S.mean(), made_TSF.shape[:2]), atol=1e-5
    )


def test_stocks_that_have_not_moved_for_a_year_share_their_ranks_wherever_the_bars_begin():
    bars = make_bars(n_sessions=700, n_symbols=6)
    halted = {name: getattr(bars, name).copy() for name in ARRAYS}
    for array in halted.values():
        array[400:, 3:] = 0.0 if array is halted["volume_TS"] else halted["close_TS"][400, 3:]
    bars, columns = replace(bars, **halted), ("beta_63", "beta_252", "beta_252_rank", "residual_5_rank")
    whole = make_features(bars, columns).values_TSF[660:]
    assert (whole[:, 3:, :2] == 0.0).all()
    assert (whole[:, 3:] == whole[:, 3:4]).all()
    for first in (1, 7, 100):
        cut = make_features(bars.rows(slice(first, 700)), columns).values_TSF[660 - first :]
        np.testing.assert_allclose(cut, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", WIDE_BASES)
def test_no_value_depends_on_more_rows_than_the_lookback_says(name):
    bars = make_bars(n_sessions=600, n_symbols=2)
    reach = find(name).lookback
    whole = make_features(bars, [name]).values_TSF[-1]
    # Two rows more: the market's return of a first row is not known.
    cut = make_features(bars.rows(slice(600 - max(reach, 20) - 2, 600)), [name]).values_TSF[-1]
    np.testing.assert_allclose(cut, whole, rtol=1e-5, atol=1e-5)
