"""Tilt, top, long_short, core and timing by hand, and at their edges."""

import numpy as np
import pytest

from hftraining.portfolio.volatility import inverse_volatility
from hftraining.portfolio.weights import target_weights
from hftraining.trading.config import TradingRules
from tests.portfolio.books import RULES, bars_of, flat_bars, forecast_of, portfolio, random_bars, random_forecast

NAN = np.nan
SCORED = ("tilt", "top", "long_short", "core")


def weights(config, median_TS, bars=None, rules=RULES):
    given = forecast_of(median_TS)
    return target_weights(given, bars or flat_bars(*given.head_TS.shape), config, rules)


def test_tilt_leans_equal_weights_by_the_score():
    # Medians 1, 2, 3 have z-scores -1, 0, 1: the base 1/3 is multiplied by 0.5, 1 and 1.5.
    assert weights(portfolio(strength=0.5), [[1.0, 2.0, 3.0]])[0] == pytest.approx([1 / 6, 2 / 6, 3 / 6])
    # At strength 4 the worst would be short, so it has nothing: 0, 1, 5.
    assert weights(portfolio(strength=4.0), [[1.0, 2.0, 3.0]])[0] == pytest.approx([0.0, 1 / 6, 5 / 6])


def test_top_holds_the_best_fraction_and_keeps_a_stock_until_it_falls_out_of_the_band():
    config = portfolio("top", fraction=0.2, keep=0.6)  # of five: one place, kept while among the best three
    medians = [
        [5, 4, 3, 2, 1],  # the first is bought
        [3, 5, 4, 2, 1],  # it is third: kept
        [2, 5, 4, 3, 1],  # it is fourth: the best takes its place
        [5, 4, 3, 2, 1],  # second: kept
    ]
    assert weights(config, medians).argmax(axis=1).tolist() == [0, 0, 1, 1]
    assert (weights(config, medians).sum(axis=1) == 1.0).all()


def test_top_shares_its_places_equally():
    got = weights(portfolio("top", fraction=0.4), [[5, 1, 4, 2, 3]])
    assert got.tolist() == [[0.5, 0.0, 0.5, 0.0, 0.0]]


def naive_top(score_TS, present_TS, fraction, keep):
    """Sets and sorted lists, day by day."""
    held, away, days = set(), {}, []
    for score_S, present_S in zip(score_TS, present_TS, strict=True):
        order = sorted(np.flatnonzero(present_S), key=lambda s: -score_S[s])
        places = max(1, int(fraction * len(order) + 0.5))
        kept = max(places, int(keep * len(order) + 0.5))
        away = {s: 0 if present_S[s] else away.get(s, 0) + 1 for s in range(len(score_S))}
        held = {s for s in held if (s in order[:kept] if present_S[s] else away[s] <= 5)}
        for s in order:
            if len(held) < places and s not in held:
                held.add(s)
        days.append([1 / len(held) if s in held else 0.0 for s in range(len(score_S))])
    return np.array(days)


def test_top_equals_a_loop_with_sets_also_where_bars_are_missing_and_symbols_leave():
    for seed in range(20):
        bars = random_bars(seed, 60, 9, missing=0.15)
        median_TS = np.cumsum(np.random.default_rng(seed).normal(size=(60, 9)), axis=0)
        got = weights(portfolio("top", fraction=0.3, keep=0.5), median_TS, bars)
        # Within a day a z-score keeps the order of the medians.
        np.testing.assert_allclose(got, naive_top(median_TS, bars.present_TS, 0.3, 0.5), atol=1e-15)


def test_long_short_holds_the_best_against_the_worst_a_half_each():
    got = weights(portfolio("long_short", fraction=0.4), [[5, 1, 4, 2, 3]])
    assert got[0] == pytest.approx([0.25, -0.25, 0.25, -0.25, 0.0])


def test_equal_scores_at_the_border_of_a_side_share_its_last_places():
    got = weights(portfolio("long_short", fraction=0.4), [[5.0, 3.0, 3.0, 2.0, 1.0]])
    # Two places above: the first has one, the next two half a place each.
    assert got[0] == pytest.approx([0.25, 0.125, 0.125, -0.25, -0.25])


def test_core_is_a_share_of_long_short_over_equal_weights():
    got = weights(portfolio("core", fraction=0.4, share=0.3), [[5, 1, 4, 2, 3]])
    base, side = 0.7 / 5, 0.3 / 4
    assert got[0] == pytest.approx([base + side, base - side, base + side, base - side, base])


def test_core_without_short_positions_only_sells_what_it_holds():
    rules = TradingRules(max_position_size=1.0, allow_short=False)
    got = weights(portfolio("core", fraction=0.2, share=0.9), [[5, 1, 4, 2, 3]], rules=rules)
    assert got[0] == pytest.approx([0.02 + 0.45, 0.0, 0.02, 0.02, 0.02])


def test_timing_moves_a_stock_between_nothing_and_all_by_its_forecast_over_its_own_past():
    median_T = np.array([0.5, -0.5] * 10 + [0.1, 3.0, -3.0, NAN])
    got = weights(portfolio("timing"), median_T[:, None])[:, 0]
    assert (got[:19] == 0.5).all()  # fewer than twenty forecasts, and so no score
    assert got[20] == pytest.approx(0.5 + 0.5 * 0.1 / np.std(median_T[:21], ddof=1))
    assert got[21:].tolist() == [1.0, 0.0, 0.5]


def test_timing_of_several_stocks_times_each_at_its_base_weight():
    median_TS = np.random.default_rng(0).normal(size=(40, 2))
    both = weights(portfolio("timing"), median_TS)
    alone = [weights(portfolio("timing"), median_TS[:, [s]])[:, 0] for s in range(2)]
    np.testing.assert_allclose(both, np.stack(alone, axis=1) / 2, rtol=1e-12)


@pytest.mark.parametrize("kind", ["tilt", "top", "core"])
def test_without_any_forecast_the_stocks_of_the_day_have_equal_weights(kind):
    close_TS = np.full((3, 4), 100.0)
    close_TS[1, 2] = NAN
    got = weights(portfolio(kind, share=0.0), np.full((3, 4), NAN), bars_of(close_TS))
    np.testing.assert_allclose(got, [[1 / 4] * 4, [1 / 3, 1 / 3, 0, 1 / 3], [1 / 4] * 4])


@pytest.mark.parametrize("kind", ["tilt", "top", "core"])
def test_equal_forecasts_give_equal_weights(kind):
    assert weights(portfolio(kind, share=0.0), [[0.3] * 3])[0] == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("medians", [[NAN] * 5, [0.2] * 5])
def test_long_short_holds_nothing_where_no_stock_is_better_than_another(medians):
    assert (weights(portfolio("long_short"), [medians]) == 0.0).all()


@pytest.mark.parametrize(("kind", "weight"), [("tilt", 1.0), ("top", 1.0), ("long_short", 0.0), ("core", 0.7)])
def test_a_single_stock_has_nothing_to_be_compared_with(kind, weight):
    assert weights(portfolio(kind), [[0.3], [-0.2]])[:, 0] == pytest.approx([weight, weight])


def test_a_day_without_any_bar_has_no_weights():
    for kind in SCORED:
        assert (weights(portfolio(kind), [[0.1, 0.2]], bars_of([[NAN, NAN]])) == 0.0).all()


def test_top_begins_anew_after_days_without_any_forecast():
    medians = [[5, 4, 3, 2, 1], [NAN] * 5, [1, 2, 3, 4, 5]]
    got = weights(portfolio("top"), medians)
    np.testing.assert_allclose(got, [[1, 0, 0, 0, 0], [0.2] * 5, [0, 0, 0, 0, 1]])


def test_inverse_volatility_is_of_the_trailing_sixty_returns_and_the_median_where_there_are_too_few():
    bars = random_bars(3, 120, 5, missing=0.0)
    close_TS = bars.close_TS.copy()
    close_TS[:100, 0] = NAN  # listed late: 19 returns at the end
    got = 1 / inverse_volatility(close_TS)
    for t in (10, 19, 20, 70, 119):
        own = [np.diff(close_TS[: t + 1, s]) / close_TS[:t, s] for s in range(5)]
        known = [r[-60:].std(ddof=1) if np.isfinite(r).sum() >= 20 else NAN for r in own]
        middle = np.nanmedian(known) if np.isfinite(known).any() else 1.0
        np.testing.assert_allclose(got[t], np.where(np.isfinite(known), known, middle), rtol=1e-10)


@pytest.mark.parametrize("kind", ["tilt", "top", "long_short", "core"])
def test_inverse_volatility_weights_are_in_proportion_to_it_on_each_side(kind):
    bars = random_bars(4, 80, 6, missing=0.0)
    given = random_forecast(4, bars, missing=0.0)
    equal, inverse = (
        target_weights(given, bars, portfolio(kind, fraction=0.5, share=1.0, weighting=w), RULES)[-1]
        for w in ("equal", "inverse_volatility")
    )
    volatility = np.array([(np.diff(c) / c[:-1])[-60:].std(ddof=1) for c in bars.close_TS.T])
    want = np.zeros(6)
    for side in (equal > 0, equal < 0):
        if side.any():
            raw = equal[side] / volatility[side]
            want[side] = raw / raw.sum() * equal[side].sum()
    np.testing.assert_allclose(inverse, want, rtol=1e-10)


def test_a_price_that_stands_still_does_not_take_the_whole_book():
    close_TS = random_bars(5, 60, 2, missing=0.0).close_TS.copy()
    close_TS[:, 0] = 100.0
    got = weights(portfolio(weighting="inverse_volatility"), np.full((60, 2), NAN), bars_of(close_TS))[-1]
    assert 0.9 < got[0] < 0.99
