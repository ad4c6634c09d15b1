"""Numbers of tasks at the same time, and of their threads."""

from __future__ import annotations

import os
from pathlib import Path

from portrait_core.settings.whole import Settings


def cpu_count() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpu_count() -> int:
    """Return the number of NVIDIA GPUs that this process may use, without asking PyTorch."""
    return len(gpu_names())


def gpu_names() -> list[str]:
    """List the names of those GPUs in ``CUDA_VISIBLE_DEVICES``, or their numbers where it is not set."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    driver_folder = Path("/proc/driver/nvidia/gpus")
    return [str(i) for i in range(len(list(driver_folder.iterdir())))] if driver_folder.is_dir() else []


def worker_count(settings: Settings) -> int:
    """Return the number of tasks at the same time.

    It is the setting; else one on a GPU, and on a CPU as many as the cores of this process have threads for.
    """
    runner = settings.runner
    if runner.workers:
        return runner.workers
    if settings.device != "cpu" and gpu_count():
        return 1
    return max(1, cpu_count() // runner.threads_per_worker)


def cpu_threads(settings: Settings) -> int:
    """Return the CPU threads of this process: all workers' if they are its own threads, else one worker's."""
    workers = worker_count(settings) if settings.runner.kind == "threads" else 1
    return workers * settings.runner.threads_per_worker
