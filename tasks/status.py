"""What a store holds of every reenactment, without its inputs, Prefect or Dask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from portrait_core.errors import InputError
from portrait_core.store import Kind, Store
from portrait_core.store.leases import Holder, holder
from tasks.context import done, finished, unit_of
from tasks.job import ENDS, PER_FRAME, Job, Stage

JOB = "job"
"""Metadata of what a job makes: the job that was run last."""

_HOMES: tuple[Kind, ...] = ("flow", "edited", "reenactment")
"""Kinds of units that hold what jobs make."""
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
        ends = ENDS[self.job.goal] if self.job is not None else ()
        if self.stages and all(s.done == s.total for s in self.stages if s.stage in ends):
            return "done"
        if self.holder is not None:
            return "running"
        return "failed" if any(s.failed for s in self.stages) else "unfinished"


def keep_job(job: Job) -> None:
    """Write into the store what is run, so that commands on the store alone know."""
    Store(job.store).unit(*job.home).write_meta(JOB, job.model_dump(mode="json"))


def read_job(store: Store, kind: Kind, name: str) -> Job | None:
    """The job that a unit was last made by, at this store's present place; None when none is kept."""
    said = store.unit(kind, name).read_meta(JOB)
    if said is None:
        return None
    here: dict[str, Any] = {"store": store.url}
    if said.get("edited"):
        here["edited"] = {**said["edited"], **here}
    try:
        return Job.model_validate({**said, **here})
    except ValidationError:
        return None  # of a version that named things otherwise


def jobs(store: Store) -> list[Job]:
    """Every job of which the store holds what it makes.

    Raises:
        InputError: there is none.
    """
    units = [(kind, name) for kind in _HOMES for name in store.units(kind)]
    found = [job for kind, name in units if (job := read_job(store, kind, name)) is not None]
    if not found and any(store.unit(*unit).read_meta(JOB) is not None for unit in units):
        raise InputError(
            f"{store.url} was written by another version of this program, whose settings had other names; "
            "give the command that made it again, and what that version made is made anew"
        )
    if not found:
        raise InputError(f"{store.url} holds no reenactment; give the folder or URL that --store named")
    return found


def clip_state(job: Job) -> ClipState:
    """How far a job is."""
    from tasks.history import cost, stored

    is_finished = finished(job)
    at_work = {job.unit_of(stage)[0]: _at_work(job, stage) for stage in job.stages}
    held = int((~done(job, "render")).sum()) if job.goal == "clip" else 0
    states = []
    for stage in job.stages:
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
    seconds = sum(cost(job, stage).seconds for stage in job.stages)
    alive = next((who for who in at_work.values() if who is not None), None)
    return ClipState(job.name, job, tuple(states), alive, held if is_finished else 0, seconds, stored(job))


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
