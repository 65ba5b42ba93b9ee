"""Reconciliation: the journal follows what the broker says happened, and halts on what that does not explain.

Fills come from the account's activities alone. An order of ours is looked up by its client_order_id until it has ended,
whatever the list of open orders says; it ends in the journal once the fills that the broker counts are booked.

A difference that a `resume` has lifted, to the letter of its line, is accepted once: it is booked as an adjustment.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction

from hfinference.live.answers import BrokerAccount, BrokerEntry, BrokerFill, BrokerOrder, OpenOrder, order_of
from hfinference.live.brokers import Alpaca
from hfinference.live.entries import FINAL, MICRO, NANO, Adjustment, Fill, Order
from hfinference.live.exchange import NEW_YORK, Exchange
from hfinference.live.journal import Journal
from hfinference.live.risk import Halt
from hftraining.core.errors import in_a_line, listed
from hftraining.core.untrusted import shown

# Activities that move cash by the rules of the market, and no shares. Transfers are the owner's own doing.
CASH = frozenset("DIV DIVCGL DIVCGS DIVFEE DIVFT DIVNRA DIVROC DIVTW DIVTXEX INT INTNRA INTTW FEE CFEE PTC PTR".split())
SPLITS = frozenset("SPLIT SSP SSO SC REORG SPIN MA NC".split())
SENT = ("sending", "unknown", "accepted", "partially_filled")
# Facts of the journal. BEFORE: ids of the activities that were there when it began, and are in its capital.
ACCOUNT, SINCE, BEFORE, ROUNDED = "alpaca_account", "alpaca_since", "alpaca_before", "alpaca_fills_in_cash"
LATE = timedelta(days=10)  # before the last session: as far back as activities are read each time
AHEAD = timedelta(hours=1)  # a fill cannot be later than the broker's clock; what was asked meanwhile may be
MOST_TERMS = 50  # of a split: 50 for 1, 1 for 50
CENT = MICRO // 100
BY_HAND = "a trade by hand"
ADVICE = "look at the account on the broker's pages, then `resume`"


class Reconciler:
    """Brings a journal up to what the broker knows, or halts.

    looks: how often the broker is asked before a difference counts, since its parts lag behind each other. pause:
    seconds between two looks.
    """

    def __init__(self, broker: Alpaca, exchange: Exchange, looks: int, pause: float) -> None:
        self._broker, self._exchange, self._looks, self._pause = broker, exchange, looks, pause
        self._now = datetime.max.replace(tzinfo=UTC)  # the broker's clock, at the last look

    def reconcile(self, journal: Journal) -> None:
        """Complete what was on its way, book what happened, compare orders, positions and cash. Raises Halt."""
        for left in reversed(range(self._looks)):
            try:
                self._look(journal, every_activity=not left)
            except Halt:
                if not left:
                    raise
            else:
                journal.check()
                return
            time.sleep(self._pause)

    def is_over(self, order: Order, now: datetime) -> bool:
        """Whether the session is over in whose opening auction an order is filled."""
        return now >= self._exchange.close_of(self.auction(order))

    def auction(self, order: Order) -> date:
        """The session in whose opening auction an order is filled."""
        return self._exchange.next_session(date.fromisoformat(order.day))

    def _look(self, journal: Journal, every_activity: bool) -> None:
        self._account(journal)
        self._now = now = self._broker.clock()[0]
        working = self._broker.open_orders()
        ends = self._followed(journal, now, {order.client_order_id: order for order in working})
        booked = self._book(journal, every_activity)
        self._end(journal, ends, booked)
        self._compare_orders(journal, working)
        self._compare_positions(journal)
        account = self._account(journal)
        self._compare_cash(journal, account)
        if account.blocked:
            raise Halt("broker", f"the broker has blocked the account for trading: {ADVICE}")

    def check_open(self, journal: Journal) -> None:
        """Raise Halt where the broker calls an order open that is not one of ours and on its way."""
        self._compare_orders(journal, self._broker.open_orders())

    def _account(self, journal: Journal) -> BrokerAccount:
        account = self._broker.account()
        if account.account_id != journal.facts[ACCOUNT]:
            raise Halt("broker", "these keys are of another account than the journal's: use its keys, then `resume`")
        return account

    def _followed(
        self, journal: Journal, now: datetime, working: Mapping[str, OpenOrder]
    ) -> dict[str, tuple[BrokerOrder, str]]:
        """Look up each order that was sent: how those that have ended at the broker ended there, and why.

        working: those that the broker calls open, which need no look of their own.
        """
        ends: dict[str, tuple[BrokerOrder, str]] = {}
        changes: list[tuple[str, str, str]] = []
        for order in journal.orders(("planned",)):
            if now >= self._exchange.open_of(self.auction(order)):
                journal.set_order(order.client_order_id, "expired", reason="it was not sent before its auction")
        for order in journal.orders(SENT):
            key, reason = order.client_order_id, ""
            found = order_of(working[key].row) if key in working else self._broker.order(key)
            if found is None:
                self._missing(journal, order, now)
                continue
            check_same(order, found)
            if found.status not in FINAL and self.is_over(order, now):
                self._broker.cancel(found.broker_id)  # or else it might be filled another day
                found = self._broker.order(key) or found
                if found.status not in FINAL:
                    reason = "the broker still shows it as open after its auction"
            status = "partially_filled" if found.filled_nano else "accepted"
            if (order.status, order.broker_id) != (status, found.broker_id):
                changes.append((key, status, found.broker_id))
            if reason or found.status in FINAL:
                ends[key] = found, reason
        with journal.transaction():
            for key, status, broker_id in changes:
                journal.set_order(key, status, broker_id)
        return ends

    def _missing(self, journal: Journal, order: Order, now: datetime) -> None:
        """The broker says that it has no such order: it never arrived, or else the broker has forgotten it."""
        key = order.client_order_id
        if order.status in ("accepted", "partially_filled"):
            line = f"the broker no longer knows the order {key}, which it had accepted: {ADVICE}"
            self._accept(journal, Halt("broker", line))
            journal.set_order(key, "expired", reason="the broker no longer knows it, accepted by resume")
            return
        if now >= self._exchange.open_of(self.auction(order)):
            last = f" ({order.reason})" if order.reason else ""
            journal.set_order(key, "expired", reason=f"it never reached the broker, and its auction is over{last}")

    def _book(self, journal: Journal, every_activity: bool) -> Counter[str]:
        """Book the activities that the journal does not have yet; returns the nano-shares filled of each order."""
        orders: dict[str | None, Order] = {order.broker_id: order for order in journal.orders() if order.broker_id}
        known = {fill.fill_id: fill for fill in journal.fills()}
        adjusted = {entry.id for entry in journal.adjustments()} | set(journal.facts.get(BEFORE, ()))
        fills: dict[str, Fill] = {}
        entries: dict[str, Adjustment] = {}
        for activity in self._broker.activities(self._since(journal, every_activity)):
            if isinstance(activity, BrokerEntry):
                if activity.entry_id not in adjusted:
                    entries[activity.entry_id] = self._adjustment(journal, activity)
            elif activity.fill_id not in adjusted:
                fill = self._fill(journal, activity, orders)
                if isinstance(fill, Adjustment):
                    entries[fill.id] = fill
                    continue
                before = known.get(fill.fill_id) or fills.get(fill.fill_id)
                if before is None:
                    fills[fill.fill_id] = fill
                elif _numbers(before) != _numbers(fill):
                    raise Halt("broker", f"the broker has changed the fill {shown(fill.fill_id)}: {ADVICE}")
        self._accept_trades(journal, [entry for entry in entries.values() if entry.reason == BY_HAND])
        booked = Counter[str]()
        for fill in [*known.values(), *fills.values()]:
            booked[fill.client_order_id] += abs(fill.shares_nano)
        for order in orders.values():
            if booked[order.client_order_id] > order.shares_nano:
                raise Halt("broker", f"the broker lists fills of {order.client_order_id} beyond its shares: {ADVICE}")
        with journal.transaction():
            for fill in sorted(fills.values(), key=lambda fill: (fill.at, fill.fill_id)):
                journal.fill(fill)
            for entry in entries.values():
                journal.adjust(entry)
        return booked

    def _fill(self, journal: Journal, activity: BrokerFill, orders: dict[str | None, Order]) -> Fill | Adjustment:
        """The journal's fill of an activity; an adjustment where it is of no order of ours; or Halt."""
        order = orders.get(activity.broker_id) or self._order_of(journal, activity.broker_id)
        if order is not None:
            orders[activity.broker_id] = order
        if activity.at > self._now + AHEAD:
            raise Halt("broker", f"the broker dates a fill on {activity.at:%Y-%m-%d %H:%M}, in the future: {ADVICE}")
        what = f"{activity.shares_nano / NANO:+g} {activity.symbol} at {activity.price_micro / MICRO:g}"
        day = self._day(journal, activity.at.astimezone(NEW_YORK).date())
        if order is None:
            paid = -(activity.shares_nano * activity.price_micro // NANO)
            return Adjustment(activity.fill_id, day, activity.symbol, activity.shares_nano, paid, BY_HAND)
        if order.symbol != activity.symbol or order.signed_nano * activity.shares_nano <= 0:
            raise Halt("broker", f"the broker lists {what} as a fill of {order.client_order_id}: {ADVICE}")
        return Fill(
            fill_id=activity.fill_id,
            client_order_id=order.client_order_id,
            day=day,
            symbol=order.symbol,
            shares_nano=activity.shares_nano,
            price_micro=activity.price_micro,
        )

    def _order_of(self, journal: Journal, broker_id: str) -> Order | None:
        """The order of ours that has this id at the broker, where the journal does not know the id yet."""
        key = self._broker.client_order_id(broker_id)
        order = journal.order(key) if key else None
        if key and order and (found := self._broker.order(key)):
            check_same(order, found)
            journal.set_order(key, order.status, found.broker_id)
        return order

    def _adjustment(self, journal: Journal, entry: BrokerEntry) -> Adjustment:
        """The journal's adjustment for a dividend, a fee and the like. Raises Halt for what else moves an account.

        Shares that a split adds are booked where positions are compared.
        """
        what = f"{entry.kind} of {entry.cash_micro / MICRO:,.2f} {entry.symbol}".rstrip()
        line = f"the broker booked {what} on {entry.day} ({entry.entry_id})"
        if entry.kind in SPLITS:
            self._accept(journal, Halt("split", f"{line}, a change of shares: {ADVICE}"))
        elif entry.kind not in CASH:
            self._accept(journal, Halt("cash", f"{line}, which no rule of the market made: {ADVICE}"))
        day = self._day(journal, entry.day)
        return Adjustment(entry.entry_id, day, entry.symbol, 0, entry.cash_micro, f"{entry.kind} at the broker")

    def _accept_trades(self, journal: Journal, trades: Sequence[Adjustment]) -> None:
        """One Halt for all trades by hand, unless a `resume` has accepted just these."""
        if not trades:
            return
        texts = [
            f"{trade.shares_nano / NANO:+g} {trade.symbol} at "
            f"{abs(trade.cash_micro / trade.shares_nano) * NANO / MICRO:g} ({trade.id})"
            for trade in trades
        ]
        them = hashlib.sha256("\n".join(sorted(texts)).encode()).hexdigest()[:8]
        which = "which is" if len(trades) == 1 else f"{len(trades):,} fills ({them}) which are"
        line = f"the broker filled {listed(texts, 3)}, {which} of no order of this journal: {ADVICE}"
        self._accept(journal, Halt("unknown_order", line))

    def _accept(self, journal: Journal, halt: Halt) -> str:
        """Raise this halt, unless a `resume` has lifted it and it was not accepted yet; returns the id for bookings."""
        booked = {entry.id.partition(" ")[0] for entry in journal.adjustments()}
        for row in journal.halts():
            key = f"resume-{row.id}"
            if row.lifted_at and (row.name, row.reason) == (halt.name, in_a_line(str(halt))) and key not in booked:
                return key
        raise halt

    def _day(self, journal: Journal, day: date) -> str:
        """The session that an entry is booked in: its own, or the first that is not marked yet; none to come."""
        last, since = journal.last_session(), datetime.fromisoformat(journal.facts[SINCE]).date()
        first = since if last is None else self._exchange.next_session(date.fromisoformat(last.day))
        return max(min(day, self._now.astimezone(NEW_YORK).date()), first).isoformat()

    def _since(self, journal: Journal, every_activity: bool) -> datetime:
        since, last = datetime.fromisoformat(journal.facts[SINCE]), journal.last_session()
        if last is None or every_activity:
            return since
        return max(since, self._exchange.open_of(date.fromisoformat(last.day)) - LATE)

    def _end(self, journal: Journal, ends: dict[str, tuple[BrokerOrder, str]], filled: Counter[str]) -> None:
        """End the orders that have ended at the broker, once all of their fills are booked."""
        missing, changes = [], []
        for key, (found, reason) in ends.items():
            booked = filled[key]
            if booked != found.filled_nano:
                missing.append(f"{key}: {found.filled_nano / NANO:g} filled, {booked / NANO:g} listed")
                continue
            is_filled = booked == found.shares_nano
            if found.status == "filled" and not is_filled:
                raise Halt("broker", f"the broker calls {key} filled with {booked / NANO:g} shares: {ADVICE}")
            status = "filled" if is_filled else found.status if found.status in FINAL else "expired"
            changes.append((key, status, found.broker_id, reason or f"{found.status} at the broker"))
        with journal.transaction():
            for change in changes:
                journal.set_order(*change)
        if missing:
            raise Halt("broker", f"the broker counts fills that it does not list ({listed(missing, 3)}): {ADVICE}")

    def _compare_orders(self, journal: Journal, working: Sequence[OpenOrder]) -> None:
        """Every order that the broker calls open must be one of ours that is on its way."""
        for found in working:
            order = journal.order(found.client_order_id)
            what = f"{found.text} ({found.client_order_id})"
            if order is None or order.status == "planned":
                raise Halt("unknown_order", f"the broker has an open order that we did not send, {what}: {ADVICE}")
            if order.status in FINAL and not self.is_over(order, self._now):
                raise Halt("unknown_order", f"the broker has an open order, {what}, that has ended here: {ADVICE}")

    def _compare_positions(self, journal: Journal) -> None:
        """Every position must be that of the journal. Raises one Halt that names all that are not."""
        theirs, ours = self._broker.positions(), journal.positions()
        pairs = {s: (theirs.get(s, 0), ours.get(s, 0)) for s in sorted(theirs.keys() | ours.keys())}
        different = {symbol: pair for symbol, pair in pairs.items() if pair[0] != pair[1]}
        if not different:
            return
        texts = [f"{has / NANO:g} {s}, the journal {had / NANO:g}" for s, (has, had) in different.items()]
        are_splits = all(has and had and _is_ratio(Fraction(has, had)) for has, had in different.values())
        name = "unknown_position" if any(s not in ours for s in different) else "split" if are_splits else "position"
        what = ", as after a split" if name == "split" else ""
        key = self._accept(journal, Halt(name, f"the broker holds {'; '.join(texts)}{what}: {ADVICE}"))
        day = self._day(journal, date.min)
        with journal.transaction():
            for symbol, (has, had) in different.items():
                journal.adjust(Adjustment(f"{key} {symbol}", day, symbol, has - had, 0, f"{name}, accepted by resume"))

    def _compare_cash(self, journal: Journal, account: BrokerAccount) -> None:
        """Cash must be that of the journal, to a cent a new fill, by which the broker may round; that is booked."""
        difference = account.cash_micro - journal.cash()
        count = len(journal.fills())
        new = count - int(journal.facts.get(ROUNDED, 0))
        key, reason = f"rounding-{count}", f"the broker rounds, new fills: {new}"
        if abs(difference) > CENT * new:
            ours = journal.cash() / MICRO
            line = f"the broker has {ours + difference / MICRO:,.6f} in cash, the journal {ours:,.6f}: {ADVICE}"
            key, reason = self._accept(journal, Halt("cash", line)), "cash, accepted by resume"
        if not new and not difference:
            return
        with journal.transaction():
            journal.set_fact(ROUNDED, count)
            if difference:
                journal.adjust(Adjustment(key, self._day(journal, date.min), "", 0, difference, reason))


def check_same(order: Order, found: BrokerOrder) -> None:
    """Raise Halt where the broker's order is not the one that the journal has under this id."""
    ours = (order.client_order_id, order.symbol, order.side, order.shares_nano, "market", "opg")
    theirs = (
        found.client_order_id, found.symbol, found.side, found.shares_nano, found.kind, found.time_in_force,
    )  # fmt: skip
    if ours != theirs:
        raise Halt(
            "unknown_order", f"the broker's order {shown(theirs, 160)} is not ours, {shown(ours, 160)}: {ADVICE}"
        )


def _numbers(fill: Fill) -> tuple[str, str, int, int]:
    return fill.client_order_id, fill.symbol, fill.shares_nano, fill.price_micro


def _is_ratio(ratio: Fraction) -> bool:
    """Whether a position changed as by a split: 2 for 1, 1 for 10, 3 for 2 ..."""
    low, high = sorted((ratio.numerator, ratio.denominator))
    return ratio > 0 and 1 <= low <= 4 and high <= MOST_TERMS
