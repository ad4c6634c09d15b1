"""The regions of the face at every stage of a clip: what is read from its outputs, in the head's frame.

The arithmetic is in ``portrait_core.metrics.follow``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from portrait_core.metrics.follow import Measured, count_closed_lips, follow_rows
from portrait_core.metrics.lip_colors import measure_lips
from portrait_core.metrics.reader_slopes import READER
from portrait_core.pipeline import Job
from portrait_core.pipeline.ledger import done_frames
from portrait_core.template.registry import face_model_row
from portrait_core.tracking.measure import seen, spread_evenly
from tasks.context import driving_frames, head, landmarker, read_track
from tasks.trackers import read_moves

if TYPE_CHECKING:
    from portrait_core.tracking.fit import FaceTrack
    from portrait_core.tracking.landmarker import FaceLandmarker
    from portrait_core.tracking.trackers import Frames

TEMPLATES_READ = 120
"""At most so many templates are read again."""
PLAIN_READ = 40
"""At most so many frames of driver and result are read by the face mesh alone."""


@dataclass(frozen=True)
class SeenClip:
    """Frames that the landmark networks have read.

    Attributes:
        points: landmarks ``[T,478,2]`` in pixels; NaN where there is no face.
        track: of the head that was fitted to them.
        pictures: gives the T frames ``[H,W,3]``, whenever it is called.
    """

    points: NDArray[np.float32]
    track: FaceTrack
    pictures: Frames


def expression_rows(job: Job, result: SeenClip | None, threads: int) -> dict[str, Any]:
    """Report how the expression follows the driver's at every stage.

    Args:
        job: a clip's.
        result: what was read from the frames that the clip shows, with the track of the job's tracker; None
            where they show no face.
        threads: of the landmark networks.

    Returns:
        ``follow`` and ``regions`` (:func:`follow_rows`); ``lips_closed`` (:func:`count_closed_lips`);
        ``follow_plain_reader``, how the result follows where both it and the driver are read by the face mesh
        alone, without the network that looks again at lips and eyes: empty where no face is shown.
    """
    driver = seen_driver(job)
    if result is not None:
        result = _with_head(job, result)
    measured, stages = measured_clip(job, driver), measured_stages(job, result, threads)
    return follow_rows(measured, stages, READER) | {
        "lips_closed": count_closed_lips(measured, stages.get("result")),
        "follow_plain_reader": {} if result is None else _follow_plain(job, driver, result, threads),
    }


def seen_driver(job: Job) -> SeenClip:
    """Return what was read of the driver, with the track of the embedded head."""
    points, track = job.output("person").read("landmarks"), read_track(job.output("fit"))
    return _with_head(job, SeenClip(points, track, lambda: driving_frames(job)))


def measured_stages(job: Job, result: SeenClip | None, threads: int) -> dict[str, Measured]:
    """Measure the portrait's face at every stage, by the stage's name.

    Heads other than the embedded one have other landmarks, so that with them only pictures are measured. A
    stage without any face is left out.

    Args:
        job: a clip's.
        result: what was read from the frames that the clip shows, with the track of the embedded head; None
            where they show no face.
        threads: of the landmark networks.
    """
    from portrait_core.tracking.head_frame import head_landmarks

    shape, found = _portrait_shape(job), dict[str, Measured]()
    if face_model_row(job.settings).fits_embedded_head:
        fit, moves = read_track(job.output("fit")), read_moves(job, 0, job.frames)
        found["fit"] = Measured.of(head_landmarks(head(job), fit.shape, fit.expression, fit.jaw))
        found["retargeted"] = Measured.of(head_landmarks(head(job), shape, moves["expression"], moves["jaw"]))
    if (template := _template(job, threads)) is not None:
        found["template"] = template
    if result is not None:
        found["result"] = measured_clip(job, result, painted=True)
    return found


def read_landmarks(
    model: FaceLandmarker, pictures: Iterable[NDArray[np.uint8]], batch: int
) -> NDArray[np.float32]:
    """Read the landmarks ``[T,478,2]`` of T >= 1 pictures ``[H,W,3]``, ``batch`` of them at a time.

    They are NaN where there is no face.
    """
    found, left = [], iter(pictures)
    while some := list(islice(left, batch)):
        found.append(model.detect(np.stack(some)).points)
    return np.concatenate(found)


def _template(job: Job, threads: int) -> Measured | None:
    """Read templates again, evenly spread over the clip."""
    frames = spread_evenly(np.flatnonzero(done_frames(job, "template")), TEMPLATES_READ)
    if not len(frames):
        return None
    output = job.output("template")

    def pictures() -> Iterator[NDArray[np.uint8]]:
        return (output.read("template", i, i + 1)[0] for i in frames.tolist())

    points = read_landmarks(landmarker(job, threads), pictures(), job.settings.tracking.batch)
    if not seen(points).any():
        return None
    # frames between which others were left out have nothing to do with each other
    cuts = None if len(frames) == job.frames else np.ones(len(frames), bool)
    track = fitted_track(job, points, cuts)
    return measured_clip(job, SeenClip(points, track, pictures), frames, painted=True)


def measured_clip(
    job: Job, clip: SeenClip, frames: NDArray[np.intp] | None = None, painted: bool = False
) -> Measured:
    """Measure what was read of pictures, of ``frames`` or of all; ``painted``: by the program."""
    from portrait_core.tracking.head_frame import lift_clip

    found = Measured.of(lift_clip(head(job), clip.points, clip.track), frames, from_pictures=painted)
    return found.with_regions(measure_lips(clip.pictures, clip.points))


def _follow_plain(job: Job, driver: SeenClip, result: SeenClip, threads: int) -> dict[str, Any]:
    """Read frames in which both show a face once more, by the face mesh alone.

    The mesh is lifted to the depth of the same tracks.
    """
    from portrait_core.tracking.fit import with_rows_of
    from portrait_core.tracking.head_frame import lift_clip

    frames = spread_evenly(np.flatnonzero(seen(driver.points) & seen(result.points)), PLAIN_READ)
    if not len(frames):
        return {}
    model, chosen = landmarker(job, threads, refine=False), set(frames.tolist())

    def read(clip: SeenClip) -> Measured:
        pictures = (picture for i, picture in enumerate(clip.pictures()) if i in chosen)
        points = read_landmarks(model, pictures, job.settings.tracking.batch)
        track = with_rows_of(clip.track, frames, clip.track.ok[frames])
        return Measured.of(lift_clip(head(job), points, track))

    found: dict[str, Any] = follow_rows(read(driver), {"result": read(result)})["follow"]
    return found


def _with_head(job: Job, clip: SeenClip) -> SeenClip:
    """Return the clip with a track of the embedded head.

    Other tracks do not tell how deep the landmarks lie, so that the embedded head is fitted to them.
    """
    if face_model_row(job.settings).fits_embedded_head:
        return clip
    return replace(clip, track=fitted_track(job, clip.points))


def fitted_track(job: Job, points: NDArray[np.float32], cuts: NDArray[np.bool_] | None = None) -> FaceTrack:
    """Fit the embedded head, with a shape of its own.

    Args:
        job: whose head and settings count.
        points: landmarks ``[T,478,2]``.
        cuts: where new scenes begin ``[T]``; None stands for the driver's, in a clip as long as it.
    """
    from portrait_core.tracking.embedded_tracker import EmbeddedTracker

    reader = EmbeddedTracker(head(job), job.settings.tracking)
    if cuts is None and len(points) == job.frames and "person" in job.stages:
        cuts = job.output("person").read("cut")
    return reader.clip(points, seen(points), lambda: (), cuts=cuts)


def _portrait_shape(job: Job) -> NDArray[np.floating]:
    """Return the portrait's coefficients of the embedded head's shape ``[S]``."""
    output = job.output("portrait")
    if face_model_row(job.settings).fits_embedded_head:
        return read_track(output).shape
    return fitted_track(job, output.read("landmarks")).shape
