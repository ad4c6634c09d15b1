"""The mask of the regions that carry most of the expression: mouth, eyes and brows."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

DETAIL_REGIONS = (
    (61, 291, 0, 17, 13, 14, 37, 267, 84, 314),
    (33, 133, 159, 145, 158, 153),
    (362, 263, 386, 374, 385, 380),
    (70, 63, 105, 66, 107, 55, 65, 52, 53, 46),
    (300, 293, 334, 296, 336, 285, 295, 282, 283, 276),
)
"""Mouth, right and left eye, right and left brow: landmarks on their outer contours among the 468 of the face
mesh."""
DETAIL_REGIONS_68 = tuple(tuple(range(*ends)) for ends in ((48, 60), (36, 42), (42, 48), (17, 22), (22, 27)))
"""The same regions in the 68-point scheme."""
_SIDE_PER_GROWTH, _SIDE_PER_BLUR = 42, 96
"""The picture's side over the width of the dilation and over the deviation of the blur around the regions."""


def detail_mask(
    landmarks_px: NDArray[np.floating],
    size: int,
    regions: Sequence[Sequence[int]] = DETAIL_REGIONS,
) -> NDArray[np.uint8]:
    """Draw mouth, eyes and brows as a soft mask.

    Args:
        landmarks_px: ``[N,2]``, in pixels of the picture: a face mesh, N >= 468, or others with ``regions``
            of their own.
        size: side of the picture in pixels.
        regions: numbers of the landmarks around each region.

    Returns:
        ``[size,size]`` uint8, 0..255.
    """
    mask = np.zeros((size, size), np.uint8)
    for region in regions:
        hull = cv2.convexHull(np.round(landmarks_px[list(region)]).astype(np.int32))
        cv2.fillConvexPoly(mask, hull, 255)
    grow = 2 * max(1, round(size / _SIDE_PER_GROWTH)) // 2 * 2 + 1
    grown = cv2.dilate(mask, np.ones((grow, grow), np.uint8))
    return np.asarray(cv2.GaussianBlur(grown, (0, 0), size / _SIDE_PER_BLUR))
