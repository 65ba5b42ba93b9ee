"""YAML files of the user's own: what is wrong with one, in a line that names the file, the line and the column."""

from pathlib import Path

import yaml  # type: ignore[import-untyped,unused-ignore]

from hftraining.core.errors import UserError, in_a_line

MOST_BYTES = 1_000_000
MOST_DEPTH = 40  # of lists and mappings within each other; parsers of YAML recurse
MOST_NODES = 5_000  # with every alias counted as what it stands for; OmegaConf takes milliseconds for each
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with it


class YamlFileError(UserError):
    """A YAML file cannot be used: file, line, column, what."""


def check_yaml(path: Path) -> None:
    """Raise YamlFileError unless a file is text in UTF-8, of YAML's syntax, and not too large, deep or repetitive.

    A few lines of aliases can stand for billions of values, so they are counted before anything is built. Duplicate
    keys and tags are found by whoever builds the values: see explain_yaml. Raises OSError.
    """
    data = path.read_bytes()
    if len(data) > MOST_BYTES:
        raise YamlFileError(f"{path} has {len(data):,} bytes: a config has at most {MOST_BYTES:,}")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, column = before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1
        raise YamlFileError(
            f"{path}, line {line}, column {column}: the byte 0x{data[error.start]:02x} is no UTF-8 text"
        ) from error
    try:
        _count(path, text)
    except yaml.YAMLError as error:
        raise explain_yaml(error, path) from error


def explain_yaml(error: yaml.YAMLError, path: Path | str | None = None) -> YamlFileError:
    """What a parser of YAML found, in one line. path: the file, if the error does not name one."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    name = str(path or (mark.name if mark else getattr(error, "name", "a YAML file")))
    where = f"{name}, line {mark.line + 1}, column {mark.column + 1}" if mark else name
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    if position := getattr(error, "position", None):
        what = f"{what} at character {position}"
    return YamlFileError(f"{where}: {in_a_line(str(what), 200)}")


def _count(path: Path, text: str) -> None:
    """Count depth and values, the values of an alias again at each place where it stands."""
    open_: list[tuple[str | None, int]] = []  # the anchor of each open list or mapping, and the count at its beginning
    sizes: dict[str, int] = {}
    count = 0
    for event in yaml.parse(text, Loader=_LOADER):
        problem = ""
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in {anchor for anchor, _ in open_}:
                problem = f"*{event.anchor} stands within what it stands for"
            count += sizes.get(event.anchor, 0)
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            count += 1
            open_.append((event.anchor, count - 1))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop()
            if anchor:
                sizes[anchor] = count - before
        if len(open_) > MOST_DEPTH:
            problem = f"lists and mappings lie more than {MOST_DEPTH} deep"
        elif count > MOST_NODES:
            problem = f"more than {MOST_NODES:,} values, aliases counted as what they stand for"
        if problem:
            mark = event.start_mark
            raise YamlFileError(f"{path}, line {mark.line + 1}, column {mark.column + 1}: {problem}")
