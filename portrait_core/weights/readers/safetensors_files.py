"""Safetensors files, opened once; their library checks that each tensor lies in the file.

Text in them is a stranger's too: what their metadata say is parsed as any file beside them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

from safetensors import SafetensorError, safe_open

from portrait_core.weights.file_checks import open_weights

_LENGTH = 8
_MOST_HEADER = 1 << 22
"""Most bytes of a header: 2,000 tensors take 200 KiB."""


@contextmanager
def open_safetensors(path: str | Path, framework: Literal["pt", "np"] = "pt") -> Iterator[Any]:
    """Open a safetensors file; errors of its tensors, read in the block, are translated too.

    Raises:
        OSError: the file does not exist, or is a folder, a pipe or a device.
        ValueError: it is no safetensors file, or is damaged.
    """
    with open_weights(path) as file:
        _check_header(file)
        try:
            # by its handle: another file may lie under the path by now
            with safe_open(f"/dev/fd/{file.fileno()}", framework=framework) as opened:
                yield opened
        except SafetensorError as error:
            raise ValueError(f"it is no safetensors file, or is damaged ({error})") from error


def _check_header(file: BinaryIO) -> None:
    start = file.read(_LENGTH)
    size = struct.unpack("<Q", start)[0] if len(start) == _LENGTH else 0
    left = file.seek(0, os.SEEK_END) - _LENGTH
    if not 0 < size <= min(left, _MOST_HEADER):
        raise ValueError(
            f"it is no safetensors file: its header has {size:,} bytes, of {max(left, 0):,} and at most "
            f"{_MOST_HEADER:,}"
        )
