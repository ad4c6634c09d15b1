"""Cameras as EG3D's preprocessing makes them: labels from Deep3DFaceRecon's poses, look-at poses, mirrors.

Labels are those of ``portrait_core.cameras``: 25 numbers, row-major cam2world (OpenCV axes), then row-major
intrinsics normalised by the image's size. Chan et al. 2022, "Efficient geometry-aware 3D generative
adversarial networks", supplement.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from portrait_core.cameras.labels import RADIUS, intrinsics

Array = NDArray[np.float64]
CenterMode = Literal["orig", "cor", "simplify"]

_CAMERA_DISTANCE = 10.0
_UNIT = 0.27
"""Box units a unit of the Basel face has."""
_HEAD_SHIFT = (0.0, 0.006, 0.161)
_PIVOT = (0.0, 0.0, 0.175)
"""The point, inside the head, that ``cor`` and ``simplify`` hold at the fixed distance."""
_PUBLISHED_PI, _PUBLISHED_SQRT2 = 3.14159, 1.414  # as the published numbers were made


def rotation(angle: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3 3"]:
    """Return the transpose of ``Rz Ry Rx``, angles in radians about x, y, z: for rows, ``points @ R``."""
    (cx, cy, cz), (sx, sy, sz) = angle.cos().unbind(-1), angle.sin().unbind(-1)
    rows = [
        cz * cy,
        sz * cy,
        -sy,
        cz * sy * sx - sz * cx,
        sz * sy * sx + cz * cx,
        cy * sx,
        cz * sy * cx + sz * sx,
        sz * sy * cx - cz * sx,
        cy * cx,
    ]
    return torch.stack(rows, -1).reshape(*angle.shape[:-1], 3, 3)


def poses_from_deep3d(angle: NDArray[np.floating], trans: NDArray[np.floating]) -> Array:
    """Return the poses of faces, at the distance that Deep3DFaceRecon finds.

    Args:
        angle: rotations of the faces ``[n,3]``, in radians.
        trans: their translations ``[n,3]``, in the Basel face's unit.

    Returns:
        cam2world ``[n,4,4]``, in box units.

    Raises:
        ValueError: if they are not ``[n,3]`` each.
    """
    angle, trans = np.asarray(angle, dtype=np.float64), np.asarray(trans, dtype=np.float64)
    if angle.ndim != 2 or angle.shape[1] != 3 or angle.shape != trans.shape:
        raise ValueError(f"expected angles and translations [n,3], got {angle.shape} and {trans.shape}")
    turn = rotation(torch.from_numpy(angle)).numpy()
    away = trans - [0.0, 0.0, _CAMERA_DISTANCE]
    poses = np.zeros((len(angle), 4, 4))
    poses[:, :3, :3] = turn * [1.0, -1.0, -1.0]
    poses[:, :3, 3] = -np.einsum("nij,nj->ni", turn, away) * _UNIT + _HEAD_SHIFT
    poses[:, 3, 3] = 1.0
    return poses


def center_poses(poses: Array, mode: CenterMode = "orig") -> Array:
    """Bring cameras ``[n,4,4]`` to EG3D's distance of 2.7.

    ``orig`` (EG3D's images in the wild): from the origin, rotation as it is. ``cor``: from a point inside the
    head. ``simplify``: as ``cor``, looking at that point without roll.

    Raises:
        ValueError: for another mode.
    """
    if mode not in ("orig", "cor", "simplify"):
        raise ValueError(f"no camera mode {mode!r}; choose orig, cor or simplify")
    pivot = np.array(_PIVOT if mode != "orig" else (0.0, 0.0, 0.0))
    out = poses.copy()
    offset = poses[:, :3, 3] - pivot
    out[:, :3, 3] = offset / np.linalg.norm(offset, axis=1, keepdims=True) * RADIUS + pivot
    if mode == "simplify":
        out[:, :3, :3] = look_at(torch.from_numpy(out[:, :3, 3]), torch.from_numpy(pivot))[:, :3, :3].numpy()
    return out


def labels_from_deep3d(
    angle: NDArray[np.floating], trans: NDArray[np.floating], mode: CenterMode = "orig"
) -> Array:
    """Return the camera labels ``[n,25]`` float64 from the regressor's angles and translations ``[n,3]``.

    Raises:
        ValueError: if shapes or mode are wrong.
    """
    poses = center_poses(poses_from_deep3d(angle, trans), mode)
    k = np.broadcast_to(intrinsics().reshape(9), (len(poses), 9))
    return np.concatenate([poses.reshape(-1, 16), k], axis=1)


def deep3d_angles_from_labels(labels: NDArray[np.floating]) -> Array:
    """Invert the rotation of :func:`labels_from_deep3d` in the modes ``orig`` and ``cor``.

    Args:
        labels: camera labels ``[n,25]``.

    Returns:
        Angles of the faces ``[n,3]`` about x, y, z in radians, for :func:`rotation`; y lies in -pi/2..pi/2. A
        camera's place does not matter: it tells the face's translation, which centring has changed.

    Raises:
        ValueError: if labels are not ``[n,25]``.
    """
    labels = np.asarray(labels, dtype=np.float64)
    if labels.ndim != 2 or labels.shape[1] != 25:
        raise ValueError(f"expected camera labels [n,25], got {labels.shape}")
    turn = labels[:, :16].reshape(-1, 4, 4)[:, :3, :3] * [1.0, -1.0, -1.0]
    if not len(labels):
        return np.zeros((0, 3))
    return np.asarray(Rotation.from_matrix(turn.transpose(0, 2, 1)).as_euler("xyz"))


def mirror_labels(labels: NDArray[np.floating]) -> Array:
    """Return labels ``[n,25]`` of the images flipped left to right."""
    out = np.array(labels, dtype=np.float64)
    out[:, [1, 2, 3, 4, 8]] *= -1.0  # rows 0 and 1, 2 of the pose: [0,1], [0,2], [0,3], [1,0], [2,0]
    return out


def look_at(origin: Float[Tensor, "n 3"], pivot: Float[Tensor, 3]) -> Float[Tensor, "n 4 4"]:
    """Return cam2world of cameras at ``origin`` that look at ``pivot``, without roll (world y up)."""
    forward = torch.nn.functional.normalize(pivot - origin, dim=-1)
    up = forward.new_tensor([0.0, 1.0, 0.0]).expand_as(forward)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=-1)
    down = torch.linalg.cross(forward, right)
    pose = torch.eye(4, dtype=origin.dtype, device=origin.device).repeat(len(origin), 1, 1)
    pose[:, :3] = torch.stack([right, down, forward, origin], -1)
    return pose


def orbit_poses(
    horizontal: Float[Tensor, " n"],
    vertical: Float[Tensor, " n"],
    pivot: Float[Tensor, 3],
    radius: float = RADIUS,
) -> Float[Tensor, "n 4 4"]:
    """Return cam2world on a sphere about the origin, looking at ``pivot`` (EG3D's look-at sampler, no noise).

    ``horizontal = vertical = pi/2`` is the frontal camera on +z. Larger ``horizontal`` moves it to +x, larger
    ``vertical`` down; equal steps of ``vertical`` are equal shares of the sphere.
    """
    cosine = 1 - 2 * vertical.clamp(1e-5, math.pi - 1e-5) / math.pi
    sine = torch.sqrt(1 - cosine * cosine)
    # written so that the frontal camera lies on +z
    x, z = -torch.cos(horizontal) * sine, torch.sin(horizontal) * sine
    return look_at(radius * torch.stack([x, cosine, z], -1), pivot)


def sample_poses(
    count: int,
    generator: torch.Generator,
    spread: tuple[float, float] = (0.0, 0.0),
    mean: tuple[float, float] = (math.pi / 2, math.pi / 2),
    pivot: tuple[float, float, float] = (0.0, 0.0, 0.0),
    radius: float = RADIUS,
) -> Float[Tensor, "n 4 4"]:
    """Draw random poses (cam2world).

    Horizontal and vertical angles (radians) are normal about ``mean`` with deviations ``spread``.
    """
    noise = torch.randn(count, 2, generator=generator, device=generator.device)
    angles = noise * noise.new_tensor(spread) + noise.new_tensor(mean)
    return orbit_poses(angles[:, 0], angles[:, 1], noise.new_tensor(pivot), radius)


def intrinsics_from_fov(fov_degrees: float) -> Float[Tensor, "3 3"]:
    """Return normalised intrinsics of a field of view along the diagonal, with EG3D's rounded constants.

    18.837 degrees give a focal length of 4.26339, not the 4.26470 of the labels.
    """
    focal = 1 / (math.tan(fov_degrees * _PUBLISHED_PI / 360) * _PUBLISHED_SQRT2)
    return torch.tensor([[focal, 0.0, 0.5], [0.0, focal, 0.5], [0.0, 0.0, 1.0]])
