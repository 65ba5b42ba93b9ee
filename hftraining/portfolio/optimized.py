"""The kinds of portfolio that skfolio optimises: hrp and mean_variance, both long only and fully invested.

Legend: T sessions, S symbols, N sessions that are estimated on, K symbols that take part.
"""

import hashlib
import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from hftraining.core.errors import UserError, in_a_line
from hftraining.portfolio.config import PortfolioConfig
from hftraining.trading.strategies import daily_returns

SPAN, LEAST_RETURNS = 252, 60  # sessions
STILL = 1e-6  # a day; a price without a volatility has no correlation with others
# The rank correlation of forecasts and outcomes that mean_variance assumes: a good one (Grinold and Kahn 2000, ch. 6).
INFORMATION = 0.05
# Weights that this process has solved for: a paper account asks at each close for all of its rebalances again.
_KNOWN: dict[bytes, np.ndarray] = {}
MOST_KNOWN = 4096

Solver = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # return_NK, score_K, before_K -> weights_K


def hrp(close_TS: np.ndarray, base_TS: np.ndarray, every: int) -> np.ndarray:
    """Hierarchical risk parity of the trailing returns; the score is not read. Returns weights_TS, summing to 1.

    skfolio's HierarchicalRiskParity with its defaults: variance, Pearson distance, Ward linkage. Estimated as
    `_every_so_often` says. Raises UserError without skfolio.
    Source: Lopez de Prado (2016), "Building Diversified Portfolios that Outperform Out of Sample".
    """
    optimization = _skfolio("hrp")

    def solve(return_NK: np.ndarray, score_K: np.ndarray, before_K: np.ndarray) -> np.ndarray:
        return np.asarray(optimization.HierarchicalRiskParity().fit(return_NK).weights_)

    return _every_so_often(close_TS, np.zeros(close_TS.shape), base_TS, every, solve, "hrp")


def mean_variance(
    score_TS: np.ndarray, close_TS: np.ndarray, base_TS: np.ndarray, portfolio: PortfolioConfig
) -> np.ndarray:
    """The weights_TS that are worth most until the next rebalance, in `every` sessions; they sum to 1.

    Maximises every * (mu'w - risk_aversion * w'Vw) - turnover_penalty * sum |w - before|, w >= 0, sum w = 1. V: the
    sample covariance of the trailing daily returns. mu, a day, = INFORMATION * volatility * score / sqrt(every), so
    over `every` sessions INFORMATION * their volatility * the score: it takes relative and absolute forecasts alike.
    before: the weights of the last rebalance, before drift. Estimated as `_every_so_often` says; by skfolio's MeanRisk.
    score: smoothed, in standard deviations. Raises UserError without skfolio.
    Sources: Markowitz (1952); Grinold (1994), "Alpha is Volatility times IC times Score".
    """
    optimization = _skfolio("mean_variance")
    every = portfolio.every

    def solve(return_NK: np.ndarray, score_K: np.ndarray, before_K: np.ndarray) -> np.ndarray:
        mean_K = INFORMATION * return_NK.std(axis=0, ddof=1) * score_K / math.sqrt(every)
        model = optimization.MeanRisk(
            objective_function=optimization.ObjectiveFunction.MAXIMIZE_UTILITY,
            risk_aversion=portfolio.risk_aversion,
            transaction_costs=portfolio.turnover_penalty / every,
            previous_weights=before_K,
            overwrite_expected_return=lambda weights_K: mean_K @ weights_K,
        )
        return np.asarray(model.fit(return_NK).weights_)

    settings = f"mean_variance {every} {portfolio.risk_aversion!r} {portfolio.turnover_penalty!r}"
    return _every_so_often(close_TS, score_TS, base_TS, every, solve, settings)


def _every_so_often(
    close_TS: np.ndarray, score_TS: np.ndarray, base_TS: np.ndarray, every: int, solve: Solver, settings: str
) -> np.ndarray:
    """Solve on every `every`-th session from the first that has stocks, and keep the weights between.

    Estimated on the close-to-close returns of the last SPAN sessions, or of all so far, at least LEAST_RETURNS; the
    symbols that have each of them and whose price moves take part. Before, and where none takes part, the base
    weights of the session. A single symbol that takes part has all of the book. settings: all that `solve` depends on
    beside its arguments.
    """
    weights_TS = np.zeros(close_TS.shape)
    return_TS = daily_returns(close_TS)
    first = int(np.argmax(base_TS.any(axis=1)))
    for t in range(first, len(close_TS)):
        if (t - first) % every:
            weights_TS[t] = weights_TS[t - 1]
            continue
        weights_TS[t] = base_TS[t]
        return_NS = return_TS[max(first + 1, t + 1 - SPAN) : t + 1]
        if len(return_NS) < LEAST_RETURNS:
            continue
        takes_part_S = np.isfinite(return_NS).all(axis=0)
        takes_part_S[takes_part_S] &= return_NS[:, takes_part_S].std(axis=0) > STILL
        if not takes_part_S.any():
            continue
        before_S = weights_TS[t - 1].copy()
        weights_TS[t] = 0.0
        if takes_part_S.sum() == 1:
            weights_TS[t, takes_part_S] = 1.0
            continue
        return_NK = np.ascontiguousarray(return_NS[:, takes_part_S])
        with warnings.catch_warnings():
            # Of more symbols than returns the sample covariance is singular, and skfolio takes the nearest that is not.
            warnings.filterwarnings("ignore", "The covariance matrix is not positive definite", UserWarning)
            arrays = return_NK, score_TS[t, takes_part_S], before_S[takes_part_S]
            weights_K = _known(settings, arrays, partial(_solved, solve, t, *arrays))
        weights_TS[t, takes_part_S] = np.maximum(weights_K, 0.0)  # a solver leaves some at -1e-9
        weights_TS[t] /= weights_TS[t].sum()
    return weights_TS


def _known(settings: str, arrays: tuple[np.ndarray, ...], solved: Callable[[], np.ndarray]) -> np.ndarray:
    """What the same settings and arrays, to the bit, were solved to before; the oldest are forgotten."""
    digest = hashlib.sha256(f"{settings} {[array.shape for array in arrays]}".encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array, np.float64).data)
    key = digest.digest()
    if key not in _KNOWN:
        found = solved()
        if len(_KNOWN) >= MOST_KNOWN:
            del _KNOWN[next(iter(_KNOWN))]
        _KNOWN[key] = found
    return _KNOWN[key]


def _solved(solve: Solver, t: int, return_NK: np.ndarray, *arrays: np.ndarray) -> np.ndarray:
    from skfolio.exceptions import SkfolioError

    try:
        return solve(return_NK, *arrays)
    except SkfolioError as error:
        extreme = np.abs(return_NK).max()
        raise UserError(
            f"portfolio: skfolio found no weights at session {t + 1}, of {return_NK.shape[1]} symbols with returns of "
            f"up to {extreme:.3g} a day: choose another portfolio or other stocks ({in_a_line(str(error), 200)})"
        ) from error


def _skfolio(kind: str) -> Any:
    try:
        import skfolio.optimization
    except ImportError:
        raise UserError(f'portfolio.kind={kind}: skfolio is not installed: pip install -e ".[portfolio]"') from None
    return skfolio.optimization
