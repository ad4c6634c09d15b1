"""Making work unfinished again: by force, or because something that failed is worth another try."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import Literal

import numpy as np

from portrait_core.pipeline.job import Job
from portrait_core.pipeline.ledger import PARDONED, done, failures_of, output_of
from portrait_core.store import FailureClass
from portrait_core.tracking.measure import seen

Gaps = Literal["keep", "redo"]
"""What happens to what was made around a frame that failed, once that frame is there. ``keep``: nothing; the
frame is rendered with the generator that was tuned without it, and the clip encoded again. ``redo``: the
latents behind it in its chain, the tuning and all that follows are made again, as if it had never failed."""


def mark_undone(job: Job, stages: Iterable[str]) -> list[str]:
    """Delete what stages, and all that read them, made under the job's keys. Failures that were taken up stay
    so: their frames are made again with the others.

    Returns:
        The stages concerned, in their order.
    """
    asked = set(stages)
    concerned = asked.union(*(job.pipeline.dependents(stage) for stage in asked))
    outputs = [output_of(job, stage) for stage in concerned]  # before any of them is gone
    for output in outputs:
        pardons = output.read_note(PARDONED)
        output.drop()
        if pardons is not None:
            output.write_note(PARDONED, pardons)
    return [stage for stage in job.stages if stage in concerned]


def failed_frames(
    job: Job, stages: Collection[str], classes: Collection[FailureClass]
) -> dict[str, list[int]]:
    """Find frames with a failure of these classes under the job's keys that still counts, by stage. A task
    that failed as a whole stands for all that are not finished; frame 0 for a stage of one part.
    """
    found: dict[str, list[int]] = {}
    for stage in (stage for stage in job.stages if stage in stages):
        rows = failures_of(job, stage)
        rows = rows[rows["cls"].isin(list(classes))]
        if not len(rows):
            continue
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
    return not seen(job.output("landmarks").read("landmarks", frame, frame + 1))[0]


def schedule_retry(
    job: Job, frames: dict[str, list[int]], classes: Collection[FailureClass], gaps: Gaps
) -> None:
    """Let the next run try frames again (:func:`failed_frames`)."""
    now = datetime.now(UTC).isoformat()
    for stage, which in frames.items():
        output = job.output(stage)
        pardons = output.read_note(PARDONED) or {}
        output.write_note(PARDONED, pardons | dict.fromkeys(classes, now))
        output.uncommit(which)
    if gaps == "redo":
        _redo_after(job, frames)


def _redo_after(job: Job, frames: dict[str, list[int]]) -> None:
    first = min([job.frames, *frames.get("template", []), *frames.get("inversion", [])])
    if first == job.frames:
        return
    if job.chained("inversion"):
        job.output("inversion").uncommit(range(first, job.frames))
    mark_undone(job, ["tuning"])


def faces_appeared(job: Job, frames: Iterable[int]) -> bool:
    """Tell whether any of ``frames``, whose landmarks were looked for again, shows a face now: the clip's fit
    and all that follows are then made again.
    """
    output = job.output("landmarks")
    points = [output.read("landmarks", f, f + 1) for f in frames]
    return bool(points) and bool(seen(np.concatenate(points)).any())
