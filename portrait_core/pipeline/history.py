"""What stages cost in this store so far, and what that says of work to come."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from portrait_core.pipeline.job import Job
from portrait_core.pipeline.ledger import output_of
from portrait_core.pipeline.results import StageResult

COST, PROGRESS = "cost", "progress"
"""Notes of an output: what was spent on it, and how many steps of its optimisation are behind it."""
_SAMPLE = 16
"""States that an estimate is made from."""


@dataclass(frozen=True)
class Cost:
    """What a stage cost."""

    seconds: float = 0.0
    """Wall seconds of all runs that worked on it."""
    task_seconds: float = 0.0
    """Seconds of its tasks, added up."""
    work: float = 0.0
    """What they did, in :func:`work`'s measure."""


def work(job: Job, stage: str, parts: int) -> float:
    """Say how much a stage has to do for so many of its parts: steps of an optimisation, else frames."""
    declared = job.stage(stage)
    if declared.work is not None:
        return float(declared.work(job.settings, parts, job.frames))
    return float(parts * frames_per_part(job, stage))


def frames_per_part(job: Job, stage: str) -> int:
    """Frames that one part of a stage stands for."""
    declared = job.stage(stage)
    return 1 if declared.per_frame or declared.unit == "portrait" else job.frames


def note_cost(job: Job, stage: str, seconds: float, results: Sequence[StageResult]) -> None:
    """Add to what all runs have spent on a stage of this result."""
    spent = cost(job, stage)
    parts = sum(result.frames_done for result in results)
    said = {
        # not rounded: rounded parts add up to less than their sum
        "seconds": spent.seconds + seconds,
        "task_seconds": spent.task_seconds + sum(result.seconds for result in results),
        "work": spent.work + work(job, stage, parts),
    }
    output_of(job, stage).write_note(COST, said)


def cost(job: Job, stage: str) -> Cost:
    """Read what was spent on a stage under the job's key."""
    return cost_of(output_of(job, stage).read_note(COST))


def cost_of(said: Any) -> Cost:
    """Read a note of cost; nothing was spent where there is none."""
    try:
        return Cost(float(said["seconds"]), float(said["task_seconds"]), float(said["work"]))
    except (KeyError, TypeError, ValueError):
        return Cost()


def progress(job: Job, stage: str) -> int:
    """Steps that a stage's optimisation has behind it, as far as it says so; else 0."""
    said = job.output(stage).read_note(PROGRESS)
    return int(said.get("step", 0)) if isinstance(said, dict) else 0


@dataclass(frozen=True)
class Rate:
    """A stage's cost so far in comparable jobs of the store."""

    task_seconds: float | None
    """Seconds for one :func:`work`; None where nothing is known."""
    frame_bytes: float | None
    """Bytes of what it keeps, for a frame of the clip; None where nothing is known."""


def rates(job: Job) -> dict[str, Rate]:
    """Say what the store's own history tells of every stage, from the states of some jobs of the profile."""
    store = job.open_store()
    names = store.record_names("states")
    step = max(1, len(names) // _SAMPLE)
    found = store.read_records("states", names[::step][:_SAMPLE]).values()
    alike = [said for said in found if isinstance(said, dict) and said.get("profile") == job.settings.profile]
    return {stage: _rate(alike, stage) for stage in job.stages}


def _rate(states: Iterable[Mapping[str, Any]], stage: str) -> Rate:
    seconds: list[float] = []
    sizes: list[float] = []
    for state in states:
        for row in state.get("stages", ()):
            if row.get("stage") != stage:
                continue
            if row.get("work"):
                seconds.append(row["task_seconds"] / row["work"])
            if row.get("bytes") and row.get("done"):
                sizes.append(row["bytes"] / max(1, state.get("frames", 1)))
    return Rate(sum(seconds) / len(seconds) if seconds else None, sum(sizes) / len(sizes) if sizes else None)
