"""Parquet that anybody may have written: what it unpacks to is bounded before memory is taken for it.

A footer of some kilobytes can claim any number of rows, a page of some bytes can unpack to gigabytes, and a long text
that is stored once can stand in a million rows. So the footer is checked first; then the header of every page that
will be read, since Arrow takes the memory that it names; and text is read as a dictionary, whose entries are few. Both
are read here, since some damaged footers end the process when pyarrow is asked for their details.
Format: https://github.com/apache/parquet-format, src/main/thrift/parquet.thrift.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.parquet.core import ParquetReader

from hftraining.market import pages
from hftraining.market.pages import Walk, are_plain, chunks_of, walk, walk_in_windows
from hftraining.market.thrift import (
    AFTER,
    BYTES,
    FIRST,
    INT,
    LAST,
    LIST,
    STRUCT,
    BadThrift,
    count_of,
    field_of,
    is_list,
    rows_of,
)
from hftraining.market.wording import plain

MOST_FOOTER_BYTES = 2**23
MOST_COLUMNS, MOST_NESTING = 10_000, 64  # Arrow walks the nesting by recursion, and the stack would overflow
MOST_PAGES = 100_000  # of the columns that are read; fifty million rows take some 20,000
MOST_TEXT = 64  # characters of a symbol or a date
# What a row may take in a page, whatever the page's encoding, and what any file may take beyond it.
NUMBER_BYTES, TEXT_BYTES, SLACK_BYTES = 24, 80, 2**24
# Real daily bars take some 15 bytes a row, compressed; a few kilobytes that claim millions of rows are a trap.
FEWEST_BYTES_A_ROW, TRAP_ROWS = 1.0, 1_000_000
AT_ONCE_BYTES = 2**24  # of a file that is read whole, in half the time; from larger ones only the columns of bars are
BYTE_ARRAY, FIXED_BYTES = 6, 7  # physical types
MOST_SCHEMA_BYTES = 2**16  # of one that is remembered for the next file


class UnsafeFile(ValueError):
    """A file that real bars do not look like, and that could fill the memory. Its message follows the file's name."""


@dataclass(frozen=True)
class _Leaf:
    """A column of values in the schema."""

    place: int  # among all leaves
    kind: int  # physical type
    length: int  # bytes of a value of fixed length
    flat: bool  # one value a row, at the top of the schema


class Parquet:
    """An open parquet file whose footer was checked: its rows, and the names of its columns.

    Raises UnsafeFile or OSError if it cannot be.
    """

    def __init__(self, path: str) -> None:
        self.source: pa.NativeFile = pa.OSFile(path)
        size = self.source.size()
        self._whole: np.ndarray | None = None  # the bytes of a file that is read at once
        if size <= AT_ONCE_BYTES:
            content = self.source.read()
            self.source, self._whole = pa.BufferReader(content), np.frombuffer(content, np.uint8)
        written = _footer(self.source, size)
        try:
            footer_N5 = rows_of(written)
            schema, groups = field_of(footer_N5, 0, 2, LIST), field_of(footer_N5, 0, 4, LIST)
            claimed = int(count_of(footer_N5, 0, 3, -1))
            if min(schema, groups) < 1 or claimed < 0:
                raise BadThrift("it lacks its schema, its parts or its rows")
            elements = written[footer_N5[schema, FIRST] : footer_N5[schema, LAST]]
            read = _schema if len(elements) <= MOST_SCHEMA_BYTES else _schema.__wrapped__
            names, self._leaves = read(elements)
        except (BadThrift, LookupError, TypeError, AttributeError, UnicodeError) as error:
            raise UnsafeFile("has a footer that cannot be read") from error
        self.names = list(names)
        said, count, self._rows_G, self._chunks_GL3 = chunks_of(footer_N5, groups, len(self._leaves))
        if said == pages.BAD:
            raise UnsafeFile("has a footer that cannot be read")
        if said == pages.OTHER_FILE:
            raise UnsafeFile("has its columns in another file: not read")
        if said:
            raise UnsafeFile(f"has {count:,} columns in a part of it, but {len(self._leaves):,} in its schema")
        self.rows = sum(self._rows_G.tolist())  # not what the footer claims beside it; and no number overflows here
        if self.rows != claimed:
            raise UnsafeFile(f"claims {claimed:,} rows, but its parts have {self.rows:,}: not read")
        if self.rows > TRAP_ROWS and size < self.rows * FEWEST_BYTES_A_ROW:
            raise UnsafeFile(f"claims {self.rows:,} rows in {size:,} bytes, which no real bars do: not read")

    def read(self, columns: list[str]) -> pa.Table:
        """Some flat columns in that order, text as dictionaries whose entries have at most MOST_TEXT characters.

        Raises UnsafeFile, or ArrowException for what is damaged.
        """
        leaves = {}
        for name in columns:
            leaf = self._leaves.get(name)
            if leaf is None or not leaf.flat:
                raise UnsafeFile(f"has lists or records in its column {_quoted(name)}: one value a row is needed")
            if leaf.kind == FIXED_BYTES and not 0 < leaf.length <= NUMBER_BYTES:
                raise UnsafeFile(f"has values of {leaf.length:,} bytes in its column {_quoted(name)}: not read")
            leaves[name] = leaf
        self._check_all_pages(leaves)
        texts = {name: leaf.place for name, leaf in leaves.items() if leaf.kind == BYTE_ARRAY}
        self.source.seek(0)
        # Not ParquetFile, which takes longer to list the columns of a file of bars than it then takes to read them.
        reader = ParquetReader()
        reader.open(self.source, read_dictionary=texts.values(), pre_buffer=self._whole is None)
        table = reader.read_all(column_indices=[leaf.place for leaf in leaves.values()], use_threads=False)
        for name in texts:
            check_texts(table[name], name)
        return table.select(columns)

    def _check_all_pages(self, leaves: dict[str, _Leaf]) -> None:
        """Raise UnsafeFile if the pages of a column unpack to more than its rows can need, or all are too many."""
        row_bytes = [TEXT_BYTES if leaf.kind == BYTE_ARRAY else NUMBER_BYTES for leaf in leaves.values()]
        if self._whole is not None:  # so that it has fewer rows than could overflow here
            most_C = self.rows * np.array(row_bytes) + SLACK_BYTES
            place_C = np.array([leaf.place for leaf in leaves.values()])
            if are_plain(self._whole, self._rows_G, self._chunks_GL3, place_C, most_C, MOST_PAGES):
                return
        budget = MOST_PAGES
        for (name, leaf), bytes_a_row in zip(leaves.items(), row_bytes, strict=True):
            budget -= self._check_pages(name, leaf, bytes_a_row, budget)

    def _check_pages(self, name: str, leaf: _Leaf, row_bytes: int, budget: int) -> int:
        """The number of pages of a column. Raises UnsafeFile if they unpack to more than its rows can need."""
        most = min(self.rows * row_bytes + SLACK_BYTES, 2**62)
        unpacked = walked_pages = 0
        for rows, (start, end, values) in zip(self._rows_G, self._chunks_GL3[:, leaf.place], strict=True):
            if values != rows:
                raise UnsafeFile(f"claims {values:,} values of {_quoted(name)} in {rows:,} rows: not read")
            span = start, end, values, most - unpacked, budget - walked_pages
            if self._whole is not None:
                walked = Walk(*walk(self._whole, *span))
            else:
                walked = walk_in_windows(self.source, *span)
            if walked.said:
                raise UnsafeFile(_why(walked, name, most, self.rows))
            unpacked, walked_pages = unpacked + walked.unpacked, walked_pages + walked.pages
        return walked_pages


def _why(walked: Walk, name: str, most: int, rows: int) -> str:
    """What is wrong with the page at which a walk ended."""
    if walked.said == pages.TOO_LARGE:
        return (
            f"unpacks to more than {most:,} bytes of {_quoted(name)} for {rows:,} rows, which no real bars do: not read"
        )
    if walked.said == pages.MANY:
        return f"has more than {MOST_PAGES:,} pages, which no real bars do: not read"
    if walked.said == pages.ENTRIES:
        return f"claims {walked.entries:,} entries in a dictionary of {walked.size:,} bytes: not read"
    if walked.said == pages.DELTA:
        return "stores text as differences (DELTA_BYTE_ARRAY), whose length nothing bounds: not read"
    return "has a page whose header cannot be read"


def check_texts(column: pa.ChunkedArray, name: str) -> None:
    """Raise UnsafeFile if an entry of a column of dictionaries (others pass) is too long for a symbol or a date."""
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type):
            longest = pc.max(pc.binary_length(chunk.dictionary.cast(pa.large_binary()))).as_py() or 0
            if longest > MOST_TEXT * 4:  # bytes of UTF-8
                raise UnsafeFile(f"has an entry of {longest:,} bytes in its column {_quoted(name)}: not read")


def _quoted(name: str) -> str:
    return plain(ascii(name), 80)


def _footer(source: pa.NativeFile, size: int) -> bytes:
    source.seek(max(size - 8, 0))
    tail = source.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or length + 12 > size:
        raise UnsafeFile("is no parquet file, or was cut short")
    if length > MOST_FOOTER_BYTES:
        raise UnsafeFile(f"has a footer of {length:,} bytes, more than the {MOST_FOOTER_BYTES:,} that are read")
    source.seek(size - 8 - length)
    return bytes(source.read(length))


@lru_cache(maxsize=8)  # the files of a folder have mostly one
def _schema(written: bytes) -> tuple[tuple[str, ...], dict[str, _Leaf]]:
    """The names at the top of the schema, and the leaves of the schema by name (or by names joined with a dot).

    written: the list of the schema's elements, in thrift.
    """
    elements = _elements(written)
    if len(elements) > MOST_COLUMNS:
        raise UnsafeFile(f"has {len(elements):,} columns, more than the {MOST_COLUMNS:,} that are read")
    names: list[str] = []
    leaves: dict[str, _Leaf] = {}
    inside: list[str] = []  # the groups that are open, without the root
    left = [_number(elements[0].get(5, 0))]  # children to come: of the root, and of each open group
    for element in elements[1:]:
        while not left[-1]:
            left.pop()  # an IndexError if there is no group to be in
            inside.pop()
        left[-1] -= 1
        name, children = element[4].decode(), _number(element.get(5, 0))
        names += [] if inside else [name]
        if children:
            left.append(children)
            inside.append(name)
            if len(inside) > MOST_NESTING:
                raise UnsafeFile(f"nests its columns more than {MOST_NESTING} deep: not read")
            continue
        flat = not inside and element.get(3) != 2  # 2 is a repeated column
        leaf = _Leaf(len(leaves), _number(element[1]), _number(element.get(2, 0)), flat)
        if leaves.setdefault(".".join([*inside, name]), leaf) is not leaf:
            raise UnsafeFile(f"has two columns called {_quoted(name)}: leave one out")
    return tuple(names), leaves


def _elements(written: bytes) -> list[dict[int, Any]]:
    """The numbers and texts of each struct in a list, by field; None for what is neither."""
    in_struct = b"\x19" + written + b"\0"
    rows_N5 = rows_of(in_struct)
    if not is_list(rows_N5, 1, STRUCT):
        raise BadThrift("no list of structs")
    rows = rows_N5.tolist()
    elements: list[dict[int, Any]] = []
    at = 2
    while at < len(rows):
        found, at, end = {}, at + 1, rows[at][AFTER]
        while at < end:
            kind, field, first, last, at = rows[at]
            found[field] = {INT: first, BYTES: in_struct[first:last]}.get(kind)
        elements.append(found)
    return elements


def _number(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"{value!r:.40} is no count")
    return value
