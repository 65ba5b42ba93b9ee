"""The schema of run.json: what a reader of any run folder may rely on, whoever wrote it."""

import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, ValidationError

from hftraining.core.untrusted import Untrusted, is_printable, read_json_object, shown

MANIFEST = "run.json"
NAME = re.compile(r"[\w^=+@][\w^=+@,. -]{0,119}\Z")  # of a run, its kind, or its folder
NEEDED = ("kind", "name", "signature", "seed", "threads", "data", "code")  # of a run that goes on or is repeated
NEEDED_DATA = ("fingerprint", "source", "symbols", "first", "last")
MOST_THREADS = 1024
MOST_SYMBOLS = 20_000
MOST_MARKS = 100  # numbers of a feature
MOST_COUNT = 2**53  # whole numbers that a float holds


def plain_name(text: str) -> str:
    """A name that is one folder's, without a way out of it."""
    if not NAME.match(text) or ".." in text or text[-1] in ". ":
        raise ValueError(f"{shown(text)!r} is not a plain name")
    return text


def printable(text: str) -> str:
    """Text without control characters, which a terminal would obey."""
    if not is_printable(text):
        raise ValueError(f"{shown(text)!r} is not printable")
    return text


def iso_day(text: str) -> str:
    """A day such as 2011-01-03."""
    date.fromisoformat(text)
    return text


Word = Annotated[str, Field(strict=True, max_length=300), AfterValidator(printable)]
Long = Annotated[str, Field(strict=True, max_length=4096), AfterValidator(printable)]
Name = Annotated[str, Field(strict=True, max_length=120), AfterValidator(plain_name)]
Symbol = Annotated[str, Field(strict=True, min_length=1, max_length=100), AfterValidator(printable)]
Hex = Annotated[str, Field(strict=True, pattern=r"^[0-9a-f]{1,64}$")]
Sha256 = Annotated[str, Field(strict=True, pattern=r"^[0-9a-f]{64}$")]
Day = Annotated[str, Field(strict=True, max_length=10), AfterValidator(iso_day)]
Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=0, le=MOST_COUNT)]


class _Part(BaseModel):
    """Further fields, of another version, are kept: they are plain and no larger than the file."""

    model_config = ConfigDict(extra="allow")


class _Data(_Part):
    fingerprint: Hex | None = None
    universe: Hex | None = None
    source: Long | None = None
    symbols: Annotated[list[Symbol], Field(max_length=MOST_SYMBOLS)] = []
    first: Day | None = None
    last: Day | None = None
    snapshot: Name | None = None


class _Code(_Part):
    commit: Hex | None = None
    dirty: StrictBool | None = None
    digest: Hex | None = None
    patch: Word | None = None


class _Cpu(_Part):
    model: Word = ""
    flags: list[Word] = []


class _Base(_Part):
    folder: Long
    signature: Hex
    weights: Hex


class _Source(_Part):
    """Of what something that was judged outside a training was made."""

    folder: Long
    id: Hex | None = None
    signature: Hex | None = None
    sha256: Sha256 | None = None


class _Manifest(_Part):
    kind: Word | None = None
    name: Word | None = None
    id: Hex | None = None
    signature: Hex | None = None
    started: Word | None = None
    argv: Annotated[list[Annotated[str, Field(strict=True)]], Field(max_length=10_000)] | None = None
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] | None = None
    threads: Annotated[int, Field(strict=True, ge=1, le=MOST_THREADS)] | None = None
    data: _Data | None = None
    code: _Code | None = None
    base: _Base | None = None
    made_of: Annotated[list[_Source], Field(max_length=1000)] | None = None
    ledger: Long | None = None
    sealed: StrictBool | None = None
    repeats: Word | None = None
    python: Word | None = None
    platform: Word | None = None
    cpu_count: Count | None = None
    cpu: _Cpu | None = None
    numerics: dict[Word, Word | Count | None] | None = None
    versions: dict[Word, Word | None] | None = None
    marks: dict[Word, Annotated[list[Finite], Field(max_length=MOST_MARKS)]] | None = None


def read_facts(folder: Path) -> dict[str, Any]:
    """What run.json of a run folder says, each known field of its type and within its limits; some may be missing.

    Raises Untrusted.
    """
    path = folder / MANIFEST
    return checked_facts(read_json_object(path), path)


def checked_facts(values: dict[str, Any], path: Path) -> dict[str, Any]:
    """These values, once they fit the schema of run.json. path: for the error. Raises Untrusted."""
    try:
        _Manifest.model_validate(values)
    except ValidationError as error:
        raise Untrusted(damaged(path, error)) from None
    return values


def refuse_partial(facts: Mapping[str, Any], path: Path) -> None:
    """Refuse a run.json without a field that a run needs to go on or to be repeated, or whose name is no folder's.

    Raises Untrusted.
    """
    data: Mapping[str, Any] = facts.get("data") or {}
    missing = [name for name in NEEDED if facts.get(name) is None]
    missing += [f"data.{name}" for name in NEEDED_DATA if not data.get(name)]
    if missing:
        raise Untrusted(f"{path} is damaged (it has no {missing[0]})")
    for name in ("kind", "name"):
        try:
            plain_name(facts[name])
        except ValueError as error:
            raise Untrusted(f"{path} is damaged ({name}: {error})") from None


def damaged(path: Path, error: ValidationError) -> str:
    """One line for the first field that does not fit its schema."""
    return f"{path} is damaged ({first_wrong(error)})"


def first_wrong(error: ValidationError) -> str:
    """The place of the first field that does not fit its schema, and why."""
    first = error.errors(include_url=False)[0]
    why = shown(first["msg"].removeprefix("Value error, "), 200)
    place = shown(".".join(map(str, first["loc"])))
    return why if why.startswith(place) else f"{place}: {why}"
