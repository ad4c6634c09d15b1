"""Records of jobs in a store, readable without their inputs, Prefect or Dask.

Two records stand for a job: the request (``jobs/<id>.json``) and its outcome (``states/<id>.json``).
``status`` shows the second: reading one small object per clip, many at once, answers for a hundred thousand
clips. The units remain the record of what is done: a run asks them, and a state that does not say that its
job has ended is brought up to date from them.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from portrait_core.errors import InputError
from portrait_core.pipeline.history import COST, parse_cost
from portrait_core.pipeline.job import Job
from portrait_core.pipeline.ledger import Ledger, read_failures
from portrait_core.settings import Settings
from portrait_core.settings.trust import with_runner_of
from portrait_core.store import Holder, Store, read_holder
from portrait_core.store.places import place_name, redact_place
from portrait_core.text.redaction import redact_text, redact_values

_SILENT = 3
"""Number of lease durations without a beat after which a run is no longer shown as running."""
_THREADS = 16
"""Number of jobs that are read at the same time."""

Condition = Literal["done", "running", "failed", "unfinished"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class StageState(_Record):
    """Progress of a stage."""

    stage: str
    """Name of the stage."""
    total: int
    """Number of parts: frames, or 1 for a stage of one part."""
    done: int = 0
    """Number of finished parts."""
    failed: int = 0
    """Number of parts that were set aside, or failed in the last attempt."""
    running: bool = False
    """True if a run is at work on it now."""
    seconds: float = 0.0
    """Wall seconds that all runs spent on it."""
    task_seconds: float = 0.0
    """Sum of the seconds of its tasks."""
    work: float = 0.0
    """Amount of work of these tasks (:func:`portrait_core.pipeline.history.work_amount`)."""
    bytes: int = 0
    """Bytes of its stored output."""


class JobState(_Record):
    """Outcome of a job."""

    id: str
    """Name of the job's records."""
    label: str
    """Name for people."""
    goal: str
    """Name of the job's pipeline."""
    profile: str
    """Name of the job's profile."""
    frames: int
    """Frames of the clip; for StyleFlow training, samples."""
    state: Condition
    """Condition in one word."""
    held: int = 0
    """Number of frames that show a neighbour."""
    stages: tuple[StageState, ...] = ()
    """Progress of each stage."""
    at_work: str = ""
    """The run that works on it; empty when none does."""
    message: str = ""
    """Reason for which it stopped; empty when there is none."""
    host: str = ""
    """Host that wrote this record."""
    time_utc: str = ""
    """Time of this record, ISO 8601."""

    @property
    def seconds(self) -> float:
        """Wall seconds that all runs spent on it."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def bytes(self) -> int:
        """Bytes of its stages' stored output, portrait and video included."""
        return sum(stage.bytes for stage in self.stages)


def save_job(job: Job) -> None:
    """Write a job that is about to run into the store, for commands that have only the store."""
    store = job.open_store()
    # The runner belongs to the command: it may hold credentials, and a stored one is never trusted.
    store.write_record("jobs", job.id, job_record(job))
    labels = {"portrait": job.portrait, "video": job.video}
    before = read_state(store, job.id)
    if before is None:
        for kind, name in {job.unit_of(stage) for stage in job.stages}:
            store.unit(kind, name).write_label(place_name(labels.get(kind, "")) or job.label)
    if before is None or before.state != "unfinished" or before.label != job.label:
        store.write_record("states", job.id, _new_state(job).model_dump(mode="json"))


def _new_state(job: Job) -> JobState:
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


def job_record(job: Job) -> dict[str, Any]:
    """Return a job as it is stored: without the store's place, the settings of the runner and secrets.

    A URL's password or signature is not kept: whoever may read a store would have it. The job is continued by
    its command, which names the whole URL.
    """
    record = job.model_dump(mode="json", exclude={"store"})
    for part in (record, record.get("edited")):
        if part:
            part.pop("store", None)
            part["settings"].pop("runner", None)
            part |= {name: redact_place(part[name]) for name in ("portrait", "video")}
    return dict(redact_values(record))


def read_job(store: Store, name: str, command: Settings) -> Job | None:
    """Read a job's record, at this store's present place; None when none can be read.

    Args:
        store: the store.
        name: name of the record.
        command: settings of the command, from which the settings of where work is done are taken.
    """
    record = store.read_record("jobs", name)
    if not isinstance(record, dict):
        return None
    try:
        job = Job.model_validate(_at_store(record, store, command))
        _ = job.pipeline, job.id
    except (ValueError, KeyError, TypeError):
        return None
    return job


def _at_store(record: dict[str, Any], store: Store, command: Settings) -> dict[str, Any]:
    """Return a stored job's plain values with this store's place and the command's settings of the runner."""
    edited = record.get("edited")
    return {
        **record,
        "store": store.url,
        "settings": with_runner_of(record["settings"], command),
        "edited": _at_store(edited, store, command) if isinstance(edited, dict) else None,
    }


def read_state(store: Store, name: str) -> JobState | None:
    """Read a state's record; None when none can be read."""
    return _parse_state(store.read_record("states", name))


def _parse_state(record: Any) -> JobState | None:
    try:
        return JobState.model_validate(record)
    except ValidationError:
        return None


def read_states(store: Store, beginning: str = "") -> list[JobState]:
    """Read the states of all jobs whose label begins with ``beginning``, sorted by label.

    Raises:
        InputError: the store is of another version, or no state fits.
    """
    store.check_format()
    states = [state for record in store.read_records("states").values() if (state := _parse_state(record))]
    if not states:
        raise InputError(f"{store.url} holds no reenactment; give the folder or URL that --store named")
    chosen = [state for state in states if state.label.startswith(beginning)]
    if not chosen:
        raise InputError(
            f"no reenactment in {store.url} begins with {beginning!r}; `portrait status {store.url}` lists "
            "them"
        )
    return sorted(chosen, key=lambda state: (state.label, state.id))


def read_jobs(store: Store, beginning: str, command: Settings) -> list[Job]:
    """Read the jobs of :func:`read_states`; those that cannot be read are left out.

    Raises:
        InputError: as :func:`read_states`, or no job can be read.
    """
    states = read_states(store, beginning)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="jobs") as pool:
        jobs = list(pool.map(lambda state: read_job(store, state.id, command), states))
    readable = [job for job in jobs if job is not None]
    if not readable:
        raise InputError(
            f"the jobs in {store.url} cannot be read: another version wrote them; give their commands again"
        )
    return readable


def read_all_jobs(store: Store, command: Settings) -> list[Job]:
    """Read all jobs of a store, for operations that depend on each of them.

    Raises:
        InputError: the store is of another version, or one of its jobs cannot be read.
    """
    store.check_format()
    names = store.record_names("jobs")
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="jobs") as pool:
        jobs = list(pool.map(lambda name: read_job(store, name, command), names))
    unread = [name for name, job in zip(names, jobs, strict=True) if job is None]
    if unread:
        raise InputError(
            f"{len(unread)} of the jobs in {store.url} cannot be read, jobs/{unread[0]}.json among them: "
            "what they need is not known, so nothing is taken for stale. Use the version that wrote them, "
            "give their commands again, or delete these records"
        )
    return [job for job in jobs if job is not None]


def update_states(store: Store, states: Sequence[JobState], command: Settings) -> list[JobState]:
    """Bring states up to date: jobs that have not ended are looked up in their units."""

    def current(state: JobState) -> JobState:
        if state.state in ("done", "failed"):
            return state
        job = read_job(store, state.id, command)
        return state if job is None else look_up_state(job)

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="states") as pool:
        return list(pool.map(current, states))


def record_state(job: Job, message: str = "", failed: bool = False) -> JobState:
    """Determine a job's state from its units, and store it.

    Args:
        job: the job.
        message: reason for which it stopped, if it did.
        failed: whether it stopped because of a failure rather than by request.
    """
    state = look_up_state(job, at_work=False)
    if state.state != "done":
        message = redact_text(message)
        state = state.model_copy(update={"message": message, "state": "failed" if failed else state.state})
    job.open_store().write_record("states", job.id, state.model_dump(mode="json"))
    return state


def look_up_state(job: Job, at_work: bool = True) -> JobState:
    """Determine a job's state from its units.

    Args:
        job: the job.
        at_work: whether to look up the run that works on it.
    """
    ledger = Ledger(job)
    holders = _holders(job) if at_work else {}
    is_finished = ledger.is_finished()
    states = tuple(_stage_state(job, stage, ledger, holders, is_finished) for stage in job.stages)
    active_run = next((run for run in holders.values() if run is not None), None)
    gapped = [job.stage(stage).shows_gaps_of for stage in job.pipeline.ends]
    held = sum(
        int((~ledger.done_frames(name)).sum()) for name in dict.fromkeys(gapped) if name and is_finished
    )
    condition: Condition = "done" if is_finished else "unfinished"
    if not is_finished and active_run is not None:
        condition = "running"
    elif not is_finished and any(stage.failed for stage in states):
        condition = "failed"
    values = {"state": condition, "held": held, "stages": states, "at_work": str(active_run or "")}
    return _new_state(job).model_copy(update=values)


def _stage_state(
    job: Job,
    stage: str,
    ledger: Ledger,
    holders: dict[tuple[str, str], Holder | None],
    is_finished: bool,
) -> StageState:
    run = holders.get(job.unit_of(stage))
    total, done = job.total(stage), ledger.done_frames(stage)
    contents = ledger.contents[stage]
    spent = parse_cost(ledger.output(stage).read_note(COST) if COST in contents.notes else None)
    whole = is_finished and not job.stage(stage).per_frame
    return StageState(
        stage=stage,
        total=total,
        done=total if whole else int(done.sum()),
        failed=0 if whole or done.all() else _failed(job, stage, ledger),
        running=run is not None and run.stage == stage,
        seconds=spent.seconds,
        task_seconds=spent.task_seconds,
        work=spent.work,
        bytes=contents.bytes,
    )


def _holders(job: Job) -> dict[tuple[str, str], Holder | None]:
    """Return the run that holds each unit of the job; None for one that is dead or silent for long."""
    holders: dict[tuple[str, str], Holder | None] = {}
    for kind, name in {job.unit_of(stage) for stage in job.stages}:
        run = read_holder(job.open_store().unit(kind, name))
        if run is not None and (run.is_dead_here() or run.age_s > _SILENT * job.settings.runner.lease_s):
            run = None
        holders[kind, name] = run
    return holders


def _failed(job: Job, stage: str, ledger: Ledger) -> int:
    """Count the frames with a failure under the job's key and no later result."""
    left = ~ledger.done_frames(stage)
    if not job.unit(stage).failure_tables():
        return 0
    rows = read_failures(job, stage)
    if rows["frame"].isna().any():  # a task failed as a whole
        return int(left.sum())
    return int(left[[int(frame) for frame in rows["frame"] if frame < len(left)]].sum())
