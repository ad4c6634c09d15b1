"""What a run would do and why, before it does anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from portrait_core.pipeline.history import Rate, frames_per_part, rates, work
from portrait_core.pipeline.job import Job
from portrait_core.pipeline.ledger import Ledger, failures_of
from portrait_core.pipeline.ranges import FrameRange, missing_runs
from portrait_core.settings.threads import worker_count
from portrait_core.store import differences


@dataclass(frozen=True)
class Part:
    """Frames that a stage will do for one reason."""

    runs: tuple[FrameRange, ...]
    reason: str


@dataclass(frozen=True)
class StagePlan:
    """What a run would do for one stage."""

    stage: str
    """Its name."""
    title: str
    """Its title, as progress bars show it."""
    total: int
    """Frames, or 1 for a stage of one part."""
    done: int
    """Parts that are finished."""
    quarantined: int
    """Parts that were set aside; ``portrait retry`` takes them up."""
    parts: tuple[Part, ...]
    """What would be done."""
    seconds: float | None
    """Estimated wall time in seconds; None without history."""
    task_seconds: float | None
    """Estimated seconds of its tasks, added up; None without history."""
    bytes: float | None
    """Estimated growth of the store; None without history."""

    @property
    def frames(self) -> int:
        """How many would be done."""
        return sum(len(run) for part in self.parts for run in part.runs)


def plan(job: Job, forced: Sequence[str] = (), known: Mapping[str, Rate] | None = None) -> list[StagePlan]:
    """Say what a run of the job would do, stage by stage, after ``forced`` stages were forgotten. Reads the
    store and changes nothing.
    """
    ledger = Ledger(job)
    will, known = ledger.missing(), known or rates(job)
    again = set(forced).union(*(job.pipeline.dependents(stage) for stage in forced))
    for stage in again:
        will[stage] = np.ones(job.total(stage), np.bool_)
    plans = []
    for stage in job.stages:
        count, rate = int(will[stage].sum()), known[stage]
        spent = None if rate.task_seconds is None else rate.task_seconds * work(job, stage, count)
        grown = None if rate.frame_bytes is None else rate.frame_bytes * count * frames_per_part(job, stage)
        plans.append(
            StagePlan(
                stage=stage,
                title=job.stage(stage).title,
                total=job.total(stage),
                done=int(ledger.done(stage).sum()),
                quarantined=int(ledger.quarantined_frames(stage).sum()),
                parts=tuple(_parts(job, stage, ledger, will, stage in again)) if count else (),
                seconds=None if spent is None else spent / _at_once(job, stage, count),
                task_seconds=spent,
                bytes=grown if count else 0.0,
            )
        )
    return plans


def _at_once(job: Job, stage: str, frames: int) -> int:
    if not job.stage(stage).parallel_over_frames or job.chained(stage):
        return 1
    return min(worker_count(job.settings), -(-frames // job.settings.runner.frames_per_task) or 1)


def _parts(
    job: Job, stage: str, ledger: Ledger, will: Mapping[str, NDArray[np.bool_]], forced: bool
) -> list[Part]:
    readers = [later for later in job.pipeline.readers(stage) if will[later].any()]
    absent = "its data is missing from the store"
    if ledger.dropped(stage):
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
    for frame in np.flatnonzero(will[stage]).tolist():
        reasons.setdefault(reason(frame), []).append(frame)
    total = FrameRange(0, job.total(stage))
    parts = []
    for why, which in reasons.items():
        finished = np.ones(total.stop, np.bool_)
        finished[which] = False
        parts.append(Part(tuple(missing_runs(finished, total)), why))
    return parts


def _changed(job: Job, stage: str, ledger: Ledger) -> str | None:
    """What differs from what the stage made last of the same content, in words; None where it made nothing
    yet, or has begun under this key. Of several, the one that differs least is meant.
    """
    own = ledger.output(stage)
    if ledger.contents[stage].done:
        return None
    others = [one for one in job.unit(stage).outputs() if one.stage == stage and one.key != own.key]
    recipes = [recipe for one in others if (recipe := one.recipe()) is not None]
    said = [differences(recipe, job.recipe(stage)) for recipe in recipes]
    if not said:
        return None
    return ", ".join(sorted(said, key=len)[0]) or "other frames are shown now"


def _failures(job: Job, stage: str) -> dict[int, str]:
    return {
        int(row.frame) if row.frame == row.frame and row.frame is not None else 0: f"{row.cls}: {row.message}"
        for row in failures_of(job, stage).fillna({"frame": 0}).itertuples()
    }
