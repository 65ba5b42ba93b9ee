"""Labels of each kind, worked out by pandas, scipy and least squares: hftraining/market/labels.py."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from hftraining.core.relative import KINDS
from hftraining.market.features.table import make_features
from hftraining.market.labels import BETA_LEAST, label_span, make_labels, trailing_beta
from tests.bars_of import make_bars

ARRAYS = ("open_TS", "high_TS", "low_TS", "close_TS", "volume_TS")
HORIZONS = (1, 5, 60)


@pytest.fixture(scope="module")
def bars():
    """Twelve symbols with holes; one is listed late, one ends early, one has a single day with others missing."""
    made = make_bars(n_sessions=420, n_symbols=12, seed=3, missing=0.03)
    for name in ARRAYS:
        getattr(made, name)[:200, 0] = np.nan
        getattr(made, name)[300:, 1] = np.nan
    return made


def labels_of(bars, relative, horizons=HORIZONS, lag=1, label="open"):
    return make_labels(bars, make_features(bars).volatility_TS, horizons, lag, label, relative)


def earned_of(bars, horizon, lag=1):
    """Log returns by shifting pandas columns, NaN without a bar on the day of the decision."""
    opens = pd.DataFrame(np.log(bars.open_TS))
    earned = opens.shift(-lag - horizon) - opens.shift(-lag)
    return earned.where(bars.present_TS)


@pytest.mark.parametrize("lag", [1, 2])
def test_a_label_is_what_a_fill_at_the_open_earns_until_the_open_a_horizon_later(lag):
    bars = make_bars(n_sessions=60, n_symbols=2)
    volatility = np.full(bars.close_TS.shape, 0.02)
    labels = make_labels(bars, volatility, [1, 5], lag, "open", "none")
    for t, h, i in ((0, 1, 0), (30, 5, 1)):
        earned = np.log(bars.open_TS[t + lag + h] / bars.open_TS[t + lag]) / (0.02 * np.sqrt(h))
        np.testing.assert_allclose(labels[t, :, i], earned, rtol=1e-6)
    assert np.isnan(labels[60 - lag - 5 :, :, 1]).all()
    assert np.isfinite(labels[: 60 - lag - 5, :, 1]).all()


def test_close_labels_run_from_close_to_close_and_ignore_the_lag():
    bars = make_bars(n_sessions=60, n_symbols=1)
    volatility = np.full(bars.close_TS.shape, 0.01)
    labels = make_labels(bars, volatility, [5], 1, "close", "none")
    np.testing.assert_allclose(
        labels[7, 0, 0], np.log(bars.close_TS[12, 0] / bars.close_TS[7, 0]) / 0.01 / 5**0.5, 1e-6
    )


def test_a_label_over_a_missing_bar_is_unknown():
    bars = make_bars(n_sessions=60, n_symbols=1)
    for name in ARRAYS:
        getattr(bars, name)[30] = np.nan
    labels = make_labels(bars, np.full(bars.close_TS.shape, 0.02), [1], 1, "open", "none")[:, 0, 0]
    assert np.isnan(labels[[28, 29, 30]]).all()
    assert np.isfinite(labels[[27, 31]]).all()


def test_mean_labels_are_returns_less_the_mean_of_the_day(bars):
    labels_TSH, volatility_TS = labels_of(bars, "mean"), make_features(bars).volatility_TS
    for h, horizon in enumerate(HORIZONS):
        long = earned_of(bars, horizon).stack().rename_axis(["day", "symbol"]).rename("earned").reset_index()
        apart = long["earned"] - long.groupby("day")["earned"].transform("mean")
        wide = long.assign(apart=apart).pivot(index="day", columns="symbol", values="apart").reindex(range(420))
        expected = wide.to_numpy() / volatility_TS / horizon**0.5
        np.testing.assert_allclose(labels_TSH[:, :, h], expected, rtol=2e-6, atol=1e-6)


def test_zscore_labels_are_those_of_scipy_day_by_day(bars):
    labels_TSH = labels_of(bars, "zscore")
    for h, horizon in enumerate(HORIZONS):
        expected = stats.zscore(earned_of(bars, horizon).to_numpy(), axis=1, ddof=1, nan_policy="omit")
        np.testing.assert_allclose(labels_TSH[:, :, h], expected, rtol=2e-6, atol=1e-6)


def test_rank_labels_are_the_ranks_of_pandas_centred_and_scaled(bars):
    labels_TSH = labels_of(bars, "rank")
    for h, horizon in enumerate(HORIZONS):
        earned = earned_of(bars, horizon)
        share = earned.rank(axis=1).sub(0.5).div(earned.count(axis=1), axis=0)
        np.testing.assert_allclose(labels_TSH[:, :, h], 12**0.5 * (share - 0.5), rtol=2e-6, atol=1e-6)
    day_S = labels_TSH[100, :, 0][np.isfinite(labels_TSH[100, :, 0])]
    assert day_S.mean() == pytest.approx(0.0, abs=1e-6)
    assert day_S.var() == pytest.approx(1.0 - 1.0 / len(day_S) ** 2, rel=1e-5)


def test_equal_returns_share_their_rank_and_have_no_zscore_apart():
    bars = make_bars(n_sessions=60, n_symbols=4)
    same = replace(bars, **{name: np.repeat(getattr(bars, name)[:, :1], 4, axis=1) for name in ARRAYS})
    for relative in ("mean", "zscore", "rank"):
        labels_TSH = labels_of(same, relative, (1,))
        np.testing.assert_allclose(labels_TSH[25:58], 0.0, atol=1e-9)
    pair = replace(bars, **{name: getattr(bars, name)[:, [0, 1, 1, 2]] for name in ARRAYS})
    ranks_TSH = labels_of(pair, "rank", (1,))
    np.testing.assert_array_equal(ranks_TSH[:, 1], ranks_TSH[:, 2])


def test_with_two_symbols_one_is_ahead_and_with_one_there_is_nothing_to_compare():
    two, one = (make_bars(n_sessions=60, n_symbols=n) for n in (2, 1))
    ahead_T = np.sign(earned_of(two, 1)[0] - earned_of(two, 1)[1]).to_numpy()[:58]
    for relative, size in (("zscore", 0.5**0.5), ("rank", 12**0.5 / 4)):
        labels_TS = labels_of(two, relative, (1,))[:58, :, 0]
        np.testing.assert_allclose(labels_TS, size * np.stack([ahead_T, -ahead_T], axis=1), rtol=1e-6)
        assert np.isnan(labels_of(one, relative, (1,))).all()
    assert (labels_of(one, "mean", (1,))[25:58] == 0.0).all()


def slopes_by_least_squares(bars):
    """Every slope by itself, by numpy's least squares on the last 252 returns of the symbol's own rows."""
    own = [pd.Series(np.log(bars.close_TS[:, s])).dropna().diff() for s in range(len(bars.symbols_S))]
    returns = pd.concat(own, axis=1).reindex(range(len(bars.sessions_T)))
    market = returns.mean(axis=1)
    expected = np.full(returns.shape, np.nan)
    for s in (0, 1, 5):
        known = returns[s].dropna()
        for n in range(BETA_LEAST, len(known) + 1, 7):
            rows = known.index[max(0, n - 252) : n]
            design = np.column_stack([np.ones(len(rows)), market[rows]])
            expected[rows[-1], s] = np.linalg.lstsq(design, known[rows], rcond=None)[0][1]
    return expected


def test_the_trailing_beta_is_the_slope_of_least_squares_and_unknown_before_sixty_returns(bars):
    beta_TS, expected_TS = trailing_beta(bars), slopes_by_least_squares(bars)
    known_TS = np.isfinite(expected_TS)
    assert known_TS.sum() > 80
    np.testing.assert_allclose(beta_TS[known_TS], expected_TS[known_TS], rtol=1e-8)
    for s in (0, 5):
        first = np.flatnonzero(bars.present_TS[:, s])
        assert np.isnan(beta_TS[first[:BETA_LEAST], s]).all() and np.isfinite(beta_TS[first[BETA_LEAST:], s]).all()


def test_residual_labels_take_out_beta_times_the_mean_of_the_day(bars):
    labels_TSH, beta_TS = labels_of(bars, "residual"), trailing_beta(bars)
    volatility_TS = make_features(bars).volatility_TS
    for h, horizon in enumerate(HORIZONS):
        earned = earned_of(bars, horizon)
        expected = (earned - earned.mean(axis=1).to_numpy()[:, None] * beta_TS) / volatility_TS / horizon**0.5
        np.testing.assert_allclose(labels_TSH[:, :, h], expected, rtol=2e-6, atol=1e-6)


def test_a_market_that_does_not_move_has_no_betas():
    bars = make_bars(n_sessions=100, n_symbols=2)
    still = replace(bars, **{name: np.full((100, 2), 7.0) for name in ARRAYS})
    assert np.isnan(trailing_beta(still)).all()


@pytest.mark.parametrize("relative", KINDS)
def test_labels_have_the_shape_of_bars_and_horizons_and_end_where_their_span_would_leave_the_bars(bars, relative):
    labels_TSH = labels_of(bars, relative)
    assert labels_TSH.shape == (420, 12, 3) and labels_TSH.dtype == np.float32
    for h, horizon in enumerate(HORIZONS):
        assert np.isnan(labels_TSH[420 - 1 - horizon :, :, h]).all()
        assert np.isfinite(labels_TSH[420 - 2 - horizon, :, h]).any()
    assert np.isnan(labels_TSH[~bars.present_TS]).all()


@pytest.mark.parametrize("relative", KINDS)
def test_labels_of_permuted_symbols_are_permuted_labels(bars, relative):
    order = np.random.default_rng(0).permutation(12)
    permuted = replace(bars, **{name: getattr(bars, name)[:, order] for name in ARRAYS})
    np.testing.assert_allclose(labels_of(permuted, relative), labels_of(bars, relative)[:, order], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("relative", KINDS)
def test_a_label_does_not_change_with_bars_after_its_span(bars, relative):
    day, lag = 330, 2
    other = replace(bars, **{name: getattr(bars, name).copy() for name in ARRAYS})
    rng = np.random.default_rng(1)
    for name in ARRAYS:
        getattr(other, name)[day + 1 :] = rng.uniform(1.0, 99.0, (419 - day, 12))
    ours, theirs = (labels_of(some, relative, lag=lag) for some in (bars, other))
    for h, horizon in enumerate(HORIZONS):
        known = day - lag - horizon + 1
        np.testing.assert_array_equal(ours[:known, :, h], theirs[:known, :, h])
        assert not np.array_equal(ours[known : known + 3, :, h], theirs[known : known + 3, :, h], equal_nan=True)


def test_the_unit_of_a_label_is_volatility_over_its_horizon_or_a_standard_deviation_of_the_day():
    volatility_TS = np.array([[0.01, np.nan]])
    for relative in ("none", "mean", "residual"):
        np.testing.assert_allclose(label_span(volatility_TS, (4,), relative)[..., 0], [[0.02, np.nan]])
    for relative in ("zscore", "rank"):
        np.testing.assert_array_equal(label_span(volatility_TS, (4, 9), relative), np.ones((1, 2, 2)))


def test_an_unknown_kind_is_refused_by_name(bars):
    with pytest.raises(ValueError, match=r"^relative=median is not one of none, mean, zscore, rank, residual$"):
        labels_of(bars, "median")
