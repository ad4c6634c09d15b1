"""``.npy`` and ``.npz`` files of numbers: a header may not announce more values than follow it."""

from __future__ import annotations

import io
import math
import warnings
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from portrait_core.weights.readers.archives import Archive

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_MOST_AXES = 32


def read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of a ``.npy`` file.

    Returns:
        Shape, whether the first axis runs fastest, and type of the values.

    Raises:
        ValueError: it is no such file, or is damaged.
    """
    try:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"its format version is {version}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about headers of Python 2
            return _HEADERS[version](file)
    # numpy parses the header as a Python literal, which can fail in many ways
    except Exception as error:
        raise ValueError(f"it is no .npy file, or is damaged: {error!r:.200}") from error


def read_npy(data: bytes) -> NDArray[Any]:
    """Read the numbers of a ``.npy`` file from its bytes.

    Raises:
        ValueError: it is no such file, is damaged, or holds something else than numbers.
    """
    file = io.BytesIO(data)
    shape, fortran, dtype = read_header(file)
    start = file.tell()
    left = len(data) - start
    if dtype.kind not in "biuf" or len(shape) > _MOST_AXES or min(shape, default=0) < 0:
        raise ValueError(f"it holds {dtype} of shape {shape}, expected numbers")
    if math.prod(shape) * dtype.itemsize != left:
        raise ValueError(f"it is cut short or damaged: {dtype} of shape {shape} has {left} bytes")
    values = np.frombuffer(data, dtype, math.prod(shape), start)
    return values.reshape(shape, order="F" if fortran else "C").copy(order="K")


def read_npz(data: bytes) -> dict[str, NDArray[Any]]:
    """Read the arrays of a ``.npz`` file, which is not compressed, from its bytes.

    Raises:
        ValueError: it is no such file, is damaged, or holds something else than numbers.
    """
    archive = Archive(io.BytesIO(data), compressed=False)
    return {name.removesuffix(".npy"): read_npy(archive.read(name)) for name in archive.members}
