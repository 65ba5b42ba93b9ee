"""The broker's answers, read as what they are: somebody else's data. Numbers become integers, the rest plain words.

Money is in micro-units (1e-6 of the currency), shares in nano-shares (1e-9). Whatever does not have the form that the
broker documents raises Halt("broker"): which answer, which field, and what it holds.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, NoReturn

from hfinference.live.entries import MICRO, NANO
from hfinference.live.risk import Halt
from hftraining.core.secret import MASK, masked
from hftraining.core.untrusted import shown

MOST_MONEY = 10**12  # of the currency: as integers of micro-units they stay far within 64 bits
MOST_SHARES = 9 * 10**8
MAY_TRADE = ("ACTIVE", "PAPER_ONLY")
FILLS = ("fill", "partial_fill")  # of an activity FILL; a bust or a correction is not one more fill
LONGEST_NUMBER = 40  # characters
LETTERS_OF_A_KEY = 12

_ID = re.compile(r"[0-9A-Za-z:_.-]{1,128}")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?")
_KIND = re.compile(r"[A-Z_]{1,16}")
_SYMBOL = re.compile(r"[A-Z0-9]{1,24}(?:[./-][A-Z0-9]{1,8})?")  # options, too, which somebody else may hold

# What the broker calls the states of an order, and ours. "Replaced" is missing: we never replace one.
WORKING = frozenset(
    "new accepted pending_new accepted_for_bidding partially_filled pending_cancel pending_replace pending_review "
    "stopped suspended calculated held done_for_day".split()
)
FINAL = {"filled": "filled", "canceled": "cancelled", "expired": "expired", "rejected": "rejected"}


@dataclass(frozen=True)
class BrokerAccount:
    """The account as the broker sees it."""

    account_id: str
    cash_micro: int
    equity_micro: int
    blocked: bool  # for trading, by the broker or by the user


@dataclass(frozen=True)
class BrokerOrder:
    """An order as the broker sees it. status: one of the journal's; shares are not signed."""

    broker_id: str
    client_order_id: str
    symbol: str
    side: str  # buy or sell
    shares_nano: int
    filled_nano: int
    status: str
    time_in_force: str
    kind: str  # market, limit ...


@dataclass(frozen=True)
class OpenOrder:
    """An order that the broker calls open, whoever sent it: another's may have an amount of money and no shares."""

    client_order_id: str
    text: str  # side, shares or amount, symbol
    row: Mapping[str, Any]  # what order_of reads, where it is ours


@dataclass(frozen=True)
class BrokerFill:
    """A fill among the account's activities. shares_nano: positive for a buy."""

    fill_id: str
    broker_id: str
    symbol: str
    shares_nano: int
    price_micro: int
    at: datetime


@dataclass(frozen=True)
class BrokerEntry:
    """Any other activity of the account: a dividend, a fee, a transfer, a split."""

    entry_id: str
    kind: str
    symbol: str  # may be empty
    shares_nano: int
    cash_micro: int
    day: date


def account_of(answer: Any) -> BrokerAccount:
    """From GET /account. An account in another currency than dollars is refused."""
    where, row = "account", _object(answer, "account")
    if (currency := _word(row, "currency", where)) != "USD":
        raise Halt("broker", f"the account of the broker is in {currency}, not in USD: use an account in dollars")
    flags = [row.get(name, False) for name in ("trading_blocked", "account_blocked", "trade_suspended_by_user")]
    if not all(isinstance(flag, bool) for flag in flags):
        _strange(where, "trading_blocked", flags)
    return BrokerAccount(
        account_id=_id(row, "id", where),
        cash_micro=money(row.get("cash"), "cash", where),
        equity_micro=money(row.get("equity"), "equity", where),
        blocked=any(flags) or _word(row, "status", where).upper() not in MAY_TRADE,
    )


def order_of(answer: Any) -> BrokerOrder:
    """From POST /orders, GET /orders and GET /orders:by_client_order_id."""
    where, row = "order", _object(answer, "order")
    word = _word(row, "status", where)
    if word not in WORKING and word not in FINAL:
        _strange(where, "status", word)
    filled = shares(row.get("filled_qty"), "filled_qty", where)
    wanted = shares(row.get("qty"), "qty", where)
    if not 0 <= filled <= wanted or not wanted:
        _strange(where, "filled_qty", f"{row.get('filled_qty')} of {row.get('qty')}")
    side = _word(row, "side", where)
    if side not in ("buy", "sell"):
        _strange(where, "side", side)
    return BrokerOrder(
        broker_id=_id(row, "id", where),
        client_order_id=_id(row, "client_order_id", where),
        symbol=_symbol(row, where),
        side=side,
        shares_nano=wanted,
        filled_nano=filled,
        status=FINAL.get(word, "partially_filled" if filled else "accepted"),
        time_in_force=_word(row, "time_in_force", where),
        kind=_word(row, "type", where),
    )


def open_order_of(answer: Any) -> OpenOrder:
    """From a row of GET /orders."""
    row = _object(answer, "order")
    words = [row.get("side"), row.get("qty") or f"for {row.get('notional')} USD", row.get("symbol")]
    return OpenOrder(client_order_id_of(row), shown(masked(" ".join(map(str, words)))), row)


def client_order_id_of(answer: Any) -> str:
    """From any order of the broker's, whoever sent it and of whatever kind."""
    value = _object(answer, "order").get("client_order_id")
    if not isinstance(value, str):
        _strange("order", "client_order_id", value)
    if _ID.fullmatch(value) and not _holds_key(value):
        return value
    return shown(masked(value))  # of another's order, which may be called anything


def position_of(answer: Any) -> tuple[str, int]:
    """A symbol and its shares, negative for a short position, from a row of GET /positions."""
    where, row = "position", _object(answer, "position")
    held = shares(row.get("qty"), "qty", where)
    if row.get("side") == "short":
        held = -abs(held)
    return _symbol(row, where), held


def activity_of(answer: Any) -> BrokerFill | BrokerEntry:
    """From a row of GET /account/activities."""
    where, row = "activity", _object(answer, "activity")
    kind = _word(row, "activity_type", where)
    if not _KIND.fullmatch(kind):
        _strange(where, "activity_type", kind)
    if kind != "FILL":
        symbol = _symbol(row, where) if row.get("symbol") else ""
        quantity, cash = ("0" if row.get(name) in (None, "") else row[name] for name in ("qty", "net_amount"))
        quantity, cash = shares(quantity, "qty", where), money(cash, "net_amount", where)
        return BrokerEntry(_id(row, "id", where), kind, symbol, quantity, cash, _day(row, where))
    side, quantity = _word(row, "side", where), shares(row.get("qty"), "qty", where)
    price = money(row.get("price"), "price", where)
    if row.get("type", "fill") not in FILLS:
        _strange(where, "type", row.get("type"))
    if side not in ("buy", "sell", "sell_short") or quantity <= 0 or price <= 0:
        _strange(where, "fill", f"{side} {row.get('qty')} at {row.get('price')}")
    return BrokerFill(
        fill_id=_id(row, "id", where),
        broker_id=_id(row, "order_id", where),
        symbol=_symbol(row, where),
        shares_nano=quantity if side == "buy" else -quantity,
        price_micro=price,
        at=moment(row.get("transaction_time"), "transaction_time", where),
    )


def rows_of(answer: Any, where: str) -> list[Any]:
    """The rows of an answer that must be a list."""
    if not isinstance(answer, list):
        _strange(where, "list", type(answer).__name__)
    return answer


def money(value: Any, field: str, where: str) -> int:
    """Micro-units of an amount, rounded half to even."""
    amount = _number(value, field, where, MOST_MONEY)
    return int((amount * MICRO).to_integral_value(ROUND_HALF_EVEN))


def shares(value: Any, field: str, where: str) -> int:
    """Nano-shares of a number of shares, which must be whole."""
    exact = _number(value, field, where, MOST_SHARES) * NANO
    if exact != exact.to_integral_value():
        _strange(where, field, value)
    return int(exact)


def moment(value: Any, field: str, where: str) -> datetime:
    """A point of time with its zone, as UTC."""
    try:
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        _strange(where, field, value)
    if found.tzinfo is None or not 1990 < found.year < 2200:
        _strange(where, field, value)
    return found.astimezone(UTC)


def clock_of(answer: Any) -> tuple[datetime, datetime]:
    """The broker's clock, and when it thinks that the exchange opens next, UTC, from GET /clock."""
    row = _object(answer, "clock")
    return moment(row.get("timestamp"), "timestamp", "clock"), moment(row.get("next_open"), "next_open", "clock")


def _object(answer: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(answer, dict):
        _strange(where, "object", type(answer).__name__)
    return answer


def _number(value: Any, field: str, where: str, most: int) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, str | int | float) or len(str(value)) > LONGEST_NUMBER:
        _strange(where, field, value)
    if not _NUMBER.fullmatch(str(value)):  # Decimal takes more: 1_000, digits of any script, powers beyond its own
        _strange(where, field, value)
    number = Decimal(str(value))
    if abs(number) > most:
        _strange(where, field, value)
    return number


def _word(row: Mapping[str, Any], field: str, where: str) -> str:
    value = row.get(field)
    if not isinstance(value, str) or not _ID.fullmatch(value):
        _strange(where, field, value)
    return value


def _id(row: Mapping[str, Any], field: str, where: str) -> str:
    value = _word(row, field, where)
    if _holds_key(value):
        _strange(where, field, value)
    return value


def _holds_key(value: str) -> bool:
    """Whether a word that would be kept as it is holds much of a key, in any case or form that is masked.

    A part of a key may stand in an id by chance; so many letters do not.
    """
    return len(value) - len(masked(value).replace(MASK, "")) >= LETTERS_OF_A_KEY


def _symbol(row: Mapping[str, Any], where: str) -> str:
    value = row.get("symbol")
    if not isinstance(value, str) or not _SYMBOL.fullmatch(value) or _holds_key(value):
        _strange(where, "symbol", value)
    return value.replace(".", "-")  # BRK.B is BRK-B to us, as to Yahoo


def _day(row: Mapping[str, Any], where: str) -> date:
    value = row.get("date")
    try:
        return date.fromisoformat(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        _strange(where, "date", value)


def _strange(where: str, field: str, value: Any) -> NoReturn:
    raise Halt(
        "broker",
        f"the broker's answer cannot be: {where}.{field} is {shown(masked(repr(value)[:400]))}; look at the account on "
        "its pages, then resume",
    )
