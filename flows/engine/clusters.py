"""Dask clusters: workers on this host, one per GPU, behind a given scheduler, on Slurm or on Kubernetes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flows.engine.environment import DASK_CONFIG
from flows.engine.queues import slurm_or_kubernetes
from portrait_core.errors import InputError
from portrait_core.settings import Settings
from portrait_core.settings.threads import gpu_names, worker_count

if TYPE_CHECKING:
    from distributed import Client, SpecCluster
    from distributed.deploy import Cluster


@contextmanager
def dask_client(settings: Settings) -> Iterator[Client]:
    """Open a client of the cluster that the settings name; a cluster started here ends with the block.

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


@contextmanager
def open_cluster(settings: Settings) -> Iterator[Cluster]:
    """Start the cluster that the settings name; it ends with the block."""
    kind = settings.runner.kind
    if kind in ("slurm", "kubernetes"):
        with slurm_or_kubernetes(settings) as cluster:
            yield cluster
        return
    with _one_per_gpu(settings) if kind == "local_gpus" else _local(settings) as local:
        yield local


def local_options(settings: Settings) -> dict[str, Any]:
    """Return the arguments of LocalCluster."""
    return {
        "n_workers": worker_count(settings),
        # One task at a time in a worker process: numbers of threads and memory stay predictable.
        "threads_per_worker": 1,
        "processes": True,
        # Dask's own limit is a fraction of the memory per core, which would kill healthy workers.
        "memory_limit": 0,
        # The dashboard is open to this host only, on any free port.
        "dashboard_address": "127.0.0.1:0",
    } | settings.runner.cluster


def _local(settings: Settings) -> SpecCluster:
    from distributed import LocalCluster

    return LocalCluster(**local_options(settings))


def _one_per_gpu(settings: Settings) -> SpecCluster:
    """Start one worker process per GPU, each of which sees no other GPU.

    dask-cuda's LocalCUDACluster does this too, and more that is not needed here. Its newest release, 26.10,
    holds Dask below 2026.7.2, and this program needs 2026.8.
    """
    from distributed import Nanny, Scheduler, SpecCluster

    gpus = gpu_names()
    if not gpus:
        raise InputError(
            "runner.kind=local_gpus needs an NVIDIA GPU, and none is visible; set runner.kind=threads"
        )
    common = {"nthreads": 1, "memory_limit": 0, "resources": {"GPU": 1}} | settings.runner.cluster
    workers = {
        gpu: {"cls": Nanny, "options": {**common, "env": {"CUDA_VISIBLE_DEVICES": gpu}}}
        for gpu in gpus[: settings.runner.workers or None]
    }
    scheduler = {"cls": Scheduler, "options": {"dashboard_address": "127.0.0.1:0", "host": "127.0.0.1"}}
    return SpecCluster(workers, scheduler)
