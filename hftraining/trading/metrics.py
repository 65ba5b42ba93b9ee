"""The metrics of accounts, as fractions: pure functions of equity curves and trades.

Equity is the account value at each close, in currency. Daily returns are simple returns from close to close, so
n_days closes give n_days - 1 of them; flat days count; a day after a bankruptcy returns 0. Years are 252 days long and
the risk-free rate is 0. NaN in equity gives NaN.

Where others differ: vectorbt counts one more return, 0 on the first day, and so divides by n_days;
backtesting.py's Sharpe ratio divides the geometric annual return by the volatility.

Legend: T sessions, W accounts.
"""

# mypy: allow-untyped-defs

import math

import numpy as np
from numba import njit

from hftraining.trading.config import TradingRules
from hftraining.trading.dtypes import OPEN
from hftraining.trading.simulator import SESSIONS_PER_YEAR, Simulation

# Rounding alone gives returns a spread of about 1e-16; below this there is no variance.
NO_SPREAD = 1e-14


@njit(cache=True, nogil=True, error_model="numpy")
def _moments(equity_TW, initial):
    """Mean return, sum of squared deviations, sum of squared losses, deepest drawdown; an array (W,) each.

    One pass, Welford's update. The loops over accounts are short and many so that each of them vectorises.
    """
    n_days, n_accounts = equity_TW.shape
    peak_W, drawdown_W, sum_W = np.full(n_accounts, initial), np.zeros(n_accounts), np.zeros(n_accounts)
    return_W, mean_W, deviations_W = np.zeros(n_accounts), np.zeros(n_accounts), np.zeros(n_accounts)
    losses_W = np.zeros(n_accounts)
    for t in range(n_days):
        equity_W = equity_TW[t]
        for w in range(n_accounts):
            peak_W[w] = equity_W[w] if equity_W[w] > peak_W[w] else peak_W[w]
            fall = equity_W[w] / peak_W[w] - 1.0
            drawdown_W[w] = drawdown_W[w] if fall >= drawdown_W[w] else fall
        for w in range(n_accounts):
            sum_W[w] += equity_W[w]
        if t == 0:
            continue
        before_W, share = equity_TW[t - 1], 1.0 / t
        for w in range(n_accounts):
            return_W[w] = equity_W[w] / before_W[w] - 1.0 if before_W[w] != 0.0 else 0.0
        for w in range(n_accounts):
            delta = return_W[w] - mean_W[w]
            mean_W[w] += delta * share
            deviations_W[w] += delta * (return_W[w] - mean_W[w])
        for w in range(n_accounts):
            loss = return_W[w] if return_W[w] < 0.0 else 0.0
            losses_W[w] += loss * loss
    for w in range(n_accounts):
        if sum_W[w] != sum_W[w]:
            mean_W[w] = deviations_W[w] = losses_W[w] = drawdown_W[w] = math.nan
    return mean_W, deviations_W, losses_W, drawdown_W


def daily_returns(equity: np.ndarray) -> np.ndarray:
    """Simple returns from close to close: one fewer than closes, along the first axis. After a bankruptcy 0."""
    before = np.asarray(equity[:-1], np.float64)
    return np.divide(equity[1:], before, out=np.ones_like(before), where=before != 0.0) - 1.0


def sharpe_ratio(equity_TW: np.ndarray) -> np.ndarray:
    """Annualised Sharpe ratio of each account, (W,), as in `equity_metrics`."""
    return equity_metrics(equity_TW, math.nan)["sharpe_ratio"]


def equity_metrics(equity_TW: np.ndarray, initial_capital: float) -> dict[str, np.ndarray]:
    """Each metric that depends on equity curves alone, by name: (W,) from curves (T, W).

    total_return: equity[-1] / initial_capital - 1. NaN without days.
    sharpe_ratio: mean over standard deviation (ddof 1) of daily returns, times sqrt(252). NaN with fewer than two
    returns or without variance. Source: Sharpe (1994).
    sortino_ratio: mean daily return over the root of the mean squared loss, times sqrt(252); days without a loss count
    as 0 in that mean. NaN without a losing day. Source: Sortino and Price (1994).
    calmar_ratio: cagr / |max_drawdown|. NaN without a drawdown. Source: Young (1991), over the whole curve.
    volatility: standard deviation (ddof 1) of daily returns, times sqrt(252). NaN with fewer than two returns.
    cagr: (equity[-1] / initial_capital) ** (252 / n_returns) - 1. NaN without a return.
    max_drawdown: the least of equity[t] / max(equity[:t + 1], initial_capital) - 1, at most 0. NaN without days.
    """
    n_days, n_accounts = equity_TW.shape
    n = n_days - 1  # returns
    names = ("total_return", "sharpe_ratio", "sortino_ratio", "calmar_ratio", "volatility", "cagr", "max_drawdown")
    if n_days == 0:
        return {name: np.full(n_accounts, math.nan) for name in names}
    mean_W, deviations_W, losses_W, drawdown_W = _moments(np.ascontiguousarray(equity_TW, np.float64), initial_capital)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        spread_W = np.sqrt(deviations_W / (n - 1 if n > 1 else math.nan))
        downside_W = np.sqrt(losses_W / (n or math.nan))
        growth_W = equity_TW[-1] / initial_capital
        cagr_W = growth_W ** (SESSIONS_PER_YEAR / n) - 1.0 if n else np.full(n_accounts, math.nan)
        year = math.sqrt(SESSIONS_PER_YEAR)
        values = (
            growth_W - 1.0,
            np.where(spread_W > NO_SPREAD, mean_W / spread_W, math.nan) * year,
            np.where(downside_W > 0.0, mean_W / downside_W, math.nan) * year,
            np.where(drawdown_W < 0.0, cagr_W / -drawdown_W, math.nan),
            spread_W * year,
            cagr_W,
            drawdown_W,
        )
    return dict(zip(names, values, strict=True))


def turnover(traded_T: np.ndarray, equity_T: np.ndarray) -> float:
    """Traded value / mean equity, a year: bought and sold value both count. NaN without a return.

    traded_T: value of each session's fills, in currency.
    """
    if len(equity_T) < 2:
        return math.nan
    return float(traded_T.sum() / equity_T.mean() * SESSIONS_PER_YEAR / (len(equity_T) - 1))


def summarize(simulation: Simulation, rules: TradingRules) -> dict[str, float]:
    """All metrics of one account: those of `equity_metrics`, `turnover`, and four more.

    win_rate: share of closed trades with pnl > 0 after all costs, NaN without any. trade_count: closed round trips.
    costs: commission, slippage and borrow, as a fraction of initial capital. exposure: mean gross weight over all
    closes, NaN without sessions.
    """
    paths = equity_metrics(simulation.equity_T[:, None], rules.initial_capital)
    pnl = simulation.trades["pnl"][simulation.trades["reason"] != OPEN]
    return {name: float(values[0]) for name, values in paths.items()} | {
        "win_rate": float((pnl > 0.0).mean()) if len(pnl) else math.nan,
        "trade_count": float(len(pnl)),
        "turnover": turnover(simulation.traded_T, simulation.equity_T),
        "costs": float(simulation.costs_T.sum() / rules.initial_capital),
        "exposure": float(simulation.gross_T.mean()) if len(simulation.gross_T) else math.nan,
    }
