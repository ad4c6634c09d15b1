"""Landmarks seen in a picture, brought into the head's own frame: pose and perspective taken away."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from portrait_core.tracking.projection import Pose
from portrait_core.tracking.topology import EYE_OUTER

Array = NDArray[np.float64]


def lift(pixels: Array, pose: Pose, points: Array) -> Array:
    """Lift landmarks to the depth of the fitted head.

    Args:
        pixels: seen ``[k,2]``.
        pose: the head's, fitted to them.
        points: the fitted head's landmarks ``[k,3]`` in the box frame, which give the depth.

    Returns:
        ``[k,3]`` in the box frame (x to the image's right of a frontal face, y up, z to the viewer); exact
        where the fit is.
    """
    return pose.unproject(pixels, pose.depth(points))


def in_face_units(points: NDArray[np.floating]) -> Array:
    """Scale landmarks ``[T,k,3]`` of one person so that the outer eye corners are 1 apart on average."""
    apart = np.linalg.norm(points[:, EYE_OUTER[0]] - points[:, EYE_OUTER[1]], axis=-1)
    return np.asarray(points / np.nanmean(apart), dtype=np.float64)
