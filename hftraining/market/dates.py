"""Session dates and times of day, from whatever a file writes in its date column."""

import re
from datetime import date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hftraining.market.config import UNIX, MarketDataError
from hftraining.market.wording import csv_option, plain

FIRST, LAST = -62_135_596_800, 253_402_300_799  # seconds since 1970 of the years 1 to 9999
PARTS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}  # of a second
DAY_SECONDS = 86_400
# Digits are ASCII alone: \d would read those of any script.
DAY = re.compile(
    r"(?:([0-9]{4})-([0-9]{2})-([0-9]{2})|([0-9]{4})([0-9]{2})([0-9]{2})|([0-9]{1,2})/([0-9]{1,2})/([0-9]{4}))"
    r"(?:[T ](.*))?"
)
TIME = re.compile(
    r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9}))?)? ?([AaPp][Mm])?(?: ?[A-Za-z+\-][A-Za-z0-9_+:/\-]*)?"
)
UNIX_TIME = re.compile(r"([0-9]{9,13})(?:\.0*)?")
# Formats that are proposed if they fit, with times of day as well.
DAYS = ("%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%y", "%d/%m/%y",
        "%m/%d/%y", "%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%b %d, %Y", "%B %d, %Y")  # fmt: skip
FORMATS = (*UNIX, *(f"{day}{time}" for time in ("", " %H:%M", " %H:%M:%S") for day in DAYS))
MOST_TRIED = 1000  # texts


def days_and_times(
    column: pa.ChunkedArray, file: str, date_format: str | None = None
) -> tuple[pa.Array, pa.Array | None]:
    """The date of each row, and its time of day in microseconds after midnight; None where all are at midnight.

    date_format: of texts, as stocks.csv.date_format; None reads the usual ones. A time with a time zone gives the date
    and the time on that zone's clocks, a Unix time those of UTC. Raises MarketDataError, naming the row, for what is
    not a date of the years 1 to 9999 or can be read in two ways.
    """
    if is_typed(column.type):
        return _typed(column, file)
    texts = texts_of(column)
    if texts.null_count:
        raise _no_date(file, pc.index(texts.is_null(), True).as_py(), "''")
    trimmed = pc.utf8_trim_whitespace(texts.dictionary)
    if date_format is None and (quick := _iso_days(trimmed)) is not None:
        return quick.take(texts.indices).cast(pa.timestamp("s")), None
    written = [text or "" for text in trimmed.to_pylist()]
    days, times, wrong = _parse(written) if date_format is None else _parse_as(written, date_format)
    if wrong is not None:
        row = pc.index(texts.indices, pa.scalar(wrong, texts.indices.type)).as_py()
        raise _no_date(file, row, plain(ascii(written[wrong]), 70), _hint(written, date_format))
    sessions = pa.array(days, pa.date32()).take(texts.indices).cast(pa.timestamp("s"))
    return sessions, pa.array(times, pa.int64()).take(texts.indices) if any(times) else None


def _iso_days(texts: pa.Array) -> pa.Array | None:
    """The days of texts that are all written as 2011-01-03, as _parse reads them, in a hundredth of the time."""
    try:
        days = texts.cast(pa.date32())
    except pa.ArrowInvalid:
        return None
    first = pc.min(days.cast(pa.int32())).as_py()
    return days if not days.null_count and first is not None and first * DAY_SECONDS >= FIRST else None


def is_typed(kind: pa.DataType) -> bool:
    """Whether a column of dates has a type that leaves nothing to read."""
    return pa.types.is_timestamp(kind) or pa.types.is_date(kind)


def texts_of(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """A column as one dictionary of texts. Raises ArrowInvalid for what is not UTF-8."""
    if pa.types.is_dictionary(column.type):
        kind = pa.dictionary(pa.int32(), pa.string())
        parts = [
            pa.DictionaryArray.from_arrays(chunk.indices.cast(pa.int32()), _checked(chunk.dictionary).cast(pa.string()))
            for chunk in column.chunks
        ]
        column = pa.chunked_array(parts, kind)
        column = column.unify_dictionaries() if len(parts) != 1 else column
    else:
        column = column.cast(pa.string()).dictionary_encode()
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _checked(texts: pa.Array) -> pa.Array:
    """Texts through bytes, since Arrow checks their encoding only on this way."""
    if pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type):
        return texts.cast(pa.large_binary()).cast(pa.large_string())
    return texts


def _typed(column: pa.ChunkedArray, file: str) -> tuple[pa.Array, pa.Array | None]:
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s" if pa.types.is_date32(column.type) else "ms"))
    if column.type.tz:
        column = pc.local_timestamp(column)
    column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if column.null_count:
        raise _no_date(file, pc.index(column.is_null(), True).as_py(), "nothing")
    part = PARTS[column.type.unit]
    numbers = column.cast(pa.int64())
    if part < PARTS["ns"]:  # nanoseconds reach from 1677 to 2262
        within = pc.min_max(numbers).as_py()
        if within["min"] < FIRST * part or within["max"] > LAST * part:
            outside = pc.or_(pc.less(numbers, FIRST * part), pc.greater(numbers, LAST * part))
            row = pc.index(outside, True).as_py()
            raise _no_date(file, row, f"{numbers[row].as_py()} {column.type.unit} since 1970")
    since_1970, a_day = numbers.to_numpy(), DAY_SECONDS * part
    days = since_1970 // a_day
    midnights = days * a_day  # that of the first nanoseconds there are overflows, and what is left of them is right
    times = None if np.array_equal(midnights, since_1970) else since_1970 - midnights
    days *= DAY_SECONDS
    sessions = pa.array(days.view("datetime64[s]"))
    if times is None:
        return sessions, None
    # Nanoseconds are cut, which only a bar shorter than a microsecond would notice.
    return sessions, pa.array(times // (part // 10**6) if part > 10**6 else times * (10**6 // part))


def _no_date(file: str, row: int, what: str, hint: str = "write dates as 2011-01-03") -> MarketDataError:
    return MarketDataError(f"{file}, row {row + 1}: {what} is not a date that can be read; {hint}")


def _hint(written: list[str], date_format: str | None) -> str:
    """What to do about dates that could not be read."""
    if date_format is not None:
        return f"stocks.csv.date_format={plain(date_format, 60)} does not fit"
    options = [csv_option({"date_format": fitting}) for fitting in formats_of(written[:MOST_TRIED])]
    kind = "a Unix time: " if options and "unix" in options[0] else ""
    return (
        f"write dates as 2011-01-03{f', or {kind}a csv file is read with ' + ' or '.join(options) if options else ''}"
    )


def formats_of(written: list[str]) -> list[str]:
    """The formats that fit all of some texts and are not read without being named; none of no texts."""
    if not written or _parse(written)[2] is None:
        return []
    return [name for name in FORMATS if _parse_as(written, name)[2] is None]


def _parse_as(written: list[str], date_format: str) -> tuple[list[date], list[int], int | None]:
    """As _parse, of texts that are all written in one format."""
    days, times = [], []
    for place, text in enumerate(written):
        try:
            if date_format in UNIX:
                moment = _moment(text, UNIX[date_format])
            else:
                moment = datetime.strptime(text, date_format)
        except (ValueError, OverflowError):
            return [], [], place
        days.append(moment.date())
        second = (moment.hour * 60 + moment.minute) * 60 + moment.second
        times.append(second * 10**6 + moment.microsecond)
    return days, times, None


def _moment(text: str, parts: int) -> datetime:
    """A Unix time in parts of a second. Raises ValueError for what is none of the years 1973 to 2255."""
    match = UNIX_TIME.fullmatch(text)
    if not match or not 10**8 <= int(match[1]) / parts < 9 * 10**9:
        raise ValueError(text)
    return datetime(1970, 1, 1) + timedelta(microseconds=int(match[1]) * (10**6 // parts))


def _parse(written: list[str]) -> tuple[list[date], list[int], int | None]:
    """The dates and times (microseconds) of some texts, or the place of the first that is not a date.

    Accepts 2011-01-31 and 20110131, with or without a time and a zone after it, and 1/31/2011 or 31/1/2011 if only one
    of the two readings fits all texts.
    """
    matches = [DAY.fullmatch(text) for text in written]
    times = [_time(match[10]) if match else None for match in matches]
    if None in times:
        return [], [], times.index(None)
    given = [[int(part) for part in match.groups()[:9] if part] for match in matches if match]
    if not any(match and match[7] for match in matches):
        days, wrong = _all_days([(y, m, d) for y, m, d in given])
    elif all(match and match[7] for match in matches):
        readings = [_all_days([(y, m, d) for m, d, y in given]), _all_days([(y, m, d) for d, m, y in given])]
        fitting = [days for days, wrong in readings if wrong is None]
        # If both fit, only a guess could tell 3/4 from 4/3.
        sure = len(fitting) == 1 or fitting[:1] == fitting[1:]
        days, wrong = (fitting[0], None) if fitting and sure else ([], readings[0][1] or 0)
    else:
        days, wrong = [], next(n for n, match in enumerate(matches) if match and match[7])
    return days, [time or 0 for time in times], wrong


def _time(text: str | None) -> int | None:
    """Microseconds after midnight; 0 for no text, None for what is not a time."""
    if not text:
        return 0
    match = TIME.fullmatch(text.strip())
    if not match:
        return None
    hour, minute, second = (int(part or 0) for part in match.groups()[:3])
    if half := match[5]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + 12 * (half.lower() == "pm")
    if hour > 23 or minute > 59 or second > 59:
        return None
    return ((hour * 60 + minute) * 60 + second) * 10**6 + int((match[4] or "").ljust(6, "0")[:6])


def _all_days(numbers: list[tuple[int, int, int]]) -> tuple[list[date], int | None]:
    days = []
    for place, (year, month, day) in enumerate(numbers):
        try:
            days.append(date(year, month, day))
        except ValueError:
            return [], place
    return days, None
