"""Scores clustered by day: against scipy, by hand, and on noise."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr, ttest_1samp

from hftraining.evidence.scores import daily_scores, quantile_calibration


def noise(days=200, symbols=6, skill=0.3, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.standard_normal((days, symbols))
    return skill * label + rng.standard_normal((days, symbols)), label


def matthews(side, came):
    tp, tn = ((side > 0) & (came > 0)).sum(), ((side < 0) & (came < 0)).sum()
    fp, fn = ((side > 0) & (came < 0)).sum(), ((side < 0) & (came > 0)).sum()
    return (tp * tn - fp * fn) / math.sqrt(float((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)))


def test_ic_is_the_mean_over_days_of_scipys_correlation_with_its_t():
    forecast, label = noise()
    scores = daily_scores(forecast, label)
    for name, correlation in (("ic", pearsonr), ("rank_ic", spearmanr)):
        daily = [correlation(f, y)[0] for f, y in zip(forecast, label, strict=True)]
        test = ttest_1samp(daily, 0.0)
        assert scores[name].value == pytest.approx(np.mean(daily))
        assert scores[name].t == pytest.approx(test.statistic)
        ends = test.confidence_interval(0.95)
        assert [scores[name].low, scores[name].high] == pytest.approx([ends.low, ends.high])
        assert scores[name].days == 200


def test_accuracy_is_a_share_a_day_and_its_t_is_against_a_coin():
    forecast, label = noise()
    daily = (np.sign(forecast) == np.sign(label)).mean(axis=1)
    found = daily_scores(forecast, label)["accuracy"]
    assert found.value == pytest.approx(daily.mean())
    assert found.t == pytest.approx(ttest_1samp(daily, 0.5).statistic)


def test_mcc_equals_the_formula_of_the_four_counts():
    forecast, label = noise(symbols=4)
    assert daily_scores(forecast, label)["mcc"].value == pytest.approx(matthews(forecast, label))


@pytest.mark.parametrize("symbols", [1, 2])
def test_without_a_cross_section_the_correlation_is_that_over_time(symbols):
    forecast, label = noise(symbols=symbols)
    scores = daily_scores(forecast, label)
    assert scores["ic"].value == pytest.approx(pearsonr(forecast.ravel(), label.ravel())[0])
    assert scores["rank_ic"].value == pytest.approx(spearmanr(forecast.ravel(), label.ravel())[0])


def test_copies_of_a_symbol_do_not_count_as_more_evidence():
    forecast, label = noise(symbols=1)
    one = daily_scores(forecast, label)["mcc"]
    many = daily_scores(np.repeat(forecast, 9, axis=1), np.repeat(label, 9, axis=1))["mcc"]
    assert (many.value, many.t, many.days) == (pytest.approx(one.value), pytest.approx(one.t), one.days)


def test_pairs_with_nan_and_days_without_a_cross_section_are_left_out():
    forecast, label = noise()
    forecast[3, :4] = math.nan  # two symbols are left
    label[4] = math.nan
    forecast[5] = 0.7  # ranks no symbol above another
    scores = daily_scores(forecast, label)
    kept = [t for t in range(200) if t not in (3, 4, 5)]
    assert scores["ic"].days == 197 and scores["accuracy"].days == 199
    assert scores["ic"].value == pytest.approx(np.mean([pearsonr(forecast[t], label[t])[0] for t in kept]))


def test_zero_or_missing_forecasts_have_no_score():
    _, label = noise()
    for forecast in (np.zeros(label.shape), np.full(label.shape, math.nan)):
        for score in daily_scores(forecast, label).values():
            assert math.isnan(score.value) and score.days == 0
    assert daily_scores(np.empty((0, 3)), np.empty((0, 3)))["ic"].days == 0


def test_overlapping_labels_widen_the_interval():
    rng = np.random.default_rng(1)
    sums = np.cumsum(rng.standard_normal((420, 5)), axis=0)
    forecast = np.repeat(rng.standard_normal((20, 5)), 20, axis=0)
    label = sums[20:] - sums[:-20]
    plain, wide = daily_scores(forecast, label)["ic"], daily_scores(forecast, label, overlap=20)["ic"]
    assert wide.value == plain.value
    assert wide.high - wide.low > 2 * (plain.high - plain.low)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        daily_scores(np.zeros((3, 2)), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="quantiles: shape"):
        quantile_calibration(np.zeros((3, 2, 2)), np.zeros((3, 2)), [0.5])


@given(st.integers(0, 10_000), st.integers(1, 5), st.floats(0.01, 100))
@settings(max_examples=40, deadline=None)
def test_perfect_forecasts_score_one_and_the_unit_does_not_matter(seed, symbols, scale):
    _, label = noise(50, symbols, seed=seed)
    for name, score in daily_scores(scale * label, label).items():
        assert score.value == pytest.approx(1.0), name
    assert daily_scores(-scale * label, label)["rank_ic"].value == pytest.approx(-1.0)


def test_calibration_counts_shares_by_day_worked_out_by_hand():
    quantiles = np.zeros((3, 2, 2))
    quantiles[:, :, 1] = 1.0
    label = np.array([[-1.0, 0.5], [2.0, math.nan], [math.nan, math.nan]])
    assert quantile_calibration(quantiles, label, [0.5, 0.9]) == [
        {"level": 0.5, "share": 0.25, "days": 2},
        {"level": 0.9, "share": 0.5, "days": 2},
    ]
    nothing = quantile_calibration(quantiles, np.full((3, 2), math.nan), [0.5, 0.9])[0]
    assert math.isnan(nothing["share"]) and nothing["days"] == 0
