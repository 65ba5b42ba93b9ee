"""Where the columns of a parquet file lie, and what their pages say that they unpack to; compiled.

Legend: G row groups, L leaves (columns of values), C columns that are read, N rows as of thrift.py.
"""

# mypy: allow-untyped-defs
# numba infers the types of compiled functions from the calls.

from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numba import njit

from hftraining.market import thrift
from hftraining.market.thrift import AFTER, BYTES, COMPILED, FIRST, INT, LAST, LIST, STRUCT, count_of, field_of

BAD, OTHER_FILE, COLUMNS, ENTRIES, DELTA, TOO_LARGE, MANY = range(1, 8)  # what is wrong; 0: nothing
DATA_PAGE, DICTIONARY_PAGE, DATA_PAGE_2 = 0, 2, 3
# Each text is told from the one before it, so that a few bytes can stand for any number of long ones.
DELTA_BYTE_ARRAY = 7
FURTHEST = 2**62  # of a place in a file, so that two of them add up
HEADER_VALUES = 256  # of a page; real ones have some twenty
WINDOWS = (256, 2**16)  # bytes that a header may take: it holds the least and the largest value, too


class Walk(NamedTuple):
    """What was found on the pages of a column chunk: see walk."""

    said: int  # what is wrong
    unpacked: int  # bytes of all pages
    pages: int
    entries: int  # of the page that is wrong, and its unpacked bytes
    size: int


@njit(**COMPILED)
def chunks_of(footer_N5, groups, n_leaves):
    """What is wrong, a count for its words, the rows of each group, and start, end and values of each column chunk.

    groups: the row of the list of row groups. Lists of other kinds than Arrow takes them for are refused.
    """
    rows_G, chunks_GL3 = np.zeros(0, np.int64), np.zeros((0, n_leaves, 3), np.int64)
    if not thrift.is_list(footer_N5, groups, STRUCT):
        return BAD, 0, rows_G, chunks_GL3
    n_groups, group = 0, groups + 1
    while group < footer_N5[groups, AFTER]:
        columns, sorting = field_of(footer_N5, group, 1, LIST), field_of(footer_N5, group, 4, LIST)
        if columns < 1 or not thrift.is_list(footer_N5, columns, STRUCT) or sorting < 0:
            return BAD, 0, rows_G, chunks_GL3
        if (sorting and not thrift.is_list(footer_N5, sorting, STRUCT)) or count_of(footer_N5, group, 3, -1) < 0:
            return BAD, 0, rows_G, chunks_GL3
        count, column = 0, columns + 1
        while column < footer_N5[columns, AFTER]:
            count, column = count + 1, footer_N5[column, AFTER]
        if count != n_leaves:
            return COLUMNS, count, rows_G, chunks_GL3
        n_groups, group = n_groups + 1, footer_N5[group, AFTER]
    # Of no more numbers than the footer has values.
    rows_G, chunks_GL3 = np.zeros(n_groups, np.int64), np.zeros((n_groups, n_leaves, 3), np.int64)
    g, group = 0, groups + 1
    while group < footer_N5[groups, AFTER]:
        rows_G[g] = count_of(footer_N5, group, 3, -1)
        leaf, column = 0, field_of(footer_N5, group, 1, LIST) + 1
        while leaf < n_leaves:
            said = _chunk(footer_N5, column, chunks_GL3[g, leaf])
            if said:
                return said, 0, rows_G, chunks_GL3
            leaf, column = leaf + 1, footer_N5[column, AFTER]
        g, group = g + 1, footer_N5[group, AFTER]
    return 0, 0, rows_G, chunks_GL3


@njit(**COMPILED)
def _chunk(footer_N5, column, chunk_3):
    """What is wrong with a column chunk; fills in its start, end and values."""
    about = field_of(footer_N5, column, 3, STRUCT)
    if about < 1:
        return BAD
    # Encodings, path, notes, statistics of encodings.
    for number, kind in ((2, INT), (3, BYTES), (8, STRUCT), (13, STRUCT)):
        row = field_of(footer_N5, about, number, LIST)
        if row < 0 or (row and not thrift.is_list(footer_N5, row, kind)):
            return BAD
    sizes = field_of(footer_N5, about, 16, STRUCT)
    if sizes < 0:
        return BAD
    for number in (2, 3):  # histograms of levels
        row = field_of(footer_N5, sizes, number, LIST) if sizes else 0
        if row < 0 or (row and not thrift.is_list(footer_N5, row, INT)):
            return BAD
    elsewhere = field_of(footer_N5, column, 1, BYTES)
    if elsewhere < 0 or (elsewhere and footer_N5[elsewhere, LAST] > footer_N5[elsewhere, FIRST]):
        return OTHER_FILE
    start, dictionary = count_of(footer_N5, about, 9, -1), count_of(footer_N5, about, 11, 0)
    size, values = count_of(footer_N5, about, 7, -1), count_of(footer_N5, about, 5, -1)
    if min(start, dictionary, size, values) < 0 or max(start, size) > FURTHEST:
        return BAD
    start = dictionary if 0 < dictionary < start else start
    chunk_3[0], chunk_3[1], chunk_3[2] = start, start + size, values
    return 0


@njit(**COMPILED)
def are_plain(data, rows_G, chunks_GL3, place_C, most_C, budget):
    """Whether nothing is wrong on the pages of some columns C; where something is, walk says what.

    data: the whole file. most_C: bytes that the pages of each may unpack to. budget: pages of all of them.
    """
    rows_N5 = np.empty((HEADER_VALUES, 5), np.int64)
    for c in range(place_C.size):
        most = most_C[c]
        for g in range(rows_G.size):
            start, end, values = chunks_GL3[g, place_C[c]]
            if values != rows_G[g]:
                return False
            said, unpacked, pages, _, _ = _walked(data, start, end, values, most, budget, rows_N5)
            if said:
                return False
            most, budget = most - unpacked, budget - pages
    return True


@njit(**COMPILED)
def walk(data, start, end, values, most, budget):
    """The pages of a column chunk in the order in which Arrow will read them, as the fields of a Walk.

    data: the whole file. Stops where something is wrong, they unpack to more than `most`, or are more than `budget`.
    """
    return _walked(data, start, end, values, most, budget, np.empty((HEADER_VALUES, 5), np.int64))


@njit(**COMPILED)
def _walked(data, start, end, values, most, budget, rows_N5):
    place, seen, unpacked, pages, end = start, 0, 0, 0, min(end, len(data))
    while place < end and seen < values:
        said, has, count, size, length = page_of(data[place : min(end, place + WINDOWS[1])], rows_N5)
        unpacked, pages = unpacked + size, pages + 1
        if said == 0 and unpacked > most:
            said = TOO_LARGE
        if said == 0 and pages > budget:
            said = MANY
        if said:
            return said, unpacked, pages, count, size
        seen, place = seen + has, place + length
    return 0, unpacked, pages, 0, 0


def walk_in_windows(source: pa.NativeFile, start: int, end: int, values: int, most: int, budget: int) -> Walk:
    """As walk, of a file that is too large to be read at once."""
    rows_N5 = np.empty((HEADER_VALUES, 5), np.int64)
    place, seen, unpacked, pages, end = int(start), 0, 0, 0, min(int(end), source.size())
    while place < end and seen < values:
        for window in WINDOWS:
            source.seek(place)
            header = np.frombuffer(source.read(min(window, end - place)), np.uint8)
            said, has, count, size, length = page_of(header, rows_N5)
            if said != BAD:
                break
        unpacked, pages = unpacked + size, pages + 1
        said = said or (TOO_LARGE if unpacked > most else MANY if pages > budget else 0)
        if said:
            return Walk(said, unpacked, pages, count, size)
        seen, place = seen + has, place + length
    return Walk(0, unpacked, pages, 0, 0)


@njit(**COMPILED)
def page_of(data, rows_N5):
    """What is wrong with the page that begins data, its values if it has data, its entries, and its unpacked size.

    And last the bytes from the begin of its header to the next page. rows_N5: to work in.
    """
    n_rows, length = thrift.scan(data, 0, rows_N5)
    if n_rows < 0 or n_rows > len(rows_N5):
        return BAD, 0, 0, 0, 0
    kind, unpacked, packed = count_of(rows_N5, 0, 1, -1), count_of(rows_N5, 0, 2, -1), count_of(rows_N5, 0, 3, -1)
    if min(kind, unpacked, packed) < 0:
        return BAD, 0, 0, 0, 0
    has_data, number = False, 0
    if kind == DATA_PAGE:
        has_data, number = True, 5
    elif kind == DATA_PAGE_2:
        has_data, number = True, 8
    elif kind == DICTIONARY_PAGE:
        number = 7
    about = field_of(rows_N5, 0, number, STRUCT) if number else 0
    if about < 0:
        return BAD, 0, 0, 0, 0
    count = encoding = 0
    if about:
        count = count_of(rows_N5, about, 1, 0)
        encoding = count_of(rows_N5, about, 4 if kind == DATA_PAGE_2 else 2, 0)
    if count < 0:
        return BAD, 0, 0, 0, 0
    said = 0
    if kind == DICTIONARY_PAGE and count > unpacked:  # Arrow takes memory for each entry that is claimed
        said = ENTRIES
    elif encoding == DELTA_BYTE_ARRAY:
        said = DELTA
    return said, count if has_data else 0, count, unpacked, length + packed
