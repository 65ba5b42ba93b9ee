"""Gaps: the sessions between a symbol's first and last bar on which it has none, named and never filled.

Which sessions there were is known from the calendar of an exchange (the library exchange_calendars), or else from the
bars of all symbols together.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numba import njit

from hftraining.core.bars import Bars
from hftraining.core.errors import did_you_mean
from hftraining.market.config import MarketDataError
from hftraining.market.wording import listed, plain

NAMED_RUN = 5  # sessions in a row: a week. Halts and slips that are left out are shorter
NAMED_SHARE = 0.02  # of a symbol's sessions, if they are scattered
FITS = 0.98  # New York's holidays are 3.5 % of all weekdays, and those that others share with it 1 to 2 %
MOST_GAPS = 10  # in the note
LONGEST_CLOSING = 10  # weekdays without any bar. New Year in Shanghai and Golden Week in Tokyo take up to 7
DEFAULT = "XNYS"

# What Yahoo calls exchanges, and the calendars of the same holidays.
YAHOO = {
    "XNYS": "NMS NGM NCM NYQ NYS ASE PCX BTS PNK OQB OQX OEM SNP DJI NIM NAS CBO WCB",
    "XTSE": "TOR VAN NEO CNQ",
    "XLON": "LSE IOB",
    "XETR": "GER",
    "XFRA": "FRA",
    "XPAR": "PAR",
    "XAMS": "AMS",
    "XBRU": "BRU",
    "XLIS": "LIS",
    "XMIL": "MIL",
    "XMAD": "MCE",
    "XSWX": "EBS",
    "XSTO": "STO",
    "XCSE": "CPH",
    "XHEL": "HEL",
    "XOSL": "OSL",
    "XWBO": "VIE",
    "XDUB": "ISE",
    "XWAR": "WSE",
    "XIST": "IST",
    "ASEX": "ATH",
    "XTKS": "JPX OSA",
    "XHKG": "HKG",
    "XSHG": "SHH SHZ",
    "XKRX": "KSC KOE",
    "XTAI": "TAI TWO",
    "XSES": "SES",
    "XASX": "ASX",
    "XNZE": "NZE",
    "XBOM": "BSE NSI",
    "XIDX": "JKT",
    "XKLS": "KLS",
    "XBKK": "SET",
    "BVMF": "SAO",
    "XMEX": "MEX",
    "XJSE": "JNB",
    "XTAE": "TLV",
    "XSAU": "SAU",
    "24/7": "CCC",
    "24/5": "CCY",
}
CALENDAR_OF = {exchange: calendar for calendar, exchanges in YAHOO.items() for exchange in exchanges.split()}


class Calendar(NamedTuple):
    """Sessions of an exchange, which is known from its first to its last day.

    opens_T, closes_T: instants in UTC, datetime64[s].
    """

    sessions_T: np.ndarray
    first: np.datetime64
    last: np.datetime64
    opens_T: np.ndarray
    closes_T: np.ndarray


def check_calendar(name: str | None) -> None:
    """Raise MarketDataError for a name that is no calendar's. None is any."""
    if name is None:
        return
    import exchange_calendars

    known = exchange_calendars.get_calendar_names()
    if name not in known:
        hint = did_you_mean(name[:100].upper(), known) or "; e.g. XNYS, XLON, XTKS"
        raise MarketDataError(f"stocks.calendar={plain(name, 60)} is not a calendar of exchange_calendars{hint}")


def canonical_calendar(name: str) -> str:
    """The name of which a calendar's is an alias, such as XNYS of NASDAQ."""
    import exchange_calendars

    found: str = exchange_calendars.resolve_alias(name)
    return found


def notes_on_sessions(bars: Bars, calendar: str | None, exchanges: Mapping[str, str]) -> list[str]:
    """A note on the gaps of the bars, and one on bars of days that are no sessions; none where all is in order.

    calendar: of all symbols. None: for each symbol that of its exchange, as Yahoo calls it in `exchanges`; of symbols
    without one, XNYS where at least 98 % of the sessions of their bars are its sessions. Else the sessions are those
    of the bars of all these symbols, and weekdays where more than 10 in a row have no bar of any.
    """
    columns: dict[str | None, list[int]] = {}
    for s, symbol in enumerate(bars.symbols_S):
        columns.setdefault(calendar or CALENDAR_OF.get(exchanges.get(symbol, "")), []).append(s)
    gaps: list[tuple[int, str]] = []
    notes: list[str] = []
    yardsticks: set[str] = set()
    present_TS = bars.present_TS
    for name, places in columns.items():
        sessions_T = bars.sessions_T[present_TS[:, places].any(axis=1)]
        if name is None and fits_new_york(sessions_T):
            name = DEFAULT
        known = _sessions_between(name, sessions_T) if name else None
        if name and known is None:
            if calendar:
                raise MarketDataError(f"stocks.calendar={name} is not finished in the library exchange_calendars")
            notes.append(f"the calendar {name} is not finished in the library exchange_calendars, and was not used")
            name = None
        if known:
            expected_T = known.sessions_T
            within_T = sessions_T[(sessions_T >= known.first) & (sessions_T <= known.last)]
            strange_T = within_T[~_among(within_T, expected_T)]
            where = f"that are no sessions of {name}"
        else:
            expected_T = _sessions_of_all(sessions_T)
            weekend_T = sessions_T[~np.is_busday(sessions_T)]
            strange_T = weekend_T[:0] if len(weekend_T) > NAMED_SHARE * len(sessions_T) else weekend_T
            where = "on a weekend"
        if len(strange_T):
            notes.append(f"days with bars {where}: {listed(strange_T, 5)}")
        lacking = [places[n] for n in np.flatnonzero(_lacks(present_TS[:, places], bars.sessions_T, expected_T))]
        found = [
            gap for s in lacking for gap in _gaps(bars.symbols_S[s], bars.sessions_T[present_TS[:, s]], expected_T)
        ]
        if found:
            yardsticks.add(name or "the days on which any symbol has bars")
        gaps += found
    if gaps:
        words = [text for _, text in sorted(gaps, key=lambda gap: -gap[0])]
        more = f"; and {len(words) - MOST_GAPS:,} more gaps" if len(words) > MOST_GAPS else ""
        notes.append(f"{'; '.join(words[:MOST_GAPS])}{more} (sessions of {' and '.join(sorted(yardsticks))})")
    return notes


def _lacks(present_TS: np.ndarray, sessions_T: np.ndarray, expected_T: np.ndarray) -> np.ndarray:
    """Which symbols have no bar on one of the expected days between their first and their last."""
    row_T = np.minimum(np.searchsorted(sessions_T, expected_T), len(sessions_T) - 1)
    no_session_T = sessions_T[row_T] != expected_T
    day_T, expected_T = sessions_T.astype(np.int64), expected_T.astype(np.int64)
    return _lacks_compiled(present_TS, day_T, expected_T, row_T, no_session_T)


@njit(cache=True, nogil=True)
def _lacks_compiled(present_TS, day_T, expected_T, row_T, no_session_T):  # type: ignore[no-untyped-def]
    n_sessions, n_symbols = present_TS.shape
    first_S, last_S = np.full(n_symbols, n_sessions), np.full(n_symbols, -1)
    for t in range(n_sessions):
        for s in range(n_symbols):
            if present_TS[t, s]:
                first_S[s], last_S[s] = min(first_S[s], t), t
    lacks_S = np.zeros(n_symbols, np.bool_)
    for e in range(expected_T.size):
        for s in range(n_symbols):
            if first_S[s] < last_S[s] and day_T[first_S[s]] < expected_T[e] < day_T[last_S[s]]:
                lacks_S[s] |= no_session_T[e] or not present_TS[row_T[e], s]
    return lacks_S


def next_session(sessions_T: np.ndarray, calendar: str | None) -> str | None:
    """The first session of an exchange after the last of some sessions, ISO; None where no calendar says it.

    calendar: its name; None: XNYS where at least 98 % of these days are its sessions.
    """
    name = calendar or (DEFAULT if fits_new_york(sessions_T) else None)
    if name is None:
        return None
    last = sessions_T[-1]
    known = calendar_of_years(name, str(last)[:4], str(int(str(last)[:4]) + 1))
    later_T = known.sessions_T[known.sessions_T > last] if known else sessions_T[:0]
    return str(later_T[0]) if len(later_T) else None


def _gaps(symbol: str, days_T: np.ndarray, expected_T: np.ndarray) -> list[tuple[int, str]]:
    """The gaps of one symbol worth naming: their length in sessions, and words."""
    between_T = expected_T[(expected_T > days_T[0]) & (expected_T < days_T[-1])]
    missing_T = ~_among(between_T, days_T)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], missing_T.astype(np.int8), [0]])))
    begins, ends = edges[::2], edges[1::2]
    long = ends - begins >= NAMED_RUN
    found = [
        (int(end - begin), f"{plain(symbol, 64)}: {end - begin:,} sessions missing from {between_T[begin]} to "
         f"{between_T[end - 1]}")
        for begin, end in zip(begins[long], ends[long], strict=True)
    ]  # fmt: skip
    scattered = int(missing_T.sum()) - sum(length for length, _ in found)
    if scattered >= NAMED_RUN and scattered > NAMED_SHARE * len(between_T):
        words = f"{plain(symbol, 64)}: {scattered:,} of {len(between_T) + 2:,} sessions missing, scattered from "
        found.append((scattered, f"{words}{between_T[missing_T][0]} to {between_T[missing_T][-1]}"))
    return found


def fits_new_york(sessions_T: np.ndarray) -> bool:
    """Whether nearly all of some days are sessions of New York's exchanges."""
    years = np.arange(int(str(sessions_T[0])[:4]), int(str(sessions_T[-1])[:4]) + 1)
    closed = np.array([f"{year:04}-{day}" for year in years for day in ("01-01", "07-04", "12-25")], "datetime64[D]")
    closed = closed[np.is_busday(closed) & (closed >= sessions_T[0]) & (closed <= sessions_T[-1])]
    if 2 * _among(closed, sessions_T).sum() > len(closed):  # which saves loading the calendar
        return False
    known = _sessions_between(DEFAULT, sessions_T)
    return known is not None and bool(_among(sessions_T, known.sessions_T).mean() >= FITS)


def _sessions_between(name: str, sessions_T: np.ndarray) -> Calendar | None:
    """A calendar in the years of some days, None where the library cannot make it."""
    return calendar_of_years(name, str(sessions_T[0])[:4], str(sessions_T[-1])[:4])


@functools.lru_cache(maxsize=16)
def calendar_of_years(name: str, first_year: str, last_year: str) -> Calendar | None:
    """The calendar of an exchange from the first day of a year to the last of another, or as far as it is known.

    None where the library has not finished it. name: see check_calendar.
    """
    import exchange_calendars

    first, last = np.datetime64(f"{first_year}-01-01"), np.datetime64(f"{last_year}-12-31")
    try:
        try:
            calendar = exchange_calendars.get_calendar(name, start=str(first), end=str(last))
        except ValueError:  # days before or after those that the calendar was made for
            made = exchange_calendars.get_calendar(name)
            low, high = made.bound_min(), made.bound_max()
            first = max(first, np.datetime64(low, "D")) if low is not None else first
            last = min(last, np.datetime64(high, "D")) if high is not None else last
            if last - first < np.timedelta64(31, "D"):  # too few to load
                none_T = np.array([], "datetime64[s]")
                return Calendar(none_T.astype("datetime64[D]"), last, first, none_T, none_T)
            calendar = exchange_calendars.get_calendar(name, start=str(first), end=str(last))
    except (ValueError, NotImplementedError):  # some calendars of the library are unfinished
        return None
    opens_T, closes_T = (times.dt.tz_localize(None).to_numpy("datetime64[s]") for times in
                         (calendar.opens, calendar.closes))  # fmt: skip
    return Calendar(calendar.sessions.to_numpy().astype("datetime64[D]"), first, last, opens_T, closes_T)


def _sessions_of_all(sessions_T: np.ndarray) -> np.ndarray:
    """Some days, and the weekdays of long times without any of them."""
    before, after = sessions_T[:-1] + 1, sessions_T[1:]
    holes = np.flatnonzero(np.busday_count(before, after) > LONGEST_CLOSING)
    weekdays = np.concatenate([sessions_T[:0], *(np.arange(before[hole], after[hole]) for hole in holes)])
    return np.union1d(sessions_T, weekdays[np.is_busday(weekdays)])


def _among(days_T: np.ndarray, rising_T: np.ndarray) -> np.ndarray:
    """Which of some days are among others that rise; as np.isin, which sorts both anew."""
    if not len(rising_T):
        return np.zeros(len(days_T), bool)
    return rising_T[np.minimum(np.searchsorted(rising_T, days_T), len(rising_T) - 1)] == days_T
