"""What a dataset run would do, added up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console

from flows.display.views import duration, size, table
from portrait_core.pipeline import Job, find_pipeline
from portrait_core.pipeline.history import Rate, read_rates
from portrait_core.pipeline.plan import StagePlan, plan

Plans = Mapping[tuple[str, str], StagePlan]
"""By stage and key: work that clips share is there once."""


def show_dataset_plan(found: Sequence[Job], workers: Sequence[int], console: Console) -> None:
    """Print what jobs would do: by stage, and in wall time on so many workers."""
    plans, clips = _added_up(found)
    rows = table("stage", "units", "frames", "worker time", "disk")
    edits = find_pipeline("edit").stages[-1:] if any(job.edited is not None for job in found) else ()
    for stage in (*find_pipeline("clip").stages, *edits):
        ones = [one for (name, _), one in plans.items() if name == stage.name]
        rows.add_row(
            stage.title,
            str(len(ones) or "-"),
            str(sum(one.frames for one in ones) or "-"),
            duration(_sum(one.task_seconds for one in ones)),
            size(_sum(one.bytes for one in ones)),
        )
    console.print(rows)
    seconds = sum(one.task_seconds or 0.0 for one in plans.values())
    grown = sum(one.bytes or 0.0 for one in plans.values())
    counts = ", ".join(f"{clips[name]} {name}" for name in ("new", "begun", "done") if clips[name])
    console.print(f"{len(found)} clips ({counts}): {duration(seconds)} of workers, {size(grown)} more")
    for count in workers if seconds else ():
        console.print(f"  on {count} worker{'s' if count > 1 else ''}: about {duration(seconds / count)}")
    if any(one.task_seconds is None for one in plans.values()):
        console.print("stages marked ? have no history in this store yet: run a few clips, they are not lost")


def _added_up(found: Sequence[Job]) -> tuple[Plans, Counter[str]]:
    known: dict[tuple[str, str], dict[str, Rate]] = {}
    plans: dict[tuple[str, str], StagePlan] = {}
    clips = Counter[str]()

    def left(job: Job) -> int:
        """Add what is left of a job; of how many stages that is."""
        kind = job.goal, job.settings.profile
        if kind not in known:
            known[kind] = read_rates(job)
        todo = [one for one in plan(job, known=known[kind]) if one.frames]
        plans.update({(one.stage, job.stage_keys[one.stage]): one for one in todo})
        return len(todo)

    for job in found:
        if job.edited is not None:
            left(job.edited)
        todo = left(job)
        clips["done" if not todo else "new" if todo == len(job.stages) else "begun"] += 1
    return plans, clips


def _sum(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return None if None in known else sum(value or 0.0 for value in known)
