"""How much of the driver's expression arrives, region by region.

Everything is measured in the head's frame (:mod:`portrait_core.tracking.head_frame`), so that neither pose
nor perspective enters, and in units of the face: the distance of the outer eye corners, the width of an eye.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Regions = Mapping[str, Array]
"""A measure per frame ``[T]`` of every region, by its name."""

STILL = {"gaze across": 0.02, "gaze up": 0.02, "lid right": 0.03, "lid left": 0.03}
"""Standard deviation below which a region counts as still, where it is not :data:`STILL_ELSEWHERE`."""
STILL_ELSEWHERE = 0.008
"""The same of lengths over the distance of the outer eye corners: about twice what a landmark network's noise
amounts to."""


def measure_regions(points: NDArray[np.floating]) -> dict[str, Array]:
    """Measure the regions of a face.

    Args:
        points: landmarks ``[T,478,2]`` or ``[T,478,3]``, y up, in the head's frame; NaN rows give NaN.

    Returns:
        Arrays ``[T]``. Over the distance of the outer eye corners: ``lip gap``, ``mouth width``, ``corners'
        lift`` (height of the corners above the middle of the lips), ``corners' difference`` (the subject's
        right less the left), ``inner brows``, ``outer brows`` (height above the eyes), ``brows' difference``
        (right less left). Over the eye's width: ``lid right``, ``lid left`` (opening), ``gaze across``
        (of both irises, to the image's right) and ``gaze up``.
    """
    p = np.asarray(points, np.float64)[..., :2]
    right_corner, left_corner = p[:, 33], p[:, 263]
    wide = np.linalg.norm(left_corner - right_corner, axis=1)
    across = (left_corner - right_corner) / wide[:, None]
    up = np.stack([-across[:, 1], across[:, 0]], axis=1)
    middle = (right_corner + left_corner) / 2

    def height(*index: int) -> Array:
        return np.mean([((p[:, i] - middle) * up).sum(1) / wide for i in index], axis=0)

    def apart(first: int, second: int) -> Array:
        return np.asarray(np.linalg.norm(p[:, first] - p[:, second], axis=1))

    def gaze(iris: int, first: int, second: int) -> tuple[Array, Array]:
        line = p[:, second] - p[:, first]
        square = (line * line).sum(1)
        offset = p[:, iris] - p[:, first]
        return (offset * line).sum(1) / square, (
            line[:, 0] * offset[:, 1] - line[:, 1] * offset[:, 0]
        ) / square

    looks = np.mean([gaze(468, 33, 133), gaze(473, 362, 263)], axis=0)
    return {
        "lip gap": apart(13, 14) / wide,
        "mouth width": apart(61, 291) / wide,
        "corners' lift": height(61, 291) - height(13, 14),
        "corners' difference": height(61) - height(291),
        "inner brows": height(107, 336),
        "outer brows": height(70, 300),
        "brows' difference": height(70, 105) - height(300, 334),
        "lid right": apart(159, 145) / apart(33, 133),
        "lid left": apart(386, 374) / apart(362, 263),
        "gaze across": looks[0],
        "gaze up": looks[1],
    }


@dataclass(frozen=True)
class Follow:
    """How one region of a result follows the driver's.

    Attributes:
        moves: the driver's standard deviation.
        correlation: Pearson's; 0 where either is still.
        slope: least-squares slope of the result's change on the driver's; 1 means that all of it arrives.
        error: mean absolute difference of the two after each's own mean is taken away.
    """

    moves: float
    correlation: float
    slope: float
    error: float


def follow(driver: Regions, result: Regions, ok: NDArray[np.bool_]) -> dict[str, Follow]:
    """Compare the regions that move in the driver, over the frames that are ``ok [T]``."""
    found = {}
    for name, wanted in driver.items():
        x, y = wanted[ok], result[name][ok]
        if len(x) < 2 or x.std() < STILL.get(name, STILL_ELSEWHERE):
            continue
        x, y = x - x.mean(), y - y.mean()
        covariance = float(np.mean(x * y))
        spread = float(x.std() * y.std())
        found[name] = Follow(
            moves=float(x.std()),
            correlation=covariance / spread if spread > 1e-12 else 0.0,
            slope=covariance / float(x.var()),
            error=float(np.abs(x - y).mean()),
        )
    return found
