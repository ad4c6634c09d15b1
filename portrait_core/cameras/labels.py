"""Camera labels, head poses and their smoothing.

A camera label is 25 floats: the row-major 4x4 ``cam2world`` (OpenCV axes: x right, y down, z forward;
world y up, the head at the origin, the frontal camera on +z), then the row-major 3x3 intrinsics
normalised by image size. Every camera made here looks at the origin from ``RADIUS`` with the focal length
``FOCAL``, as EG3D's FFHQ cameras do, so a head rotation is a camera. Cameras that EG3D's preprocessing finds
for photographs look past the origin; how far is their offset (:func:`offsets_from_labels`).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

FOCAL = 4.2647
"""Focal length in units of the image size (2985.29 px of a 700 px crop, EG3D's FFHQ preprocessing)."""
RADIUS = 2.7
"""Distance of the camera from the origin, in box units."""

_NO_OFFSET = 1e-5
"""Offsets below this (box units) are rounding: labels are float32."""

_FLIP = np.diag([1.0, -1.0, -1.0])  # viewer axes (y up, z toward the viewer) <-> OpenCV axes


def intrinsics() -> NDArray[np.float64]:
    """Return the normalised 3x3 intrinsics every label shares."""
    return np.array([[FOCAL, 0.0, 0.5], [0.0, FOCAL, 0.5], [0.0, 0.0, 1.0]])


def labels_from_rotations(
    rotations: NDArray[np.floating], offsets: NDArray[np.floating] | None = None
) -> NDArray[np.float32]:
    """Turn head rotations into camera labels.

    Args:
        rotations: ``[T,3,3]``, head axes to viewer axes (x right, y up, z toward the viewer).
        offsets: places of the cameras ``[T,3]`` beside those of cameras that look at the origin
            (:func:`offsets_from_labels`); None means such cameras.

    Returns:
        ``[T,25]``.
    """
    rotation = np.asarray(rotations, dtype=np.float64)
    cam2world = np.zeros((len(rotation), 4, 4))
    world2cam = _FLIP @ rotation
    cam2world[:, :3, :3] = world2cam.transpose(0, 2, 1)
    # x_cam = W X + (0, 0, RADIUS)  =>  the camera sits at -W^T (0, 0, RADIUS)
    cam2world[:, :3, 3] = -RADIUS * cam2world[:, :3, 2]
    if offsets is not None:
        cam2world[:, :3, 3] += np.einsum("tij,tj->ti", cam2world[:, :3, :3], offsets)
    cam2world[:, 3, 3] = 1.0
    k = np.broadcast_to(intrinsics().reshape(1, 9), (len(rotation), 9))
    return np.concatenate([cam2world.reshape(-1, 16), k], axis=1).astype(np.float32)


def offsets_from_labels(labels: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the offsets of cameras ``[T,25]`` from the places where they would look at the origin.

    Returns:
        ``[T,3]`` in box units along the camera's own axes (right, down, forward): 0 for every camera on an
        orbit of radius ``RADIUS``.
    """
    cam2world = np.asarray(labels, dtype=np.float64)[:, :16].reshape(-1, 4, 4)
    away = cam2world[:, :3, 3] + RADIUS * cam2world[:, :3, 2]
    offsets = np.einsum("tji,tj->ti", cam2world[:, :3, :3], away)
    return np.where(np.abs(offsets).max(1, keepdims=True, initial=0.0) < _NO_OFFSET, 0.0, offsets)


def rotations_from_labels(labels: NDArray[np.floating]) -> NDArray[np.float64]:
    """Invert :func:`labels_from_rotations`: head rotations ``[T,3,3]`` from labels ``[T,25]``."""
    cam2world = np.asarray(labels, dtype=np.float64)[:, :16].reshape(-1, 4, 4)
    return _FLIP @ cam2world[:, :3, :3].transpose(0, 2, 1)


def orbit_rotation(yaw_rad: float, pitch_rad: float, roll_rad: float = 0.0) -> NDArray[np.float64]:
    """Return the head rotation ``[3,3]`` seen from ``(sin yaw cos pitch, sin pitch, cos yaw cos pitch)``.

    ``roll_rad`` > 0 turns the head clockwise in the image (the image's top toward its right).
    """
    euler = Rotation.from_euler("ZXY", [-roll_rad, pitch_rad, -yaw_rad])
    return np.asarray(euler.as_matrix())


def angles_from_labels(labels: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the angles of labels ``[T,25]``: the inverse of :func:`orbit_rotation`.

    Returns:
        ``(yaw_rad, pitch_rad, roll_rad)`` ``[T,3]``.
    """
    euler = Rotation.from_matrix(rotations_from_labels(labels)).as_euler("ZXY")
    return np.stack([-euler[:, 2], euler[:, 1], -euler[:, 0]], axis=1)


def orbit_labels(yaw_rad: float, pitch_rad: float, roll_rad: float = 0.0) -> NDArray[np.float32]:
    """Return one camera label ``[1,25]`` at the given angles."""
    return labels_from_rotations(orbit_rotation(yaw_rad, pitch_rad, roll_rad)[None])


def smooth_labels(labels: NDArray[np.floating], window: int = 2) -> NDArray[np.float32]:
    """Average cameras over a window of ``window`` frames ending at each frame (paper section 3.3).

    Their rotations and their offsets from orbits are averaged. The first frames average over the frames that
    there are. ``window=1`` returns the labels unchanged.

    Raises:
        ValueError: if ``window`` is less than 1.
    """
    if window < 1:
        raise ValueError(f"smoothing window must be at least 1 frame, got {window}; set render.pose_window")
    rotation, offset = Rotation.from_matrix(rotations_from_labels(labels)), offsets_from_labels(labels)
    if not len(labels):
        return np.asarray(labels, dtype=np.float32)
    turns = np.stack([rotation[span].mean().as_matrix() for span in _spans(len(labels), window)])
    return labels_from_rotations(turns, window_means(offset, window))


def window_means(values: NDArray[np.floating], window: int) -> NDArray[np.float64]:
    """Average rows ``[T,d]``, T >= 1, over a window of ``window`` rows that ends at each of them."""
    return np.stack([values[span].mean(axis=0) for span in _spans(len(values), window)])


def _spans(count: int, window: int) -> list[slice]:
    return [slice(max(0, i - window + 1), i + 1) for i in range(count)]


def project_to_crop(
    labels: Float[Tensor, "b 25"], points: Float[Tensor, "b n 3"], size: int
) -> Float[Tensor, "b n 3"]:
    """Project box-frame points into a ``size`` x ``size`` image.

    Returns:
        ``(x px, y px, depth)``: pixel centres at +0.5, depth along the optical axis in box units.
    """
    cam2world = labels[:, :16].reshape(-1, 4, 4)
    k = labels[:, 16:].reshape(-1, 3, 3)
    local = (points - cam2world[:, None, :3, 3]) @ cam2world[:, :3, :3]  # rows times R = R^T column
    depth = local[..., 2:]
    flat = local[..., :2] / depth
    # slices and diagonals: lists of places would be copied to the device at every call
    uv = flat * k.diagonal(dim1=1, dim2=2)[:, None, :2] + k[:, None, :2, 2]
    uv = torch.cat([uv[..., :1] + k[:, None, 0, 1:2] * flat[..., 1:], uv[..., 1:]], dim=-1)  # the skew
    return torch.cat([uv * size, depth], dim=-1)


def crop_rays(
    labels: Float[Tensor, "b 25"], size: int
) -> tuple[Float[Tensor, "b n 3"], Float[Tensor, "b n 3"]]:
    """Return unit rays through all pixel centres, row by row: origins and directions ``[B,size*size,3]``."""
    cam2world = labels[:, :16].reshape(-1, 4, 4)
    k = labels[:, 16:].reshape(-1, 3, 3)
    centre = (torch.arange(size, device=labels.device, dtype=labels.dtype) + 0.5) / size
    v, u = torch.meshgrid(centre, centre, indexing="ij")
    y = (v.reshape(1, -1) - k[:, 1, 2:3]) / k[:, 1, 1:2]
    x = (u.reshape(1, -1) - k[:, 0, 2:3] - k[:, 0, 1:2] * y) / k[:, 0, 0:1]  # k[0,1] is the skew
    local = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    direction = torch.nn.functional.normalize(local @ cam2world[:, :3, :3].transpose(1, 2), dim=-1)
    origin = cam2world[:, None, :3, 3].expand_as(direction)
    return origin, direction


def degrees(angles_rad: NDArray[np.floating]) -> NDArray[np.float64]:
    """Convert angles to degrees, for reports."""
    return np.asarray(angles_rad) * (180.0 / math.pi)
