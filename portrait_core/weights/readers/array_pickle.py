"""Pickles that hold numpy arrays and plain containers: a short list of allowed names, extended per file.

Such files are often older than Python 3: strings then carry the arrays' bytes and are read as latin1.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any, BinaryIO

from portrait_core.weights.readers.brief import brief
from portrait_core.weights.readers.pickled_arrays import (
    ArrayRecord,
    DTypeRecord,
    empty_bytes,
    encode_latin1,
    rebuild_array,
    rebuild_scalar,
)
from portrait_core.weights.readers.unpickler import ClassName, DataUnpickler, Names, plain_key


def plain_set(items: Any = ()) -> set[Any]:
    """Return a set of plain members."""
    return {plain_key(item) for item in items}


class PickledObject:
    """Base of stand-ins for objects of classes that need not be installed: their attributes, as data."""

    def __init__(self, *_: Any) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError(f"an object's state is a {type(state).__name__}, expected a dict")
        self.state = state


def rebuild_object(kind: Any, *_: Any) -> PickledObject:
    """Make a stand-in as protocols 0 and 1 make an object: from its class, ``object``, and no state.

    Raises:
        pickle.UnpicklingError: the class is not one of our stand-ins.
    """
    if not isinstance(kind, type) or not issubclass(kind, PickledObject):
        raise pickle.UnpicklingError(f"it makes an object of {brief(kind)}, which is not known as safe")
    return kind()


ARRAY_NAMES: Names = {
    ("_codecs", "encode"): encode_latin1,
    ("__builtin__", "bytes"): empty_bytes,
    ("numpy", "dtype"): DTypeRecord,
    ("numpy", "ndarray"): ClassName("numpy", "ndarray"),
    **{
        (f"numpy.{core}.multiarray", name): rebuild
        for core in ("core", "_core")
        for name, rebuild in (("_reconstruct", rebuild_array), ("scalar", rebuild_scalar))
    },
}
"""Constructors of numpy's arrays and numbers by name, for pickles of numpy 1 and 2."""

OBJECT_NAMES: Names = {
    ("builtins", "set"): plain_set,
    ("__builtin__", "set"): plain_set,
    ("copy_reg", "_reconstructor"): rebuild_object,
    ("copyreg", "_reconstructor"): rebuild_object,
    ("__builtin__", "object"): ClassName("builtins", "object"),
    ("builtins", "object"): ClassName("builtins", "object"),
}
"""Constructors of plain objects by name; a reader adds their classes as subclasses of
:class:`PickledObject`."""


class ArrayUnpickler(DataUnpickler):
    """Resolves the given names and nothing else; fills arrays, number types and our stand-ins."""

    fillable: tuple[type, ...] = (ArrayRecord, DTypeRecord, PickledObject)


def read_array_pickle(file: BinaryIO, names: Mapping[tuple[str, str], Any] | None = None) -> Any:
    """Read one pickle of arrays and plain containers from the current position of ``file``.

    Args:
        file: the open file.
        names: further names to resolve, each to an inert constructor; they precede the usual ones.

    Raises:
        ValueError: it is not a pickle, is damaged, or asks for a name that is not allowed.
    """
    try:
        return ArrayUnpickler(file, {**ARRAY_NAMES, **(names or {})}, encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise ValueError(f"it cannot be read safely: {error}") from error
    # a damaged or hostile file can cause many kinds of errors
    except Exception as error:
        raise ValueError(f"it cannot be read safely: it is no such pickle ({error!r:.200})") from error
