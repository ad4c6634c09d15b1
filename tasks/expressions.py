"""The regions of the face at every stage of a clip: what is read from its outputs, in the head's frame. The
arithmetic is in ``portrait_core.metrics.follow``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from portrait_core.metrics.follow import Measured, spread_evenly
from portrait_core.pipeline import Job
from portrait_core.pipeline.ledger import done
from portrait_core.tracking.choice import by_deca
from portrait_core.tracking.measure import seen
from tasks.context import head, landmarker, read_track
from tasks.trackers import read_moves

if TYPE_CHECKING:
    from portrait_core.tracking.fit import FaceTrack

TEMPLATES_READ = 120
"""At most so many templates are read again."""


@dataclass(frozen=True)
class SeenClip:
    """Frames that the landmark networks have read.

    Attributes:
        points: landmarks ``[T,478,2]`` in pixels; NaN where there is no face.
        track: what the job's tracker made of them.
    """

    points: NDArray[np.float32]
    track: FaceTrack


def measured_driver(job: Job) -> Measured:
    """Measure the driver's face in every frame."""
    return _read(job, job.output("landmarks").read("landmarks"), read_track(job.output("fit")), None)


def measured_stages(job: Job, result: SeenClip | None, threads: int) -> dict[str, Measured]:
    """Measure the portrait's face at every stage, by the stage's name.

    DECA's head has other landmarks, so that with it the pictures alone are measured. A stage without any face
    is left out.

    Args:
        job: a clip's.
        result: what was read from the frames that the clip shows; None where they show no face.
        threads: of the landmark networks.
    """
    from portrait_core.tracking.head_frame import head_landmarks

    shape, found = _portrait_shape(job), dict[str, Measured]()
    if not by_deca(job.settings):
        fit, moves = read_track(job.output("fit")), read_moves(job, 0, job.frames)
        found["fit"] = Measured.of(head_landmarks(head(job), fit.shape, fit.expression, fit.jaw))
        found["retargeted"] = Measured.of(head_landmarks(head(job), shape, moves["expression"], moves["jaw"]))
    if (template := _template(job, shape, threads)) is not None:
        found["template"] = template
    if result is not None:
        found["result"] = _read(job, result.points, result.track, shape, from_pictures=True)
    return found


def _template(job: Job, shape: NDArray[np.floating], threads: int) -> Measured | None:
    """Read templates again, evenly spread over the clip."""
    frames = spread_evenly(np.flatnonzero(done(job, "template")), TEMPLATES_READ)
    if not len(frames):
        return None
    model, templates = landmarker(job, threads), job.output("template")
    found = []
    for start in range(0, len(frames), job.settings.tracking.batch):
        part = frames[start : start + job.settings.tracking.batch].tolist()
        pictures = np.concatenate([templates.read("template", i, i + 1) for i in part])
        found.append(model.detect(pictures).points)
    points = np.concatenate(found)
    if not seen(points).any():
        return None
    track = _fitted(job, points, shape, neighbours=len(frames) == job.frames)
    return _lifted(job, points, track, frames, from_pictures=True)


def _read(
    job: Job,
    points: NDArray[np.float32],
    track: FaceTrack,
    shape: NDArray[np.floating] | None,
    from_pictures: bool = False,
) -> Measured:
    """Measure frames of the whole clip. DECA's track does not say how deep the landmarks lie: the embedded
    head is fitted to them."""
    fitted = _fitted(job, points, shape) if by_deca(job.settings) else track
    return _lifted(job, points, fitted, None, from_pictures)


def _lifted(
    job: Job,
    points: NDArray[np.float32],
    track: FaceTrack,
    frames: NDArray[np.intp] | None,
    from_pictures: bool,
) -> Measured:
    from portrait_core.tracking.head_frame import lift_clip

    return Measured.of(lift_clip(head(job), points, track), frames, from_pictures)


def _fitted(
    job: Job, points: NDArray[np.float32], shape: NDArray[np.floating] | None, neighbours: bool = True
) -> FaceTrack:
    """Fit the embedded head."""
    from portrait_core.tracking.embedded_tracker import EmbeddedTracker

    reader = EmbeddedTracker(head(job), job.settings.tracking)
    return reader.clip(points, seen(points), lambda: (), shape, neighbours)


def _portrait_shape(job: Job) -> NDArray[np.floating]:
    """The portrait's coefficients of the embedded head's shape ``[S]``."""
    output = job.output("portrait")
    if by_deca(job.settings):
        return _fitted(job, output.read("landmarks"), None).shape
    return read_track(output).shape
