"""Files that a stranger may have written, read as data: bounded, plain, and refused in one line.

A file is opened without following a link and without waiting for the other end of a pipe, and must be a regular file no
larger than its reader expects. JSON and YAML hold plain values to a bounded depth: no tag, alias, double key, NaN,
infinity or number of a thousand digits. What is read is never run, and never names another file to read.
"""

import hashlib
import json
import math
import os
import re
import stat
import unicodedata
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import yaml  # type: ignore[import-untyped,unused-ignore]

from hftraining.core.errors import UserError

MB = 2**20
SMALL = MB  # for facts about a run: many times what the longest list of symbols needs
YAML_MOST = MB // 4  # pyyaml reads a fifth of this in a second
DEPTH = 24  # of nested values; the deepest of ours is 8
NUMBER_LENGTH = 64  # characters of a number
MOST_ENTRIES = 100_000  # files and folders in a run folder
BLOCK = 2**20
FILES = (".json", ".jsonl", ".yaml", ".log", ".parquet", ".npz", ".safetensors", ".html", ".js", ".patch", ".lock")


class Untrusted(UserError):
    """A file or folder that cannot be read as data: which, where in it, what to do, in one line."""


def shown(text: object, most: int = 80) -> str:
    """Any text as one printable piece of at most so many characters."""
    printable = (
        "".join(c if c.isprintable() else " " for c in str(text)[: 4 * most]).encode("ascii", "replace").decode()
    )
    words = " ".join(printable.split())
    return words if len(words) <= most else words[: most - 3] + "..."


def is_printable(text: str) -> bool:
    """Whether text has no control characters, which a terminal would obey, nor any that turn or hide other text."""
    return text.isprintable() or all(unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Cn") for c in text)


def open_regular(path: Path, most: int) -> BinaryIO:
    """A regular file of at most so many bytes, opened to read. Raises Untrusted for anything else."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if path.is_symlink():
            raise Untrusted(f"{path} is a symbolic link: put a copy in its place") from None
        what = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise Untrusted(f"{path} {what}") from None
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        os.close(handle)
        raise Untrusted(f"{path} is {_kind(found.st_mode)}, not a file")
    if found.st_size > most:
        os.close(handle)
        raise Untrusted(f"{path} has {found.st_size:,} bytes, the most is {most:,}: it is not a file of ours")
    return os.fdopen(handle, "rb")


def read_bytes(path: Path, most: int = SMALL) -> bytes:
    """The content of a regular file of at most so many bytes. Raises Untrusted."""
    with open_regular(path, most) as file:
        content = file.read(most + 1)
    if len(content) > most:  # it grew while it was read
        raise Untrusted(f"{path} is larger than {most:,} bytes: it is not a file of ours")
    return content


def read_text(path: Path, most: int = SMALL) -> str:
    """As read_bytes, as UTF-8 text."""
    content = read_bytes(path, most)
    if content.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise Untrusted(f"{path} is damaged (it begins with a byte order mark): save it as UTF-8 without one")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Untrusted(f"{path} is damaged (byte {error.start:,} is not UTF-8 text)") from None


def digest(path: Path, most: int) -> str:
    """SHA-256 of a regular file of at most so many bytes, as 64 hex digits. Raises Untrusted."""
    found = hashlib.sha256()
    with open_regular(path, most) as file:
        while block := file.read(BLOCK):
            found.update(block)
    return found.hexdigest()


def read_json(path: Path, most: int = SMALL) -> Any:
    """The value of a strict JSON file. Raises Untrusted."""
    return parse_json(read_text(path, most), str(path))


def parse_json(text: str, name: str) -> Any:
    """The value of strict JSON text: no NaN, infinity, double key or huge number. name: of its file, for the error."""
    try:
        value = json.loads(
            text,
            object_pairs_hook=_without_doubles,
            parse_constant=_no_number,
            parse_int=_whole,
            parse_float=_finite,
        )
    except RecursionError:
        raise Untrusted(f"{name} is damaged (its values are nested too deeply)") from None
    except ValueError as error:
        raise Untrusted(f"{name} is damaged ({shown(error, 120)})") from None
    refuse_strange(value, name)
    return value


def read_json_object(path: Path, most: int = SMALL) -> dict[str, Any]:
    """As read_json, of a file that holds one object."""
    return _mapping(read_json(path, most), path, "JSON object")


def read_yaml(path: Path, most: int = YAML_MOST) -> dict[str, Any]:
    """The mapping of a YAML file, empty for an empty file. Raises Untrusted.

    Numbers, booleans and null are read as OmegaConf reads them: 1e-3 is a number, and a date is text.
    """
    text = read_text(path, most)
    try:
        loader = _Loader(text)
        try:
            value = loader.get_single_data()
        finally:
            loader.dispose()
    except RecursionError:
        raise Untrusted(f"{path} is damaged (its values are nested too deeply)") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}: " if mark else ""
        raise Untrusted(f"{path} is damaged ({place}{shown(error.problem or error.context, 120)})") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise Untrusted(f"{path} is damaged ({shown(error, 120)})") from None
    value = {} if value is None else value
    refuse_strange(value, str(path))
    return _mapping(value, path, "mapping")


def refuse_strange(value: Any, name: str) -> None:
    """Refuse values nested too deeply, numbers that are not finite, keys that are no text, and half characters."""
    level = [value]
    for _ in range(DEPTH):
        level = [item for entry in level for item in _checked(entry, name)]
        if not level:
            return
    raise Untrusted(f"{name} is damaged (its values are nested more than {DEPTH} deep)")


def refuse_links(folder: Path) -> None:
    """Refuse a folder that holds a symbolic link, a pipe or a device, at any depth; the folder itself may be a link.

    A folder in the place of a file, by its name, is refused, too. What is written into the folder, resumed or removed
    then stays within it. Raises Untrusted, naming the first.
    """
    waiting, count = [(folder, 0)], 0
    while waiting:
        place, depth = waiting.pop()
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError as error:
            raise Untrusted(f"{place} cannot be read ({error.strerror})") from None
        count += len(entries)
        if count > MOST_ENTRIES or depth > DEPTH:
            raise Untrusted(f"{folder} holds more than {MOST_ENTRIES:,} files, or folders too deep: it is not a run")
        for entry in entries:
            with suppress(FileNotFoundError):  # a temporary file of a run at work
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode) and not entry.name.endswith(FILES):
                    waiting.append((Path(entry.path), depth + 1))
                elif not stat.S_ISREG(mode):
                    raise Untrusted(f"{shown(entry.path, 300)} is {_kind(mode)}: put a copy in its place, or remove it")


def is_there(path: Path) -> bool:
    """Whether there is anything at a path, a broken link included: what is there but no file is refused when read."""
    return os.path.lexists(path)


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a pipe",
        stat.S_IFDIR: "a folder",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


def _mapping(value: Any, path: Path, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Untrusted(f"{path} is damaged (it holds no {what})")
    return value


def _checked(value: Any, name: str) -> list[Any]:
    """The values within a value, which is itself plain."""
    if isinstance(value, dict):
        if bad := [key for key in value if not isinstance(key, str)]:
            raise Untrusted(f"{name} is damaged (the key {shown(bad[0])} is no text)")
        return [*value, *value.values()]
    if isinstance(value, list):
        return value
    if isinstance(value, str):
        if value.isascii():
            return []
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise Untrusted(f"{name} is damaged (it holds half a character, {shown(ascii(value), 40)})")
    elif isinstance(value, float) and not math.isfinite(value):
        raise Untrusted(f"{name} is damaged ({value} is no finite number)")
    elif not (value is None or isinstance(value, bool | int | float)):
        raise Untrusted(f"{name} is damaged (a value of type {type(value).__name__} is not plain)")
    return []


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        double = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {shown(double)} is there twice")
    return made


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no finite number")


def _whole(text: str) -> int:
    if len(text) > NUMBER_LENGTH or not -(2**63) <= int(text) < 2**63:
        raise ValueError(f"the number {shown(text, 20)} is too large")
    return int(text)


def _finite(text: str) -> float:
    value = float(text) if len(text) <= NUMBER_LENGTH else math.inf
    if not math.isfinite(value):
        raise ValueError(f"the number {shown(text, 20)} is too large or too long")
    return value


def yaml_text(values: Mapping[str, Any], *, sort_keys: bool = False) -> str:
    """Plain values as YAML that read_yaml gives back: what it would read as a number, as 2e812300, stands in quotes."""
    text: str = yaml.dump(values, Dumper=_Dumper, sort_keys=sort_keys, allow_unicode=True)
    return text


class _Loader(yaml.SafeLoader):
    """Plain values only. A refusal is raised before anything is built."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse aliases, tags and deep nesting; a document of a million aliases never grows."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            self._refuse("aliases such as", f"*{event.anchor}", event)
        if getattr(event, "tag", None) is not None:
            self._refuse("tags such as", event.tag, event)
        self._depth += 1
        if self._depth > DEPTH:
            self._refuse("values nested more than", f"{DEPTH} deep", event)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Refuse keys that are no text, are there twice, or merge another mapping."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                self._refuse("keys such as", getattr(key, "value", "a list"), key)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {shown(key.value)} is there twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)

    def number(self, node: Any) -> Any:
        """A number of bounded length: 1:59:59 in base 60 takes the square of its length."""
        if len(node.value) > NUMBER_LENGTH:
            raise yaml.constructor.ConstructorError(
                None, None, f"the number {shown(node.value, 20)} is too long", node.start_mark
            )
        whole = node.tag == "tag:yaml.org,2002:int"
        try:
            value = self.construct_yaml_int(node) if whole else self.construct_yaml_float(node)
            return _whole(str(value)) if whole else value
        except (ValueError, OverflowError):
            problem = f"{shown(node.value, 20)} is no number, or too large"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None

    def _refuse(self, what: str, found: str, place: Any) -> NoReturn:
        problem = f"{what} {shown(found, 40)} are not read here"
        raise yaml.constructor.ConstructorError(None, None, problem, place.start_mark)


class _Dumper(yaml.SafeDumper):
    """Knows the numbers of YAML 1.1 and those of _Loader."""


def _rules() -> None:
    """OmegaConf's rules for scalars, without its constructors of paths."""
    numbers = re.compile(
        r"""^(?:
            [-+]?[0-9]+(?:_[0-9]+)*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
            |[-+]?[0-9]+(?:_[0-9]+)*(?:[eE][-+]?[0-9]+)
            |\.[0-9]+(?:_[0-9]+)*(?:[eE][-+][0-9]+)?
            |[-+]?[0-9]+(?:_[0-9]+)*(?::[0-5]?[0-9])+\.[0-9_]*
            |[-+]?\.(?:inf|Inf|INF)
            |\.(?:nan|NaN|NAN))$""",
        re.X,
    )
    for knows in (_Loader, _Dumper):
        knows.add_implicit_resolver("tag:yaml.org,2002:float", numbers, list("-+0123456789."))
    text_instead = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value", "tag:yaml.org,2002:yaml")
    _Loader.yaml_implicit_resolvers = {
        first: [(tag, rule) for tag, rule in resolvers if tag not in text_instead]
        for first, resolvers in _Loader.yaml_implicit_resolvers.items()
    }
    construct: Callable[..., Any] = _Loader.number
    for kind in ("int", "float"):
        _Loader.add_constructor(f"tag:yaml.org,2002:{kind}", construct)


_rules()
