"""Surroundings of a picture beyond its edge: itself mirrored, blurred the more the farther away.

A border that is repeated draws stripes, which catch the eye wherever a crop leaves its photograph.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_BLUR = 0.04
"""Standard deviation of the blur far outside, over the side of what is shown."""
_FADE = 0.08
"""Distance from the edge at which the blur is complete, over the side of what is shown."""


def mirrored(index: NDArray[np.integer], length: int) -> NDArray[np.int64]:
    """Return the indices ``0 .. length - 1`` that a mirrored line of pixels has at any index."""
    inside = np.asarray(index, np.int64) % (2 * length)
    return np.where(inside < length, inside, 2 * length - 1 - inside)


def distance_outside(
    x: NDArray[np.floating], y: NDArray[np.floating], size: tuple[int, int]
) -> NDArray[np.float32]:
    """Return how far each place of a grid lies outside a picture, in pixels; 0 inside.

    Args:
        x: columns ``[w]`` in continuous pixels of the picture.
        y: rows ``[h]``.
        size: width and height of the picture.

    Returns:
        ``[h,w]``.
    """
    across = np.maximum(np.maximum(-x, x - size[0]), 0.0)
    down = np.maximum(np.maximum(-y, y - size[1]), 0.0)
    return np.maximum(across[None], down[:, None]).astype(np.float32)


def softened(picture: NDArray[np.uint8], outside: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Blur a mirrored picture where it shows what is outside.

    Args:
        picture: ``[h,w,3]`` uint8, mirrored beyond the edge.
        outside: how far each pixel lies outside ``[h,w]``, in pixels of ``picture``.

    Returns:
        ``[h,w,3]`` uint8; pixels inside are those of ``picture``.
    """
    if not outside.any():
        return picture
    side = max(picture.shape[:2])
    blurred = cv2.GaussianBlur(picture, (0, 0), max(1.0, _BLUR * side)).astype(np.float32)
    weight = np.clip(outside / (_FADE * side), 0.0, 1.0)[..., None]
    return np.asarray(np.rint(picture + (blurred - picture) * weight), np.uint8)
