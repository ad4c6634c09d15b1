"""Alignment of an image by five points, as Deep3DFaceRecon and EG3D's preprocessing do it.

Points are the eye at the image's left, the one at its right, the nose's tip, the mouth's left and right
corners, in pixels with centres at integers. They are matched to a standard face under an affine camera, which
gives a scale and a centre; the image is resized so that the face has a fixed size, and a square is cut.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from portrait_core.errors import InputError

Array = NDArray[np.float64]

_WHOLE_LIMIT = 2**25
"""Pixels of the largest image that is resized as a whole."""

STANDARD_FACE: Array = np.array(
    [
        [-0.31148657, 0.29036078, 0.13377953],
        [0.30979887, 0.28972036, 0.13179526],
        [0.0032535, -0.04617932, 0.55244243],
        [-0.25216928, -0.38133916, 0.22405732],
        [0.2484662, -0.38128236, 0.22235769],
    ]
)
"""``lm3d_std [5,3]`` in the Basel face's unit, y up, z toward the viewer."""


def standard_face(landmarks: NDArray[np.floating]) -> Array:
    """Return five points ``[5,3]`` of a mean face's 68 (``read_similarity_landmarks``)."""
    return five_of_68(np.asarray(landmarks, dtype=np.float64)[None])[0]


def five_of_68(points: NDArray[np.floating]) -> Array:
    """Return five points ``[n,5,k]`` of 68 ``[n,68,k]``.

    They are the means of the eyes' corners, the nose's tip and the mouth's corners.

    Raises:
        ValueError: if they are not ``[n,68,k]``.
    """
    points = np.asarray(points)
    if points.ndim != 3 or points.shape[1] != 68:
        raise ValueError(f"expected points [n,68,k], got {points.shape}; see landmarks68")
    eyes = [(points[:, a] + points[:, b]) / 2 for a, b in ((36, 39), (42, 45))]
    return np.stack([*eyes, points[:, 30], points[:, 48], points[:, 54]], axis=1)


@dataclass(frozen=True)
class Alignment:
    """Resizing and cutting of n images."""

    target: int
    """Side of the square in pixels."""
    size_wh: NDArray[np.int64]
    """``[n,2]``: the images' width and height."""
    scale: Array
    """``[n]``: size of the resized image over the image's."""
    translation: Array
    """``[n,2]``: where the standard face's origin lies, pixels of the image, **y up**."""
    resized_wh: NDArray[np.int64]
    """``[n,2]``"""
    corner: NDArray[np.int64]
    """``[n,2]``: the square's left and upper edge in the resized image; may lie outside of it."""

    def to_square(self) -> tuple[Array, Array]:
        """Return factors and shifts ``[n,2]`` from pixels of the images to pixels of the squares.

        Pixels are continuous (centres at +0.5, y down); the map is exactly that of :func:`cut`.
        """
        return self.resized_wh / self.size_wh, -self.corner.astype(np.float64)

    def points(self, points: NDArray[np.floating]) -> Array:
        """Return points ``[n,k,2]`` of the images (y down) in the squares, **y up**, as Deep3DFaceRecon does.

        Without the rounding of sizes and corners, so they are up to a pixel off what the square shows.
        """
        shifted = _y_up(points, self.size_wh) - self.translation[:, None] + self.size_wh[:, None] / 2
        return np.asarray(
            shifted * self.scale[:, None, None] - (self.resized_wh[:, None] / 2 - self.target / 2)
        )


def align(
    points: NDArray[np.floating],
    size_wh: NDArray[np.integer],
    target: int = 224,
    rescale: float = 102.0,
    standard: Array = STANDARD_FACE,
) -> Alignment:
    """Find scales and squares from five points a face.

    Args:
        points: ``[n,5,2]`` pixels, y down.
        size_wh: ``[n,2]`` width and height of each image.
        target: side of the square in pixels.
        rescale: pixels a unit of the standard face has in the square.
        standard: five points of the standard face.

    Raises:
        ValueError: if shapes do not fit together.
        InputError: if points are not finite or all in one place, so that they are no face.
    """
    points, size = np.asarray(points, dtype=np.float64), np.asarray(size_wh, dtype=np.int64)
    if points.ndim != 3 or points.shape[1:] != (5, 2) or size.shape != (len(points), 2):
        raise ValueError(f"expected points [n,5,2] and sizes [n,2], got {points.shape} and {size.shape}")
    translation, affine_scale = affine_camera(_y_up(points, size), standard)
    scale = rescale / affine_scale
    resized = (size * scale[:, None]).astype(np.int64)
    offset = (translation - size / 2.0) * scale[:, None] * [1.0, -1.0]
    corner = (resized / 2 - target / 2 + offset).astype(np.int64)  # towards zero, as published
    return Alignment(target, size, scale, translation, resized, corner)


def affine_camera(points_up: Array, standard: Array) -> tuple[Array, Array]:
    """Fit affine cameras that map ``standard [k,3]`` to ``points_up [n,k,2]`` (y up), by least squares.

    Returns:
        Translations ``[n,2]`` and scales ``[n]``.

    Raises:
        InputError: if the points are not finite or all in one place.
    """
    design = np.concatenate([standard, np.ones((len(standard), 1))], axis=1)
    if not np.isfinite(points_up).all():
        raise InputError("the five points of a face are not finite; was a face found in this frame?")
    camera = np.linalg.pinv(design) @ points_up  # n 4 2
    lengths = np.linalg.norm(camera[:, :3], axis=1)  # of the camera's two rows
    if not (lengths > 1e-6).all():
        raise InputError("the five points of a face lie in one place; was a face found in this frame?")
    return camera[:, 3], lengths.mean(axis=1)


def _y_up(points: NDArray[np.floating], size_wh: NDArray[np.integer]) -> Array:
    out = np.array(points, dtype=np.float64)
    out[..., 1] = size_wh[:, None, 1] - 1 - out[..., 1]
    return out


def cut(image: NDArray[np.uint8], alignment: Alignment, index: int, inner: int = 0) -> NDArray[np.uint8]:
    """Return the aligned square of image ``index``, or the ``inner`` pixels in its middle.

    Cubic with smoothing (Pillow's), black outside. The whole image is resized, as published, unless that
    would be huge (a small face in a large photograph): then only what the square shows, whose colours are
    the same but for a grey level or two.

    Returns:
        ``[S,S,3]`` uint8 with S = ``inner`` or ``target``.

    Raises:
        ValueError: if the image is not ``[H,W,3]`` uint8 of the size that was aligned.
    """
    size = alignment.size_wh[index]
    if image.dtype != np.uint8 or image.shape != (size[1], size[0], 3):
        raise ValueError(f"expected a uint8 image {(size[1], size[0], 3)}, got {image.dtype} {image.shape}")
    side = inner or alignment.target
    corner = alignment.corner[index] + (alignment.target - side) // 2
    resized = alignment.resized_wh[index]
    picture, box = Image.fromarray(image), (*corner.tolist(), *(corner + side).tolist())
    if resized.prod() <= _WHOLE_LIMIT:
        whole = picture.resize(tuple(resized.tolist()), Image.Resampling.BICUBIC)
        return np.asarray(whole.crop(box))
    low, high = np.maximum(corner, 0), np.minimum(corner + side, resized)
    out = Image.new("RGB", (side, side))
    if (high > low).all():
        ratio = size / resized
        shown = (*(low * ratio).tolist(), *np.minimum(high * ratio, size).tolist())
        part = picture.resize(tuple((high - low).tolist()), Image.Resampling.BICUBIC, box=shown)
        out.paste(part, tuple((low - corner).tolist()))
    return np.asarray(out)
