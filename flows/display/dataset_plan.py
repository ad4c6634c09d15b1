"""Summed plan of a dataset run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console

from flows.display.views import duration, size, table
from portrait_core.pipeline import Job, find_pipeline
from portrait_core.pipeline.history import Rate, read_rates
from portrait_core.pipeline.plan import StagePlan, plan

Plans = Mapping[tuple[str, str], StagePlan]
"""Plans by stage and key, so that work shared by clips is counted once."""


def show_dataset_plan(jobs: Sequence[Job], workers: Sequence[int], console: Console) -> None:
    """Print what jobs would do, per stage, and the wall time for each number of workers."""
    plans, clips = _added_up(jobs)
    rows = table("stage", "units", "frames", "worker time", "disk")
    edits = find_pipeline("edit").stages[-1:] if any(job.edited is not None for job in jobs) else ()
    for stage in (*find_pipeline("clip").stages, *edits):
        of_stage = [one for (name, _), one in plans.items() if name == stage.name]
        rows.add_row(
            stage.title,
            str(len(of_stage) or "-"),
            str(sum(one.frames for one in of_stage) or "-"),
            duration(_sum(one.task_seconds for one in of_stage)),
            size(_sum(one.bytes for one in of_stage)),
        )
    console.print(rows)
    seconds = sum(one.task_seconds or 0.0 for one in plans.values())
    grown = sum(one.bytes or 0.0 for one in plans.values())
    counts = ", ".join(f"{clips[name]} {name}" for name in ("new", "begun", "done") if clips[name])
    console.print(f"{len(jobs)} clips ({counts}): {duration(seconds)} of workers, {size(grown)} more")
    for count in workers if seconds else ():
        console.print(f"  on {count} worker{'s' if count > 1 else ''}: about {duration(seconds / count)}")
    if any(one.task_seconds is None for one in plans.values()):
        console.print(
            "stages marked ? have no history in this store yet: run a few clips; their results are kept"
        )


def _added_up(jobs: Sequence[Job]) -> tuple[Plans, Counter[str]]:
    known: dict[tuple[str, str], dict[str, Rate]] = {}
    plans: dict[tuple[str, str], StagePlan] = {}
    clips = Counter[str]()

    def left(job: Job) -> int:
        """Add what is left of a job, and return the number of its unfinished stages."""
        kind = job.goal, job.settings.profile
        if kind not in known:
            known[kind] = read_rates(job)
        todo = [one for one in plan(job, known=known[kind]) if one.frames]
        plans.update({(one.stage, job.stage_keys[one.stage]): one for one in todo})
        return len(todo)

    for job in jobs:
        if job.edited is not None:
            left(job.edited)
        todo = left(job)
        clips["done" if not todo else "new" if todo == len(job.stages) else "begun"] += 1
    return plans, clips


def _sum(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return None if None in known else sum(value or 0.0 for value in known)
