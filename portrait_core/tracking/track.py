"""Landmarks and fit in one call, for one image or a stream of frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from portrait_core.face_model.head import MorphableHead
from portrait_core.settings import TrackingSettings
from portrait_core.tracking.fit import FaceTrack, fit_clip
from portrait_core.tracking.landmarker import FaceLandmarker, LandmarkFrames


def track_image(
    landmarker: FaceLandmarker,
    head: MorphableHead,
    image: NDArray[np.uint8],
    settings: TrackingSettings | None = None,
) -> tuple[LandmarkFrames, FaceTrack]:
    """Track one portrait ``[H,W,3]`` uint8: landmarks and fit with T = 1.

    Raises:
        InputError: if there is no face in it.
    """
    found = landmarker.detect(image[None])
    return found, fit_clip(head, found.points, found.ok, settings)


def track_frames(
    landmarker: FaceLandmarker,
    head: MorphableHead,
    frames: Iterable[NDArray[np.uint8]],
    settings: TrackingSettings | None = None,
) -> tuple[LandmarkFrames, FaceTrack]:
    """Track a clip given frame by frame (``[H,W,3]`` uint8, one size). Holds one batch of frames at a time.

    Raises:
        InputError: if no frame has a face.
        ValueError: if there are no frames.
    """
    settings = settings or TrackingSettings()
    parts = [landmarker.detect(np.stack(batch)) for batch in _batches(frames, settings.batch)]
    if not parts:
        raise ValueError("there are no frames to track; check the frame range")
    found = LandmarkFrames(
        points=np.concatenate([part.points for part in parts]),
        score=np.concatenate([part.score for part in parts]),
        faces=np.concatenate([part.faces for part in parts]),
        ok=np.concatenate([part.ok for part in parts]),
    )
    return found, fit_clip(head, found.points, found.ok, settings)


def _batches(frames: Iterable[NDArray[np.uint8]], size: int) -> Iterator[list[NDArray[np.uint8]]]:
    iterator = iter(frames)
    while batch := list(islice(iterator, size)):
        yield batch
