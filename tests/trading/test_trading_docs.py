"""The worked example of docs/trading.md is what the engine does."""

from pathlib import Path

import numpy as np
import pytest

from hftraining.trading.config import TradingRules
from hftraining.trading.dtypes import REASONS
from hftraining.trading.simulator import simulate

RULES = TradingRules(max_position_size=0.3, stop_loss=0.02, take_profit=0.05, rebalance_band=0.05)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "trading.md"


def tables():
    """The page's tables as lists of rows of cells, without their headings."""
    found, rows = [], []
    for line in [*PAGE.read_text().splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            found.append(rows[2:])
            rows = []
    return found


def test_the_worked_example_of_the_docs_is_what_the_engine_does():
    bars, trades, account = tables()[:3]
    numbers = np.array(bars, float)
    result = simulate(*(numbers[:, [i]] for i in range(1, 5)), numbers[:, [5]], RULES)
    assert len(trades) == len(result.trades)
    for written, trade in zip(trades, result.trades, strict=True):
        assert (written[0], written[8]) == ({1: "long", -1: "short"}[trade["side"]], REASONS[trade["reason"]])
        names = ("shares", "entry_t", "entry_price", "exit_t", "exit_price", "costs", "pnl")
        assert [float(cell) for cell in written[1:8]] == pytest.approx([trade[name] for name in names], abs=5.1e-5)
    got = np.column_stack([result.cash_T, result.shares_TS[:, 0], result.equity_T])
    np.testing.assert_allclose(np.array(account, float)[:, 1:], got, atol=5.1e-5)


def test_the_first_trade_of_the_docs_follows_from_the_rules_by_arithmetic():
    paid = 101 * 1.0005
    left = paid * 0.98 * 0.9995
    written = tables()[1][0]
    assert float(written[7]) == pytest.approx(30 * (left - paid) - 0.001 * 30 * (paid + left), abs=5e-5)
