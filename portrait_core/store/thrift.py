"""Structures in Thrift's compact protocol, in which Parquet writes its footer and the heads of its pages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

_MAX_DEPTH = 12
"""Depth of nested structures; Parquet's own have six levels."""
_TRUE, _FALSE, _BYTE, _I16, I32, I64, _DOUBLE, TEXT, LIST, _SET, _MAP, STRUCT = range(1, 13)
"""The protocol's numbers of types."""

Value: TypeAlias = "bool | int | bytes | list[Value] | Structure"


class ThriftError(ValueError):
    """Bytes are no structure in the compact protocol."""


@dataclass
class Structure:
    """A structure: values by the numbers of their fields. Their type is asked for, as readers do."""

    fields: dict[int, tuple[int, Value]] = field(default_factory=dict)

    def integer(self, number: int, kind: int = I32) -> int | None:
        """Return an integer of a kind; None where there is none."""
        found, value = self.fields.get(number, (0, 0))
        return value if found == kind and isinstance(value, int) else None

    def text(self, number: int) -> bytes | None:
        """Return text; None where there is none."""
        value = self.fields.get(number, (0, 0))[1]
        return value if isinstance(value, bytes) else None

    def structure(self, number: int) -> Structure:
        """Return a structure; an empty one where there is none."""
        value = self.fields.get(number, (0, 0))[1]
        return value if isinstance(value, Structure) else Structure()

    def structures(self, number: int) -> list[Structure]:
        """Return the structures of a list; none where there is no such list."""
        value = self.fields.get(number, (0, 0))[1]
        return [one for one in value if isinstance(one, Structure)] if isinstance(value, list) else []

    def texts(self, number: int) -> list[bytes]:
        """Return the texts of a list; none where there is no such list."""
        value = self.fields.get(number, (0, 0))[1]
        return [one for one in value if isinstance(one, bytes)] if isinstance(value, list) else []


def read_structure(data: bytes, begin: int) -> tuple[Structure, int]:
    """Read a structure that begins at a place of some bytes; return it and the place behind it.

    Raises:
        ThriftError: there is none, it is cut off, or it has a field twice.
    """
    reader = _Reader(data, begin)
    return reader.structure(0), reader.at


class _Reader:
    def __init__(self, data: bytes, at: int) -> None:
        self._data, self.at = data, at

    def structure(self, depth: int) -> Structure:
        if depth > _MAX_DEPTH:
            raise ThriftError("it is nested too deeply")
        read = Structure()
        number = 0
        while (head := self._byte()) != 0:
            number = number + (head >> 4) if head >> 4 else self._integer()
            if number in read.fields:  # readers would join the two
                raise ThriftError("it has a field twice")
            kind = head & 15
            value = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind, depth)
            read.fields[number] = kind, value
        return read

    def _value(self, kind: int, depth: int) -> Value:
        if kind in (_TRUE, _FALSE, _BYTE):  # in a list, a truth value is a byte
            return self._byte()
        if kind in (_I16, I32, I64):
            return self._integer()
        if kind == _DOUBLE:
            return self._bytes(8)
        if kind == TEXT:
            return self._bytes(self._count())
        if kind in (LIST, _SET):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._count()
            if count > len(self._data) - self.at:  # each takes a byte or more
                raise ThriftError("it is cut off")
            return [self._value(head & 15, depth + 1) for _ in range(count)]
        if kind == STRUCT:
            return self.structure(depth + 1)
        raise ThriftError(f"it holds a value of the type {kind}")

    def _byte(self) -> int:
        if not 0 <= self.at < len(self._data):
            raise ThriftError("it is cut off")
        self.at += 1
        return self._data[self.at - 1]

    def _bytes(self, count: int) -> bytes:
        if count > len(self._data) - self.at:
            raise ThriftError("it is cut off")
        self.at += count
        return self._data[self.at - count : self.at]

    def _count(self) -> int:
        value = shift = 0
        while shift <= 63:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise ThriftError("a number in it is too long")

    def _integer(self) -> int:
        count = self._count()
        return (count >> 1) ^ -(count & 1)
