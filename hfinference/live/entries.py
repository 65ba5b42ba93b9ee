"""What a journal holds: orders, fills, adjustments, marks and halts, and its units.

Money is in micro-units, 1e-6 of the currency, shares in nano-shares, both whole numbers: sums of them are exact.
"""

import math
from dataclasses import dataclass, field

from hfinference.live.risk import Halt

MICRO, NANO = 10**6, 10**9
MOST = 2**62  # of a whole number in a journal: two of them can be added in 64 bits

FINAL = ("filled", "cancelled", "expired", "rejected")
STATUSES = ("planned", "sending", "accepted", "partially_filled", "unknown", *FINAL)
OPEN = tuple(status for status in STATUSES if status not in FINAL)
EXITS = ("stop_loss", "take_profit", "delisted", "bankrupt")  # reasons of fills that no order of ours asked for
DECISIONS = ("traded", "missed", "halted", "flat")
SIDES = ("buy", "sell")


@dataclass(frozen=True)
class Order:
    """An order of ours, written before it is sent. day: of the decision, ISO. shares_nano: more than 0.

    reason: why it ended as it did. attempts: to send it. at: of its last change, ISO in UTC.
    """

    client_order_id: str
    day: str
    symbol: str
    side: str
    shares_nano: int
    status: str = "planned"
    broker_id: str | None = None
    reason: str = ""
    attempts: int = 0
    at: str = ""

    @property
    def signed_nano(self) -> int:
        """Negative for a sale."""
        return self.shares_nano if self.side == "buy" else -self.shares_nano


@dataclass(frozen=True)
class Fill:
    """Shares that changed hands. day: of the session. shares_nano: signed. price_micro: paid, of one share.

    client_order_id: of the order; empty for an exit, whose reason is one of EXITS. value_micro: signed, what the shares
    cost without the commission; None: shares * price.
    """

    fill_id: str
    client_order_id: str
    day: str
    symbol: str
    shares_nano: int
    price_micro: int
    commission_micro: int = 0
    value_micro: int | None = None
    reason: str = "signal"
    at: str = ""

    @property
    def value(self) -> int:
        """Signed, in micro-units."""
        if self.value_micro is not None:
            return self.value_micro
        whole = abs(self.shares_nano) * self.price_micro
        value = (whole + NANO // 2) // NANO
        return value if self.shares_nano > 0 else -value


@dataclass(frozen=True)
class Adjustment:
    """Cash or shares that came or went without a trade: borrow, a dividend, a split. The same id is booked once."""

    id: str
    day: str
    symbol: str
    shares_nano: int
    cash_micro: int
    reason: str
    at: str = ""


@dataclass(frozen=True)
class Mark:
    """The account at the close of a session, and what was decided there. decision: one of DECISIONS.

    closes: of each symbol that has one, the last known, in currency. reason: of a decision that is not `traded`.
    """

    day: str
    cash_micro: int
    equity_micro: int
    closes: dict[str, float] = field(default_factory=dict)
    decision: str = "traded"
    reason: str = ""
    at: str = ""


@dataclass(frozen=True)
class HaltRow:
    """A halt: since when, in which session, which, why, and how it was lifted; None while it lasts."""

    id: int
    at: str
    day: str
    name: str
    reason: str
    lifted_at: str | None = None
    how: str | None = None


def row_of(entry: Order | Fill | Adjustment) -> tuple[object, ...]:
    """The values of an entry in the order of its columns; dataclasses.astuple copies each, which takes longer."""
    return tuple(vars(entry).values())


def micro(amount: float) -> int:
    """Currency in micro-units. Raises Halt for what is no number, or too large to count."""
    return _whole(amount, MICRO, "an amount of money")


def nano(shares: float) -> int:
    """Shares in nano-shares. Raises Halt for what is no number, or too many to count."""
    return _whole(shares, NANO, "a number of shares")


def money(amount_micro: int) -> float:
    """Micro-units in currency."""
    return amount_micro / MICRO


def shares(shares_nano: int) -> float:
    """Nano-shares in shares."""
    return shares_nano / NANO


def order_id(journal_id: str, day: str, symbol: str) -> str:
    """The client_order_id: the same decision of the same journal never has another."""
    return f"{journal_id}-{day.replace('-', '')}-{symbol}"


def _whole(amount: float, unit: int, what: str) -> int:
    if not math.isfinite(amount) or abs(amount) * unit > MOST:
        raise Halt("journal", f"{amount!r} is not {what} that a journal can hold: the most is {MOST // unit:,}")
    return round(amount * unit)


SCHEMA = (
    "CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
    "CREATE TABLE sessions (day TEXT PRIMARY KEY, cash_micro INTEGER NOT NULL, equity_micro INTEGER NOT NULL, "
    "closes TEXT NOT NULL, decision TEXT NOT NULL, reason TEXT NOT NULL, at TEXT NOT NULL) STRICT",
    "CREATE TABLE arrays (day TEXT NOT NULL, name TEXT NOT NULL, dtype TEXT NOT NULL, shape TEXT NOT NULL, "
    "digest BLOB NOT NULL, data BLOB NOT NULL, PRIMARY KEY (day, name)) STRICT",
    "CREATE TABLE orders (client_order_id TEXT PRIMARY KEY, day TEXT NOT NULL, symbol TEXT NOT NULL, "
    "side TEXT NOT NULL, shares_nano INTEGER NOT NULL, status TEXT NOT NULL, broker_id TEXT, reason TEXT NOT NULL, "
    "attempts INTEGER NOT NULL, at TEXT NOT NULL) STRICT",
    "CREATE INDEX orders_by_status ON orders (status)",
    "CREATE TABLE fills (fill_id TEXT PRIMARY KEY, client_order_id TEXT NOT NULL, day TEXT NOT NULL, "
    "symbol TEXT NOT NULL, shares_nano INTEGER NOT NULL, price_micro INTEGER NOT NULL, "
    "commission_micro INTEGER NOT NULL, value_micro INTEGER NOT NULL, reason TEXT NOT NULL, at TEXT NOT NULL) STRICT",
    "CREATE TABLE adjustments (id TEXT PRIMARY KEY, day TEXT NOT NULL, symbol TEXT NOT NULL, "
    "shares_nano INTEGER NOT NULL, cash_micro INTEGER NOT NULL, reason TEXT NOT NULL, at TEXT NOT NULL) STRICT",
    "CREATE TABLE halts (id INTEGER PRIMARY KEY, at TEXT NOT NULL, day TEXT NOT NULL, name TEXT NOT NULL, "
    "reason TEXT NOT NULL, lifted_at TEXT, how TEXT) STRICT",
)
