"""The embedded paper broker: it fills at the real next open, by the engine's own step, and needs no key.

Legend: S symbols.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

import numpy as np

from hfinference.live.entries import OPEN, Adjustment, Fill, Order, micro, nano, order_id, shares
from hfinference.live.journal import Journal
from hfinference.live.risk import Halt
from hftraining.core.bars import Bars
from hftraining.trading.config import TradingRules
from hftraining.trading.dtypes import ACCOUNT, POSITION, REASONS, TRADE
from hftraining.trading.fills import ENTRY, Filled, Settled, settle_by_fills
from hftraining.trading.simulator import Account

STATE, TRADES = "state", "trades"
LAYOUT = [list(dtype.names or ()) for dtype in (ACCOUNT, POSITION, TRADE)]  # a fact of a journal: whose state it holds
# A fill leaves the engine's shares within the rounding of a sum of what was ordered, which may fall on either side.
SLACK_NANO = 2
PRICES = ("lower", "upper", "mark", "average")  # of a position, that a split divides
SHARES = ("shares", "order", "later", "opened")  # and that it multiplies


class EmbeddedDesk:
    """One account of the fill engine, whose state lies in the journal to the bit, beside its fills in whole units.

    A live broker learns of a delisting late: no bar is known to be a symbol's last one, so that what backtests close at
    the close of the last bar stays here, at that price, until somebody closes it.
    """

    name = "embedded"

    def __init__(self, symbols_S: Sequence[str], rules: TradingRules) -> None:
        self.symbols_S = tuple(symbols_S)
        self.engine = Account(len(self.symbols_S), rules)
        self._lag = rules.lag
        self._days = list[str]()
        self._ended = 0  # trades that were closed before this session
        self._positions = Counter[str]()

    def now(self) -> datetime | None:
        """Its clock is ours."""
        return None

    def reconcile(self, journal: Journal) -> None:
        """Go on from the journal's state. Raises Halt where it is not what the journal's fills make."""
        journal.check()
        self._days = [mark.day for mark in journal.sessions()]
        self._positions = Counter(journal.positions())
        if self._days:
            self._restore(journal)
        wanted = {symbol: nano(held) for symbol, held in zip(self.symbols_S, self.engine.shares_S, strict=True)}
        wrong = [
            symbol
            for symbol in {*wanted, *self._positions}
            if abs(wanted.get(symbol, 0) - self._positions[symbol]) > SLACK_NANO
        ]
        if wrong or micro(self.engine.cash) != journal.cash():
            raise Halt(
                "journal",
                f"{journal.path}: its fills make {shares(self._positions[wrong[0]]):,.9f} shares of {wrong[0]}, the "
                f"account has {shares(wanted.get(wrong[0], 0)):,.9f}: begin another (--journal FOLDER)"
                if wrong
                else f"{journal.path}: its fills make cash of {journal.cash() / 1e6:,.6f}, the account has "
                f"{self.engine.cash:,.6f}: begin another (--journal FOLDER)",
            )

    def rescale(self, journal: Journal, day: str, factors: dict[str, float], reasons: dict[str, str]) -> None:
        """Hold as many more shares as the prices became lower, so that no position changes its value."""
        book_S, places = self.engine.book_S, {symbol: s for s, symbol in enumerate(self.symbols_S)}
        due = {order.symbol: order for order in journal.orders(OPEN)}
        for symbol, factor in factors.items():
            if symbol not in places:
                continue
            position = book_S[places[symbol]]
            for name in PRICES:
                position[name] *= factor
            for name in SHARES:
                position[name] /= factor
            change = nano(position["shares"]) - self._positions[symbol]
            if change:
                key = f"{journal.id}-{day}-{symbol}-{reasons[symbol]}"
                journal.adjust(Adjustment(key, day, symbol, change, 0, reasons[symbol]))
                self._positions[symbol] += change
            if symbol in due:
                self._restate(journal, due[symbol], float(position["order"]))

    def settle(self, journal: Journal, bars: Bars) -> None:
        """Fill what is due at the open of the last bar, and mark at its close."""
        day, bar = str(bars.sessions_T[-1]), (bars.open_TS, bars.high_TS, bars.low_TS, bars.close_TS)
        self._ended = len(self.engine.closed_trades)
        cash, held_S = self.engine.cash, self.engine.shares_S
        done = settle_by_fills(self.engine, *(prices[-1] for prices in bar))
        due = {order.symbol: order for order in journal.orders(OPEN)}
        filled = self._book(journal, day, done, (cash, held_S), due)
        present = dict(zip(self.symbols_S, np.isfinite(bars.close_TS[-1]), strict=True))
        left = {self.symbols_S[fill.symbol] for fill in done.fills if fill.reason != ENTRY}
        for symbol, order in due.items():
            if filled[symbol] == order.shares_nano:
                journal.set_order(order.client_order_id, "filled")
                continue
            why = f"no bar on {day}" if not present[symbol] else "left by its stop or target" if symbol in left else ""
            journal.set_order(order.client_order_id, "cancelled", reason=why or "the account could not pay the rest")
        self._days.append(day)

    def account(self) -> tuple[float, float, dict[str, float]]:
        """Cash and equity at the last close, in currency, and the signed shares that are held."""
        held = zip(self.symbols_S, self.engine.shares_S, strict=True)
        return self.engine.cash, self.engine.equity, {symbol: float(count) for symbol, count in held if count}

    def decide(self, journal: Journal, bars: Bars, weights_S: np.ndarray) -> list[Order]:
        """The orders for the next open: of this decision, or with lag 2 of the one before.

        weights_S: NaN for no decision. With lag 2 what is decided now waits in the engine's state.
        """
        self.engine.decide(bars.close_TS[-1], weights_S)
        decided = self._days[-self._lag] if len(self._days) >= self._lag else self._days[0]
        orders = list[Order]()
        for symbol, wanted in zip(self.symbols_S, self.engine.orders_S, strict=True):
            change = nano(wanted) - self._positions[symbol] if np.isfinite(wanted) else 0
            if abs(change) > SLACK_NANO:
                side = "buy" if change > 0 else "sell"
                orders.append(Order(order_id(journal.id, decided, symbol), decided, symbol, side, abs(change)))
        return orders

    def close_only(self) -> None:
        """With lag 2 an order of the session before still waits: drop it where it would open or enlarge a position."""
        book_S = self.engine.book_S
        order_S, held_S = book_S["order"], book_S["shares"]
        turns_S = order_S * held_S < 0.0
        book_S["order"] = np.where(turns_S, 0.0, np.where(np.abs(order_S) > np.abs(held_S), np.nan, order_S))

    def withdraw(self) -> None:
        """Forget every order that is not filled."""
        self.engine.book_S["order"] = self.engine.book_S["later"] = np.nan

    def arrays(self) -> dict[str, np.ndarray]:
        """The engine's state after this session, and the trades that ended in it, as bytes."""
        state = np.concatenate([self.engine.account_1.view(np.uint8), self.engine.book_S.view(np.uint8)])
        return {STATE: state, TRADES: self.engine.closed_trades[self._ended :].copy().view(np.uint8)}

    def send(self, journal: Journal, now: datetime) -> None:
        """What is planned is at the desk already: it is filled at the open of the next session that comes."""

    def next_send(self, journal: Journal, now: datetime) -> datetime | None:
        """Never."""
        return None

    def _restore(self, journal: Journal) -> None:
        state = journal.arrays(STATE).get(self._days[-1])
        if state is None or state.size != ACCOUNT.itemsize + len(self.symbols_S) * POSITION.itemsize:
            raise Halt("journal", f"{journal.path} has no state of {self._days[-1]}: begin another (--journal FOLDER)")
        ended = journal.arrays(TRADES)
        parts = [ended[day].view(TRADE) for day in self._days if day in ended and ended[day].size % TRADE.itemsize == 0]
        account_1 = state[: ACCOUNT.itemsize].view(ACCOUNT)
        book_S = state[ACCOUNT.itemsize :].copy().view(POSITION)
        try:
            trades = np.concatenate(parts)
            _check_places(trades, book_S, len(self._days))
            self.engine.restore(account_1, book_S, len(self._days), trades)
        except ValueError as error:
            raise Halt("journal", f"{journal.path} is damaged ({error}): begin another (--journal FOLDER)") from None

    def _book(
        self, journal: Journal, day: str, done: Settled, before: tuple[float, np.ndarray], due: dict[str, Order]
    ) -> Counter[str]:
        """Write fills and borrow; returns the nano-shares that were filled of each symbol's order.

        Each entry is rounded so that the journal's cash after it is the engine's, rounded. before: cash and shares.
        """
        filled, count, (cash, held_S) = Counter[str](), Counter[str](), before
        booked = journal.cash()
        for fill in done.fills:
            symbol = self.symbols_S[fill.symbol]
            held_S[fill.symbol] += fill.shares
            cash -= fill.value + fill.commission
            order = due.get(symbol) if fill.reason == ENTRY else None
            change = self._change(journal, symbol, held_S[fill.symbol], fill, order, filled[symbol])
            if not change:
                continue  # less than it takes to be an order: its money is in the next entry
            count[symbol] += 1
            fee, after = micro(fill.commission), micro(cash)
            key, own = f"{journal.id}-{day}-{symbol}-{count[symbol]}", order.client_order_id if order else ""
            numbers = change, micro(fill.price), fee, booked - after - fee
            journal.fill(Fill(key, own, day, symbol, *numbers, fill.reason))
            self._positions[symbol] += change
            filled[symbol] += abs(change) if order else 0
            booked = after
        for s in np.flatnonzero(done.borrow_S):
            cash -= float(done.borrow_S[s])
            booked = self._adjust(journal, day, self.symbols_S[s], booked, cash, "borrow")
        if done.written_off:
            booked = self._adjust(journal, day, "", booked, cash + done.written_off, "written off")
        self._adjust(journal, day, "", booked, self.engine.cash, "rounding")
        return filled

    def _change(
        self, journal: Journal, symbol: str, held: float, fill: Filled, order: Order | None, filled: int
    ) -> int:
        """The nano-shares of a fill: the journal then holds the engine's shares, rounded, and no more than ordered."""
        change = nano(held) - self._positions[symbol]
        if fill.reason != ENTRY:
            return change
        if order is None:
            if abs(change) > SLACK_NANO:
                raise Halt("journal", f"{journal.path}: {fill.shares:,.9f} shares of {symbol} were filled by no order")
            return 0
        left = order.shares_nano - filled
        return min(left, max(0, change)) if order.side == "buy" else -min(left, max(0, -change))

    def _adjust(self, journal: Journal, day: str, symbol: str, booked: int, cash: float, reason: str) -> int:
        """Book what brings the journal's cash to the engine's; returns it."""
        change = micro(cash) - booked
        if change:
            key = f"{journal.id}-{day}-{symbol}-{reason}"
            journal.adjust(Adjustment(key, day, symbol, 0, change, reason))
        return booked + change

    def _restate(self, journal: Journal, order: Order, wanted: float) -> None:
        """Give an order that waits the shares that still lead to what is wanted."""
        change = nano(wanted) - self._positions[order.symbol]
        if change * order.signed_nano > 0:
            journal.restate(order.client_order_id, order.side, abs(change))


def _check_places(trades: np.ndarray, book_S: np.ndarray, sessions: int) -> None:
    """Raise ValueError for trades and positions of symbols, sessions or reasons that there are not."""
    begun = book_S["entry_t"][book_S["shares"] != 0.0]
    for what, places, most in (
        ("symbol", trades["symbol"], book_S.size),
        ("reason", trades["reason"], len(REASONS)),
        ("session", np.concatenate([trades["entry_t"], trades["exit_t"], begun]), sessions),
    ):
        if ((places < 0) | (places >= most)).any():
            raise ValueError(f"a trade is of a {what} that there is not")
