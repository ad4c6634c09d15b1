"""Surfaces laid over the head for synthetic pictures.

They are designed on the average head and follow its shape, because every point moves with the skin nearest to
it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Skin:
    """The skin of the average head: positions ``[N,3]`` in metres and their vertex indices ``[N]``."""

    position: Array
    index: NDArray[np.int64]


class Follower:
    """Moves points with the skin: each takes the weighted displacement of its nearest skin vertices."""

    def __init__(self, skin: Skin, points: Array, neighbours: int = 12, width_m: float = 0.02) -> None:
        distance, near = cKDTree(skin.position).query(points, k=neighbours)
        weight = np.exp(-0.5 * ((distance - distance[:, :1]) / width_m) ** 2)
        self.index = skin.index[near]
        self.weight = (weight / weight.sum(1, keepdims=True)).astype(np.float32)

    def __call__(self, displacement: Array) -> Array:
        """Return the points' displacement ``[n,3]`` from that of all head vertices ``[V,3]``."""
        return np.asarray(np.einsum("nk,nkc->nc", self.weight, displacement[self.index]), dtype=np.float32)


def grid_faces(rows: int, columns: int, closed: bool) -> NDArray[np.int64]:
    """Return the triangles of a ``rows`` x ``columns`` grid of vertices (row major).

    ``closed`` joins the last column to the first.
    """
    r, c = np.meshgrid(np.arange(rows - 1), np.arange(columns if closed else columns - 1), indexing="ij")
    right = (c + 1) % columns
    a, b, d, e = r * columns + c, r * columns + right, (r + 1) * columns + c, (r + 1) * columns + right
    return np.stack([np.stack([a, d, b], -1), np.stack([b, d, e], -1)], 2).reshape(-1, 3)


def grid_normals(points: Array, rows: int, columns: int, closed: bool) -> Array:
    """Return unit normals ``[rows*columns,3]`` of a grid surface, from differences of neighbours."""
    p = points.reshape(rows, columns, 3)
    down = np.gradient(p, axis=0)
    along = (np.roll(p, -1, 1) - np.roll(p, 1, 1)) if closed else np.gradient(p, axis=1)
    normal = np.cross(down, along)
    normal[0] += normal[1] * 1e-3  # the crown's row may be a single point
    return (
        (normal / (np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-9)).reshape(-1, 3).astype(np.float32)
    )


def wave_noise(
    x: NDArray[np.floating], y: NDArray[np.floating], seed: int, terms: int = 12
) -> NDArray[np.floating]:
    """Return smooth fixed noise of about unit variance: a sum of plane waves with wave numbers up to 1."""
    rng = np.random.default_rng(seed)
    total = np.zeros(np.broadcast(x, y).shape)
    for _ in range(terms):
        kx, ky, phase = rng.uniform(-1, 1), rng.uniform(-1, 1), rng.uniform(0, 2 * np.pi)
        total += np.sin(2 * np.pi * (kx * x + ky * y) + phase)
    return total * np.sqrt(2.0 / terms)
