"""Parquet that anybody may have written: what it unpacks to is bounded before memory is taken for it.

A footer of some kilobytes can claim any number of rows, a page of some bytes can unpack to gigabytes, and a long text
that is stored once can stand in a million rows. So the footer is checked first; then the header of every page that
will be read, since Arrow takes the memory that it names; and text is read as a dictionary, whose entries are few. Both
are read here, since some damaged footers end the process when pyarrow is asked for their details.
Format: https://github.com/apache/parquet-format, src/main/thrift/parquet.thrift.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hftraining.market.thrift import BadThrift, Thrift
from hftraining.market.wording import plain

MOST_FOOTER_BYTES = 2**23
MOST_COLUMNS, MOST_NESTING = 10_000, 64  # Arrow walks the nesting by recursion, and the stack would overflow
MOST_PAGES = 100_000  # of the columns that are read; fifty million rows take some 20,000
MOST_TEXT = 64  # characters of a symbol or a date
# What a row may take in a page, whatever the page's encoding, and what any file may take beyond it.
NUMBER_BYTES, TEXT_BYTES, SLACK_BYTES = 24, 80, 2**24
# Real daily bars take some 15 bytes a row, compressed; a few kilobytes that claim millions of rows are a trap.
FEWEST_BYTES_A_ROW, TRAP_ROWS = 1.0, 1_000_000
BYTE_ARRAY, FIXED_BYTES = 6, 7  # physical types
DATA_PAGE, DICTIONARY_PAGE, DATA_PAGE_2 = 0, 2, 3
# Each text is told from the one before it, so that a few bytes can stand for any number of long ones.
DELTA_BYTE_ARRAY = 7


class UnsafeFile(ValueError):
    """A file that real bars do not look like, and that could fill the memory. Its message follows the file's name."""


@dataclass(frozen=True)
class _Leaf:
    """A column of values in the schema."""

    place: int  # among all leaves
    kind: int  # physical type
    length: int  # bytes of a value of fixed length
    flat: bool  # one value a row, at the top of the schema


@dataclass(frozen=True)
class _Chunk:
    """The part of a column in one row group: where its pages begin and end, and how many values they have."""

    start: int
    end: int
    values: int


class Parquet:
    """An open parquet file whose footer was checked: its rows, and the names of its columns.

    Raises UnsafeFile or OSError if it cannot be.
    """

    def __init__(self, path: str) -> None:
        self.source = pa.OSFile(path)
        size = self.source.size()
        try:
            footer = _footer(self.source, size)
            self.names, self._leaves = _schema(_list_of(footer[2], dict))
            groups = _list_of(footer[4], dict)
            self._rows = [_number(group[3]) for group in groups]
            self._groups = [_chunks(group, len(self._leaves)) for group in groups]
            claimed = _number(footer[3])
        except (BadThrift, LookupError, TypeError, AttributeError, UnicodeError) as error:
            raise UnsafeFile("has a footer that cannot be read") from error
        self.rows = sum(self._rows)  # not what the footer claims beside it
        if self.rows != claimed:
            raise UnsafeFile(f"claims {claimed:,} rows, but its parts have {self.rows:,}: not read")
        if self.rows > TRAP_ROWS and size < self.rows * FEWEST_BYTES_A_ROW:
            raise UnsafeFile(f"claims {self.rows:,} rows in {size:,} bytes, which no real bars do: not read")

    def read(self, columns: list[str]) -> pa.Table:
        """Some columns, text as dictionaries whose entries have at most MOST_TEXT characters. Columns must be flat.

        Raises UnsafeFile, or ArrowException for what is damaged.
        """
        texts = []
        budget = MOST_PAGES
        for name in columns:
            leaf = self._leaves.get(name)
            if leaf is None or not leaf.flat:
                raise UnsafeFile(f"has lists or records in its column {_quoted(name)}: one value a row is needed")
            if leaf.kind == FIXED_BYTES and not 0 < leaf.length <= NUMBER_BYTES:
                raise UnsafeFile(f"has values of {leaf.length:,} bytes in its column {_quoted(name)}: not read")
            texts += [name] if leaf.kind == BYTE_ARRAY else []
            budget -= self._check_pages(name, leaf, TEXT_BYTES if leaf.kind == BYTE_ARRAY else NUMBER_BYTES, budget)
        self.source.seek(0)
        table = pq.ParquetFile(self.source, read_dictionary=texts).read(columns=columns)
        for name in texts:
            check_texts(table[name], name)
        return table

    def _check_pages(self, name: str, leaf: _Leaf, row_bytes: int, budget: int) -> int:
        """The number of pages of a column. Raises UnsafeFile if they unpack to more than its rows can need."""
        most = self.rows * row_bytes + SLACK_BYTES
        unpacked = pages = 0
        for rows, group in zip(self._rows, self._groups, strict=True):
            chunk = group[leaf.place]
            if chunk.values != rows:
                raise UnsafeFile(f"claims {chunk.values:,} values of {_quoted(name)} in {rows:,} rows: not read")
            for size in _pages(self.source, chunk):
                unpacked, pages = unpacked + size, pages + 1
                if unpacked > most:
                    raise UnsafeFile(
                        f"unpacks to more than {most:,} bytes of {_quoted(name)} for {self.rows:,} rows, which no real "
                        "bars do: not read"
                    )
                if pages > budget:
                    raise UnsafeFile(f"has more than {MOST_PAGES:,} pages, which no real bars do: not read")
        return pages


def check_texts(column: pa.ChunkedArray, name: str) -> None:
    """Raise UnsafeFile if an entry of a column of dictionaries (others pass) is too long for a symbol or a date."""
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type):
            longest = pc.max(pc.binary_length(chunk.dictionary.cast(pa.large_binary()))).as_py() or 0
            if longest > MOST_TEXT * 4:  # bytes of UTF-8
                raise UnsafeFile(f"has an entry of {longest:,} bytes in its column {_quoted(name)}: not read")


def _quoted(name: str) -> str:
    return plain(ascii(name), 80)


def _footer(source: pa.NativeFile, size: int) -> dict[int, Any]:
    source.seek(max(size - 8, 0))
    tail = source.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or length + 12 > size:
        raise UnsafeFile("is no parquet file, or was cut short")
    if length > MOST_FOOTER_BYTES:
        raise UnsafeFile(f"has a footer of {length:,} bytes, more than the {MOST_FOOTER_BYTES:,} that are read")
    source.seek(size - 8 - length)
    return Thrift(source.read(length)).struct()


def _schema(elements: list[dict[int, Any]]) -> tuple[list[str], dict[str, _Leaf]]:
    """The names at the top of the schema, and the leaves of the schema by name (or by names joined with a dot)."""
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
    return names, leaves


def _chunks(group: dict[int, Any], count: int) -> list[_Chunk]:
    """The chunks of a row group, one a leaf. Refuses lists of other kinds than Arrow takes them for."""
    chunks = []
    _list_of(group.get(4, []), dict)  # sorting columns
    for column in _list_of(group[1], dict):
        about = column[3]
        kinds = {2: int, 3: bytes, 8: dict, 13: dict}  # encodings, path, notes, statistics of encodings
        for field, kind in kinds.items():
            _list_of(about.get(field, []), kind)
        for field in (2, 3):
            _list_of(about.get(16, {}).get(field, []), int)  # histograms of levels
        if column.get(1):
            raise UnsafeFile("has its columns in another file: not read")
        start, dictionary = _number(about[9]), _number(about.get(11, 0))
        start = dictionary if 0 < dictionary < start else start
        chunks.append(_Chunk(start, start + _number(about[7]), _number(about[5])))
    if len(chunks) != count:
        raise UnsafeFile(f"has {len(chunks):,} columns in a part of it, but {count:,} in its schema")
    return chunks


def _list_of(values: Any, kind: type) -> list[Any]:
    if not isinstance(values, list) or not all(type(value) is kind for value in values):
        raise TypeError(f"no list of {kind.__name__}")
    return values


def _number(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"{value!r:.40} is no count")
    return value


def _pages(source: pa.NativeFile, chunk: _Chunk) -> Iterator[int]:
    """The unpacked size of each page of a column chunk, in the order in which Arrow will read them."""
    place, values, end = chunk.start, 0, min(chunk.end, source.size())
    while place < end and values < chunk.values:
        page, length = _page_header(source, place, end)
        try:
            kind, unpacked, packed = _number(page[1]), _number(page[2]), _number(page[3])
            about = page.get({DATA_PAGE: 5, DICTIONARY_PAGE: 7, DATA_PAGE_2: 8}.get(kind, 0), {})
            count, encoding = _number(about.get(1, 0)), about.get(4 if kind == DATA_PAGE_2 else 2, 0)
        except (LookupError, TypeError, AttributeError) as error:
            raise UnsafeFile("has a page whose header cannot be read") from error
        if kind == DICTIONARY_PAGE and count > unpacked:  # Arrow takes memory for each entry that is claimed
            raise UnsafeFile(f"claims {count:,} entries in a dictionary of {unpacked:,} bytes: not read")
        if encoding == DELTA_BYTE_ARRAY:
            raise UnsafeFile("stores text as differences (DELTA_BYTE_ARRAY), whose length nothing bounds: not read")
        values += count if kind in (DATA_PAGE, DATA_PAGE_2) else 0
        place += length + packed
        yield unpacked


def _page_header(source: pa.NativeFile, place: int, end: int) -> tuple[dict[int, Any], int]:
    """The header of a page, and its length."""
    for window in (256, 2**16):  # it holds the least and the largest value, too
        source.seek(place)
        reader = Thrift(source.read(min(window, end - place)))
        try:
            return reader.struct(), reader.place
        except BadThrift as error:
            cause = error
    raise UnsafeFile("has a page whose header cannot be read") from cause
