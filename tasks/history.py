"""What stages cost in this store so far, and what that says of work to come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from portrait_core.store import Kind, Store
from tasks.context import unit_of
from tasks.job import PER_FRAME, Job, Stage
from tasks.policy import StageResult

_LONG_ARRAY: Mapping[Kind, str] = {
    "portrait": "crop",
    "video": "landmarks",
    "inverted": "expression",
    "edited": "edited",
    "reenactment": "expression",
    "flow": "latents",
}
"""By kind of unit, an array with a row a frame."""
_SAMPLE = 8
"""Units that an estimate is made from."""


@dataclass(frozen=True)
class Cost:
    """What a stage cost.

    Attributes:
        seconds: wall seconds of all runs that worked on it.
        task_seconds: seconds of its tasks, added up.
        work: what they did, in :func:`work`'s measure.
    """

    seconds: float = 0.0
    task_seconds: float = 0.0
    work: float = 0.0


def work(job: Job, stage: Stage, frames: int) -> float:
    """How much a stage has to do for so many of its frames: steps of an optimisation, else frames."""
    settings = job.settings
    if stage == "tuning":
        return float(max(1, settings.tuning.steps) * frames)
    if stage == "inversion":  # a frame's picture counts as one step
        share = frames / max(1, job.frames)
        return frames * (settings.inversion.steps + 1) + settings.inversion.first_steps * share
    if stage in PER_FRAME:
        return float(frames)
    return float(frames * (1 if stage == "portrait" else job.frames))


def note_cost(job: Job, stage: Stage, seconds: float, results: Sequence[StageResult]) -> None:
    """Add to what all runs have spent on a stage of this result."""
    spent = cost(job, stage)
    frames = sum(result.frames_done for result in results)
    unit_of(job, stage).write_meta(
        f"cost_{stage}",
        {
            "key": job.stage_keys[stage],
            # not rounded: rounded parts add up to less than their sum
            "seconds": spent.seconds + seconds,
            "task_seconds": spent.task_seconds + sum(result.seconds for result in results),
            "work": spent.work + work(job, stage, frames),
        },
    )


def cost(job: Job, stage: Stage) -> Cost:
    """What was spent on a stage under the job's key."""
    said = unit_of(job, stage).read_meta(f"cost_{stage}") or {}
    if said.get("key") != job.stage_keys[stage]:
        return Cost()
    return Cost(float(said["seconds"]), float(said["task_seconds"]), float(said["work"]))


def note_stored(job: Job) -> int:
    """Count the bytes of a reenactment in the store and keep the number: counting lists every object."""
    unit = Store(job.store).unit(*job.home)
    count = sum(unit.sizes().values())
    unit.write_meta("stored", {"bytes": count})
    return count


def stored(job: Job) -> int | None:
    """The bytes of a reenactment when they were last counted; None when they never were."""
    said = Store(job.store).unit(*job.home).read_meta("stored")
    return None if said is None else int(said["bytes"])


def progress(job: Job, stage: Stage) -> int:
    """Steps that a stage's long optimisation has behind it, as far as it keeps a checkpoint; else 0."""
    said = unit_of(job, stage).read_meta(f"{stage}_progress") or {}
    return int(said.get("step", 0)) if said.get("key") == job.stage_keys[stage] else 0


@dataclass(frozen=True)
class Rate:
    """A stage's cost so far in comparable units of the store.

    Attributes:
        task_seconds: for one :func:`work`; None where nothing is known.
        frame_bytes: of its arrays and files, for a frame of the clip; None where nothing is known.
    """

    task_seconds: float | None
    frame_bytes: float | None


def rates(job: Job) -> dict[Stage, Rate]:
    """What the store's own history says of every stage, from some units of the same kind and profile."""
    store = Store(job.store)
    found: dict[Kind, list[tuple[Mapping[str, float], Mapping[str, int], int]]] = {}
    for kind in {job.unit_of(stage)[0] for stage in job.stages}:
        names = store.units(kind)
        if kind in ("inverted", "reenactment"):
            names = [name for name in names if name.endswith(f"--{job.settings.profile}")]
        found[kind] = [_history(job, kind, name) for name in names[-_SAMPLE:]]
    return {stage: _rate(job, stage, found[job.unit_of(stage)[0]]) for stage in job.stages}


def _history(job: Job, kind: Kind, name: str) -> tuple[dict[str, float], dict[str, int], int]:
    unit = Store(job.store).unit(kind, name)
    spent: dict[str, float] = {}
    for stage in job.stages:
        if job.unit_of(stage)[0] != kind:
            continue
        said = unit.read_meta(f"cost_{stage}") or {}
        if said.get("work"):
            spent[stage] = said["task_seconds"] / said["work"]
    info = unit.array_info(_LONG_ARRAY[kind])
    return spent, unit.sizes(), info.shape[0] if info is not None else 0


def _rate(
    job: Job, stage: Stage, history: Sequence[tuple[Mapping[str, float], Mapping[str, int], int]]
) -> Rate:
    seconds = [spent[stage] for spent, _, _ in history if stage in spent]
    names = set(job.kept(stage))
    if stage == "encode":
        names |= {"files/reenactment.mp4", "files/side_by_side.mp4", "files/contact_sheet.png"}
    sizes = [
        sum(size for name, size in stored.items() if name in names) / frames
        for _, stored, frames in history
        if frames and (not names or names & set(stored))
    ]
    return Rate(
        sum(seconds) / len(seconds) if seconds else None,
        sum(sizes) / len(sizes) if sizes else None,
    )
