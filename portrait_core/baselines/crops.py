"""The square of 256 pixels that PIRenderer and Face-vid2vid see: one for a whole clip.

Both were trained on VoxCeleb, whose clips are cut once: a square stands still, wide enough for the face's way
through the clip with hair, chin and some surroundings, and the face moves within it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from portrait_core.tracking.crop import crop_image, points_in_crop

SIZE = 256
"""Side in pixels of the pictures that both methods read and draw."""
ENLARGEMENT = 1.7
"""Side of the square over the longer side of the landmarks' box.

The value is ours: neither paper states one. Landmarks span brows to chin; with it a face that stands still
fills 59 % of the square, hair and shoulders about the rest.
"""
_RISE = 0.08
"""Share of the side by which the square stands above the landmarks' middle, as hair needs more room than the
neck; ours too."""


def clip_square(
    landmarks: NDArray[np.floating], enlargement: float = ENLARGEMENT
) -> tuple[NDArray[np.float64], float]:
    """Find one square for a clip, around the union of its faces.

    Frames without a face (landmarks that are not finite) are left aside.

    Args:
        landmarks: ``[T,478,2]`` continuous pixels of the frames, y down (any number of points, at least two).
        enlargement: side of the square over the longer side of the union's box.

    Returns:
        The square's centre ``(x, y)`` and its side, in pixels of the frames. It may reach beyond the frames:
        :func:`cut` repeats the border there.

    Raises:
        ValueError: if landmarks are not ``[T,n,2]``, no frame has a face, the faces have no extent, or the
            enlargement is not positive and finite.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    if points.ndim != 3 or points.shape[2] != 2:
        raise ValueError(f"expected landmarks [T,n,2], got {points.shape}; pass those of the stage landmarks")
    if not (np.isfinite(enlargement) and enlargement > 0):
        raise ValueError(f"the enlargement must be positive and finite, got {enlargement}")
    found = points[np.isfinite(points).all((1, 2))]
    if found.size == 0:
        raise ValueError("no frame of the clip has a face: there is nothing to cut; check its landmarks")
    low, high = found.min((0, 1)), found.max((0, 1))
    side = float((high - low).max()) * enlargement
    if side <= 0:
        raise ValueError("all landmarks of the clip lie in one place; was a face found in it?")
    return (low + high) / 2 - [0.0, _RISE * side], side


def cut(
    image: NDArray[np.uint8], center_px: NDArray[np.floating], side_px: float, size: int = SIZE
) -> NDArray[np.uint8]:
    """Cut the square of :func:`clip_square` out of a frame.

    Args:
        image: ``[H,W,3]`` uint8 RGB.
        center_px: the square's centre ``(x, y)`` in continuous pixels.
        side_px: its side in pixels.
        size: side of the result in pixels.

    Returns:
        ``[size,size,3]`` uint8 RGB; beyond the image its border is repeated.

    Raises:
        ValueError: if the image is not ``[H,W,3]`` uint8, or the square is not finite and positive.
    """
    return crop_image(image, center_px, side_px, size)


def points_in_square(
    landmarks: NDArray[np.floating], center_px: NDArray[np.floating], side_px: float, size: int = SIZE
) -> NDArray[np.float32]:
    """Give landmarks ``[T,n,2]`` of the frames in pixels of the cut square."""
    flat = points_in_crop(np.asarray(landmarks).reshape(-1, 2), np.asarray(center_px), side_px, size)
    return flat.reshape(np.shape(landmarks))
