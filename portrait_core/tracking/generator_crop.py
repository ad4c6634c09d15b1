"""The crop that a 2D generator sees: a square of the photograph, upright to the face.

Published 2D generators were trained on FFHQ's aligned faces (:mod:`.ffhq_align`), the embedded one on crops
that are aligned by eyes and mouth (:mod:`portrait_core.training.train_2d`). Both crops turn with the head's
roll, and neither is the tri-plane generator's (paper section 4.1: it is "somewhat more centered on the entire
head").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from portrait_core.cameras import angles_from_labels
from portrait_core.tracking.crop import Beyond, Place, sample_square
from portrait_core.tracking.ffhq_align import align_ffhq, oriented_quad
from portrait_core.tracking.landmarks68 import mesh_to_68

EMBEDDED_SHARE, EMBEDDED_FACE = 0.6875, (0.5, 0.54)
"""Side of the embedded 2D generator's crop relative to the tri-plane generator's, and the position of the
middle of eyes and mouth in it."""
KEY_POINTS = ((13, 14), (159, 145), (386, 374))
"""Landmarks whose pairs' middles are the mouth, the right eye and the left eye."""
_TIMES = 4
"""FFHQ samples its square at so many times the result's side, and averages that down."""


@dataclass(frozen=True)
class GeneratorCrop:
    """A square of the photograph that may be turned.

    Attributes:
        center_px: x and y of its centre, in continuous pixels of the photograph.
        side_px: its side.
        roll_rad: its turn, clockwise in the image.
        picture: what the photograph shows there ``[S,S,3]`` uint8.
    """

    center_px: tuple[float, float]
    side_px: float
    roll_rad: float
    picture: NDArray[np.uint8]

    @property
    def size(self) -> int:
        """Side of the generator's pictures in pixels."""
        return len(self.picture)

    def cut(self, drawn: NDArray[np.uint8], place: Place) -> NDArray[np.uint8]:
        """Return the crop of a picture or three masks ``[D,D,3]`` that cover a square of the photograph.

        Beyond that square its border is repeated.
        """
        return self._sample(drawn, place)

    def cut_mask(self, mask: NDArray[np.uint8], place: Place) -> NDArray[np.uint8]:
        """Return the crop of one mask ``[D,D]``; see :meth:`cut`."""
        return self._sample(np.repeat(mask[..., None], 3, axis=2), place)[..., 0]

    def on_photograph(self, drawn: NDArray[np.uint8], place: Place) -> NDArray[np.uint8]:
        """Return the crop of the photograph with a picture ``[D,D,3]`` laid on a square of it."""
        inside = self._sample(np.full_like(drawn, 255), place, beyond="black") / 255.0
        laid = self.picture + inside * (self.cut(drawn, place) - self.picture.astype(np.float64))
        return np.asarray(np.round(laid).clip(0, 255), np.uint8)

    def _sample(self, drawn: NDArray[np.uint8], place: Place, beyond: Beyond = "repeat") -> NDArray[np.uint8]:
        scale = len(drawn) / place.side_px
        center = (np.array(self.center_px) - place.corner_px) * scale
        side = self.side_px * scale
        return sample_square(drawn, center, side, self.roll_rad, self.size, cubic=True, beyond=beyond)


def ffhq_crop(photograph: NDArray[np.uint8], landmarks: NDArray[np.floating], size: int) -> GeneratorCrop:
    """Return FFHQ's aligned crop, which published 2D generators were trained on.

    Args:
        photograph: ``[H,W,3]`` uint8.
        landmarks: of the face mesh ``[468 or 478,2]``, continuous pixels.
        size: side of the generator's pictures.

    Raises:
        InputError: if the landmarks lie in one place.
    """
    points = mesh_to_68(landmarks[None])[0]
    quad = oriented_quad(points, scale=1.0)
    across = quad[3] - quad[0]
    x, y = quad.mean(axis=0) + 0.5
    return GeneratorCrop(
        center_px=(float(x), float(y)),
        side_px=float(np.hypot(*across)),
        roll_rad=float(np.arctan2(across[1], across[0])),
        picture=align_ffhq(photograph, points, size, _TIMES * size, scale=1.0),
    )


def embedded_crop(
    photograph: NDArray[np.uint8],
    landmarks: NDArray[np.floating],
    camera: NDArray[np.floating],
    face_side_px: float,
    size: int,
) -> GeneratorCrop:
    """Return the crop that the embedded 2D generator was trained on.

    Args:
        photograph: ``[H,W,3]`` uint8.
        landmarks: of the face mesh ``[468 or 478,2]``, continuous pixels.
        camera: the portrait's label ``[25]``, whose roll is taken out.
        face_side_px: side of the tri-plane generator's crop, in pixels of the photograph.
        size: side of the generator's pictures.
    """
    roll_rad = float(angles_from_labels(np.asarray(camera)[None])[0, 2])
    side = EMBEDDED_SHARE * face_side_px
    face = np.mean([landmarks[list(pair), :2].mean(axis=0) for pair in KEY_POINTS], axis=0)
    cos, sin = np.cos(roll_rad), np.sin(roll_rad)
    x, y = face - side * np.array([[cos, -sin], [sin, cos]]) @ (np.array(EMBEDDED_FACE) - 0.5)
    center = (float(x), float(y))
    picture = sample_square(photograph, center, side, roll_rad, size, cubic=True)
    return GeneratorCrop(center, side, roll_rad, picture)
