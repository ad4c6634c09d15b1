"""``.npy`` files that hold one object instead of numbers: a pickle after numpy's header."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from typing import Any, BinaryIO

import numpy as np

from portrait_core.weights.readers.array_pickle import PickledObject, read_array_pickle
from portrait_core.weights.readers.npy_files import read_header
from portrait_core.weights.readers.pickled_arrays import (
    ArrayRecord,
    DTypeRecord,
    rebuild_tensor,
)
from portrait_core.weights.readers.torch_pickles import load_storage


class _ObjectType(PickledObject):
    """numpy's type of arrays of objects."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Values(PickledObject):
    """An array of numbers, or of one object, while it is being read."""

    content: Any = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("a numpy array has an unknown form")
        if not isinstance(state[2], _ObjectType):
            array = ArrayRecord((0,), dtype=np.uint8)
            array.__setstate__(state)
            self.content = np.asarray(array)
            return
        _, shape, _, _, values = state
        if shape != () or not isinstance(values, list) or len(values) != 1:
            raise pickle.UnpicklingError("an array holds several objects, expected one")
        self.content = values[0]


def _dtype(code: Any, *_: Any) -> DTypeRecord | _ObjectType:
    return _ObjectType() if code in ("O", "O8", b"O8") else DTypeRecord(code)


def _ordered(*items: Any) -> OrderedDict[Any, Any]:
    """Return an empty dict for a tensor's hooks; refuse hooks."""
    if items:
        raise pickle.UnpicklingError("a tensor has hooks")
    return OrderedDict()


_NAMES: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _ordered,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Values,
    ("numpy._core.multiarray", "_reconstruct"): _Values,
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch.storage", "_load_from_bytes"): load_storage,
}


def read_object_npy(file: BinaryIO) -> Any:
    """Read the object in a ``.npy`` file: plain containers of arrays and torch tensors.

    A storage inside a tensor is a pickle of its own, which the same restricted reader reads.

    Raises:
        ValueError: it is not such a file, is damaged, or asks for anything else.
    """
    shape, _, dtype = read_header(file)
    if shape != () or dtype != np.dtype(object):
        raise ValueError(f"it holds {dtype} of shape {shape}, expected one object")
    array = read_array_pickle(file, _NAMES)
    if not isinstance(array, _Values):
        raise ValueError(f"it holds a {type(array).__name__} after its header, expected an array")
    content = array.content
    if isinstance(content, dict):
        return {key: value.content if isinstance(value, _Values) else value for key, value in content.items()}
    return content
