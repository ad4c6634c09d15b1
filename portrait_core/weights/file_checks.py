"""What readers of weight files share: errors that name the file and its source, and checks of arrays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from portrait_core.errors import ModelFileError
from portrait_core.weights.registry import explain


@contextmanager
def checking(path: str | Path, model: str) -> Iterator[None]:
    """Turn what goes wrong with a file into one error that names it and says where to get it.

    Args:
        model: its name in the registry.

    Raises:
        ModelFileError: instead of any ``ValueError`` or ``OSError`` from inside.
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
def reading(path: str | Path, model: str) -> Iterator[BinaryIO]:
    """Open a file, with errors as :func:`checking` gives them."""
    with checking(path, model), open(path, "rb") as file:
        yield file


Shape = tuple[int | None, ...]


def _fits(shape: tuple[int, ...], wanted: Shape) -> bool:
    pairs = zip(shape, wanted, strict=False)
    return len(shape) == len(wanted) and all(w in (None, n) and n > 0 for n, w in pairs)


def _written(wanted: Shape) -> str:
    return "[" + ", ".join("any" if n is None else str(n) for n in wanted) + "]"


def numbers(value: Any, name: str, shape: Shape) -> NDArray[np.floating[Any]]:
    """``value`` as contiguous float32 or float64 of the native byte order: whichever it is, else float64.

    Raises:
        ValueError: if it has another shape (None: any length but 0), is no number or not finite.
    """
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu" or not _fits(value.shape, shape):
        got = f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
        raise ValueError(f"{name} is {got}, expected numbers {_written(shape)}")
    if not np.isfinite(value).all():
        raise ValueError(f"{name} has values that are not finite")
    single = value.dtype.kind == "f" and value.dtype.itemsize == 4
    return np.ascontiguousarray(value, dtype=np.float32 if single else np.float64)


def integers(value: Any, name: str, shape: Shape, below: int | None = None) -> NDArray[np.int64]:
    """``value`` as contiguous int64.

    Args:
        below: values are from 0 to less than this.

    Raises:
        ValueError: if it has another shape, is no whole number or out of range.
    """
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu" or not _fits(value.shape, shape):
        got = f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
        raise ValueError(f"{name} is {got}, expected whole numbers {_written(shape)}")
    most = np.iinfo(np.int64).max if below is None else below - 1
    if value.min() < 0 or value.max() > most:
        raise ValueError(f"{name} has indices from {value.min()} to {value.max()}, expected 0 to {most}")
    return np.ascontiguousarray(value, dtype=np.int64)
