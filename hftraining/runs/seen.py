"""What a run has seen of the market, and whether two runs have seen some of the same: days, symbols, months of bars."""

import re
import sys
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

_SEPARATORS = re.compile(r"[\s._/-]+")  # BRK.B, BRK-B and brk/b are one stock


@dataclass(frozen=True)
class Months:
    """A digest of each symbol's daily returns in each calendar month; month_digests.py makes them.

    first: the first month, counted from January 1970. width: the number of symbols. digests: array("Q"), month after
    month, one value for each symbol, 0 where a month has too few bars to be recognised.
    """

    first: int
    width: int
    digests: Any

    def between(self, first_day: str, last_day: str) -> frozenset[int]:
        """The digests of all months with one of these days."""
        begin, end = max(0, _month(first_day) - self.first), max(0, _month(last_day) - self.first + 1)
        return frozenset(self.digests[begin * self.width : end * self.width]) - {0}

    def packed(self) -> bytes:
        """The digests as bytes, the lowest first."""
        return _lowest_first(self.digests).tobytes()

    @classmethod
    def unpacked(cls, first: int, width: int, packed: bytes) -> "Months":
        """Read `packed`."""
        digests = array("Q")
        digests.frombytes(packed)
        return cls(first, width, _lowest_first(digests))


@dataclass(frozen=True)
class Place:
    """Some symbols over some days. first, last: ISO days. fingerprints: of bars of these symbols, for their months."""

    symbols: frozenset[str]  # as `plain_symbols` writes them
    first: str
    last: str
    fingerprints: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def of(cls, symbols: Iterable[str], first: str, last: str, fingerprint: str) -> "Place":
        """The place of one run."""
        return cls(plain_symbols(symbols), first, last, frozenset({fingerprint}))


def overlaps(ours: Place, theirs: Place, months_of: Callable[[str], Months | None]) -> bool:
    """Whether two places share a day, from first to last, and a stock.

    A stock is shared by name or, renamed or under another path, by a month of equal returns within the shared days.
    months_of: the months of bars with a fingerprint, None where they are not known.
    """
    first, last = max(ours.first, theirs.first), min(ours.last, theirs.last)
    if first > last:
        return False
    if ours.symbols & theirs.symbols or ours.fingerprints & theirs.fingerprints:
        return True
    known = [
        frozenset[int]().union(
            *(months.between(first, last) for name in place.fingerprints if (months := months_of(name)))
        )
        for place in (ours, theirs)
    ]
    return not known[0].isdisjoint(known[1])


def plain_symbols(symbols: Iterable[str]) -> frozenset[str]:
    """Symbols in capitals, with one separator in place of any other."""
    return frozenset(_SEPARATORS.sub("-", str(symbol).strip()).upper() for symbol in symbols)


def span_of(text: str) -> tuple[str, str] | None:
    """First and last day of "2011-01-03 to 2012-12-31"; None for an empty text."""
    first, _, last = text.partition(" to ")
    return (first, last) if text else None


def _month(day: str) -> int:
    return 12 * (int(day[:4]) - 1970) + int(day[5:7]) - 1


def _lowest_first(digests: Sequence[int]) -> Any:
    """The same array with its bytes turned on a machine that stores the highest byte first."""
    if sys.byteorder == "little":
        return digests
    turned = array("Q", digests)
    turned.byteswap()
    return turned
