"""Square crops of images: axis-aligned ones for the pipeline, rotated ones for the landmark models.

Coordinates are continuous pixels: the image spans ``[0, W] x [0, H]`` and pixel centres lie at +0.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from portrait_core.errors import InputError
from portrait_core.tracking.surroundings import distance_outside, softened, surrounded

Beyond = Literal["repeat", "black"]
"""What a picture is taken for outside of it."""
_BORDERS = {"repeat": cv2.BORDER_REPLICATE, "black": cv2.BORDER_CONSTANT}


@dataclass(frozen=True)
class Place:
    """A square of a photograph that stands upright.

    Attributes:
        corner_px: x and y of its corner, in continuous pixels of the photograph.
        side_px: its side.
    """

    corner_px: tuple[float, float]
    side_px: float


def crop_image(
    image: NDArray[np.uint8], center_px: ArrayLike, side_px: float, size: int
) -> NDArray[np.uint8]:
    """Resample an axis-aligned square of an image.

    Shrinking averages over the covered area, enlarging is cubic; what lies outside the image is mirrored and
    blurred (:mod:`portrait_core.tracking.surroundings`).

    Args:
        image: ``[H,W,3]`` uint8.
        center_px: ``(x, y)`` of the square's centre in continuous pixels of ``image``.
        side_px: the square's side in pixels of ``image``, > 0.
        size: side of the result in pixels, >= 1.

    Returns:
        ``[size,size,3]`` uint8.

    Raises:
        ValueError: if the image is not ``[H,W,3]`` uint8, or the side or size is not positive and finite.
    """
    center, step = np.asarray(center_px, np.float64), side_px / size
    _check(image, center, side_px, size)
    reach = side_px / 2 + 3 * max(1.0, step)  # with what interpolation and averaging read beside it
    whole, begun = surrounded(image, np.floor(center - reach), np.ceil(center + reach), side_px)
    crop = sample_square(whole, center + begun, side_px, 0.0, size, cubic=True)
    x, y = (center[:, None] - side_px / 2) + (np.arange(size) + 0.5) * step
    return softened(crop, distance_outside(x, y, (image.shape[1], image.shape[0])) / step)


def points_in_crop(
    points_px: NDArray[np.floating], center_px: NDArray[np.floating], side_px: float, size: int
) -> NDArray[np.float32]:
    """Give points of an image ``[n,2]`` in pixels of its crop of ``size`` pixels (:func:`crop_image`)."""
    corner = center_px - side_px / 2
    return np.asarray((points_px - corner) * (size / side_px), np.float32)


def sample_square(
    image: NDArray[np.uint8],
    center_px: ArrayLike,
    side_px: float,
    angle_rad: float,
    size: int,
    cubic: bool = False,
    beyond: Beyond = "repeat",
) -> NDArray[np.uint8]:
    """Resample a square turned by ``angle_rad`` (clockwise in the image), as :func:`crop_image` does.

    Args:
        image: ``[H,W,3]`` uint8.
        center_px: ``(x, y)`` of the square's centre in continuous pixels of ``image``.
        side_px: the square's side in pixels of ``image``, > 0.
        angle_rad: the turn.
        size: side of the result in pixels, >= 1.
        cubic: whether interpolation is cubic rather than linear.
        beyond: what lies outside the image: its border repeated, or black.
    """
    center = np.asarray(center_px, dtype=np.float64)
    _check(image, center, side_px, size)
    shrink = max(1, int(side_px / size))
    window, origin = _window(
        image, center, side_px * (abs(math.cos(angle_rad)) + abs(math.sin(angle_rad))), shrink
    )
    step = side_px / size / shrink
    cos, sin = step * math.cos(angle_rad), step * math.sin(angle_rad)
    linear = np.array([[cos, -sin], [sin, cos]])
    # continuous output (i + 0.5) -> continuous window -> cv2's index, whose pixel centres are integers
    offset = (center - origin) / shrink + linear @ np.full(2, 0.5 - size / 2) - 0.5
    return cv2.warpAffine(  # type: ignore[return-value]
        window,
        np.concatenate([linear, offset[:, None]], axis=1),
        (size, size),
        flags=cv2.WARP_INVERSE_MAP | (cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR),
        borderMode=_BORDERS[beyond],
    )


def _check(image: NDArray[np.uint8], center: NDArray[np.float64], side_px: float, size: int) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"expected an [H,W,3] uint8 image, got {image.shape} {image.dtype}; convert it to RGB first"
        )
    if not (np.isfinite(center).all() and np.isfinite(side_px) and side_px > 0 and size >= 1):
        raise InputError(
            f"crop of centre {center.tolist()}, side {side_px}, size {size}: must be finite, the "
            "side and size positive; was a face found in this frame?"
        )


def _window(
    image: NDArray[np.uint8], center: NDArray[np.float64], extent: float, shrink: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Cut the part of the image a crop can reach and average it down by ``shrink``.

    Returns the window and the continuous position of its corner in the image.
    """
    if shrink == 1:
        return image, np.zeros(2)
    size = np.array(image.shape[1::-1])
    reach = extent / 2 + 2 * shrink
    low = np.clip(np.floor(center - reach), 0, size - 1).astype(int)
    high = np.clip(np.ceil(center + reach), low + 1, size).astype(int)
    window = image[low[1] : high[1], low[0] : high[0]]
    extra = -(high - low) % shrink
    window = np.pad(window, [(0, int(extra[1])), (0, int(extra[0])), (0, 0)], mode="edge")
    small = cv2.resize(
        window, (window.shape[1] // shrink, window.shape[0] // shrink), interpolation=cv2.INTER_AREA
    )
    return small, low.astype(np.float64)  # type: ignore[return-value]
