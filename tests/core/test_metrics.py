"""The table of metrics holds exactly what the engine computes: hftraining/core/metrics.py."""

import numpy as np
import pytest

from hftraining.core.metrics import ALL_TAGS, BEST_TAGS, BY_NAME, PROBED_TAGS, PROFIT, higher_is_better
from hftraining.trading.config import ProfitTrackerConfig
from hftraining.trading.metrics import summarize
from hftraining.trading.simulator import simulate
from tests.naive_engine import random_market


def test_the_table_has_exactly_the_metrics_of_a_summary():
    market = random_market(np.random.default_rng(0), 60, 2, 0.0, 0.02)
    config = ProfitTrackerConfig()
    metrics = summarize(simulate(*market, np.full((60, 2), 0.2), config), config)
    assert set(metrics) == set(BY_NAME) and len(BY_NAME) == len(PROFIT)


def test_the_tags_are_those_that_other_peoples_scripts_read():
    assert PROBED_TAGS == (
        "eval/loss", "profit/total_return", "profit/sharpe_ratio", "profit/max_drawdown", "profit/win_rate",
        "profit/trade_count",
    )  # fmt: skip
    assert set(PROBED_TAGS) < set(ALL_TAGS)
    assert BEST_TAGS == (
        "eval/loss", "eval/profit_loss", "eval/ic", "profit/total_return", "profit/sharpe_ratio",
        "profit/max_drawdown", "profit/win_rate",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("tag", "higher"),
    [
        ("eval/loss", False),
        ("eval/profit_loss", False),
        ("eval/ic", True),
        ("profit/sharpe_ratio", True),
        ("profit/max_drawdown", True),
        ("profit/costs", False),
    ],
)
def test_a_loss_improves_downwards_and_a_drawdown_below_zero_upwards(tag, higher):
    assert higher_is_better(tag) is higher


@pytest.mark.parametrize("tag", ["profit/trade_count", "profit/exposure", "profit/luck"])
def test_a_metric_without_a_better_direction_raises(tag):
    with pytest.raises(KeyError):
        higher_is_better(tag)
