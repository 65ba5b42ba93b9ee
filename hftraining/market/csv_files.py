"""One csv file as a table of texts and numbers, written as stocks.csv says; and what to say of one that is not.

A file that is written in another way is refused in one line, which names what is another and the options that read it.
"""

import csv
import gzip
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv

from hftraining.market.columns import (
    ALIASES,
    FOREIGN,
    NEEDED,
    NoColumn,
    find_columns,
    key_of,
    proposed_columns,
    refuse_rows,
)
from hftraining.market.config import SEPARATORS, CsvConfig
from hftraining.market.dates import formats_of
from hftraining.market.parquet import UnsafeFile, check_texts
from hftraining.market.wording import csv_option, plain

NO_NUMBER = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "-"]
MOST_CSV_BYTES, MOST_HEADER_BYTES = 2**30, 2**16
# Bars as csv pack to a third or a fifth of their size; gzip can reach a thousandth.
MOST_PACKING, TRAP_BYTES = 100, 2**26
SHOWN_ROWS = 50  # from which the way of writing is told
BAD_NUMBER = re.compile(r"In CSV column #([0-9]+).*: CSV conversion error to double: invalid value '(.*)'", re.DOTALL)
THOUSANDS = (",", ".", " ", "_", "'", "\u00a0", "\u202f")  # what stands between them


def read_csv(path: Path, most_rows: int, how: CsvConfig) -> pa.Table:
    """The columns that bars need, under our names: symbol and date as dictionaries of texts, numbers as float64.

    Raises UnsafeFile, whose text follows the file's name, or ArrowException.
    """
    content = unpacked(path)
    if not content or content.isspace():
        raise UnsafeFile("is empty")
    refuse_rows(max(content.count(b"\n"), content.count(b"\r")), most_rows)
    lines = content[:MOST_HEADER_BYTES].decode("utf-8-sig", errors="replace").splitlines()
    if "\ufffd" in lines[0]:
        raise UnsafeFile("has letters in its first line that are not UTF-8: store it in that encoding")
    if len(lines) == 1 and len(content) > MOST_HEADER_BYTES:
        raise UnsafeFile(f"has a first line of more than {MOST_HEADER_BYTES:,} bytes: it should name the columns")
    header = _fields(lines[0], how.separator)
    try:
        names = find_columns(header, how.columns)
    except NoColumn as error:
        naming = csv_option({"columns": {"close": "NAME"}})
        raise UnsafeFile(_another_way(lines, how) or f"{error}; {naming} names one") from error
    text = pa.dictionary(pa.int32(), pa.string())
    kinds = {theirs: text if ours in ("symbol", "date") else pa.float64() for ours, theirs in names.items()}
    options = pa_csv.ConvertOptions(
        column_types=kinds, include_columns=list(names.values()), null_values=NO_NUMBER, decimal_point=how.decimal
    )
    parsing = pa_csv.ParseOptions(delimiter=SEPARATORS[how.separator])
    try:
        table = pa_csv.read_csv(pa.BufferReader(content), parse_options=parsing, convert_options=options)
    except pa.ArrowInvalid as error:
        if said := _bad_number(str(error), header, how):
            raise UnsafeFile(said) from error
        raise
    table = table.rename_columns(list(names))
    for name in {"symbol", "date"} & set(names):
        check_texts(table[name], name)
    return table


def unpacked(path: Path) -> bytes | bytearray:
    """The content of a csv file, unpacked piece by piece so that a small file cannot fill the memory."""
    size = path.stat().st_size
    if size > MOST_CSV_BYTES:
        raise UnsafeFile(f"is larger than {MOST_CSV_BYTES:,} bytes: store it as parquet")
    if not path.name.endswith(".gz"):
        with path.open("rb") as stream:
            return stream.read(MOST_CSV_BYTES)
    content = bytearray()
    with gzip.open(path) as stream:
        while piece := stream.read(2**20):
            content += piece
            if len(content) > MOST_CSV_BYTES:
                raise UnsafeFile(f"is larger than {MOST_CSV_BYTES:,} bytes: store it as parquet")
            if len(content) > TRAP_BYTES and len(content) > size * MOST_PACKING:
                raise UnsafeFile(f"unpacks to more than {len(content):,} bytes from {size:,}, which no real bars do")
    return content


def _fields(line: str, separator: str) -> list[str]:
    return next(csv.reader([line], delimiter=SEPARATORS[separator]), [])


# What is said of a file that is written in another way.


def _another_way(lines: list[str], how: CsvConfig) -> str:
    """What is another way in a file whose columns were not found, and the options that read it; empty if unclear."""
    separator = max(SEPARATORS, key=lambda name: (len(_fields(lines[0], name)), name == how.separator))
    header = _fields(lines[0], separator)
    columns = proposed_columns(header, how.columns)
    said, options = [], _chosen(how)
    if separator != how.separator:
        said.append(f"has {separator} between its columns")
        options["separator"] = separator
    place_of = {key_of(name): place for place, name in enumerate(header)}
    places = {ours: place_of[key_of(theirs)] for ours, theirs in (how.columns.given() | columns).items()
              if key_of(theirs) in place_of}  # fmt: skip
    for ours, aliases in ALIASES.items():
        if found := [place_of[alias] for alias in aliases if alias in place_of]:
            places.setdefault(ours, found[0])
    if not {"date", *NEEDED} <= places.keys():
        return f"{said[0]}: {csv_option(options)} reads that" if said and places else ""
    if columns:
        said.append(f"calls {', '.join(f'{ours} {plain(theirs, 40)}' for ours, theirs in columns.items())}")
        options["columns"] = how.columns.given() | columns
    rows = [_fields(line, separator) for line in lines[1 : SHOWN_ROWS + 1]]
    rows = [row for row in rows if len(row) == len(header)]  # the last one may have been cut
    prices = [row[places[name]].strip() for row in rows for name in NEEDED[:4]]
    if how.decimal == "." and any(re.fullmatch(r"[+-]?[0-9]+,[0-9]+", price) for price in prices):
        said.append("writes decimals with a comma")
        options["decimal"] = ","
    days = [row[places["date"]].strip() for row in rows]
    if how.date_format is None and len(formats := formats_of(days)) == 1:
        said.append(f"writes dates as {plain(days[0], 30)}")
        options["date_format"] = formats[0]
    return f"{', and '.join(said)}: {csv_option(options)} reads that" if said else ""


def _bad_number(said: str, header: list[str], how: CsvConfig) -> str:
    """What is wrong with a number that pyarrow could not read, empty where that is unclear.

    In 1,234 the comma is taken as that of a decimal, but in a column of volumes. Where it stands twice, or a point
    follows it, it stands between thousands.
    """
    found = BAD_NUMBER.search(said)
    if not found or int(found[1]) >= len(header):
        return ""
    name, value = header[int(found[1])], found[2].strip()
    shown = f"has {plain(value, 40)} in its column {plain(name, 40)}"
    is_whole = key_of(name) in ("volume", *FOREIGN["volume"].split()) or name == how.columns.volume
    for sign in THOUSANDS:
        decimal = "[,.]".replace(sign, "")
        if not (match := re.fullmatch(rf"[+-]?[0-9]{{1,3}}(?:{re.escape(sign)}[0-9]{{3}})+({decimal}[0-9]*)?", value)):
            continue
        if sign not in ",." or value.count(sign) > 1 or match[1] or is_whole:
            digits = value.replace(sign, "")
            mark = match[1][0] if match[1] else how.decimal
            more = f", and {csv_option(_chosen(how) | {'decimal': mark})} then reads it" if mark != how.decimal else ""
            return f"{shown}, with a sign between thousands, which is not read: write {plain(digits)}{more}"
    other, word = (",", "comma") if how.decimal == "." else (".", "point")
    if re.fullmatch(rf"[+-]?[0-9]*{re.escape(other)}[0-9]*", value):
        option = csv_option(_chosen(how) | {"decimal": other})
        return f"{shown}, with a {word} before the decimals: {option} reads that"
    return ""


def _chosen(how: CsvConfig) -> dict[str, object]:
    """The options that were given, so that what is proposed holds them, too."""
    usual = CsvConfig()
    names = ("separator", "decimal", "date_format")
    options = {name: getattr(how, name) for name in names if getattr(how, name) != getattr(usual, name)}
    return options | ({"columns": how.columns.given()} if how.columns.given() else {})
