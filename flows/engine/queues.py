"""Dask workers that Slurm or Kubernetes starts for the duration of one run.

With ``slurm`` the scheduler is in this process, and each worker is a job; both present certificates of this
run, whose key the jobs read from a folder that only the user can enter. With ``kubernetes`` scheduler and
workers are pods, whose number Dask's operator maintains. The operator and its client know connections without
TLS only, so a network policy has to keep others away (``deployments/kubernetes``).
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.engine.certificates import AUTHORITY, CERTIFICATE, KEY, make_certificates
from flows.engine.environment import worker_variables
from flows.engine.scratch import dask_scratch, private_folder
from portrait_core.errors import InputError
from portrait_core.runtime.caches import cache_folder
from portrait_core.settings import Settings

if TYPE_CHECKING:
    from dask_jobqueue import SLURMCluster
    from distributed.deploy import Cluster
    from distributed.security import Security

IMAGE = "portrait-reenactment:cuda"
"""Image that ``deployments/images`` builds; ``runner.cluster.image`` gives the registry's name for it."""
KEEP_S = 30.0
"""Seconds between two checks for lost jobs."""
IDLE_S = 600
"""Seconds of idleness after which a Dask cluster in Kubernetes ends, because its run was killed."""
# One task per process at a time, so that a dead worker identifies its task. No memory limit by Dask: the
# batch system has one.
WORKER = ("--nthreads", "1", "--memory-limit", "0")
CLOSED = ("--worker-class", "flows.engine.dask_nodes.ClosedWorker")
"""Options of ``dask worker`` for a worker without an HTTP server."""


@contextmanager
def slurm_or_kubernetes(settings: Settings) -> Iterator[Cluster]:
    """Open the cluster of ``runner.kind`` and request ``runner.workers`` workers; it ends with the block.

    Raises:
        InputError: a package is missing, ``runner.workers`` is 0, or Slurm rejects the job.
    """
    kind, workers = settings.runner.kind, settings.runner.workers
    if not workers:
        raise InputError(
            f"runner.kind={kind} starts as many workers as runner.workers says; it is 0: set runner.workers=8"
        )
    opened = _slurm if kind == "slurm" else _kubernetes
    try:
        with opened(settings) as cluster:
            yield cluster
    except ImportError as error:
        if not (error.name or "").startswith("dask_"):
            raise
        raise InputError(
            f"runner.kind={kind} needs a package: install the extra, `uv sync --extra {kind}` ({error})"
        ) from error


def slurm_options(settings: Settings) -> dict[str, Any]:
    """Return the arguments of SLURMCluster: ``runner.cluster`` and this program's own, merged.

    Raises:
        InputError: a time limit that YAML reads as a number.
    """
    options: dict[str, Any] = dict(settings.runner.cluster)
    for name in ("security", "shared_temp_directory"):  # of certificates, which every run has
        options.pop(name, None)
    # YAML reads 12:00:00 as 43200, which Slurm interprets as minutes.
    if not isinstance(options.get("walltime", ""), str):
        raise InputError(
            f"runner.cluster.walltime={options['walltime']} is a number; quote it, in a shell "
            "--set 'runner.cluster.walltime=\"12:00:00\"'"
        )
    threads = settings.runner.threads_per_worker
    parent = options.pop("local_directory", "${TMPDIR:-/tmp}")
    # Sites differ in whether a job inherits the environment of the process that submits it.
    exports = [f'export {name}="${{{name}-{value}}}"' for name, value in worker_variables(threads).items()]
    directives = list(options.get("job_extra_directives", ()))
    if settings.device != "cpu" and not any("gpu" in line or "gres" in line for line in directives):
        directives.insert(0, "--gpus=1")
    return {
        "cores": 1,
        "processes": 1,
        "job_cpu": options.get("cores", threads),
        "memory": "16GB",
        "walltime": "24:00:00",
        "job_name": "portrait",
        **options,
        "job_extra_directives": directives,
        "job_script_prologue": [*exports, *options.get("job_script_prologue", ()), *_scratch_of_job(parent)],
        # Later arguments win: dask-jobqueue sets one thread per core, and a memory limit.
        "worker_extra_args": [*WORKER, *CLOSED, *options.get("worker_extra_args", ())],
        "scheduler_options": {"dashboard_address": None} | options.get("scheduler_options", {}),
    }


def _scratch_of_job(parent: str) -> list[str]:
    """Return lines of a job's script that make a private folder for Dask (:func:`dask_scratch` says why)."""
    return [
        f'mkdir -p "{parent}"',
        f'DASK_TEMPORARY_DIRECTORY=$(mktemp -d "{parent}/portrait-dask-XXXXXXXX") || exit 1',
        "export DASK_TEMPORARY_DIRECTORY",
        "trap 'rm -rf \"$DASK_TEMPORARY_DIRECTORY\"' EXIT",
    ]


@contextmanager
def _slurm(settings: Settings) -> Iterator[SLURMCluster]:
    from dask_jobqueue import SLURMCluster

    from flows.engine.dask_nodes import ClosedScheduler

    refused: list[str] = []
    classes: dict[str, Any] = {"job_cls": _job_class(refused), "scheduler_cls": ClosedScheduler}
    options = slurm_options(settings) | classes
    shared = str(settings.runner.cluster.get("shared_temp_directory", cache_folder("dask")))
    ended = threading.Event()
    with (
        dask_scratch(),
        private_folder(os.path.expanduser(os.path.expandvars(shared))) as keys,
        SLURMCluster(**options, protocol="tls", security=_certificates(Path(keys) / "tls")) as cluster,
    ):
        cluster.scale(settings.runner.workers)
        while len(cluster.workers) < len(cluster.worker_spec):
            time.sleep(0.1)  # sbatch is running
        if refused:
            raise InputError(f"Slurm rejects the job: {refused[0]}; set options of the job in runner.cluster")
        keeper = threading.Thread(
            target=_keep, args=(cluster, settings.runner.workers, ended), name="slurm-jobs", daemon=True
        )
        keeper.start()
        try:
            yield cluster
        finally:
            ended.set()
            keeper.join()


def _certificates(folder: Path) -> Security:
    """Make the certificates of a run, in files that its jobs read."""
    from distributed.security import Security

    make_certificates(folder, days=365)
    named = {
        f"tls_{role}_{kind}": str(folder / file)
        for role in ("scheduler", "worker", "client")
        for kind, file in (("cert", CERTIFICATE), ("key", KEY))
    }
    return Security(require_encryption=True, tls_ca_file=str(folder / AUTHORITY), **named)


def _job_class(refused: list[str]) -> type:
    """Return a class of Slurm jobs that append the reason to ``refused`` when they cannot be submitted."""
    from dask_jobqueue.slurm import SLURMJob
    from distributed.deploy.spec import ProcessInterface

    class WorkerJob(SLURMJob):
        async def start(self) -> None:
            try:
                await super().start()  # type: ignore[no-untyped-call]  # dask-jobqueue has no annotations
            except (RuntimeError, OSError) as error:
                refused.append(str(error).partition("stderr:\n")[2].strip() or str(error))
                await ProcessInterface.start(self)  # the keeper treats it as a lost job

    return WorkerJob


def _keep(cluster: SLURMCluster, workers: int, ended: threading.Event) -> None:
    """Submit lost jobs again.

    Dask drops a job whose worker is gone for ``lost-worker-timeout``, and starts another only when the number
    of workers is set again.
    """

    def drop_unsubmitted() -> None:
        for name, job in list(cluster.workers.items()):
            if job.job_id is None:
                del cluster.workers[name]

    while not ended.wait(KEEP_S):
        cluster.loop.add_callback(drop_unsubmitted)  # type: ignore[union-attr]
        cluster.scale(workers)


def kubernetes_options(settings: Settings) -> dict[str, Any]:
    """Return the arguments of KubeCluster.

    These are ``runner.cluster``, of which ``image``, ``env``, ``resources``, ``worker_command``, ``volumes``
    and ``volume_mounts`` (of the workers) go into the specification; or its own ``custom_cluster_spec``,
    unchanged.
    """
    options: dict[str, Any] = dict(settings.runner.cluster)
    if "custom_cluster_spec" in options:
        return options
    from dask_kubernetes.operator import make_cluster_spec

    variables = [
        {"name": n, "value": v} for n, v in worker_variables(settings.runner.threads_per_worker).items()
    ]
    env = options.pop("env", [])
    if isinstance(env, dict):
        env = [{"name": name, "value": str(value)} for name, value in env.items()]
    gpu = {} if settings.device == "cpu" else {"limits": {"nvidia.com/gpu": "1"}}
    names = ("scheduler_service_type", "idle_timeout")
    spec = make_cluster_spec(
        name=options.pop("name", f"portrait-{uuid.uuid4().hex[:8]}"),
        image=options.pop("image", IMAGE),
        n_workers=settings.runner.workers,
        resources=options.pop("resources", gpu),
        env=[*variables, *env],
        worker_command=options.pop("worker_command", ["dask", "worker", *WORKER]),
        **({"idle_timeout": IDLE_S} | {name: options.pop(name) for name in names if name in options}),
    )
    workers = spec["spec"]["worker"]["spec"]
    workers["volumes"] = options.pop("volumes", [])
    workers["containers"][0]["volumeMounts"] = options.pop("volume_mounts", [])
    scheduler = spec["spec"]["scheduler"]["spec"]["containers"][0]
    # Distributed no longer installs `dask-scheduler`; a scheduler needs no GPU.
    scheduler["args"] = ["dask", "scheduler", "--host", "0.0.0.0"]
    scheduler["resources"] = {}
    for role in ("worker", "scheduler"):
        _confine(spec["spec"][role]["spec"])
    return {"quiet": True, **options, "custom_cluster_spec": spec}


def _confine(pod: dict[str, Any]) -> None:
    """Give a pod no rights, as a namespace demands whose Pod Security is "restricted"."""
    pod["automountServiceAccountToken"] = False
    pod["securityContext"] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    for container in pod["containers"]:
        container["securityContext"] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


@contextmanager
def _kubernetes(settings: Settings) -> Iterator[Cluster]:
    import dask
    from dask_kubernetes.operator import KubeCluster

    # A container's environment may require TLS, for other clusters.
    plain = dask.config.set({"distributed.comm.require-encryption": False})
    with plain, KubeCluster(**kubernetes_options(settings)) as cluster:
        cluster.scale(settings.runner.workers)
        yield cluster
