"""Stage ``measure``: the result seen by the tracker, against the driver and against the still portrait."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from portrait_core.metrics.follow import Follow
from portrait_core.pipeline import File, Job, Note, Stage
from portrait_core.pipeline.ledger import Ledger, done_frames
from portrait_core.pipeline.ranges import frames_shown
from portrait_core.pipeline.results import StageResult, Stopwatch
from portrait_core.pipeline.weights import landmark_weights, measuring_weights, tracking_weights
from portrait_core.report import expression_picture
from portrait_core.tracking.measure import seen
from tasks.context import landmarker, read_track, use_threads
from tasks.expressions import SeenClip, expression_rows, read_landmarks
from tasks.pages import page_of
from tasks.running import does
from tasks.stages.pose import match_of
from tasks.trackers import tracker

if TYPE_CHECKING:
    from portrait_core.metrics.motion import MotionTrack
    from portrait_core.rendering.page import Page


MOTION = "motion"
"""Note of what was measured."""
EXPRESSION = "expression.png"
"""Picture of the result's regions over the driver's."""

MEASURE = Stage(
    name="measure",
    title="measure result",
    version=11,
    unit="reenactment",
    reads=("portrait", "person", "fit", "retarget", "template", "pose", "render"),
    inputs=("video", "rate"),
    settings=("tracking",),
    weights=(landmark_weights, tracking_weights, measuring_weights),
    writes=(Note(MOTION), File(EXPRESSION)),
    shows_gaps_of="render",
)


@does(MEASURE, precision="fp32")
def measure(job: Job) -> StageResult:
    """Track the result and compare lips, eyes, head pose and every region of the face at every stage.

    The background's stillness is measured too.
    """
    watch = Stopwatch("measure", 0, 1)
    ledger = Ledger(job)
    if ledger.done_frames("measure").all():
        return watch.result(0)
    from portrait_core.metrics.motion import MotionTrack, motion_rows

    threads, page = use_threads(job, alone=True), page_of(job)
    driver, source = driver_motion(job), job.output("portrait")
    transfer, wanted = _wanted_poses(job, driver)
    still = MotionTrack.of(source.read("landmarks"), read_track(source)).repeated(job.frames)
    shown = _result(job, threads)
    result = MotionTrack.unseen(job.frames) if shown is None else MotionTrack.of(shown.points, shown.track)
    match = match_of(job)
    said: dict[str, Any] = {
        "pose_transfer": transfer,
        "frame_of_portrait": None if match is None else match.frame,
    }
    said |= motion_rows(wanted, result, still, lambda: _flicker(job, page))
    said |= expression_rows(job, shown, threads)
    found = {name: Follow.of_row(row) for name, row in said["follow"].get("result", {}).items()}
    output = ledger.output("measure")
    output.put_bytes(EXPRESSION, expression_picture(said["regions"], found, float(job.rate)))
    output.write_note(MOTION, said)
    output.commit()
    return watch.result(1)


def driver_motion(job: Job) -> MotionTrack:
    """Return what the tracker saw of the driver."""
    from portrait_core.metrics.motion import MotionTrack

    return MotionTrack.of(job.output("person").read("landmarks"), read_track(job.output("fit")))


def _wanted_poses(job: Job, driver: MotionTrack) -> tuple[str, MotionTrack]:
    """Return which poses the clip takes from the driver, and the driver's track with those poses.

    They are the driver's own, or relative to the portrait's pose where the portrait keeps it.
    """
    from portrait_core.cameras import angles_from_labels, degrees
    from portrait_core.rendering.pose_renderer import pose_transfer, target_cameras

    own = read_track(job.output("portrait")).cameras
    transfer = pose_transfer(own, job.settings.render)
    if transfer == "absolute":
        return transfer, driver
    unsmoothed = job.settings.render.model_copy(update={"pose_window": 1})
    cameras = target_cameras(read_track(job.output("fit")).cameras, own, unsmoothed, match_of(job))
    return transfer, replace(driver, angles_deg=degrees(angles_from_labels(cameras)))


def _result(job: Job, threads: int) -> SeenClip | None:
    """Return the tracker's view of the frames that the clip shows; None where no face is in them."""
    points = read_landmarks(landmarker(job, threads), _pictures(job), job.settings.tracking.batch)
    ok = seen(points)
    if not ok.any():
        return None
    cuts = job.output("person").read("cut")
    # by a shape of its own, as the driver is
    track = tracker(job).clip(points, ok, lambda: _pictures(job), cuts=cuts)
    return SeenClip(points, track, lambda: _pictures(job))


def _pictures(job: Job) -> Iterator[NDArray[np.uint8]]:
    return (image for _, image in shown_frames(job))


def shown_frames(job: Job, array: str = "frames") -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield the clip's frames: the number of the frame that is shown, and its picture ``[M,M,3]``.

    A frame that was not rendered is shown by its neighbour. Another array's row may stand for the picture.
    """
    output = job.output("render")
    for i in frames_shown(done_frames(job, "render")).tolist():
        yield i, output.read(array, i, i + 1)[0]


def _flicker(job: Job, page: Page | None) -> float | None:
    """Tell how what should hold still changes by itself, in grey levels of 255."""
    import torch

    from portrait_core.report.flicker import mean_difference, moved_difference, still_difference
    from tasks.stages.pose import output_cameras

    output, finished = job.output("render"), done_frames(job, "render")
    pairs = [(i - 1, i + 1) for i in range(1, job.frames) if finished[i - 1] and finished[i]]
    if job.settings.render.motion == "head":
        rows = (output.read_together(("frames", "coverage"), *pair) for pair in pairs)
        return mean_difference(still_difference(row["frames"], row["coverage"]) for row in rows)
    cameras = output_cameras(job)
    if page is not None:
        cameras = page.camera(torch.from_numpy(cameras), page.canvas).numpy()
    names = ("frames", "render_mask", "render_depth")
    seen = ((output.read_together(names, *pair), cameras[slice(*pair)]) for pair in pairs)
    return mean_difference(
        moved_difference(row["frames"], row["render_mask"], row["render_depth"], labels)
        for row, labels in seen
    )
