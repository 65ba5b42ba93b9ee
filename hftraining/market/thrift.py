"""A reader of thrift's compact protocol, in which parquet writes its headers, that reads as Arrow's does or refuses.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md

A footer has some hundred values and a folder some thousand files, so the reading is compiled. It makes a row of numbers
of each value, a struct before what is in it: its kind, the number of its field (0 in a list), two numbers, and the row
after all that is in it. The two numbers: of an int or bool its value; of the others their first byte and the one after.
"""

# mypy: allow-untyped-defs
# numba infers the types of compiled functions from the calls.

import numpy as np
from numba import njit

DEEPEST = 32  # structs and lists within each other; parquet has nine
MOST_FIELDS = 64  # of a struct that does not have them in rising order, as every known writer does; parquet has 16
INT, BOOL, BYTES, FLOAT, LIST, STRUCT = range(1, 7)
KIND, FIELD, FIRST, LAST, AFTER = range(5)  # the columns of a row
LOWEST = -(2**62)
COMPILED = {"cache": True, "nogil": True}


class BadThrift(ValueError):
    """Bytes that are no thrift, or that two readers could read in two ways."""


def rows_of(data: bytes) -> np.ndarray:
    """The rows of the struct with which some bytes begin; further bytes may follow. Raises BadThrift."""
    bytes_N = np.frombuffer(data, np.uint8)
    rows_N5 = np.empty((min(1024, len(data) + 1), 5), np.int64)
    count, _ = scan(bytes_N, 0, rows_N5)
    if count > len(rows_N5):
        rows_N5 = np.empty((count, 5), np.int64)
        scan(bytes_N, 0, rows_N5)
    if count < 0:
        raise BadThrift("it ends early, or is written in no way that all readers read alike")
    return rows_N5[:count]


@njit(**COMPILED)
def scan(data, place, rows_N5):
    """The number of rows of a struct, and the place after it; -1 where there is none. Writes what rows_N5 has room for.

    Refused: a field that stands twice in a struct (other readers would add its parts together), a number of more bits
    than its kind has (they would cut it), what is nested too deeply, and kinds that parquet does not use.
    """
    count = 1
    # Of each open struct or list: its row, the values to come (-1: a struct), their kind, the field before.
    at, left, inside = np.zeros(DEEPEST, np.int64), np.zeros(DEEPEST, np.int64), np.zeros(DEEPEST, np.int64)
    field, highest, fields = np.zeros(DEEPEST, np.int64), np.zeros(DEEPEST, np.int64), np.zeros(DEEPEST, np.int64)
    depth, left[0], highest[0] = 0, -1, LOWEST
    _write(rows_N5, 0, STRUCT, 0, place, 0)
    while depth >= 0:
        if left[depth] >= 0:
            kind, number = inside[depth] if left[depth] else 0, 0
            left[depth] -= 1
        else:
            kind, number, place = _head(data, place, field[depth])
            if place < 0:
                return -1, place
            if kind:
                field[depth], fields[depth] = number, fields[depth] + 1
                if number <= highest[depth] and _stands(rows_N5, at[depth], count, number, fields[depth]):
                    return -1, place
                highest[depth] = max(highest[depth], number)
        if kind == 0:  # the end of a struct or list
            if at[depth] < len(rows_N5):
                rows_N5[at[depth], LAST], rows_N5[at[depth], AFTER] = place, count
            depth -= 1
            continue
        start = place
        if kind == 9 or kind == 10 or kind == 12:
            depth += 1
            if depth >= DEEPEST:
                return -1, place
            at[depth], field[depth], fields[depth], highest[depth] = count, 0, 0, LOWEST
            left[depth], inside[depth], place = _opened(data, place, kind)
            made, first, last = STRUCT if kind == 12 else LIST, start, start
        else:
            made, first, last, place = _simple(data, place, kind, left[depth] == -1)
        if place < 0:
            return -1, place
        _write(rows_N5, count, made, number, first, last)
        count += 1
    return count, place


@njit(**COMPILED)
def _write(rows_N5, row, kind, field, first, last):
    if row < len(rows_N5):
        rows_N5[row, KIND], rows_N5[row, FIELD], rows_N5[row, AFTER] = kind, field, row + 1
        rows_N5[row, FIRST], rows_N5[row, LAST] = first, last


@njit(**COMPILED)
def _head(data, place, before):
    """Kind and number of the next field of a struct, and the place after both; kind 0 at its end, place -1 for none."""
    if place >= len(data):
        return 0, 0, -1
    head, place = np.int64(data[place]), place + 1
    if head >> 4 or head == 0:
        number = before + (head >> 4)
    else:
        number, place = zigzag(data, place, 16)
    kind = head & 15
    return kind, number, (-1 if head and kind == 0 else place)


@njit(**COMPILED)
def _opened(data, place, kind):
    """Of a struct or list: the values to come, see scan, their kind, and the place of the first; -1 for none."""
    if kind == 12:
        return -1, 0, place
    if place >= len(data):
        return 0, 0, -1
    head, place = np.int64(data[place]), place + 1
    length = np.uint64(head >> 4)
    if head >> 4 == 15:
        length, place = varint(data, place)
    if place < 0 or length > np.uint64(len(data) - place):  # each takes a byte at least
        return 0, 0, -1
    if length and head & 15 == 0:
        return 0, 0, -1
    return np.int64(length), head & 15, place


@njit(**COMPILED)
def _simple(data, place, kind, of_struct):
    """What a value that holds no others is made into: kind, two numbers, and the place after it; -1 for none."""
    if of_struct and (kind == 1 or kind == 2):
        return BOOL, np.int64(kind == 1), 0, place
    if kind <= 3:
        return (INT, np.int64(data[place]), 0, place + 1) if place < len(data) else (INT, 0, 0, -1)
    if kind <= 6:
        number, place = zigzag(data, place, 1 << kind)
        return INT, number, 0, place
    length = np.uint64(8)
    if kind == 8:
        length, place = varint(data, place)
    if kind > 8 or place < 0 or length > np.uint64(len(data) - place):
        return BYTES, 0, 0, -1
    end = place + np.int64(length)
    return (BYTES if kind == 8 else FLOAT), place, end, end


@njit(**COMPILED)
def _stands(rows_N5, struct, count, number, fields):
    """Whether a field stands in an open struct already, or there are too many to tell."""
    if fields > MOST_FIELDS or count > len(rows_N5):  # the latter when rows are only counted
        return fields > MOST_FIELDS
    row = struct + 1
    while row < count:
        if rows_N5[row, FIELD] == number:
            return True
        row = rows_N5[row, AFTER]
    return False


@njit(**COMPILED)
def varint(data, place):
    """A number of up to 64 bits, and the place after it; -1 where there is none."""
    number = np.uint64(0)
    for shift in range(0, 64, 7):
        if place >= len(data):
            break
        byte, place = np.uint64(data[place]), place + 1
        if shift == 63 and byte > np.uint64(1):
            break
        number |= (byte & np.uint64(127)) << np.uint64(shift)
        if byte < np.uint64(128):
            return number, place
    return np.uint64(0), -1


@njit(**COMPILED)
def zigzag(data, place, bits):
    """A signed number of so many bits, and the place after it; -1 where there is none."""
    number, place = varint(data, place)
    if bits < 64 and number >> np.uint64(bits):
        return 0, -1
    half = np.int64(number >> np.uint64(1))
    return (-half - 1 if number & np.uint64(1) else half), place


@njit(**COMPILED)
def field_of(rows_N5, struct, number, kind):
    """The row of a field of a struct; 0 where it has none, -1 where it is of another kind."""
    row = struct + 1
    while row < rows_N5[struct, AFTER]:
        if rows_N5[row, FIELD] == number:
            return row if rows_N5[row, KIND] == kind else -1
        row = rows_N5[row, AFTER]
    return 0


@njit(**COMPILED)
def count_of(rows_N5, struct, number, default):
    """The number in a field of a struct, at least 0; default where there is none, -1 where it is no count."""
    row = field_of(rows_N5, struct, number, INT)
    if row == 0:
        return default
    return max(rows_N5[row, FIRST], -1) if row > 0 else -1


@njit(**COMPILED)
def is_list(rows_N5, row, kind):
    """Whether a row is of a list whose values are all of one kind."""
    if rows_N5[row, KIND] != LIST:
        return False
    inside = row + 1
    while inside < rows_N5[row, AFTER]:
        if rows_N5[inside, KIND] != kind:
            return False
        inside = rows_N5[inside, AFTER]
    return True
