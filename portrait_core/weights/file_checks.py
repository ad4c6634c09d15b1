"""Checks that readers of weights share: errors that name the file and its source, and checks of arrays."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from portrait_core.errors import ModelFileError
from portrait_core.runtime.regular_files import open_regular
from portrait_core.settings.limits import over_limit
from portrait_core.weights.registry import explain

_PIECE = 1 << 22


@contextmanager
def checking(path: str | Path, model: str) -> Iterator[None]:
    """Translate errors of a file into one error that names it and its source.

    Args:
        path: path of the file.
        model: name of the model in the registry.

    Raises:
        ModelFileError: in place of any ``ValueError`` or ``OSError`` of the block.
    """
    try:
        yield
    except ModelFileError:
        raise
    except OSError as error:
        raise ModelFileError(explain(model, path, f"cannot be read: {error.strerror or error}")) from error
    except ValueError as error:
        raise ModelFileError(explain(model, path, f"cannot be used: {error}")) from error


@contextmanager
def open_weights(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file of weights, once: a regular one, not larger than is allowed.

    Raises:
        OSError: it does not exist, or is a folder, a pipe or a device.
        ValueError: it is larger than ``limits.weights_bytes`` allows.
    """
    with open_regular(path) as file:
        if problem := over_limit("weights_bytes", os.fstat(file.fileno()).st_size):
            raise ValueError(f"{os.fspath(path)} {problem}")
        yield file


def sha256_of(file: BinaryIO) -> str:
    """Return the digest of an open file, 64 hexadecimal digits."""
    file.seek(0)
    digest = hashlib.sha256()
    while piece := file.read(_PIECE):
        digest.update(piece)
    return digest.hexdigest()


@contextmanager
def reading(path: str | Path, model: str) -> Iterator[BinaryIO]:
    """Open a file, with errors as :func:`checking` gives them."""
    with checking(path, model), open_weights(path) as file:
        yield file


Shape = tuple[int | None, ...]


def _fits(shape: tuple[int, ...], expected: Shape) -> bool:
    pairs = zip(shape, expected, strict=False)
    return len(shape) == len(expected) and all(w in (None, n) and n > 0 for n, w in pairs)


def _shape_text(shape: Shape) -> str:
    return "[" + ", ".join("any" if n is None else str(n) for n in shape) + "]"


def numbers(value: Any, name: str, shape: Shape) -> NDArray[np.floating[Any]]:
    """Return ``value`` as contiguous float32 or float64 of the native byte order; other types become float64.

    Args:
        value: array from a file.
        name: name of the array, for messages.
        shape: expected shape (None: any length but 0).

    Raises:
        ValueError: it has another shape, is not numeric or not finite.
    """
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu" or not _fits(value.shape, shape):
        actual = (
            f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
        )
        raise ValueError(f"{name} is {actual}, expected numbers {_shape_text(shape)}")
    if not np.isfinite(value).all():
        raise ValueError(f"{name} has values that are not finite")
    is_float32 = value.dtype.kind == "f" and value.dtype.itemsize == 4
    return np.ascontiguousarray(value, dtype=np.float32 if is_float32 else np.float64)


def integers(value: Any, name: str, shape: Shape, below: int | None = None) -> NDArray[np.int64]:
    """Return ``value`` as contiguous int64.

    Args:
        value: array from a file.
        name: name of the array, for messages.
        shape: expected shape (None: any length but 0).
        below: limit that all values are below; default: none.

    Raises:
        ValueError: it has another shape, is not integer or is out of range.
    """
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu" or not _fits(value.shape, shape):
        actual = (
            f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
        )
        raise ValueError(f"{name} is {actual}, expected whole numbers {_shape_text(shape)}")
    largest = np.iinfo(np.int64).max if below is None else below - 1
    if value.min() < 0 or value.max() > largest:
        raise ValueError(f"{name} has indices from {value.min()} to {value.max()}, expected 0 to {largest}")
    return np.ascontiguousarray(value, dtype=np.int64)
