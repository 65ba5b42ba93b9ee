"""The worked examples of docs/trading.md, "From forecast to target weight", are what the portfolios do."""

from pathlib import Path

import numpy as np
import pytest

from hftraining.portfolio.score import across_stocks, against_own_past
from hftraining.portfolio.weights import target_weights
from hftraining.trading.config import TradingRules
from hftraining.trading.towards import smoothed, traded_towards
from tests.portfolio.books import RULES, bars_of, flat_bars, forecast_of, portfolio

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "trading.md").read_text()
SECTION = PAGE[PAGE.index("## From forecast to target weight") :]
KINDS = ("tilt", "top", "long_short", "core", "edge", "sign", "head")


def says(number):
    """The section has this number, to four digits."""
    return f"{number:.4f}" in SECTION


def columns():
    rows = [line.strip("|").split("|") for line in SECTION.splitlines() if line.startswith("|")]
    return np.array([[float(cell) for cell in row[1:]] for row in rows[2:]]).T


def test_the_day_by_hand_is_what_each_kind_does():
    median, head, score, *wanted = columns()
    forecast = forecast_of([median], 0.1, [head])
    np.testing.assert_allclose(across_stocks(median[None] / 0.1, np.ones((1, 5), bool))[0], score, atol=5e-5)
    for kind, want in zip(KINDS, wanted, strict=True):
        config = portfolio(kind, strength=0.5, fraction=0.4, full_size_at=0.4)
        np.testing.assert_allclose(
            target_weights(forecast, flat_bars(1, 5), config, TradingRules())[0], want, atol=5e-5
        )


def test_the_timing_by_hand_is_what_it_does():
    ratio_T = np.array([0.25, -0.25] * 10 + [0.1])
    score = against_own_past(ratio_T[:, None])[-1, 0]
    weight = target_weights(forecast_of(ratio_T[:, None]), flat_bars(21, 1), portfolio("timing"), RULES)[-1, 0]
    assert says(np.std(ratio_T, ddof=1)) and says(score) and says(weight)


def two_uncorrelated_stocks(variances):
    """252 returns with just these sample variances, and no correlation."""
    sides = np.array([[1, 1], [-1, 1], [1, -1], [-1, -1]] * 63) * np.sqrt(np.array(variances) * 251 / 252)
    return bars_of(50.0 * np.cumprod(np.vstack([np.ones((1, 2)), 1.0 + sides]), axis=0))


def test_the_optimised_books_by_hand_are_what_they_are():
    pytest.importorskip("skfolio.optimization", reason="skfolio is not installed: pip install -e '.[portfolio]'")
    forecast = forecast_of(np.tile([0.1, -0.1], (253, 1)))
    parity = target_weights(forecast, two_uncorrelated_stocks([0.0001, 0.0003]), portfolio("hrp", every=21), RULES)
    np.testing.assert_allclose(parity[252], [0.75, 0.25], atol=1e-6)
    config = portfolio("mean_variance", every=21, turnover_penalty=0.0)
    best = target_weights(forecast, two_uncorrelated_stocks([0.0001, 0.0001]), config, RULES)
    assert says(best[252, 0])


def test_the_smoothing_and_the_trading_by_hand_are_what_they_do():
    assert says(smoothed(np.array([[1.2649], [0.0]]), 10.0)[1, 0])
    close_TS = np.array([[100.0, 100.0], [110.0, 100.0]])
    target_TS = np.array([[0.3, 0.7], [0.25, 0.75]])
    held = traded_towards(target_TS, close_TS, 1e-9, 1, RULES)[1]
    assert says(held[0]) and says(held[1])
    assert says(traded_towards(target_TS, close_TS, 0.1, 1, RULES)[1, 0])
