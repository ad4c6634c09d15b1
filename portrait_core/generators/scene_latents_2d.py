"""The latent vector of the embedded 2D generator: a scene's, then the camera's yaw and pitch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from portrait_core.cameras import angles_from_labels
from portrait_core.generators.scene_latents import APPEARANCE, N_EXPRESSION, N_LATENT, N_SHAPE

N_LATENT_2D = N_LATENT + 2
YAW_SCALE, PITCH_SCALE = 0.4, 0.22
"""Radians of yaw and pitch that are 1 in z: about their deviations in the training pictures."""
LAYOUT_2D = {
    "shape": N_SHAPE,
    "expression": N_EXPRESSION,
    "appearance": list(APPEARANCE),
    "pose": {"yaw_rad": YAW_SCALE, "pitch_rad": PITCH_SCALE},
}


def latents_2d(
    z: NDArray[np.floating],
    yaw_rad: NDArray[np.floating] | float,
    pitch_rad: NDArray[np.floating] | float,
) -> NDArray[np.float32]:
    """Return latents ``[...,122]`` of scenes seen from a camera.

    Args:
        z: scenes ``[...,120]``.
        yaw_rad: yaw of the camera, ``[...]`` or one for all.
        pitch_rad: pitch of the camera, ``[...]`` or one for all.

    Raises:
        ValueError: if z has another length.
    """
    z = np.asarray(z, np.float32)
    if z.shape[-1] != N_LATENT:
        raise ValueError(f"scene latents have shape {list(z.shape)}, expected [...,{N_LATENT}]")
    pose: list[Any] = [np.asarray(yaw_rad) / YAW_SCALE, np.asarray(pitch_rad) / PITCH_SCALE]
    columns = [np.broadcast_to(value, z.shape[:-1]).astype(np.float32)[..., None] for value in pose]
    return np.concatenate([z, *columns], axis=-1)


def pose_latents(camera: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return what :func:`latents_2d` adds to a scene's latents ``[B,2]``, for camera labels ``[B,25]``."""
    yaw_rad, pitch_rad, _ = angles_from_labels(camera).T
    return latents_2d(np.zeros((len(camera), N_LATENT)), yaw_rad, pitch_rad)[:, N_LATENT:]
