"""How many tasks at once, with how many threads. Imports nothing but the standard library."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from portrait_core.config import RunnerSettings


def cpu_count() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def worker_count(settings: RunnerSettings) -> int:
    """Tasks at once: the setting, or one a CPU core that this process may use."""
    return settings.workers or max(1, cpu_count() // settings.threads_per_worker)


def cpu_threads(settings: RunnerSettings) -> int:
    """CPU threads of this process: all workers' where they are its own threads, else one worker's."""
    workers = worker_count(settings) if settings.kind == "threads" else 1
    return workers * settings.threads_per_worker
