"""The fill engine: target weights and bars in, an account and its trades out.

A decision after the close of session t is an order for shares, filled at the open of t + lag. docs/trading.md
works an example by hand; trading/step.py compiles what one bar does.

Legend: T sessions, S symbols, D draws (portfolios over the same bars).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hftraining.trading import lanes
from hftraining.trading import step as engine
from hftraining.trading.checks import check_sessions, check_shapes, check_values, last_bars
from hftraining.trading.config import TradingRules
from hftraining.trading.dtypes import ACCOUNT, POSITION, REASONS, RULES, TRADE

SESSIONS_PER_YEAR = 252
STAGES = ("reduced", "enlarged", "closed")  # of a session: orders that reduce, orders that open, and until the close

# Shifted weights that are no longer rows of one array are copies; this limits them to 64 MB at a time.
_CHUNK_VALUES = 8_000_000


@dataclass(frozen=True)
class Simulation:
    """What one account went through. Values in currency, at each session's close unless said otherwise.

    equity_T: cash + shares * close; 0 for good after a bankruptcy. cash_T. shares_TS: signed. gross_T: sum of
    |shares| * close as a fraction of equity. traded_T: value of the session's fills. costs_T: commission,
    slippage and borrow of the session. trades: structured array (dtype dtypes.TRADE), closed ones in the order
    of their exits, then those that are open at the end.
    """

    equity_T: np.ndarray
    cash_T: np.ndarray
    shares_TS: np.ndarray
    gross_T: np.ndarray
    traded_T: np.ndarray
    costs_T: np.ndarray
    trades: np.ndarray

    def trades_frame(self, sessions_T: np.ndarray, symbols_S: tuple[str, ...] | list[str]) -> pd.DataFrame:
        """One row a trade: symbol, side, shares, entry and exit date and price, costs, pnl, exit_reason.

        shares: all that were opened between flat and flat. Prices are averages over the fills, slippage within.
        costs: commission, slippage and borrow. pnl: side * shares * (exit - entry) - commission - borrow.
        A trade that is `open` at the end has no exit date (NaT) and counts what is left at its last close.
        """
        return trades_frame(self.trades, sessions_T, symbols_S)


def trades_frame(trades: np.ndarray, sessions_T: np.ndarray, symbols_S: tuple[str, ...] | list[str]) -> pd.DataFrame:
    """Trades of an account as a frame: see Simulation.trades_frame."""
    days_T = np.asarray(sessions_T).astype("datetime64[s]")
    exit_dates = np.full(len(trades), np.datetime64("NaT"), "datetime64[s]")
    is_closed = trades["exit_t"] >= 0
    exit_dates[is_closed] = days_T[trades["exit_t"][is_closed]]
    return pd.DataFrame(
        {
            "symbol": np.asarray(symbols_S, object)[trades["symbol"]],
            "side": np.where(trades["side"] > 0, "long", "short").astype(object),
            "shares": trades["shares"],
            "entry_date": days_T[trades["entry_t"]],
            "entry_price": trades["entry_price"],
            "exit_date": exit_dates,
            "exit_price": trades["exit_price"],
            "costs": trades["costs"],
            "pnl": trades["pnl"],
            "exit_reason": np.asarray(REASONS, object)[trades["reason"]],
        }
    )


class Account:
    """One account stepped bar by bar, as paper trading needs it; stepping through all bars equals `simulate`.

    account = Account(n_symbols, rules)
    account.step(open_S, high_S, low_S, close_S, weights_S)   # after each close, with the decision just taken
    account.orders_S                                          # shares wanted at the next open, NaN: no order

    rules: fills and costs. The state is plain numpy records (`account_1`, `book_S`), to be saved and restored as
    bytes.
    """

    def __init__(self, n_symbols: int, rules: TradingRules) -> None:
        self.account_1 = _accounts(1, rules)
        self.book_S = _book(n_symbols)
        self.sessions = 0
        self._rules_1 = _rules(rules)
        self._trades = np.zeros(2 * n_symbols + 16, TRADE)

    def step(
        self,
        open_S: np.ndarray,
        high_S: np.ndarray,
        low_S: np.ndarray,
        close_S: np.ndarray,
        weights_S: np.ndarray,
        is_last_S: np.ndarray | None = None,
    ) -> None:
        """Process one session: fills at its open, exits inside it, its close, and the decision after it.

        Prices are NaN for a symbol without a bar. weights_S: target weights decided after this close.
        is_last_S: symbols that never trade again after this bar; none if absent. Raises ValueError as `simulate`.
        """
        bars, weights, is_last = self._checked((open_S, high_S, low_S, close_S), weights_S, is_last_S)
        self._settle(bars, is_last, None)
        engine.decide(bars[3], weights, is_last, self.account_1[0], self.book_S, self._rules_1[0])

    def settle(
        self,
        open_S: np.ndarray,
        high_S: np.ndarray,
        low_S: np.ndarray,
        close_S: np.ndarray,
        is_last_S: np.ndarray | None = None,
        watch: Callable[[str], None] | None = None,
    ) -> None:
        """The first half of `step`, up to the marks at the close. `decide` is the other; both are `step` to the bit.

        watch: called after each of STAGES, by whoever wants to see what was filled in it.
        """
        prices = open_S, high_S, low_S, close_S
        bars, _, is_last = self._checked(prices, np.zeros(self.book_S.size), is_last_S)
        self._settle(bars, is_last, watch)

    def decide(self, close_S: np.ndarray, weights_S: np.ndarray, is_last_S: np.ndarray | None = None) -> None:
        """The other half of `step`: the orders that lead to the weights, at the close that was settled before."""
        bars, weights, is_last = self._checked((close_S,) * 4, weights_S, is_last_S)
        engine.decide(bars[3], weights, is_last, self.account_1[0], self.book_S, self._rules_1[0])

    def restore(self, account_1: np.ndarray, book_S: np.ndarray, sessions: int, trades: np.ndarray) -> None:
        """Go on from a state that was saved. trades: those closed so far. Raises ValueError for another's."""
        closed = int(account_1["closed"][0]) if account_1.shape == (1,) else -1
        if book_S.shape != self.book_S.shape or closed != len(trades) or sessions < 0:
            raise ValueError(f"the state of {book_S.size} symbols and {closed} trades is not that of this account")
        self.account_1[:], self.book_S[:], self.sessions = account_1, book_S, sessions
        self._trades = np.concatenate([trades, np.zeros(2 * book_S.size + 16, TRADE)])

    def _checked(
        self, prices: tuple[np.ndarray, ...], weights_S: np.ndarray, is_last_S: np.ndarray | None
    ) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """One session's prices, weights and last bars as the compiled code needs them."""
        rows = tuple(np.array(row, ndmin=2) for row in prices)
        bars, weights, _ = _prepared(rows, np.array(weights_S, ndmin=2))
        if weights.shape[1] != self.book_S.size:
            raise ValueError(f"weights: {weights.shape[1]} symbols, but the account has {self.book_S.size}")
        is_last = np.zeros(self.book_S.size, np.bool_) if is_last_S is None else np.asarray(is_last_S, np.bool_)
        return [bar[0] for bar in bars], weights[0], is_last

    def _settle(self, bars: list[np.ndarray], is_last: np.ndarray, watch: Callable[[str], None] | None) -> None:
        if self._n_closed + 2 * self.book_S.size > self._trades.size:
            self._trades = np.concatenate([self._trades, np.zeros_like(self._trades)])
        t, before = self.sessions, self._n_closed
        state = self.account_1[0], self.book_S, self._rules_1[0]
        self.sessions += 1
        if watch is None:
            engine.settle(t, *bars, is_last, *state, self._trades)
        elif not self.account_1[0]["bankrupt"]:
            opens = engine.reduce_at_open(t, bars[0], *state, self._trades)
            watch(STAGES[0])
            if opens:
                engine.enlarge_at_open(t, bars[0], *state)
            watch(STAGES[1])
            engine.until_close(t, *bars[1:], is_last, *state, self._trades, before)
            watch(STAGES[2])

    @property
    def equity(self) -> float:
        """Cash and positions at the last close, in currency."""
        return float(self.account_1[0]["equity"])

    @property
    def cash(self) -> float:
        """In currency."""
        return float(self.account_1[0]["cash"])

    @property
    def shares_S(self) -> np.ndarray:
        """Signed shares held."""
        return self.book_S["shares"].copy()

    @property
    def orders_S(self) -> np.ndarray:
        """Shares wanted at the next open, signed; NaN where there is no order."""
        return self.book_S["order"].copy()

    @property
    def trades(self) -> np.ndarray:
        """Trades closed so far, then what is open now marked at its last close, as in Simulation."""
        held = np.flatnonzero(self.book_S["shares"])
        trades = np.concatenate([self.closed_trades, np.zeros(len(held), TRADE)])
        for row, symbol in enumerate(held):
            engine.write_open(self.book_S[symbol], symbol, trades[self._n_closed + row])
        return trades

    @property
    def closed_trades(self) -> np.ndarray:
        """Trades closed so far, as in Simulation."""
        return self._trades[: self._n_closed]

    @property
    def _n_closed(self) -> int:
        return int(self.account_1[0]["closed"])


def simulate(
    open_TS: np.ndarray,
    high_TS: np.ndarray,
    low_TS: np.ndarray,
    close_TS: np.ndarray,
    weights_TS: np.ndarray,
    rules: TradingRules,
    *,
    sessions_T: np.ndarray | None = None,
    in_shares: bool = False,
) -> Simulation:
    """Trade target weights over bars in one account that all symbols share.

    open, high, low, close_TS: adjusted prices in currency, all four NaN where a symbol has no bar.
    weights_TS: signed fractions of equity decided after each close, finite; they are traded as given
    (caps.cap_weights holds them within max_position_size and max_gross). A session whose weights are all NaN is one
    without a decision: nothing is ordered, and what is held drifts.
    in_shares: they are signed shares instead, ordered as they are.
    sessions_T: the dates of the rows; if given, they must rise.
    Raises ValueError that names the argument and its first offending place. No sessions or no symbols give an
    account that never trades.
    """
    bars, weights, is_last_TS = _prepared((open_TS, high_TS, low_TS, close_TS), weights_TS)
    rules_1 = _rules(rules)
    rules_1["in_shares"] = in_shares
    return _run(bars, weights, is_last_TS, rules_1, rules, sessions_T)


def hold(
    open_TS: np.ndarray,
    high_TS: np.ndarray,
    low_TS: np.ndarray,
    close_TS: np.ndarray,
    rules: TradingRules,
    *,
    sessions_T: np.ndarray | None = None,
) -> Simulation:
    """Buy and hold, with all of the capital, every symbol that has a bar.

    At the close of its first bar a symbol is given 1 / n of the equity, n being what is held then and what joins with
    it; the order is filled `lag` opens later. Cash that lies idle, after a delisting, pays first; the others give up
    the rest in proportion to their value, but nothing where they have no bar. Nothing else is ever traded, except that
    an order that was cancelled is repeated, for the weight that the symbol was given, until it is filled. The
    equity up to t depends on bars up to t, and on which symbols are delisted by then.

    Arguments and errors as `simulate`. rules: fills, costs and stops; the caps are not read.
    """
    bars, _, is_last_TS = _prepared((open_TS, high_TS, low_TS, close_TS), np.zeros(close_TS.shape))
    given_1S = np.zeros((1, close_TS.shape[1]))
    rules_1 = _rules(rules)
    rules_1["hold"], rules_1["leverage"] = 1, 1.0
    return _run(bars, given_1S, is_last_TS, rules_1, rules, sessions_T)


def _run(
    bars: list[np.ndarray],
    weights: np.ndarray,
    is_last_TS: np.ndarray,
    rules_1: np.ndarray,
    rules: TradingRules,
    sessions_T: np.ndarray | None,
) -> Simulation:
    """One account over all sessions."""
    n_sessions, n_symbols = is_last_TS.shape
    if sessions_T is not None:
        check_sessions(sessions_T, n_sessions)
    account_1, book_S = _accounts(1, rules), _book(n_symbols)
    path, shares_TS = np.empty((n_sessions, 5)), np.empty((n_sessions, n_symbols))
    trades = engine.run(*bars, weights, is_last_TS, account_1[0], book_S, rules_1[0], path, shares_TS)
    equity_T, cash_T, gross_T, traded_T, costs_T = np.ascontiguousarray(path.T)
    return Simulation(equity_T, cash_T, shares_TS, gross_T, traded_T, costs_T, trades)


def simulate_draws(
    open_TS: np.ndarray,
    high_TS: np.ndarray,
    low_TS: np.ndarray,
    close_TS: np.ndarray,
    weights_DTS: np.ndarray,
    rules: TradingRules,
) -> np.ndarray:
    """Trade many weights over the same bars, each in an account of its own. Returns equity_TD.

    Each column equals the equity of `simulate` for that draw; trades are not kept. weights_DTS may be a strided
    view. Raises ValueError as `simulate`, which then also names the draw.
    """
    bars, weights, is_last_TS = _prepared((open_TS, high_TS, low_TS, close_TS), weights_DTS)
    accounts_D, book_S = _accounts(weights.shape[0], rules), _book(weights.shape[2])
    equity_TD = np.empty(weights.shape[1::-1])
    engine.run_draws(*bars, weights, is_last_TS, accounts_D, book_S, _rules(rules)[0], equity_TD)
    return equity_TD


def simulate_shifted(
    open_TS: np.ndarray,
    high_TS: np.ndarray,
    low_TS: np.ndarray,
    close_TS: np.ndarray,
    weights_TS: np.ndarray,
    rules: TradingRules,
    offset_D: np.ndarray,
    symbol_DS: np.ndarray,
) -> np.ndarray:
    """Trade a book shifted in time on a circle, and its symbols exchanged, again and again. Returns equity_TD.

    Draw d trades at session t and for symbol s the weights of session t - offset_D[d] and of symbol symbol_DS[d, s].
    Where its first session falls on one without a decision, it begins with the decision before that on the circle, so
    that a book which is decided now and then is held from the start. Each column equals the equity of `simulate` for
    that draw, to the bit. Raises ValueError as `simulate`.
    """
    prices = (open_TS, high_TS, low_TS, close_TS)
    bars, weights, is_last_TS = _prepared(prices, weights_TS)
    (rules_1,) = _rules(rules)
    n_sessions, n_draws = len(weights), len(offset_D)
    in_force_T = _in_force(weights)
    equity_TD = np.empty((n_sessions, n_draws))
    if _fits_in_lanes(rules):
        costs = (rules_1[name] for name in ("commission", "slippage", "borrow", "leverage", "band"))
        draws = np.asarray(offset_D, np.int64), np.ascontiguousarray(symbol_DS, np.int64)
        lanes.run_shifted(
            bars[0], bars[3], is_last_TS, weights, in_force_T, *draws, float(rules.initial_capital), *costs, equity_TD
        )
        return equity_TD
    at_once = max(1, _CHUNK_VALUES // max(1, weights.size))
    for first in range(0, n_draws, at_once):
        chunk = slice(first, first + at_once)
        session_DT = (np.arange(n_sessions) - offset_D[chunk, None]) % n_sessions
        session_DT[:, :1] = in_force_T[session_DT[:, :1]]
        weights_DTS = weights[session_DT[:, :, None], symbol_DS[chunk, None, :]]
        equity_TD[:, chunk] = simulate_draws(*prices, weights_DTS, rules)
    return equity_TD


def _in_force(weights_TS: np.ndarray) -> np.ndarray:
    """The session of the last decision at or before each, on a circle; each itself where nothing is ever decided."""
    session_T = np.arange(len(weights_TS))
    decided_T = np.flatnonzero(~np.isnan(weights_TS).all(axis=1)) if weights_TS.size else session_T
    return decided_T[np.searchsorted(decided_T, session_T, side="right") - 1] if len(decided_T) else session_T


def _fits_in_lanes(rules: TradingRules) -> bool:
    """Whether the rules are those of trading/lanes.py."""
    return rules.lag == 1 and not (rules.stop_loss or rules.take_profit or rules.whole_shares)


def _prepared(prices: tuple[np.ndarray, ...], weights: np.ndarray) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Bars and weights, checked and as the compiled code needs them, and where each symbol has its last bar."""
    bars = [np.ascontiguousarray(array, np.float64) for array in prices]
    weights = np.asarray(weights, np.float64)
    if weights.ndim == 2:
        weights = np.ascontiguousarray(weights)
    check_shapes(bars, weights)
    check_values(bars, weights)
    last_S = last_bars(bars[3])
    is_last_TS = np.zeros(bars[3].shape, np.bool_)
    is_last_TS[last_S[last_S >= 0], last_S >= 0] = True
    return bars, weights, is_last_TS


def _accounts(count: int, rules: TradingRules) -> np.ndarray:
    accounts = np.zeros(count, ACCOUNT)
    accounts["cash"] = accounts["equity"] = rules.initial_capital
    return accounts


def _book(n_symbols: int) -> np.ndarray:
    book_S = np.zeros(n_symbols, POSITION)
    book_S["lower"], book_S["upper"] = -np.inf, np.inf
    book_S["mark"] = book_S["order"] = book_S["later"] = np.nan
    return book_S


def _rules(rules: TradingRules) -> np.ndarray:
    rules_1 = np.zeros(1, RULES)
    for name in ("commission", "slippage", "stop_loss", "take_profit", "whole_shares", "lag"):
        rules_1[name] = getattr(rules, name)
    rules_1["borrow"] = rules.borrow_rate / SESSIONS_PER_YEAR
    rules_1["leverage"] = max(1.0, rules.max_gross)
    rules_1["band"] = rules.rebalance_band
    return rules_1
