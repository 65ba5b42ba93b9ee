"""What must hold for every kind of portfolio, on drawn markets and forecasts, and in the engine."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftraining.core.bars import ARRAYS
from hftraining.portfolio.config import KINDS, OPTIMIZED
from hftraining.portfolio.weights import target_weights
from hftraining.trading.config import TradingRules
from hftraining.trading.metrics import summarize
from hftraining.trading.simulator import simulate
from tests.portfolio.books import RULES, bars_of, forecast_of, portfolio, random_bars, random_forecast

SEEDS = st.integers(0, 2**32 - 1)
quickly = settings(max_examples=25, deadline=None)
ALL = [kind for kind in KINDS if kind not in OPTIMIZED]
SCORED = ["tilt", "top", "long_short", "core"]
PACES = {"smoothing": 5.0, "trade_rate": 0.1, "every": 5, "volatility_target": 0.05}
LONG_ONLY = ["auto", "tilt", "top", "timing"]


def drawn_portfolio(rng, kind, **fields):
    """Any kind with every field drawn."""
    drawn = {
        "weighting": str(rng.choice(["equal", "inverse_volatility"])),
        "strength": float(rng.choice([0.1, 0.5, 3.0])),
        "fraction": float(rng.choice([0.1, 0.3])),
        "keep": float(rng.choice([0.3, 0.7])),
        "smoothing": float(rng.choice([0.0, 3.0, 20.0])),
        "trade_rate": float(rng.choice([0.1, 0.6, 1.0])),
        "every": int(rng.choice([1, 4])),
        "volatility_target": float(rng.choice([0.0, 0.1])),
    }
    return portfolio(kind, **(drawn | fields))


def drawn_rules(rng):
    return TradingRules(
        max_position_size=float(rng.choice([0.2, 1.0])), max_gross=float(rng.choice([0.5, 1.0, 2.0])), allow_short=True
    )


def engine(bars, weights_TS, rules=RULES):
    return simulate(bars.open_TS, bars.high_TS, bars.low_TS, bars.close_TS, weights_TS, rules)


@quickly
@given(SEEDS, st.sampled_from(ALL))
def test_weights_are_finite_and_within_the_caps(seed, kind):
    rng = np.random.default_rng(seed)
    bars = random_bars(seed, 50, int(rng.integers(1, 8)), missing=rng.choice([0.0, 0.3]))
    rules = drawn_rules(rng)
    got = target_weights(random_forecast(seed, bars, rng.choice([0.0, 0.5])), bars, drawn_portfolio(rng, kind), rules)
    assert got.shape == bars.close_TS.shape and np.isfinite(got).all()
    assert (np.abs(got) <= rules.max_position_size).all()
    assert (np.abs(got).sum(axis=1) <= rules.max_gross * (1 + 1e-12)).all()


@quickly
@given(SEEDS, st.sampled_from(LONG_ONLY))
def test_long_only_kinds_are_never_short_and_no_kind_is_where_shorts_are_forbidden(seed, kind):
    rng = np.random.default_rng(seed)
    bars = random_bars(seed, 50, 5)
    forecast, config = random_forecast(seed, bars), drawn_portfolio(rng, kind)
    assert (target_weights(forecast, bars, config, RULES) >= 0.0).all()
    for other in ("core", "edge", "sign", "head"):
        only_long = replace(RULES, allow_short=False)
        assert (target_weights(forecast, bars, replace(config, kind=other), only_long) >= 0.0).all()


@quickly
@given(SEEDS, st.sampled_from(["equal", "inverse_volatility"]), st.floats(0.0, 5.0), st.sampled_from([0.1, 1.0]))
def test_tilt_and_top_are_fully_invested(seed, weighting, strength, rate):
    bars = random_bars(seed, 50, 5, missing=0.0)
    for kind in ("tilt", "top"):
        config = portfolio(kind, weighting=weighting, strength=strength, trade_rate=rate, smoothing=5.0)
        got = target_weights(random_forecast(seed, bars), bars, config, RULES)
        np.testing.assert_allclose(got.sum(axis=1), 1.0, rtol=1e-12)


@quickly
@given(SEEDS, st.sampled_from(ALL))
def test_permuting_the_symbols_permutes_the_weights(seed, kind):
    rng = np.random.default_rng(seed)
    bars = random_bars(seed, 50, 7)
    # A stock that has no forecast yet has the score 0, and equal scores have no order.
    forecast, config = random_forecast(seed, bars, missing=0.0), drawn_portfolio(rng, kind)
    order = rng.permutation(7)
    moved_bars = replace(bars, **{name: getattr(bars, name)[:, order] for name in ARRAYS})
    moved = replace(forecast, quantiles_TSHQ=forecast.quantiles_TSHQ[:, order], head_TS=forecast.head_TS[:, order])
    want = target_weights(forecast, bars, config, RULES)[:, order]
    np.testing.assert_allclose(target_weights(moved, moved_bars, config, RULES), want, atol=1e-9)


@quickly
@given(SEEDS, st.sampled_from([*SCORED, "sign", "timing"]), st.floats(0.01, 100.0))
def test_scaling_the_forecast_changes_nothing_where_only_its_order_or_its_ratio_counts(seed, kind, factor):
    bars = random_bars(seed, 50, 6)
    forecast, config = random_forecast(seed, bars), drawn_portfolio(np.random.default_rng(seed), kind)
    scaled = replace(forecast, quantiles_TSHQ=factor * forecast.quantiles_TSHQ)
    want, got = (target_weights(f, bars, config, RULES) for f in (forecast, scaled))
    np.testing.assert_allclose(got, want, atol=1e-9)


@quickly
@given(SEEDS, st.sampled_from(SCORED), st.floats(0.01, 100.0))
def test_scaling_the_score_of_certain_forecasts_changes_nothing(seed, kind, factor):
    bars = random_bars(seed, 30, 6)
    median_TS = np.random.default_rng(seed).normal(size=(30, 6))
    config = portfolio(kind, smoothing=4.0)
    want, got = (target_weights(forecast_of(f * median_TS, 0.0), bars, config, RULES) for f in (1.0, factor))
    np.testing.assert_allclose(got, want, atol=1e-9)


@quickly
@given(SEEDS, st.sampled_from(ALL))
def test_later_bars_and_forecasts_leave_earlier_weights_equal_to_the_bit(seed, kind):
    rng = np.random.default_rng(seed)
    bars = random_bars(seed, 60, 6)
    forecast, config = random_forecast(seed, bars), drawn_portfolio(rng, kind)
    t = int(rng.integers(1, 60))
    other_bars, other = random_bars(seed + 1, 60, 6), random_forecast(seed + 1, bars)

    def spliced(ours, theirs):
        return np.concatenate([ours[:t], theirs[t:]])

    later_bars = replace(bars, **{name: spliced(getattr(bars, name), getattr(other_bars, name)) for name in ARRAYS})
    later = replace(
        forecast,
        quantiles_TSHQ=spliced(forecast.quantiles_TSHQ, other.quantiles_TSHQ),
        head_TS=spliced(forecast.head_TS, other.head_TS),
    )
    want = target_weights(forecast, bars, config, RULES)
    assert (target_weights(later, later_bars, config, RULES)[:t] == want[:t]).all()
    shorter = replace(forecast, quantiles_TSHQ=forecast.quantiles_TSHQ[:t], head_TS=forecast.head_TS[:t])
    assert (target_weights(shorter, bars.rows(slice(0, t)), config, RULES) == want[:t]).all()


@quickly
@given(SEEDS, st.sampled_from(ALL))
def test_a_symbol_that_has_left_is_sold_within_days(seed, kind):
    close_TS = random_bars(seed, 60, 5, missing=0.0).close_TS.copy()
    close_TS[40:, 2] = np.nan
    bars = bars_of(close_TS)
    forecast = random_forecast(seed, bars, missing=0.0)
    for array in (forecast.quantiles_TSHQ, forecast.head_TS):
        array[40:, 2] = np.nan
    rng = np.random.default_rng(seed)
    got = target_weights(forecast, bars, drawn_portfolio(rng, kind, every=1, trade_rate=0.3), RULES)
    assert (got[47:, 2] == 0.0).all() and np.isfinite(got).all()


@quickly
@given(SEEDS, st.sampled_from(ALL))
def test_the_account_of_every_kind_adds_up(seed, kind):
    rng = np.random.default_rng(seed)
    bars, rules = random_bars(seed, 50, 5), drawn_rules(rng)
    weights_TS = target_weights(random_forecast(seed, bars), bars, drawn_portfolio(rng, kind), rules)
    result = engine(bars, weights_TS, rules)
    final = rules.initial_capital + result.trades["pnl"].sum()
    assert abs(final - result.equity_T[-1]) <= 1e-9 * (rules.initial_capital + result.traded_T.sum())
    np.testing.assert_allclose(result.trades["costs"].sum(), result.costs_T.sum(), rtol=1e-9, atol=1e-9)


@quickly
@given(SEEDS, st.sampled_from(ALL), st.floats(0.01, 100.0))
def test_multiplying_the_prices_of_a_symbol_changes_nothing(seed, kind, factor):
    rng = np.random.default_rng(seed)
    bars = random_bars(seed, 50, 5)
    scaled = {n: getattr(bars, n) * np.array([factor, 1.0, 1.0, 1.0, 1.0]) for n in ARRAYS}
    forecast, config = random_forecast(seed, bars), drawn_portfolio(rng, kind)
    want, got = (engine(b, target_weights(forecast, b, config, RULES)) for b in (bars, replace(bars, **scaled)))
    np.testing.assert_allclose(got.equity_T, want.equity_T, rtol=1e-7)


@pytest.mark.parametrize("kind", ALL)
def test_perfect_foresight_earns_more_than_its_negation(kind):
    bars = random_bars(1, 300, 5, missing=0.0)
    future_TS = np.full((300, 5), np.nan)
    future_TS[:-2] = np.log(bars.open_TS[2:] / bars.open_TS[1:-1])
    earned = []
    for sight_TS in (future_TS, -future_TS):
        forecast = forecast_of(sight_TS, 0.01, np.sign(sight_TS))
        earned.append(engine(bars, target_weights(forecast, bars, portfolio(kind, strength=3.0), RULES)).equity_T[-1])
    assert earned[0] > 1.5 * earned[1] and earned[0] > RULES.initial_capital


@pytest.mark.parametrize("kind", ["long_short", "edge", "sign", "head"])
def test_books_that_need_a_forecast_leave_the_account_unchanged_to_the_bit_without_one(kind):
    bars = random_bars(2, 50, 4)
    nothing = forecast_of(np.full((50, 4), np.nan))
    weights_TS = target_weights(nothing, bars, portfolio(kind, smoothing=5.0, trade_rate=0.1), RULES)
    assert (engine(bars, weights_TS).equity_T == RULES.initial_capital).all()


def test_smoothing_and_a_low_trade_rate_trade_less():
    bars = random_bars(3, 250, 8, missing=0.0)
    forecast = random_forecast(3, bars)

    def turnover(**fields):
        result = engine(bars, target_weights(forecast, bars, portfolio("tilt", **fields), RULES))
        return summarize(result, RULES)["turnover"]

    both = turnover(smoothing=10.0, trade_rate=0.1)
    assert both < 0.5 * min(turnover(smoothing=10.0), turnover(trade_rate=0.1))
    assert max(turnover(smoothing=10.0), turnover(trade_rate=0.1), turnover(every=10)) < 0.4 * turnover()


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        *((kind, {"weighting": "inverse_volatility"}) for kind in ("tilt", "top", "long_short", "core")),
        ("tilt", {"strength": 2.0}),
        *((kind, {"fraction": 0.2}) for kind in ("top", "long_short", "core")),
        ("top", {"keep": 0.9}),
        ("core", {"share": 0.6}),
        ("edge", {"full_size_at": 1.0}),
        *((kind, {name: value}) for kind in ALL for name, value in PACES.items()),
    ],
)
def test_a_field_changes_the_weights_of_the_kinds_that_read_it(kind, fields):
    bars = random_bars(4, 60, 6, missing=0.0)
    forecast = random_forecast(4, bars, missing=0.0)
    before, after = (
        target_weights(forecast, bars, portfolio(kind, **({"fraction": 0.4} | f)), RULES) for f in ({}, fields)
    )
    assert np.abs(after - before).max() > 1e-3
