"""Opening of files that may be a stranger's: once, only regular ones, and no more of them than is allowed.

A path can lead to a pipe that never answers or a device that never ends. The file is opened without waiting
and examined once it is open, so that nothing else can take its place between the two.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

_KINDS = (
    (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"), (stat.S_ISLNK, "a link"),
)  # fmt: skip


class IrregularFileError(OSError):
    """A path does not lead to a regular file; the message says what it leads to."""


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading bytes; a link that leads to one is followed.

    Raises:
        IrregularFileError: it is a folder, a pipe, a socket or a device.
        OSError: it does not exist, or may not be read.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        refuse_irregular(os.fstat(handle).st_mode, path)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def refuse_irregular(mode: int, path: str | os.PathLike[str]) -> None:
    """Check the mode of a file.

    Raises:
        IrregularFileError: it is not a regular file's.
    """
    if not stat.S_ISREG(mode):
        raise IrregularFileError(f"{os.fspath(path)} is {kind_of(mode)}; give the path of a regular file")


def kind_of(mode: int) -> str:
    """Return what a mode that is not a regular file's stands for, such as ``a pipe``."""
    return next((name for matches, name in _KINDS if matches(mode)), "no file")


def read_regular(path: str | os.PathLike[str], most: int) -> tuple[bytes, int]:
    """Read the first bytes of a regular file.

    Args:
        path: path of the file.
        most: number of bytes at which reading stops.

    Returns:
        At most ``most`` bytes, and the size of the file, or the number read where it grew meanwhile.
    """
    with open_regular(Path(path)) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(most)
        return data, max(size, len(data))
