"""The `profit_tracker` group: the rules of fills and costs, and how often training is probed."""

import math
from dataclasses import dataclass

LEAST_CAPITAL, MOST_CAPITAL = 0.01, 1e15  # of a run: beyond these, sums of money are no longer exact, or are infinite
_MOST = {
    **{"borrow_rate": 100.0, "take_profit": 1e6, "rebalance_band": 1e6, "max_gross": 1e3},
    **{"every": 10**9, "report_every": 10**9},
}
MOST_SIZE = 5.0  # of max_position_size: nobody lends more on a stock


@dataclass
class TradingRules:
    """How orders are filled and what they cost. Fractions, not percent."""

    initial_capital: float = 10_000.0  # currency
    commission: float = 0.001  # of the traded value, each side
    slippage: float = 0.0005  # of the price, against us, each side
    borrow_rate: float = 0.005  # a year, of the value of a short position
    max_position_size: float = 1.0  # of equity, for one symbol
    max_gross: float = 1.0  # of equity, for the sum of all positions; above 1 is leverage
    allow_short: bool = True  # false: what would be short is flat
    stop_loss: float = 0.0  # of the average fill price; 0 switches it off
    take_profit: float = 0.0  # of the average fill price; 0 switches it off
    rebalance_band: float = 0.0  # of equity; smaller adjustments are not traded
    whole_shares: bool = False  # round orders towards zero
    lag: int = 1  # sessions from the decision (at a close) to the fill (at an open): 1 or 2

    def __post_init__(self) -> None:
        """Refuse rules that no market has."""
        for name in ("commission", "slippage", "borrow_rate", "stop_loss", "take_profit", "rebalance_band"):
            _check(name, getattr(self, name), 0.0 <= getattr(self, name), "must be zero or positive")
        for name, of in (
            ("commission", "the traded value"),
            ("slippage", "the price"),
            ("stop_loss", "the fill price"),
        ):
            value = getattr(self, name)
            _check(name, value, value < 1.0, f"must be below 1: it is a fraction of {of}{_as_percent(value)}")
        for name in ("initial_capital", "max_position_size", "max_gross"):
            _check(name, getattr(self, name), 0.0 < getattr(self, name), "must be positive")
        size = self.max_position_size
        _check("max_position_size", size, size <= MOST_SIZE, f"is a fraction of equity{_as_percent(size)}")
        self._check_most()
        _check("lag", self.lag, self.lag in (1, 2), "must be 1 or 2: a decision at a close fills at a later open")

    def _check_most(self) -> None:
        """Refuse what is larger than any rule, of the fields that a class has."""
        for name, most in _MOST.items():
            value = getattr(self, name, 0.0)
            _check(name, value, value <= most, f"must be at most {most:,}")


@dataclass
class ProfitTrackerConfig(TradingRules):
    """The trading rules, and how often training is probed."""

    name: str = "default"
    every: int = 100  # steps between two probes on the validation days
    report_every: int = 500  # steps between two detailed reports on the console

    def __post_init__(self) -> None:
        """Refuse rules that no market has, and probes that never come."""
        super().__post_init__()
        for name in ("every", "report_every"):
            _check(name, getattr(self, name), getattr(self, name) >= 1, "must be at least 1")


def _as_percent(value: float) -> str:
    """What a number means that was meant as a percentage: ": 30 % is 0.3"."""
    return f": {value:g} % is {value / 100:g}" if 1 <= value <= 100 else ""


def _check(name: str, value: float, holds: bool, rule: str) -> None:
    if not holds or not math.isfinite(value):
        raise ValueError(f"profit_tracker.{name}={value} {rule}")
