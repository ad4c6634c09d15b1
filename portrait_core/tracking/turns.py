"""Quarter turns of pictures, for cameras that were held sideways and files that do not say so.

A turn is counted in quarters counter-clockwise, as ``np.rot90`` does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TILTED_DEGREES = 45
"""Turn of a portrait's face from which on the photograph may lie on its side."""


def rolls(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the clockwise turns of faces in their pictures, by the eye line, in radians.

    Args:
        points: landmarks ``[...,478,2]`` in pixels.
    """
    eyes = points[..., 263, :] - points[..., 33, :]
    return np.asarray(np.arctan2(eyes[..., 1], eyes[..., 0]), np.float64)


def is_upright(points: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Tell of which faces ``[n,478,2]`` the eye line is nearer to level than to another quarter turn.

    Rows of NaN are not.
    """
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(rolls(points)) < np.pi / 4)


def clip_turn(points: NDArray[np.floating]) -> int:
    """Return the quarters by which a clip has to be turned so that its faces stand upright.

    Args:
        points: landmarks ``[T,478,2]`` in pixels, one face per frame; rows of NaN are passed over.
    """
    angles = rolls(points[np.isfinite(points[:, 0, 0])])
    quarters = np.round(angles / (np.pi / 2)).astype(int) % 4
    return int(np.bincount(quarters, minlength=4).argmax())


def turned_size(size: tuple[int, ...], quarters: int) -> tuple[int, int]:
    """Return width and height of a picture of ``size`` (width, height) after a turn."""
    return (size[1], size[0]) if quarters % 2 else (size[0], size[1])


def turn_points(points: NDArray[np.floating], quarters: int, size: tuple[int, ...]) -> NDArray[np.float32]:
    """Map points of a picture to ``np.rot90(picture, quarters)``.

    Args:
        points: ``[...,2]`` pixels of the picture.
        quarters: number of quarter turns; a negative one turns back.
        size: width and height of the picture in pixels.
    """
    x, y = points[..., 0], points[..., 1]
    width, height = size
    turned = ((x, y), (y, width - x), (width - x, height - y), (height - y, x))[quarters % 4]
    return np.stack(turned, axis=-1).astype(np.float32)
