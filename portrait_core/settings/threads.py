"""How many tasks at once, with how many threads. Imports nothing but the standard library."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from portrait_core.settings import Settings


def cpu_count() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpu_count() -> int:
    """NVIDIA GPUs that this process may use, without asking PyTorch."""
    return len(gpu_names())


def gpu_names() -> list[str]:
    """What ``CUDA_VISIBLE_DEVICES`` calls those GPUs."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    listed = Path("/proc/driver/nvidia/gpus")
    return [str(i) for i in range(len(list(listed.iterdir())))] if listed.is_dir() else []


def worker_count(settings: Settings) -> int:
    """Tasks at once: the setting, else one on a GPU, else one a CPU core that this process may use."""
    runner = settings.runner
    if runner.workers:
        return runner.workers
    if settings.device != "cpu" and gpu_count():
        return 1
    return max(1, cpu_count() // runner.threads_per_worker)


def cpu_threads(settings: Settings) -> int:
    """CPU threads of this process: all workers' where they are its own threads, else one worker's."""
    workers = worker_count(settings) if settings.runner.kind == "threads" else 1
    return workers * settings.runner.threads_per_worker
