"""Records of jobs in a store, readable without their inputs, Prefect or Dask.

Two records stand for a job: the request (``jobs/<id>.json``) and its outcome (``states/<id>.json``).
``status`` shows the second: reading one small object per clip, many at once, answers for a hundred thousand
clips. The units remain the record of what is done: a run asks them, and a state that does not say that its
job has ended is brought up to date from them.
"""

from __future__ import annotations

import contextlib
import logging
import shlex
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from portrait_core.errors import InputError, StoreError
from portrait_core.pipeline.history import COST, parse_cost
from portrait_core.pipeline.job import Job
from portrait_core.pipeline.ledger import Ledger, read_failures
from portrait_core.settings import Settings
from portrait_core.settings.limits import refuse_beyond
from portrait_core.settings.safeguards import closed_modes
from portrait_core.settings.trust import with_runner_of
from portrait_core.store import KINDS, Holder, Store, read_holder
from portrait_core.store.places import kept_place, local_path, place_name
from portrait_core.store.refusals import is_of_one_object
from portrait_core.text.redaction import redact_text, redact_values

_SILENT = 3
"""Number of lease durations without a beat after which a run is no longer shown as running."""
_MAX_CHARACTERS = 10_000
"""Characters of a text in a state, the rest of which is left out."""
_THREADS = 16
"""Number of jobs that are read at the same time."""

_warned: set[Path] = set()
_log = logging.getLogger(__name__)

Condition = Literal["done", "running", "failed", "unfinished"]


Count = Annotated[int, Field(ge=0, le=1 << 60)]
Seconds = Annotated[float, Field(ge=0.0, le=1e15, allow_inf_nan=False)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class StageState(_Record):
    """Progress of a stage."""

    stage: Annotated[str, Field(max_length=100)]
    """Name of the stage."""
    total: Count
    """Number of parts: frames, or 1 for a stage of one part."""
    done: Count = 0
    """Number of finished parts."""
    failed: Count = 0
    """Number of parts that were set aside, or failed in the last attempt."""
    running: bool = False
    """True if a run is at work on it now."""
    seconds: Seconds = 0.0
    """Wall seconds that all runs spent on it."""
    task_seconds: Seconds = 0.0
    """Sum of the seconds of its tasks."""
    work: Seconds = 0.0
    """Amount of work of these tasks (:func:`portrait_core.pipeline.history.work_amount`)."""
    bytes: Count = 0
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
    frames: Count
    """Frames of the clip; for StyleFlow training, samples."""
    state: Condition
    """Condition in one word."""
    held: Count = 0
    """Number of frames that show a neighbour."""
    stages: Annotated[tuple[StageState, ...], Field(max_length=100)] = ()
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
    _warn_of_readers(job)
    # The runner belongs to the command: it may hold credentials, and a stored one is never trusted.
    store.write_record("jobs", job.id, job_record(job))
    labels = {"portrait": job.portrait, "video": job.video}
    before = read_state(store, job.id)
    if before is None:
        for kind, name in {job.unit_of(stage) for stage in job.stages}:
            store.unit(kind, name).write_label(place_name(labels.get(kind, "")) or job.label)
    if before is None or before.state != "unfinished" or before.label != job.label:
        store.write_record("states", job.id, _new_state(job).model_dump(mode="json"))


def _warn_of_readers(job: Job) -> None:
    """Warn, once per process, of a store on a disk that more people may read than the settings say.

    What a run writes is for those alone, but an older store's folders keep their modes.
    """
    root, closed = local_path(job.store), closed_modes(job.settings)
    if root is None or root in _warned:
        return
    _warned.add(root)
    with contextlib.suppress(OSError):
        kinds = [mode for kind in KINDS if (mode := _mode(root / kind)) is not None]
        if (_mode(root) or 0) & closed and any(mode & closed for mode in kinds):
            mend = f"chmod -R {'go' if closed & 0o070 else 'o'}-rwx {shlex.quote(str(root))}"
            _log.warning("others may read the store %s: %s", root, mend)


def _mode(folder: Path) -> int | None:
    try:
        return folder.stat().st_mode
    except FileNotFoundError:
        return None


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
            part |= {name: kept_place(part[name]) for name in ("portrait", "video")}
    return dict(redact_values(record, harmless=False))


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
        for one in filter(None, (job, job.edited)):
            refuse_beyond("video_frames", one.frames, "a job")
            _ = one.id, one.rate, [(one.output(stage), one.declared(stage)) for stage in one.stages]
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        _log.info("jobs/%s.json cannot be read: %s", name, error)
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
    return _parse_state(name, store.read_record("states", name))


def _parse_state(name: str, record: Any) -> JobState | None:
    """Return the state in a record; None where it is damaged or that of another job."""
    if not isinstance(record, dict):
        return None
    texts = {field: text[:_MAX_CHARACTERS] for field, text in record.items() if isinstance(text, str)}
    try:
        state = JobState.model_validate(record | texts)
    except ValidationError:
        return None
    return state if state.id == name else None


def read_states(store: Store, beginning: str = "", unread: list[str] | None = None) -> list[JobState]:
    """Read the states of all jobs whose label begins with ``beginning``, sorted by label.

    Args:
        store: the store.
        beginning: beginning of the labels.
        unread: receives the paths of the records that cannot be read, which are left out.

    Raises:
        InputError: the store is of another version, or no state fits.
    """
    store.check_format()
    names = store.record_names("states")
    records = store.each_record("states", names)
    states = [state for name, record in records if (state := _parse_state(name, record))]
    if unread is not None:
        unread += [f"states/{name}.json" for name in sorted({*names} - {state.id for state in states})]
    if not states:
        raise InputError(f"{store.url} holds no reenactment; give the folder or URL that --store named")
    chosen = [state for state in states if state.label.startswith(beginning)]
    if not chosen:
        raise InputError(
            f"no reenactment in {store.url} begins with {beginning!r}; `portrait status {store.url}` lists "
            "them"
        )
    return sorted(chosen, key=lambda state: (state.label, state.id))


def read_jobs(store: Store, beginning: str, command: Settings, unread: list[str] | None = None) -> list[Job]:
    """Read the jobs of :func:`read_states`; those that cannot be read are left out.

    Args:
        store: the store.
        beginning: beginning of the labels.
        command: settings of the command, from which the settings of where work is done are taken.
        unread: receives the paths of the records that cannot be read.

    Raises:
        InputError: as :func:`read_states`, or no job can be read.
    """
    states = read_states(store, beginning, unread)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="jobs") as pool:
        jobs = list(pool.map(lambda state: read_job(store, state.id, command), states))
    readable = [job for job in jobs if job is not None]
    if unread is not None:
        unread += [f"jobs/{state.id}.json" for state, job in zip(states, jobs, strict=True) if job is None]
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


def update_states(
    store: Store,
    states: Sequence[JobState],
    command: Settings,
    problems: list[str] | None = None,
    anew: bool = False,
) -> list[JobState]:
    """Bring states up to date: jobs that have not ended are looked up in their units.

    Args:
        store: the store.
        states: states as they were read.
        command: settings of the command, from which the settings of where work is done are taken.
        problems: receives what is wrong with jobs that cannot be looked up, whose states stay as they are;
            without it such a problem is raised.
        anew: look up jobs that have ended, too.
    """

    def current(state: JobState) -> JobState:
        if state.state in ("done", "failed") and not anew:
            return state
        job = read_job(store, state.id, command)
        try:
            return state if job is None else look_up_state(job)
        except StoreError as error:
            if problems is None or not is_of_one_object(error):
                raise
            problems.append(f"{state.label}: {error}")
            return state

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
        # A time that lies far ahead is no sign of life either.
        if run is not None and (run.is_dead_here() or abs(run.age_s) > _SILENT * job.settings.runner.lease_s):
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
