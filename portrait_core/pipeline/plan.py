"""A preview of what a run would do and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from portrait_core.pipeline.history import Rate, frames_per_part, read_rates, work_amount
from portrait_core.pipeline.job import Job
from portrait_core.pipeline.ledger import Ledger, read_failures
from portrait_core.pipeline.ranges import FrameRange, missing_runs
from portrait_core.settings.threads import worker_count
from portrait_core.store import describe_differences


@dataclass(frozen=True)
class Part:
    """Frames that a stage will do for one reason."""

    runs: tuple[FrameRange, ...]
    """Runs of consecutive frames."""
    reason: str
    """The reason, in words."""


@dataclass(frozen=True)
class StagePlan:
    """Planned work of one stage."""

    stage: str
    """Name of the stage."""
    title: str
    """Title of the stage, as progress bars show it."""
    total: int
    """Number of parts: frames, or 1 for a stage of one part."""
    done: int
    """Number of finished parts."""
    quarantined: int
    """Number of parts that were set aside; ``portrait retry`` clears them."""
    parts: tuple[Part, ...]
    """Frames that would be done, by reason."""
    seconds: float | None
    """Estimated wall time in seconds; None without history."""
    task_seconds: float | None
    """Estimated sum of the seconds of its tasks; None without history."""
    bytes: float | None
    """Estimated growth of the store in bytes; None without history."""

    @property
    def frames(self) -> int:
        """Number of frames that would be done."""
        return sum(len(run) for part in self.parts for run in part.runs)


def plan(job: Job, forced: Sequence[str] = (), known: Mapping[str, Rate] | None = None) -> list[StagePlan]:
    """Return what a run of the job would do, by stage; read the store and change nothing.

    Args:
        job: the job.
        forced: stages that are made again, with all that read them.
        known: rates of the job's stages; default: read from the store.
    """
    ledger = Ledger(job)
    to_do, known = ledger.frames_to_do(), known or read_rates(job)
    redone = set(forced).union(*(job.pipeline.dependents(stage) for stage in forced))
    for stage in redone:
        to_do[stage] = np.ones(job.total(stage), np.bool_)
    plans = []
    for stage in job.stages:
        count, rate = int(to_do[stage].sum()), known[stage]
        spent = None if rate.task_seconds is None else rate.task_seconds * work_amount(job, stage, count)
        grown = None if rate.frame_bytes is None else rate.frame_bytes * count * frames_per_part(job, stage)
        plans.append(
            StagePlan(
                stage=stage,
                title=job.stage(stage).title,
                total=job.total(stage),
                done=int(ledger.done_frames(stage).sum()),
                quarantined=int(ledger.quarantined_frames(stage).sum()),
                parts=tuple(_parts(job, stage, ledger, to_do, stage in redone)) if count else (),
                seconds=None if spent is None else spent / _parallel_tasks(job, stage, count),
                task_seconds=spent,
                bytes=grown if count else 0.0,
            )
        )
    return plans


def _parallel_tasks(job: Job, stage: str, frames: int) -> int:
    if not job.stage(stage).parallel_over_frames or job.is_chained(stage):
        return 1
    return min(worker_count(job.settings), -(-frames // job.settings.runner.frames_per_task) or 1)


def _parts(
    job: Job, stage: str, ledger: Ledger, to_do: Mapping[str, NDArray[np.bool_]], forced: bool
) -> list[Part]:
    readers = [later for later in job.pipeline.readers(stage) if to_do[later].any()]
    absent = "its data is missing from the store"
    if ledger.dropped_names(stage):
        absent = f"dropped, and {readers[-1] if readers else 'a later stage'} reads it"
    marked, failed = ledger.contents[stage].done, _failures(job, stage)
    changed = _changed(job, stage, ledger)

    def reason(frame: int) -> str:
        if forced:
            return "forced"
        if frame in marked:
            return absent
        if changed is not None:
            return changed
        return f"failed before: {failed[frame]}" if frame in failed else "new"

    reasons: dict[str, list[int]] = {}
    for frame in np.flatnonzero(to_do[stage]).tolist():
        reasons.setdefault(reason(frame), []).append(frame)
    total = FrameRange(0, job.total(stage))
    parts = []
    for why, which in reasons.items():
        finished = np.ones(total.stop, np.bool_)
        finished[which] = False
        parts.append(Part(tuple(missing_runs(finished, total)), why))
    return parts


def _changed(job: Job, stage: str, ledger: Ledger) -> str | None:
    """Describe what differs from the stage's last result for the same content.

    Of several results, the one that differs least is described. Returns None where there is none, or where
    the stage has begun under this key.
    """
    own = ledger.output(stage)
    if ledger.contents[stage].done:
        return None
    other_outputs = [
        output for output in job.unit(stage).outputs() if output.stage == stage and output.key != own.key
    ]
    recipes = [recipe for output in other_outputs if (recipe := output.recipe()) is not None]
    changes = [describe_differences(recipe, job.recipe(stage)) for recipe in recipes]
    if not changes:
        return None
    return ", ".join(sorted(changes, key=len)[0]) or "other frames are shown now"


def _failures(job: Job, stage: str) -> dict[int, str]:
    return {
        int(row.frame) if row.frame == row.frame and row.frame is not None else 0: f"{row.cls}: {row.message}"
        for row in read_failures(job, stage).fillna({"frame": 0}).itertuples()
    }
