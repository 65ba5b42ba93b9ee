"""Profit trackers for tests that ask about forecasts: each stock alone, at once and in full."""

from hftraining.portfolio.config import PortfolioConfig
from hftraining.profit_tracker import ProfitTracker

SPECIFICATION = {"max_position_size": 0.3, "stop_loss": 0.02, "take_profit": 0.05, "rebalance_band": 0.05}


def at_once(kind: str, **fields) -> PortfolioConfig:
    """A portfolio without smoothing that trades all of the way each day."""
    return PortfolioConfig(kind=kind, smoothing=0.0, trade_rate=1.0, **fields)


def edge_tracker(horizon: int = 0, **rules) -> ProfitTracker:
    """The portfolio `edge` under the specification's rules, or others."""
    return ProfitTracker(portfolio=at_once("edge", horizon=horizon), **{**SPECIFICATION, **rules})
