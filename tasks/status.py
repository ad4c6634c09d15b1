"""What a store holds of every reenactment, without its inputs, Prefect or Dask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError

from portrait_core.errors import InputError
from portrait_core.store import Store
from portrait_core.store.leases import Holder, holder
from tasks.context import done, finished, unit_of
from tasks.job import PER_FRAME, STAGES, Job, Kind, Stage

JOB = "job"
"""Metadata of a reenactment: the job that was run last."""

_ONE_OF_KIND: dict[Kind, Stage] = {"portrait": "portrait", "video": "fit", "reenactment": "encode"}
_SILENT = 3
"""Leases that a run may be silent for before it is no longer shown as running."""

State = Literal["done", "running", "failed", "unfinished"]


@dataclass(frozen=True)
class StageState:
    """Frames of a stage.

    Attributes:
        stage: its name.
        total: frames, or 1 for a stage of one part.
        done: finished.
        failed: set aside, or failed in the last try.
        running: whether a run is at work on it now.
    """

    stage: Stage
    total: int
    done: int
    failed: int
    running: bool


@dataclass(frozen=True)
class ClipState:
    """A reenactment in the store.

    Attributes:
        name: of its unit.
        job: what was run last; None when the store does not say.
        stages: their states.
        holder: the run that works on it.
        held: frames that show a neighbour.
        seconds: spent on it by all runs.
        bytes: of its arrays and files when they were last counted; portrait and video are apart.
    """

    name: str
    job: Job | None
    stages: tuple[StageState, ...]
    holder: Holder | None
    held: int
    seconds: float
    bytes: int | None

    @property
    def state(self) -> State:
        """In one word."""
        if self.stages and all(s.done == s.total for s in self.stages if s.stage in ("encode", "measure")):
            return "done"
        if self.holder is not None:
            return "running"
        return "failed" if any(s.failed for s in self.stages) else "unfinished"


def keep_job(job: Job) -> None:
    """Write into the store what is run, so that commands on the store alone know."""
    unit_of(job, "encode").write_meta(JOB, job.model_dump(mode="json"))


def read_job(store: Store, name: str) -> Job | None:
    """The job that a reenactment was last run as, at this store's present place; None when none is kept."""
    said = store.unit("reenactment", name).read_meta(JOB)
    if said is None:
        return None
    try:
        return Job.model_validate({**said, "store": store.url})
    except ValidationError:
        return None  # of a version that named things otherwise


def jobs(store: Store) -> list[Job]:
    """Every job whose reenactment the store holds.

    Raises:
        InputError: there is none.
    """
    found = [job for name in store.units("reenactment") if (job := read_job(store, name)) is not None]
    if not found:
        raise InputError(f"{store.url} holds no reenactment; give the folder or URL that --store named")
    return found


def clip_state(job: Job) -> ClipState:
    """How far a job is."""
    from tasks.history import cost, stored

    unit = unit_of(job, "encode")
    is_finished = finished(job)
    at_work = {kind: _at_work(job, stage) for kind, stage in _ONE_OF_KIND.items()}
    held = int((~done(job, "render")).sum())
    states = []
    for stage in STAGES:
        who = at_work[job.unit_of(stage)[0]]
        total = job.total(stage)
        count = total if is_finished and stage not in PER_FRAME else int(done(job, stage).sum())
        states.append(
            StageState(
                stage,
                total,
                count,
                _failed(job, stage),
                who is not None and who.stage == stage,
            )
        )
    seconds = sum(cost(job, stage).seconds for stage in STAGES)
    alive = next((who for who in at_work.values() if who is not None), None)
    return ClipState(unit.name, job, tuple(states), alive, held if is_finished else 0, seconds, stored(job))


def _at_work(job: Job, stage: Stage) -> Holder | None:
    """The run that holds a stage's unit, unless it is dead or has said nothing for long."""
    found = holder(unit_of(job, stage))
    if found is None or found.is_dead_here() or found.age_s > _SILENT * job.settings.runner.lease_s:
        return None
    return found


def _failed(job: Job, stage: Stage) -> int:
    """Frames with a failure under the job's key and no result since."""
    left = ~done(job, stage)
    if not left.any():
        return 0
    unit = unit_of(job, stage)
    if not unit.has_failures():
        return 0
    rows = unit.failures()
    rows = rows[(rows["stage"] == stage) & (rows["key"] == job.stage_keys[stage])]
    if rows["frame"].isna().any():  # a task failed as a whole
        return int(left.sum())
    return int(left[[int(frame) for frame in rows["frame"] if frame < len(left)]].sum())
