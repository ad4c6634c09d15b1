"""Making work unfinished again: by force, or because a failure is worth another attempt."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import Literal

import numpy as np

from portrait_core.pipeline.job import Job
from portrait_core.pipeline.ledger import RETRY_CUTOFFS, done_frames, find_output, read_cutoffs, read_failures
from portrait_core.store import FailureClass
from portrait_core.tracking.measure import seen

Gaps = Literal["keep", "redo"]
"""Treatment of results around a failed frame, once that frame exists. ``keep``: they stay; the frame is
rendered with the generator that was tuned without it, and the clip is encoded again. ``redo``: the latents
behind it in its chain, the tuning and all later results are made again, as if it had never failed."""


def mark_undone(job: Job, stages: Iterable[str]) -> list[str]:
    """Delete the results of stages, and of all stages that read them, under the job's keys.

    Failures that a retry cleared stay cleared: their frames are made again with the others.

    Returns:
        The stages concerned, in their order.
    """
    named = set(stages)
    concerned = named.union(*(job.pipeline.dependents(stage) for stage in named))
    outputs = [find_output(job, stage) for stage in concerned]  # before any of them is deleted
    for output in outputs:
        cutoffs = read_cutoffs(output)
        output.drop()
        if cutoffs:
            output.write_note(RETRY_CUTOFFS, cutoffs)
    return [stage for stage in job.stages if stage in concerned]


def failed_frames(
    job: Job, stages: Collection[str], classes: Collection[FailureClass]
) -> dict[str, list[int]]:
    """Find frames with a failure of some classes under the job's keys that still counts, by stage.

    A task that failed as a whole stands for all frames that are not finished; frame 0 stands for a stage of
    one part.

    Returns:
        Frame indices in ascending order, by stage.
    """
    failed: dict[str, list[int]] = {}
    for stage in (stage for stage in job.stages if stage in stages):
        rows = read_failures(job, stage)
        rows = rows[rows["cls"].isin(list(classes))]
        if not len(rows):
            continue
        finished = done_frames(job, stage)
        named = {int(frame) for frame in rows["frame"].dropna() if int(frame) < job.total(stage)}
        # a frame without landmarks is finished: it shows its neighbour
        left = {f for f in named if not finished[f] or (stage == "landmarks" and _has_no_face(job, f))}
        if rows["frame"].isna().any():
            left |= set(np.flatnonzero(~finished).tolist())
        if left:
            failed[stage] = sorted(left)
    return failed


def _has_no_face(job: Job, frame: int) -> bool:
    return not _shows_a_face(job, [frame])


def schedule_retry(
    job: Job, frames: dict[str, list[int]], classes: Collection[FailureClass], gaps: Gaps
) -> None:
    """Let the next run try frames again (:func:`failed_frames`).

    Args:
        job: the job.
        frames: frame indices by stage.
        classes: classes of failures that no longer count.
        gaps: treatment of results around these frames.
    """
    now = datetime.now(UTC).isoformat()
    for stage, which in frames.items():
        output = job.output(stage)
        cutoffs = read_cutoffs(output)
        output.write_note(RETRY_CUTOFFS, cutoffs | dict.fromkeys(classes, now))
        output.uncommit(which)
    if gaps == "redo":
        _redo_after(job, frames)


def _redo_after(job: Job, frames: dict[str, list[int]]) -> None:
    first = min([job.frames, *frames.get("template", []), *frames.get("inversion", [])])
    if first == job.frames:
        return
    if job.is_chained("inversion"):
        job.output("inversion").uncommit(range(first, job.frames))
    mark_undone(job, ["tuning"])


def faces_appeared(job: Job, frames: Iterable[int]) -> bool:
    """Tell whether any of ``frames``, whose faces were searched again, shows a face now.

    Who drives is then decided again, and all later results are made again.
    """
    return _shows_a_face(job, frames)


def _shows_a_face(job: Job, frames: Iterable[int]) -> bool:
    output = job.output("landmarks")
    return any(bool(seen(output.read("faces", f, f + 1)[:, 0]).any()) for f in frames)
