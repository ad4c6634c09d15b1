"""Dask workers that Slurm or Kubernetes starts, for as long as one run lasts.

The scheduler of ``slurm`` is in this process; a worker is a job. That of ``kubernetes`` is a pod, beside
those of the workers, which Dask's operator keeps at their number.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flows.engine.environment import worker_variables
from portrait_core.errors import InputError
from portrait_core.settings import Settings

if TYPE_CHECKING:
    from dask_jobqueue import SLURMCluster
    from distributed.deploy import Cluster

IMAGE = "portrait-reenactment:cuda"
"""What ``deployments/images`` builds; ``runner.cluster.image`` names it as the registry does."""
KEEP_S = 30.0
"""How often jobs that were lost are noticed."""
IDLE_S = 600
"""A Dask cluster in Kubernetes that has had nothing to do for so long goes: its run was killed."""
# One task at a time in a process: when one dies, its task is the suspect. No limit of Dask's own: the batch
# system has one.
WORKER = ("--nthreads", "1", "--memory-limit", "0")


@contextmanager
def slurm_or_kubernetes(settings: Settings) -> Iterator[Cluster]:
    """The cluster of ``runner.kind``, with ``runner.workers`` workers asked for; it ends with the block.

    Raises:
        InputError: a package is missing, ``runner.workers`` is 0, or Slurm takes no such job.
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
    """What a SLURMCluster is made with: ``runner.cluster``, and ours where it is silent or both can stand.

    Raises:
        InputError: a time limit that YAML reads as a number.
    """
    given: dict[str, Any] = dict(settings.runner.cluster)
    # YAML reads 12:00:00 as 43200, which Slurm takes for minutes.
    if not isinstance(given.get("walltime", ""), str):
        raise InputError(
            f"runner.cluster.walltime={given['walltime']} is a number; quote it, in a shell "
            "--set 'runner.cluster.walltime=\"12:00:00\"'"
        )
    threads = settings.runner.threads_per_worker
    # Sites differ in whether a job inherits the environment of who submits it.
    exports = [f'export {name}="${{{name}-{value}}}"' for name, value in worker_variables(threads).items()]
    directives = list(given.get("job_extra_directives", ()))
    if settings.device != "cpu" and not any("gpu" in line or "gres" in line for line in directives):
        directives.insert(0, "--gpus=1")
    return {
        "cores": 1,
        "processes": 1,
        "job_cpu": given.get("cores", threads),
        "memory": "16GB",
        "walltime": "24:00:00",
        "job_name": "portrait",
        **given,
        "job_extra_directives": directives,
        "job_script_prologue": [*exports, *given.get("job_script_prologue", ())],
        # Later ones win: dask-jobqueue gives a thread a core, and its share of the memory as a limit.
        "worker_extra_args": [*WORKER, *given.get("worker_extra_args", ())],
        # Only this host may look, on whatever port is free.
        "scheduler_options": {"dashboard_address": "127.0.0.1:0"} | given.get("scheduler_options", {}),
    }


@contextmanager
def _slurm(settings: Settings) -> Iterator[SLURMCluster]:
    from dask_jobqueue import SLURMCluster

    refused: list[str] = []
    job_class: Any = _job_class(refused)
    cluster = SLURMCluster(job_cls=job_class, **slurm_options(settings))
    ended = threading.Event()
    with cluster:
        cluster.scale(settings.runner.workers)
        while len(cluster.workers) < len(cluster.worker_spec):
            time.sleep(0.1)  # sbatch is at work
        if refused:
            raise InputError(f"Slurm takes no such job: {refused[0]}; options of it go into runner.cluster")
        keeper = threading.Thread(
            target=_keep, args=(cluster, settings.runner.workers, ended), name="slurm-jobs", daemon=True
        )
        keeper.start()
        try:
            yield cluster
        finally:
            ended.set()
            keeper.join()


def _job_class(refused: list[str]) -> type:
    """Slurm's job; one that cannot be submitted says why in ``refused`` instead of in a log."""
    from dask_jobqueue.slurm import SLURMJob
    from distributed.deploy.spec import ProcessInterface

    class WorkerJob(SLURMJob):
        async def start(self) -> None:
            try:
                await super().start()  # type: ignore[no-untyped-call]  # dask-jobqueue has no annotations
            except (RuntimeError, OSError) as error:
                refused.append(str(error).partition("stderr:\n")[2].strip() or str(error))
                await ProcessInterface.start(self)  # the keeper takes it for a job that was lost

    return WorkerJob


def _keep(cluster: SLURMCluster, workers: int, ended: threading.Event) -> None:
    """Submit again what is lost: Dask forgets a job whose worker is gone for ``lost-worker-timeout``, and
    starts another only when it is told the number of workers again.
    """

    def forget_unsubmitted() -> None:
        for name, job in list(cluster.workers.items()):
            if job.job_id is None:
                del cluster.workers[name]

    while not ended.wait(KEEP_S):
        cluster.loop.add_callback(forget_unsubmitted)  # type: ignore[union-attr]
        cluster.scale(workers)


def kubernetes_options(settings: Settings) -> dict[str, Any]:
    """What a KubeCluster is made with: ``runner.cluster``, whose ``image``, ``env``, ``resources``,
    ``worker_command``, ``volumes`` and ``volume_mounts`` (of the workers) go into the specification; or its
    own ``custom_cluster_spec``, as it is.
    """
    given: dict[str, Any] = dict(settings.runner.cluster)
    if "custom_cluster_spec" in given:
        return given
    from dask_kubernetes.operator import make_cluster_spec

    variables = [
        {"name": n, "value": v} for n, v in worker_variables(settings.runner.threads_per_worker).items()
    ]
    env = given.pop("env", [])
    if isinstance(env, dict):
        env = [{"name": name, "value": str(value)} for name, value in env.items()]
    gpu = {} if settings.device == "cpu" else {"limits": {"nvidia.com/gpu": "1"}}
    names = ("scheduler_service_type", "idle_timeout")
    spec = make_cluster_spec(
        name=given.pop("name", f"portrait-{uuid.uuid4().hex[:8]}"),
        image=given.pop("image", IMAGE),
        n_workers=settings.runner.workers,
        resources=given.pop("resources", gpu),
        env=[*variables, *env],
        worker_command=given.pop("worker_command", ["dask", "worker", *WORKER]),
        **({"idle_timeout": IDLE_S} | {name: given.pop(name) for name in names if name in given}),
    )
    workers = spec["spec"]["worker"]["spec"]
    workers["volumes"] = given.pop("volumes", [])
    workers["containers"][0]["volumeMounts"] = given.pop("volume_mounts", [])
    scheduler = spec["spec"]["scheduler"]["spec"]["containers"][0]
    # Distributed no longer installs `dask-scheduler`; and a scheduler computes nothing.
    scheduler["args"] = ["dask", "scheduler", "--host", "0.0.0.0"]
    scheduler["resources"] = {}
    return {"quiet": True, **given, "custom_cluster_spec": spec}


@contextmanager
def _kubernetes(settings: Settings) -> Iterator[Cluster]:
    from dask_kubernetes.operator import KubeCluster

    with KubeCluster(**kubernetes_options(settings)) as cluster:
        cluster.scale(settings.runner.workers)
        yield cluster
