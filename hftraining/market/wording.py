"""How foreign text and long lists are written into a message: short, printable, ASCII, on one line."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

MOST_LETTERS = 160  # a message with three of them still fits a screen
MOST_NAMES = 10


def plain(what: object, most: int = MOST_LETTERS) -> str:
    """Foreign text as one line of printable ASCII, cut after `most` characters, so that a terminal only shows it."""
    text = str(what)
    text = text if len(text) <= 4 * most else text[: 4 * most] + "..."  # before any work that grows with its length
    text = " ".join(text.split()).encode("ascii", "replace").decode()
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= most else text[: most - 3] + "..."


def plain_path(path: object) -> str:
    """A path as plain writes it, seldom cut, since its end says most."""
    return plain(path, 400)


def listed(names: Iterable[object], most: int = MOST_NAMES, between: str = ", ") -> str:
    """The first names in words, and how many more there are: "A, B and 9,990 more"."""
    rest = iter(names)
    shown = [plain(name, 64) for name in islice(rest, most)]
    more = sum(1 for _ in rest)
    return between.join(shown) + (f" and {more:,} more" if more else "")


def csv_option(options: Mapping[str, object]) -> str:
    """Options of csv files as they are typed in a shell: 'stocks.csv={separator: ";", columns: {close: Schluss}}'."""
    texts = []
    for name, value in options.items():
        if isinstance(value, Mapping):
            texts.append(f"{name}: {{{', '.join(f'{ours}: {_word(theirs)}' for ours, theirs in value.items())}}}")
        else:
            texts.append(f"{name}: {_word(value)}")
    return f"'stocks.csv={{{', '.join(texts)}}}'"


def _word(value: object) -> str:
    text = plain(value, 100)
    return text if re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", text) else f'"{text}"'


def excluding(symbols: Sequence[object], most: int = 20) -> str:
    """The setting that leaves some symbols out, to be copied: "stocks.exclude=[A,B]", cut where there are many."""
    more = f" and {len(symbols) - most:,} more" if len(symbols) > most else ""
    return f"stocks.exclude=[{','.join(plain(symbol, 64) for symbol in symbols[:most])}]{more}"
