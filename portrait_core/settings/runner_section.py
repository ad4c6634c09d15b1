"""Settings of the runner: where tasks run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from portrait_core.settings.base import Count, Section, Steps
from portrait_core.settings.cluster_options import refuse_unknown_options


class RunnerSettings(Section):
    """Where tasks run and how large they are. None of it changes a result."""

    kind: Literal["threads", "local_cluster", "local_gpus", "address", "slurm", "kubernetes"] = "threads"
    """``threads``: threads of this process; ``local_cluster``: Dask workers on this machine; ``local_gpus``:
    one Dask worker per GPU of this machine; ``address``: a Dask cluster that is running; ``slurm``,
    ``kubernetes``: Dask workers that these start."""
    address: str | None = None
    """Address of the Dask scheduler, for example ``tls://host:8786``; for ``kind=address``. The certificate
    comes from Dask's own configuration: ``deployments/certificates.py`` makes it, and ``deployments/tls.sh``
    names it to all processes of a shell."""
    allow_plain: bool = False
    """Let ``kind=address`` use a scheduler on another host without TLS, and ``kind=kubernetes`` Dask's
    operator, which knows no TLS: whoever reaches their ports can run code in the workers."""
    cluster: dict[str, JsonValue] = Field(default_factory=dict)
    """Options of the cluster's own class, for example ``{queue: gpu, walltime: "24:00:00"}`` of
    dask-jobqueue's SLURMCluster; :mod:`portrait_core.settings.cluster_options` lists those that are
    accepted."""
    storage_options: dict[str, JsonValue] = Field(default_factory=dict)
    """Options of the store's file system, such as ``endpoint_url`` or credentials; no store keeps them. The
    environment and the machine's own configuration are read without this setting."""
    private_hosts: tuple[str, ...] = ()
    """Hosts (``HOST`` or ``HOST:PORT``) of this machine or its network to which http URLs of portraits,
    videos and tables may lead; ``*`` allows all. Others are refused, because a manifest may be a stranger's.
    Hosts of URLs that a command itself is given need not be named."""
    access: Literal["owner", "group", "umask"] = "owner"
    """Who may read the files and folders that a run makes, in stores and outputs on disks: ``owner`` alone
    (0600 and 0700), also their ``group`` (0660 and 0770), or whoever the machine's own ``umask`` lets."""
    pack: bool = True
    """Put each array of a finished clip into one object: about 60 objects instead of 28 per frame."""
    clips: Steps = 0
    """Clips of a dataset at work at the same time; 0 means two per worker, because the inversion is a chain
    and one clip alone cannot keep a GPU busy."""
    workers: Steps = 0
    """Tasks at the same time; 0 means one per CPU core that this process may use (one per GPU where there are
    GPUs)."""
    threads_per_worker: Count = 1
    """CPU threads of each task where tasks run in parallel; a stage of one task uses the threads of all
    workers."""
    compile: bool = False
    """Compile the generator on first use (about a minute in each process); its numbers stay equal up to
    rounding. Worth trying on a GPU with long clips."""
    cuda_graphs: bool = False
    """Capture optimisation steps on a GPU as CUDA graphs, which start all kernels of a step by one call. The
    numbers are those of plain steps; its speed has not been measured on a GPU yet."""
    checkpoint_s: Annotated[float, Field(ge=0.0)] = 300.0
    """Seconds between two checkpoints of a long optimisation; a thread writes them."""
    target_memory_mib: Count | None = None
    """Memory in MiB in which tuning may keep its frames and their features on its device; empty is a quarter
    of a GPU's memory, or 1 GiB on a CPU. Frames that do not fit are loaded again when they are drawn."""
    frames_per_task: Count = 24
    """Frames per task; a task should last about ten seconds or more."""
    prefect: Literal["auto", "always", "never"] = "auto"
    """``auto``: run under Prefect when a server answers at PREFECT_API_URL; ``always``: start Prefect's
    temporary server if there is none (20 s of processor time); ``never``: run without Prefect."""
    retries: Steps = 5
    """Retries of a task after a transient failure (input or output, a broken connection)."""
    retry_delay_s: Annotated[float, Field(ge=0.0)] = 2.0
    """Seconds before the first retry; doubled for each further one."""
    stall_s: Annotated[float, Field(ge=0.0)] = 3600.0
    """Seconds without a committed frame or step after which a task counts as hung: its worker is ended and
    the work done again; with threads the run ends. 0 waits without limit."""
    grace_s: Annotated[float, Field(ge=0.0)] = 20.0
    """Seconds after Ctrl-C or SIGTERM in which the current frames and steps may reach a point that can be
    kept."""
    lease_s: Annotated[float, Field(gt=0.0)] = 30.0
    """Seconds of silence after which a run on another host counts as dead and its work is taken over."""
    input_cache_gb: Annotated[float, Field(ge=0.0)] = 20.0
    """Gigabytes (10^9 bytes) of copies of remote portraits and videos that are kept on this machine; copies
    used within the last hour stay even beyond the limit."""

    @property
    def input_cache_bytes(self) -> int:
        """``input_cache_gb`` in bytes."""
        return int(self.input_cache_gb * 10**9)

    @model_validator(mode="after")
    def _check_address(self) -> RunnerSettings:
        if (self.kind == "address") != (self.address is not None):
            raise ValueError(
                f"kind={self.kind!r} and address={self.address!r} do not go together; "
                "set runner.kind=address and runner.address=tls://HOST:8786, or neither"
            )
        return self

    @model_validator(mode="after")
    def _check_cluster_options(self) -> RunnerSettings:
        refuse_unknown_options(self.kind, self.cluster)
        return self
