"""The part of a photograph that a clip shows: all of it, or what lies around a small face."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from portrait_core.face_model.topology import N_MESH

ENOUGH_PX = 256
"""Side of a face in pixels beyond which more pixels are not worth leaving out the rest of the photograph."""
_LEAST = 3.0
"""Shortest side of the part over the face's, where the photograph has so much: a head with its shoulders."""
_HEAD_ABOVE = 0.15
"""How far the middle of the part lies below the face's, over the face's side: shoulders belong to a
portrait."""


class Part(NamedTuple):
    """A rectangle of a photograph, in its whole pixels, and the size at which it is shown.

    Attributes:
        x, y: its corner.
        width, height: its sides.
        shown: width and height in pixels after scaling down.
    """

    x: int
    y: int
    width: int
    height: int
    shown: tuple[int, int]

    def cut(self, photograph: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the part of ``photograph [H,W,3]`` at the size at which it is shown."""
        part = photograph[self.y : self.y + self.height, self.x : self.x + self.width]
        if part.shape[1::-1] == self.shown:
            return np.ascontiguousarray(part)
        return np.asarray(cv2.resize(part, self.shown, interpolation=cv2.INTER_AREA), np.uint8)


def whole_part(size: tuple[int, int], longest: int) -> Part:
    """Return all of a photograph of ``size`` (width, height), at most ``longest`` pixels long."""
    scale = min(1.0, longest / max(size))
    return Part(0, 0, *size, (round(size[0] * scale), round(size[1] * scale)))


def part_around(points: NDArray[np.floating], size: tuple[int, int], longest: int) -> Part:
    """Return the part of a photograph around a face.

    It has the photograph's proportions, or is broader along its short side where the head would not fit into
    that. It is all of the photograph unless the face, at the scale at which the whole is at most ``longest``
    pixels long, would have fewer pixels than the photograph has and than are enough.

    Args:
        points: the face's landmarks ``[478,2]`` in pixels of the photograph.
        size: its width and height.
        longest: longer side of the part in pixels, as it is shown.
    """
    whole = whole_part(size, longest)
    scale = max(size) / longest  # photograph's pixels per shown pixel
    mesh = points[:N_MESH]
    side = float((mesh.max(axis=0) - mesh.min(axis=0)).max())
    if scale <= 1 or side / scale >= ENOUGH_PX:
        return whole
    scale = max(1.0, side / ENOUGH_PX, _LEAST * side / longest)
    wanted = np.maximum(np.array(whole.shown) * scale, _LEAST * side)
    extent = np.minimum(np.round(wanted), size).astype(int)
    width, height = np.round(extent / scale).astype(int).tolist()
    middle = mesh.mean(axis=0) + np.array([0.0, _HEAD_ABOVE * side])
    corner = np.clip(np.round(middle - extent / 2), 0, np.array(size) - extent).astype(int)
    return Part(int(corner[0]), int(corner[1]), int(extent[0]), int(extent[1]), (width, height))
