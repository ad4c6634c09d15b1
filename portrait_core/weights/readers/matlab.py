"""MATLAB 5 files: a list of variables, each plain or compressed by itself; arrays of numbers are read.

No more of a compressed variable is decoded than its first bytes announce, and these may not announce far more
than it has bytes.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from portrait_core.settings.limits import over_limit
from portrait_core.weights.readers.archives import grown

_HEADER, _VERSION = 128, 124
_MATRIX, _COMPRESSED = 14, 15
_START = 4096  # bytes of a variable with its kind, shape and name
_MOST_VARIABLES, _MOST_AXES = 10_000, 32
_COMPLEX, _LOGICAL = 8, 2

_CLASSES = (
    "", "cell", "struct", "object", "char", "sparse", "double", "single", "int8", "uint8", "int16", "uint16",
    "int32", "uint32", "int64", "uint64", "function", "opaque",
)  # fmt: skip
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMERIC = frozenset({*_CLASSES[6:16], "logical"})
_HARMLESS = _NUMERIC | {"char", "struct", "cell", "sparse"}


@dataclass(frozen=True)
class _Variable:
    """A variable before its values are read."""

    name: str
    kind: str
    """MATLAB's name of its class."""
    shape: tuple[int, ...]
    is_complex: bool
    values: int
    """Bytes of the variable before its values."""


def read_arrays(file: BinaryIO, names: Sequence[str]) -> dict[str, NDArray[np.generic]]:
    """Read arrays of numbers, each of the type in which they are stored, of the byte order of this machine.

    Raises:
        ValueError: it is no MATLAB 5 file, is damaged, lacks one of ``names`` or holds functions or objects.
    """
    header = file.read(_HEADER)
    if not header.startswith(b"MATLAB 5.0") or header[_VERSION:] not in (b"\0\1IM", b"\1\0MI"):
        raise ValueError("it is no MATLAB 5 file (MATLAB 7.3 files are HDF5: save with -v7 or older)")
    order = "<" if header.endswith(b"IM") else ">"
    arrays: dict[str, NDArray[np.generic]] = {}
    found: list[str] = []
    try:
        for element in _elements(file, order):
            variable = _described(element.start, order)
            if variable.name in found:
                raise ValueError(f"it holds two variables {variable.name:.40}")
            found.append(variable.name)
            _check_kind(variable, names)
            if variable.name in names:
                arrays[variable.name] = _array(element.whole(), variable, order)
    except (struct.error, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"it is damaged, or holds objects ({error!s:.120})") from error
    if missing := [name for name in names if name not in arrays]:
        held = ", ".join(f"{name:.40}" for name in found[:12])
        raise ValueError(f"it lacks {', '.join(missing)}; it holds {held}")
    return arrays


class _Element:
    """A variable in the file, plain or compressed.

    Args:
        file: the open file, at the variable's bytes.
        size: number of these bytes.
        compressed: whether they are a stream of zlib.
        order: byte order, as struct writes it.
    """

    def __init__(self, file: BinaryIO, size: int, compressed: bool, order: str) -> None:
        self._file, self._place, self._size, self._compressed = file, file.tell(), size, compressed
        self._order = order
        self.start = self._decoded(_START) if compressed else file.read(min(size, _START))
        """Its first bytes."""

    def whole(self) -> bytes:
        """Read all of its bytes."""
        if self._compressed:
            return self._decoded(None)
        self._file.seek(self._place)
        return self._file.read(self._size)

    def _decoded(self, most: int | None) -> bytes:
        """Decode the stream, which holds one plain variable; with ``most``, its beginning."""
        self._file.seek(self._place)
        stream = zlib.decompressobj()
        packed = self._file.read(self._size if most is None else min(self._size, 2 * _START))
        tag = stream.decompress(packed, 8)
        kind, size = struct.unpack(f"{self._order}II", tag)
        if kind != _MATRIX:
            raise ValueError("it is damaged: something else than a variable is compressed")
        if problem := grown(self._size, size):
            raise ValueError(f"a compressed variable {problem}")
        return stream.decompress(stream.unconsumed_tail, max(size if most is None else min(size, most), 1))


def _elements(file: BinaryIO, order: str) -> Iterator[_Element]:
    end = file.seek(0, os.SEEK_END)
    place = _HEADER
    for _ in range(_MOST_VARIABLES):
        file.seek(place)
        tag = file.read(8)
        if len(tag) < 8:
            return
        kind, size = struct.unpack(f"{order}II", tag)
        place += 8 + size
        if kind not in (_MATRIX, _COMPRESSED) or place > end:
            raise ValueError("it is damaged, or cut short")
        yield _Element(file, size, kind == _COMPRESSED, order)
    raise ValueError(f"it holds more than {_MOST_VARIABLES:,} variables")


def _part(data: bytes, place: int, order: str) -> tuple[int, int, int, int]:
    """Return type, place and size of the part of a variable at ``place``, and where the next one begins."""
    kind, size = struct.unpack_from(f"{order}II", data, place)
    if kind >> 16:  # up to four bytes of values lie in the tag itself
        return kind & 0xFFFF, place + 4, kind >> 16, place + 8
    return kind, place + 8, size, place + 8 + size + -size % 8


def _described(data: bytes, order: str) -> _Variable:
    _, place, _, after = _part(data, 0, order)
    (flags,) = struct.unpack_from(f"{order}I", data, place)
    number = flags & 0xFF
    kind = _CLASSES[number] if 0 < number < len(_CLASSES) else "opaque"
    if kind == "opaque":
        raise ValueError("it is damaged, or holds objects")
    kind = "logical" if flags >> 8 & _LOGICAL else kind
    _, place, size, after = _part(data, after, order)
    if size > 4 * _MOST_AXES:
        raise ValueError(f"it holds an array of {size // 4} axes")
    shape = struct.unpack_from(f"{order}{size // 4}i", data, place)
    _, place, size, after = _part(data, after, order)
    if place + size > len(data):
        raise ValueError("it is damaged: a variable's name is cut short")
    return _Variable(
        data[place : place + size].decode("latin1"), kind, shape, bool(flags >> 8 & _COMPLEX), after
    )


def _check_kind(variable: _Variable, names: Sequence[str]) -> None:
    name, kind, shape = variable.name, variable.kind, variable.shape
    if kind not in _HARMLESS:
        raise ValueError(f"{name:.40} is of MATLAB's kind {kind}, only arrays are read")
    if name in names and (kind not in _NUMERIC or variable.is_complex or min(shape, default=0) < 0):
        raise ValueError(f"{name} is a {kind} of {shape}, expected numbers")


def _array(data: bytes, variable: _Variable, order: str) -> NDArray[np.generic]:
    kind, place, size, _ = _part(data, variable.values, order)
    count = math.prod(variable.shape)
    if kind not in _TYPES:
        raise ValueError(f"{variable.name} is no array of numbers")
    dtype = np.dtype(f"{order}{_TYPES[kind]}")
    if size != count * dtype.itemsize or place + size > len(data):
        raise ValueError(f"{variable.name} of {variable.shape} has {size} bytes, or fewer: it is damaged")
    if problem := over_limit("weights_bytes", size):
        raise ValueError(f"{variable.name} {problem}")
    values = np.frombuffer(data, dtype, count, place).reshape(variable.shape, order="F")
    return values.astype(dtype.newbyteorder("="), copy=False)
