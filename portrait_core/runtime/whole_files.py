"""Writing of files on this machine: whole or not at all, and never through a link that somebody put there.

A file is made under a random name, exclusively, in the folder where it will lie, and renamed when it is
complete. Its access mode is that of the process, also where another library makes the content.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def partial_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Make an empty file that takes the place of ``path`` when the block ends without an error.

    Args:
        path: the file to write; its folder must exist. A link of its name is replaced, not followed.

    Yields:
        Path of the file that the block fills. Another file may be put in its place meanwhile.
    """
    target = Path(path)
    partial = target.with_name(f".{secrets.token_hex(8)}.part")
    with open(partial, "xb") as made:
        mode = os.fstat(made.fileno()).st_mode & 0o777
    try:
        yield partial
        if os.lstat(partial).st_mode & 0o777 != mode:  # some libraries write files of a mode of their own
            os.chmod(partial, mode)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file whole or not at all, as :func:`partial_file` does."""
    with partial_file(path) as partial:
        partial.write_bytes(data)
