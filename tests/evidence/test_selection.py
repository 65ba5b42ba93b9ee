"""Alpha against least squares, its p against another library's reality check, and the level of the best of many."""

import math

import numpy as np
import pytest
from arch.bootstrap import SPA
from scipy import stats

from hftraining.evidence.deflation import deflated_sharpe
from hftraining.evidence.selection import Excess, Track, alpha_influence, judge_excess, lead_influence

DAYS_T = np.arange("2010-01-01", "2011-06-01", dtype="datetime64[D]")
N = len(DAYS_T)


def market(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0007, 0.01, N)


def book(seed: int, benchmark_T: np.ndarray, beta: float = 1.0, alpha: float = 0.0) -> np.ndarray:
    return alpha + beta * benchmark_T + np.random.default_rng(seed).normal(0.0, 0.005, N)


def judge(returns_T, benchmark_T, others=(), n_trials=None, draws=1000) -> Excess:
    tracks = [Track(DAYS_T, other_T, benchmark_T) for other_T in others]
    return judge_excess(Track(DAYS_T, returns_T, benchmark_T), tracks, n_trials or 1 + len(tracks), draws, 5)


def test_alpha_beta_and_information_ratio_are_those_of_least_squares():
    benchmark_T = market(0)
    returns_T = book(1, benchmark_T, beta=0.6, alpha=0.0004)
    (alpha, beta), (squares,), *_ = np.linalg.lstsq(np.column_stack([np.ones(N), benchmark_T]), returns_T, rcond=None)
    found = judge(returns_T, benchmark_T)
    assert found.beta == pytest.approx(beta)
    assert found.alpha.value == pytest.approx(252 * alpha)
    assert found.residual_volatility == pytest.approx(math.sqrt(252 * squares / (N - 1)))
    assert found.information_ratio == pytest.approx(found.alpha.value / found.residual_volatility)


def test_the_interval_of_alpha_is_that_of_least_squares_where_days_are_independent():
    benchmark_T = market(2)
    returns_T = book(3, benchmark_T, alpha=0.0002)
    found = judge(returns_T, benchmark_T, draws=4000)
    error = stats.linregress(benchmark_T, returns_T).intercept_stderr * 252
    assert found.alpha.low == pytest.approx(found.alpha.value - 1.96 * error, abs=0.15 * error)
    assert found.alpha.high == pytest.approx(found.alpha.value + 1.96 * error, abs=0.15 * error)


@pytest.mark.parametrize("influence", [alpha_influence, lead_influence])
def test_the_influence_of_a_day_is_what_leaving_it_out_changes(influence):
    benchmark_T = market(4)
    returns_T = book(5, benchmark_T, beta=0.5)

    def estimate(ours_T, theirs_T):
        if influence is alpha_influence:
            return stats.linregress(theirs_T, ours_T).intercept
        return ours_T.mean() / ours_T.std(ddof=1) - theirs_T.mean() / theirs_T.std(ddof=1)

    whole = estimate(returns_T, benchmark_T)
    jackknife_T = [(N - 1) * (whole - estimate(np.delete(returns_T, t), np.delete(benchmark_T, t))) for t in range(N)]
    ours_T = influence(returns_T, benchmark_T)
    assert ours_T.mean() == pytest.approx(0.0, abs=1e-12)
    assert np.corrcoef(ours_T, jackknife_T)[0, 1] > 0.999
    assert ours_T.std() == pytest.approx(np.std(jackknife_T), rel=0.03)


@pytest.mark.slow
def test_p_of_the_best_is_that_of_another_librarys_reality_check():
    benchmark_T = market(6)
    books = [book(seed, benchmark_T, alpha=0.0003) for seed in range(20, 32)]
    gains = np.column_stack(
        [alpha_influence(b, benchmark_T) + stats.linregress(benchmark_T, b).intercept for b in books]
    )
    best = int(np.argmax(gains.mean(axis=0) / gains.std(axis=0)))
    others = [b for k, b in enumerate(books) if k != best]
    ours = judge(books[best], benchmark_T, others, draws=4000)
    theirs = SPA(np.zeros(N), -gains, block_size=1, reps=4000, bootstrap="stationary", studentize=True, seed=1)
    theirs.compute()
    assert ours.p == pytest.approx(theirs.pvalues["upper"], abs=0.03)


def test_one_trial_alone_has_the_p_of_a_t_test():
    benchmark_T = market(7)
    returns_T = book(8, benchmark_T, alpha=0.0004)
    line = stats.linregress(benchmark_T, returns_T)
    by_t = stats.t.sf(line.intercept / line.intercept_stderr, N - 2)
    assert judge(returns_T, benchmark_T, draws=8000).p == pytest.approx(by_t, abs=0.015)


def test_trials_that_are_alike_count_as_one_and_unknown_ones_each():
    benchmark_T = market(9)
    returns_T = book(10, benchmark_T, alpha=0.0004)
    alone = judge(returns_T, benchmark_T)
    assert judge(returns_T, benchmark_T, [returns_T] * 20).p == pytest.approx(alone.p)
    assert judge(returns_T, benchmark_T, n_trials=20).p == pytest.approx(1 - (1 - alone.p) ** 20)
    different = judge(returns_T, benchmark_T, [book(seed, benchmark_T) for seed in range(40, 60)])
    assert alone.p < different.p <= 1 - (1 - alone.p) ** 21 + 0.02


def test_only_days_that_trials_share_count():
    benchmark_T = market(11)
    returns_T = book(12, benchmark_T)
    later_T = DAYS_T + 200
    other_T = np.random.default_rng(13).normal(0.0, 0.01, N)
    changed_T = np.where(np.isin(later_T, DAYS_T), other_T, 99.0)
    own = Track(DAYS_T, returns_T, benchmark_T)
    one, two = (judge_excess(own, [Track(later_T, series, None)], 2, 500, 1) for series in (other_T, changed_T))
    assert one == two
    apart = judge_excess(own, [Track(DAYS_T + 5000, other_T, None)], 2, 500, 1)
    assert apart.p == pytest.approx(1 - (1 - judge_excess(own, [], 1, 500, 1).p) ** 2)


def test_the_benchmark_itself_has_no_alpha_and_a_flat_book_none_that_is_known():
    benchmark_T = market(14)
    itself = judge(benchmark_T, benchmark_T)
    assert itself.p == itself.lead_p == 1.0
    assert itself.beta == pytest.approx(1.0)
    half = judge(0.5 * benchmark_T, benchmark_T)
    assert half.p == 1.0 and half.beta == pytest.approx(0.5)
    flat = judge(np.zeros(N), benchmark_T)
    assert math.isnan(flat.p) and math.isnan(flat.alpha.value)
    own = Track(DAYS_T[:10], benchmark_T[:10], benchmark_T[:10])
    assert math.isnan(judge_excess(own, [], 1, 500, 1).p)
    with pytest.raises(ValueError, match="n_trials=0"):
        judge_excess(Track(DAYS_T, benchmark_T, benchmark_T), [], 0, 500, 1)


def test_the_deflated_sharpe_ratio_is_that_of_the_returns_beyond_the_benchmark():
    benchmark_T = market(15)
    returns_T = book(16, benchmark_T, beta=1.3, alpha=0.0006)
    others = [book(seed, benchmark_T) for seed in range(70, 80)]
    excess = [r - np.polyfit(benchmark_T, r, 1)[0] * benchmark_T for r in (returns_T, *others)]
    variance = np.var([e.mean() / e.std(ddof=1) for e in excess], ddof=1)
    found = judge(returns_T, benchmark_T, others)
    assert found.deflated_sharpe == pytest.approx(deflated_sharpe(excess[0], 11, variance))


@pytest.mark.slow
def test_the_best_of_thirty_books_that_only_hold_the_market_is_seldom_called_skilled():
    skilled = []
    for number in range(80):
        benchmark_T = np.random.default_rng([number, 0]).normal(0.0012, 0.01, N)  # a good market: Sharpe 1.9
        books = [book(1000 * number + k, benchmark_T) for k in range(30)]
        best = max(range(30), key=lambda k: books[k].mean() / books[k].std())
        others = [b for k, b in enumerate(books) if k != best]
        skilled.append(judge(books[best], benchmark_T, others, draws=200).p <= 0.05)
    assert np.mean(skilled) <= 0.12  # 5 % and three standard errors of 80 markets
