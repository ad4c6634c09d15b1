"""The oriented square of FFHQ's images, enlarged as EG3D's version of the data set has it.

The square follows eyes and mouth (Karras et al. 2018, "Progressive growing of GANs", appendix C) and is 1.8
times as large as FFHQ's; where it leaves the photograph, the photograph is mirrored and fades into a blur.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from portrait_core.errors import InputError

Array = NDArray[np.float64]

OUTPUT_SIZE, TRANSFORM_SIZE = 1500, 4096
QUAD_SCALE = 1.8
"""The square's side over FFHQ's."""
_BORDER, _MARGIN, _BLUR = 0.1, 0.3, 0.02
"""Shares of the square's side: kept surroundings, smallest padding, blur."""
_COARSE = 0.1
"""Blur and median are taken of a copy so many times the size."""


@dataclass(frozen=True)
class PreparedQuad:
    """A photograph cut and padded so that the quad lies inside."""

    image: NDArray[np.uint8]
    """``[H,W,3]``"""
    quad: Array
    """``[4,2]``: top-left, bottom-left, bottom-right, top-right corner; pixels with centres at +0.5."""
    crop_box: tuple[int, int, int, int] | None
    """Left, top, right, bottom of the part of the photograph that was kept; None: all of it."""


def oriented_quad(landmarks68: NDArray[np.floating], scale: float = QUAD_SCALE) -> Array:
    """Return the square ``[4,2]`` around a face: top-left, bottom-left, bottom-right, top-right.

    Args:
        landmarks68: ``[68,2]`` pixels with centres at integers.
        scale: the side over FFHQ's.

    Raises:
        ValueError: if the landmarks are not ``[68,2]``.
        InputError: if they are not finite, or lie in one place.
    """
    points = np.asarray(landmarks68, dtype=np.float64)
    if points.shape != (68, 2):
        raise ValueError(f"landmarks must be [68,2], got {points.shape}; see landmarks68")
    if not np.isfinite(points).all():
        raise InputError("the landmarks of a face are not finite; was a face found in this image?")
    left, right = points[36:42].mean(0), points[42:48].mean(0)
    mouth = (points[48] + points[54]) / 2
    eyes = (left + right) / 2
    across, down = right - left, mouth - eyes
    axis = across + np.array([down[1], -down[0]])
    length = float(np.hypot(*axis))
    if length < 1e-6:
        raise InputError("the landmarks of a face lie in one place; was a face found in this image?")
    half = max(float(np.hypot(*across)) * 2.0, float(np.hypot(*down)) * 1.8) * scale
    x = axis / length * half
    y = np.array([-x[1], x[0]])
    center = eyes + 0.1 * down
    return np.stack([center - x - y, center - x + y, center + x + y, center + x - y])


def align_ffhq(
    image: NDArray[np.uint8],
    landmarks68: NDArray[np.floating],
    output_size: int = OUTPUT_SIZE,
    transform_size: int = TRANSFORM_SIZE,
    scale: float = QUAD_SCALE,
) -> NDArray[np.uint8]:
    """Return the aligned face ``[output_size,output_size,3]`` uint8.

    Args:
        image: photograph ``[H,W,3]`` uint8.
        landmarks68: ``[68,2]`` pixels with centres at integers.
        output_size: side of the result.
        transform_size: side at which the square is sampled, before it is averaged down.
        scale: the square's side over FFHQ's.

    Raises:
        ValueError: if image or landmarks have another form.
        InputError: if the landmarks lie in one place.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"expected an image [H,W,3] uint8, got {image.shape} {image.dtype}; convert to RGB")
    found = prepare_quad(image, oriented_quad(landmarks68, scale), output_size)
    size = (transform_size, transform_size)
    corners = tuple(found.quad.reshape(-1).tolist())
    picture = Image.fromarray(found.image)
    square = picture.transform(size, Image.Transform.QUAD, corners, Image.Resampling.BILINEAR)
    if output_size < transform_size:
        square = square.resize((output_size, output_size), Image.Resampling.LANCZOS)
    return np.asarray(square)


def prepare_quad(image: NDArray[np.uint8], quad: Array, output_size: int = OUTPUT_SIZE) -> PreparedQuad:
    """Shrink, cut and pad a photograph ``[H,W,3]`` for the square ``quad [4,2]`` (centres at integers)."""
    side = float(np.hypot(*(quad[3] - quad[0])))
    image, quad, side = _shrunk(image, quad, side, output_size)
    border = max(round(side * _BORDER), 3)
    size = np.array(image.shape[1::-1])
    low = np.maximum(np.floor(quad.min(0)).astype(int) - border, 0)
    high = np.minimum(np.ceil(quad.max(0)).astype(int) + border, size)
    box = None
    if (high - low < size).any():
        box = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
        image, quad = image[low[1] : high[1], low[0] : high[0]], quad - low
        size = high - low
    before = np.maximum(-np.floor(quad.min(0)).astype(int) + border, 0)
    after = np.maximum(np.ceil(quad.max(0)).astype(int) - size + border, 0)
    if max(before.max(), after.max()) > border - 4:
        smallest = round(side * _MARGIN)
        before, after = np.maximum(before, smallest), np.maximum(after, smallest)
        image = _padded(image, before, after, side)
        quad = quad + before
    return PreparedQuad(image, quad + 0.5, box)


def _shrunk(
    image: NDArray[np.uint8], quad: Array, side: float, output_size: int
) -> tuple[NDArray[np.uint8], Array, float]:
    """Average a photograph down whose square is more than four times as large as the result."""
    shrink = int(np.floor(side / output_size * 0.5))
    if shrink <= 1:
        return image, quad, side
    size = tuple(round(n / shrink) for n in image.shape[1::-1])
    small = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    return np.asarray(small), quad / shrink, side / shrink


def _padded(
    image: NDArray[np.uint8], before: NDArray[np.int64], after: NDArray[np.int64], side: float
) -> NDArray[np.uint8]:
    """Mirror the photograph beyond its edges, where it fades into its blur and its median colour."""
    pad = ((before[1], after[1]), (before[0], after[0]), (0, 0))
    out: NDArray[Any] = np.pad(image.astype(np.float32), pad, "reflect")
    height, width = out.shape[:2]
    y, x = np.ogrid[:height, :width]
    near = np.minimum(x / np.float32(before[0]), (width - 1 - x) / np.float32(after[0]))
    near = np.minimum(near, np.minimum(y / np.float32(before[1]), (height - 1 - y) / np.float32(after[1])))
    outside = (1.0 - near)[..., None]
    coarse = cv2.resize(out, None, fx=_COARSE, fy=_COARSE, interpolation=cv2.INTER_AREA)
    blur = side * _BLUR * _COARSE
    smooth = cv2.resize(
        gaussian_filter(coarse, [blur, blur, 0]), (width, height), interpolation=cv2.INTER_LANCZOS4
    )
    out += (smooth - out) * np.clip(outside * 3.0 + 1.0, 0.0, 1.0)
    coarse = cv2.resize(out, None, fx=_COARSE, fy=_COARSE, interpolation=cv2.INTER_AREA)
    out += (np.median(coarse, axis=(0, 1)) - out) * np.clip(outside, 0.0, 1.0)
    return np.asarray(np.clip(np.rint(out), 0, 255), dtype=np.uint8)
