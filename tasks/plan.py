"""What a run would do and why, before it does anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from portrait_core.config import Settings
from portrait_core.store import differences
from tasks.context import aside, done, key_of, unit_of
from tasks.history import Rate, rates, work
from tasks.job import FANNED, PER_FRAME, Job, Stage
from tasks.ranges import FrameRange, missing_runs
from tasks.retention import dropped, missing
from tasks.threads import worker_count


@dataclass(frozen=True)
class Part:
    """Frames that a stage will do for one reason."""

    runs: tuple[FrameRange, ...]
    reason: str


@dataclass(frozen=True)
class StagePlan:
    """What a run would do for one stage.

    Attributes:
        stage: its name.
        total: frames, or 1 for a stage of one part.
        done: of them finished.
        aside: of them set aside; ``portrait retry`` takes them up.
        parts: what would be done.
        seconds: estimated wall time; None without history.
        task_seconds: estimated time of its tasks, added up; None without history.
        bytes: estimated growth of the store; None without history.
    """

    stage: Stage
    total: int
    done: int
    aside: int
    parts: tuple[Part, ...]
    seconds: float | None
    task_seconds: float | None
    bytes: float | None

    @property
    def frames(self) -> int:
        """How many would be done."""
        return sum(len(run) for part in self.parts for run in part.runs)


def plan(
    job: Job, forced: Sequence[Stage] = (), known: Mapping[Stage, Rate] | None = None
) -> list[StagePlan]:
    """What a run of the job would do, stage by stage, after ``forced`` stages were forgotten. Reads the store
    and changes nothing."""
    will, known = missing(job), known or rates(job)
    again = set(forced).union(*(job.dependents(stage) for stage in forced))
    for stage in again:
        will[stage] = np.ones(job.total(stage), np.bool_)
    plans = []
    for stage in job.stages:
        frames = np.flatnonzero(will[stage])
        rate, count = known[stage], len(frames)
        spent = None if rate.task_seconds is None else rate.task_seconds * work(job, stage, count)
        clip_frames = count if stage in PER_FRAME else count * (1 if stage == "portrait" else job.frames)
        plans.append(
            StagePlan(
                stage=stage,
                total=job.total(stage),
                done=int(done(job, stage).sum()),
                aside=int(aside(job, stage).sum()),
                parts=tuple(_parts(job, stage, will, stage in again)) if count else (),
                seconds=None if spent is None else spent / _at_once(job.settings, stage, count),
                task_seconds=spent,
                bytes=(rate.frame_bytes * clip_frames if rate.frame_bytes is not None else None)
                if count
                else 0.0,
            )
        )
    return plans


def _at_once(settings: Settings, stage: Stage, frames: int) -> int:
    chained = stage == "inversion" and settings.inversion.init != "tracker"
    if stage not in FANNED or chained:
        return 1
    return min(worker_count(settings), -(-frames // settings.runner.frames_per_task) or 1)


def _parts(job: Job, stage: Stage, will: Mapping[Stage, NDArray[np.bool_]], forced: bool) -> list[Part]:
    readers = [later for later in job.stages if stage in job.reads(later) and will[later].any()]
    absent = "its data is missing from the store"
    if dropped(job, stage):
        absent = f"dropped, and {readers[-1] if readers else 'a later stage'} reads it"
    unit, key = unit_of(job, stage), key_of(job, stage)
    under: dict[int, set[str]] = {}
    for frame, marked in unit.markers(stage):
        under.setdefault(frame, set()).add(marked)
    recipes, mine = unit.recipes(stage), job.recipe(stage)
    failed = _failures(job, stage)

    def reason(frame: int) -> str:
        keys = under.get(frame, set())
        if forced:
            return "forced"
        if key in keys:
            return absent
        said = [differences(recipes[old], mine) for old in sorted(keys) if old in recipes]
        if said:
            return ", ".join(said[-1]) or "other frames are shown now"
        if keys:
            return "made by an earlier version, which did not note why"
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


def _failures(job: Job, stage: Stage) -> dict[int, str]:
    rows = unit_of(job, stage).failures()
    rows = rows[(rows["stage"] == stage) & (rows["key"] == job.stage_keys[stage])]
    return {
        int(row.frame) if row.frame == row.frame and row.frame is not None else 0: f"{row.cls}: {row.message}"
        for row in rows.fillna({"frame": 0}).itertuples()
    }
