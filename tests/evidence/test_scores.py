"""Scores clustered by day: against scipy, by hand, and on noise."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from scipy.stats import t as student

from hftraining.evidence.scores import _instrument, daily_scores, paired_difference, quantile_calibration


def noise(days=200, symbols=6, skill=0.3, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.standard_normal((days, symbols))
    return skill * label + rng.standard_normal((days, symbols)), label


def matthews(side, came):
    tp, tn = ((side > 0) & (came > 0)).sum(), ((side < 0) & (came < 0)).sum()
    fp, fn = ((side > 0) & (came < 0)).sum(), ((side < 0) & (came > 0)).sum()
    return (tp * tn - fp * fn) / math.sqrt(float((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)))


def by_cosines(daily, cosines):
    """The mean, its error and the reach of its interval, by the sums that define the cosine transform."""
    n = len(daily)
    squares = [
        (math.sqrt(2 / n) * sum(daily[t] * math.cos(math.pi * j * (t + 0.5) / n) for t in range(n))) ** 2
        for j in range(1, cosines + 1)
    ]
    error = math.sqrt(sum(squares) / cosines / n)
    return np.mean(daily), error, student.ppf(0.975, cosines) * error


def autocorrelated(rng, shape, rho):
    made = rng.standard_normal(shape)
    for t in range(1, len(made)):
        made[t] = rho * made[t - 1] + math.sqrt(1 - rho**2) * made[t]
    return made


def momentum(returns, rho):
    made = np.zeros_like(returns)
    for t in range(1, len(returns)):
        made[t] = rho * made[t - 1] + returns[t]
    return made


# 0.41 * 200^(2/3) = 14.02 cosines; with an overlap of 10 no more than 200 / 20
@pytest.mark.parametrize(("overlap", "cosines"), [(1, 14), (10, 10)])
def test_ic_is_the_mean_over_days_of_scipys_correlation_with_the_error_of_cosines(overlap, cosines):
    forecast, label = noise()
    scores = daily_scores(forecast, label, overlap)
    for name, correlation in (("ic", pearsonr), ("rank_ic", spearmanr)):
        daily = [correlation(f, y)[0] for f, y in zip(forecast, label, strict=True)]
        value, error, reach = by_cosines(daily, cosines)
        assert scores[name].value == pytest.approx(value)
        assert scores[name].t == pytest.approx(value / error)
        assert [scores[name].low, scores[name].high] == pytest.approx([value - reach, value + reach])
        assert scores[name].days == 200


def test_accuracy_is_a_share_a_day_and_its_t_is_against_a_coin():
    forecast, label = noise()
    forecast, label = forecast + 0.2, label + 0.3
    right, lean = (np.sign(forecast) == np.sign(label)).mean(axis=1), np.sign(forecast).mean(axis=1)
    by_lean = lean * np.sign(label).mean() / 2
    error = math.hypot(by_cosines(right - by_lean, 14)[1], by_cosines(by_lean, 2)[1])
    found = daily_scores(forecast, label)["accuracy"]
    assert found.value == pytest.approx(right.mean())
    assert found.t == pytest.approx((right.mean() - 0.5) / error)


def test_always_up_is_judged_by_the_days_that_rose():
    _, label = noise()
    label += 0.3
    value, error, reach = by_cosines((label > 0).mean(axis=1), 14)
    found = daily_scores(np.ones(label.shape), label)["accuracy"]
    assert (found.value, found.low, found.high) == pytest.approx((value, value - reach, value + reach))
    assert found.t == pytest.approx((value - 0.5) / error) and found.low > 0.5


def test_daily_correlations_equal_a_loop_over_days_with_gaps_and_ties():
    rng = np.random.default_rng(3)
    forecast, label = rng.integers(0, 4, (150, 9)).astype(float), rng.standard_normal((150, 9))
    forecast[rng.random((150, 9)) < 0.4] = math.nan
    label[rng.random((150, 9)) < 0.2] = math.nan
    scores = daily_scores(forecast, label)
    for name, correlation in (("ic", pearsonr), ("rank_ic", spearmanr)):
        daily = []
        for f, y in zip(forecast, label, strict=True):
            known = np.isfinite(f) & np.isfinite(y)
            if known.sum() >= 3 and np.ptp(f[known]) > 0:
                daily.append(correlation(f[known], y[known])[0])
        assert 0 < len(daily) < 150
        value, error, _ = by_cosines(daily, int(0.41 * len(daily) ** (2 / 3)))
        assert (scores[name].value, scores[name].t) == (pytest.approx(value), pytest.approx(value / error))
        assert scores[name].days == len(daily)


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
    daily = [pearsonr(f, y)[0] for f, y in zip(forecast, label, strict=True)]
    wide = daily_scores(forecast, label, overlap=20)["ic"]
    assert wide.high - wide.low > 2 * (2 * 1.96 * np.std(daily) / math.sqrt(400))


def test_without_two_labels_that_do_not_overlap_there_is_no_interval():
    for symbols in (1, 6):
        forecast, label = noise(days=39, symbols=symbols)
        for score in daily_scores(forecast, label, overlap=20).values():
            assert math.isfinite(score.value) and math.isnan(score.t) and math.isnan(score.low)
        forecast, label = noise(days=40, symbols=symbols)
        assert math.isfinite(daily_scores(forecast, label, overlap=20)["ic"].high)


def test_the_instrument_weighs_labels_less_their_mean_from_that_day_on():
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((2, 30, 2))
    known = rng.random((30, 2)) < 0.8
    x = np.where(known, x, 0.0)
    w = _instrument(x, known)
    expected = 0.0
    for t in range(30):
        past, to_come = x[: t + 1][known[: t + 1]], y[t:][known[t:]]
        expected += sum((x[t, s] - past.mean()) * (y[t, s] - to_come.mean()) for s in range(2) if known[t, s])
    assert (w * y).sum() == pytest.approx(expected)
    assert w.sum() == pytest.approx(0.0) and (w[~known] == 0.0).all()
    x[20:] = 7.0  # later forecasts change nothing
    assert _instrument(np.where(known, x, 0.0), known)[:20] == pytest.approx(w[:20])


@pytest.mark.parametrize("overlap", [1, 4])
def test_the_error_over_all_pairs_is_that_of_returns_seen_through_overlapping_labels(overlap):
    rng = np.random.default_rng(5)
    forecast, label = rng.standard_normal((2, 60, 2))
    forecast[7], label[30, 1] = math.nan, math.nan
    known = np.isfinite(forecast) & np.isfinite(label)
    x, y = (np.where(known, (v - v[known].mean()) / v[known].std(), 0.0) for v in (forecast, label))
    w = _instrument(x, known)
    variance = 0.0
    for session in range(60 + overlap - 1):
        holding = range(max(0, session - overlap + 1), min(59, session) + 1)
        total = sum(w[t] for t in holding)
        along = sum((total @ y[t]) ** 2 for t in holding)
        seen = sum(total**2 @ known[t] for t in holding)
        variance += total @ total * along / seen / overlap if seen else 0.0
    days = known.any(axis=1).sum()
    shared = sum(max(0.0, 1 - abs(i - j) / overlap) for i in range(days) for j in range(days)) / days**2
    expected = (w * y).sum() / math.sqrt(variance / (1 - shared))
    assert daily_scores(forecast, label, overlap)["ic"].t == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("made_of", "symbols", "overlap"), [("noise", 1, 20), ("momentum", 1, 1), ("momentum", 1, 20), ("noise", 8, 20)]
)
def test_slow_forecasts_of_what_cannot_be_forecast_are_rarely_said_to_have_skill(made_of, symbols, overlap):
    """Of 250 samples 5 % are rejected, give or take 1.4 %; errors of independent days reject more than 20 %."""
    rng = np.random.default_rng([6, symbols, overlap])
    rejected = dict.fromkeys(("ic", "rank_ic", "accuracy", "mcc"), 0)
    returns = rng.standard_normal((900 + overlap, 250, symbols)) + rng.standard_normal((900 + overlap, 250, 1))
    drive = returns if made_of == "momentum" else rng.standard_normal(returns.shape)
    forecasts, sums = momentum(drive, 0.97), np.cumsum(returns, axis=0)
    for i in range(250):
        label = (sums[overlap:] - sums[:-overlap])[500:900, i]
        for name, score in daily_scores(forecasts[500:900, i], label, overlap).items():
            rejected[name] += not score.low <= (0.5 if name == "accuracy" else 0.0) <= score.high
    assert all(0.01 <= count / 250 <= 0.095 for count in rejected.values()), rejected


@pytest.mark.parametrize("symbols", [1, 30])
def test_skill_is_seen_and_its_interval_holds_it(symbols):
    rng = np.random.default_rng([7, symbols])
    seen, held = 0, 0
    for _ in range(100):
        label = rng.standard_normal((500, symbols))
        score = daily_scores(0.15 * label + math.sqrt(1 - 0.15**2) * rng.standard_normal(label.shape), label)["ic"]
        seen, held = seen + (score.low > 0), held + (score.low <= 0.15 <= score.high)
    assert seen >= 75 and held >= 88


def test_the_ends_of_a_correlation_over_all_pairs_are_at_most_one():
    _, label = noise(30, 1)
    score = daily_scores(label, label)["ic"]
    assert score.value == pytest.approx(1.0) and 0.0 < score.low < 1.0 and score.high == 1.0


def test_a_forecast_too_slow_for_its_window_has_an_interval_all_the_same():
    """A trend over the window leaves next to nothing once its past mean and what is to come are taken off."""
    rng = np.random.default_rng(10)
    trends = [np.cumsum(rng.standard_normal((120, 1)), axis=0) for _ in range(60)]
    slopes = [float((_instrument(x - x.mean(), np.ones_like(x, bool)) * (x - x.mean())).sum()) for x in trends]
    assert min(slopes) < 0.0 < max(slopes)
    scores = [daily_scores(x, rng.standard_normal(x.shape))["ic"] for x in trends]
    assert all(-1.0 <= score.low <= score.high <= 1.0 for score in scores)
    assert sum(score.low > 0.0 or score.high < 0.0 for score in scores) <= 8


def test_a_paired_difference_is_the_mean_of_the_days_that_both_have():
    rng = np.random.default_rng(8)
    ours, theirs = rng.standard_normal((2, 120))
    ours[5], theirs[9] = math.nan, math.nan
    value, error, reach = by_cosines(np.delete(ours - theirs, [5, 9]), 9)  # 0.41 * 118^(2/3) = 9.86
    found = paired_difference(ours, theirs)
    assert (found.value, found.t) == (pytest.approx(value), pytest.approx(value / error))
    assert [found.low, found.high] == pytest.approx([value - reach, value + reach]) and found.days == 118
    equal = paired_difference(ours, ours, overlap=5)
    assert equal.value == 0.0 and math.isnan(equal.low) and equal.days == 119


def test_differences_of_losses_that_hang_together_keep_the_level():
    rng = np.random.default_rng(9)
    series = autocorrelated(rng, (500, 1000), 0.5)
    found = [paired_difference(series[:, i], np.zeros(500)) for i in range(1000)]
    assert 0.03 <= np.mean([not score.low <= 0.0 <= score.high for score in found]) <= 0.07


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
