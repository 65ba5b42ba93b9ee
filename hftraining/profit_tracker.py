"""ProfitTracker: what a forecast would have earned over given bars, beside buy and hold.

Legend: T sessions, S symbols.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from hftraining.core.bars import Bars
from hftraining.core.forecast import Forecast
from hftraining.market.frames import bars_of
from hftraining.portfolio.config import PortfolioConfig
from hftraining.portfolio.weights import target_weights
from hftraining.trading.config import ProfitTrackerConfig
from hftraining.trading.metrics import summarize
from hftraining.trading.simulator import Simulation, hold, simulate


@dataclass(frozen=True)
class Held:
    """A benchmark over the same bars: its account, equity by session in currency, and metrics."""

    simulation: Simulation
    equity: pd.Series
    metrics: dict[str, float]


@dataclass(frozen=True)
class ProfitReport:
    """What the forecast earned.

    metrics: as `trading.metrics.summarize`. trades: as `Simulation.trades_frame`. equity: by session, in
    currency. weights_TS: the target weights; of a book in shares, what these were of the equity at each decision.
    simulation: the account in full. buy_and_hold: the benchmark.
    """

    metrics: dict[str, float]
    trades: pd.DataFrame
    equity: pd.Series
    weights_TS: np.ndarray
    simulation: Simulation
    buy_and_hold: Held


class ProfitTracker:
    """Trades forecasts in the fill engine and measures the profit.

    >>> tracker = ProfitTracker(initial_capital=10000, commission=0.001, slippage=0.0005,
    ...                         max_position_size=0.3, stop_loss=0.02, take_profit=0.05)
    >>> tracker = ProfitTracker(portfolio=PortfolioConfig(kind="top"))
    >>> report = tracker.evaluate(bars, forecast)        # the forecast has a row for each session of the bars
    >>> report.metrics["sharpe_ratio"], report.buy_and_hold.metrics["sharpe_ratio"]
    >>> report.trades                                    # symbol, side, shares, entry, exit, costs, pnl, reason
    >>> report.equity                                    # a Series by session

    Takes a ProfitTrackerConfig, its fields, or both; a given field replaces that of the config. portfolio: how
    forecasts become target weights; by default tilt, or timing for one symbol. Raises ValueError for rules that no
    market has, TypeError for a field that does not exist.
    """

    def __init__(
        self, config: ProfitTrackerConfig | None = None, /, portfolio: PortfolioConfig | None = None, **fields: object
    ) -> None:
        self.config = replace(config or ProfitTrackerConfig(), **fields)  # type: ignore[arg-type]
        self.portfolio = portfolio or PortfolioConfig()
        self._last_held: tuple[Bars, Held] | None = None

    def evaluate(self, bars: Bars | pd.DataFrame, forecast: Forecast) -> ProfitReport:
        """Trade the forecast over the bars and measure it beside buy and hold.

        bars: Bars, or a frame with one row a symbol and day, see market.frames.bars_of; its symbols come sorted.
        Nothing is held where the forecast is NaN. Without sessions the metrics are NaN. Raises ValueError where
        forecast and bars have different shapes, where a price is not positive, or where dates do not rise.
        """
        bars = bars_of(bars)
        return self.trade(bars, self.weights(bars, forecast))

    def weights(self, bars: Bars, forecast: Forecast) -> np.ndarray:
        """The target weights_TS of the portfolio for a forecast: see portfolio.weights."""
        return target_weights(forecast, bars, self.portfolio, self.config)

    def trade(self, bars: Bars, book_TS: np.ndarray, in_shares: bool = False) -> ProfitReport:
        """Trade target weights as they are given, and measure them beside buy and hold. Errors as of `simulate`.

        in_shares: the book is of signed shares.
        """
        simulation = _simulate(bars, book_TS, self.config, in_shares)
        return ProfitReport(
            metrics=summarize(simulation, self.config),
            trades=simulation.trades_frame(bars.sessions_T, bars.symbols_S),
            equity=_by_session(simulation, bars, "equity"),
            weights_TS=_weights_of(book_TS, simulation, bars) if in_shares else book_TS,
            simulation=simulation,
            buy_and_hold=self.buy_and_hold(bars),
        )

    def buy_and_hold(self, bars: Bars | pd.DataFrame) -> Held:
        """Equal weights of all that could be bought: a late listing joins when it comes, see `simulator.hold`.

        With costs, without stops. All of the capital is invested, whatever max_position_size says. The result for the
        last Bars object is cached for repeated probes. bars: as for evaluate.
        """
        bars = bars_of(bars)
        if self._last_held is None or self._last_held[0] is not bars:
            self._last_held = (bars, self._held(bars, _hold(bars, self.config), "buy_and_hold"))
        return self._last_held[1]

    def risk_matched(self, bars: Bars | pd.DataFrame, exposure: float) -> Held:
        """Buy and hold with a part of the capital, the rest idle in cash: its risk is that of a book of this exposure.

        exposure: the book's mean gross weight, a fraction; above 1 it counts as 1. At 0, or NaN, nothing is bought.
        bars: as for evaluate.
        """
        bars = bars_of(bars)
        part = min(1.0, exposure) if exposure > 0.0 else 0.0  # NaN compares as false
        if part == 0.0:
            flat = _simulate(bars, np.zeros(bars.close_TS.shape), self.config)
            return self._held(bars, flat, "risk_matched")
        capital = self.config.initial_capital
        invested = _hold(bars, replace(self.config, initial_capital=part * capital))
        return self._held(bars, _with_cash(invested, (1.0 - part) * capital), "risk_matched")

    def _held(self, bars: Bars, simulation: Simulation, name: str) -> Held:
        return Held(simulation, _by_session(simulation, bars, name), summarize(simulation, self.config))


def _prices(bars: Bars) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    return bars.open_TS, bars.high_TS, bars.low_TS, bars.close_TS


def _simulate(bars: Bars, book_TS: np.ndarray, rules: ProfitTrackerConfig, in_shares: bool = False) -> Simulation:
    return simulate(*_prices(bars), book_TS, rules, sessions_T=bars.sessions_T, in_shares=in_shares)


def _weights_of(shares_TS: np.ndarray, simulation: Simulation, bars: Bars) -> np.ndarray:
    """What shares are of the account's equity at their decision; NaN where nothing is decided, 0 without a bar."""
    equity_T1 = simulation.equity_T[:, None]
    weights_TS = np.nan_to_num(shares_TS * bars.close_TS) / np.where(equity_T1 > 0.0, equity_T1, np.inf)
    return np.where(np.isnan(shares_TS), np.nan, weights_TS)


def _hold(bars: Bars, rules: ProfitTrackerConfig) -> Simulation:
    return hold(*_prices(bars), replace(rules, stop_loss=0.0, take_profit=0.0), sessions_T=bars.sessions_T)


def _with_cash(simulation: Simulation, cash: float) -> Simulation:
    """The same account with idle cash beside it, in currency."""
    equity_T = simulation.equity_T + cash
    gross_T = simulation.gross_T * simulation.equity_T / equity_T
    return replace(simulation, equity_T=equity_T, cash_T=simulation.cash_T + cash, gross_T=gross_T)


def _by_session(simulation: Simulation, bars: Bars, name: str) -> pd.Series:
    index = pd.DatetimeIndex(np.asarray(bars.sessions_T).astype("datetime64[s]"), name="session")
    return pd.Series(simulation.equity_T, index=index, name=name)
