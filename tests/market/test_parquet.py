"""Parquet written by hand: footers and pages that lie about themselves."""

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from hftraining.market import parquet
from hftraining.market.parquet import Parquet, UnsafeFile

I32, I64, TEXT, LIST, STRUCT = 5, 6, 8, 9, 12
DOUBLE, BYTE_ARRAY = 5, 6


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def encoded(kind: int, value) -> bytes:
    """A value in thrift's compact protocol."""
    if kind in (I32, I64):
        return varint(value << 1 if value >= 0 else (-value << 1) - 1)
    if kind == TEXT:
        return varint(len(value)) + value
    if kind == LIST:
        of, values = value
        head = bytes([len(values) << 4 | of]) if len(values) < 15 else bytes([0xF0 | of]) + varint(len(values))
        return head + b"".join(encoded(STRUCT if of == STRUCT else of, item) for item in values)
    return struct(value)


def struct(fields: list[tuple]) -> bytes:
    """(number, kind, value) of each field, numbers rising."""
    out, before = b"", 0
    for number, kind, value in fields:
        step = number - before
        head = bytes([step << 4 | kind]) if 0 < step < 16 else bytes([kind]) + encoded(I32, number)
        out, before = out + head + encoded(kind, value), number
    return out + b"\0"


def leaf(name: bytes = b"x", kind: int = DOUBLE, **more) -> list[tuple]:
    return [(1, I32, kind), *more.get("length", []), (3, I32, 0), (4, TEXT, name)]


def group(name: bytes, children: int) -> list[tuple]:
    return [(3, I32, 0), (4, TEXT, name), (5, I32, children)]


def chunk(
    values: int, size: int, start: int = 4, kind: int = DOUBLE, extra: tuple = (), first: tuple = ()
) -> list[tuple]:
    about = [
        (1, I32, kind), (2, LIST, (I32, [0, 3])), (3, LIST, (TEXT, [b"x"])), (4, I32, 0), (5, I64, values),
        (6, I64, size), (7, I64, size), (9, I64, start), *extra,
    ]  # fmt: skip
    return [*first, (2, I64, 4), (3, STRUCT, about)]


def file(path: Path, schema: list, groups: list[tuple[int, list]], rows: int | None = None, body: bytes = b"") -> Path:
    """A file with this body; groups: rows and chunk of each row group."""
    rows = sum(count for count, _ in groups) if rows is None else rows
    parts = [[(1, LIST, (STRUCT, [column])), (2, I64, 1), (3, I64, count)] for count, column in groups]
    footer = struct([(1, I32, 2), (2, LIST, (STRUCT, schema)), (3, I64, rows), (4, LIST, (STRUCT, parts))])
    path.write_bytes(b"PAR1" + body + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    return path


def page(content: bytes, values: int, unpacked: int | None = None, kind: int = 0, encoding: int = 0) -> bytes:
    about = [(1, I32, values), (2, I32, encoding), *([(3, I32, 3), (4, I32, 3)] if kind == 0 else [])]
    size = len(content) if unpacked is None else unpacked
    head = [(1, I32, kind), (2, I32, size), (3, I32, len(content)), (5 if kind == 0 else 7, STRUCT, about)]
    return struct(head) + content


ROOT = group(b"schema", 1)
ONES = page(bytes(80), 10)  # ten zeros


def said(path: Path) -> str:
    with pytest.raises(UnsafeFile) as caught:
        Parquet(str(path)).read(["x"])
    return str(caught.value)


def test_a_file_written_by_hand_is_read_as_pyarrow_reads_it(tmp_path):
    path = file(tmp_path / "x.parquet", [ROOT, leaf()], [(10, chunk(10, len(ONES)))], body=ONES)
    assert Parquet(str(path)).read(["x"]).equals(pq.read_table(path))
    assert Parquet(str(path)).rows == 10 and Parquet(str(path)).names == ["x"]


def test_a_page_that_claims_gigabytes_is_not_unpacked(tmp_path):
    body = page(bytes(80), 10, unpacked=2**31 - 1)
    path = file(tmp_path / "x.parquet", [ROOT, leaf()], [(10, chunk(10, len(body)))], body=body)
    assert said(path).startswith("unpacks to more than 16,777,456 bytes of 'x' for 10 rows")


def test_a_dictionary_that_claims_billions_of_entries_is_not_read(tmp_path):
    body = page(bytes(40), 2**31 - 1, kind=2) + ONES
    column = chunk(10, len(body), start=4 + len(body) - len(ONES), extra=((11, I64, 4),))
    path = file(tmp_path / "x.parquet", [ROOT, leaf()], [(10, column)], body=body)
    assert said(path) == "claims 2,147,483,647 entries in a dictionary of 40 bytes: not read"


def test_parts_that_all_stand_for_the_same_pages_are_added_up(tmp_path):
    body = page(bytes(80), 10, unpacked=2**20)
    path = file(tmp_path / "x.parquet", [ROOT, leaf()], [(10, chunk(10, len(body)))] * 1000, body=body)
    assert said(path).startswith("unpacks to more than ")


def test_very_many_empty_pages_are_not_walked_for_ever(tmp_path):
    body = page(b"", 0) * 50_000
    path = file(tmp_path / "x.parquet", [ROOT, leaf()], [(10, chunk(10, len(body)))] * 10, body=body)
    assert said(path) == "has more than 100,000 pages, which no real bars do: not read"


@pytest.mark.parametrize("rows", [9, 2**62])
def test_rows_that_the_parts_do_not_have_are_refused(tmp_path, rows):
    path = file(tmp_path / "x.parquet", [ROOT, leaf()], [(10, chunk(10, len(ONES)))], rows=rows, body=ONES)
    assert said(path) == f"claims {rows:,} rows, but its parts have 10: not read"


def test_values_that_the_rows_do_not_have_are_refused(tmp_path):
    path = file(tmp_path / "x.parquet", [ROOT, leaf()], [(10, chunk(2**40, len(ONES)))], body=ONES)
    assert said(path) == "claims 1,099,511,627,776 values of 'x' in 10 rows: not read"


@pytest.mark.parametrize("depth", [65, 100_000])
def test_columns_nested_without_end_are_refused(tmp_path, depth):
    schema = [ROOT, *[group(b"x", 1)] * min(depth, 9_000), leaf()]
    path = file(tmp_path / "x.parquet", schema, [(10, chunk(10, len(ONES)))], body=ONES)
    assert said(path) == "nests its columns more than 64 deep: not read"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"extra": ((11, TEXT, b"4"),)}, "has a footer that cannot be read"),
        ({"extra": ((9, I64, 90),)}, "has a footer that cannot be read"),  # stands twice: other readers merge the two
        ({"extra": ((11, I64, 2**70),)}, "has a footer that cannot be read"),
        ({"start": -4}, "has a footer that cannot be read"),
        ({"extra": ((13, LIST, (I32, [1])),)}, "has a footer that cannot be read"),  # Arrow would read structs there
        ({"first": ((1, TEXT, b"/etc/passwd"),)}, "has its columns in another file: not read"),
    ],
)
def test_a_footer_that_readers_could_read_in_two_ways_is_refused(tmp_path, change, words):
    path = file(tmp_path / "x.parquet", [ROOT, leaf()], [(10, chunk(10, len(ONES), **change))], body=ONES)
    assert said(path) == words


def test_fields_in_falling_order_are_read_and_lists_within_lists_without_end_are_not(tmp_path):
    column = chunk(10, len(ONES), extra=((40, I32, 1), (17, I32, 1)))
    path = file(tmp_path / "x.parquet", [ROOT, leaf()], [(10, column)], body=ONES)
    assert Parquet(str(path)).read(["x"]).num_rows == 10
    deep = b"\x19" * 100_000 + b"\x15\x02"  # each a list of one list
    footer = deep + b"\0"
    path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    assert said(path) == "has a footer that cannot be read"


def test_a_large_file_is_checked_in_pieces_as_a_small_one_is_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "AT_ONCE_BYTES", 0)
    path = file(tmp_path / "x.parquet", [ROOT, leaf()], [(10, chunk(10, len(ONES)))], body=ONES)
    assert Parquet(str(path)).read(["x"]).equals(pq.read_table(path))
    test_a_page_that_claims_gigabytes_is_not_unpacked(tmp_path)
    test_a_dictionary_that_claims_billions_of_entries_is_not_read(tmp_path)
    test_very_many_empty_pages_are_not_walked_for_ever(tmp_path)


def test_values_of_gigabytes_of_fixed_length_are_refused(tmp_path):
    column = leaf(kind=7, length=[(2, I32, 2**30)])
    path = file(tmp_path / "x.parquet", [ROOT, column], [(10, chunk(10, len(ONES), kind=7))], body=ONES)
    assert said(path) == "has values of 1,073,741,824 bytes in its column 'x': not read"


@pytest.mark.slow
def test_mutated_headers_end_in_a_table_or_in_an_error_of_ours(tmp_path):
    """In its own process, since an error in Arrow's own code would end it."""
    code = """
import sys, numpy as np, pyarrow as pa
from pathlib import Path
from hftraining.market.parquet import Parquet, UnsafeFile
rng, content, path = np.random.default_rng(0), Path(sys.argv[1]).read_bytes(), sys.argv[1] + ".mutated"
ends = {"table": 0, "error": 0}
for n in range(3000):
    mutated = bytearray(content)
    for place in rng.integers(4, len(content) - 8, 1 + n % 3):
        mutated[place] = rng.integers(256)
    Path(path).write_bytes(mutated)
    try:
        Parquet(path).read(["x"])
        ends["table"] += 1
    except (UnsafeFile, pa.ArrowException, OSError):
        ends["error"] += 1
print(*ends.values())
"""
    body = page(bytes(8), 1, kind=2) + page(b"\\x01\\x14\\x00" + bytes(4), 10, encoding=8)
    column = chunk(10, len(body), start=4 + len(page(bytes(8), 1, kind=2)), extra=((11, I64, 4),))
    path = file(tmp_path / "x.parquet", [ROOT, leaf()], [(10, column)], body=body)
    out = subprocess.check_output([sys.executable, "-c", code, str(path)], timeout=120)
    assert sum(map(int, out.split())) == 3000
