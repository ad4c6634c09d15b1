"""The camera of a fit: head rotation, crop centre and crop side, with fixed radius and focal length.

``u = c + s f x / z`` with ``(x, y, z) = D R X + (0, 0, radius)``, D = diag(1, -1, -1): the label of the
fitted rotation and the fitted square are the camera exactly (see ``portrait_core.cameras``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from portrait_core.cameras import FOCAL, RADIUS

Array = NDArray[np.float64]

_FLIP = np.array([1.0, -1.0, -1.0])


@dataclass(frozen=True)
class Pose:
    """``rotation [3,3]`` head axes to viewer axes, ``center [2]`` and ``side`` of the crop in pixels."""

    rotation: Array
    center: Array
    side: float

    def project(self, points: Array) -> Array:
        """Project box-frame points ``[k,3]`` to pixels ``[k,2]``."""
        local = self._camera(points)
        return np.asarray(self.center + self.side * FOCAL * local[:, :2] / local[:, 2:])

    def pixel_derivative(self, points: Array) -> Array:
        """Return the derivative of the pixels by the points, ``[k,2,3]``."""
        local = self._camera(points)
        inverse = self.side * FOCAL / local[:, 2]
        axes = _FLIP[:, None] * self.rotation
        ratio = local[:, :2] / local[:, 2:]
        return np.asarray(inverse[:, None, None] * (axes[None, :2] - ratio[..., None] * axes[None, 2:]))

    def pose_derivative(self, points: Array, by_point: Array) -> Array:
        """Return the pixels' derivative ``[k,2,6]`` by rotation vector in viewer axes, centre, log side."""
        turned = points @ self.rotation.T
        by_viewer = by_point @ self.rotation.T
        result = np.zeros((len(points), 2, 6))
        result[:, 0, :3] = np.cross(turned, by_viewer[:, 0])
        result[:, 1, :3] = np.cross(turned, by_viewer[:, 1])
        result[:, 0, 3] = result[:, 1, 4] = 1.0
        result[:, :, 5] = self.project(points) - self.center
        return result

    def moved(self, step: Array) -> Pose:
        """Return the pose after a step ``[6]`` in the parameters of :meth:`pose_derivative`."""
        turn = Rotation.from_rotvec(step[:3]).as_matrix()
        return Pose(
            turn @ self.rotation, self.center + step[3:5], float(self.side * np.exp(np.clip(step[5], -1, 1)))
        )

    def towards(self, other: Pose) -> Array:
        """Return the step ``[6]`` that leads from this pose to another."""
        turn = Rotation.from_matrix(other.rotation @ self.rotation.T).as_rotvec()
        return np.concatenate([turn, other.center - self.center, [np.log(other.side / self.side)]])

    def scale_px(self, length: float) -> float:
        """Return the pixels that ``length`` box units span at the box's origin."""
        return self.side * FOCAL / RADIUS * length

    def depth(self, points: Array) -> Array:
        """Return the distance ``[k]`` of box-frame points ``[k,3]`` along the camera's axis, in box units."""
        return self._camera(points)[:, 2]

    def unproject(self, pixels: Array, depth: Array) -> Array:
        """Lift ``pixels [k,2]`` at ``depth [k]`` to box-frame points ``[k,3]``: undo :meth:`project`."""
        across = (pixels - self.center) / (self.side * FOCAL) * depth[:, None]
        local = np.concatenate([across, depth[:, None] - RADIUS], axis=1)
        return np.asarray((local * _FLIP) @ self.rotation)

    def _camera(self, points: Array) -> Array:
        local = (points @ self.rotation.T) * _FLIP
        local[:, 2] += RADIUS
        return np.asarray(local)


def pose_from_points(points: Array, pixels: Array, weight: Array) -> Pose:
    """Find a pose in closed form (scaled orthographic projection): a start for Gauss-Newton.

    Args:
        points: ``[k,3]`` box frame, not all in one plane.
        pixels: ``[k,2]``.
        weight: ``[k]``.
    """
    share = weight / weight.sum()
    middle, pixel_middle = share @ points, share @ pixels
    centred = points - middle
    affine = np.linalg.lstsq(
        centred * np.sqrt(share)[:, None], (pixels - pixel_middle) * np.sqrt(share)[:, None], rcond=None
    )[0].T  # 2 3, image axes
    affine[1] *= -1.0  # viewer axes: y up
    left, size, right = np.linalg.svd(affine, full_matrices=False)
    rows = left @ right
    rotation = np.stack([rows[0], rows[1], np.cross(rows[0], rows[1])])
    scale = float(size.mean())
    side = scale * RADIUS / FOCAL
    offset = rotation @ middle
    return Pose(rotation, pixel_middle - scale * offset[:2] * np.array([1.0, -1.0]), side)


def mean_pose(poses: list[Pose]) -> Pose:
    """Average a few poses: mean rotation, mean centre, geometric mean side."""
    rotation = Rotation.from_matrix(np.stack([pose.rotation for pose in poses])).mean().as_matrix()
    center = np.mean([pose.center for pose in poses], axis=0)
    return Pose(rotation, center, float(np.exp(np.mean([np.log(pose.side) for pose in poses]))))
