"""The session clock: when an exchange opens and closes, and when a broker takes orders for its opening auction.

A day is the date of a session at the exchange; an instant is a datetime with a time zone, and all instants given back
are in UTC. The hours come from the library exchange_calendars: half-days, holidays and daylight saving are in them.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from hftraining.core.bars import Bars
from hftraining.core.errors import ConfigError, UserError
from hftraining.market.sessions import DEFAULT, Calendar, calendar_of_years, check_calendar, fits_new_york

NEW_YORK = ZoneInfo("America/New_York")
# Alpaca rejects orders for the opening auction (opg) between these times of every day. Which side the two instants
# themselves lie on is not written down, so that we send at neither.
OPG_UNTIL, OPG_FROM = time(9, 28), time(19, 0)


@dataclass(frozen=True)
class Exchange:
    """The hours of one exchange. name: of a calendar of exchange_calendars."""

    name: str = DEFAULT

    def __post_init__(self) -> None:
        """Refuse what is no calendar."""
        check_calendar(self.name)

    @classmethod
    def of(cls, bars: Bars, calendar: str | None) -> "Exchange":
        """That of some bars: stocks.calendar, or XNYS where at least 98 % of their sessions are its sessions.

        Raises ConfigError where neither is known, since no other exchange can be told from its days alone.
        """
        if calendar is None and not fits_new_york(bars.sessions_T):
            raise ConfigError(
                "the days of these bars are not those of New York's exchanges: say whose hours they keep, such as "
                "stocks.calendar=XLON"
            )
        return cls(calendar or DEFAULT)

    def is_session(self, day: date) -> bool:
        """Whether it trades on a day."""
        known = self._around(day)
        return bool(len(known.sessions_T)) and _row(known, day) is not None

    def open_of(self, day: date) -> datetime:
        """When a session opens. Raises UserError for a day that is none."""
        return self._instant(day, "opens_T")

    def close_of(self, day: date) -> datetime:
        """When a session closes, on a half-day early. Raises UserError for a day that is none."""
        return self._instant(day, "closes_T")

    def next_session(self, day: date) -> date:
        """The first session after a day. Raises UserError beyond the end of the calendar."""
        known = self._around(day)
        return self._day(known, int(np.searchsorted(known.sessions_T, np.datetime64(day, "D"), side="right")), day)

    def previous_session(self, day: date) -> date:
        """The last session before a day. Raises UserError before the begin of the calendar."""
        known = self._around(day)
        return self._day(known, int(np.searchsorted(known.sessions_T, np.datetime64(day, "D"))) - 1, day)

    def sessions(self, first: date, last: date) -> list[date]:
        """All sessions from one day to another, both included; none where the calendar does not reach."""
        known = self._years(first.year - 1, max(first.year, last.year) + 1)
        ends = np.datetime64(first, "D"), np.datetime64(last, "D")
        within_T = (known.sessions_T >= ends[0]) & (known.sessions_T <= ends[1])
        return [day.item() for day in known.sessions_T[within_T]]

    def last_closed(self, now: datetime) -> date:
        """The last session that has closed at an instant; at the very second of its close it has."""
        known = self._around(now)
        return self._day(known, int(np.searchsorted(known.closes_T, _stamp(now), side="right")) - 1, now.date())

    def next_close(self, now: datetime) -> datetime:
        """The first close after an instant."""
        known = self._around(now)
        row = int(np.searchsorted(known.closes_T, _stamp(now), side="right"))
        return self.close_of(self._day(known, row, now.date()))

    def next_open(self, now: datetime) -> datetime:
        """The first open after an instant; at the very second of an open it is that of the next session."""
        return self.open_of(self.coming(now))

    def coming(self, now: datetime) -> date:
        """The first session that opens after an instant."""
        known = self._around(now)
        return self._day(known, int(np.searchsorted(known.opens_T, _stamp(now), side="right")), now.date())

    def is_open(self, now: datetime) -> bool:
        """Whether a session goes on: from its open on, until before its close."""
        known = self._around(now)
        row = int(np.searchsorted(known.opens_T, _stamp(now), side="right")) - 1
        return row >= 0 and _stamp(now) < known.closes_T[row]

    def behind(self, last: date, now: datetime) -> int:
        """How many sessions after a day have closed at an instant: 0 for bars that are up to date."""
        return len(self.sessions(last + timedelta(days=1), self.last_closed(now)))

    def check_pauses(self, now: datetime, least: timedelta) -> None:
        """Raise ConfigError where a session opens too soon after the one before for any decision between the two."""
        last = self.last_closed(now)
        for day in (last, self.previous_session(last)):
            if self.open_of(self.next_session(day)) - self.close_of(day) < least:
                minutes = least.total_seconds() / 60
                raise ConfigError(
                    f"the sessions of {self.name} follow each other within {minutes:.0f} minutes, so that no decision "
                    "after a close comes before the next open: only a replay can trade them"
                )

    def _instant(self, day: date, which: str) -> datetime:
        known = self._around(day)
        row = _row(known, day)
        if row is None:
            raise UserError(f"{day} is no session of {self.name}{_ends(known, day)}")
        found: datetime = getattr(known, which)[row].astype("datetime64[s]").item()
        return found.replace(tzinfo=UTC)

    def _around(self, day: date) -> Calendar:
        """The sessions of a day's year and of those beside it: always the same three, which are kept."""
        return self._years(day.year - 1, day.year + 1)

    def _years(self, first: int, last: int) -> Calendar:
        known = calendar_of_years(self.name, str(first), str(last))
        if known is None:
            raise ConfigError(f"stocks.calendar={self.name} is not finished in the library exchange_calendars")
        return known

    def _day(self, known: Calendar, row: int, near: date) -> date:
        if not 0 <= row < len(known.sessions_T):
            raise UserError(
                f"no session of {self.name} is known {'before' if row < 0 else 'after'} {near}: its calendar in "
                f"exchange_calendars goes from {known.first} to {known.last}; update the library"
            )
        found: date = known.sessions_T[row].item()
        return found


def opg_window(exchange: Exchange, day: date) -> tuple[datetime, datetime]:
    """Between which instants, both excluded, Alpaca takes orders for the opening auction after a session.

    From 19:00 New York time on the session's day to 09:28 on that of the next one. Within, `takes_opg` says whether it
    takes them now, which it does not from 09:28 to 19:00 on the days between.
    """
    following = exchange.next_session(day)
    begin = datetime.combine(day, OPG_FROM, NEW_YORK), datetime.combine(following, OPG_UNTIL, NEW_YORK)
    return begin[0].astimezone(UTC), begin[1].astimezone(UTC)


def takes_opg(now: datetime) -> bool:
    """Whether Alpaca takes orders for an opening auction at an instant: before 09:28:00 and after 19:00:00, New York.

    It is written down for a day, not for a day of trading, so that we take it for holidays and weekends, too.
    """
    _stamp(now)
    there = now.astimezone(NEW_YORK).time()
    return not OPG_UNTIL <= there <= OPG_FROM


def auction_of(exchange: Exchange, now: datetime) -> date | None:
    """The session in whose opening auction an order sent at an instant is filled; None while Alpaca rejects it."""
    if not takes_opg(now):
        return None
    there = now.astimezone(NEW_YORK)
    today = there.date()
    if there.time() < OPG_UNTIL and exchange.is_session(today):
        return today
    return exchange.next_session(today)


def _row(known: Calendar, day: date) -> int | None:
    sessions_T, wanted = known.sessions_T, np.datetime64(day, "D")
    row = int(np.searchsorted(sessions_T, wanted))
    return row if row < len(sessions_T) and sessions_T[row] == wanted else None


def _ends(known: Calendar, day: date) -> str:
    """What to say of a day beyond the ends of a calendar."""
    if known.first <= np.datetime64(day, "D") <= known.last:
        return ""
    return f", whose calendar in exchange_calendars goes from {known.first} to {known.last}; update the library"


def _stamp(now: datetime) -> np.datetime64:
    """An instant in UTC as numpy holds it, to the microsecond. Raises ValueError for one without a time zone."""
    if now.tzinfo is None:
        raise ValueError(f"{now} has no time zone")
    return np.datetime64(now.astimezone(UTC).replace(tzinfo=None), "us")
