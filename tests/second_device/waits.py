"""Counting what makes the host wait for a device, or moves data between the two."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch

aten = torch.ops.aten

_TORCH = str(Path(torch.__file__).parent)
_HERE = str(Path(__file__).parent)
_TOOLS = {
    "arguments.py",
    "tensor.py",
    "tape.py",
    "waits.py",
    "generators.py",
    "registration.py",
    "kernels.py",
}

_READS = {aten._local_scalar_dense, aten.equal, aten._linalg_check_errors}
"""Operations whose result is needed on the host."""
_SHAPED_BY_DATA = {
    aten.nonzero,
    aten.masked_select,
    aten._unique,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.unique_dim_consecutive,
    aten.bincount,
}
"""Operations whose result has a shape that only the data tells, so that CUDA waits for it."""
_INDEXING = {aten.index, aten._unsafe_index, aten.index_put, aten.index_put_, aten._index_put_impl_}


@dataclass(frozen=True)
class Wait:
    """One wait or one copy.

    Attributes:
        operation: PyTorch's name of the operation, such as ``aten.nonzero.default``.
        place: the innermost line of code outside PyTorch and this package, as ``path:line in function``.
    """

    operation: str
    place: str

    def __str__(self) -> str:
        return f"{self.operation} at {self.place}"


@dataclass
class Waits:
    """What happened while counting.

    Attributes:
        copies: copies between the devices, in their order.
        reads: values that the host read, and operations whose result's shape depends on the data, in their
            order.
    """

    copies: list[Wait] = field(default_factory=list)
    reads: list[Wait] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"copy: {wait}" for wait in self.copies] + [f"read: {wait}" for wait in self.reads]
        return "\n".join(lines) or "no copies and no reads"


_counting: list[Waits] = []
_forbidding: list[str] = []
"""Names of what forbids waits at present; a process-wide list, because backward passes run in other
threads."""


@contextmanager
def counted() -> Iterator[Waits]:
    """Count copies between the devices and reads by the host, in all threads, until the block ends."""
    waits = Waits()
    _counting.append(waits)
    try:
        yield waits
    finally:
        _counting[:] = [other for other in _counting if other is not waits]


@contextmanager
def forbidden(by: str) -> Iterator[None]:
    """Make copies and reads raise RuntimeError, in all threads, until the block ends."""
    _forbidding.append(by)
    try:
        yield
    finally:
        _forbidding.pop()


def copied(operation: object) -> None:
    """Note a copy between the devices.

    Raises:
        RuntimeError: while something forbids it.
    """
    _note(operation, "copies")


def read(operation: object) -> None:
    """Note that the host needs a value of the device.

    Raises:
        RuntimeError: while something forbids it.
    """
    _note(operation, "reads")


def note_reads(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Note what an operation on tensors of the device makes the host wait for.

    Raises:
        RuntimeError: while something forbids it.
    """
    packet = func.overloadpacket
    if (
        packet in _READS
        or packet in _SHAPED_BY_DATA
        or _counts_repeats(func, args, kwargs)
        or (packet in _INDEXING and _by_mask(args))
    ):
        read(func)


def _counts_repeats(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return func is aten.repeat_interleave.Tensor and kwargs.get("output_size") is None and len(args) < 2


def _by_mask(args: tuple[Any, ...]) -> bool:
    """Whether indices are masks. CUDA turns them into places, whose number it waits for; only where one
    number is laid into the masked places it need not, because that is a fill."""
    masks = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    filled_with = args[2] if len(args) > 2 else None
    if filled_with is None:
        return masks
    is_number = filled_with.device.type == "cpu" or getattr(filled_with, "is_number", False)
    return masks and not (is_number and filled_with.numel() == 1)


def _note(operation: object, kind: str) -> None:
    if not _counting and not _forbidding:
        return
    wait = Wait(str(operation), place())
    for waits in _counting:
        getattr(waits, kind).append(wait)
    if _forbidding:
        what = "a copy between devices" if kind == "copies" else "a value that the host waits for"
        raise RuntimeError(f"{_forbidding[-1]} forbids {what}: {wait}")


def place() -> str:
    """The innermost line outside PyTorch and this package; behind a library's line, ours that led there."""
    frame: FrameType | None = sys._getframe(1)
    library = ""
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        ours = str(path.parent) == _HERE and path.name in _TOOLS
        if not (ours or str(path).startswith((_TORCH, "<"))) and path.name != "contextlib.py":
            line = f"{_short(path)}:{frame.f_lineno} in {frame.f_code.co_name}"
            if "site-packages" not in path.parts:
                return f"{library}, called from {line}" if library else line
            library = library or line
        frame = frame.f_back
    return library or "the backward pass, where no line of Python is at work"


def _short(path: Path) -> Path:
    parts = path.parts
    if "site-packages" in parts:
        return Path(*parts[parts.index("site-packages") + 1 :])
    root = Path(_HERE).parents[1]
    return path.relative_to(root) if path.is_relative_to(root) else path
