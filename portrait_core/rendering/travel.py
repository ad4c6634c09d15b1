"""A head's travel through the picture: how far it goes aside, up and down beside what its turn explains.

A driver who leans takes the head along. Of that the output's head goes a part: its neck is bent for it, and
the body stays. A camera label says it as an offset: how far the camera looks past the head. Pure arithmetic.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from portrait_core.cameras import (
    FOCAL,
    RADIUS,
    labels_from_rotations,
    offsets_from_labels,
    rotations_from_labels,
    smooth_labels,
    window_means,
)
from portrait_core.settings import RenderSettings

MAX_SHIFT = 0.07
"""Largest shift of a head (box units; a ninth of the face crop): a neck is short."""
_TO_VIEWER = np.array([-1.0, 1.0, 1.0])
"""From a camera's offset along its own axes (right, down, forward) to the shift of the head that looks the
same, along the viewer's (right, up, toward the viewer); and back."""


def head_shifts(offsets: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return how a head has to be shifted to look as a camera's offset makes it look.

    Args:
        offsets: of cameras ``[T,3]``, box units (:func:`~portrait_core.cameras.offsets_from_labels`).

    Returns:
        ``[T,3]`` along the viewer's axes, box units.
    """
    return np.asarray(offsets * _TO_VIEWER)


class DriverHead(NamedTuple):
    """Places of a driver's head, frame by frame.

    Attributes:
        cameras: labels of its poses ``[T,25]``.
        centers_px: centres of its face crops ``[T,2]``.
        sides_px: their sides ``[T]``.
    """

    cameras: NDArray[np.floating]
    centers_px: NDArray[np.floating]
    sides_px: NDArray[np.floating]


def with_travel(
    cameras: NDArray[np.floating],
    driver: DriverHead,
    neck: NDArray[np.floating],
    rest: int | None,
    settings: RenderSettings,
) -> NDArray[np.float32]:
    """Let the head go where the driver's goes, averaged over ``pose_window`` frames as its poses are.

    Args:
        cameras: labels of the output ``[T,25]``.
        driver: where his head is.
        neck: the neck's joint ``[3]``, box units, about which heads turn.
        rest: the frame in which the driver's head is where the portrait's is; None takes the middle of where
            it is over the clip.
        settings: ``travel`` and ``pose_window``.

    Returns:
        Labels ``[T,25]`` whose offsets say how far the head goes, at most :data:`MAX_SHIFT`.
    """
    turns = rotations_from_labels(smooth_labels(driver.cameras, settings.pose_window))
    by_turn = (-turns @ neck)[:, :2]  # where the head's middle goes as it turns about the neck: right, up
    centers = window_means(driver.centers_px, settings.pose_window)
    center, side, turned = (
        np.median(values, axis=0) if rest is None else values[rest]
        for values in (centers, driver.sides_px, by_turn)
    )
    seen = (centers - center) / side * (RADIUS / FOCAL) * (1.0, -1.0)
    shift = np.zeros((len(cameras), 3))
    shift[:, :2] = settings.travel * (seen - (by_turn - turned))
    # a soft limit that leaves alone what is well below it
    shift = shift / (1 + (np.linalg.norm(shift, axis=1, keepdims=True) / MAX_SHIFT) ** 4) ** 0.25
    offsets = offsets_from_labels(cameras) + shift * _TO_VIEWER
    return labels_from_rotations(rotations_from_labels(cameras), offsets)
