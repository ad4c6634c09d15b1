"""Shoulders and a collar below the head, for synthetic pictures: lofts around the neck."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from portrait_core.face_model.easing import smoothstep
from portrait_core.training.surfaces import Array, Follower, Skin, grid_faces, grid_normals

COLUMNS = 56
AXIS_Z_M = -0.095
"""Depth of the neck's axis."""
BASE_HEIGHT_M = -0.157
"""Height where the head mesh ends and the shoulders begin."""
# shoulders: distance from the neck's base (m) of each ring, and how far it has dropped below the base at the
# front, the side and the back
OUT = np.array([-0.022, -0.008, 0.006, 0.022, 0.045, 0.075, 0.12])
DROP_FRONT = np.array([-0.014, -0.006, 0.003, 0.014, 0.030, 0.048, 0.070])
DROP_SIDE = np.array([-0.016, -0.005, 0.002, 0.007, 0.014, 0.024, 0.045])
DROP_BACK = np.array([-0.022, -0.009, 0.003, 0.012, 0.026, 0.045, 0.075])
# collar: out from the neck (m) and height (fraction of the collar) up its inside and down its outside
COLLAR_OUT = np.array([0.001, 0.003, 0.006, 0.011, 0.014])
COLLAR_UP = np.array([0.70, 1.00, 1.02, 0.45, -0.30])


@dataclass(frozen=True)
class Clothing:
    """Parameters of the clothing.

    ``collar_m`` height of the collar; ``flare`` 0..1 how far it stands off; ``open_front`` 0..1 how far it
    parts at the throat; ``slope`` -1..1 drop of the shoulders.
    """

    collar_m: float
    flare: float
    open_front: float
    slope: float


class Torso:
    """Shoulder and collar surfaces of constant topology (shoulders first, then the collar)."""

    def __init__(self, skin: Skin) -> None:
        self.azimuth = ((np.arange(COLUMNS) + 0.5) / COLUMNS * 2 - 1) * np.pi
        neck = (skin.position[:, 1] < -0.118) & (skin.position[:, 2] < -0.02)
        q = skin.position[neck]
        turn = np.arctan2(q[:, 0], q[:, 2] - AXIS_Z_M)
        self._tree = cKDTree(np.stack([np.cos(turn), np.sin(turn), q[:, 1] / 0.05], 1))
        self._radius = np.hypot(q[:, 0], q[:, 2] - AXIS_Z_M)
        self.shoulder_rows, self.collar_rows = len(OUT), len(COLLAR_OUT)
        shoulder = grid_faces(self.shoulder_rows, COLUMNS, closed=True)
        collar = grid_faces(self.collar_rows, COLUMNS, closed=True)
        self.faces = np.concatenate([shoulder, collar + self.shoulder_rows * COLUMNS])
        self.n_vertices = (self.shoulder_rows + self.collar_rows) * COLUMNS
        base = self._ring(np.full(COLUMNS, BASE_HEIGHT_M), np.zeros(COLUMNS))
        self._base_radius = np.hypot(base[:, 0], base[:, 2] - AXIS_Z_M)
        self._follower = Follower(skin, base.astype(np.float32), width_m=0.03)

    def _ring(self, height: Array, offset: Array) -> Array:
        """Return points around the neck at ``height [COLUMNS]``, ``offset`` metres off the skin."""
        query = np.stack(
            [np.cos(self.azimuth), np.sin(self.azimuth), np.clip(height, -0.16, -0.12) / 0.05], 1
        )
        distance, near = self._tree.query(query, k=6)
        weight = np.exp(-0.5 * (distance / 0.15) ** 2) + 1e-6
        radius = (weight * self._radius[near]).sum(1) / weight.sum(1) + offset
        x, z = radius * np.sin(self.azimuth), AXIS_Z_M + radius * np.cos(self.azimuth)
        return np.stack([x, height, z], 1)

    def build(self, clothing: Clothing, displacement: Array) -> tuple[Array, Array]:
        """Return positions and unit normals ``[N,3]`` from clothing and the head's displacement ``[V,3]``."""
        moved = self._follower(displacement)
        shoulder = self._shoulders(clothing) + moved[None]
        collar = self._collar(clothing) + moved[None]
        rows = ((shoulder, self.shoulder_rows), (collar, self.collar_rows))
        flat = [p.reshape(-1, 3).astype(np.float32) for p, _ in rows]
        normals = [grid_normals(p, n, COLUMNS, closed=True) for p, (_, n) in zip(flat, rows, strict=True)]
        return np.concatenate(flat), np.concatenate(normals)

    def _shoulders(self, clothing: Clothing) -> Array:
        front = np.clip(np.cos(self.azimuth), 0, 1) ** 1.5
        back = np.clip(-np.cos(self.azimuth), 0, 1) ** 1.5
        side = np.clip(1 - front - back, 0, 1)
        total = front + back + side
        drop = (np.outer(DROP_FRONT, front) + np.outer(DROP_SIDE, side) + np.outer(DROP_BACK, back)) / total
        drop = drop * (1 + 0.35 * clothing.slope * np.clip(OUT, 0, None)[:, None] / 0.12)
        radius = self._base_radius[None] + OUT[:, None] + 0.004
        stretch = 1 + 0.55 * side[None] * np.clip(OUT, 0, None)[:, None] / 0.12
        x, z = radius * stretch * np.sin(self.azimuth), AXIS_Z_M + radius * np.cos(self.azimuth)
        return np.stack([x, BASE_HEIGHT_M + 0.006 - drop, z], -1)

    def _collar(self, clothing: Clothing) -> Array:
        parted = 1 - clothing.open_front * smoothstep(1.1, 0.0, np.abs(self.azimuth))
        up = np.maximum(clothing.collar_m * parted, 0.001)
        rings = []
        for out, share in zip(COLLAR_OUT, COLLAR_UP, strict=True):
            height = BASE_HEIGHT_M - 0.004 + up * share
            flare = clothing.flare * 0.014 * np.clip(share, 0, 1) * (0.4 + 0.6 * up / 0.03)
            rings.append(self._ring(height, 0.002 + out + flare))
        return np.stack(rings)
