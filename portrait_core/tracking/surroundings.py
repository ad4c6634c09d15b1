"""Surroundings of a picture beyond its edge: its border mirrored, blurred the more the farther away.

A border that is repeated draws stripes, which catch the eye wherever a crop leaves its photograph.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_BLUR = 0.04
"""Standard deviation of the blur far outside, over the side of what is shown."""
_STRIP = 0.04
"""Width of the strip along an edge that is mirrored outside, over the side of what is shown."""
_FADE = 0.08
"""Distance from the edge at which the blur is complete, over the side of what is shown."""


def mirrored(index: NDArray[np.integer], length: int, side: float) -> NDArray[np.int64]:
    """Return the indices ``0 .. length - 1`` that a mirrored line of pixels has at any index.

    A strip along each edge is mirrored to and fro; what lies deeper in the picture, a face for example, does
    not come back outside.

    Args:
        index: places on the line, also outside of it.
        length: number of its pixels.
        side: side of what is shown, in the same pixels.
    """
    strip = int(np.clip(round(_STRIP * side), 1, length))
    places = np.asarray(index, np.int64)
    before, after = -1 - places, places - length
    folded = np.maximum(before, after) % (2 * strip)
    depth = np.minimum(folded, 2 * strip - 1 - folded)
    return np.where(before >= 0, depth, np.where(after >= 0, length - 1 - depth, places))


def surrounded(
    image: NDArray[np.uint8], low: NDArray[np.integer], high: NDArray[np.integer], side: float
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Extend an image so that it covers a rectangle; what lies outside is mirrored.

    Args:
        image: ``[H,W]`` or ``[H,W,C]``.
        low: first column and row of the rectangle.
        high: the column and row behind its last ones.
        side: side of what is shown, in pixels of ``image``.

    Returns:
        The image, itself where it covers the rectangle, and the columns and rows by which it begins earlier.
    """
    size = np.array(image.shape[1::-1])
    before = np.maximum(0, -np.asarray(low, np.int64))
    after = np.maximum(0, np.asarray(high, np.int64) - size)
    if not (before.any() or after.any()):
        return image, before
    columns, rows = (
        mirrored(np.arange(-start, length + end), int(length), side)
        for start, length, end in zip(before, size, after, strict=True)
    )
    return np.ascontiguousarray(image[rows[:, None], columns[None]]), before


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
