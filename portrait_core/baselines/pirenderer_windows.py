"""The coefficients that drive PIRenderer: rows of frames, and windows of rows around a frame.

A row has the 257 numbers of Deep3DFaceRecon's regressor and the crop of its picture: scale and centre
``(x, y)`` of the face in pixels of the 256-pixel picture, y up (``five_points.Alignment``). Of these
PIRenderer sees 73: expression (64), angles in radians (3), translation (3) and crop (3). A window is 27
frames of them.
Ren et al. 2021, "PIRenderer: controllable portrait image generation via semantic neural rendering".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from portrait_core.tracking.deep3d import COEFFICIENT_SIZES, N_COEFFICIENTS, Deep3DEncoder
from portrait_core.tracking.encoders import INPUT_SIZE, as_input
from portrait_core.tracking.five_points import STANDARD_FACE, align, cut
from portrait_core.tracking.landmarks68 import five_points

Rows = NDArray[np.float32]
"""Coefficient rows ``[T,260]``."""


def _columns(name: str) -> slice:
    names = list(COEFFICIENT_SIZES)
    first = sum(COEFFICIENT_SIZES[other] for other in names[: names.index(name)])
    return slice(first, first + COEFFICIENT_SIZES[name])


EXPRESSION, ANGLES, TRANSLATION = _columns("exp"), _columns("angle"), _columns("trans")
"""Columns of these in a row."""
CROP = slice(N_COEFFICIENTS, N_COEFFICIENTS + 3)
"""Columns of the crop in a row: scale and centre."""
SCALE = N_COEFFICIENTS
"""Column of the crop's scale."""
N_ROW = N_COEFFICIENTS + 3
N_PICTURE_ROW = N_COEFFICIENTS + 5
"""Numbers in the published file of a single picture, whose width and height precede the crop."""
RADIUS = 13
"""Frames of a window before its own frame, and after it."""

_SEEN = np.concatenate([np.arange(part.start, part.stop) for part in (EXPRESSION, ANGLES, TRANSLATION, CROP)])
WINDOW_ANGLES = slice(64, 67)
"""Rows of the angles in a window."""
_EXPRESSION_WEIGHT, _ANGLE_WEIGHT = 0.3, 0.7
"""Weights of mean differences in the search for the driver's frame that is most like the source."""
_STANDING = (ANGLES, TRANSLATION, CROP)


def rows_from_pictures(
    pictures: NDArray[np.uint8],
    landmarks: NDArray[np.floating],
    encoder: Deep3DEncoder,
    standard: NDArray[np.float64] = STANDARD_FACE,
    batch: int = 16,
) -> Rows:
    """Find the coefficient rows of pictures.

    Args:
        pictures: ``[T,256,256,3]`` uint8 RGB (:mod:`portrait_core.baselines.crops`).
        landmarks: ``[T,478,2]`` continuous pixels of the pictures; not finite where no face was found. Such a
            picture takes the row of the last one before it that has a face, or of the first that has one.
        encoder: the regressor, on any device.
        standard: the standard face's five points (``five_points.standard_face``).
        batch: pictures per batch of the regressor.

    Returns:
        ``[T,260]`` float32.

    Raises:
        ValueError: if numbers or shapes do not fit together, or no picture has a face.
        InputError: if the points of a picture are no face.
    """
    pictures, points = np.asarray(pictures), np.asarray(landmarks)
    if pictures.ndim != 4 or points.ndim != 3 or len(pictures) != len(points):
        raise ValueError(
            f"expected pictures [T,256,256,3] and as many landmarks [T,478,2], got {pictures.shape} "
            f"and {points.shape}"
        )
    good = np.flatnonzero(np.isfinite(points).all((1, 2)))
    if not len(good):
        raise ValueError(f"none of {len(points)} pictures has a face; check their landmarks")
    found = np.concatenate(
        [
            _encoded(pictures[index], points[index], encoder, standard)
            for index in np.split(good, range(batch, len(good), batch))
        ]
    )
    return found[np.maximum(np.searchsorted(good, np.arange(len(points)), side="right") - 1, 0)]


@torch.no_grad()
def _encoded(
    pictures: NDArray[np.uint8],
    landmarks: NDArray[np.floating],
    encoder: Deep3DEncoder,
    standard: NDArray[np.float64],
) -> Rows:
    """Return the rows of pictures that all have a face, as one batch."""
    sizes = np.full((len(pictures), 2), pictures.shape[2:0:-1])
    found = align(five_points(landmarks), sizes, INPUT_SIZE, standard=standard)
    crops = np.stack([cut(picture, found, i) for i, picture in enumerate(pictures)])
    numbers = encoder(as_input(torch.from_numpy(crops).to(next(encoder.parameters()).device)))
    crop = np.concatenate([found.scale[:, None], found.translation], axis=1)
    return np.concatenate([numbers.cpu().numpy(), crop], axis=1).astype(np.float32)


def row_of_picture_file(numbers: NDArray[np.floating]) -> Rows:
    """Return the row ``[1,260]`` of a single picture's published file: 262 numbers, W and H before the crop.

    Raises:
        ValueError: if there are not 262 numbers.
    """
    numbers = np.asarray(numbers, np.float32).reshape(-1)
    if len(numbers) != N_PICTURE_ROW:
        raise ValueError(f"a picture's file has {N_PICTURE_ROW} numbers, got {len(numbers)}")
    return np.concatenate([numbers[:N_COEFFICIENTS], numbers[N_COEFFICIENTS + 2 :]])[None]


def windows(rows: NDArray[np.floating], frames: Sequence[int], radius: int = RADIUS) -> NDArray[np.float32]:
    """Return windows around frames; beyond the clip its first or last frame is repeated.

    Args:
        rows: ``[T,260]``; a single picture is a clip of one row.
        frames: n numbers of frames.
        radius: frames before and after.

    Returns:
        ``[n,73,2 radius + 1]`` float32, time last.

    Raises:
        ValueError: if rows are not ``[T,260]``, or a frame is not in the clip.
    """
    rows, index = checked_rows(rows), np.asarray(frames, np.int64).reshape(-1)
    if len(index) and (index.min() < 0 or index.max() >= len(rows)):
        raise ValueError(f"frames {index.min()} to {index.max()} are not all in a clip of {len(rows)} frames")
    around = np.clip(index[:, None] + np.arange(-radius, radius + 1), 0, len(rows) - 1)
    return np.ascontiguousarray(rows[:, _SEEN][around].transpose(0, 2, 1))


def checked_rows(rows: NDArray[np.floating]) -> Rows:
    """Return rows as float32.

    Raises:
        ValueError: if they are not ``[T,260]``, T at least 1, and finite.
    """
    rows = np.asarray(rows, np.float32)
    if rows.ndim != 2 or rows.shape[1] != N_ROW or not len(rows):
        raise ValueError(
            f"rows must be [T,{N_ROW}], got {rows.shape}; make them with rows_from_pictures, "
            "or row_of_picture_file"
        )
    if not np.isfinite(rows).all():
        raise ValueError("rows have numbers that are not finite; was a face found in every frame?")
    return rows


def crop_ratio(rows: NDArray[np.floating], source: NDArray[np.floating]) -> float:
    """Return the source's crop scale over that of the driver's frame that is most like the source.

    Args:
        rows: the driver's ``[T,260]``.
        source: the source's ``[1,260]``.
    """
    rows, source = checked_rows(rows), checked_rows(source)[:1]
    difference = np.abs(rows - source)
    distance = _EXPRESSION_WEIGHT * difference[:, EXPRESSION].mean(1)
    distance += _ANGLE_WEIGHT * difference[:, ANGLES].mean(1)
    return float(source[0, SCALE] / rows[distance.argmin(), SCALE])


def fitted_to(rows: NDArray[np.floating], source: NDArray[np.floating]) -> Rows:
    """Return the driver's rows with their crop scales times :func:`crop_ratio`.

    The published method does so where source and driver are different people.
    """
    out = checked_rows(rows).copy()
    out[:, SCALE] *= np.float32(crop_ratio(rows, source))
    return out


def without_pose(rows: NDArray[np.floating], source: NDArray[np.floating]) -> Rows:
    """Return the driver's rows with the source's own angles, translation and crop in all frames.

    This is the paper's variant "w/o pose" (section 4.1).

    Args:
        rows: the driver's ``[T,260]``.
        source: the source's ``[1,260]``.
    """
    out, own = checked_rows(rows).copy(), checked_rows(source)[0]
    for columns in _STANDING:
        out[:, columns] = own[columns]
    return out
