"""Checks of an ONNX file before its runtime sees it, on the bytes themselves and without a copy of them.

A network is a tree of protobuf messages. All of them are visited, wherever they lie: in the graph, in graphs
inside it, in functions and in attributes. What a published network has no use for is refused, since each has
its own way to reach other files, endless time or memory out of proportion.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import onnx

_MOST_FIELDS, _MOST_DEPTH = 500_000, 64
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_DIGITS = 10  # bytes of a number of 64 bits
_TENSOR, _DIMS, _LOCATION, _ELSEWHERE = onnx.TensorProto.DESCRIPTOR, 1, 14, 13
_VALUES = frozenset({4, 5, 6, 7, 9, 10, 11})  # fields of a tensor that hold its values
_DENSEST = 2  # values per byte, of numbers of four bits
_REFUSED = {
    onnx.SparseTensorProto.DESCRIPTOR: "sparse tensors",
    onnx.FunctionProto.DESCRIPTOR: "functions of its own",
}

Field = tuple[int, int | memoryview]
"""Number of a field, and its value: a number, or the bytes of a text, a message or several numbers."""


def check_onnx(data: bytes) -> None:
    """Check that a file holds one plain graph and all of its weights.

    Raises:
        ValueError: it is no ONNX file, is damaged, asks for weights in other files, or holds sparse tensors,
            functions, graphs inside its graph, or tensors that are larger than their values.
    """
    walk = _Walk()
    walk.message(memoryview(data), onnx.ModelProto.DESCRIPTOR, 0)
    if walk.refused:
        raise ValueError(f"it holds {', '.join(sorted(walk.refused))}, which published networks do not")


class _Walk:
    """A visit of all messages, which counts their fields."""

    def __init__(self) -> None:
        self.refused: set[str] = set()
        """Contents that are refused, once it is known that none asks for other files."""
        self._left = _MOST_FIELDS

    def message(self, data: memoryview, kind: Any, depth: int) -> None:
        """Visit a message of a kind, which is a descriptor of protobuf."""
        if depth > _MOST_DEPTH:
            raise ValueError("it is no ONNX network: its messages are nested too deeply")
        if kind in _REFUSED:
            self.refused.add(_REFUSED[kind])
        if kind is onnx.GraphProto.DESCRIPTOR and depth > 1:
            self.refused.add("graphs inside its graph")
        fields = self._fields(data)
        for number, value in _tensor(fields) if kind is _TENSOR else fields:
            field = kind.fields_by_number.get(number)
            if field is not None and field.message_type is not None:
                if not isinstance(value, memoryview):
                    raise ValueError("it is no ONNX network: a message is a number")
                self.message(value, field.message_type, depth + 1)

    def _fields(self, data: memoryview) -> Iterator[Field]:
        place, end = 0, len(data)
        while place < end:
            self._left -= 1
            if self._left < 0:
                raise ValueError(f"it has more than {_MOST_FIELDS:,} parts, which no published network has")
            tag, place = _number(data, place)
            number, kind = tag >> 3, tag & 7
            if kind == _VARINT:
                value, place = _number(data, place)
                yield number, value
                continue
            if kind == _BYTES:
                size, place = _number(data, place)
            elif kind in (_FIXED32, _FIXED64):
                size = 4 if kind == _FIXED32 else 8
            else:
                raise ValueError(f"it is no ONNX network: a field of kind {kind}")
            if size > end - place:
                raise ValueError("it is no ONNX network, or is cut short")
            yield number, data[place : place + size]
            place += size


def _tensor(fields: Iterator[Field]) -> Iterator[Field]:
    """Check a tensor's fields while they pass by."""
    dims: list[int] = []
    held = 0
    for number, value in fields:
        if number == _ELSEWHERE or (number == _LOCATION and value):
            raise ValueError("it asks for weights in other files, which published networks do not")
        if number == _DIMS:
            dims += _numbers(value) if isinstance(value, memoryview) else [value]
        elif number in _VALUES:
            held += 1 if isinstance(value, int) else 1 + len(value)
        if len(dims) > _MOST_DEPTH:
            raise ValueError("it is no ONNX network: a tensor has too many axes")
        yield number, value
    if math.prod(dims) > _DENSEST * held + 1:
        raise ValueError(f"a tensor of shape {dims} has values of {held} bytes: it is damaged")


def _numbers(data: memoryview) -> list[int]:
    found: list[int] = []
    place = 0
    while place < len(data) and len(found) <= _MOST_DEPTH:
        value, place = _number(data, place)
        found.append(value)
    return found


def _number(data: memoryview, place: int) -> tuple[int, int]:
    """Return a number of protobuf's variable length, and where it ends."""
    value = 0
    for shift in range(_MOST_DIGITS):
        if place >= len(data):
            raise ValueError("it is no ONNX network, or is cut short")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value, place
    raise ValueError("it is no ONNX network: a number has too many digits")
