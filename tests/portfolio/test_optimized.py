"""hrp and mean_variance beside skfolio called by hand, and beside a general optimiser."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from hftraining.core.bars import ARRAYS
from hftraining.core.errors import UserError
from hftraining.portfolio import optimized
from hftraining.portfolio.config import OPTIMIZED
from hftraining.portfolio.optimized import INFORMATION
from hftraining.portfolio.weights import target_weights
from tests.portfolio.books import RULES, bars_of, flat_bars, forecast_of, portfolio, random_bars, random_forecast

LAST = 63 + 252  # a session on the grid of 21 whose window is full
NO_SKFOLIO = "skfolio is not installed: pip install -e '.[portfolio]'"


@pytest.fixture
def optimization():
    return pytest.importorskip("skfolio.optimization", reason=NO_SKFOLIO)


def weights(bars, forecast, kind, rules=RULES, **fields):
    return target_weights(forecast, bars, portfolio(kind, **({"every": 21} | fields)), rules)


def returns_before(bars, t):
    close_TS = bars.close_TS[: t + 1]
    return (close_TS[1:] / close_TS[:-1] - 1.0)[-252:]


def score_of(medians):
    """Of equal uncertainties."""
    return (medians - medians.mean()) / medians.std(ddof=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_hrp_equals_skfolio_s_own_on_the_trailing_year(optimization, seed):
    bars = random_bars(seed, LAST + 1, 5, missing=0.0)
    got = weights(bars, random_forecast(seed, bars), "hrp")[LAST]
    want = optimization.HierarchicalRiskParity().fit(returns_before(bars, LAST)).weights_
    np.testing.assert_allclose(got, want, rtol=1e-9)


def test_hrp_of_two_stocks_is_inverse_to_their_variances(optimization):
    bars = random_bars(4, LAST + 1, 2, missing=0.0)
    got = weights(bars, random_forecast(4, bars), "hrp")[LAST]
    inverse = 1.0 / returns_before(bars, LAST).var(axis=0, ddof=1)
    np.testing.assert_allclose(got, inverse / inverse.sum(), rtol=1e-9)


def two_rebalances(seed):
    """Bars and forecasts of equal uncertainty, so that a score is easily worked out."""
    bars = random_bars(seed, LAST + 1, 5, missing=0.0)
    median_TS = np.random.default_rng(seed).normal(size=bars.close_TS.shape)
    return bars, median_TS, forecast_of(median_TS)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_mean_variance_equals_skfolio_s_own_on_the_trailing_year(optimization, seed):
    bars, median_TS, forecast = two_rebalances(seed)
    got = weights(bars, forecast, "mean_variance", turnover_penalty=0.003, risk_aversion=4.0)
    at_once = weights(bars, forecast, "mean_variance", turnover_penalty=0.003, risk_aversion=4.0, trade_rate=1.0)
    past = returns_before(bars, LAST)
    mean = INFORMATION * past.std(axis=0, ddof=1) * score_of(median_TS[LAST]) / 21**0.5
    model = optimization.MeanRisk(
        objective_function=optimization.ObjectiveFunction.MAXIMIZE_UTILITY,
        risk_aversion=4.0,
        transaction_costs=0.003 / 21,
        previous_weights=at_once[LAST - 21],
        overwrite_expected_return=lambda w: mean @ w,
    )
    np.testing.assert_allclose(got[LAST], model.fit(past).weights_, atol=1e-7)


@pytest.mark.parametrize("penalty", [0.0, 0.001, 1.0])
@pytest.mark.slow
def test_mean_variance_is_worth_as_much_as_what_a_general_optimiser_finds(optimization, penalty):
    bars, median_TS, forecast = two_rebalances(5)
    got = weights(bars, forecast, "mean_variance", turnover_penalty=penalty, risk_aversion=2.0)
    past, before = returns_before(bars, LAST), got[LAST - 21]
    mean = INFORMATION * past.std(axis=0, ddof=1) * score_of(median_TS[LAST]) * 21**0.5
    covariance = 21 * np.cov(past.T)

    def cost(w):
        return -(mean @ w - 2.0 * w @ covariance @ w - penalty * np.abs(w - before).sum())

    bounds, whole = [(0.0, 1.0)] * 5, {"type": "eq", "fun": lambda w: w.sum() - 1.0}
    starts = [np.full(5, 0.2), before, got[LAST]]
    best = min(minimize(cost, w, bounds=bounds, constraints=whole, tol=1e-12).fun for w in starts)
    assert cost(got[LAST]) <= best + 1e-7
    assert (penalty == 1.0) == np.allclose(got[LAST], before, atol=1e-5)


@pytest.mark.parametrize("kind", OPTIMIZED)
def test_the_first_sixty_returns_are_waited_for_in_equal_weights(optimization, kind):
    bars = random_bars(6, 70, 4, missing=0.0)
    got = weights(bars, random_forecast(6, bars), kind, every=1, turnover_penalty=0.0)
    assert (got[:60] == 0.25).all()
    assert (np.abs(got[60:] - 0.25).max(axis=1) > 1e-6).all()


@pytest.mark.parametrize("kind", OPTIMIZED)
def test_only_symbols_with_all_returns_and_a_price_that_moves_take_part(optimization, kind):
    close_TS = random_bars(7, 85, 5, missing=0.0).close_TS.copy()
    close_TS[:30, 0], close_TS[:, 1], close_TS[80:, 2] = np.nan, 50.0, np.nan
    bars = bars_of(close_TS)
    got = weights(bars, random_forecast(7, bars), kind)[84]
    assert (got[:3] == 0.0).all() and (got[3:] > 0.0).all() and got.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("kind", OPTIMIZED)
def test_one_symbol_has_the_whole_book_and_prices_that_stand_still_have_equal_weights(optimization, kind):
    alone = random_bars(8, 70, 1, missing=0.0)
    assert (weights(alone, random_forecast(8, alone), kind) == 1.0).all()
    still = flat_bars(70, 4)
    assert (weights(still, random_forecast(8, still), kind) == 0.25).all()


@pytest.mark.parametrize("kind", OPTIMIZED)
def test_weights_are_finite_long_and_within_the_caps(optimization, kind):
    bars = random_bars(9, 150, 5, missing=0.002)
    got = weights(bars, random_forecast(9, bars), kind, replace(RULES, max_position_size=0.22))
    assert np.isfinite(got).all() and (got >= 0.0).all() and (got <= 0.22).all()


@pytest.mark.parametrize("kind", OPTIMIZED)
def test_later_bars_leave_earlier_weights_equal_to_the_bit_and_permuting_symbols_permutes_them(optimization, kind):
    bars = random_bars(10, 130, 5, missing=0.0)
    forecast = random_forecast(10, bars, missing=0.0)
    want = weights(bars, forecast, kind)
    later = {name: np.concatenate([getattr(bars, name)[:90], 1.7 * getattr(bars, name)[90:]]) for name in ARRAYS}
    assert (weights(replace(bars, **later), forecast, kind)[:90] == want[:90]).all()
    order = np.array([3, 0, 4, 1, 2])
    moved_bars = replace(bars, **{name: getattr(bars, name)[:, order] for name in ARRAYS})
    moved = replace(forecast, quantiles_TSHQ=forecast.quantiles_TSHQ[:, order], head_TS=forecast.head_TS[:, order])
    np.testing.assert_allclose(weights(moved_bars, moved, kind), want[:, order], atol=1e-5)


@pytest.mark.parametrize("kind", OPTIMIZED)
def test_without_skfolio_one_line_says_how_to_install_it(monkeypatch, kind):
    for name in [name for name in sys.modules if name.split(".")[0] == "skfolio"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "skfolio", None)
    with pytest.raises(UserError, match=rf'^portfolio.kind={kind}: .* pip install -e "\.\[portfolio\]"$'):
        weights(flat_bars(2, 2), forecast_of([[0.1, 0.2]] * 2), kind)


@pytest.mark.parametrize("fields", [{"risk_aversion": 500.0}, {"turnover_penalty": 0.0}, {"smoothing": 10.0}])
def test_a_field_of_mean_variance_changes_its_weights(optimization, fields):
    bars = random_bars(11, 90, 5, missing=0.0)
    before, after = (weights(bars, random_forecast(11, bars), "mean_variance", **f) for f in ({}, fields))
    assert np.abs(after - before).max() > 1e-3


def test_a_market_without_a_solution_ends_in_one_line(optimization):
    close_TS = 50.0 * np.exp(np.clip(np.cumsum(np.random.default_rng(0).normal(0, 20.0, (64, 6)), axis=0), -300, 300))
    with pytest.raises(UserError, match=r"^portfolio: skfolio found no weights at session 64, of 6 symbols [^\n]*$"):
        weights(bars_of(close_TS), forecast_of(np.ones((64, 6))), "mean_variance")


@pytest.mark.parametrize("kind", ["hrp", "mean_variance"])
def test_a_rebalance_is_solved_once_however_often_later_days_ask_for_it(optimization, monkeypatch, kind):
    monkeypatch.setattr(optimized, "_KNOWN", {})
    monkeypatch.setattr(optimized, "MOST_KNOWN", 3)
    times = []
    solved = optimized._solved
    monkeypatch.setattr(optimized, "_solved", lambda *given: times.append(1) or solved(*given))
    bars = random_bars(12, 110, 5, missing=0.0)
    forecast = random_forecast(12, bars)
    whole = weights(bars, forecast, kind)
    once = len(times)
    assert once >= 2
    cut = bars.rows(slice(0, len(whole) - 1))
    np.testing.assert_array_equal(weights(cut, forecast.rows(slice(0, len(whole) - 1)), kind), whole[:-1])
    assert len(times) == once and len(optimized._KNOWN) <= 3
    weights(bars, forecast, kind, every=20)
    assert len(times) > once
