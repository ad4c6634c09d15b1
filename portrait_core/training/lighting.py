"""Light on synthetic people: diffuse light per vertex, a soft cast shadow, highlights."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from portrait_core.face_model.raster import rasterize
from portrait_core.training.appearance import Light
from portrait_core.training.surfaces import Array

SHADOW_SIZE = 128
SHADOW_SLACK = 0.012
"""Box units (6 mm) by which a surface must be behind another to lie in its shadow."""


def diffuse(normals: Array, light: Light, occlusion: Array, shadow: Array) -> Array:
    """Return the light ``[N,3]`` that vertices receive: ambient from above, the key light, a weak fill."""
    sky = 0.72 + 0.28 * normals[:, 1]
    key = np.clip((normals @ light.toward + 0.12) / 1.12, 0, None) * (0.25 + 0.75 * shadow)
    across = light.toward * [-1.0, 0.3, 0.6]
    fill = np.clip(normals @ (across / np.linalg.norm(across)), 0, None)
    soft = occlusion[:, None]
    direct = 0.45 + 0.55 * occlusion  # occluded places receive less of the key light too
    return np.asarray(
        soft * (sky[:, None] * light.ambient + fill[:, None] * light.fill)
        + (key * direct)[:, None] * light.key
    )


def key_shadow(points: Array, faces: Tensor, toward: Array) -> Array:
    """Return the fraction ``[N]`` of the key light at each point, from one blurred orthographic depth map."""
    side = np.cross([0.0, 1.0, 0.0], toward)
    side /= np.linalg.norm(side)
    frame = np.stack([side, np.cross(side, toward), toward], 1)  # y down, as in a picture
    local = points @ frame
    low = local.min(0)
    scale = (SHADOW_SIZE - 3) / (local.max(0) - low)[:2].max()
    pixel = (local[:, :2] - low[:2]) * scale + 1.5
    depth = local[:, 2].max() - local[:, 2] + 1.0
    stacked = torch.from_numpy(np.concatenate([pixel, depth[:, None]], 1).astype(np.float32))
    seen = rasterize(stacked[None], faces, SHADOW_SIZE, SHADOW_SIZE, cull_backfaces=True)
    nearest = seen.depth[0].numpy()
    column, row = pixel.astype(int).T
    lit = np.zeros(len(points), dtype=np.float32)
    steps = (-2, -1, 0, 1, 2)
    for dy in steps:
        for dx in steps:
            r, c = np.clip(row + dy, 0, SHADOW_SIZE - 1), np.clip(column + dx, 0, SHADOW_SIZE - 1)
            lit += depth <= nearest[r, c] + SHADOW_SLACK + 0.35 * (abs(dx) + abs(dy)) / scale
    return lit / len(steps) ** 2


def halfway(points: Array, eye: Array, light: Light) -> Array:
    """Return unit vectors ``[N,3]`` midway between the key light and the camera."""
    view = eye - points
    half = view / np.linalg.norm(view, axis=1, keepdims=True) + light.toward
    return np.asarray(half / np.linalg.norm(half, axis=1, keepdims=True))


def skin_sheen(points: Array, normals: Array, eye: Array, light: Light, strength: Array) -> Array:
    """Return the highlight ``[N,3]`` of a slightly glossy skin."""
    facing = np.clip((normals * halfway(points, eye, light)).sum(1), 0, 1)
    return np.asarray((strength * (0.7 * facing**14 + 0.9 * facing**60))[:, None] * light.key)


def strand_sheen(
    points: Array, tangents: Array, eye: Array, light: Light, hair: Array, shadow: Array
) -> Array:
    """Return the highlight ``[N,3]`` of strands: a band where they are normal to the halfway vector."""
    along = (tangents * halfway(points, eye, light)).sum(1)
    band = np.clip(1 - along**2, 0, 1) ** 18 * (0.2 + 0.8 * shadow)
    return np.asarray(
        0.16 * band[:, None] * (0.25 + 0.75 * hair / hair.max()) * light.key * (0.25 + 0.6 * hair.mean())
    )


def eye_glint(
    points: Array, normals: Array, corner: NDArray[np.int64], weight: Array, eye: Array, light: Light
) -> Array:
    """Return the key light's reflection on eyeball pixels ``[n]``, from vertices and weights ``[n,3]``."""
    normal = (normals[corner] * weight[..., None]).sum(1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    facing = (normal * halfway((points[corner] * weight[..., None]).sum(1), eye, light)).sum(1)
    return np.asarray(0.9 * np.clip((facing - 0.985) / 0.008, 0, 1), dtype=np.float32)
