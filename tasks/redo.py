"""Making work unfinished again: by force, or because something that failed is worth another try."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import Literal

import numpy as np

from portrait_core.store import FailureClass
from portrait_core.tracking.measure import seen
from tasks.context import PARDONS, done, unit_of
from tasks.job import FILES, Job, Stage

Gaps = Literal["keep", "redo"]
"""What happens to what was made around a frame that failed, once that frame is there. ``keep``: nothing; the
frame is rendered with the generator that was tuned without it, and the clip encoded again. ``redo``: the
latents behind it in its chain, the tuning and all that follows are made again, as if it had never failed."""


def forget(job: Job, stages: Iterable[Stage]) -> list[Stage]:
    """Make stages, and all that read them, unfinished. Their data stays until it is overwritten.

    Returns:
        The stages concerned, in their order.
    """
    asked = set(stages)
    concerned = asked.union(*(job.dependents(stage) for stage in asked))
    for stage in concerned:
        unit = unit_of(job, stage)
        unit.uncommit(stage, range(job.total(stage)))
        for name in (*FILES.get(stage, ()), f"{stage}.checkpoint"):
            unit.drop_file(name)
    return [stage for stage in job.stages if stage in concerned]


def failed_frames(
    job: Job, stages: Collection[Stage], classes: Collection[FailureClass]
) -> dict[Stage, list[int]]:
    """Frames with a failure of these classes under the job's keys that still counts, by stage. A task that
    failed as a whole stands for all that are not finished; frame 0 for a stage of one part."""
    found: dict[Stage, list[int]] = {}
    for stage in stages:
        rows = unit_of(job, stage).failures()
        rows = rows[(rows["stage"] == stage) & (rows["key"] == job.stage_keys[stage])]
        rows = rows[rows["cls"].isin(list(classes))]
        finished = done(job, stage)
        named = {int(frame) for frame in rows["frame"].dropna() if int(frame) < job.total(stage)}
        # a frame without landmarks is finished: it shows its neighbour
        left = {f for f in named if not finished[f] or (stage == "landmarks" and _unseen(job, f))}
        if rows["frame"].isna().any():
            left |= set(np.flatnonzero(~finished).tolist())
        if left:
            found[stage] = sorted(left)
    return found


def _unseen(job: Job, frame: int) -> bool:
    return not seen(unit_of(job, "landmarks").read("landmarks", frame, frame + 1))[0]


def take_up(job: Job, frames: dict[Stage, list[int]], classes: Collection[FailureClass], gaps: Gaps) -> None:
    """Let the next run try frames again (:func:`failed_frames`)."""
    now = datetime.now(UTC).isoformat()
    for stage in frames:
        unit = unit_of(job, stage)
        pardons = unit.read_meta(PARDONS) or {}
        unit.write_meta(PARDONS, pardons | {f"{stage}.{cls}": now for cls in classes})
        unit.uncommit(stage, frames[stage])
    if gaps == "redo":
        _redo_after(job, frames)


def _redo_after(job: Job, frames: dict[Stage, list[int]]) -> None:
    first = min([job.frames, *frames.get("template", []), *frames.get("inversion", [])])
    if first == job.frames:
        return
    settings = job.settings.inversion
    chained = settings.init != "tracker" and settings.warm_start and settings.steps > 0
    if chained:
        unit_of(job, "inversion").uncommit("inversion", range(first, job.frames))
    forget(job, ["tuning"])


def faces_appeared(job: Job, frames: Iterable[int]) -> bool:
    """Whether any of ``frames``, whose landmarks were looked for again, shows a face now: the clip's fit and
    all that follows are then made again."""
    points = [unit_of(job, "landmarks").read("landmarks", f, f + 1) for f in frames]
    return bool(points) and bool(seen(np.concatenate(points)).any())
