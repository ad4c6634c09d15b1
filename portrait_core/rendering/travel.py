"""A head's travel through the picture: how far it goes aside, up and down beside what its turn explains.

A driver who leans takes the head along. Of that the output's head goes a part: its neck is bent for it, and
the body stays. A camera label says it as an offset: how far the camera looks past the head. Pure arithmetic.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from portrait_core.cameras import (
    FOCAL,
    RADIUS,
    labels_from_rotations,
    offsets_from_labels,
    rotations_from_labels,
)

LARGEST = 0.07
"""No head goes further (box units; a ninth of the face crop): a neck is short."""
_TO_VIEWER = np.array([-1.0, 1.0, 1.0])
"""From a camera's offset along its own axes (right, down, forward) to the shift of the head that looks the
same, along the viewer's (right, up, toward the viewer); and back."""


def head_shifts(offsets: NDArray[np.floating]) -> NDArray[np.float64]:
    """Give how a head has to be shifted to look as a camera's offset makes it look.

    Args:
        offsets: of cameras ``[T,3]``, box units (:func:`~portrait_core.cameras.offsets_from_labels`).

    Returns:
        ``[T,3]`` along the viewer's axes, box units.
    """
    return np.asarray(offsets * _TO_VIEWER)


def with_travel(
    cameras: NDArray[np.floating],
    portrait: NDArray[np.floating],
    centers_px: NDArray[np.floating],
    sides_px: NDArray[np.floating],
    neck: NDArray[np.floating],
    rest: int | None,
    share: float,
) -> NDArray[np.float32]:
    """Let the head go where the driver's goes.

    Args:
        cameras: labels of the output ``[T,25]``.
        portrait: the portrait's label ``[1,25]``.
        centers_px: where the driver's head is, the centres of its crops ``[T,2]``.
        sides_px: sides of these crops ``[T]``.
        neck: the portrait's neck joint ``[3]``, box units, about which its head turns.
        rest: the frame in which the driver's head is where the portrait's is; None takes the middle of where
            it is over the clip.
        share: of the travel that is carried over, 0..1.

    Returns:
        Labels ``[T,25]`` whose offsets say how far the head goes, at most :data:`LARGEST`.
    """
    turns, own = rotations_from_labels(cameras), rotations_from_labels(portrait)[0]
    by_turn = own @ neck - turns @ neck  # where the head's origin goes, as it turns about the neck
    center, side, turned = (
        np.median(values, axis=0) if rest is None else values[rest]
        for values in (centers_px, sides_px, by_turn)
    )
    seen = (centers_px - center) / side * (RADIUS / FOCAL) * (1.0, -1.0)
    shift = np.zeros_like(by_turn)
    shift[:, :2] = share * (seen - (by_turn - turned)[:, :2])
    # a soft limit that leaves alone what is well below it
    shift = shift / (1 + (np.linalg.norm(shift, axis=1, keepdims=True) / LARGEST) ** 4) ** 0.25
    return labels_from_rotations(turns, offsets_from_labels(cameras) + shift * _TO_VIEWER)
