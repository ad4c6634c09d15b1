"""Settings of where tasks run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from portrait_core.settings.base import Count, Section, Steps
from portrait_core.settings.cluster_options import refuse_unknown_options


class RunnerSettings(Section):
    """Where tasks run and how large they are. None of it changes a result."""

    kind: Literal["threads", "local_cluster", "local_gpus", "address", "slurm", "kubernetes"] = "threads"
    """``threads``: this process; ``local_cluster``: Dask workers here; ``local_gpus``: one a GPU here;
    ``address``: a Dask cluster that is there; ``slurm``, ``kubernetes``: workers that those start."""
    address: str | None = None
    """The Dask scheduler, for example ``tcp://host:8786``; for ``kind=address``."""
    cluster: dict[str, JsonValue] = Field(default_factory=dict)
    """Options of the cluster's own class, for example ``{queue: gpu, walltime: "24:00:00"}`` of
    dask-jobqueue's SLURMCluster; which are taken stands in :mod:`portrait_core.settings.cluster_options`."""
    storage_options: dict[str, JsonValue] = Field(default_factory=dict)
    """Options of the store's file system, such as ``endpoint_url`` or credentials; kept in no store. The
    environment and the machine's own configuration are read without it."""
    pack: bool = True
    """Put the arrays of a finished clip into one object each: about 60 objects instead of 28 per frame."""
    clips: Steps = 0
    """Clips of a dataset at work at once; 0 means two a worker: the inversion is a chain, so that many clips
    keep a GPU busy where one cannot."""
    workers: Steps = 0
    """Tasks at once; 0 means one a CPU core that this process may use (one a GPU where there are GPUs)."""
    threads_per_worker: Count = 1
    """CPU threads of each task in a fan-out; a stage of one task uses all workers' threads."""
    compile: bool = False
    """Compile the generator on first use (a minute or so in each process); its numbers stay equal to
    rounding. Worth trying on a GPU with long clips."""
    cuda_graphs: bool = False
    """Capture optimisation steps on a GPU as CUDA graphs, which start all kernels of a step by one call. The
    numbers are those of plain steps; not measured on a card yet."""
    checkpoint_s: Annotated[float, Field(ge=0.0)] = 300.0
    """Seconds between two checkpoints of a long optimisation; a thread writes them."""
    target_memory_mib: Count | None = None
    """Memory that tuning may keep of its frames and their features on its device, in MiB; empty is a quarter
    of a card's memory, or 1 GiB on a CPU. Frames that do not fit are loaded again when they are drawn."""
    frames_per_task: Count = 24
    """Frames a task: a task should last about ten seconds or more."""
    prefect: Literal["auto", "always", "never"] = "auto"
    """``auto``: a Prefect flow run when a server answers at PREFECT_API_URL; ``always``: start Prefect's
    temporary server if there is none (20 s of processor time); ``never``: without Prefect."""
    retries: Steps = 5
    """Retries of a task whose failure is transient (input or output, a broken connection)."""
    retry_delay_s: Annotated[float, Field(ge=0.0)] = 2.0
    """Wait before the first retry; doubled each time."""
    stall_s: Annotated[float, Field(ge=0.0)] = 3600.0
    """A task that commits no frame and no step for so many seconds is taken for hung: its worker is ended and
    the work done again; in threads the run ends. 0 waits for ever."""
    grace_s: Annotated[float, Field(ge=0.0)] = 20.0
    """After Ctrl-C or SIGTERM: time for the frames and steps at work to reach a point that can be kept."""
    lease_s: Annotated[float, Field(gt=0.0)] = 30.0
    """A run on another host that has said nothing for so long is taken for dead, and its work taken over."""
    input_cache_gb: Annotated[float, Field(ge=0.0)] = 20.0
    """Copies of portraits and videos that lie elsewhere are kept on this machine up to so many gigabytes
    (10^9 bytes); those used within the last hour stay even above it."""

    @property
    def input_cache_bytes(self) -> int:
        """``input_cache_gb`` in bytes."""
        return int(self.input_cache_gb * 10**9)

    @model_validator(mode="after")
    def _address_with_kind(self) -> RunnerSettings:
        if (self.kind == "address") != (self.address is not None):
            raise ValueError(
                f"kind={self.kind!r} and address={self.address!r} do not go together; "
                "set runner.kind=address and runner.address=tcp://HOST:8786, or neither"
            )
        return self

    @model_validator(mode="after")
    def _options_that_the_cluster_takes(self) -> RunnerSettings:
        refuse_unknown_options(self.kind, self.cluster)
        return self
