"""From a forecast to a smoothed score: hftraining/portfolio/score.py and the smoothing of trading/towards.py."""

import numpy as np
import pytest

from hftraining.core.forecast import Forecast
from hftraining.portfolio.score import across_stocks, against_own_past, median_and_uncertainty, ratio_of
from hftraining.trading.towards import smoothed
from tests.portfolio.books import forecast_of

NAN = np.nan


def test_the_uncertainty_of_a_normal_forecast_is_its_standard_deviation():
    median_TS, uncertainty_TS = median_and_uncertainty(forecast_of([[0.3, NAN]], deviation=0.07), 0)
    np.testing.assert_allclose(median_TS, [[0.3, NAN]])
    np.testing.assert_allclose(uncertainty_TS, [[0.07, NAN]])


def test_a_forecast_of_medians_alone_is_scored_by_its_medians():
    alone = Forecast(np.array([0.1, 0.3, 0.5]).reshape(1, 3, 1, 1), np.zeros((1, 3)), (5,), (0.5,))
    ratio_TS = ratio_of(*median_and_uncertainty(alone, 0))
    np.testing.assert_allclose(across_stocks(ratio_TS, np.ones((1, 3), bool)), [[-1.0, 0.0, 1.0]], atol=1e-12)


def test_a_certain_stock_takes_the_least_uncertainty_of_the_day():
    ratio_TS = ratio_of(np.array([[0.2, 0.2, 0.2, NAN]]), np.array([[0.0, 0.1, 0.4, NAN]]))
    np.testing.assert_allclose(ratio_TS, [[2.0, 2.0, 0.5, NAN]])


def test_the_score_is_the_distance_from_the_mean_of_the_day_in_its_standard_deviations():
    rng = np.random.default_rng(0)
    ratio_TS = rng.normal(size=(7, 9))
    want_TS = np.array([(row - np.mean(row)) / np.std(row, ddof=1) for row in ratio_TS])
    np.testing.assert_allclose(across_stocks(ratio_TS, np.ones(ratio_TS.shape, bool)), want_TS, rtol=1e-12)


def test_only_stocks_with_a_forecast_and_a_bar_are_compared():
    present_TS = np.array([[True, True, True, False]])
    np.testing.assert_allclose(
        across_stocks(np.array([[1.0, 3.0, NAN, 9.0]]), present_TS), [[-(0.5**0.5), 0.5**0.5, NAN, NAN]]
    )


@pytest.mark.parametrize("ratios", [[0.1, 0.1, 0.1], [0.0, 0.0, 0.0], [-3.0, NAN, NAN], [1e-300, 1e-300, 2e-300 / 2]])
def test_equal_forecasts_and_a_single_stock_score_zero(ratios):
    score = across_stocks(np.array([ratios]), np.ones((1, 3), bool))[0]
    assert (score[np.isfinite(ratios)] == 0.0).all() and np.isnan(score[~np.isfinite(ratios)]).all()


def test_a_stock_on_its_own_is_scored_in_deviations_of_its_own_past_from_twenty_forecasts_on():
    ratio_T = np.random.default_rng(1).normal(0.3, 2.0, 50)
    ratio_T[[3, 30]] = NAN
    score_T = against_own_past(ratio_T[:, None])[:, 0]
    for t in range(50):
        past = ratio_T[: t + 1][np.isfinite(ratio_T[: t + 1])]
        if len(past) < 20 or np.isnan(ratio_T[t]):
            assert np.isnan(score_T[t])
        else:
            assert score_T[t] == pytest.approx(ratio_T[t] / past.std(ddof=1), rel=1e-12)
    assert np.isfinite(score_T).sum() == 50 - 2 - 19


def test_a_stock_on_its_own_whose_forecast_never_changes_scores_zero():
    score_T = against_own_past(np.full((25, 1), 0.1))[:, 0]
    assert np.isnan(score_T[:19]).all() and (score_T[19:] == 0.0).all()


def naive_smoothed(signal_T, half_life):
    """One symbol, with a list for a memory."""
    gain, state, age, result = 1 - 0.5 ** (1 / half_life), None, 0, []
    for signal in signal_T:
        if np.isfinite(signal):
            state, age = signal if state is None else state + gain * (signal - state), 0
        else:
            age += 1
            if age > 5:
                state = None
        result.append(0.0 if state is None else state)
    return result


@pytest.mark.parametrize("half_life", [0.5, 3.0, 20.0])
def test_smoothing_equals_a_loop_over_days(half_life):
    rng = np.random.default_rng(2)
    signal_TS = rng.normal(size=(80, 4))
    signal_TS[rng.random((80, 4)) < 0.2] = NAN
    signal_TS[:3, 0], signal_TS[30:36, 1], signal_TS[50:55, 2] = NAN, NAN, NAN
    want_TS = np.array([naive_smoothed(signal_T, half_life) for signal_T in signal_TS.T]).T
    np.testing.assert_allclose(smoothed(signal_TS, half_life), want_TS, rtol=1e-12, atol=1e-15)


def test_half_of_an_old_score_is_forgotten_in_a_half_life():
    signal_TS = np.array([1.0] + [0.0] * 20)[:, None]
    assert smoothed(signal_TS, 4.0)[[4, 8, 20], 0] == pytest.approx([0.5, 0.25, 1 / 32])


def test_a_missing_forecast_keeps_the_score_for_five_sessions_and_then_it_starts_anew():
    signal_TS = np.array([1.0] + [NAN] * 7 + [5.0])[:, None]
    assert smoothed(signal_TS, 10.0)[:, 0].tolist() == [1.0] * 6 + [0.0, 0.0, 5.0]


def test_without_smoothing_the_score_is_the_signal_and_zero_where_it_is_missing():
    signal_TS = np.array([[1.0, NAN], [NAN, np.inf], [-0.3, 2.0]])
    assert smoothed(signal_TS, 0.0).tolist() == [[1.0, 0.0], [0.0, 0.0], [-0.3, 2.0]]
