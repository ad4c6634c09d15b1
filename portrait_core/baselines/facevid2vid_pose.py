"""Face-vid2vid's head poses: from canonical keypoints to those of a picture (paper sections 3.1 and 3.2).

**Signs.** ``R = Rx(pitch) Ry(yaw) Rz(roll)`` turns keypoints, whose x points to the picture's right and y
down. With depth away from the viewer (OpenCV's axes, as the cameras of
:mod:`portrait_core.cameras.labels` have them), the face lies at negative z, and

- yaw > 0 turns the nose to the picture's left: the head as a camera to the picture's right sees it;
- pitch > 0 turns the nose down: the head as a camera above it sees it;
- roll > 0 turns the head clockwise in the picture.

So a camera's yaw, pitch and roll have the signs of the estimator's, and only the order of the three rotations
differs. Depth's direction is learned by the published networks and written nowhere; were it towards the
viewer, yaw and pitch would both change their signs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.transform import Rotation
from torch import Tensor

from portrait_core.cameras.labels import rotations_from_labels

_HALF_TURN = 3.14
"""180 degrees in radians, as the published networks were trained with it."""
_AXES = np.diag([1.0, -1.0, -1.0])
"""From the head's axes (y up, z towards the viewer) to the keypoints' (y down, z away)."""


def rotation_from_degrees(degrees: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3 3"]:
    """Return ``Rx(pitch) Ry(yaw) Rz(roll)`` of yaw, pitch and roll in the estimator's degrees."""
    radians = degrees / 180 * _HALF_TURN
    (cy, cx, cz), (sy, sx, sz) = radians.cos().unbind(-1), radians.sin().unbind(-1)
    rows = [
        cy * cz,
        -cy * sz,
        sy,
        cx * sz + sx * sy * cz,
        cx * cz - sx * sy * sz,
        -sx * cy,
        sx * sz - cx * sy * cz,
        sx * cz + cx * sy * sz,
        cx * cy,
    ]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def degrees_from_labels(labels: NDArray[np.floating] | Sequence[NDArray[np.floating]]) -> NDArray[np.float64]:
    """Return the estimator's degrees of a head that cameras see.

    Args:
        labels: camera labels ``[n,25]`` (:mod:`portrait_core.cameras.labels`); only their rotations count.

    Returns:
        (yaw, pitch, roll) ``[n,3]``, of which :func:`rotation_from_degrees` makes the heads' rotations.

    Raises:
        ValueError: if labels have not 25 numbers.
    """
    labels = np.asarray(labels, dtype=np.float64)
    if labels.ndim != 2 or labels.shape[1] != 25:
        raise ValueError(f"camera labels are [n,25], got {labels.shape}; see portrait_core.cameras.labels")
    turns = _AXES @ rotations_from_labels(labels) @ _AXES
    pitch, yaw, roll = Rotation.from_matrix(turns).as_euler("XYZ").T
    return np.stack([yaw, pitch, roll], axis=1) * (180 / _HALF_TURN)


def pose_keypoints(
    canonical: Float[Tensor, "b k 3"],
    degrees: Float[Tensor, "b 3"],
    t: Float[Tensor, "b 3"],
    exp: Float[Tensor, "b 45"],
) -> Float[Tensor, "b k 3"]:
    """Return a picture's keypoints: the canonical ones rotated, moved, and displaced by expression.

    Args:
        canonical: keypoints of the person; one person for all pictures is enough.
        degrees: yaw, pitch and roll in the estimator's degrees.
        t: translations.
        exp: displacements, keypoint by keypoint.
    """
    turned = canonical @ rotation_from_degrees(degrees).mT
    return turned + t[:, None] + exp.unflatten(1, (-1, 3))


def relative_keypoints(
    source: Float[Tensor, "b k 3"],
    driving: Float[Tensor, "b k 3"],
    initial: Float[Tensor, "b k 3"],
    scale: float,
) -> Float[Tensor, "b k 3"]:
    """Return the portrait's keypoints, moved as the driver's move from its initial frame.

    Args:
        source: keypoints of the portrait.
        driving: keypoints of the driver's frames.
        initial: keypoints of the frame at which the driver is taken to look as the portrait.
        scale: size of the portrait's face over the driver's (:func:`relative_scale`).
    """
    return source + (driving - initial) * scale


def relative_scale(source: Float[Tensor, "1 k 3"], initial: Float[Tensor, "1 k 3"]) -> float:
    """Return the root of the ratio of the volumes that two faces' keypoints span, as published.

    Raises:
        ValueError: if keypoints span no volume.
    """
    try:
        volumes = [ConvexHull(points[0].double().cpu().numpy()).volume for points in (source, initial)]
    except QhullError as error:
        raise ValueError(
            "keypoints lie in one plane, so that the sizes of the faces cannot be compared; "
            "check the pictures, or animate without relative mode"
        ) from error
    return float(np.sqrt(volumes[0] / volumes[1]))
