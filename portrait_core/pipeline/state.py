"""What a store holds of every job, without its inputs, Prefect or Dask.

Two records stand for a job: what was asked for (``jobs/<id>.json``) and what came of it
(``states/<id>.json``). The second is what ``status`` shows: reading one small object per clip, many at once,
answers for a hundred thousand of them. What is done is still what the units hold: a run asks them, and a
state that does not say that its job has ended is looked up there.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from portrait_core.errors import InputError
from portrait_core.pipeline.history import COST, cost_of
from portrait_core.pipeline.job import Job
from portrait_core.pipeline.ledger import Ledger, failures_of
from portrait_core.settings import Settings
from portrait_core.settings.trust import with_runner_of
from portrait_core.store import Holder, Store, holder

_SILENT = 3
"""Leases that a run may be silent for before it is no longer shown as running."""
_LOOKS = 16
"""Jobs that are looked up in their units at once."""

Condition = Literal["done", "running", "failed", "unfinished"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class StageState(_Record):
    """Parts of a stage."""

    stage: str
    """Its name."""
    total: int
    """Frames, or 1 for a stage of one part."""
    done: int = 0
    """Parts that are finished."""
    failed: int = 0
    """Parts that were set aside, or failed in the last try."""
    running: bool = False
    """Whether a run is at work on it now."""
    seconds: float = 0.0
    """Wall seconds that all runs spent on it."""
    task_seconds: float = 0.0
    """Seconds of its tasks, added up."""
    work: float = 0.0
    """What they did (:func:`portrait_core.pipeline.history.work`)."""
    bytes: int = 0
    """Bytes of what it keeps."""


class JobState(_Record):
    """What came of a job."""

    id: str
    """Name of its records."""
    label: str
    """What people call it."""
    goal: str
    """What it makes."""
    profile: str
    frames: int
    """Frames of the clip; samples of a flow."""
    state: Condition
    """In one word."""
    held: int = 0
    """Frames that show a neighbour."""
    stages: tuple[StageState, ...] = ()
    at_work: str = ""
    """The run that works on it."""
    message: str = ""
    """Why it stopped, where it did."""
    host: str = ""
    """Host that wrote this."""
    time_utc: str = ""
    """When, ISO 8601."""

    @property
    def seconds(self) -> float:
        """Wall seconds that all runs spent on it."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def bytes(self) -> int:
        """Bytes of what its stages keep, portrait and video among them."""
        return sum(stage.bytes for stage in self.stages)


def save_job(job: Job) -> None:
    """Write what is about to be run into the store, so that commands on the store alone know."""
    store = job.open_store()
    # The runner belongs to the command: it may hold credentials, and a stored one is never believed.
    store.write_record("jobs", job.id, stored_job(job))
    labels = {"portrait": job.portrait, "video": job.video}
    before = read_state(store, job.id)
    if before is None:
        for kind, name in {job.unit_of(stage) for stage in job.stages}:
            store.unit(kind, name).write_label(_shown(labels.get(kind)) or job.label)
    if before is None or before.state != "unfinished" or before.label != job.label:
        store.write_record("states", job.id, _begun(job).model_dump(mode="json"))


def _shown(place: str | None) -> str:
    return (place or "").partition("?")[0].rstrip("/").rpartition("/")[2]


def _begun(job: Job) -> JobState:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return JobState(
        id=job.id,
        label=job.label,
        goal=job.goal,
        profile=job.settings.profile,
        frames=job.frames,
        state="unfinished",
        host=socket.gethostname(),
        time_utc=now,
    )


def stored_job(job: Job) -> dict[str, Any]:
    """A job as it is kept: without its store's place and without anything that says where work is done."""
    said = job.model_dump(mode="json", exclude={"store"})
    for one in (said, said.get("edited")):
        if one:
            one.pop("store", None)
            one["settings"].pop("runner", None)
    return said


def read_job(store: Store, name: str, command: Settings) -> Job | None:
    """Read the job of a record at this store's present place; None when none is kept that can be read.

    Args:
        store: where.
        name: of the record.
        command: settings of the command that asks: what says where work is done is taken from them.
    """
    said = store.read_record("jobs", name)
    if not isinstance(said, dict):
        return None
    try:
        job = Job.model_validate(_here(said, store, command))
        _ = job.pipeline, job.id
    except (ValueError, KeyError, TypeError):
        return None
    return job


def _here(said: dict[str, Any], store: Store, command: Settings) -> dict[str, Any]:
    """A stored job's plain values at this store's place, with all that says where work is done taken from the
    command.
    """
    edited = said.get("edited")
    return {
        **said,
        "store": store.url,
        "settings": with_runner_of(said["settings"], command),
        "edited": _here(edited, store, command) if isinstance(edited, dict) else None,
    }


def read_state(store: Store, name: str) -> JobState | None:
    """Read the state of a record; None when none is kept that can be read."""
    return _state_of(store.read_record("states", name))


def _state_of(said: Any) -> JobState | None:
    try:
        return JobState.model_validate(said)
    except ValidationError:
        return None


def read_states(store: Store, beginning: str = "") -> list[JobState]:
    """Read the states of all jobs whose label begins so, by label.

    Raises:
        InputError: the store is of another version, or holds none.
    """
    store.check_format()
    found = [state for said in store.read_records("states").values() if (state := _state_of(said))]
    if not found:
        raise InputError(f"{store.url} holds no reenactment; give the folder or URL that --store named")
    chosen = [state for state in found if state.label.startswith(beginning)]
    if not chosen:
        raise InputError(
            f"no reenactment in {store.url} begins with {beginning!r}; `portrait status {store.url}` lists "
            "them"
        )
    return sorted(chosen, key=lambda state: (state.label, state.id))


def read_jobs(store: Store, beginning: str, command: Settings) -> list[Job]:
    """Read the jobs of :func:`read_states`; those that cannot be read are left out.

    Raises:
        InputError: as :func:`read_states`; or none of them can be read.
    """
    states = read_states(store, beginning)
    with ThreadPoolExecutor(_LOOKS, thread_name_prefix="jobs") as pool:
        jobs = list(pool.map(lambda state: read_job(store, state.id, command), states))
    found = [job for job in jobs if job is not None]
    if not found:
        raise InputError(
            f"the jobs in {store.url} cannot be read: another version wrote them; give their commands again"
        )
    return found


def every_job(store: Store, command: Settings) -> list[Job]:
    """Read all jobs that a store keeps, for what depends on knowing each of them.

    Raises:
        InputError: the store is of another version, or one of its jobs cannot be read.
    """
    store.check_format()
    names = store.record_names("jobs")
    with ThreadPoolExecutor(_LOOKS, thread_name_prefix="jobs") as pool:
        found = list(pool.map(lambda name: read_job(store, name, command), names))
    unread = [name for name, job in zip(names, found, strict=True) if job is None]
    if unread:
        raise InputError(
            f"{len(unread)} of the jobs in {store.url} cannot be read, jobs/{unread[0]}.json among them: "
            "what they need is not known, so nothing is taken for stale. Use the version that wrote them, "
            "give their commands again, or delete these records"
        )
    return [job for job in found if job is not None]


def current_states(store: Store, states: Sequence[JobState], command: Settings) -> list[JobState]:
    """Bring states up to date: those that do not say that their job has ended are looked up in its units."""

    def current(state: JobState) -> JobState:
        if state.state in ("done", "failed"):
            return state
        job = read_job(store, state.id, command)
        return state if job is None else job_state(job)

    with ThreadPoolExecutor(_LOOKS, thread_name_prefix="states") as pool:
        return list(pool.map(current, states))


def record_state(job: Job, message: str = "", failed: bool = False) -> JobState:
    """Look up what came of a job in its units, and keep that.

    Args:
        job: the job.
        message: why it stopped, where it did.
        failed: whether it stopped for a failure rather than because it was asked to.
    """
    state = job_state(job, at_work=False)
    if state.state != "done":
        state = state.model_copy(update={"message": message, "state": "failed" if failed else state.state})
    job.open_store().write_record("states", job.id, state.model_dump(mode="json"))
    return state


def job_state(job: Job, at_work: bool = True) -> JobState:
    """Look up how far a job is, in its units.

    Args:
        job: the job.
        at_work: whether to look who works on it.
    """
    ledger = Ledger(job)
    holders = _holders(job) if at_work else {}
    is_finished = ledger.finished()
    states = tuple(_stage_state(job, stage, ledger, holders, is_finished) for stage in job.stages)
    alive = next((who for who in holders.values() if who is not None), None)
    gapped = [job.stage(stage).shows_gaps_of for stage in job.pipeline.ends]
    held = sum(int((~ledger.done(name)).sum()) for name in dict.fromkeys(gapped) if name and is_finished)
    condition: Condition = "done" if is_finished else "unfinished"
    if not is_finished and alive is not None:
        condition = "running"
    elif not is_finished and any(stage.failed for stage in states):
        condition = "failed"
    found = {"state": condition, "held": held, "stages": states, "at_work": str(alive or "")}
    return _begun(job).model_copy(update=found)


def _stage_state(
    job: Job,
    stage: str,
    ledger: Ledger,
    holders: dict[tuple[str, str], Holder | None],
    is_finished: bool,
) -> StageState:
    who = holders.get(job.unit_of(stage))
    total, done = job.total(stage), ledger.done(stage)
    contents = ledger.contents[stage]
    spent = cost_of(ledger.output(stage).read_note(COST) if COST in contents.notes else None)
    whole = is_finished and not job.stage(stage).per_frame
    return StageState(
        stage=stage,
        total=total,
        done=total if whole else int(done.sum()),
        failed=0 if whole or done.all() else _failed(job, stage, ledger),
        running=who is not None and who.stage == stage,
        seconds=spent.seconds,
        task_seconds=spent.task_seconds,
        work=spent.work,
        bytes=contents.bytes,
    )


def _holders(job: Job) -> dict[tuple[str, str], Holder | None]:
    """By unit of the job, the run that holds it, unless it is dead or has said nothing for long."""
    found: dict[tuple[str, str], Holder | None] = {}
    for kind, name in {job.unit_of(stage) for stage in job.stages}:
        who = holder(job.open_store().unit(kind, name))
        if who is not None and (who.is_dead_here() or who.age_s > _SILENT * job.settings.runner.lease_s):
            who = None
        found[kind, name] = who
    return found


def _failed(job: Job, stage: str, ledger: Ledger) -> int:
    """Count the frames with a failure under the job's key and no result since."""
    left = ~ledger.done(stage)
    if not job.unit(stage).failure_tables():
        return 0
    rows = failures_of(job, stage)
    if rows["frame"].isna().any():  # a task failed as a whole
        return int(left.sum())
    return int(left[[int(frame) for frame in rows["frame"] if frame < len(left)]].sum())
