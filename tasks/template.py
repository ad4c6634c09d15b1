"""Stages ``retarget`` and ``template``: the driver's expressions on the portrait."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.context import FrameArrays, read_track, todo, unit_of, use_threads, write_frames
from tasks.frames import Save, each
from tasks.job import Job
from tasks.policy import StageResult, Stopwatch, stage_task
from tasks.ranges import FrameRange
from tasks.trackers import Moves, tracker

MASKS = ("face_mask", "mouth_mask", "uncovered")


@stage_task("retarget")
def retarget(job: Job) -> StageResult:
    """Turn the driver's expressions into the portrait's, for the whole clip: ``expression`` and ``jaw``."""
    watch = Stopwatch("retarget", 0, job.frames)
    if not todo(job, "retarget", 0, job.frames):
        return watch.result(0)
    use_threads(job, alone=True)
    source = read_track(unit_of(job, "portrait"), 1)
    arrays = tracker(job).retarget(source, read_track(unit_of(job, "fit"), job.frames))
    return watch.result(write_frames(job, "retarget", arrays))


@stage_task("template")
def template(job: Job, start: int, stop: int) -> StageResult:
    """Render the expression template and its masks for frames ``[start, stop)``."""
    watch = Stopwatch("template", start, stop)
    runs = todo(job, "template", start, stop)
    if not runs:
        return watch.result(0)
    use_threads(job, alone=False)
    model, arrays = tracker(job), FrameArrays(job, "template")

    def fetch(batch: FrameRange) -> Moves:
        return model.moves(*batch)

    def work(batch: FrameRange, moves: Moves) -> Save:
        drawn = model.render(moves)
        rows = {"template": drawn.image} | {name: _as_bytes(getattr(drawn, name)) for name in MASKS}
        return arrays.later(batch.start, rows)

    return watch.result(each(job, "template", runs, work, job.settings.template.batch, fetch=fetch))


def _as_bytes(mask: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.round(np.clip(mask, 0, 1) * 255).astype(np.uint8)
