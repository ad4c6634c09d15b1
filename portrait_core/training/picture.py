"""Pixels of synthetic pictures: coverage by a mesh, painted colour, edges, depth, background."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from portrait_core.cameras import FOCAL
from portrait_core.face_model.easing import smoothstep
from portrait_core.face_model.raster import Fragments
from portrait_core.training.appearance import WALL_HALF, WALL_Z
from portrait_core.training.surfaces import Array

BOX_HALF = 0.36
"""Half of the side of the generator's box, outside which nothing is foreground."""


@dataclass(frozen=True)
class Visible:
    """Pixels ``[n]`` (row major) that show a mesh inside the box.

    Holds the face, its vertices ``[n,3]``, the barycentric weights ``[n,3]`` and the depth along the optical
    axis ``[n]``.
    """

    pixel: NDArray[np.int64]
    face: NDArray[np.int64]
    corner: NDArray[np.int64]
    weight: Array
    depth: Array


@dataclass(frozen=True)
class Drawn:
    """Shaded pixels: colour ``[n,3]``, opacity ``[n]``, depth ``[n]``, extra attributes ``[n,k]``."""

    pixel: NDArray[np.int64]
    colour: Array
    opacity: Array
    depth: Array
    extra: Array


def smooth_edges(rgba: Array, depth: Array) -> Array:
    """Soften the outline and inner depth edges of a picture drawn with one sample per pixel.

    ``rgba [S,S,4]`` has colour times coverage. A 3x3 blur of the coverage of a smooth outline is close to the
    covered fraction of each pixel, so this replaces supersampling at a third of its cost.
    """
    blurred = cv2.GaussianBlur(rgba, (3, 3), 0.65)
    near = np.where(np.isfinite(depth), depth, 9.0).astype(np.float32)
    kernel = np.ones((3, 3), np.uint8)
    step = cv2.dilate(near, kernel) - cv2.erode(near, kernel)
    edge = smoothstep(0.02, 0.06, step)[..., None].astype(np.float32)
    return np.clip(rgba + edge * (blurred - rgba), 0, 1)


def ray_depth(depth: Array) -> Array:
    """Return the distance along the ray ``[S/2,S/2]`` from depth along the optical axis ``[S,S]``.

    Empty pixels are inf in the input and 0 in the result. A pixel of the result has its centre on the corner
    of four of the input: their mean where they lie on one surface, else the nearest of those that cover at
    least half of it.
    """
    size = depth.shape[0] // 2
    four = depth.reshape(size, 2, size, 2).transpose(0, 2, 1, 3).reshape(size, size, 4)
    ordered = np.sort(four, -1)
    whole = np.where(np.isfinite(ordered[..., 3]), ordered[..., 3], 1e3) - ordered[..., 0] < 0.03
    value = np.where(whole, np.where(np.isfinite(four), four, 0).mean(-1), ordered[..., 1])
    x = ((np.arange(size) + 0.5) / size - 0.5) / FOCAL
    stretch = np.sqrt(1 + x[None] ** 2 + x[:, None] ** 2)
    return np.where(np.isfinite(value), np.where(np.isfinite(value), value, 0.0) * stretch, 0.0)


def pixel_rays(camera: Array, size: int) -> tuple[Array, Array]:
    """Return camera centre ``[3]`` and directions ``[size,size,3]`` of unit depth along the optical axis."""
    pose = camera[:16].reshape(4, 4)
    x = ((np.arange(size, dtype=np.float32) + 0.5) / size - 0.5) / FOCAL
    right, down, forward = pose[:3, :3].T
    direction = x[None, :, None] * right + x[:, None, None] * down + forward
    return pose[:3, 3], direction.astype(np.float32)


def visible(fragments: Fragments, faces: torch.Tensor, camera: Array) -> Visible:
    """Return the pixels where a mesh is visible inside the generator's box."""
    face = fragments.face_id[0].reshape(-1)
    pixel = (face >= 0).nonzero()[:, 0]
    depth = fragments.depth[0].reshape(-1)[pixel].numpy()
    pose, size = camera[:16].reshape(4, 4), fragments.face_id.shape[-1]
    index = pixel.numpy()
    at = np.stack([index % size, index // size], 1).astype(np.float32)
    local = np.concatenate([((at + 0.5) / size - 0.5) / FOCAL, np.ones_like(at[:, :1])], 1)
    point = (local * depth[:, None]) @ pose[:3, :3].T.astype(np.float32) + pose[:3, 3]
    inside = (np.abs(point) <= BOX_HALF).all(1)
    if inside.all():
        return _gather(fragments, faces, pixel, depth)
    return _gather(fragments, faces, pixel[torch.from_numpy(inside)], depth[inside])


def _gather(fragments: Fragments, faces: torch.Tensor, pixel: torch.Tensor, depth: Array) -> Visible:
    face = fragments.face_id[0].reshape(-1)[pixel]
    weight = fragments.bary[0].reshape(-1, 3)[pixel].numpy()
    return Visible(pixel.numpy(), face.numpy(), faces[face].numpy(), weight, depth)


def paint(atlas: Array, table: Array, seen: Visible) -> Drawn:
    """Interpolate a vertex table ``[N, 3 lit + 3 sheen + 2 atlas + k]``; multiply lit colour by the atlas.

    The atlas's fourth channel becomes the opacity.
    """
    value = torch.from_numpy(table)
    corner, weight = torch.from_numpy(seen.corner), torch.from_numpy(seen.weight)
    terms = [value[corner[:, k]] * weight[:, k : k + 1] for k in range(3)]
    out = (terms[0] + terms[1] + terms[2]).numpy()
    detail = lookup(atlas, out[:, 6:8])
    colour = out[:, :3] * detail[:, :3] + out[:, 3:6]
    return Drawn(seen.pixel, colour, detail[:, 3].copy(), seen.depth, out[:, 8:])


def lookup(atlas: Array, at: Array, width: int = 512) -> Array:
    """Sample an image bilinearly at (column, row) ``[n,2]``, as ``[n,C]``."""
    rows = -(-len(at) // width)
    padded = np.zeros((rows * width, 2), dtype=np.float32)
    padded[: len(at)] = at
    grid = padded.reshape(rows, width, 2)
    if not rows:
        return np.zeros((0, atlas.shape[-1]), dtype=np.float32)
    column, row = np.ascontiguousarray(grid[..., 0]), np.ascontiguousarray(grid[..., 1])
    out = cv2.remap(atlas, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(out.reshape(rows * width, -1)[: len(at)])


def wall_view(wall: NDArray[np.uint8], camera: Array, size: int) -> Array:
    """Draw the background plane as the camera shows it, ``[size,size,3]`` in 0..1: bilinear, border clamped.

    Row 0 of the picture is the plane's top (y = 0.8), column 0 its left (x = -0.8).
    """
    origin, direction = pixel_rays(camera, size)
    hit = origin + direction * ((WALL_Z - origin[2]) / direction[..., 2])[..., None]
    n = wall.shape[0]
    column = (hit[..., 0] / WALL_HALF + 1) / 2 * n - 0.5
    row = (1 - hit[..., 1] / WALL_HALF) / 2 * n - 0.5
    picture = wall.astype(np.float32) / 255.0
    seen = cv2.remap(
        picture,
        column.astype(np.float32),
        row.astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(seen)
