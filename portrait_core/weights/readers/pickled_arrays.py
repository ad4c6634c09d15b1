"""Constructors for the arrays and tensors in a pickle; sizes are checked before memory is allocated."""

from __future__ import annotations

import math
import pickle
import re
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from portrait_core.weights.readers.brief import brief

_MOST_AXES = 25
_MAX_EXPANDED = 2**20  # largest number of values of a tensor that repeats its storage

STORAGES: dict[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
"""Types of the values of torch's storages, by their names."""


class Storage:
    """Values of which tensors are views."""

    def __init__(self, dtype: torch.dtype, count: int) -> None:
        self.dtype, self.count = dtype, count
        self.values: Tensor | None = None  # [count], once read


def is_count(value: Any) -> bool:
    """Tell whether a value is a number of values, of a size that a file may have."""
    return type(value) is int and 0 <= value < 2**48


def rebuild_view(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """Return a tensor over a part of a storage, which it may repeat.

    Raises:
        pickle.UnpicklingError: it would reach beyond the storage.
    """
    if not isinstance(storage, Storage) or storage.values is None:
        raise pickle.UnpicklingError(f"a tensor's storage is a {type(storage).__name__}")
    shaped = isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride)
    # many axes are refused first: the product of a million lengths takes hours
    if not shaped or len(size) > _MOST_AXES or not all(map(is_count, (offset, *size, *stride))):
        raise pickle.UnpicklingError(f"a tensor has size {brief(size)}, stride {brief(stride)}")
    total = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if total else 0
    if last >= max(storage.count, 1):
        raise _beyond(storage, offset, size, stride)
    if not total:
        return torch.empty(size, dtype=storage.dtype)
    return torch.as_strided(storage.values, size, stride, offset)


def rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """Return a tensor over a part of a storage, for readers that copy it.

    Raises:
        pickle.UnpicklingError: it would reach beyond the storage, or repeat it very often.
    """
    view = rebuild_view(storage, offset, size, stride)
    if view.numel() > max(storage.count, _MAX_EXPANDED):
        raise _beyond(storage, offset, size, stride)
    return view


def _beyond(storage: Storage, offset: int, size: Any, stride: Any) -> pickle.UnpicklingError:
    return pickle.UnpicklingError(
        f"a tensor of size {size}, stride {stride}, offset {offset} reaches beyond its storage of "
        f"{storage.count} values"
    )


def rebuild_parameter(data: Any, *_: Any) -> Tensor:
    """Return the tensor of a parameter."""
    if not isinstance(data, Tensor):
        raise pickle.UnpicklingError(f"a parameter holds a {type(data).__name__}, expected a tensor")
    return data


class DTypeRecord:
    """A numpy number type, filled with checks that numpy's own type omits."""

    def __init__(self, code: Any, *_: Any) -> None:
        if isinstance(code, bytes):
            code = code.decode("latin1")
        if not isinstance(code, str) or not re.fullmatch(r"[<>=|]?(?:[biuf][1248]|[SU]\d{1,4})", code):
            raise pickle.UnpicklingError(
                f"the file asks for numpy type {brief(code):.40}, only numbers are read"
            )
        self.numpy = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "=", "|") or any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("a numpy type has parts, only numbers are read")
        self.numpy = self.numpy.newbyteorder(order)


def rebuild_scalar(dtype: Any, data: Any) -> Any:
    """Return a numpy number."""
    return _values(dtype, data, 1)[0]


class ArrayRecord(np.ndarray[Any, Any]):
    """An array while it is being read; :meth:`__setstate__` sets its shape and values."""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("a numpy array has an unknown form")
        _, shape, dtype, fortran, data = state
        if not isinstance(shape, tuple) or len(shape) > 32 or not all(map(is_count, shape)):
            raise pickle.UnpicklingError(f"a numpy array has shape {brief(shape)}")
        values = _values(dtype, data, math.prod(shape))
        super().__setstate__((1, shape, values.dtype, bool(fortran), values.tobytes()))  # type: ignore[arg-type]


def encode_latin1(text: Any, encoding: Any = "latin1") -> bytes:
    """Return bytes as protocols 0 to 2 write them: as text, and a call that encodes it."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it encodes a {type(text).__name__} as {brief(encoding):.40}")
    return text.encode("latin1")


def empty_bytes() -> bytes:
    """Return no bytes, which those protocols write without text."""
    return b""


def rebuild_array(*_: Any) -> NDArray[Any]:
    """Return the empty array with which numpy's pickles begin."""
    return ArrayRecord((0,), dtype=np.uint8)


def _values(dtype: Any, data: Any, count: int) -> NDArray[Any]:
    if isinstance(data, str):  # bytes of Python 2, read as latin1
        data = data.encode("latin1")
    if not isinstance(dtype, DTypeRecord) or not isinstance(data, bytes):
        raise pickle.UnpicklingError("a numpy value has no type or no bytes")
    if len(data) != count * dtype.numpy.itemsize:
        raise pickle.UnpicklingError(f"{count} numpy values of {dtype.numpy} have {len(data)} bytes")
    return np.frombuffer(data, dtype=dtype.numpy)
