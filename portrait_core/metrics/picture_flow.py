"""Motion between pictures of one face before a still camera, by dense optical flow: no face network.

A landmark network knows faces: it reads each part partly by the rest, and damps what the rest does not
confirm. Flow compares pixels alone, so it tells whether a change that the network does not report is in the
picture. Templates suit it, because their camera stands still. It sees what moves along with its surroundings
(brows, corners of the mouth, irises between open lids). It does not see edges that pass over what lies behind
them: lids over the eyeball, with them the corners of the eyes, and lips that part. So the corners of the eyes
are held where the reference picture has them (:func:`with_eyes_held`), and a truth that flow is compared with
has to hold them too: on a mesh whose lids move they move, by about as much as the brows.

How much it reports of known changes: :data:`portrait_core.metrics.reader_slopes.FLOW`.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from portrait_core.face_model.topology import N_POINTS
from portrait_core.metrics.follow import Array, Regions, measure_regions

FLOW_REGIONS = (
    "mouth width",
    "corners' difference",
    "inner brows",
    "outer brows",
    "brows' difference",
    "gaze across",
    "gaze up",
)
"""Regions that flow reads; the others need lids or parted lips."""
CARRIED = np.array([70, 105, 107, 300, 334, 336, 61, 291, 468, 473])
"""Landmarks that flow carries: brows, corners of the mouth, irises."""
EYE_CORNERS = np.array([33, 133, 362, 263])
"""Landmarks that are held."""
_WORK_SIDE = 512
"""Longer side in pixels to which pictures are resized before they are compared."""
_BLUR_PX = 2.0
"""Deviation of the blur of a flow before it is sampled, in those pixels."""
_ROUND_TRIP = 0.002
"""Largest miss of the way there and back, over the pictures' longer side: half a pixel of 256."""


def carried_landmarks(
    pictures: Iterable[NDArray[np.uint8]], reference: NDArray[np.uint8], landmarks: NDArray[np.floating]
) -> Array:
    """Carry landmarks of one picture by the flow to others.

    Args:
        pictures: n pictures ``[H,W,3]`` RGB of the reference's size.
        reference: the picture ``[H,W,3]`` that is compared with each.
        landmarks: of the reference ``[478,2]`` in its pixels (centres at +0.5).

    Returns:
        ``[n,478,2]`` in pixels: the landmarks of :data:`CARRIED` where each picture shows them, NaN where the
        flow back from there does not return to the start, so that it saw nothing; the others as given.

    Raises:
        ValueError: there are not 478 landmarks, or a picture is not of the reference's size.
    """
    start = np.asarray(landmarks, np.float64)
    if start.shape != (N_POINTS, 2):
        raise ValueError(
            f"expected landmarks [{N_POINTS},2] of the reference picture, got {start.shape}; find them with "
            "FaceLandmarker.detect"
        )
    side = max(reference.shape[:2])
    first, found = _grey(reference), []
    for picture in pictures:
        if picture.shape != reference.shape:
            raise ValueError(
                f"a picture is {picture.shape}, the reference {reference.shape}; flow compares pictures of "
                "one size, taken by one camera"
            )
        second = _grey(picture)
        there = _flow_at(first, second, start[CARRIED], side)
        back = _flow_at(second, first, start[CARRIED] + there, side)
        there[np.linalg.norm(there + back, axis=1) > _ROUND_TRIP * side] = np.nan
        moved = start.copy()
        moved[CARRIED] += there
        found.append(moved)
    return np.stack(found)


def _flow_at(first: NDArray[np.uint8], second: NDArray[np.uint8], places: Array, side: int) -> Array:
    """Return the flow from one work picture to another at places of the first ``[k,2]``.

    Places and flow are in pixels of pictures whose longer side is ``side``.
    """
    # the finest scale is the work picture itself: a step coarser loses a tenth of a brow's move
    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    method.setFinestScale(0)
    scale = _WORK_SIDE / side
    flow = cv2.GaussianBlur(
        method.calc(first, second, np.zeros((*first.shape, 2), np.float32)), (0, 0), _BLUR_PX
    )
    column, row = (places * scale - 0.5).astype(np.float32).T[:, None]
    sampled = cv2.remap(flow, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0]
    return np.asarray(sampled / scale, np.float64)


def _grey(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the grey levels of a picture, its longer side resized to :data:`_WORK_SIDE`."""
    scale = _WORK_SIDE / max(picture.shape[:2])
    how = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, None, fx=scale, fy=scale, interpolation=how), np.uint8)


def with_eyes_held(points: NDArray[np.floating], reference: int) -> Array:
    """Hold the corners of the eyes of ``points [n,478,k]`` where the frame ``reference`` has them."""
    held = np.array(points, np.float64)
    held[:, EYE_CORNERS] = held[reference, EYE_CORNERS]
    return held


def measure_flow(points: NDArray[np.floating]) -> dict[str, Array]:
    """Measure what flow reads of landmarks ``[n,478,2]`` or ``[n,478,3]`` in the head's frame, y up.

    Returns:
        :data:`FLOW_REGIONS` of :func:`~portrait_core.metrics.follow.measure_regions`, ``[n]`` each; NaN where
        a landmark was not seen.
    """
    found = measure_regions(points)
    return {name: found[name] for name in FLOW_REGIONS}


def middle_frame(regions: Regions) -> int:
    """Return the frame whose regions are nearest to their medians, each over its deviation.

    Flow is surest from a picture that differs little from the others.
    """
    off = [
        ((values - np.median(values)) / values.std()) ** 2 for values in regions.values() if values.std() > 0
    ]
    return int(np.argmin(np.sum(off, axis=0))) if off else 0
