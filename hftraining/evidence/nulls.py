"""The null band: what the same book would have earned if its timing had been luck.

The book's own target weights are shifted in time on a circle and traded again through the fill engine. This keeps
turnover, exposure, concentration, sizing and costs, and destroys the timing.

Which shifts count: the band and the fan show offsets of 20 to T - 20 sessions. p also counts the book delayed by 1 to
19 sessions, because a slow book and its near delays are about equally good: without them, 6 to 7 % of books without
skill that hold for weeks had p <= 0.05. A book shifted to be some days early does not count, since it would know the
very days that a book made from prices is about to trade.

Where p fails: a book that follows prices over a lookback as long as a large part of the period. Its mean exposure then
depends on the return of that same period, and shifts of up to its lookback know the future. p of a 120-day momentum on
500 days is too large, that of a 120-day reversal too small (p <= 0.05 in 13.5 % without skill). So p alone credits
nothing: the verdict asks for an alpha against the benchmark, too (evidence/verdict.py).

Offsets are drawn without replacement, so a period has at most T - 20 draws. Repeating the same few books would make p
smaller than they can prove.

Sources: Phipson and Smyth (2010), Permutation p-values should never be zero; Lancaster et al. (2018), Surrogate data
for hypothesis testing (circular shifts).

Legend: T sessions, S symbols, D draws, Q quantiles.
"""

import math
from dataclasses import dataclass

import numpy as np

from hftraining.trading.config import TradingRules
from hftraining.trading.metrics import sharpe_ratio
from hftraining.trading.simulator import simulate_draws, simulate_shifted

MIN_OFFSET = 20  # sessions; a nearer shift keeps part of the timing of a forecast some weeks ahead
MIN_SESSIONS = 2 * MIN_OFFSET + 1  # with fewer, no two offsets are this far from home in both directions
BAND = (0.05, 0.5, 0.95)
FAN = (0.05, 0.25, 0.5, 0.75, 0.95)

# Equal accounts may sum in another order; a difference below this is a tie.
_TIE = 1e-12


@dataclass(frozen=True)
class NullBand:
    """Where the strategy lies among its own shifted books.

    p: (1 + draws at least as good by Sharpe ratio) / (1 + draws). It is 1 where nothing was traded or the book never
    changes, and NaN where the period is too short; `reason` then says so. sharpe: the strategy's, annualised.
    band: 5, 50 and 95 % quantiles of the draws' Sharpe ratios, NaN where no draw traded. fan_TQ: 5, 25, 50, 75 and
    95 % quantiles of the draws' equity at each close, in currency. selection_p, selection_band: the same with the
    symbols permuted as well, which separates selection from timing. draws: distinct offsets that p counts.
    """

    p: float
    sharpe: float
    band: tuple[float, float, float]
    fan_TQ: np.ndarray
    selection_p: float
    selection_band: tuple[float, float, float]
    draws: int
    reason: str = ""


def null_band(
    open_TS: np.ndarray,
    high_TS: np.ndarray,
    low_TS: np.ndarray,
    close_TS: np.ndarray,
    weights_TS: np.ndarray,
    rules: TradingRules,
    draws: int,
    seed: int,
) -> NullBand:
    """Trade the weights shifted by random circular offsets, all symbols together.

    Prices and weights as `trading.simulator.simulate` takes them. Weights where a symbol has no bar are shifted like
    the others; the engine gives them no order. draws: at most; T sessions have T - 20 offsets.
    Raises ValueError as `simulate_draws`.
    """
    bars = (open_TS, high_TS, low_TS, close_TS)
    n_sessions, n_symbols = weights_TS.shape
    own = float(sharpe_ratio(simulate_draws(*bars, weights_TS[None], rules))[0])
    if n_sessions < MIN_SESSIONS:
        return _too_short(own, n_sessions)

    rng = np.random.default_rng(seed)
    offset_D = 1 + rng.permutation(n_sessions - MIN_OFFSET)[:draws]
    is_far_D = offset_D >= MIN_OFFSET
    if not is_far_D.any():
        is_far_D[:] = True  # a few draws on a short period: a band of near shifts rather than none
    home_DS = np.broadcast_to(np.arange(n_symbols), (len(offset_D), n_symbols))
    equity_TD = simulate_shifted(*bars, weights_TS, rules, offset_D, home_DS)
    sharpe_D = sharpe_ratio(equity_TD)

    # Permutations make the books distinct, so offsets may repeat here.
    other_D = rng.integers(MIN_OFFSET, n_sessions - MIN_OFFSET + 1, draws)
    symbol_DS = rng.permuted(np.tile(np.arange(n_symbols), (draws, 1)), axis=1)
    selection_D = sharpe_ratio(simulate_shifted(*bars, weights_TS, rules, other_D, symbol_DS))

    return NullBand(
        p=p_value(own, sharpe_D),
        sharpe=own,
        band=_band(sharpe_D[is_far_D]),
        fan_TQ=np.quantile(equity_TD[:, is_far_D], FAN, axis=1).T,
        selection_p=p_value(own, selection_D),
        selection_band=_band(selection_D),
        draws=len(offset_D),
        reason="" if math.isfinite(own) else "nothing was traded",
    )


def _too_short(own: float, n_sessions: int) -> NullBand:
    """No band, and why."""
    unknown = (math.nan, math.nan, math.nan)
    reason = f"{n_sessions} sessions are too short for a null band, which needs {MIN_SESSIONS}"
    return NullBand(math.nan, own, unknown, np.full((n_sessions, len(FAN)), math.nan), math.nan, unknown, 0, reason)


def p_value(own: float, drawn_D: np.ndarray) -> float:
    """(1 + draws at least as good) / (1 + draws). Ties and draws that are NaN count as good; 1 where own is NaN."""
    worse = int((drawn_D < own - _TIE).sum())
    return (1 + len(drawn_D) - worse) / (1 + len(drawn_D))


def _band(sharpe_D: np.ndarray) -> tuple[float, float, float]:
    known_D = sharpe_D[np.isfinite(sharpe_D)]
    if not len(known_D):
        return math.nan, math.nan, math.nan
    low, middle, high = (float(value) for value in np.quantile(known_D, BAND))
    return low, middle, high
