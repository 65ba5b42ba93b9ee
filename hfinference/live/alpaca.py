"""The Alpaca desk: whole-share orders for the next opening auction, sent once each, filled by what the broker lists.

An order is `planned` with the decision, `sending` before it leaves, and then whatever the broker says. When nobody can
say, it is `unknown` until it was looked up by its client_order_id; it is sent again, under the same id, only after the
broker said that it has no such order. What the broker rejects, cancels or lets expire has ended.

Legend: S symbols.
"""

import math
import re
import time
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta

import numpy as np

from hfinference.live.answers import BrokerFill, BrokerOrder
from hfinference.live.brokers import Alpaca, Refused, Unreachable
from hfinference.live.entries import NANO, Order, money, order_id, shares
from hfinference.live.exchange import NEW_YORK, OPG_FROM, Exchange, auction_of, takes_opg
from hfinference.live.journal import Journal
from hfinference.live.reconciling import ACCOUNT, ADVICE, BEFORE, SINCE, Reconciler, check_same
from hfinference.live.risk import Halt
from hftraining.core.bars import Bars
from hftraining.core.errors import ConfigError, listed
from hftraining.market.sessions import DEFAULT, canonical_calendar
from hftraining.trading.config import TradingRules

UNSENT = ("planned", "sending", "unknown")
_SYMBOL = re.compile(r"[A-Z0-9]{1,12}(?:-[A-Z0-9]{1,8})?")


class AlpacaDesk:
    """Orders, fills and positions of an account of Alpaca's paper trading, as the journal follows them.

    symbols_S, rules: of the run; of the rules, what costs says is not read, since the broker's costs are what they are.
    margin_seconds: how long before and after Alpaca refuses orders for the auction we send none, for clocks and
    networks that are late. sends: how often an order is sent at most that the broker says it has not.
    looks, pause: how often a difference is looked at, and seconds between. clocks: seconds that rise; the one that
    rose most is believed, since some stand still while a computer sleeps.
    """

    name = "alpaca"

    def __init__(
        self,
        broker: Alpaca,
        exchange: Exchange,
        symbols_S: Sequence[str],
        rules: TradingRules,
        *,
        margin_seconds: float = 60.0,
        sends: int = 3,
        looks: int = 3,
        pause: float = 1.0,
        clocks: Sequence[Callable[[], float]] = (time.monotonic, time.time),
    ) -> None:
        check_rules(rules)
        check_stocks(exchange, symbols_S)
        self._broker, self._exchange, self._rules = broker, exchange, rules
        self.symbols_S = tuple(symbols_S)
        self._closes = dict[str, float]()
        self._cash, self._held = 0.0, dict[str, float]()
        self._margin, self._sends, self._pause = timedelta(seconds=margin_seconds), sends, pause
        self._looks, self._clocks = looks, tuple(clocks)
        self._reconciler = Reconciler(broker, exchange, looks, pause)

    def now(self) -> datetime:
        """The broker's clock, UTC."""
        return self._broker.clock()[0]

    def opening(self) -> dict[str, object]:
        """The facts of a journal that begins with this account as it is. Raises Halt unless it is flat and idle."""
        account, (now, _) = self._broker.account(), self._broker.clock()
        if account.blocked:
            raise Halt("broker", f"the broker has blocked the account for trading: {ADVICE}")
        if held := self._broker.positions():
            raise Halt("unknown_position", f"the account holds {listed(held, 5)}: begin with a fresh paper account")
        if orders := self._broker.open_orders():
            names = listed([order.text for order in orders], 5)
            raise Halt("unknown_order", f"the account has open orders ({names}): begin with a fresh paper account")
        if account.cash_micro <= 0:
            raise Halt("cash", "the account has no cash: begin with a fresh paper account")
        # Some activities have a date and no time, so that one of today may be listed as later than now.
        known = [*self._broker.activities(now - timedelta(days=2))]
        before = sorted({row.fill_id if isinstance(row, BrokerFill) else row.entry_id for row in known})
        facts = {"capital_micro": account.cash_micro, ACCOUNT: account.account_id, SINCE: now.isoformat()}
        return {**facts, BEFORE: before}

    def reconcile(self, journal: Journal) -> None:
        """Bring the journal up to what the broker knows. Raises Halt on any difference, Unreachable."""
        self._reconciler.reconcile(journal)
        self._cash = money(journal.cash())
        self._held = {symbol: shares(count) for symbol, count in journal.positions().items()}

    def rescale(self, journal: Journal, day: str, factors: dict[str, float], reasons: dict[str, str]) -> None:
        """Nothing: the broker pays dividends in cash and splits shares itself, which reconciliation books."""

    def settle(self, journal: Journal, bars: Bars) -> None:
        """Book what the broker filled, and remember the closes. bars: of `symbols_S`, to the session to settle."""
        self.reconcile(journal)
        for symbol, close_T in zip(self.symbols_S, bars.close_TS.T, strict=True):
            if (known := np.flatnonzero(np.isfinite(close_T))).size:
                self._closes[symbol] = float(close_T[known[-1]])

    def account(self) -> tuple[float, float, dict[str, float]]:
        """Cash and equity at the last close, in currency, and the signed shares that are held.

        What is held without any close is worth nothing here; the risk gate halts on it.
        """
        worth = sum(count * self._closes.get(symbol, 0.0) for symbol, count in self._held.items())
        return self._cash, self._cash + worth, dict(self._held)

    def decide(self, journal: Journal, bars: Bars, weights_S: np.ndarray) -> list[Order]:
        """The orders for the next open: whole shares, rounded towards zero, that bring what is held to the weights.

        The rule of docs/trading.md, but for a change of side, which Alpaca takes as two orders: the first session
        closes the position, the next one opens the other. NaN weights and stocks without a bar today give no order.
        """
        day, equity = str(bars.sessions_T[-1]), self.account()[1]
        orders = []
        for symbol, weight, price in zip(self.symbols_S, weights_S, bars.close_TS[-1], strict=True):
            if not math.isfinite(weight) or not math.isfinite(price):
                continue
            change = whole_change(float(weight), float(price), self._held.get(symbol, 0.0), equity, self._rules)
            if change:
                key, side = order_id(journal.id, day, symbol), "buy" if change > 0 else "sell"
                orders.append(Order(key, day, symbol, side, abs(change) * NANO))
        return orders

    def close_only(self) -> None:
        """Nothing: with lag 2, which is refused, an earlier decision would wait."""

    def withdraw(self) -> None:
        """Nothing: a decision is nowhere but in the journal."""

    def arrays(self) -> dict[str, np.ndarray]:
        """Nothing: the account lies at the broker."""
        return {}

    def window(self, order_day: str, now: datetime) -> bool:
        """Whether an order of a day's decision may be sent at an instant: Alpaca takes it, for the right auction."""
        auction = self._exchange.next_session(date.fromisoformat(order_day))
        instants = (now - self._margin, now, now + self._margin)
        return all(takes_opg(at) and auction_of(self._exchange, at) == auction for at in instants)

    def send(self, journal: Journal, now: datetime) -> None:
        """Send what is planned and whose window is open, after reconciliation, which ends what is too late.

        now: not read: the broker's clock counts. Raises Halt, and Unreachable: then it is called again later.
        """
        if not journal.orders(UNSENT):
            return
        self.reconcile(journal)
        began, (there, opens) = [clock() for clock in self._clocks], self._broker.clock()
        is_first, failures = True, list[Unreachable]()
        for order in journal.orders(UNSENT):
            passed = max(clock() - then for clock, then in zip(self._clocks, began, strict=True))
            if not self.window(order.day, there + timedelta(seconds=passed)):
                continue
            auction = self._reconciler.auction(order)
            if (theirs := opens.astimezone(NEW_YORK).date()) != auction:
                raise Halt(
                    "market_closed",
                    f"the broker opens next on {theirs}, and our calendar says {auction}: update exchange_calendars",
                )
            if journal.halted():
                return
            try:
                self._send(journal, order)
            except Unreachable as failure:  # one order that the broker chokes on does not stop the others
                failures.append(failure)
                if len(failures) >= self._sends:
                    raise
                continue
            if is_first:  # another trader on this account may have sent since: neither sends a second one
                self._reconciler.check_open(journal)
                is_first = False
        if failures:
            raise failures[0]

    def next_send(self, journal: Journal, now: datetime) -> datetime | None:
        """When to send next: now where a window is open, else when the next one opens; None with nothing to send."""
        unsent = journal.orders(UNSENT)
        if not unsent:
            return None
        if any(self.window(order.day, now) for order in unsent):
            return now
        there = now.astimezone(NEW_YORK)
        evening = datetime.combine(there.date(), OPG_FROM, NEW_YORK) + self._margin + timedelta(seconds=1)
        return evening if evening > now else evening + timedelta(days=1)

    def _send(self, journal: Journal, order: Order) -> None:
        """Send one order until the broker has it, has rejected it, or cannot be understood."""
        key, may_arrive = order.client_order_id, order.status != "planned"
        for _ in range(self._sends):
            journal.set_order(key, "sending", attempts=1)
            failure: Refused | Unreachable
            try:
                found: BrokerOrder | None = self._broker.send(key, order.symbol, order.side, order.shares_nano // NANO)
            except (Refused, Unreachable) as error:
                failure = error
                if isinstance(failure, Unreachable):
                    journal.set_order(key, "unknown", reason=str(failure))
                found = self._broker.order(key)  # whatever the error says, it may have been accepted
            if found is not None:
                check_same(order, found)
                journal.set_order(key, "accepted", found.broker_id)
                return
            if isinstance(failure, Refused) and failure.http_status == 401:
                raise failure
            if isinstance(failure, Refused) and not failure.says_taken:
                journal.set_order(key, "unknown" if may_arrive else "rejected", reason=failure.words)
                return
            may_arrive = True  # however late; until its auction nobody can call it rejected
            time.sleep(self._pause)
        journal.set_order(key, "unknown", reason=str(failure))
        raise Unreachable(f"the order {key} cannot be delivered: {failure}")


def whole_change(weight: float, price: float, held: float, equity: float, rules: TradingRules) -> int:
    """The signed whole shares to order so that held ones become weight * equity / price of them, 0 for none."""
    weight = weight if rules.allow_short else max(weight, 0.0)
    desired = float(math.trunc(weight * equity / price))
    if held * desired > 0.0 and abs(desired - held) * price <= rules.rebalance_band * equity:
        return 0
    if held * desired < 0.0:
        desired = 0.0
    return math.trunc(desired - held)


def check_rules(rules: TradingRules) -> None:
    """Raise ConfigError for rules that orders for the opening auction cannot follow."""
    for name in ("stop_loss", "take_profit"):
        if getattr(rules, name):
            raise ConfigError(
                f"profit_tracker.{name}={getattr(rules, name):g} cannot be followed with Alpaca, where only orders for "
                f"the opening are sent: set profit_tracker.{name}=0, or use the embedded broker"
            )
    if rules.lag != 1:
        raise ConfigError(
            f"profit_tracker.lag={rules.lag} cannot be followed with Alpaca: orders are for the next open"
        )


def check_stocks(exchange: Exchange, symbols_S: Sequence[str]) -> None:
    """Raise ConfigError for stocks that Alpaca cannot have: of another exchange's hours, or by another name."""
    if canonical_calendar(exchange.name) != DEFAULT:
        raise ConfigError(f"Alpaca trades in New York, and these stocks in {exchange.name}: use the embedded broker")
    if strange := [symbol for symbol in symbols_S if not _SYMBOL.fullmatch(symbol)]:
        raise ConfigError(f"Alpaca has no stock of the name {listed(strange, 5)}: BRK.B is BRK-B here")
