"""A reader of thrift's compact protocol, in which parquet writes its headers, that reads as Arrow's does or refuses.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from typing import Any

DEEPEST = 16  # structs in structs; parquet has five


class BadThrift(ValueError):
    """Bytes that are no thrift, or that two readers could read in two ways."""


class Thrift:
    """Bytes, and the place of the next one. Raises BadThrift where they end early."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """The values of a struct by the number of their field: numbers, bytes, lists and structs; None for floats."""
        found: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._zigzag(16)
            if number in found:  # other readers would add its parts together
                raise BadThrift(f"field {number} stands twice")
            kind = head & 15
            found[number] = kind == 1 if kind in (1, 2) else self._value(kind, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (4, 5, 6):
            return self._zigzag(2**kind)
        if kind in (1, 2, 3):
            return self._byte()
        if kind == 7:
            self._bytes(8)
            return None
        if kind == 8:
            return self._bytes(self._varint())
        if depth >= DEEPEST:
            raise BadThrift("structs are nested too deeply")
        if kind == 12:
            return self.struct(depth + 1)
        if kind in (9, 10):
            head = self._byte()
            length = head >> 4 if head >> 4 < 15 else self._varint()
            self._refuse_beyond(length)
            return [self._value(head & 15, depth + 1) for _ in range(length)]
        raise BadThrift(f"kind {kind} is not used in parquet")

    def _byte(self) -> int:
        self._refuse_beyond(1)
        self.place += 1
        return self.data[self.place - 1]

    def _bytes(self, length: int) -> bytes:
        self._refuse_beyond(length)
        self.place += length
        return self.data[self.place - length : self.place]

    def _refuse_beyond(self, length: int) -> None:
        if self.place + length > len(self.data):
            raise BadThrift("it ends early")

    def _varint(self) -> int:
        number = shift = 0
        while shift < 64:
            byte = self._byte()
            number |= (byte & 127) << shift
            if byte < 128:
                return number
            shift += 7
        raise BadThrift("a number does not end")

    def _zigzag(self, bits: int) -> int:
        number = self._varint()
        value = (number >> 1) ^ -(number & 1)
        if not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):  # which other readers cut
            raise BadThrift(f"a number has more than {bits} bits")
        return value
