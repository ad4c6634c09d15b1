"""The driver's frame that shows the portrait's own face, where there is one, as in self-reenactment.

That frame tells exactly what one picture alone tells roughly: the portrait's pose and expression, read as the
driver's are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from portrait_core.face_model.head_points import outer_eye_distance
from portrait_core.face_model.topology import N_MESH

_SAME_FACE = 0.012
"""Two faces whose landmarks lie so near after alignment (mean distance over the outer eye corners' distance)
are the same face in the same pose. The nearest frames of one person lie at 0.003 to 0.03, the nearest of two
people at 0.017 or more (11 portraits, 5 drivers)."""


class Match(NamedTuple):
    """A driver's frame that shows the portrait's own face in its own pose.

    Attributes:
        frame: its number.
        roll_rad: clockwise roll of the face in the frame less that in the portrait, in radians.
    """

    frame: int
    roll_rad: float


def frame_of_portrait(
    portrait: NDArray[np.floating], clip: NDArray[np.floating], usable: NDArray[np.bool_]
) -> Match | None:
    """Find the driver's frame that shows the portrait's own face in its own pose; None where none does.

    Args:
        portrait: its landmarks ``[478,2]`` in pixels.
        clip: the driver's ``[T,478,2]`` in pixels; rows that are not usable are ignored.
        usable: frames to choose from ``[T]``.
    """
    own, eyes = _centred(portrait), outer_eye_distance(portrait)
    nearest, found = _SAME_FACE, None
    for i in np.flatnonzero(usable).tolist():
        other = _centred(clip[i])
        # the best turn and size of the frame's face, as one complex factor
        factor = np.vdot(other, own) / np.vdot(other, other).real
        away = float(np.abs(factor * other - own).mean() / eyes)
        if away <= nearest:
            nearest, found = away, Match(i, float(-np.angle(factor)))
    return found


def _centred(points: NDArray[np.floating]) -> NDArray[np.complex128]:
    """Return points of the face ``[n,2]`` as complex numbers about their mean."""
    flat = np.asarray(points[:N_MESH], np.float64)
    numbers = flat[:, 0] + 1j * flat[:, 1]
    return np.asarray(numbers - numbers.mean())
