"""Dask clusters by the profile: workers on this host, one a GPU, a scheduler elsewhere, Slurm, Kubernetes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from portrait_core.config import Settings
from portrait_core.errors import InputError
from tasks.threads import gpu_names, worker_count

if TYPE_CHECKING:
    from distributed import Client, SpecCluster

DASK_CONFIG = {
    # Workers busy with native code answer late; the default of 15 s takes them for dead.
    "distributed.deploy.lost-worker-timeout": "180s",
    "distributed.comm.timeouts.connect": "60s",
    "distributed.admin.tick.limit": "60s",
    # A task whose worker died comes back at once: the flow finds out which frame it was (flows/stages.py).
    "distributed.scheduler.allowed-failures": 0,
}
EXTRAS = {"slurm": "dask_jobqueue", "kubernetes": "dask_kubernetes"}


@contextmanager
def dask_client(settings: Settings) -> Iterator[Client]:
    """A client of the cluster that the settings name; a cluster started here ends with the block.

    Raises:
        InputError: the cluster needs a package that is not installed, or settings that are missing.
    """
    import dask
    from distributed import Client

    dask.config.set(DASK_CONFIG)
    if settings.runner.kind == "address":
        with Client(settings.runner.address, set_as_default=False) as client:
            yield client
        return
    with open_cluster(settings) as cluster, Client(cluster, set_as_default=False) as own:
        yield own


def open_cluster(settings: Settings) -> SpecCluster:
    """Start the cluster that the settings name."""
    kind, workers = settings.runner.kind, settings.runner.workers
    if kind == "local_cluster":
        return _local(settings)
    if kind == "local_gpus":
        return _one_a_gpu(settings)
    if not workers:
        raise InputError(f"runner.kind={kind} starts as many workers as runner.workers says; it is 0")
    made = _queued(kind, dict(settings.runner.cluster))
    made.scale(workers)
    return made


def local_options(settings: Settings) -> dict[str, Any]:
    """What a LocalCluster is made with."""
    return {
        "n_workers": worker_count(settings),
        # One task at a time in a worker process: numbers of threads and memory stay predictable.
        "threads_per_worker": 1,
        "processes": True,
        # Dask's own limit is a share of the machine for each core: it would kill a worker that is well.
        "memory_limit": 0,
        # Only this host may look, on whatever port is free.
        "dashboard_address": "127.0.0.1:0",
    } | settings.runner.cluster


def _local(settings: Settings) -> SpecCluster:
    from distributed import LocalCluster

    return LocalCluster(**local_options(settings))


def _one_a_gpu(settings: Settings) -> SpecCluster:
    """A worker process a GPU, which sees no other. (dask-cuda does this too, and more that is not needed; it
    holds Dask at a version older than the one that Prefect's runner is tested with.)"""
    from distributed import Nanny, Scheduler, SpecCluster

    gpus = gpu_names()
    if not gpus:
        raise InputError(
            "runner.kind=local_gpus needs an NVIDIA GPU, and none is seen; set runner.kind=threads"
        )
    common = {"nthreads": 1, "memory_limit": 0, "resources": {"GPU": 1}} | settings.runner.cluster
    workers = {
        gpu: {"cls": Nanny, "options": {**common, "env": {"CUDA_VISIBLE_DEVICES": gpu}}}
        for gpu in gpus[: settings.runner.workers or None]
    }
    scheduler = {"cls": Scheduler, "options": {"dashboard_address": "127.0.0.1:0", "host": "127.0.0.1"}}
    return SpecCluster(workers, scheduler)


def _queued(kind: str, options: dict[str, Any]) -> Any:
    """A cluster whose workers a batch system starts; the options are those of its own class."""
    try:
        if kind == "slurm":
            from dask_jobqueue import SLURMCluster

            # one task a process, as everywhere
            return SLURMCluster(**({"cores": 1, "processes": 1, "memory": "16GB"} | options))
        from dask_kubernetes.operator import KubeCluster

        return KubeCluster(**options)
    except ImportError as error:
        raise InputError(
            f"runner.kind={kind} needs {EXTRAS[kind]}: install the extra, `uv sync --extra {kind}` ({error})"
        ) from error
