"""Costs of stages in a store so far, and estimates for work to come."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from portrait_core.pipeline.job import Job
from portrait_core.pipeline.ledger import find_output
from portrait_core.pipeline.results import StageResult

COST, PROGRESS = "cost", "progress"
"""Names of notes of an output: what was spent on it, and the finished steps of its optimisation."""
_MAX_AMOUNT = 1e15
"""Largest number of seconds, bytes or steps in a record of a store."""
_SAMPLE = 16
"""Number of states on which an estimate is based."""


@dataclass(frozen=True)
class Cost:
    """Cost of a stage."""

    seconds: float = 0.0
    """Wall seconds of all runs that worked on it."""
    task_seconds: float = 0.0
    """Sum of the seconds of its tasks."""
    work: float = 0.0
    """Amount of work of these tasks, as :func:`work_amount` measures it."""


def work_amount(job: Job, stage: str, parts: int) -> float:
    """Return the work of ``parts`` parts of a stage: steps of an optimisation, else frames."""
    declared = job.stage(stage)
    if declared.work is not None:
        return float(declared.work(job.settings, parts, job.frames))
    return float(parts * frames_per_part(job, stage))


def frames_per_part(job: Job, stage: str) -> int:
    """Return the number of frames that one part of a stage stands for."""
    declared = job.stage(stage)
    return 1 if declared.per_frame or declared.unit == "portrait" else job.frames


def add_cost(job: Job, stage: str, seconds: float, results: Sequence[StageResult]) -> None:
    """Add the cost of this run to a stage's cost of all runs."""
    spent = read_cost(job, stage)
    parts = sum(result.frames_done for result in results)
    total = {
        # not rounded: rounded parts add up to less than their sum
        "seconds": spent.seconds + seconds,
        "task_seconds": spent.task_seconds + sum(result.seconds for result in results),
        "work": spent.work + work_amount(job, stage, parts),
    }
    find_output(job, stage).write_note(COST, total)


def read_cost(job: Job, stage: str) -> Cost:
    """Read what was spent on a stage under the job's key."""
    return parse_cost(find_output(job, stage).read_note(COST))


def parse_cost(note: Any) -> Cost:
    """Convert a note of cost; without a note, or by one that is damaged, nothing was spent."""
    values = [_amount(note, name) for name in ("seconds", "task_seconds", "work")]
    return Cost() if None in values else Cost(*(value or 0.0 for value in values))


def _amount(fields: Any, name: str) -> float | None:
    """Return a number of a record; None where there is none, or none that can be an amount."""
    value = fields.get(name) if isinstance(fields, Mapping) else None
    if not isinstance(value, int | float) or not 0 <= value <= _MAX_AMOUNT:
        return None
    return float(value)


def read_progress(job: Job, stage: str) -> int:
    """Read the number of finished steps of a stage's optimisation; 0 when it is not noted."""
    return int(_amount(job.output(stage).read_note(PROGRESS), "step") or 0)


@dataclass(frozen=True)
class Rate:
    """Mean cost of a stage in comparable jobs of the store."""

    task_seconds: float | None
    """Seconds per unit of :func:`work_amount`; None when unknown."""
    frame_bytes: float | None
    """Bytes of stored output per frame of the clip; None when unknown."""


def read_rates(job: Job) -> dict[str, Rate]:
    """Average every stage's cost over some of the store's jobs that have the same profile."""
    store = job.open_store()
    names = store.record_names("states")
    step = max(1, len(names) // _SAMPLE)
    states = store.read_records("states", names[::step][:_SAMPLE]).values()
    alike = [
        state for state in states if isinstance(state, dict) and state.get("profile") == job.settings.profile
    ]
    return {stage: _rate(alike, stage) for stage in job.stages}


def _rate(states: Iterable[Mapping[str, Any]], stage: str) -> Rate:
    seconds: list[float] = []
    sizes: list[float] = []
    for state in states:
        rows = state.get("stages")
        for row in rows if isinstance(rows, list) else ():
            if not isinstance(row, dict) or row.get("stage") != stage:
                continue
            spent, work, stored = (_amount(row, name) for name in ("task_seconds", "work", "bytes"))
            if work and spent is not None:
                seconds.append(spent / work)
            if stored and row.get("done"):
                sizes.append(stored / max(1.0, _amount(state, "frames") or 1.0))
    return Rate(sum(seconds) / len(seconds) if seconds else None, sum(sizes) / len(sizes) if sizes else None)
