"""Folders of single runs: Dask's temporary files, and keys that other hosts must read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def private_folder(parent: str | Path | None = None) -> Iterator[str]:
    """Make a folder that only this user can enter, and remove it with all that it holds after the block.

    Args:
        parent: folder to make it in; None is that of temporary files.
    """
    if parent is not None:
        Path(parent).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix="portrait-dask-", dir=parent, ignore_cleanup_errors=True
    ) as folder:
        yield folder


@contextmanager
def dask_scratch(parent: str | None = None) -> Iterator[None]:
    """Let Dask put its temporary files into a private folder during the block.

    By default they lie in ``dask-scratch-space`` of the folder of temporary files, which Dask also takes when
    another user has made it. Dask puts that folder first among those from which Python imports modules, so
    that user's code would run in the scheduler and in the workers.
    """
    import dask

    with private_folder(parent) as folder, dask.config.set({"temporary-directory": folder}):
        yield
