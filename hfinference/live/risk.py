"""What stops a paper account: the limits that a user sets, the named halts, and the checks that raise them.

The checks read and raise, and do nothing else. Legend: T sessions, S symbols, H horizons, Q quantiles.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from hftraining.core.errors import ConfigError, UserError, did_you_mean, in_a_line, listed
from hftraining.trading.config import TradingRules

if TYPE_CHECKING:  # the command halt must not wait for pandas and numba
    from hfinference.live.exchange import Exchange
    from hftraining.core.bars import Bars
    from hftraining.core.forecast import Forecast

GROUP = "risk."
RECENT = 5  # sessions: whoever had a bar in one of these is expected to have one today
NAMED = 5  # symbols in a reason
TWICE = 2.0  # of the run's own rules: what prices do to a position between two orders, and no more
HALTS = MappingProxyType(
    {
        "stale_bars": "the last session of the bars is older than the calendar of the exchange says",
        "missing_bars": "too many stocks that are held or forecast have no bar of today",
        "future_bars": "a bar is of a session that has not closed yet by our clock",
        "no_session": "the source has bars of a day on which the exchange did not trade",
        "rewritten_bars": "the source has changed bars that were traded on",
        "split": "a stock that is held was split, and the broker's shares are not yet those of the bars",
        "nan_forecast": "the model forecasts nothing for any stock, or nothing for one that is held",
        "features": "the features are not those that the model learned from",
        "clock": "our clock is not that of the broker, or it went backwards",
        "market_closed": "the exchange takes no such order now",
        "daily_loss": "the account lost more in a session than the limit",
        "drawdown": "the account fell further from its highest value than the limit",
        "bankrupt": "the account is worth nothing",
        "orders": "an order that cannot be meant: too many, not finite, or of an unknown stock",
        "position_limit": "a position would be larger than the limit",
        "gross_limit": "all positions together would be larger than the limit",
        "journal": "the journal is damaged, or its sums do not agree",
        "position": "the broker holds other shares than the journal",
        "cash": "the broker has other cash than the journal",
        "unknown_position": "the broker holds a stock that the journal does not know",
        "unknown_order": "the broker has an order that the journal does not know",
        "broker": "the broker does not answer, or answers what cannot be",
        "disk": "the journal cannot be written",
        "by_hand": "somebody asked for it: the command halt, or a file named HALT",
    }
)


class Halt(UserError):
    """Paper trading stops, and stays stopped until `resume`: nothing is sent.

    name: one of HALTS. Its text is the reason in one line, and what to do.
    """

    def __init__(self, name: str, reason: str) -> None:
        assert name in HALTS, name
        super().__init__(in_a_line(reason))
        self.name = name
        self.word = f"halted ({name})"  # what the line of the command begins with


# Of each limit, the least and the most that it can be.
_RANGES = {
    "max_daily_loss": (1e-6, 1.0),
    "max_drawdown": (1e-6, 1.0),
    "max_orders": (0, 10**9),
    "max_position": (0.0, 1e3),
    "max_gross": (0.0, 1e3),
    "max_missing": (0.0, 1.0),
    "max_stale_sessions": (0, 10_000),
    "max_clock_skew_seconds": (0.0, 86_400.0),
}


@dataclass(frozen=True)
class RiskLimits:
    """What halts a paper account. Fractions, not percent. A value at a limit passes; one beyond it halts."""

    max_daily_loss: float = 0.2  # of the equity at the close before
    max_drawdown: float = 0.5  # of the highest equity so far; 1: none but bankruptcy
    max_orders: int = 1_000  # of one session
    max_position: float = 0.0  # of equity, what is held and ordered of one stock; 0: twice the run's max_position_size
    max_gross: float = 0.0  # of equity, what is held and ordered of all stocks; 0: twice the run's max_gross
    max_missing: float = 0.1  # of the stocks held or traded of late, without a bar today; one always may, unless 0
    max_stale_sessions: int = 0  # that the exchange has closed and the bars do not have yet
    max_clock_skew_seconds: float = 60.0  # between our clock and the broker's, or back from the journal's last entry

    def __post_init__(self) -> None:
        """Refuse limits that limit nothing or everything."""
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if not math.isfinite(value) or not least <= value <= most:
                percent = f": {value:g} % is {value / 100:g}" if most == 1.0 and 1.0 < value <= 100.0 else ""
                raise ConfigError(f"{GROUP}{name}={value:g} must lie in [{least:g}, {most:,g}]{percent}")

    @classmethod
    def of(cls, words: Sequence[str]) -> "RiskLimits":
        """From words such as risk.max_daily_loss=0.05; of several for one limit the last counts. Raises ConfigError."""
        types = {field.name: field.type for field in dataclasses.fields(cls)}
        values: dict[str, float] = {}
        for word in words:
            key, equals, text = word.partition("=")
            name = key.removeprefix(GROUP)
            if not equals or not key.startswith(GROUP):
                raise ConfigError(f"{word[:80]}: give {GROUP}NAME=VALUE, such as {GROUP}max_daily_loss=0.05")
            if name not in types:
                hint = did_you_mean(name, types) or f" (there are {listed(types)})"
                raise ConfigError(f"{key[:80]}: there is no such field{hint.replace('mean ', f'mean {GROUP}')}")
            whole = types[name] is int
            try:
                values[name] = int(text) if whole else float(text)
            except ValueError:
                kind = "whole number" if whole else "number"
                raise ConfigError(f"{key}={text[:60]} is not a {kind}") from None
        return cls(**values)  # type: ignore[arg-type]

    def of_run(self, rules: TradingRules) -> "RiskLimits":
        """With max_position and max_gross from the rules of the run where they are 0."""
        position = self.max_position or TWICE * rules.max_position_size
        return dataclasses.replace(self, max_position=position, max_gross=self.max_gross or TWICE * rules.max_gross)


def is_of_risk(word: str) -> bool:
    """Whether a setting of the command line is one of the risk limits."""
    return word.partition("=")[0].lstrip("+~").startswith(GROUP) or word.startswith("risk=")


def limits_and_others(words: Sequence[str]) -> tuple[RiskLimits, list[str]]:
    """The limits that some settings of the command line set, and the settings of other groups."""
    return RiskLimits.of([word for word in words if is_of_risk(word)]), [w for w in words if not is_of_risk(w)]


def check_bars(
    bars: "Bars", held: Collection[str], limits: RiskLimits, *, now: datetime, exchange: "Exchange | None"
) -> None:
    """Halt on bars that are stale, of a session that has not closed by our clock, or full of holes today.

    bars: to the last session there is. A stock is expected to have a bar on it that is held or had one on the 5
    sessions before. One halted stock stops nobody: max_missing of them may lack it, and at least one.
    exchange: None where the bars fit none; then only holes are seen.
    """
    days_T = bars.sessions_T[bars.present_TS.any(axis=1)]
    if not len(days_T):
        raise Halt("missing_bars", "there are no bars at all: see what the source gives")
    last = days_T[-1].item()
    if exchange is not None:
        due = exchange.last_closed(now)
        if last > due:
            raise Halt(
                "future_bars",
                f"the bars reach {last}, and by our clock ({now:%Y-%m-%d %H:%M %Z}) {due} is the last session that "
                f"{exchange.name} has closed: set the clock, or leave out the unfinished bar (stocks.end={due})",
            )
        behind = exchange.behind(last, now)
        if behind > limits.max_stale_sessions:
            raise Halt(
                "stale_bars",
                f"the bars end on {last}, and {exchange.name} has closed {behind:,} since, {due} the last: fetch newer "
                f"ones, or allow it with {GROUP}max_stale_sessions={behind}",
            )
    today = int(np.searchsorted(bars.sessions_T, days_T[-1]))
    _check_missing(bars, today, held, limits)


def check_day(day: date, exchange: "Exchange") -> None:
    """Halt on bars of a day that is no session: orders would be filled at prices that nobody could trade at."""
    if not exchange.is_session(day):
        raise Halt(
            "no_session",
            f"the source has bars of {day}, a {day:%A} on which {exchange.name} did not trade: see what the source "
            "gives, or name another calendar (stocks.calendar)",
        )


def _check_missing(bars: "Bars", today: int, held: Collection[str], limits: RiskLimits) -> None:
    present_TS = bars.present_TS
    is_held_S = np.isin(np.asarray(bars.symbols_S, object), list(held))
    expected_S = is_held_S | present_TS[max(0, today - RECENT) : today].any(axis=0)
    missing_S = expected_S & ~present_TS[today]
    count, among = int(missing_S.sum()), int(expected_S.sum())
    most = max(1, math.floor(limits.max_missing * among + 1e-9)) if limits.max_missing else 0
    if count > most:
        names = listed([bars.symbols_S[s] for s in np.flatnonzero(missing_S)], NAMED)
        raise Halt(
            "missing_bars",
            f"{count:,} of {among:,} stocks have no bar on {bars.sessions_T[today]} ({names}), and {most:,} may "
            f"lack one: fetch them again, or raise {GROUP}max_missing={limits.max_missing:g}",
        )


def check_forecast(forecast: "Forecast", bars: "Bars", held: Collection[str]) -> None:
    """Halt where the last session has no forecast of any stock, none of one that is held and has a bar, or infinity.

    forecast, bars: of the same stocks, and to the same session.
    """
    quantiles_SHQ, head_S = forecast.quantiles_TSHQ[-1], forecast.head_TS[-1]
    day, present_S = bars.sessions_T[-1], bars.present_TS[-1]
    known_S = np.isfinite(quantiles_SHQ).any(axis=(1, 2)) | np.isfinite(head_S)
    advice = "see the bars with `python -m hftraining data`, and the model with `python -m hfinference forecast`"
    if not known_S.any():
        raise Halt("nan_forecast", f"the model forecasts nothing for any stock on {day}: {advice}")
    infinite_S = np.isinf(quantiles_SHQ).any(axis=(1, 2)) | np.isinf(head_S)
    is_held_S = np.isin(np.asarray(bars.symbols_S, object), list(held))
    for wrong_S, what in ((infinite_S, "an infinite value"), (is_held_S & present_S & ~known_S, "nothing")):
        if wrong_S.any():
            names = listed([bars.symbols_S[s] for s in np.flatnonzero(wrong_S)], NAMED)
            raise Halt("nan_forecast", f"the model forecasts {what} for {names} on {day}: {advice}")


def check_features(known: Sequence[str], found: Sequence[str]) -> None:
    """Halt where a model's features are not those that the account began with, in their order."""
    if tuple(known) == tuple(found):
        return
    more, fewer = [name for name in found if name not in known], [name for name in known if name not in found]
    changes = [f"with {listed(more, NAMED)}"] * bool(more) + [f"without {listed(fewer, NAMED)}"] * bool(fewer)
    raise Halt(
        "features",
        f"the model has other features than this account began with, {' and '.join(changes) or 'reordered'}: "
        "bring the model back, or begin another account (--journal FOLDER)",
    )


def check_orders(
    orders: Mapping[str, float],
    held: Mapping[str, float],
    price: Mapping[str, float],
    equity: float,
    limits: RiskLimits,
    rules: TradingRules,
) -> None:
    """Halt on orders that cannot be meant, and where they and what is held pass a limit.

    orders, held: symbol -> signed shares. price: of every stock that may be traded, its last close, in currency.
    equity: of the account, in the same. An order that makes a position smaller passes the limit on positions, and
    orders that all do the one on their sum, however large they are.
    """
    if not equity > 0.0 or not math.isfinite(equity):
        raise Halt("bankrupt", f"the account is worth {equity:,.2f}: nothing can be traded")
    limits = limits.of_run(rules)
    count = sum(1 for shares in orders.values() if shares != 0.0)
    if count > limits.max_orders:
        raise Halt("orders", f"{count:,} orders are wanted, and {GROUP}max_orders={limits.max_orders} allows no more")
    for symbol, shares in orders.items():
        if symbol not in price:
            raise Halt("orders", f"an order for {symbol}, which is not among the stocks that are traded")
        if not math.isfinite(shares):
            raise Halt("orders", f"an order for {shares} shares of {symbol}")
        if shares and not 0.0 < price[symbol] < math.inf:
            raise Halt("orders", f"an order for {symbol}, of which no price is known")
    if unknown := [symbol for symbol, shares in held.items() if shares and not price.get(symbol, 0.0) > 0.0]:
        raise Halt("unknown_position", f"{listed(unknown, NAMED)} is held, and these bars have no price of it")
    before, after = dict.fromkeys(price, 0.0) | dict(held), dict.fromkeys(price, 0.0) | dict(held)
    for symbol, shares in orders.items():
        after[symbol] += shares
    for symbol in (name for name in after if after[name]):
        weight = abs(after[symbol]) * price[symbol] / equity
        if weight > limits.max_position + 1e-9 and abs(after[symbol]) >= abs(before[symbol]):
            raise Halt(
                "position_limit",
                f"{symbol} would be {weight:.4g} of the equity, above {limits.max_position:g}: lower the run's "
                f"max_position_size, or raise {GROUP}max_position",
            )
    gross = sum(abs(shares) * price[symbol] for symbol, shares in after.items() if shares) / equity
    closes_only = after != before and all(abs(after[symbol]) <= abs(before[symbol]) for symbol in after)
    if gross > limits.max_gross + 1e-9 and not closes_only:
        raise Halt(
            "gross_limit",
            f"all positions would be {gross:.4g} of the equity, above {limits.max_gross:g}: lower the run's max_gross, "
            f"or raise {GROUP}max_gross",
        )


def check_account(equity_T: Sequence[float], limits: RiskLimits) -> None:
    """Halt where the account is worth nothing, lost too much in the last session, or fell too far from its peak.

    equity_T: at the closes, in currency, with the capital, or the equity at which trading was resumed after such a
    halt, first: what somebody has looked at and resumed does not halt again.
    """
    now = equity_T[-1]
    if not now > 0.0:
        raise Halt("bankrupt", f"the account is worth {now:,.2f}: nothing can be traded; begin another account")
    loss = 1.0 - now / equity_T[-2] if len(equity_T) > 1 else 0.0
    if loss > limits.max_daily_loss + 1e-12:
        raise Halt(
            "daily_loss",
            f"the account fell by {loss:.2%} in a session, from {equity_T[-2]:,.2f} to {now:,.2f}, and "
            f"{GROUP}max_daily_loss={limits.max_daily_loss:g}: look at it, then resume",
        )
    peak = max(equity_T)
    fallen = 1.0 - now / peak
    if fallen > limits.max_drawdown + 1e-12:
        raise Halt(
            "drawdown",
            f"the account fell by {fallen:.2%} from its highest value, from {peak:,.2f} to {now:,.2f}, and "
            f"{GROUP}max_drawdown={limits.max_drawdown:g}: look at it, then resume",
        )


def check_clock(
    now: datetime, limits: RiskLimits, *, broker: datetime | None = None, last_entry: datetime | None = None
) -> None:
    """Halt where our clock is not the broker's, or has gone back behind the last entry of the journal.

    All with a time zone. None: there is none to compare with. A step back within the skew is a clock being set.
    """
    most = timedelta(seconds=limits.max_clock_skew_seconds)
    advice = f"set the clock (NTP), or raise {GROUP}max_clock_skew_seconds={limits.max_clock_skew_seconds:g}"
    if broker is not None and abs(now - broker) > most:
        seconds = (now - broker).total_seconds()
        side = "ahead of" if seconds > 0 else "behind"
        raise Halt("clock", f"our clock is {abs(seconds):,.0f} seconds {side} the broker's: {advice}")
    if last_entry is not None and last_entry - now > most:
        seconds = (last_entry - now).total_seconds()
        raise Halt("clock", f"our clock is {seconds:,.0f} seconds behind the journal's last entry: {advice}")
