"""Parquet that anybody may have written: what it unpacks to is bounded before memory is taken for it.

A footer of some kilobytes can claim any number of rows, a page of some bytes can unpack to gigabytes, and a long text
that is stored once can stand in a million rows. So the footer is checked first; then the header of every page that
will be read, since Arrow takes the memory that it names; and text is read as a dictionary, whose entries are few.
Format: https://github.com/apache/parquet-format, thrift's compact protocol.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

MOST_FOOTER_BYTES = 2**24
MOST_COLUMNS, MOST_NESTING = 10_000, 64  # Arrow walks the nesting by recursion, and the stack would overflow
MOST_PAGES = 200_000  # of the columns that are read; fifty million rows take some 20,000
MOST_TEXT = 64  # characters of a symbol or a date
# What a row may take in a page, whatever the page's encoding, and what any file may take beyond it.
NUMBER_BYTES, TEXT_BYTES, SLACK_BYTES = 24, 80, 2**24
# Real daily bars take some 15 bytes a row, compressed; a few kilobytes that claim millions of rows are a trap.
FEWEST_BYTES_A_ROW, TRAP_ROWS = 1.0, 1_000_000
DATA = (0, 3)  # kinds of pages that hold values; 2 is a dictionary
# Each text is told from the one before it, so that a few bytes can stand for any number of long ones.
DELTA_BYTE_ARRAY = 7


class UnsafeFile(ValueError):
    """A file that real bars do not look like, and that could fill the memory. Its message follows the file's name."""


class Parquet:
    """An open parquet file whose footer was checked. Raises UnsafeFile, ArrowException or OSError if it cannot be."""

    def __init__(self, path: str) -> None:
        self.source = pa.OSFile(path)
        size = self.source.size()
        _check_footer(self.source, size)
        self.source.seek(0)
        self.metadata = pq.read_metadata(self.source)
        self.names: list[str] = self.metadata.schema.to_arrow_schema().names
        groups = [self.metadata.row_group(n).num_rows for n in range(self.metadata.num_row_groups)]
        self.rows = sum(groups)  # not num_rows, which the footer claims beside it
        if min(groups, default=0) < 0 or self.rows != self.metadata.num_rows:
            raise UnsafeFile(f"claims {self.metadata.num_rows:,} rows, but its parts have {self.rows:,}: not read")
        if self.rows > TRAP_ROWS and size < self.rows * FEWEST_BYTES_A_ROW:
            raise UnsafeFile(f"claims {self.rows:,} rows in {size:,} bytes, which no real bars do: not read")

    def read(self, columns: list[str]) -> pa.Table:
        """Some columns, text as dictionaries whose entries have at most MOST_TEXT characters. Columns must be flat."""
        schema = self.metadata.schema
        flat = {
            leaf.path: place
            for place in range(self.metadata.num_columns)
            if not (leaf := schema.column(place)).max_repetition_level and leaf.max_definition_level <= 1
        }
        texts = []
        for name in columns:
            if name not in flat:
                raise UnsafeFile(f"has lists or records in its column {name!a:.80}: one value a row is needed")
            leaf = schema.column(flat[name])
            if leaf.physical_type == "FIXED_LEN_BYTE_ARRAY" and leaf.length > NUMBER_BYTES:
                raise UnsafeFile(f"has values of {leaf.length:,} bytes in its column {name!a:.80}: not read")
            texts += [name] if leaf.physical_type == "BYTE_ARRAY" else []
        budget = MOST_PAGES
        for name in columns:
            budget -= self._check_pages(name, flat[name], TEXT_BYTES if name in texts else NUMBER_BYTES, budget)
        self.source.seek(0)
        table = pq.ParquetFile(self.source, metadata=self.metadata, read_dictionary=texts).read(columns=columns)
        for name in texts:
            check_texts(table[name], name)
        return table

    def _check_pages(self, name: str, place: int, row_bytes: int, budget: int) -> int:
        """The number of pages of a column. Raises UnsafeFile if they unpack to more than its rows can need."""
        most = self.rows * row_bytes + SLACK_BYTES
        unpacked = pages = 0
        for n in range(self.metadata.num_row_groups):
            group = self.metadata.row_group(n)
            chunk = group.column(place)
            if chunk.num_values != group.num_rows:
                raise UnsafeFile(f"claims {chunk.num_values:,} values of {name!a:.80} in {group.num_rows:,} rows")
            for size in _pages(self.source, chunk):
                unpacked, pages = unpacked + size, pages + 1
                if unpacked > most:
                    raise UnsafeFile(
                        f"unpacks to more than {most:,} bytes of {name!a:.80} for {self.rows:,} rows, which no real "
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
                raise UnsafeFile(f"has an entry of {longest:,} bytes in its column {name!a:.80}: not read")


def _check_footer(source: pa.NativeFile, size: int) -> None:
    """Raise UnsafeFile for a footer that is too large, has too many columns, or nests them too deeply."""
    if size < 12:
        raise UnsafeFile("is no parquet file")
    source.seek(size - 8)
    tail = source.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or length + 12 > size:
        raise UnsafeFile("is no parquet file, or was cut short")
    if length > MOST_FOOTER_BYTES:
        raise UnsafeFile(f"has a footer of {length:,} bytes, more than the {MOST_FOOTER_BYTES:,} that are read")
    source.seek(size - 8 - length)
    reader = _Thrift(source.read(min(length, 2**21)))
    try:
        if not reader.columns_follow():
            raise UnsafeFile("has a footer that does not begin with its columns: not read")
        open_groups: list[int] = []
        for _ in range(reader.list_length()):
            element = reader.struct()
            while open_groups and not open_groups[-1]:
                open_groups.pop()
            if open_groups:
                open_groups[-1] -= 1
            if element.get(5):  # children
                open_groups.append(int(element[5]))
            if len(open_groups) > MOST_NESTING:
                raise UnsafeFile(f"nests its columns more than {MOST_NESTING} deep: not read")
    except (IndexError, TypeError) as error:
        raise UnsafeFile("has a footer that cannot be read") from error


def _pages(source: pa.NativeFile, chunk: Any) -> Iterator[int]:
    """The unpacked size of each page of a column chunk, in the order in which Arrow will read them."""
    place = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < (chunk.dictionary_page_offset or 0) < place:
        place = chunk.dictionary_page_offset
    end, values = min(place + chunk.total_compressed_size, source.size()), 0
    while 0 <= place < end and values < chunk.num_values:
        page = _page_header(source, place, end)
        if min(page.unpacked, page.packed, page.values) < 0 or (page.kind == 2 and page.values > page.unpacked):
            raise UnsafeFile("has a page whose header contradicts itself")
        if page.encoding == DELTA_BYTE_ARRAY:
            raise UnsafeFile("stores text as differences (DELTA_BYTE_ARRAY), whose length nothing bounds: not read")
        values += page.values if page.kind in DATA else 0
        place += page.length + page.packed
        yield page.unpacked


class _Page(NamedTuple):
    """The header of a page: its kind, its size unpacked and as stored, its values, and the header's own length."""

    kind: int
    unpacked: int
    packed: int
    values: int
    encoding: int
    length: int


def _page_header(source: pa.NativeFile, place: int, end: int) -> _Page:
    for window in (256, 2**16):  # a header holds the least and the largest value, too
        source.seek(place)
        reader = _Thrift(source.read(min(window, end - place)))
        try:
            fields = reader.struct()
            about = fields.get({0: 5, 2: 7, 3: 8}.get(fields[1], 0), {})
            count, encoding = about.get(1, 0), about.get(4 if fields[1] == 3 else 2, 0)
            numbers = (fields[1], fields[2], fields[3], count, encoding, reader.place)
            if all(isinstance(number, int) for number in numbers):
                return _Page(*numbers)
        except (IndexError, KeyError, TypeError, AttributeError):
            continue
    raise UnsafeFile("has a page whose header cannot be read")


class _Thrift:
    """A reader of thrift's compact protocol, for structs without lists. Raises IndexError where the bytes end."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def field(self, before: int) -> tuple[int, int]:
        """Number and kind of the next field, after the one of number `before`."""
        head = self._byte()
        return (before + (head >> 4) if head >> 4 else self._zigzag()), head & 15

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """The numbers and structs in a struct, by the number of their field; texts are passed over."""
        found: dict[int, Any] = {}
        number = 0
        while True:
            if self.data[self.place] == 0:
                self.place += 1
                return found
            number, kind = self.field(number)
            if kind in (1, 2):
                found[number] = kind == 1
            elif kind == 3:
                found[number] = self._byte()
            elif kind in (4, 5, 6):
                found[number] = self._zigzag()
            elif kind == 7:
                self._skip(8)
            elif kind == 8:
                self._skip(self._varint())
            elif kind == 12 and depth < 8:
                found[number] = self.struct(depth + 1)
            else:
                raise UnsafeFile("has a header of a kind that is not known")

    def columns_follow(self) -> bool:
        """Whether a footer begins with a version and the list of its columns, whose length is next."""
        if self.field(0) != (1, 5):
            return False
        self._zigzag()
        return self.field(1) == (2, 9)

    def list_length(self) -> int:
        """The number of elements of a list of structs."""
        head = self._byte()
        length = head >> 4 if head >> 4 < 15 else self._varint()
        if head & 15 != 12 or length > MOST_COLUMNS:
            raise UnsafeFile(f"has {length:,} columns, more than the {MOST_COLUMNS:,} that are read")
        return length

    def _byte(self) -> int:
        self.place += 1
        return self.data[self.place - 1]

    def _skip(self, length: int) -> None:
        self.place += length
        if self.place > len(self.data):
            raise IndexError

    def _varint(self) -> int:
        number = shift = 0
        while True:
            byte = self._byte()
            number |= (byte & 127) << shift
            if byte < 128:
                return number
            shift += 7
            if shift > 63:
                raise UnsafeFile("has a header with an endless number")

    def _zigzag(self) -> int:
        number = self._varint()
        return (number >> 1) ^ -(number & 1)
