"""Moving the pixels of a picture by a smooth field, and painting shapes into it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Picture = NDArray[np.uint8]

_RIDGE = 3e-3  # keeps the weights of a field small where handles lie closer together than its reach


@dataclass(frozen=True)
class Field:
    """A smooth displacement, given backwards: where in the old picture each place of the new one comes from.

    Attributes:
        centres: of its bumps in the new picture ``[k,2]`` in pixels.
        weights: the bumps' displacements ``[k,2]`` in pixels.
        reach: the bumps' standard deviation in pixels.
    """

    centres: Array
    weights: Array
    reach: float

    @classmethod
    def through(cls, old: Array, new: Array, reach: float) -> Field:
        """Carry points ``old [k,2]`` closely to ``new [k,2]``.

        This needs points no nearer together than ``reach`` pixels; :meth:`moved` returns exactly where they
        went.
        """
        kernel = _bump(new[:, None] - new[None], reach) + _RIDGE * np.eye(len(new))
        return cls(new, np.asarray(np.linalg.solve(kernel, new - old), np.float64), reach)

    def source(self, places: Array) -> Array:
        """Return where places ``[n,2]`` of the new picture lie in the old one, in pixels."""
        return places - _bump(places[:, None] - self.centres[None], self.reach) @ self.weights

    def moved(self, points: Array) -> Array:
        """Return where points ``[n,2]`` of the old picture lie in the new one, in pixels."""
        found = points.copy()
        for _ in range(120):  # shortened steps also settle where the picture is squeezed
            found = found + 0.6 * (points - self.source(found))
        return found

    def stretch(self, places: Array) -> Array:
        """Return the determinant of :meth:`source`'s derivative at places ``[n,2]``.

        It is 1 where nothing is stretched, and 0 or less where the picture folds.
        """
        step = 0.25
        dx, dy = (self.source(places + d) - self.source(places - d) for d in step * np.eye(2))
        return np.asarray((dx[:, 0] * dy[:, 1] - dx[:, 1] * dy[:, 0]) / (2 * step) ** 2)

    def warp(self, image: Picture) -> Picture:
        """Move the pixels of ``image [H,W,3]``."""
        rows, columns = np.arange(image.shape[0]) + 0.5, np.arange(image.shape[1]) + 0.5
        across = np.exp(-0.5 * ((columns[None] - self.centres[:, :1]) / self.reach) ** 2)
        down = np.exp(-0.5 * ((rows[None] - self.centres[:, 1:]) / self.reach) ** 2)
        shift = np.stack([(down * self.weights[:, i : i + 1]).T @ across for i in (0, 1)])
        column = (columns[None] - shift[0] - 0.5).astype(np.float32)
        row = (rows[:, None] - shift[1] - 0.5).astype(np.float32)
        moved = cv2.remap(image, column, row, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(moved, np.uint8)


def _bump(offset: Array, reach: float) -> Array:
    return np.asarray(np.exp(-0.5 * (offset**2).sum(-1) / reach**2))


def pixel_places(size: int) -> Array:
    """Return the centres ``[size,size,2]`` (x, y) of a square picture's pixels."""
    at = np.arange(size) + 0.5
    return np.stack(np.meshgrid(at, at), axis=-1)


def polygon(ring: Array, size: int, soft_px: float = 1.0) -> Array:
    """Return the coverage ``[size,size]`` in 0..1 by a polygon ``[n,2]``, its edge softened."""
    mask = np.zeros((size, size), np.float32)
    fixed = np.round((np.clip(ring, -4 * size, 4 * size) - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(mask, [fixed], 1.0, cv2.LINE_8, 4)
    return cv2.GaussianBlur(mask, (0, 0), soft_px).astype(np.float64)


def laid_over(below: Picture, above: NDArray[np.generic], share: Array) -> Picture:
    """Mix two pictures ``[H,W,3]`` by the share ``[H,W]`` of the second."""
    base = below.astype(np.float64)
    mixed = base + share[..., None] * (np.asarray(above, np.float64) - base)
    return np.clip(mixed + 0.5, 0, 255).astype(np.uint8)
