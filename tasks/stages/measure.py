"""Stage ``measure``: the result seen by the tracker, against the driver and against the still portrait."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from portrait_core.pipeline import Job, Note, Stage
from portrait_core.pipeline.ledger import Ledger, done
from portrait_core.pipeline.ranges import held_frames
from portrait_core.pipeline.results import StageResult, Stopwatch
from portrait_core.pipeline.weights import landmark_weights, tracking_weights
from portrait_core.tracking.measure import measure as measured
from portrait_core.tracking.measure import seen
from tasks.context import landmarker, read_track, use_threads
from tasks.running import does
from tasks.trackers import tracker

if TYPE_CHECKING:
    from portrait_core.metrics.motion import MotionTrack
    from portrait_core.tracking.fit import FaceTrack


MOTION = "motion"
"""Note of what was measured."""

MEASURE = Stage(
    name="measure",
    title="measure result",
    version=2,
    unit="reenactment",
    reads=("portrait", "landmarks", "fit", "pose", "render"),
    settings=("tracking",),
    weights=(landmark_weights, tracking_weights),
    writes=(Note(MOTION),),
    shows_gaps_of="render",
)


@does(MEASURE, precision="fp32")
def measure(job: Job) -> StageResult:
    """Track the result and compare lips, eyes, head pose; see how still the background is."""
    watch = Stopwatch("measure", 0, 1)
    ledger = Ledger(job)
    if ledger.done("measure").all():
        return watch.result(0)
    from portrait_core.metrics.motion import compare_motion

    threads = use_threads(job, alone=True)
    driver = driver_motion(job)
    source = job.output("portrait")
    still = _motion(source.read("landmarks"), read_track(source)).repeated(job.frames)
    result = _result_motion(job, threads)
    said: dict[str, Any] = {"faces_found": int(result.ok.sum())}
    if (driver.ok & result.ok).any():
        said["result"] = compare_motion(driver, result).model_dump(mode="json")
        said["result"]["background_flicker"] = _flicker(job)
    if (driver.ok & still.ok).any():
        said["still_portrait"] = compare_motion(driver, still).model_dump(mode="json")
        said["still_portrait"]["background_flicker"] = 0.0
    output = ledger.output("measure")
    output.write_note(MOTION, said)
    output.commit()
    return watch.result(1)


def driver_motion(job: Job) -> MotionTrack:
    """What the tracker saw of the driver."""
    points = job.output("landmarks").read("landmarks")
    return _motion(points, read_track(job.output("fit")))


def _motion(points: NDArray[np.float32], track: FaceTrack) -> MotionTrack:
    from portrait_core.cameras import angles_from_labels, degrees
    from portrait_core.metrics.motion import MotionTrack

    values = measured(points)
    angles = degrees(angles_from_labels(track.cameras))
    ok = seen(points)
    return MotionTrack(values["lip_gap"], values["eye_opening"], angles, ok)


def _result_motion(job: Job, threads: int) -> MotionTrack:
    """The tracker's view of the frames that the clip shows."""
    from portrait_core.metrics.motion import MotionTrack

    model = landmarker(job, threads)
    found, shown = [], _pictures(job)
    while batch := list(islice(shown, job.settings.tracking.batch)):
        found.append(model.detect(np.stack(batch)).points)
    points = np.concatenate(found)
    ok = seen(points)
    if not ok.any():
        nothing = np.full(job.frames, np.nan)
        return MotionTrack(nothing, nothing, np.full((job.frames, 3), np.nan), ok)
    shape = read_track(job.output("portrait")).shape
    return _motion(points, tracker(job).clip(points, ok, lambda: _pictures(job), shape))


def _pictures(job: Job) -> Iterator[NDArray[np.uint8]]:
    return (image for _, image in shown_frames(job))


def shown_frames(job: Job) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The clip, frame by frame: which frame is shown, itself or, where it was not rendered, its neighbour,
    and the picture ``[S,S,3]``."""
    output = job.output("render")
    for i in held_frames(done(job, "render")).tolist():
        yield i, output.read("frames", i, i + 1)[0]


def _flicker(job: Job) -> float | None:
    """Mean motion-compensated difference of consecutive frames outside the face, of 255."""
    from portrait_core.report.flicker import moved_difference
    from tasks.stages.pose import output_cameras

    output = job.output("render")
    cameras = output_cameras(job)
    finished = done(job, "render")
    pairs = [i for i in range(1, job.frames) if finished[i - 1] and finished[i]]
    found = []
    for i in pairs:
        frames, masks, depths = (
            output.read(name, i - 1, i + 1) for name in ("frames", "render_mask", "render_depth")
        )
        found.append(moved_difference(frames, masks, depths, cameras[i - 1 : i + 1]))
    known = [value for value in found if value is not None]
    return round(float(np.mean(known)), 4) if known else None
