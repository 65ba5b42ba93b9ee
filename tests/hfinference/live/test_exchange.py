"""The session clock against a naive reading of exchange_calendars, and what New York's clocks said on strange days."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import exchange_calendars
import numpy as np
import pytest

from hfinference.live.exchange import Exchange, auction_of, opg_window, takes_opg
from hftraining.core.errors import ConfigError, UserError
from tests.bars_of import load, made_bars
from tests.slowly import mostly_slow

NEW_YORK = ZoneInfo("America/New_York")
XNYS = Exchange()


def in_new_york(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=NEW_YORK)


def hours(name: str, first: str, last: str) -> list[tuple[date, datetime, datetime]]:
    """Session, open and close, one row after another, as a reader of the library's table would copy them."""
    calendar = exchange_calendars.get_calendar(name, start=first, end=last)
    return [(day.date(), row["open"].to_pydatetime(), row["close"].to_pydatetime())
            for day, row in calendar.schedule.iterrows()]  # fmt: skip


@pytest.mark.parametrize("name", mostly_slow(["XNYS", "XTKS", "24/7"], quick=(0,)))
def test_every_answer_at_random_instants_is_that_of_a_naive_reading(name):
    exchange, table = Exchange(name), hours(name, "2022-01-01", "2024-12-31")
    inner = [row for row in table if "2022-01-15" < str(row[0]) < "2024-12-15"]
    random = np.random.default_rng(18)
    begin, end = inner[0][1], inner[-1][2]
    instants = [begin + timedelta(seconds=float(s)) for s in random.uniform(0, (end - begin).total_seconds(), 60)]
    for row in random.choice(len(inner), 12, replace=False):  # the very seconds, and a microsecond beside them
        for instant in inner[row][1:]:
            instants += [instant, instant - timedelta(microseconds=1), instant + timedelta(microseconds=1)]
    for now in instants:
        closed = [day for day, _, close in table if close <= now]
        assert exchange.last_closed(now) == closed[-1]
        assert (exchange.next_open(now), exchange.coming(now)) == min((o, day) for day, o, _ in table if o > now)
        assert exchange.next_close(now) == min(close for _, _, close in table if close > now)
        assert exchange.is_open(now) == any(opened <= now < close for _, opened, close in table)
        day = now.date()
        assert exchange.is_session(day) == (day in [row[0] for row in table])
        assert exchange.next_session(day) == min(row[0] for row in table if row[0] > day)
        assert exchange.previous_session(day) == max(row[0] for row in table if row[0] < day)
        assert exchange.behind(day, now) == len([d for d in closed if d > day])
    for day, opened, close in inner[:: len(inner) // 20]:
        assert (exchange.open_of(day), exchange.close_of(day)) == (opened, close)
        assert exchange.open_of(day).utcoffset() == timedelta(0)
    assert exchange.sessions(inner[3][0], inner[-3][0]) == [row[0] for row in inner[3:-2]]


@pytest.mark.parametrize(
    ("day", "opened", "closed"),
    [
        ("2024-03-08", "2024-03-08 14:30", "2024-03-08 21:00"),  # the Friday before the clocks go forward
        ("2024-03-11", "2024-03-11 13:30", "2024-03-11 20:00"),
        ("2024-11-01", "2024-11-01 13:30", "2024-11-01 20:00"),
        ("2024-11-04", "2024-11-04 14:30", "2024-11-04 21:00"),
        ("2023-11-24", "2023-11-24 14:30", "2023-11-24 18:00"),  # the day after Thanksgiving: 13:00
        ("2024-07-03", "2024-07-03 13:30", "2024-07-03 17:00"),
    ],
)
def test_hours_follow_new_yorks_clocks_and_half_days(day, opened, closed):
    day = date.fromisoformat(day)
    assert XNYS.open_of(day) == datetime.fromisoformat(opened).replace(tzinfo=UTC)
    assert XNYS.close_of(day) == datetime.fromisoformat(closed).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("closed", "before", "after"),
    [
        ("2012-10-29", "2012-10-26", "2012-10-31"),  # hurricane Sandy, two days
        ("2012-10-30", "2012-10-26", "2012-10-31"),
        ("2022-06-20", "2022-06-17", "2022-06-21"),  # Juneteenth, a holiday since 2022
        ("2001-09-11", "2001-09-10", "2001-09-17"),
        ("2025-01-09", "2025-01-08", "2025-01-10"),  # the mourning for Carter
    ],
)
def test_days_without_trading_are_no_sessions(closed, before, after):
    day, before, after = map(date.fromisoformat, (closed, before, after))
    assert not XNYS.is_session(day)
    assert XNYS.previous_session(day) == before and XNYS.next_session(day) == after
    assert XNYS.last_closed(datetime(day.year, day.month, day.day, 23, tzinfo=UTC)) == before
    with pytest.raises(UserError, match=f"^{closed} is no session of XNYS$"):
        XNYS.close_of(day)


def test_juneteenth_was_a_session_before_2021():
    assert XNYS.is_session(date(2020, 6, 19))


def test_a_session_has_closed_at_the_very_second_of_its_close():
    assert XNYS.last_closed(in_new_york("2024-05-03 15:59:59.999999")) == date(2024, 5, 2)
    assert XNYS.last_closed(in_new_york("2024-05-03 16:00:00")) == date(2024, 5, 3)
    assert XNYS.last_closed(in_new_york("2023-11-24 13:00:00")) == date(2023, 11, 24)
    assert XNYS.last_closed(in_new_york("2023-11-24 12:59:59")) == date(2023, 11, 22)


@pytest.mark.parametrize(
    ("now", "takes"),
    [
        ("2024-05-03 09:27:59.999999", True),
        ("2024-05-03 09:28:00", False),  # not written which side it lies on
        ("2024-05-03 16:00:00", False),
        ("2024-05-03 18:59:59.999999", False),
        ("2024-05-03 19:00:00", False),
        ("2024-05-03 19:00:00.000001", True),
        ("2024-05-04 12:00", False),  # a Saturday
        ("2024-05-04 00:00", True),
        ("2024-03-10 09:27:59", True),  # the clocks went forward in this night
        ("2024-03-10 19:00:01", True),
        ("2024-11-03 09:28:00", False),
    ],
)
def test_orders_for_the_auction_are_sent_when_alpaca_takes_them_and_not_at_the_instants_of_doubt(now, takes):
    assert takes_opg(in_new_york(now)) is takes
    assert takes_opg(in_new_york(now).astimezone(UTC)) is takes


def test_the_window_of_a_decision_goes_from_the_evening_to_the_next_sessions_morning():
    in_utc = [datetime.fromisoformat(text).replace(tzinfo=UTC) for text in ("2024-03-08 00:00", "2024-03-08 14:28")]
    assert opg_window(XNYS, date(2024, 3, 7)) == tuple(in_utc)
    # Over the weekend in which the clocks go forward: 19:00 is 00:00 in UTC, and 09:28 is 13:28.
    begin, end = opg_window(XNYS, date(2024, 3, 8))
    assert (begin, end) == (in_new_york("2024-03-08 19:00"), in_new_york("2024-03-11 09:28"))
    assert (begin.hour, end.hour) == (0, 13) and begin.utcoffset() == timedelta(0)
    # A half-day closes at 13:00, but the broker takes orders from 19:00 on.
    assert opg_window(XNYS, date(2023, 11, 24))[0] == in_new_york("2023-11-24 19:00")


@pytest.mark.parametrize(
    ("now", "session"),
    [
        ("2024-05-03 09:27:00", "2024-05-03"),
        ("2024-05-03 09:28:00", None),
        ("2024-05-03 19:30", "2024-05-06"),
        ("2024-05-05 03:00", "2024-05-06"),
        ("2012-10-26 20:00", "2012-10-31"),
        ("2012-10-29 08:00", "2012-10-31"),
        ("2023-11-22 22:00", "2023-11-24"),
        ("2023-11-24 13:30", None),
    ],
)
def test_an_order_is_filled_in_the_next_auction(now, session):
    assert auction_of(XNYS, in_new_york(now)) == (session and date.fromisoformat(session))


def test_an_order_of_a_decision_goes_into_the_next_sessions_auction_all_through_its_window():
    for day in XNYS.sessions(date(2023, 10, 20), date(2024, 3, 20)):
        begin, end = opg_window(XNYS, day)
        for step in range(1, 12):
            now = begin + (end - begin) * step / 12
            assert auction_of(XNYS, now) in (XNYS.next_session(day), None)
        assert auction_of(XNYS, begin) is None and auction_of(XNYS, end) is None
        assert auction_of(XNYS, end - timedelta(seconds=1)) == XNYS.next_session(day)


def test_the_end_of_a_calendar_is_named_with_what_to_do():
    bombay = Exchange("XBOM")
    ends = exchange_calendars.get_calendar("XBOM").bound_max().date()
    with pytest.raises(UserError, match=r"no session of XBOM is known after .*; update the library"):
        bombay.next_session(ends)
    with pytest.raises(UserError, match=rf"{ends.year + 3}-01-02 is no session of XBOM, whose calendar .* update"):
        bombay.open_of(date(ends.year + 3, 1, 2))
    assert bombay.sessions(date(1900, 1, 1), date(1900, 2, 1)) == []


@pytest.mark.parametrize(("name", "goes"), [("XNYS", True), ("XLON", True), ("24/7", False), ("24/5", False)])
def test_an_exchange_that_never_closes_for_long_is_refused_in_one_line(name, goes):
    now = datetime(2024, 5, 9, 12, tzinfo=UTC)
    if goes:
        Exchange(name).check_pauses(now, timedelta(minutes=45))
        return
    with pytest.raises(ConfigError, match=r"follow each other within 45 minutes, .*: only a replay can trade them$"):
        Exchange(name).check_pauses(now, timedelta(minutes=45))


def test_a_time_without_a_zone_is_our_mistake():
    for ask in (XNYS.last_closed, XNYS.next_open, takes_opg):
        with pytest.raises(ValueError, match="has no time zone"):
            ask(datetime(2024, 5, 3, 12))


def test_the_exchange_of_bars_is_the_one_that_is_named_or_new_york_where_it_fits(tmp_path):
    calendar = exchange_calendars.get_calendar("XNYS", start="2020-01-01", end="2021-12-31")
    made_bars(("S0",), days=300).assign(date=calendar.sessions[:300]).to_csv(tmp_path / "bars.csv", index=False)
    bars = load(tmp_path / "bars.csv")
    assert Exchange.of(bars, None) == XNYS
    assert Exchange.of(bars, "XLON") == Exchange("XLON")
    every_day = made_bars(("S0",), days=300).assign(date=np.arange("2020-01-01", "2020-10-27", dtype="datetime64[D]"))
    every_day.to_csv(tmp_path / "bars.csv", index=False)
    with pytest.raises(ConfigError, match=r"say whose hours they keep, such as stocks\.calendar=XLON"):
        Exchange.of(load(tmp_path / "bars.csv"), None)
    with pytest.raises(ValueError, match=r"stocks\.calendar=XNYZ is not a calendar"):
        Exchange("XNYZ")
