"""Dask clusters: workers on this host, one per GPU, behind a given scheduler, on Slurm or on Kubernetes.

A scheduler and its workers run whatever code a client sends them, so every cluster that is started here asks
both sides of each connection for a certificate. On this host the certificates are made for the run and kept
in memory.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flows.engine.environment import DASK_CONFIG
from flows.engine.queues import slurm_or_kubernetes
from flows.engine.scratch import dask_scratch
from portrait_core.errors import InputError
from portrait_core.settings import Settings
from portrait_core.settings.cluster_options import HOW_TO_TLS, refuse_plain
from portrait_core.settings.threads import gpu_names, worker_count

if TYPE_CHECKING:
    from distributed import Client, SpecCluster
    from distributed.deploy import Cluster


@contextmanager
def dask_client(settings: Settings) -> Iterator[Client]:
    """Open a client of the cluster that the settings name; a cluster started here ends with the block.

    Raises:
        InputError: the cluster needs a package that is not installed, settings that are missing, or
            connections without TLS that the settings do not allow.
    """
    import dask
    from distributed import Client

    dask.config.set(DASK_CONFIG)
    try:
        refuse_plain(settings.runner.kind, settings.runner.address, settings.runner.allow_plain)
    except ValueError as error:
        raise InputError(str(error)) from None
    if settings.runner.kind == "address":
        with _given(str(settings.runner.address)) as client:
            yield client
        return
    with open_cluster(settings) as cluster, Client(cluster, set_as_default=False) as own:
        yield own


def _given(address: str) -> Client:
    """Connect to a scheduler that is running, with the certificates of Dask's own configuration.

    Raises:
        InputError: there are no certificates, or the scheduler has others.
    """
    import dask
    from distributed import Client
    from distributed.comm.core import FatalCommClosedError

    roles = [dask.config.get(f"distributed.comm.tls.{name}", None) for name in ("ca-file", "client.cert")]
    if address.startswith("tls://") and None in roles:
        raise InputError(f"runner.address={address} needs certificates, and Dask knows none: {HOW_TO_TLS}")
    if not address.startswith("tls://") and dask.config.get("distributed.comm.require-encryption"):
        raise InputError(
            f"runner.address={address} is without TLS, which Dask's configuration requires; give tls://..."
        )
    try:
        return Client(address, set_as_default=False)
    except FatalCommClosedError as error:
        raise InputError(
            f"the scheduler at {address} and this process do not accept each other's certificates; both need "
            f"those of one folder: {HOW_TO_TLS}"
        ) from error


@contextmanager
def open_cluster(settings: Settings) -> Iterator[Cluster]:
    """Start the cluster that the settings name; it ends with the block."""
    kind, folder = settings.runner.kind, settings.runner.cluster.get("local_directory")
    if kind in ("slurm", "kubernetes"):
        with slurm_or_kubernetes(settings) as cluster:
            yield cluster
        return
    with dask_scratch(str(folder) if folder else None), _local(settings) as local:
        yield local


def _local(settings: Settings) -> SpecCluster:
    """Start a scheduler and workers on this host, whose certificates are in the memory of these processes."""
    from distributed import Nanny, SpecCluster
    from distributed.security import Security

    from flows.engine.dask_nodes import ClosedScheduler, ClosedWorker

    given: dict[str, Any] = {
        n: v for n, v in settings.runner.cluster.items() if n not in ("local_directory", "security")
    }
    name, processes = given.pop("name", None), given.pop("processes", True)
    scheduler = {
        "port": given.pop("scheduler_port", 0),
        "dashboard_address": given.pop("dashboard_address", None),
    }
    # Open to this host only, unless the operator names another network.
    common: dict[str, Any] = {name: given.pop(name) for name in ("host", "interface") if name in given}
    common = common or {"host": "127.0.0.1"}
    security = Security.temporary()
    common |= {"protocol": "tls", "security": security}
    # One task at a time in a worker process: numbers of threads and memory stay predictable. Dask's own
    # memory limit is a fraction of the memory per core, which would kill healthy workers.
    worker = {"nthreads": 1, "memory_limit": 0, "silence_logs": logging.WARNING, **given, **common}
    if processes:
        worker["worker_class"] = ClosedWorker
    cls: type = Nanny if processes else ClosedWorker
    workers: dict[Any, Any] = {
        one: {"cls": cls, "options": {**worker, **own}} for one, own in _of_each_worker(settings).items()
    }
    return SpecCluster(
        workers,
        {"cls": ClosedScheduler, "options": {**scheduler, **common}},
        security=security,
        silence_logs=worker["silence_logs"],
        name=name,
    )


def _of_each_worker(settings: Settings) -> dict[Any, dict[str, Any]]:
    """Return the options that each worker on this host has for itself, by its name.

    With ``runner.kind=local_gpus`` each sees one GPU and no other. dask-cuda's LocalCUDACluster does this
    too, and more that is not needed here. Its newest release, 26.10, holds Dask below 2026.7.2, and this
    program needs 2026.8.

    Raises:
        InputError: there is no GPU.
    """
    if settings.runner.kind != "local_gpus":
        return {i: {} for i in range(worker_count(settings))}
    gpus = gpu_names()
    if not gpus:
        raise InputError(
            "runner.kind=local_gpus needs an NVIDIA GPU, and none is visible; set runner.kind=threads"
        )
    resources = settings.runner.cluster.get("resources", {"GPU": 1})
    return {
        gpu: {"env": {"CUDA_VISIBLE_DEVICES": gpu}, "resources": resources}
        for gpu in gpus[: settings.runner.workers or None]
    }
