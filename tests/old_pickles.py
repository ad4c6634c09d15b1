"""Pickles as Python 2 wrote them, of objects whose classes are not installed.

The pure-Python pickler is taught three things: byte strings are strings, names are those of the time, and a
name need not exist. So arrays come out under numpy 1's names with their bytes in a string, and stand-ins for
chumpy's and scipy's objects under the names of the real ones.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

_RENAMED = {
    "builtins": "__builtin__",
    "copyreg": "copy_reg",
    "numpy._core.multiarray": "numpy.core.multiarray",
}


def _class(module: str, name: str) -> type:
    return type(name, (), {"__module__": module})


Ch = _class("chumpy.ch", "Ch")
Select = _class("chumpy.reordering", "Select")
csc_matrix = _class("scipy.sparse.csc", "csc_matrix")


def stand_in(kind: type, **state: Any) -> Any:
    """An object of such a class with these attributes."""
    made = kind()
    vars(made).update(state)
    return made


def chumpy(array: np.ndarray, *, old: bool = False) -> Any:
    """``array`` as a ``chumpy.Ch``; old chumpy kept fewer attributes."""
    if old:
        return stand_in(Ch, x=array)
    return stand_in(
        Ch,
        x=array,
        _dirty_vars=set(),
        _itr=None,
        _make_dense=False,
        _make_sparse=False,
        _depends_on_deps={},
        _status="new",
    )


def sparse_columns(dense: np.ndarray, *, old: bool = False) -> Any:
    """``dense`` as a ``scipy.sparse.csc_matrix``; old scipy kept its format too."""
    rows, columns = np.nonzero(dense.T)[::-1]
    counts = np.bincount(columns, minlength=dense.shape[1])
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    extra = {"format": "csc"} if old else {}
    return stand_in(
        csc_matrix,
        _shape=dense.shape,
        maxprint=50,
        indptr=indptr,
        indices=rows.astype(np.int32),
        data=dense[rows, columns],
        **extra,
    )


class _Pickler(pickle._Pickler):
    """Python's own writer, with what its stubs leave out."""

    write: Callable[[bytes], object]
    memoize: Callable[[Any], None]


class _Python2(_Pickler):
    """Writes protocol 0, 1 or 2 as Python 2 did."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module = _RENAMED.get(obj.__module__, obj.__module__)
        self.write(b"c" + f"{module}\n{name or obj.__qualname__}\n".encode())
        self.memoize(obj)

    def _save_string(self, text: bytes | str) -> None:
        data = text if isinstance(text, bytes) else text.encode()
        if not self.bin:
            self.write(b"S" + repr(data)[1:].encode() + b"\n")
        elif len(data) < 256:
            self.write(b"U" + bytes([len(data)]) + data)
        else:
            self.write(b"T" + struct.pack("<i", len(data)) + data)
        self.memoize(text)

    dispatch[bytes] = dispatch[str] = _save_string
    dispatch[type] = save_global
    dispatch[type(len)] = dispatch[type(stand_in)] = save_global


def python2_pickle(content: Any, protocol: int = 2) -> bytes:
    """``content`` as Python 2 would have written it."""
    buffer = io.BytesIO()
    _Python2(buffer, protocol=protocol).dump(content)
    return buffer.getvalue()


class _NumPy1(_Pickler):
    """Writes protocol 3 under numpy 1's names."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if obj.__module__ != "numpy._core.multiarray":
            super().save_global(obj, name)  # type: ignore[misc]  # the stubs leave it out
            return
        self.write(b"cnumpy.core.multiarray\n" + (name or obj.__qualname__).encode() + b"\n")
        self.memoize(obj)

    dispatch[type(len)] = save_global


def numpy1_object_npy(path: Path, content: Any, *, protocol: int = 3) -> Path:
    """A ``.npy`` file that holds one object, as numpy 1 (protocol 3) or today's writes it (4)."""
    holder = np.empty((), dtype=object)
    holder[()] = content
    with open(path, "wb") as file:
        header = {"descr": "|O", "fortran_order": False, "shape": ()}
        np.lib.format.write_array_header_1_0(file, header)
        if protocol == 3:
            _NumPy1(file, protocol=3).dump(holder)
        else:
            pickle.dump(holder, file, protocol=protocol)
    return path
