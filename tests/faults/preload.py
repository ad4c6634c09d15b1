"""The same faults in a Dask worker: loaded by it before its first task.

The environment carries them: ``DASK_DISTRIBUTED__WORKER__PRELOAD=tests.faults.preload``.
"""

from __future__ import annotations

from tests.faults.injected import inject


def dask_setup(worker: object) -> None:
    """Dask calls this in the worker's process."""
    inject()
